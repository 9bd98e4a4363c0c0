"""Distances between sampled and observed cells of a condition: the Euclidean E-distance, V-statistic."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist

from embbench.core import Metric, Truth


def edistance(x: np.ndarray, y: np.ndarray) -> float:
    """2 mean|x_i - y_j| - mean|x_i - x_j| - mean|y_i - y_j|, Euclidean, over all pairs including i = j.

    Parameters
    ----------
    x, y : of shape (m, k) and (l, k); NaN when either is empty.

    References
    ----------
    Székely and Rizzo (2013), Journal of Statistical Planning and Inference 143:1249; Peidli et al. (2024), scPerturb.

    Examples
    --------
    >>> edistance(np.zeros((3, 2)), np.full((2, 2), 1.0)) == 2 * 2**0.5
    True
    """
    if not len(x) or not len(y):
        return float("nan")
    within = sum(2.0 * pdist(z).sum() / len(z) ** 2 for z in (x, y))
    return max(float(2.0 * cdist(x, y).mean() - within), 0.0)


def _edistance_euclidean_v(pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    """E-distance of each condition's sampled cells ``pred[i]`` (m, g) to its observed cells, on the same log1p scale.

    Unscored genes are set to 0 in both; both are projected on ``truth.basis`` when there is one. NaN without cells or
    without a scored gene.
    """
    if truth.cells is None:
        raise ValueError("edistance_euclidean_v: needs the cells of the tested rows, found none")
    out = np.full(len(pred), np.nan)
    for row in np.flatnonzero(mask.any(axis=1)):
        pair = [
            np.where(mask[row], cells, 0.0).astype(np.float64) for cells in (pred[row], truth.cells.perturbed(int(row)))
        ]
        out[row] = edistance(*(pair if truth.basis is None else (cells @ truth.basis for cells in pair)))
    return out


SOURCE = (
    "Székely and Rizzo (2013), Journal of Statistical Planning and Inference 143:1249 (energy distance); Peidli et al. "
    "(2024), scPerturb, Nature Methods 21:531; Euclidean, V-statistic (no correction within groups)"
)

edistance_euclidean_v = Metric(
    _edistance_euclidean_v,
    best="low",
    lower=0.0,
    level="population",
    target="population",
    needs=("cells",),
    source=SOURCE,
)
