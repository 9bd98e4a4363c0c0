"""What predictions are judged against, and what a metric declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from embbench.core.cells import CellView


@dataclass(frozen=True)
class DETable:
    """Differential expression of the observed cells against control half B, one row per tested condition.

    Parameters
    ----------
    log2fc : shape (n, g), float32, log2 ratio of mean counts with a stated pseudocount; NaN where untested.
    padj : shape (n, g), float32, Benjamini-Hochberg p values within each condition; NaN where untested.
    level : significance level of `significant`.

    Examples
    --------
    >>> DETable(np.array([[1.0, 2.0]]), np.array([[0.2, 0.01]])).significant.tolist()
    [[False, True]]
    """

    log2fc: np.ndarray
    padj: np.ndarray
    level: float = 0.05

    @property
    def significant(self) -> np.ndarray:
        """Bool of shape (n, g): tested and below the level."""
        return np.nan_to_num(self.padj, nan=1.0) < self.level


@dataclass(frozen=True)
class Truth:
    """What predictions of test rows are judged against (control half B).

    Parameters
    ----------
    effects : shape (n, g), float32.
    unit : unit of ``effects``.
    context : shape (n,), int64 codes.
    targets : per row the columns of its own perturbed genes.
    entities : n tuples of names.
    observed : shape (n, g), bool or None.
    baseline : shape (n, g), float32 or None, half-B control mean of each row's context.
    centroid, centroid_truth : shape (n, g), float32 or None, mean effect of the training rows of each row's context,
        against control half A as predictions are, and against half B as ``effects`` are.
    variance : shape (n, g), float32 or None, sampling variance of ``effects``.
    labels, labels_tested : shape (n, g), or None; labels against control half B.
    de : differential expression of the test rows, or None.
    cells : observed cells of the test rows (one of two disjoint halves) and half-B controls, or None.
    basis : shape (g, k), float32 or None, population space fitted on training cells and half-A controls.
    """

    effects: np.ndarray
    unit: str
    context: np.ndarray
    targets: tuple[np.ndarray, ...]
    entities: tuple[tuple[str, ...], ...] = ()
    observed: np.ndarray | None = None
    baseline: np.ndarray | None = None
    centroid: np.ndarray | None = None
    centroid_truth: np.ndarray | None = None
    variance: np.ndarray | None = None
    labels: np.ndarray | None = None
    labels_tested: np.ndarray | None = None
    de: DETable | None = None
    cells: CellView | None = None
    basis: np.ndarray | None = None

    @property
    def de_statistic(self) -> np.ndarray:
        """Size of each true effect, shape (n, g): |effect| / standard error where the variance is known, else |effect|.

        Examples
        --------
        >>> effects, variance = np.array([[3.0, -4.0]]), np.array([[1.0, 4.0]])
        >>> Truth(effects, "delta", np.array([0]), ((),), variance=variance).de_statistic.tolist()
        [[3.0, 2.0]]
        """
        size = np.abs(self.effects.astype(np.float64))
        if self.variance is None:
            return size
        return size / np.sqrt(np.maximum(self.variance, np.finfo(np.float32).tiny))

    def mask(self, genes: str) -> np.ndarray:
        """Scored entries, bool of shape (n, g): observed, and in the gene set `all`, `notarget`, `topK`, `expressedK`.

        Top-k sets leave the perturbed genes out and come from `de_statistic`; expressed sets are the K genes with the
        highest control means of half B. Ties go to the smaller column.

        Examples
        --------
        >>> truth = Truth(np.array([[3.0, -4.0, 1.0]]), "delta", np.array([0]), targets=(np.array([1]),))
        >>> truth.mask("top1").tolist()
        [[True, False, False]]
        """
        keep = np.ones(self.effects.shape, bool) if self.observed is None else self.observed.copy()
        if genes == "all":
            return keep
        if genes.startswith("expressed"):
            return keep & self._largest(
                np.asarray(self.baseline, dtype=np.float64), int(genes.removeprefix("expressed"))
            )
        for row, columns in enumerate(self.targets):
            keep[row, columns] = False
        if genes == "notarget":
            return keep
        return keep & self._largest(np.where(keep, self.de_statistic, -1.0), int(genes.removeprefix("top")))

    @staticmethod
    def _largest(size: np.ndarray, k: int) -> np.ndarray:
        """The k largest of each row (n, g), bool; of equal ones the first."""
        genes = size.shape[1]
        if k >= genes:
            return np.ones(size.shape, bool)
        border = np.partition(size, genes - k, axis=1)[:, genes - k, None]
        above, at = size > border, size == border
        left = k - above.sum(axis=1, keepdims=True)
        return above | (at & (np.cumsum(at, axis=1) <= left))


@dataclass(frozen=True)
class Metric:
    """A declared score: ``metric(pred, truth) -> (n,)`` float64, NaN where undefined; means are the report's business.

    Parameters
    ----------
    fn : ``fn(pred, truth, mask) -> (n,)`` with ``mask`` of shape (n, g), True at the entries to score.
    best : ``low`` or ``high``.
    source : paper and equation, or the package whose definition this is.
    lower, upper : range of finite values; of level ``gene`` that of their mean over a context.
    units : accepted effect units (empty: all).
    level : ``condition`` (rows alone), ``set`` (a value depends on the context's other rows), ``gene`` (a statistic
        of each gene over the rows of a context; row values are its linearisation, their mean is the mean over genes)
        or ``population`` (cells of a condition).
    target : ``effects``, ``labels`` or ``population``: what ``pred`` is.
    genes : ``all``, ``notarget``, ``topK`` or ``expressedK``: the variant, also in the registered name.
    needs : fields of `Truth` that must not be None.
    space : where population metrics compare cells: ``genes``, or ``pcaK`` (the basis of `Truth`).
    unit : of the values: ``effect``, ``effect^2``, ``expression``, ``cells`` ... ; empty: a pure number.
    about : the formula, where the docstring of ``fn`` does not say it.

    Examples
    --------
    >>> bias = Metric(lambda pred, truth, mask: (pred - truth.effects).mean(axis=1), "low", "definition")
    >>> bias(np.ones((1, 2)), Truth(np.array([[1.0, 3.0]]), "delta", np.array([0]), ((),))).tolist()
    [-1.0]
    """

    fn: Callable[[np.ndarray, Truth, np.ndarray], np.ndarray]
    best: str
    source: str
    lower: float = -np.inf
    upper: float = np.inf
    units: tuple[str, ...] = ()
    level: str = "condition"
    target: str = "effects"
    genes: str = "all"
    needs: tuple[str, ...] = ()
    space: str = "genes"
    unit: str = ""
    about: str = ""
    settable: ClassVar[tuple[str, ...]] = ()  # fields that a spec may set; every other variant has a name of its own

    @property
    def formula(self) -> str:
        """The definition in words and symbols, one paragraph.

        Examples
        --------
        >>> Metric(lambda pred, truth, mask: pred[:, 0], "low", "definition", about="first gene").formula
        'first gene'
        """
        fn = self.fn.func if isinstance(self.fn, partial) else self.fn
        return self.about or " ".join((inspect.getdoc(fn) or "").split())

    def unmet(self, truth: Truth) -> str:
        """Why the metric cannot be computed on ``truth``; empty when it can.

        Examples
        --------
        >>> truth = Truth(np.ones((1, 2)), "delta", np.array([0]), ((),))
        >>> Metric(np.subtract, "low", "definition", units=("log2fc",)).unmet(truth)
        'unit delta (needs log2fc)'
        """
        if self.units and truth.unit not in self.units:
            return f"unit {truth.unit} (needs {' or '.join(self.units)})"
        needs = [*self.needs, *(["baseline"] if self.genes.startswith("expressed") else [])]
        needs += ["basis"] if self.space != "genes" else []
        return ", ".join(f"no {f}" for f in dict.fromkeys(needs) if getattr(truth, f) is None)

    def __call__(self, pred: np.ndarray, truth: Truth) -> np.ndarray:
        """Score every row; ValueError when shapes differ, a prediction is not finite or a need is unmet."""
        if (
            len(pred) != len(truth.effects)
            or pred.shape[-1 if self.target != "labels" else 1] != truth.effects.shape[1]
        ):
            raise ValueError(f"metric: prediction {pred.shape} does not match truth {truth.effects.shape}")
        if not np.isfinite(pred).all():
            raise ValueError(f"metric: {int((~np.isfinite(pred)).sum())} predicted values are not finite")
        if reason := self.unmet(truth):
            raise ValueError(f"metric: not defined here: {reason}")
        return self.fn(pred, truth, truth.mask(self.genes))


@dataclass(frozen=True)
class Composite:
    """A published score over a whole table: made of the means of several metrics and of a baseline's.

    Parameters
    ----------
    fn : ``fn(means, base) -> (N,)``; ``means`` of shape (N, parts) and ``base`` of shape (parts,) are mean scores.
    parts : registered metric names, in the order of the columns.
    base : registered head whose means are ``base``.
    best, lower, upper, source, about : as in `Metric`.

    Examples
    --------
    >>> gain = Composite(lambda means, base: (means - base)[:, 0], ("pearson_all",), "context_mean", "high", "own")
    >>> gain(np.array([[0.5], [0.2]]), np.array([0.2])).tolist()
    [0.3, 0.0]
    """

    fn: Callable[[np.ndarray, np.ndarray], np.ndarray]
    parts: tuple[str, ...]
    base: str
    best: str
    source: str
    lower: float = -np.inf
    upper: float = np.inf
    about: str = ""

    @property
    def formula(self) -> str:
        """The definition in words and symbols, one paragraph."""
        return self.about or " ".join((inspect.getdoc(self.fn) or "").split())

    def __call__(self, means: np.ndarray, base: np.ndarray) -> np.ndarray:
        """The score of each row, shape (N,); ValueError when the columns are not the parts."""
        if means.shape[1:] != (len(self.parts),) or base.shape != (len(self.parts),):
            raise ValueError(f"composite: expected {len(self.parts)} means, found {means.shape[1:]} and {base.shape}")
        return self.fn(means, base)
