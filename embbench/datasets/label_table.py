"""Sparse label tables: one line per (perturbation, gene) with up, down or none, as published DE results come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import ENTITY_TYPES, UNITS, PerturbationDataset, UserError
from embbench.datasets._frames import column, kind, numbers, read_frame, words
from embbench.datasets._wide import UNTESTED, Entries, Wide, merge
from embbench.genes import harmonise, parse_perturbation

if TYPE_CHECKING:
    import pandas as pd

WORDS = {
    1: ("up", "over", "upregulated", "up-regulated", "increased", "activated", "1", "1.0", "+1", "+"),
    -1: ("down", "under", "downregulated", "down-regulated", "decreased", "repressed", "-1", "-1.0", "-"),
    0: ("none", "ns", "not significant", "no change", "unchanged", "0", "0.0"),
}
MISSING = ("none", "untested")
COMBINE = ("error", "mean")
SPLITS = ("unseen_perturbation", "unseen_context", "unseen_combination", "covariate_transfer")


@dataclass(frozen=True)
class LabelTable:
    """A screen of which only labels are known: ``labels`` in {-1, 0, 1} with their mask of tested entries.

    There are no cells, so training and truth labels are the same. Effects are the values where the table has them, else
    the labels themselves (unit ``rank_score``), so that heads of effects run on it as well.

    Parameters
    ----------
    path : ``.csv``, ``.tsv``, ``.txt`` (also ``.gz``) or ``.parquet``, one line per entry.
    perturbation_key, gene_key : columns of perturbation labels (read as `embbench.genes.parse_perturbation` does) and
        of genes.
    label_key : column of labels; without it the sign of the value is the label.
    value_key, unit : column of effects, and what they are: ``delta``, ``log2fc``, ``zscore`` or ``rank_score``.
    context_key : column(s) of the context, joined by ``|``; none: the single context ``all``.
    up, down, none : further words for the labels 1, -1 and 0, besides the well-known ones (`WORDS`); case is ignored.
    missing : pairs that the table does not list: ``none`` (tested, not significant: label 0, effect 0), or ``untested``
        (unknown: left out of fits and scores).
    min_genes : conditions with fewer entries are left out and counted.
    control : labels that are controls besides the well-known ones; their rows are left out and counted.
    entity_type : ``gene``, ``compound`` or ``auto``.
    combine : an entry that is listed twice is an error, or ``mean``: values are averaged, labels that disagree become
        untested.
    name, source, licence, default_split : facts for the report; the name is the file's by default.

    Raises
    ------
    ValueError
        A parameter is not one of its choices.

    Examples
    --------
    >>> LabelTable("de.tsv", label_key="direction", up="higher").meanings["higher"]
    1
    """

    path: str
    perturbation_key: str = "perturbation"
    gene_key: str = "gene"
    label_key: str | None = None
    value_key: str | None = None
    unit: str = "rank_score"
    context_key: str | Sequence[str] | None = None
    up: str | Sequence[str] = ()
    down: str | Sequence[str] = ()
    none: str | Sequence[str] = ()
    missing: str = "none"
    min_genes: int = 1
    control: str | Sequence[str] = ()
    entity_type: str = "auto"
    combine: str = "error"
    name: str = ""
    source: str = ""
    licence: str = ""
    default_split: str = "unseen_perturbation"

    def __post_init__(self) -> None:
        choices = {
            "unit": UNITS,
            "missing": MISSING,
            "entity_type": ("auto", *ENTITY_TYPES),
            "combine": COMBINE,
            "default_split": SPLITS,
        }
        for option, allowed in choices.items():
            if getattr(self, option) not in allowed:
                raise ValueError(
                    f"label_table: {option} must be one of {', '.join(allowed)}, got {getattr(self, option)!r}"
                )
        if self.min_genes < 1:
            raise ValueError(f"label_table: min_genes must be >= 1, got {self.min_genes}")
        if self.value_key is None and self.unit != "rank_score":
            raise ValueError(
                f"label_table: labels as effects are a rank_score, got unit={self.unit!r} but no value_key"
            )
        if self.value_key is None and self.label_key is None:
            raise ValueError("label_table: needs label_key (up, down, none) or value_key, got neither")
        twice = [word for word, n in Counter(w for w, _ in self._words()).items() if n > 1]
        if twice:
            raise ValueError(
                f"label_table: {', '.join(sorted(twice))} would have two meanings; check up, down and none"
            )

    def _words(self) -> set[tuple[str, int]]:
        own = {1: self.up, -1: self.down, 0: self.none}
        return {(str(w).strip().casefold(), label) for label in WORDS for w in (*WORDS[label], *_listed(own[label]))}

    @property
    def meanings(self) -> dict[str, int]:
        """Word, in lower case -> label."""
        return dict(sorted(self._words()))

    def load(self) -> PerturbationDataset:
        """Read, check and bring to the contract.

        Returns
        -------
        PerturbationDataset
            ``effects``, ``labels`` and ``labels_tested`` of shape (n, g); genes as approved symbols where they map.

        Raises
        ------
        UserError
            The file or its content does not fit; the message names file, column and next step.
        """
        path = Path(self.path)
        wide = self._read(path)
        genes = harmonise(wide.genes)
        labels = wide.keys["perturbation"].tolist()
        parsed = parse_perturbation(labels, _listed(self.control), genes.names, self.entity_type)
        entities = np.empty(len(labels), dtype=object)
        entities[:] = [parsed.entities[label] for label in labels]
        wide = Wide(wide.keys.assign(entities=entities), genes.names, wide.values, wide.labels)
        wide, left_out = self._cleaned(path, wide)
        mapping = {"genes": genes.report.as_dict(), "perturbations": parsed.report.as_dict(), "left_out": left_out}
        return _dataset(self, path, wide, parsed.entity_type, mapping)

    def _read(self, path: Path) -> Wide:
        """The file as conditions by genes; what it does not list is NaN and untested."""
        if kind(path) == "h5ad":
            raise UserError(f"label table {path}: expected one line per entry, found an h5ad; read it with table:FILE")
        text = (self.perturbation_key, self.gene_key, *_listed(self.context_key), *_listed(self.label_key))
        frame = read_frame(path, text)
        import pandas as pd

        keys = pd.DataFrame({"perturbation": words(frame, self.perturbation_key, path, "perturbation_key")})
        parts = [words(frame, key, path, "context_key") for key in _listed(self.context_key)]
        keys["context"] = ["|".join(names) for names in zip(*parts, strict=True)] if parts else "all"
        genes = words(frame, self.gene_key, path, "gene_key")
        labels = None if self.label_key is None else self._labels(path, frame, self.label_key)
        if self.value_key is not None:
            column(frame, self.value_key, path, "value_key")
            values = numbers(frame, [self.value_key], path, gaps=False)[:, 0]
            labels = np.sign(values).astype(np.int8) if labels is None else labels
        else:
            values = np.asarray(labels, dtype=np.float64)
        entries = Entries(keys, genes, values, labels)
        return entries.pivot(path, (), average=self.combine == "mean", absent_label=UNTESTED)

    def _labels(self, path: Path, frame: pd.DataFrame, key: str) -> np.ndarray:
        """The label column as (m,) int8; `UserError` that lists words nobody knows."""
        known = self.meanings
        found = [str(word).strip().casefold() for word in words(frame, key, path, "label_key")]
        if unknown := sorted(set(found) - known.keys()):
            shown = ", ".join(map(repr, unknown[:6])) + (f" ... ({len(unknown)} words)" if len(unknown) > 6 else "")
            raise UserError(
                f"label table {path}: column {key!r} (label_key) holds {shown}; say what they mean with up=, down= or "
                f"none=, or name another column of {', '.join(frame.columns[:12])}"
            )
        return np.array([known[word] for word in found], dtype=np.int8)

    def _cleaned(self, path: Path, wide: Wide) -> tuple[Wide, dict[str, int]]:
        """Without controls, repeats, nearly empty conditions and genes without an entry; and how many of each."""
        rows = np.flatnonzero(wide.keys["entities"].map(bool).to_numpy(dtype=bool))
        merged = merge(path, wide.take(rows), (), average=self.combine == "mean")
        enough = np.flatnonzero(np.isfinite(merged.values).sum(axis=1) >= self.min_genes)
        full = merged.take(enough)
        seen = np.isfinite(full.values).any(axis=0)
        left_out = {
            "control rows": len(wide.keys) - len(rows),
            "repeated conditions (combined)": len(rows) - len(merged.keys),
            f"conditions with fewer than {self.min_genes} entries": len(merged.keys) - len(enough),
            "genes without an entry": int((~seen).sum()),
        }
        if len(full.keys) < 2:
            lost = ", ".join(f"{n} {why}" for why, n in left_out.items() if n) or "nothing"
            raise UserError(
                f"label table {path}: expected two or more conditions, found {len(full.keys)} (left out: {lost}); "
                "check perturbation_key, control and min_genes"
            )
        return full.genes_where(seen), left_out


def _dataset(
    table: LabelTable, path: Path, wide: Wide, entity_type: str, mapping: dict[str, Any]
) -> PerturbationDataset:
    """The contract's fields; what is not listed becomes 0 or stays unobserved."""
    listed, filled = np.isfinite(wide.values), table.missing == "none"
    found = np.asarray(wide.labels)
    tested = (found != UNTESTED) | (~listed & filled)
    labels = np.where(found == UNTESTED, 0, found).astype(np.int8)
    counts = {"up": int((labels > 0).sum()), "down": int((labels < 0).sum())}
    return PerturbationDataset(
        name=table.name or path.name.partition(".")[0],
        effects=np.where(listed, wide.values, np.float32(0)) if filled else wide.values,
        unit=table.unit,
        genes=np.array(wide.genes, dtype=str),
        entities=tuple(wide.keys["entities"]),
        context=wide.keys["context"].to_numpy(dtype=str),
        entity_type=entity_type,
        observed=None if filled or listed.all() else listed,
        labels=labels,
        labels_tested=tested,
        meta={
            "controls": "none",
            "source": table.source or path.name,
            "licence": table.licence or "not stated",
            "namespace": "symbol",
            "missing": table.missing,
            "listed_entries": int(listed.sum()),
            "published_labels": {**counts, "none": int(tested.sum()) - sum(counts.values())},
            "default_split": table.default_split,
            "mapping": mapping,
        },
    )


def _listed(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """One name, several or none as a tuple."""
    return () if names is None else (names,) if isinstance(names, (str, int, float)) else tuple(names)
