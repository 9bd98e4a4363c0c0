"""Distances between every query and every candidate over the genes scored for the pair: l1, l2, cosine, pearson.

Sums over the genes of each pair come from products of matrices; what a mask leaves out is subtracted, so that one
excluded gene per row costs one sparse product. Each distance states its resolution: two that differ by less cannot be
told apart. It is that of the stored float32 vectors, or, where ``fine``, that of the sums in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from embbench.metrics._cityblock import cityblock
from embbench.metrics._rows import RESOLUTION, inner

FINE = RESOLUTION**2  # relative, of sums in float64: several thousand roundings
LOST = 2.0**-45  # a sum of squares below this share of what was subtracted from is rounding
DENSE = 1 / 40  # share of True above which a mask is multiplied as a dense matrix
BLOCK = 1 << 16  # entries turned to float64 at a time

STEEP = 1e-150  # stands for no distance at all where one is divided by

Distances = tuple[np.ndarray, np.ndarray]  # and their resolutions
Linear = tuple[np.ndarray, np.ndarray, np.ndarray]  # and by how much they may move for an error of the product


@dataclass(frozen=True)
class Vectors:
    """Vectors (n, g), float32 or float64, 0 where not scored, and their sums over the genes that masks leave.

    Examples
    --------
    >>> two = Vectors(np.array([[1.0, -2.0], [3.0, 4.0]]))
    >>> two.over(np.array([[False, True]]), "size").tolist(), two.over(None, "square").tolist()
    ([[2.0, 4.0]], [[5.0, 25.0]])
    """

    values: np.ndarray

    @cached_property
    def total(self) -> np.ndarray:
        """Sums (n,), float64."""
        return self.values.sum(axis=1, dtype=np.float64)

    @cached_property
    def square(self) -> np.ndarray:
        """Sums of squares (n,), float64."""
        return row_products(self.values, self.values)

    @cached_property
    def size(self) -> np.ndarray:
        """Sums of absolute values (n,), float64."""
        return np.abs(self.values).sum(axis=1, dtype=np.float64)

    @cached_property
    def turned(self) -> np.ndarray:
        """The transposed vectors (g, n), contiguous."""
        return np.ascontiguousarray(self.values.T)

    def over(self, mask: np.ndarray | None, of: str = "total") -> np.ndarray:
        """Sums (b, n) over the genes of each row of ``mask`` (b, g); of shape (1, n) over all genes without a mask.

        The smaller one of the mask and its complement is multiplied, as a sparse matrix where that pays.
        """
        whole = getattr(self, of)[None, :]
        if mask is None:
            return whole
        invert = 2 * np.count_nonzero(mask) > mask.size
        few, kind = (~mask if invert else mask), {"total": np.positive, "square": np.square, "size": np.abs}[of]
        if np.count_nonzero(few) > DENSE * few.size:
            sums = few.astype(np.float64) @ kind(self.values.astype(np.float64)).T
        else:
            row, column = np.divmod(np.flatnonzero(few), few.shape[1])
            used, at = np.unique(column, return_inverse=True)
            ones = sparse.csr_matrix((np.ones(len(row)), (row, at)), shape=(len(few), len(used)))
            sums = ones @ kind(np.take(self.values, used, axis=1).astype(np.float64)).T.copy()
        if not invert:
            return sums
        sums = whole - sums
        return sums if of == "total" else np.where(sums > LOST * whole, sums, 0.0)


def row_products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``sum_g x_ig y_ig`` of rows (m, g), shape (m,), in float64.

    Examples
    --------
    >>> row_products(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])).tolist()
    [11.0]
    """
    out, step = np.empty(len(x)), max(1, BLOCK // max(1, x.shape[1]))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        one = x[part].astype(np.float64, order="C")
        out[part] = inner(one, one if y is x else y[part].astype(np.float64, order="C"))
    return out


@dataclass(frozen=True)
class PairSums:
    """Sums over the genes scored for each (query, candidate) pair, float64, of shapes that broadcast to (b, n).

    Parameters
    ----------
    count : number of scored genes.
    qq, cc : sums of squares of queries and candidates.
    q, c : their sums; 0 where only Pearson would read them.
    """

    count: np.ndarray
    qq: np.ndarray
    cc: np.ndarray
    q: np.ndarray
    c: np.ndarray

    def at(self, i: np.ndarray, j: np.ndarray) -> PairSums:
        """The sums of pairs (i, j), each of shape (m,)."""
        b, n = np.broadcast_shapes(*(x.shape for x in (self.count, self.qq, self.cc)))
        told = (self.count, self.qq, self.cc, self.q, self.c)
        return PairSums(*(x[i if x.shape[0] == b else 0, j if x.shape[1] == n else 0] for x in told))


def l2_distance(s: PairSums, qc: np.ndarray, *, fine: bool) -> Linear:
    """Root mean squared difference, its resolution (by the triangle inequality that of the norms) and its slope.

    Where ``fine``, the mean squared difference: in the same order, and its resolution is that of the sums.
    """
    count = np.maximum(s.count, 1)
    away = s.qq + s.cc
    slack = away * (FINE / count)
    away -= 2 * qc
    away /= count
    np.maximum(away, 0.0, out=away)
    if fine:
        return away, slack, 2 / count
    np.sqrt(away, out=away)  # |sqrt(x) - sqrt(y)| <= |x - y| / sqrt(x)
    slope = 2 / count / np.maximum(away, STEEP)
    return away, RESOLUTION * (np.sqrt(s.qq / count) + np.sqrt(s.cc / count)), slope


def cosine_distance(s: PairSums, qc: np.ndarray, *, fine: bool) -> Linear:
    """1 - cosine, 1 for a zero vector (it points nowhere), the resolution and the slope."""
    size = np.sqrt(s.qq) * np.sqrt(s.cc)
    slope = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    return 1.0 - qc * slope, np.full_like(size, 2 * (FINE if fine else RESOLUTION)), slope


def pearson_distance(s: PairSums, qc: np.ndarray, *, fine: bool) -> Linear:
    """1 - Pearson correlation, 1 for a constant vector, the resolution (centring loses digits) and the slope."""
    count = np.maximum(s.count, 1)
    qq, cc = s.qq - s.q**2 / count, s.cc - s.c**2 / count
    varies = (qq > RESOLUTION**2 * s.qq) & (cc > RESOLUTION**2 * s.cc)
    qq, cc = np.where(varies, qq, 1.0), np.where(varies, cc, 1.0)
    loss = np.where(varies, np.sqrt(s.qq / qq) + np.sqrt(s.cc / cc), 2.0)
    slope = np.where(varies, 1 / np.sqrt(qq * cc), 0.0)
    return 1.0 - (qc - s.q * s.c / count) * slope, (FINE * loss**2 if fine else RESOLUTION * loss), slope


KERNELS: dict[str, Callable[..., Linear]] = {"l2": l2_distance, "cosine": cosine_distance, "pearson": pearson_distance}
DISTANCES = ("l1", *KERNELS)


def pair_sums(kind: str, query: Vectors, mask: np.ndarray, pool: Vectors, seen: np.ndarray | None) -> PairSums:
    """Sums over ``mask[i] & seen[j]`` of queries (b, g), 0 outside ``mask``, and candidates (n, g), 0 where not seen.

    Examples
    --------
    >>> query, pool = Vectors(np.array([[3.0, 0.0]])), Vectors(np.eye(2))
    >>> sums = pair_sums("l2", query, np.array([[True, False]]), pool, None)
    >>> sums.count.tolist(), sums.qq.tolist(), sums.cc.tolist()
    ([[1.0]], [[9.0]], [[1.0, 0.0]])
    """
    kept, none = None if mask.all() else mask, np.zeros((1, 1))
    q, c = (_over_seen(query, seen, "total"), pool.over(kept)) if kind == "pearson" else (none, none)
    return PairSums(_shared(mask, seen), _over_seen(query, seen, "square"), pool.over(kept, "square"), q, c)


def l1_distances(
    query: Vectors, mask: np.ndarray, pool: Vectors, seen: np.ndarray | None, *, fine: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean absolute differences over ``mask[i] & seen[j]``, their resolutions and the numbers of genes, (b, n).

    Examples
    --------
    >>> both = np.ones((1, 2), bool)
    >>> l1_distances(Vectors(np.array([[1.0, 2.0]])), both, Vectors(np.array([[3.0, 5.0]])), None, fine=True)[0]
    array([[2.5]])
    """
    count = _shared(mask, seen)
    size_q = _over_seen(query, seen, "size")
    size_c = pool.over(None if mask.all() else mask, "size")
    # an entry of only one of the two is 0 in the other: its size was counted, and is taken off again
    alone = query.size[:, None] - size_q + pool.size[None, :] - size_c
    total = cityblock(query.values.astype(np.float64), pool.turned)
    genes = np.maximum(count, 1)
    return np.maximum(total - alone, 0.0) / genes, (FINE if fine else RESOLUTION) * (size_q + size_c) / genes, count


def own_distances(
    kind: str, query: Vectors, mask: np.ndarray, own: np.ndarray, seen: np.ndarray, *, fine: bool
) -> Distances:
    """Distance of query i to its own candidate over ``mask[i] & seen[j]``, for every j, and its resolution, (b, n).

    Parameters
    ----------
    kind : of `DISTANCES`.
    query, mask, own : of shape (b, g); own candidates are read inside the mask only.
    seen : of shape (n, g), bool.
    """
    q = Vectors(query.values.astype(np.float64))
    c = Vectors(np.where(mask, own, 0.0).astype(np.float64))
    count = _shared(mask, seen)
    if kind == "l1":
        away, size = (
            Vectors(x).over(seen).T / np.maximum(count, 1)
            for x in (np.abs(q.values - c.values), np.abs(q.values) + np.abs(c.values))
        )
        return np.maximum(away, 0.0), (FINE if fine else RESOLUTION) * size
    sums = (_over_seen(x, seen, of) for of in ("square", "total") for x in (q, c))
    return KERNELS[kind](PairSums(count, *sums), Vectors(q.values * c.values).over(seen).T, fine=fine)[:2]


def _shared(mask: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
    """Number of genes of ``mask[i] & seen[j]``, shape (b, n), or (b, 1) where everything is seen."""
    if seen is None:
        return mask.view(np.uint8).sum(axis=1, dtype=np.uint32)[:, None].astype(np.float64)
    return Vectors(mask.astype(np.float32)).over(seen).T


def _over_seen(values: Vectors, seen: np.ndarray | None, of: str) -> np.ndarray:
    """Sums of (b, g) vectors over the genes seen of each candidate, shape (b, n), or (b, 1)."""
    return values.over(seen, of).T
