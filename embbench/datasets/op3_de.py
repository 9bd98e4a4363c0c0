"""Differential expression of OP3 as openproblems publishes it: compounds x cell types, tested with limma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._h5ad import column, column_names, describe, index_names, length
from embbench.datasets._matrix import open_matrix
from embbench.datasets._open import open_anndata
from embbench.datasets._published import Published, first_column
from embbench.datasets._recipes import curate, left_out, recipe_of
from embbench.genes import harmonise

VALUES = {  # layer -> unit of the effects
    "logFC": "log2fc",
    "sign_log10_pval": "rank_score",
    "clipped_sign_log10_pval": "rank_score",
    "t": "zscore",
}
CONTROL = "Dimethyl Sulfoxide"
KEPT = ("split", "sm_lincs_id", "SMILES", "control")
UNUSED = (  # rows that are no condition: what they are, column, its value
    ("of the vehicle", "sm_name", CONTROL),
    ("without sm_name", "sm_name", ""),
    ("without cell_type", "cell_type", ""),
)
FILE = "file_split"  # covariate: train or test, by the file that a condition is in


class Op3De:
    """``de_train.h5ad`` and ``de_test.h5ad`` below one another.

    limma works on log2 counts per million, so ``logFC`` is a log2 fold change (unit log2fc); the task's own target,
    ``sign_log10_pval`` clipped to -4 ... 4, is a score. Both were tested against the same vehicle wells (``controls:
    shared``). Labels are the sign of logFC where ``adj.P.Value`` is below ``alpha``; entries without a p value were not
    tested. A gene that only one of the files has is left out and counted, as are rows of the vehicle and rows without a
    compound or a cell type.

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`.
    values : layer of the effects, of `VALUES`.
    alpha : of the labels.
    recipe : ``embbench`` (all that is published), or one of ``recipes``.
    recipes : see `embbench.datasets._recipes.Recipe`.
    default_split, default_context_embedding : for ``meta``.

    Raises
    ------
    ValueError
        ``values`` or ``alpha`` is none of those.

    References
    ----------
    Szałata et al. (2024), NeurIPS Datasets and Benchmarks; layers as in openproblems-bio/task_perturbation_prediction,
    src/api/file_de_train.yaml (02def51). Ritchie et al. (2015), limma, Nucleic Acids Research 43:e47.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        root: str = "",
        only: str = "",
        values: str = "logFC",
        alpha: float = 0.05,
        recipe: str = "embbench",
        recipes: Mapping[str, Mapping[str, Any]] | None = None,
        default_split: str = "",
        default_context_embedding: str = "",
    ) -> None:
        if values not in VALUES:
            raise ValueError(f"Op3De: values must be one of {', '.join(VALUES)}, got {values!r}")
        if not 0 < alpha < 1:
            raise ValueError(f"Op3De: alpha must lie between 0 and 1, got {alpha!r}")
        self.published = Published.of(name, files, root, only)
        self.values, self.alpha = values, alpha
        self.recipe = recipe_of(recipe, recipes or {}, name)
        facts = {"default_split": default_split, "default_context_embedding": default_context_embedding}
        self.facts = {key: value for key, value in facts.items() if value}

    def check(self) -> list[str]:
        """What the files hold, line by line; `UserError`: they are not fetched, or not as published."""
        data = self.load()
        tested = 0 if data.labels_tested is None else int(data.labels_tested.sum())
        return [
            f"{len(data):,} conditions x {len(data.genes):,} genes, {self.values} ({data.unit})",
            f"{len(data.entity_names):,} compounds in {len(data.contexts)} cell types ({describe(data.contexts)})",
            f"{tested:,} tested entries, {int(np.count_nonzero(np.asarray(data.labels))):,} differentially expressed",
        ]

    def load(self) -> PerturbationDataset:
        """The screen, shape (n, g).

        Raises
        ------
        UserError
            The files are not fetched, lack a column or layer, or hold values that no such table holds.
        """
        self.published.require()
        names = [stored for stored in self.published.stored if stored.endswith(".h5ad")]
        notes: list[str] = []
        genes = self._genes(names, notes)
        tables = [self._table(stored, genes) for stored in names]
        whole = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
        out = left_out(self.recipe, lambda key: whole[key], len(whole["sm_name"]), notes)
        for what, key, value in UNUSED:
            lost = ~out & (whole[key] == value)
            if lost.any():
                notes.append(f"rows {what}, left out: {int(lost.sum()):,}")
            out = out | lost
        keep = np.flatnonzero(~out)
        whole = {key: values[keep] for key, values in whole.items()}
        self._check(whole)
        return curate(self._screen(whole, genes, notes), self.recipe)

    def _genes(self, names: Sequence[str], notes: list[str]) -> np.ndarray:
        """Names that all files have, in the order of the first, shape (g,)."""
        named = []
        for stored in names:
            with open_anndata(self.published.path(stored)) as file:
                named.append(index_names(file, "var"))
        shared = set.intersection(*(set(each.tolist()) for each in named))
        kept = np.array([name for name in named[0].tolist() if name in shared], dtype=object)
        lost = len(set().union(*(each.tolist() for each in named))) - len(kept)
        if not len(kept) or len(set(kept.tolist())) < len(kept):
            raise UserError(
                f"{self.published.name}: expected the same genes, each once, in all files, found {len(kept)}"
            )
        if lost:
            notes.append(f"genes that not all files have, left out: {lost:,}")
        return kept

    def _table(self, stored: str, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Columns (m,) and layers (m, g) of a file."""
        with open_anndata(self.published.path(stored)) as file:
            known, cells = column_names(file, "obs"), length(file, "obs")
            for key in ("sm_name", "cell_type"):
                first_column(self.published.name, key, key, known)
            out = {key: column(file, "obs", key, key).text() for key in ("sm_name", "cell_type")}
            for key in KEPT:
                out[key] = column(file, "obs", key, key).text() if key in known else np.full(cells, "", dtype=object)
            role = "train" if "train" in stored else "test"
            out[FILE] = np.full(cells, role, dtype=object)
            places = {name: i for i, name in enumerate(index_names(file, "var").tolist())}
            order = np.array([places[name] for name in genes.tolist()])
            for layer in dict.fromkeys((self.values, "logFC", "adj.P.Value")):
                matrix = open_matrix(file, layer, (cells, len(places)))
                blocks = [block for _, block in matrix.chunks()]
                out[layer] = sparse.vstack(blocks).toarray()[:, order].astype(np.float32)
        return out

    def _check(self, whole: Mapping[str, np.ndarray]) -> None:
        """Values that such tables hold, each condition once."""
        p, change = whole["adj.P.Value"], whole["logFC"]
        seen = p[np.isfinite(p)]
        if not seen.size or seen.min() < 0 or seen.max() > 1:
            found = f"{seen.min():g} to {seen.max():g}" if seen.size else "none"
            raise UserError(
                f"{self.published.name}: expected adj.P.Value between 0 and 1, found {found}; fetch it again"
            )
        if not (change < 0).any() or not (change > 0).any():
            raise UserError(f"{self.published.name}: expected logFC of both signs, found one; the file is another one")
        pairs = list(zip(whole["sm_name"].tolist(), whole["cell_type"].tolist(), strict=True))
        if repeated := sorted({pair for pair in pairs if pairs.count(pair) > 1}):
            raise UserError(
                f"{self.published.name}: expected each compound once in each cell type, found {len(repeated)} repeated "
                f"({describe(['/'.join(pair) for pair in repeated])}); the files overlap: fetch them again"
            )

    def _screen(self, whole: Mapping[str, np.ndarray], genes: np.ndarray, notes: list[str]) -> PerturbationDataset:
        effects, p = whole[self.values], whole["adj.P.Value"]
        observed, tested = np.isfinite(effects), np.isfinite(p) & np.isfinite(whole["logFC"])
        labels = np.where(tested & (p < self.alpha), np.sign(np.nan_to_num(whole["logFC"])), 0).astype(np.int8)
        named = harmonise(genes.tolist())
        notes.extend(named.report.lines())
        notes.append(f"labels: sign of logFC where adj.P.Value < {self.alpha:g}, found {np.count_nonzero(labels):,}")
        meta = {"controls": "shared", "source": ", ".join(self.published.stored), "import_report": notes, **self.facts}
        return PerturbationDataset(
            name=self.published.name,
            effects=effects,
            unit=VALUES[self.values],
            genes=np.array(named.names, dtype=str),
            entities=tuple((name,) for name in whole["sm_name"].tolist()),
            entity_type="compound",
            context=whole["cell_type"].astype(str),
            observed=None if observed.all() else observed,
            covariates={key: whole[key].astype(str) for key in (FILE, *KEPT) if (whole[key] != "").any()},
            labels=labels,
            labels_tested=tested,
            log2fc=whole["logFC"],
            padj=p,
            meta=meta,
        )
