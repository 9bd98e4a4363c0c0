"""Distances between two clouds of cells by sorting or matching them: Wasserstein and Kolmogorov-Smirnov."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from embbench.numerics.distances import squared_distances

SORTED = 1 << 20  # entries of a sort at a time


def unit_directions(dims: int, count: int, seed: int = 0) -> np.ndarray:
    """Normal random directions of shape (dims, count), float64; `sliced_wasserstein` scales them to length 1."""
    return np.random.default_rng([29, seed]).normal(size=(dims, count))


def sliced_wasserstein(x: np.ndarray, y: np.ndarray, directions: np.ndarray, order: int) -> float:
    """``(mean over directions and quantiles of |sorted x.u - sorted y.u|^order)^(1 / order)``, equal numbers of cells.

    Parameters
    ----------
    x, y : of shape (k, d) both; NaN for k = 0.
    directions : of shape (d, l), scaled to length 1 here.
    order : 1 or 2.

    Raises
    ------
    ValueError
        Unequal numbers of cells.

    References
    ----------
    Bonneel et al. (2015), Journal of Mathematical Imaging and Vision 51:22, definition 5, by Monte Carlo.
    """
    _equal(x, y)
    if not len(x) or not x.shape[1]:
        return float("nan")
    axes = directions / np.sqrt(np.square(directions).sum(axis=0))
    a, b = (np.sort((np.asarray(z, dtype=np.float64) @ axes).T, axis=1) for z in (x, y))
    return float(np.mean(np.abs(a - b) ** order) ** (1.0 / order))


def wasserstein(x: np.ndarray, y: np.ndarray, order: int) -> float:
    """``(min over pairings p of mean_i |x_i - y_p(i)|^order)^(1 / order)``, Euclidean, exact, equal numbers of cells.

    Raises
    ------
    ValueError
        Unequal numbers of cells.

    References
    ----------
    Peyré and Cuturi (2019), Computational Optimal Transport, propositions 2.1 and 2.2; the assignment by Crouse (2016),
    IEEE Transactions on Aerospace and Electronic Systems 52:1679 (scipy).

    Examples
    --------
    >>> wasserstein(np.array([[0.0], [1.0]]), np.array([[3.0], [2.0]]), 1)
    2.0
    """
    _equal(x, y)
    if not len(x):
        return float("nan")
    cost = squared_distances(x, y)
    cost = np.sqrt(cost) if order == 1 else cost
    return float(cost[linear_sum_assignment(cost)].mean() ** (1.0 / order))


def _equal(x: np.ndarray, y: np.ndarray) -> None:
    if len(x) != len(y):
        raise ValueError(
            f"wasserstein: needs equal numbers of cells, found {len(x)} and {len(y)}; take as many of each"
        )


def kolmogorov_smirnov(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Largest difference (d,) of the empirical distribution functions of each column; NaN for an empty cloud.

    References
    ----------
    Smirnov (1939), Bulletin of Moscow University 2:3; the two-sided statistic of ``scipy.stats.ks_2samp``.

    Examples
    --------
    >>> kolmogorov_smirnov(np.array([[0.0, 5.0], [1.0, 6.0]]), np.array([[1.0, 0.0], [2.0, 0.0]])).tolist()
    [0.5, 1.0]
    """
    n, m = len(x), len(y)
    if not n or not m:
        return np.full(x.shape[1], np.nan)
    out, step = np.empty(x.shape[1]), max(1, SORTED // (n + m))
    for start in range(0, x.shape[1], step):
        part = slice(start, start + step)
        values = np.concatenate([x[:, part], y[:, part]]).T
        order = np.argsort(values, axis=1)
        values = np.take_along_axis(values, order, axis=1)
        # whole numbers: n m (F_x - F_y), read where a run of equal values ends
        steps = np.cumsum(np.where(order < n, m, -n), axis=1)
        ends = np.ones(values.shape, bool)
        ends[:, :-1] = values[:, 1:] != values[:, :-1]
        out[part] = np.where(ends, np.abs(steps), 0).max(axis=1) / (n * m)
    return out
