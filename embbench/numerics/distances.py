"""Distances between two clouds of cells that are means over pairs of cells: energy distances, MMD.

All take ``x`` of shape (n, d) and ``y`` (m, d), work in float64 in bounded memory, and give NaN for clouds that are too
small. V: means over all pairs, those of a cell with itself included; never negative. U: those left out of the within
terms; unbiased, so clouds closer than chance give negative values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

PAIRS = 1 << 22  # pairs of cells at a time: 32 MiB of float64
NEAR = 1e-4  # squared distances below this share of the squared norms have lost digits and are computed again

Pointwise = Callable[[np.ndarray], np.ndarray]


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``|x_i - y_j|^2`` of shape (n, m), float64, to a relative 1e-11; exactly 0 for equal rows.

    One matrix product, ``|x|^2 + |y|^2 - 2 x.y`` about the common mean; where that cancels (`NEAR`), the differences.

    Examples
    --------
    >>> squared_distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[25.0, 0.0]]
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    centre = (x.sum(axis=0) + y.sum(axis=0)) / max(len(x) + len(y), 1)
    a, b = x - centre, y - centre
    size = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)[None, :]
    out = size - 2.0 * (a @ b.T)
    left, right = np.nonzero(out <= NEAR * size)
    step = max(1, PAIRS // max(x.shape[1], 1))
    for start in range(0, len(left), step):
        i, j = left[start : start + step], right[start : start + step]
        out[i, j] = np.square(x[i] - y[j]).sum(axis=1)
    return out


def _blocks(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances of blocks of rows of ``x`` to all of ``y``."""
    step = max(1, PAIRS // max(len(y), 1))
    for start in range(0, len(x), step):
        yield squared_distances(x[start : start + step], y)


def _pair_mean(x: np.ndarray, y: np.ndarray, fn: Pointwise) -> float:
    """Mean of ``fn(squared distance)`` over all n m pairs; NaN without any."""
    if not len(x) or not len(y):
        return float("nan")
    return float(sum(fn(block).sum() for block in _blocks(x, y)) / (len(x) * len(y)))


def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Mean Euclidean distance over all n m pairs; NaN without any.

    Examples
    --------
    >>> mean_distance(np.array([[0.0], [2.0]]), np.array([[0.0], [2.0]]))
    1.0
    """
    return _pair_mean(x, y, np.sqrt)


def mean_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance (n,) of each row of ``x`` to all of ``y``, m >= 1.

    Examples
    --------
    >>> mean_distances(np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]])).tolist()
    [0.5, 1.5]
    """
    return np.concatenate([np.zeros(0), *(np.sqrt(block).mean(axis=1) for block in _blocks(x, y))])


def mean_self_distances(x: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """`mean_distance` of ``x`` to itself over each of several subsets of its columns.

    Parameters
    ----------
    x : of shape (n, d), n >= 1.
    masks : of shape (r, d), bool. Subsets that leave out less than a tenth of the columns share one matrix product, of
        which their part is subtracted; cells that differ nowhere else are then 0 to about 1e-8 of their norm.

    Returns
    -------
    (r,) float64.

    Examples
    --------
    >>> mean_self_distances(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[True, True], [True, False]])).tolist()
    [2.5, 1.5]
    """
    x = np.asarray(x, dtype=np.float64)
    few = (~masks).sum(axis=1) * 10 < masks.shape[1]
    out = np.zeros(len(masks))
    for row in np.flatnonzero(~few):
        out[row] = mean_distance(x[:, masks[row]], x[:, masks[row]])
    gone = {row: x[:, ~masks[row]] for row in np.flatnonzero(few)}
    step, total = max(1, PAIRS // len(x)), np.zeros(len(masks))
    for start in range(0, len(x), step) if gone else ():
        part = slice(start, start + step)
        whole = squared_distances(x[part], x)
        for row, columns in gone.items():
            lost = squared_distances(columns[part], columns) if columns.shape[1] else 0.0
            total[row] += np.sqrt(np.maximum(whole - lost, 0.0)).sum()
    return np.where(few, total / len(x) ** 2, out)


def edistance_euclidean_v(x: np.ndarray, y: np.ndarray) -> float:
    """``2 mean|x_i - y_j| - mean|x_i - x_j| - mean|y_i - y_j|`` over all pairs; >= 0, NaN for an empty cloud.

    References
    ----------
    Székely and Rizzo (2013), Journal of Statistical Planning and Inference 143:1249, equation 6.1 with exponent 1.

    Examples
    --------
    >>> edistance_euclidean_v(np.zeros((3, 2)), np.full((2, 2), 1.0)) == 2 * 2**0.5
    True
    """
    return float(np.maximum(2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y), 0.0))


def edistance_euclidean_u(x: np.ndarray, y: np.ndarray) -> float:
    """`edistance_euclidean_v` with within means over ``n (n - 1)`` and ``m (m - 1)`` pairs; NaN below 2 cells.

    References
    ----------
    Peidli et al. (2024), scPerturb, Nature Methods 21:531; package scperturb 0.1.0, ``sample_correct=True``.

    Examples
    --------
    >>> edistance_euclidean_u(np.array([[0.0], [2.0]]), np.array([[0.0], [2.0]]))
    -2.0
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return float("nan")
    return 2 * mean_distance(x, y) - mean_distance(x, x) * n / (n - 1) - mean_distance(y, y) * m / (m - 1)


def edistance_half_euclidean_v(x: np.ndarray, y: np.ndarray) -> float:
    """Half of `edistance_euclidean_v`: what geomloss's ``SamplesLoss("energy")`` gives.

    References
    ----------
    Feydy et al. (2019), AISTATS (PMLR 89:2681), kernel norm with ``k(x, y) = -|x - y|``.
    """
    return 0.5 * edistance_euclidean_v(x, y)


def edistance_sqeuclidean_v(x: np.ndarray, y: np.ndarray) -> float:
    """Energy distance of squared Euclidean distances, all pairs: ``2 |mean x - mean y|^2``; sees means only.

    References
    ----------
    Székely and Rizzo (2013), Journal of Statistical Planning and Inference 143:1249, equation 6.1 with exponent 2.

    Examples
    --------
    >>> edistance_sqeuclidean_v(np.array([[1.0], [3.0]]), np.array([[0.0]]))
    8.0
    """
    return 2.0 * mmd_linear_v(x, y)


def edistance_sqeuclidean_u(x: np.ndarray, y: np.ndarray) -> float:
    """``2 |mean x - mean y|^2 - 2 s_x / (n - 1) - 2 s_y / (m - 1)``, ``s`` = mean squared distance to the own mean.

    References
    ----------
    Peidli et al. (2024), scPerturb, Nature Methods 21:531; package scperturb 0.1.0, its default.

    Examples
    --------
    >>> edistance_sqeuclidean_u(np.array([[0.0], [2.0]]), np.array([[0.0], [2.0]]))
    -4.0
    """
    if min(len(x), len(y)) < 2:
        return float("nan")
    spread = [float(np.var(z, axis=0, dtype=np.float64).sum()) / (len(z) - 1) for z in (x, y)]
    return edistance_sqeuclidean_v(x, y) - 2.0 * (spread[0] + spread[1])


def mmd_linear_v(x: np.ndarray, y: np.ndarray) -> float:
    """Squared maximum mean discrepancy of the kernel ``x.y``: ``|mean x - mean y|^2``; NaN for an empty cloud.

    References
    ----------
    Gretton et al. (2012), Journal of Machine Learning Research 13:723, equation 5 with a linear kernel.
    """
    if not len(x) or not len(y):
        return float("nan")
    gap = np.mean(x, axis=0, dtype=np.float64) - np.mean(y, axis=0, dtype=np.float64)
    return float(np.square(gap).sum())


def mmd_rbf(x: np.ndarray, y: np.ndarray, gammas: Sequence[float], *, unbiased: bool) -> float:
    """Squared maximum mean discrepancy, mean over ``gammas`` of that of the kernel ``exp(-gamma |x - y|^2)``.

    Parameters
    ----------
    x, y : of shape (n, d) and (m, d).
    gammas : inverse squared widths, > 0.
    unbiased : True: within means over pairs of different cells (U), NaN below 2 cells; False: over all pairs (V).

    References
    ----------
    Gretton et al. (2012), Journal of Machine Learning Research 13:723, equations 3 (unbiased) and 5 (biased).

    Examples
    --------
    >>> round(mmd_rbf(np.array([[0.0]]), np.array([[1.0]]), [1.0], unbiased=False), 4)  # 2 - 2 / e
    1.2642
    """

    def kernel(square: np.ndarray) -> np.ndarray:
        return np.mean([np.exp(-gamma * square) for gamma in gammas], axis=0)

    n, m = len(x), len(y)
    if min(n, m) < 1 + unbiased:
        return float("nan")
    across, within = _pair_mean(x, y, kernel), [_pair_mean(x, x, kernel), _pair_mean(y, y, kernel)]
    if not unbiased:
        return float(np.maximum(within[0] + within[1] - 2 * across, 0.0))
    # the kernel of a cell with itself is 1
    return (n * within[0] - 1) / (n - 1) + (m * within[1] - 1) / (m - 1) - 2 * across


def median_square(x: np.ndarray) -> float:
    """Median squared distance of two different cells of ``x``; NaN below 2 cells.

    References
    ----------
    Gretton et al. (2012), Journal of Machine Learning Research 13:723, section 8 (the median heuristic).

    Examples
    --------
    >>> median_square(np.array([[0.0], [1.0], [3.0]]))
    4.0
    """
    if len(x) < 2:
        return float("nan")
    # every pair comes twice, which leaves the median where it is; a cell with itself is taken out
    pairs = np.concatenate([block.ravel() for block in _blocks(x, x)])
    return float(np.median(np.delete(pairs, np.arange(len(x)) * (len(x) + 1))))
