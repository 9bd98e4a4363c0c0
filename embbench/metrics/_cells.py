"""Pairs of clouds to compare: sampled and observed cells of each condition, equally many, in one stated space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from embbench.core import Metric, Truth

LEAST = 2  # with fewer cells than this on one side nothing is compared
EQUAL = (
    " x, y: k sampled and k observed cells of the condition, k = the smaller number (of the other cloud the first k of "
    "a fixed permutation); log1p scale; NaN when k < 2 or no gene is scored."
)

Kernel = Callable[[np.ndarray, np.ndarray], float]


def choose(cells: np.ndarray, k: int) -> np.ndarray:
    """``k`` of the cells (m, g): all of them, else the first k of a permutation that depends on m alone, in file order.

    Not simply the first k: files are sorted by batch.

    Examples
    --------
    >>> choose(np.arange(6)[:, None], 3).shape, choose(np.arange(3)[:, None], 3).ravel().tolist()
    ((3, 1), [0, 1, 2])
    """
    if k >= len(cells):
        return cells
    return cells[np.sort(np.random.default_rng([23, len(cells)]).permutation(len(cells))[:k])]


def place(cells: np.ndarray, keep: np.ndarray, basis: np.ndarray | None) -> np.ndarray:
    """Cells (m, g) in the space of comparison, float64: the scored genes, or the basis with all other genes at 0."""
    scored = cells[:, keep].astype(np.float64)
    return scored if basis is None else scored @ basis[keep].astype(np.float64)


def basis_of(truth: Truth, space: str) -> np.ndarray | None:
    """Basis (g, k) of a ``pcaK`` space, None for ``genes``."""
    return None if space == "genes" else truth.basis


def clouds(
    pred: np.ndarray, truth: Truth, mask: np.ndarray, space: str
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Row, sampled and observed cells (both of shape (k, d)) of each row with a scored gene and k >= 2.

    Energy distances, MMD and Wasserstein distances between finite samples depend on their size, so every entry and
    the ceiling must agree in ``k``, the smaller of the numbers of sampled and of observed cells.
    """
    if truth.cells is None:
        raise ValueError("population metric: needs the cells of the tested rows, found none")
    basis = basis_of(truth, space)
    for row in np.flatnonzero(mask.any(axis=1)).tolist():
        seen = truth.cells.perturbed(row)
        k = min(pred.shape[1], len(seen))
        if k >= LEAST:
            x, y = (place(choose(cells, k), mask[row], basis) for cells in (pred[row], seen))
            yield row, x, y


def score_clouds(kernel: Kernel, space: str, pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    """``kernel(sampled, observed)`` of every row, shape (n,); NaN without a scored gene or below 2 cells."""
    out = np.full(len(pred), np.nan)
    for row, x, y in clouds(pred, truth, mask, space):
        out[row] = kernel(x, y)
    return out


def population_metric(
    scorer: Callable[..., np.ndarray], kernel: object, about: str, source: str, **declared: Any
) -> Metric:
    """A metric of cells in gene space, ``scorer(kernel, space, pred, truth, mask) -> (n,)``, with what it declares.

    Parameters
    ----------
    scorer : `score_clouds`, or a function of the same arguments.
    kernel : its first argument.
    about : the formula; how cells are paired is added to it.
    source : paper and equation, or package.
    declared : other fields of `Metric`; low is best, 0 the lower bound and the level population unless said otherwise.
    """
    declared = {"best": "low", "lower": 0.0, "level": "population", **declared}
    fn = partial(scorer, kernel, "genes")
    return Metric(fn, source=source, target="population", needs=("cells",), about=about + EQUAL, **declared)


def in_pca(metric: Metric, space: str = "pca50") -> Metric:
    """A `population_metric` with cells compared on ``truth.basis``, the unscored genes at 0 in both clouds.

    Raises
    ------
    TypeError
        The metric is not made by `population_metric`.
    """
    if not isinstance(metric.fn, partial):
        raise TypeError(f"in_pca: needs a metric made by population_metric, found one of {metric.fn!r}")
    fn = partial(metric.fn.func, metric.fn.args[0], space)
    return replace(metric, fn=fn, space=space, needs=(*metric.needs, "basis"))
