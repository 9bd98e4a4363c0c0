"""What predictions are judged against, and what a metric declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embbench.core.cells import CellView


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
    centroid : shape (n, g), float32 or None, mean training effect of each row's context.
    variance : shape (n, g), float32 or None, sampling variance of ``effects``.
    labels, labels_tested : shape (n, g), or None.
    cells : perturbed cells of the test rows, or None.
    basis : shape (g, k), float32 or None, population space fitted on training cells.
    """

    effects: np.ndarray
    unit: str
    context: np.ndarray
    targets: tuple[np.ndarray, ...]
    entities: tuple[tuple[str, ...], ...] = ()
    observed: np.ndarray | None = None
    baseline: np.ndarray | None = None
    centroid: np.ndarray | None = None
    variance: np.ndarray | None = None
    labels: np.ndarray | None = None
    labels_tested: np.ndarray | None = None
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
        """Scored entries, bool of shape (n, g): observed, and in the gene set ``all``, ``notarget`` or ``topK``.

        Top-k sets leave the perturbed genes out and come from `de_statistic`; ties go to the smaller column.

        Examples
        --------
        >>> truth = Truth(np.array([[3.0, -4.0, 1.0]]), "delta", np.array([0]), targets=(np.array([1]),))
        >>> truth.mask("top1").tolist()
        [[True, False, False]]
        """
        keep = np.ones(self.effects.shape, bool) if self.observed is None else self.observed.copy()
        if genes == "all":
            return keep
        for row, columns in enumerate(self.targets):
            keep[row, columns] = False
        if genes == "notarget":
            return keep
        k = int(genes.removeprefix("top"))
        order = np.argsort(-np.where(keep, self.de_statistic, -1.0), axis=1, kind="stable")[:, :k]
        top = np.zeros_like(keep)
        np.put_along_axis(top, order, values=True, axis=1)
        return top & keep


@dataclass(frozen=True)
class Metric:
    """A declared score: ``metric(pred, truth) -> (n,)`` float64, NaN where undefined; means are the report's business.

    Parameters
    ----------
    fn : ``fn(pred, truth, mask) -> (n,)`` with ``mask`` of shape (n, g), True at the entries to score.
    best : ``low`` or ``high``.
    source : paper and equation, or the package whose definition this is.
    lower, upper : range of finite values.
    units : accepted effect units (empty: all).
    level : ``condition`` (rows alone), ``set`` (a value depends on the context's other rows) or ``population``.
    target : ``effects``, ``labels`` or ``population``: what ``pred`` is.
    genes : ``all``, ``notarget`` or ``topK``: the variant, also in the registered name.
    needs : fields of `Truth` that must not be None.

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
        return ", ".join(f"no {f}" for f in self.needs if getattr(truth, f) is None)

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
