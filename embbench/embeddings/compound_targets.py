"""A compound by its targets: the vectors of the genes that it binds, from any gene embedding, averaged or added."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._compounds import BLANK, NAME_COLUMNS, counted, match_names, read_sheet
from embbench.embeddings._rows import text_array
from embbench.genes import harmonise

COMBINE = ("mean", "sum", "max")
TARGET_COLUMNS = ("target", "targets", "targetgene", "targetgenes", "gene", "genes", "genesymbol", "symbol", "genename")
# What a compound does to its target: words that end the actions of ChEMBL (mechanisms), DrugBank and the Drug
# Repurposing Hub; 0: no direction. An action that ends in none of them is an error, not a guess.
_DOWN = """inhibitor antagonist blocker degrader suppressor downregulator disrupter inactivator negative"""
_UP = """agonist activator inducer stimulator potentiator upregulator opener positive stabiliser stabilizer"""
_NEITHER = """binder ligand substrate modulator cofactor agent enzyme gene protein antigen unknown other"""
NEGATIONS = frozenset(("not", "non", "no", "anti"))
ACTIONS = {word: sign for words, sign in ((_DOWN, -1), (_UP, 1), (_NEITHER, 0)) for word in words.split()}
ACTIONS |= {"inverse agonist": -1, "negative modulator": -1, "negative allosteric modulator": -1, "channel blocker": -1}
ACTIONS |= {"partial agonist": 1, "positive modulator": 1, "positive allosteric modulator": 1, "channel opener": 1}
ACTIONS |= {"allosteric inhibitor": -1, "irreversible inhibitor": -1, "allosteric activator": 1}


class CompoundTargets(ExtractorDefaults):
    """Vectors of compounds from the vectors of their target genes.

    With targets ``t`` that have a vector ``v_t`` and weights ``w_t`` (1 without ``strength`` and ``action``), a
    compound is ``sum_t w_t v_t / sum_t |w_t|`` (``mean``), ``sum_t w_t v_t`` (``sum``), or the element-wise maximum of
    ``w_t v_t`` (``max``). Targets without a vector are left out of both sums; a compound without any target left has
    no vector. An embedding with one vector per context gives one compound vector per context.

    Gene names of the table become HGNC symbols; spellings of one gene are one target. Compound names are found as in
    `embbench.embeddings._compounds.match_names`.

    Parameters
    ----------
    of : the gene embedding; None for an instance that only says which genes it needs (`inner_names`).
    source : .tsv or .csv (.gz) with one header line: one row per compound and target, or several targets in a field
        separated by ``;``, ``,`` or ``|``.
    combine : ``mean``, ``sum`` or ``max``.
    compounds, targets : columns; None finds the usual ones (compound, drug ...; target, gene ...).
    strength : column of finite weights, larger is stronger (pKd, not Kd); None takes ``weight`` when present,
        ``none`` forces 1.
    action : column of what the compound does to its target: ``inhibitor``, ``antagonist`` ... turn the sign of the
        weight, ``agonist``, ``activator`` ... keep it: the longest end of the text that is in `ACTIONS` counts
        (``partial inverse agonist``, ``kinase inhibitor``). Pairs whose action has no direction (binder, agent,
        unknown, empty) are left out and counted. None: no signs.

    References
    ----------
    Mean of the vectors of a set: Zaheer et al. (2017), Deep Sets, equation 2, with the identity for both maps.

    Examples
    --------
    >>> CompoundTargets(None)
    Traceback (most recent call last):
    ValueError: CompoundTargets: source must be a table compound -> target genes, got None (...:source=FILE)
    """

    entity = "compound"

    def __init__(
        self,
        of: Embedding | None,
        source: str | None = None,
        combine: str = "mean",
        compounds: str | None = None,
        targets: str | None = None,
        strength: str | None = None,
        action: str | None = None,
    ) -> None:
        if of is not None and not isinstance(of, Embedding):
            raise ValueError(f"CompoundTargets: of must be an Embedding, got {type(of).__name__}; compute it first")
        if of is not None and of.entity not in ("gene", "any"):
            raise ValueError(f"CompoundTargets: of must hold vectors of genes, got vectors of entity {of.entity!r}")
        if source is None or not str(source):
            raise ValueError(
                f"CompoundTargets: source must be a table compound -> target genes, got {source} (...:source=FILE)"
            )
        if combine not in COMBINE:
            raise ValueError(f"CompoundTargets: combine must be one of {', '.join(COMBINE)}, got {combine!r}")
        self.of, self.path, self.combine = of, Path(str(source)).expanduser(), combine
        given = {"compounds": compounds, "targets": targets, "strength": strength, "action": action}
        self.columns = {use: None if column is None else str(column) for use, column in given.items()}

    def files(self) -> tuple[Path, ...]:
        """The table that the vectors depend on."""
        return (self.path,)

    def inner_names(self) -> tuple[str, ...]:
        """Every target gene of the table, HGNC symbols, sorted: the names that the gene embedding is asked for.

        Raises
        ------
        UserError
            The table cannot be read.
        """
        pairs = target_table(self.path, **self.columns).weights
        return tuple(sorted({gene for genes in pairs.values() for gene in genes}))

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, d), float32, of the asked compounds with a target that has a vector.

        Raises
        ------
        UserError
            The table cannot be read, or its weights are too large.
        ValueError
            Made without an embedding.
        """
        if self.of is None:
            raise ValueError(f"CompoundTargets: needs the gene embedding to combine, got of={self.of}")
        table = target_table(self.path, **self.columns)
        found = match_names(names, table.weights, dict.__eq__)
        genes = sorted({gene for row in found.rows.values() for gene in table.weights[row]})
        contexts = [None] if self.of.contexts is None else list(dict.fromkeys(self.of.contexts.tolist()))
        out: dict[tuple[str, str | None], np.ndarray] = {}
        with_vector: set[str] = set()
        for context in contexts:
            vectors = self._vectors(genes, context)
            with_vector |= set(vectors)
            for name, row in found.rows.items():
                if (vector := self._combined(table.weights[row], vectors)) is not None:
                    out[name, context] = vector
        with np.errstate(over="ignore"):
            matrix = np.array(list(out.values()), np.float32).reshape(len(out), self.of.matrix.shape[1])
        if not np.isfinite(matrix).all():
            raise UserError(
                f"{self.path}: the weights {table.columns.get('strength')} overflow float32; scale them down"
            )
        covered = {name for name, _ in out}
        facts = {
            "targets_source": self.path.name,
            "combine": self.combine,
            "columns": table.columns,
            "pairs_without_direction": table.directionless,
            "compounds_without_target": counted(table.empty),
            "compounds_without_vector": counted([name for name in found.rows if name not in covered]),
            "targets_with_vector": len(with_vector),
            "targets_without_vector": counted([gene for gene in genes if gene not in with_vector]),
        }
        labels = None if self.of.contexts is None else text_array([str(context) for _, context in out])
        known = text_array([name for name, _ in out])
        return Embedding(known, matrix, self.entity, labels, {**self.of.provenance, **found.facts(), **facts})

    def _vectors(self, genes: Sequence[str], context: str | None) -> dict[str, np.ndarray]:
        """Gene -> its vector of shape (d,), float64, where it has one (in that context)."""
        matrix, found = self.of.lookup(genes, None if context is None else [context] * len(genes))  # type: ignore[union-attr]
        return {gene: matrix[i].astype(np.float64) for i, gene in enumerate(genes) if found[i]}

    def _combined(self, targets: Mapping[str, float], vectors: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Vector of shape (d,) of one compound, None without a target of non-zero weight that has a vector."""
        known = sorted(gene for gene, weight in targets.items() if gene in vectors and weight)
        if not known:
            return None
        weighted = np.stack([targets[gene] * vectors[gene] for gene in known])
        if self.combine == "max":
            return weighted.max(axis=0)
        total = weighted.sum(axis=0)
        return total if self.combine == "sum" else total / sum(abs(targets[gene]) for gene in known)


class TargetTable(NamedTuple):
    """Compounds of a table with the weights of their targets, and what was left out.

    Parameters
    ----------
    weights : compound -> target symbol -> signed weight; every compound has a target.
    empty : compounds without a target.
    directionless : pairs left out because their action has no direction.
    columns : the columns that were read, by use.
    """

    weights: dict[str, dict[str, float]]
    empty: list[str]
    directionless: int
    columns: dict[str, str]


def target_table(
    path: Path,
    compounds: str | None = None,
    targets: str | None = None,
    strength: str | None = None,
    action: str | None = None,
) -> TargetTable:
    """Read compound -> target genes with signed weights; parameters as in `CompoundTargets`.

    A pair may be repeated with the same weight.

    Raises
    ------
    UserError
        As `embbench.embeddings._compounds.read_sheet`; a row without compound, a weight that is no finite number, an
        unknown action, a pair with two weights, or no target at all.
    """
    sheet = read_sheet(path)
    strength = "weight" if strength is None and "weight" in sheet.header else strength
    use = {"compounds": sheet.column("compound names", compounds, NAME_COLUMNS)}
    use["targets"] = sheet.column("target genes", targets, TARGET_COLUMNS)
    for key, column in (("strength", strength), ("action", action)):
        use |= {} if column in (None, "none") else {key: sheet.column(f"{key} of targets", column, ())}
    weights: dict[str, dict[str, float]] = {}
    directionless = 0
    for (where, name, listed), (_, row) in zip(sheet.pairs(use["compounds"], use["targets"]), sheet.rows, strict=True):
        pairs = weights.setdefault(name, {})
        genes = [gene for gene in map(str.strip, re.split(r"[;,|]", listed)) if gene.casefold() not in BLANK]
        weight = _weight(where, {key: row[i] for key, i in use.items()}) if genes else 0.0
        if weight is None:
            directionless += len(genes)
            continue
        for symbol in map(_symbol, genes):
            if pairs.setdefault(symbol, weight) != weight:
                raise UserError(
                    f"{where}: compound {name!r} has two weights for target {symbol}, {pairs[symbol]:g} and "
                    f"{weight:g}; keep one or average them"
                )
    kept = {name: pairs for name, pairs in weights.items() if pairs}
    if not kept:
        raise UserError(f"{path}: expected target genes, found none for {len(weights)} compounds")
    columns = {key: sheet.header[i] for key, i in use.items()}
    return TargetTable(kept, [name for name in weights if name not in kept], directionless, columns)


@functools.lru_cache(maxsize=4096)
def _symbol(gene: str) -> str:
    return harmonise([gene]).names[0]  # one by one: in a list two spellings of a gene may not share its symbol


def _weight(where: str, row: Mapping[str, str]) -> float | None:
    """Signed weight of a row; None when its action has no direction."""
    try:
        value = float(row.get("strength", "1"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: expected a finite weight, found {row['strength']!r}; fill it in or drop the row")
    if "action" not in row:
        return value
    words = [word for word in re.split(r"[\s_-]+", row["action"].casefold()) if word]
    if row["action"].strip().casefold() in BLANK or not words:
        return None
    ends = (" ".join(words[i:]) for i in range(len(words)))
    sign = next((ACTIONS[end] for end in ends if end in ACTIONS), None)
    if sign is None or NEGATIONS & {*words}:
        raise UserError(f"{where}: expected an action such as inhibitor, agonist or unknown, found {row['action']!r}")
    return value * sign if sign else None
