"""Condition-level tables: one effect vector per perturbation and context, from CSV, parquet or h5ad, wide or long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import ENTITY_TYPES, UNITS, PerturbationDataset, UserError
from embbench.datasets._frames import check_unique, column, finite, kind, numbers, read_frame, read_h5ad, words
from embbench.datasets._wide import UNTESTED, Entries, Wide, merge
from embbench.genes import harmonise, parse_perturbation

if TYPE_CHECKING:
    import pandas as pd

LABELS = {"up": 1, "1": 1, "1.0": 1, "down": -1, "-1": -1, "-1.0": -1, "none": 0, "ns": 0, "0": 0, "0.0": 0}
SPLITS = ("auto", "unseen_perturbation", "unseen_context", "unseen_combination", "covariate_transfer")


@dataclass(frozen=True)
class ConditionTable:
    """A screen that somebody already brought to condition level: no cells, so one set of effects is both training data
    and truth, and no control noise can be split off.

    Parameters
    ----------
    path : ``.csv``, ``.tsv``, ``.txt`` (also ``.gz``), ``.parquet`` or ``.h5ad`` (observations are conditions).
    unit : what the numbers are: ``delta``, ``log2fc``, ``zscore`` or ``rank_score``.
    perturbation_key : column of perturbation labels, read as `embbench.genes.parse_perturbation` does.
    context_key : column(s) of the context (joined by ``|``); none: the single context ``all``.
    gene_key, value_key : columns of a long table (one row per entry); without ``value_key`` the table is wide: every
        column that no parameter names is a gene. In an h5ad ``gene_key`` names a gene column instead of the index.
    label_key : long tables: column of up / down / none (or 1, -1, 0), read into ``labels``.
    dose_key, n_cells_key, keep : numeric columns, and further columns to carry along as covariates.
    control : labels that are controls besides the well-known ones; their rows are left out and counted.
    entity_type : ``gene``, ``compound`` or ``auto``.
    zero_is_missing : an exact 0 means "not tested" (Tahoe rank scores).
    missing : entries that a long table does not list: ``unobserved``, or ``zero`` for tables of significant entries
        only. ``zero`` says "not significant", which is no measurement: every loss then rewards predicting nothing.
    min_entries : conditions with fewer entries are left out and counted.
    combine : ``error``, or ``mean`` over rows that repeat a (perturbation, context, dose).
    default_split : ``auto`` is unseen_context for compounds in several contexts, else unseen_perturbation.
    controls : ``shared`` where all effects were taken against the same control cells; tables then say so.
    names : ``symbol`` brings perturbed and measured genes to approved symbols; so does ``distinct``, but where several
        labels mean the same, all but one stay as they are spelled (listed in ``meta``); ``keep`` leaves every
        name as it is spelled. Controls are told either way.
    name, source, licence : facts for the report; the name is the file's by default.

    Raises
    ------
    ValueError
        A parameter is not one of its choices.

    Examples
    --------
    >>> ConditionTable("screen.csv", unit="delta", context_key="cell_line").contexts
    ('cell_line',)
    """

    path: str
    unit: str = ""
    perturbation_key: str = "perturbation"
    context_key: str | Sequence[str] | None = None
    gene_key: str | None = None
    value_key: str | None = None
    label_key: str | None = None
    dose_key: str | None = None
    n_cells_key: str | None = None
    keep: Sequence[str] = ()
    control: str | Sequence[str] = ()
    entity_type: str = "auto"
    zero_is_missing: bool = False
    missing: str = "unobserved"
    min_entries: int = 1
    combine: str = "error"
    default_split: str = "auto"
    controls: str = "none"
    names: str = "symbol"
    name: str = ""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        choices = {
            "unit": UNITS,
            "entity_type": ("auto", *ENTITY_TYPES),
            "missing": ("unobserved", "zero"),
            "combine": ("error", "mean"),
            "default_split": SPLITS,
            "controls": ("none", "shared"),
            "names": ("symbol", "distinct", "keep"),
        }
        for option, allowed in choices.items():
            if getattr(self, option) not in allowed:
                raise ValueError(f"table: {option} must be one of {', '.join(allowed)}, got {getattr(self, option)!r}")
        if self.min_entries < 1:
            raise ValueError(f"table: min_entries must be >= 1, got {self.min_entries}")
        if self.value_key is None and (self.missing == "zero" or self.label_key):
            option = "label_key" if self.label_key else "missing=zero"
            raise ValueError(
                f"table: {option} is for long tables, got value_key={self.value_key!r}; name the value column"
            )
        if self.value_key is not None and self.gene_key is None:
            raise ValueError(f"table: value_key={self.value_key!r} needs gene_key, the column of gene names")

    @property
    def contexts(self) -> tuple[str, ...]:
        """The context columns."""
        return _listed(self.context_key)

    def load(self) -> PerturbationDataset:
        """Read, check and bring to the contract.

        Returns
        -------
        PerturbationDataset
            ``effects`` of shape (n, g), NaN where ``observed`` is False; genes as approved symbols where they map.

        Raises
        ------
        UserError
            The file or its content does not fit; the message names file, column and next step.
        """
        path = Path(self.path)
        wide = self._read(path)
        if self.zero_is_missing:
            wide = replace(wide, values=np.where(wide.values == 0, np.float32(np.nan), wide.values))
        genes = harmonise(wide.genes)
        labels = wide.keys["perturbation"].tolist()
        parsed = parse_perturbation(labels, _listed(self.control), genes.names, self.entity_type)
        meant, apart = _meant(parsed.entities, self.names)
        entities = np.empty(len(labels), dtype=object)
        entities[:] = [meant[label] for label in labels]
        symbols = wide.genes if self.names == "keep" else genes.names
        wide = replace(wide, keys=wide.keys.assign(entities=entities), genes=symbols)
        wide, left_out = self._cleaned(path, wide)
        reports = {"genes": genes.report.as_dict(), "perturbations": parsed.report.as_dict()}
        mapping = {**({} if self.names == "keep" else reports), "left_out": left_out}
        mapping |= {"kept_apart": apart} if apart else {}
        return _dataset(self, path, wide, parsed.entity_type, mapping)

    def _cleaned(self, path: Path, wide: Wide) -> tuple[Wide, dict[str, int]]:
        """Without controls, repeats, nearly empty conditions and genes without an entry; and how many of each."""
        rows = np.flatnonzero(wide.keys["entities"].map(bool).to_numpy(dtype=bool))
        merged = merge(path, wide.take(rows), self.keep, average=self.combine == "mean")
        enough = np.flatnonzero(np.isfinite(merged.values).sum(axis=1) >= self.min_entries)
        full = merged.take(enough)
        seen = np.isfinite(full.values).any(axis=0)
        left_out = {
            "control rows": len(wide.keys) - len(rows),
            "repeated rows (averaged)": len(rows) - len(merged.keys),
            f"rows with fewer than {self.min_entries} entries": len(merged.keys) - len(enough),
            "genes without an entry": int((~seen).sum()),
        }
        found = full.keys["entities"].nunique(), full.keys["context"].nunique()
        if max(found) < 2:
            lost = ", ".join(f"{n} {why}" for why, n in left_out.items() if n) or "nothing"
            raise UserError(
                f"table {path}: expected two or more perturbations or contexts, found {found[0]} and {found[1]} "
                f"(left out: {lost}); check perturbation_key, control and min_entries"
            )
        return full.genes_where(seen), left_out

    def _read(self, path: Path) -> Wide:
        """The file as conditions by genes."""
        if self.value_key is not None:
            return self._read_long(path, self.value_key, str(self.gene_key))
        if kind(path) == "h5ad":
            frame, genes, values = read_h5ad(path, self.gene_key)
            keys = self._keys(path, frame)
            check_unique(path, "gene", genes)
            finite(values, genes, path)
            return Wide(keys, genes, values.astype(np.float32))
        frame = read_frame(path, (self.perturbation_key, *self.contexts))
        keys = self._keys(path, frame)
        used = {"index", self.perturbation_key, *self.contexts, *self.keep, self.dose_key, self.n_cells_key}
        genes = tuple(name for name in frame.columns if name not in used)
        if not genes:
            raise UserError(
                f"table {path}: expected gene columns, found {', '.join(frame.columns)}; is it a long table?"
            )
        return Wide(keys, genes, numbers(frame, genes, path).astype(np.float32))

    def _read_long(self, path: Path, value_key: str, gene_key: str) -> Wide:
        """One line per entry."""
        if kind(path) == "h5ad":
            raise UserError(f"table {path}: an h5ad is wide, found value_key={value_key!r}; leave value_key out")
        frame = read_frame(path, (self.perturbation_key, *self.contexts, gene_key, str(self.label_key)))
        keys = self._keys(path, frame)
        column(frame, value_key, path, "value_key")
        filled = self.missing == "zero"
        entries = Entries(
            keys,
            words(frame, gene_key, path, "gene_key"),
            numbers(frame, [value_key], path, gaps=not filled)[:, 0],
            None if self.label_key is None else _labels(path, frame, self.label_key),
        )
        absent = 0 if filled else UNTESTED
        return entries.pivot(path, self.keep, average=self.combine == "mean", absent_label=absent)

    def _keys(self, path: Path, frame: pd.DataFrame) -> pd.DataFrame:
        """Columns perturbation, context, and where asked for dose, n_cells and ``keep:<name>``."""
        import pandas as pd

        keys = pd.DataFrame({"perturbation": words(frame, self.perturbation_key, path, "perturbation_key")})
        parts = [words(frame, key, path, "context_key") for key in self.contexts]
        keys["context"] = ["|".join(names) for names in zip(*parts, strict=True)] if parts else "all"
        for option in ("dose", "n_cells"):
            if (key := getattr(self, f"{option}_key")) is not None:
                column(frame, key, path, f"{option}_key")
                keys[option] = numbers(frame, [key], path, gaps=False)[:, 0]
        for key in self.keep:
            keys[f"keep:{key}"] = column(frame, key, path, "keep").to_numpy()
        return keys


def _meant(entities: Mapping[str, tuple[str, ...]], names: str) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Entities of each label as ``names`` wants them, and the labels that were kept apart from an equal one."""
    if names == "keep":
        return {label: (label.strip(),) if found else () for label, found in entities.items()}, []
    first: dict[tuple[str, ...], str] = {}
    exact_first = sorted(entities.items(), key=lambda item: item[0] != "+".join(item[1]))
    apart = [e for e, found in exact_first if names == "distinct" and found and first.setdefault(found, e) != e]
    return {**entities, **{label: (label.strip(),) for label in apart}}, apart


def _dataset(
    table: ConditionTable, path: Path, wide: Wide, entity_type: str, mapping: dict[str, Any]
) -> PerturbationDataset:
    """The contract's fields; entries that are not listed become zeros or stay unobserved."""
    keys, listed = wide.keys, np.isfinite(wide.values)
    filled = table.missing == "zero"
    drugs_transfer = entity_type == "compound" and keys["context"].nunique() > 1
    split = "unseen_context" if drugs_transfer else "unseen_perturbation"
    labels, tested = wide.labels, None
    if labels is not None:
        tested = labels != UNTESTED
        labels = np.where(tested, labels, 0).astype(np.int8)
    meta = {
        "controls": table.controls,
        "source": table.source or path.name,
        "licence": table.licence or "not stated",
        "namespace": "as spelled" if table.names == "keep" else "symbol",
        "missing": table.missing,
        "listed_entries": int(listed.sum()),
        "default_split": split if table.default_split == "auto" else table.default_split,
        "mapping": mapping,
    }
    return PerturbationDataset(
        name=table.name or path.name.partition(".")[0],
        effects=np.where(listed, wide.values, np.float32(0)) if filled else wide.values,
        unit=table.unit,
        genes=np.array(wide.genes, dtype=str),
        entities=tuple(keys["entities"]),
        context=keys["context"].to_numpy(dtype=str),
        entity_type=entity_type,
        observed=None if filled or listed.all() else listed,
        n_cells=keys["n_cells"].to_numpy(dtype=np.int64) if "n_cells" in keys else None,
        dose=keys["dose"].to_numpy(dtype=np.float64) if "dose" in keys else None,
        covariates={key: _plain(keys[f"keep:{key}"]) for key in table.keep},
        labels=labels,
        labels_tested=tested,
        meta=meta,
    )


def _labels(path: Path, frame: pd.DataFrame, key: str) -> np.ndarray:
    """A column of up, down and none as (m,) int8."""
    found = [str(value).strip().casefold() for value in words(frame, key, path, "label_key")]
    if unknown := sorted(set(found) - set(LABELS)):
        raise UserError(
            f"table {path}: label_key={key!r} must hold {', '.join(LABELS)}, found {', '.join(unknown[:3])}"
        )
    return np.array([LABELS[value] for value in found], dtype=np.int8)


def _listed(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """One name, several or none as a tuple."""
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def _plain(values: pd.Series) -> np.ndarray:
    """A covariate (n,) as numbers or text."""
    return values.to_numpy() if values.dtype.kind in "fiub" else values.astype(str).to_numpy(dtype=str)
