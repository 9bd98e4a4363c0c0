"""The screen: a perturbation dataset at condition level."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from embbench.core.cells import Cells, CellView, view_cells

UNITS = ("delta", "log2fc", "zscore", "rank_score")


ENTITY_TYPES = ("gene", "compound")


class UserError(Exception):
    """Bad input: one clear message (what, expected, found, next step); the CLI prints it and exits with 2."""


@dataclass(frozen=True)
class PerturbationDataset:
    """A screen at condition level: one row per (entities, dose, context), controls are never rows.

    Parameters
    ----------
    effects : shape (n, g), float32, finite where observed: against control half A; what heads are trained on.
    unit : ``delta`` (natural-log), ``log2fc``, ``zscore`` or ``rank_score``.
    genes : shape (g,), str, unique, in one namespace.
    entities : n sorted tuples of perturbation names (genes or compounds), each a set.
    context : shape (n,), str, the context of each row.
    entity_type : ``gene`` or ``compound``.
    contexts : all context names; their order is that of ``baseline``. Default: sorted unique of ``context``.
    truth : shape (n, g), float32 against control half B; ``effects`` where there are no cells.
    observed : shape (n, g), bool or None (all observed).
    baseline, baseline_truth : shape (c, g), float32 or None, mean control expression of half A and half B.
    baseline_variance : shape (c, g), float32 or None, variance over half-A control cells (for gene selection).
    truth_variance : shape (n, g), float32 or None, sampling variance of ``truth`` (unit squared).
    noise_free : shape (n, g), float32 or None, the known expected effect (simulated screens only).
    n_cells, dose : shape (n,), or None.
    covariates : further columns of shape (n,), e.g. a published split or an E-test p value.
    labels, labels_tested : shape (n, g), int8 in {-1, 0, 1} and the bool mask of tested entries, or None; what label
        heads are trained on (against control half A where they come from cells).
    truth_labels, truth_labels_tested : the same against control half B; ``labels`` where there are no cells.
    log2fc, padj : shape (n, g), float32 or None, differential expression against control half B (NaN: not tested).
    cells : lazy single cells or None.
    meta : JSON-able facts (controls, matching, licence, default split, source, digest ...).

    A shape, unit or value that breaks the contract is a ValueError that names field, expectation and finding.

    Examples
    --------
    >>> effects, genes = np.ones((1, 2), np.float32), np.array(["MYC", "TP53"])
    >>> data = PerturbationDataset("toy", effects, "delta", genes, entities=(("TP53",),), context=np.array(["K562"]))
    >>> data.conditions, data.context_codes.tolist(), data.target_columns()[0].tolist()
    (('TP53',), [0], [1])
    """

    name: str
    effects: np.ndarray
    unit: str
    genes: np.ndarray
    entities: tuple[tuple[str, ...], ...]
    context: np.ndarray
    entity_type: str = "gene"
    contexts: tuple[str, ...] = ()
    truth: np.ndarray = None  # type: ignore[assignment]  # effects, unless given: set in __post_init__
    observed: np.ndarray | None = None
    baseline: np.ndarray | None = None
    baseline_truth: np.ndarray | None = None
    baseline_variance: np.ndarray | None = None
    truth_variance: np.ndarray | None = None
    noise_free: np.ndarray | None = None
    n_cells: np.ndarray | None = None
    dose: np.ndarray | None = None
    covariates: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: np.ndarray | None = None
    labels_tested: np.ndarray | None = None
    truth_labels: np.ndarray | None = None
    truth_labels_tested: np.ndarray | None = None
    log2fc: np.ndarray | None = None
    padj: np.ndarray | None = None
    cells: Cells | CellView | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "contexts", tuple(self.contexts) or tuple(np.unique(self.context).tolist()))
        if self.truth is None:
            object.__setattr__(self, "truth", self.effects)
        if self.truth_labels is None and self.labels is not None:
            object.__setattr__(self, "truth_labels", self.labels)
            object.__setattr__(self, "truth_labels_tested", self.labels_tested)
        _check_dataset(self)

    def __len__(self) -> int:
        return len(self.effects)

    def _with(self, **changes: Any) -> PerturbationDataset:
        """A copy with some fields changed; what was cut out of a checked screen is not checked again."""
        made = object.__new__(type(self))
        made.__dict__.update({f.name: changes.get(f.name, getattr(self, f.name)) for f in fields(self)})
        if "genes" not in changes:
            made.__dict__["_gene_columns"] = self._gene_columns
        return made

    @functools.cached_property
    def _gene_columns(self) -> dict[str, int]:
        return {gene: i for i, gene in enumerate(self.genes.tolist())}

    @functools.cached_property
    def context_codes(self) -> np.ndarray:
        """Codes of shape (n,), int64: index of each row's context in ``contexts``."""
        where = {name: i for i, name in enumerate(self.contexts)}
        codes = np.array([where[c] for c in self.context.tolist()], dtype=np.int64)
        codes.setflags(write=False)
        return codes

    @functools.cached_property
    def entity_names(self) -> tuple[str, ...]:
        """Sorted unique perturbation entities of all rows."""
        return tuple(sorted({e for row in self.entities for e in row}))

    @property
    def conditions(self) -> tuple[str, ...]:
        """Row labels without context: entities joined by ``+``, and ``@dose`` where there is one."""
        dose = [""] * len(self) if self.dose is None else [f"@{d:g}" for d in self.dose]
        return tuple("+".join(e) + d for e, d in zip(self.entities, dose, strict=True))

    def target_columns(self) -> tuple[np.ndarray, ...]:
        """For each row the column numbers of its own perturbed genes (empty for compounds and unmeasured genes)."""
        where = self._gene_columns if self.entity_type == "gene" else {}
        return tuple(np.array([where[e] for e in row if e in where], dtype=np.int64) for row in self.entities)

    def rows(self, index: np.ndarray) -> PerturbationDataset:
        """The same screen with some rows only (numbers, shape (k,)); contexts and their baselines stay whole."""
        cut = {f: getattr(self, f)[index] for f in _ROW_FIELDS if getattr(self, f) is not None}
        cells = self.cells if self.cells is None else view_cells(self.cells, index)
        return self._with(
            **cut,
            entities=tuple(self.entities[i] for i in index),
            cells=cells,
            covariates={k: v[index] for k, v in self.covariates.items()},
        )

    def with_genes(self, columns: np.ndarray) -> PerturbationDataset:
        """The same screen with some gene columns only (numbers, shape (k,))."""
        cut = {f: getattr(self, f)[:, columns] for f in _GENE_FIELDS if getattr(self, f) is not None}
        cells = self.cells
        if cells is not None:
            view = view_cells(cells, np.arange(len(self)))
            cells = replace(view, columns=columns if view.columns is None else view.columns[columns])
        return self._with(**cut, genes=self.genes[columns], cells=cells)

    def training(self, index: np.ndarray, *, open_contexts: frozenset[int] | None = None) -> PerturbationDataset:
        """What may be learnt from: rows ``index``, effects against half A only, nothing of half B or the known truth.

        ``open_contexts`` restricts whose controls (baseline rows become NaN) and cells can be read.
        """
        part = self.rows(index)
        baseline, cells = self.controls(index, open_contexts)
        return part._with(
            truth=part.effects,
            baseline=baseline,
            baseline_truth=None,
            truth_variance=None,
            noise_free=None,
            truth_labels=part.labels,
            truth_labels_tested=part.labels_tested,
            log2fc=None,
            padj=None,
            cells=cells,
        )

    def controls(
        self, index: np.ndarray, open_contexts: frozenset[int] | None = None
    ) -> tuple[np.ndarray | None, CellView | None]:
        """What may be learnt from apart from effects: baselines (c, g), and cells of rows ``index``, each None where
        there are none; ``open_contexts`` as in `training`.
        """
        baseline = self.baseline
        cells = None if self.cells is None else view_cells(self.cells, index)
        if open_contexts is None:
            return baseline, cells
        if baseline is not None:
            baseline = baseline.copy()
            baseline[[i for i in range(len(self.contexts)) if i not in open_contexts]] = np.nan
        return baseline, None if cells is None else replace(cells, contexts=open_contexts)


_GENE_FIELDS = (
    "effects",
    "truth",
    "observed",
    "baseline",
    "baseline_truth",
    "baseline_variance",
    "truth_variance",
    "noise_free",
    "labels",
    "labels_tested",
    "truth_labels",
    "truth_labels_tested",
    "log2fc",
    "padj",
)


_ROW_FIELDS = (
    "effects",
    "truth",
    "observed",
    "truth_variance",
    "noise_free",
    "n_cells",
    "dose",
    "labels",
    "labels_tested",
    "truth_labels",
    "truth_labels_tested",
    "log2fc",
    "padj",
    "context",
)


def _check_dataset(d: PerturbationDataset) -> None:
    if d.effects.ndim != 2:
        raise ValueError(f"{d.name}: effects must be (conditions, genes), found shape {d.effects.shape}")
    n, g = d.effects.shape
    c = len(d.contexts)
    shapes = {
        "truth": (n, g),
        "observed": (n, g),
        "truth_variance": (n, g),
        "noise_free": (n, g),
        "labels": (n, g),
        "labels_tested": (n, g),
        "truth_labels": (n, g),
        "truth_labels_tested": (n, g),
        "log2fc": (n, g),
        "padj": (n, g),
        "context": (n,),
        "n_cells": (n,),
        "dose": (n,),
        "genes": (g,),
        "baseline": (c, g),
        "baseline_truth": (c, g),
        "baseline_variance": (c, g),
    }
    for name, want in shapes.items():
        value = getattr(d, name)
        if value is not None and value.shape != want:
            raise ValueError(f"{d.name}: {name} has shape {value.shape}, expected {want}")
    if d.unit not in UNITS or d.entity_type not in ENTITY_TYPES:
        raise ValueError(
            f"{d.name}: unit {d.unit!r} must be one of {UNITS}, entity_type {d.entity_type!r} of {ENTITY_TYPES}"
        )
    if len(d.entities) != n or not all(row and tuple(sorted(set(row))) == tuple(row) for row in d.entities):
        raise ValueError(f"{d.name}: entities must be {n} sorted, non-empty sets, found {len(d.entities)}")
    if len(set(d.genes.tolist())) != g:
        raise ValueError(f"{d.name}: genes must be unique, found {g - len(set(d.genes.tolist()))} repeats")
    for name in ("effects", "truth"):
        value = getattr(d, name)
        bad = ~np.isfinite(value) if d.observed is None else ~np.isfinite(value) & d.observed
        if value.dtype != np.float32 or bad.any():
            raise ValueError(
                f"{d.name}: {name} must be finite float32 where observed, found {value.dtype}, {int(bad.sum())} bad"
            )
    if unknown := set(d.context.tolist()) - set(d.contexts):
        raise ValueError(f"{d.name}: contexts {sorted(unknown)} of rows are not in {d.contexts}")
