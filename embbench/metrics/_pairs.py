"""Distances between every query and every candidate over the genes scored for the pair: l1, l2, cosine, pearson.

Sums over the genes of each pair come from products of matrices; what a mask leaves out is subtracted, so that one
excluded gene per row costs one sparse product. Each distance states its resolution: two that differ by less cannot be
told apart, because the stored vectors are float32 and the order of summation is not ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial.distance import cdist

from embbench.metrics._rows import RESOLUTION

Distances = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PairSums:
    """Sums over the genes scored for each (query, candidate) pair, all of shape (b, n), float64.

    Parameters
    ----------
    count : number of scored genes.
    q, qq, c, cc, qc : sums of queries, their squares, candidates, their squares, and products.
    """

    count: np.ndarray
    q: np.ndarray
    qq: np.ndarray
    c: np.ndarray
    cc: np.ndarray
    qc: np.ndarray


def l2_distance(s: PairSums) -> Distances:
    """Root mean squared difference, shape (b, n), and its resolution: by the triangle inequality that of the norms."""
    count = np.maximum(s.count, 1)
    square = np.maximum(s.qq - 2 * s.qc + s.cc, 0.0) / count
    return np.sqrt(square), RESOLUTION * (np.sqrt(s.qq / count) + np.sqrt(s.cc / count))


def cosine_distance(s: PairSums) -> Distances:
    """1 - cosine, shape (b, n), 1 for a zero vector (it points nowhere), and the resolution."""
    size = np.sqrt(s.qq) * np.sqrt(s.cc)
    return 1.0 - np.where(size > 0, s.qc / np.where(size > 0, size, 1.0), 0.0), np.full(size.shape, 2 * RESOLUTION)


def pearson_distance(s: PairSums) -> Distances:
    """1 - Pearson correlation, shape (b, n), 1 for a constant vector, and the resolution (centring loses digits)."""
    count = np.maximum(s.count, 1)
    qq, cc, qc = s.qq - s.q**2 / count, s.cc - s.c**2 / count, s.qc - s.q * s.c / count
    varies = (qq > RESOLUTION**2 * s.qq) & (cc > RESOLUTION**2 * s.cc)
    qq, cc = np.where(varies, qq, 1.0), np.where(varies, cc, 1.0)
    loss = np.where(varies, np.sqrt(s.qq / qq) + np.sqrt(s.cc / cc), 2.0)
    return 1.0 - np.where(varies, qc / np.sqrt(qq * cc), 0.0), RESOLUTION * loss


KERNELS: dict[str, Callable[[PairSums], Distances]] = {
    "l2": l2_distance,
    "cosine": cosine_distance,
    "pearson": pearson_distance,
}
DISTANCES = ("l1", *KERNELS)


def distances(
    kind: str, query: np.ndarray, mask: np.ndarray, pool: np.ndarray, seen: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance of every query to every candidate over ``mask[i] & seen[j]``.

    Parameters
    ----------
    kind : of `DISTANCES`; l1 and l2 are means over genes, so that pairs with fewer genes compare.
    query, mask : of shape (b, g); queries are read inside the mask only.
    pool : candidates of shape (n, g), float64, 0 outside ``seen``.
    seen : of shape (n, g), bool, or None (everything).

    Returns
    -------
    Distances, their resolutions and the numbers of scored genes, each of shape (b, n).

    Examples
    --------
    >>> both = np.ones((1, 2), bool)
    >>> distances("l1", np.array([[1.0, 2.0]]), both, np.array([[3.0, 4.0]]), None)[0].tolist()
    [[2.0]]
    """
    q = np.where(mask, query, 0.0).astype(np.float64)
    if kind != "l1":
        sums = pair_sums(q, mask, pool, seen)
        return *KERNELS[kind](sums), sums.count
    count = _over_seen(mask * 1.0, seen, len(pool))
    used = np.flatnonzero(mask.any(axis=0))
    q, pool, mask = (np.ascontiguousarray(x[:, used]) for x in (q, pool, mask))  # cdist is slow on other layouts
    total = cdist(q, pool, "cityblock")
    size_q = _over_seen(np.abs(q), None if seen is None else seen[:, used], len(pool))
    size_c = _masked_sum(mask, np.abs(pool))
    # an entry of only one of the two is 0 in the other: cdist counted its size, which is taken off again
    alone = np.abs(q).sum(axis=1)[:, None] - size_q + np.abs(pool).sum(axis=1)[None, :] - size_c
    genes = np.maximum(count, 1)
    return np.maximum(total - alone, 0.0) / genes, RESOLUTION * (size_q + size_c) / genes, count


def own_distances(
    kind: str, query: np.ndarray, mask: np.ndarray, own: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of query i to its own candidate over ``mask[i] & seen[j]``, for every j.

    Parameters
    ----------
    kind : of `DISTANCES`.
    query, mask, own : of shape (b, g); own candidates are read inside the mask only.
    seen : of shape (n, g), bool.

    Returns
    -------
    Distances and their resolutions, each of shape (b, n).
    """
    q, c = (np.where(mask, x, 0.0).astype(np.float64) for x in (query, own))
    count = _masked_sum(seen, mask * 1.0).T
    if kind == "l1":
        away, size = (_masked_sum(seen, x).T / np.maximum(count, 1) for x in (np.abs(q - c), np.abs(q) + np.abs(c)))
        return np.maximum(away, 0.0), RESOLUTION * size
    total_q, total_c, qc = (_masked_sum(seen, x).T for x in (q, c, q * c))
    qq, cc = (np.maximum(_masked_sum(seen, x * x).T, 0.0) for x in (q, c))
    return KERNELS[kind](PairSums(count, total_q, qq, total_c, cc, qc))


def pair_sums(query: np.ndarray, mask: np.ndarray, pool: np.ndarray, seen: np.ndarray | None) -> PairSums:
    """Sums over ``mask[i] & seen[j]`` of queries of shape (b, g) and candidates (n, g), which are 0 where not seen.

    Examples
    --------
    >>> sums = pair_sums(np.array([[1.0, 2.0]]), np.array([[True, True]]), np.array([[3.0, 4.0]]), None)
    >>> sums.qc.tolist(), l2_distance(sums)[0].tolist()
    ([[11.0]], [[2.0]])
    """
    q = np.where(mask, query, 0.0).astype(np.float64)
    count, total, squares = (_over_seen(x, seen, len(pool)) for x in (mask * 1.0, q, q * q))
    return PairSums(
        count, total, squares, _masked_sum(mask, pool), np.maximum(_masked_sum(mask, pool * pool), 0.0), q @ pool.T
    )


def _over_seen(values: np.ndarray, seen: np.ndarray | None, n: int) -> np.ndarray:
    """``values @ seenᵀ`` of shape (b, n): sums of each query's values over the genes seen of each candidate."""
    if seen is None:
        return np.broadcast_to(values.sum(axis=1)[:, None], (len(values), n))
    return values @ seen.T.astype(np.float64)


def _masked_sum(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``mask @ valuesᵀ`` (b, n), over whichever of the mask and its complement is smaller."""
    invert = 2 * np.count_nonzero(mask) > mask.size
    few = ~mask if invert else mask
    columns = np.flatnonzero(few.any(axis=0))
    part = sparse.csr_matrix(few[:, columns], dtype=np.float64) @ np.ascontiguousarray(values[:, columns].T)
    return values.sum(axis=1)[None, :] - part if invert else part
