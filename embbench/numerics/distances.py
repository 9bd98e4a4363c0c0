"""Distances between two clouds of cells that are means over pairs of cells: energy distances, MMD.

All take ``x`` of shape (n, d) and ``y`` (m, d), work in float64 in bounded memory, and give NaN for clouds that are too
small. V: means over all pairs, those of a cell with itself included; never negative. U: those left out of the within
terms; unbiased, so clouds closer than chance give negative values. `Reference` is for many clouds against one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from embbench.numerics._pairs import Points, squared_distances

PAIRS = 1 << 17  # pairs of cells at a time: 1 MiB of float64 stays in the cache between the steps over it

Pointwise = Callable[[np.ndarray], np.ndarray]

__all__ = [
    "Reference",
    "edistance_euclidean_u",
    "edistance_euclidean_v",
    "edistance_half_euclidean_v",
    "edistance_sqeuclidean_u",
    "edistance_sqeuclidean_v",
    "mean_distance",
    "mean_self_distances",
    "median_square",
    "mmd_linear_v",
    "mmd_rbf",
    "squared_distances",
]


class Reference:
    """Cells ``y`` that many clouds are compared with: what depends on them alone is computed once, when first needed.

    The value of a cloud depends on it and on ``y`` only, never on the clouds that came before.

    Parameters
    ----------
    cells : ``y``, of shape (m, d).

    Examples
    --------
    >>> control = Reference(np.array([[0.0], [2.0]]))
    >>> control.euclidean_v(np.array([[1.0]])), control.euclidean_v(np.array([[4.0], [4.0]]))
    (1.0, 5.0)
    """

    def __init__(self, cells: np.ndarray) -> None:
        self.points = Points(cells)
        self._kernels: dict[tuple[float, ...], float] = {}

    def __len__(self) -> int:
        return len(self.points)

    @functools.cached_property
    def spread(self) -> float:
        """Mean Euclidean distance over all m^2 pairs of the reference cells; NaN without any."""
        return _within(self.points, _root)

    @functools.cached_property
    def median_square(self) -> float:
        """Median squared distance of two different reference cells; NaN below 2.

        References
        ----------
        Gretton et al. (2012), Journal of Machine Learning Research 13:723, section 8 (the median heuristic).
        """
        if len(self) < 2:
            return float("nan")
        return float(np.median(np.concatenate([*_pairs_once(self.points)])))

    def mean_distance(self, x: np.ndarray) -> float:
        """Mean Euclidean distance over all n m pairs; NaN without any."""
        return self._across(x, _root)

    def euclidean_v(self, x: np.ndarray) -> float:
        """See `edistance_euclidean_v`."""
        return float(np.maximum(2 * self.mean_distance(x) - _within(Points(x), _root) - self.spread, 0.0))

    def euclidean_u(self, x: np.ndarray) -> float:
        """See `edistance_euclidean_u`."""
        n, m = len(x), len(self)
        if min(n, m) < 2:
            return float("nan")
        own, theirs = _within(Points(x), _root) * n / (n - 1), self.spread * m / (m - 1)
        return 2 * self.mean_distance(x) - own - theirs

    def sqeuclidean_v(self, x: np.ndarray) -> float:
        """See `edistance_sqeuclidean_v`."""
        if not len(x) or not len(self):
            return float("nan")
        gap = np.ascontiguousarray(x, dtype=np.float64).mean(axis=0) - self.points.centre
        return 2.0 * float(gap @ gap)

    def sqeuclidean_u(self, x: np.ndarray) -> float:
        """See `edistance_sqeuclidean_u`."""
        n, m = len(x), len(self)
        if min(n, m) < 2:
            return float("nan")
        own = float(np.ascontiguousarray(x, dtype=np.float64).var(axis=0).sum())
        return self.sqeuclidean_v(x) - 2.0 * (own / (n - 1) + float(self.points.square.mean()) / (m - 1))

    def mmd_rbf(self, x: np.ndarray, gammas: Sequence[float], *, unbiased: bool) -> float:
        """See `mmd_rbf`; distances are computed once for all ``gammas``."""
        n, m, key = len(x), len(self), tuple(sorted(gammas))
        if min(n, m) < 1 + unbiased:
            return float("nan")
        kernel = functools.partial(_kernels, gammas=key)
        if key not in self._kernels:
            self._kernels[key] = _within(self.points, kernel)
        across, own, theirs = self._across(x, kernel), _within(Points(x), kernel), self._kernels[key]
        if not unbiased:
            return float(np.maximum(own + theirs - 2 * across, 0.0))
        # the kernel of a cell with itself is 1
        return (n * own - 1) / (n - 1) + (m * theirs - 1) / (m - 1) - 2 * across

    def _across(self, x: np.ndarray, fn: Pointwise) -> float:
        """Mean of ``fn(squared distance)`` over all n m pairs; NaN without any."""
        if not len(x) or not len(self):
            return float("nan")
        blocks: Iterable[np.ndarray] = Points(x, self.points.centre).across(self.points, PAIRS)
        return float(sum(fn(block).sum() for block in blocks) / (len(x) * len(self)))


def _root(block: np.ndarray) -> np.ndarray:
    return np.sqrt(block, out=block)


def _kernels(block: np.ndarray, gammas: tuple[float, ...]) -> np.ndarray:
    """Mean over ``gammas``, ascending, of ``exp(-gamma block)``; a kernel of twice the last gamma is its square."""
    last, kernel = 0.0, np.ones(1)
    total = np.zeros_like(block)
    for gamma in gammas:
        kernel = np.square(kernel) if last and gamma == 2 * last else np.exp(-gamma * block)
        total += kernel
        last = gamma
    total /= len(gammas)
    return total


def _within(points: Points, fn: Pointwise) -> float:
    """Mean of ``fn(squared distance)`` over all n^2 pairs of points; NaN without any."""
    if not len(points):
        return float("nan")
    return float(sum(times * fn(block).sum() for block, times in points.within(PAIRS)) / len(points) ** 2)


def _pairs_once(points: Points) -> Iterable[np.ndarray]:
    """Squared distances of different points, every pair once."""
    for block, times in points.within(PAIRS):
        yield block[np.triu_indices(len(block), 1)] if times == 1 else block.ravel()


def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Mean Euclidean distance over all n m pairs; NaN without any.

    Examples
    --------
    >>> mean_distance(np.array([[0.0], [2.0]]), np.array([[0.0], [2.0]]))
    1.0
    """
    return Reference(y).spread if x is y else Reference(y).mean_distance(x)


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
        out[row] = Reference(x[:, masks[row]]).spread
    gone = {row: x[:, ~masks[row]] for row in np.flatnonzero(few)}
    step, total = max(1, PAIRS // len(x)), np.zeros(len(masks))
    whole = Points(x)
    for block, start in zip(whole.across(whole, PAIRS), range(0, len(x), step), strict=True) if gone else ():
        part = slice(start, start + step)
        for row, columns in gone.items():
            lost = squared_distances(columns[part], columns) if columns.shape[1] else 0.0
            total[row] += np.sqrt(np.maximum(block - lost, 0.0)).sum()
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
    return Reference(y).euclidean_v(x)


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
    return Reference(y).euclidean_u(x)


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
    return Reference(y).sqeuclidean_u(x)


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
    return Reference(y).mmd_rbf(x, gammas, unbiased=unbiased)


def median_square(x: np.ndarray) -> float:
    """Median squared distance of two different cells of ``x``; NaN below 2 cells.

    Examples
    --------
    >>> median_square(np.array([[0.0], [1.0], [3.0]]))
    4.0
    """
    return Reference(x).median_square
