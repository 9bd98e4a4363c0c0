"""Normalisation of counts, streaming moments of groups of cells, and batch-matched differences of means."""

from __future__ import annotations

import sys
from typing import Self

import numpy as np
from scipy import sparse

from embbench.numerics.jit import compiled, has_numba

TARGET_SUM = 1e4
MATCHING = ("batch", "equal-batch", "pooled", "batch-means")
_PIECE = 1 << 15  # values normalised at a time: their float64 copies stay in the processor's cache
_WORTH = 1 << 24  # values added by numpy before numba is loaded: as dear as loading it, so never twice the best choice
_BLOCK = 1 << 20  # values that numpy adds at a time


def log_normalise(counts: sparse.csr_matrix, depth: np.ndarray) -> sparse.csr_matrix:
    """``log1p(1e4 * counts / depth)``, natural log, computed in float64 and rounded once to float32.

    Parameters
    ----------
    counts : of shape (m, g), non-negative.
    depth : (m,) positive size factor of each cell: its total count.

    Examples
    --------
    >>> log_normalise(sparse.csr_matrix([[1.0, 3.0]]), np.array([4.0])).toarray().round().tolist()
    [[8.0, 9.0]]
    """
    per_cell = TARGET_SUM / np.asarray(depth, dtype=np.float64)
    lengths, out = np.diff(counts.indptr), np.empty(counts.nnz, dtype=np.float32)
    rows = (
        np.searchsorted(counts.indptr, np.arange(0, max(counts.nnz, 1), _PIECE), side="right") - 1
    )  # where pieces begin
    for lo, hi in zip(rows, [*rows[1:], counts.shape[0]], strict=True):
        span = slice(int(counts.indptr[lo]), int(counts.indptr[hi]))
        values = counts.data[span].astype(np.float64)
        values *= np.repeat(per_cell[lo:hi], lengths[lo:hi])
        out[span] = np.log1p(values, out=values)
    return sparse.csr_matrix((out, counts.indices, counts.indptr), counts.shape)


class GroupMoments:
    """Count, sum and sum of squares of every gene in every group of cells, added to chunk by chunk in float64.

    Values of a group are added one by one in the order in which its cells come, so neither the chunk size nor the
    storage of the matrix can change a bit of the result, nor whether the loop is compiled (`embbench.numerics.jit`) or
    numpy's. Memory: ``16 * groups * g`` bytes (half without squares).

    Parameters
    ----------
    groups, genes : shape of the accumulators.
    squares : False: means only.
    """

    def __init__(self, groups: int, genes: int, *, squares: bool = True) -> None:
        self.count = np.zeros(groups, dtype=np.int64)
        self.total = np.zeros((groups, genes))
        self.squares = np.zeros((groups if squares else 0, genes))
        self._seen = 0

    def add(self, cells: sparse.csr_matrix, group: np.ndarray) -> Self:
        """Add cells of shape (m, g) to their groups (m,); cells of group -1 are left out.

        Raises
        ------
        ValueError
            Another number of genes.

        Examples
        --------
        >>> moments = GroupMoments(1, 2).add(sparse.csr_matrix([[1.0, 0.0], [3.0, 2.0]]), np.array([0, 0]))
        >>> moments.mean().tolist(), moments.variance().tolist()
        ([[2.0, 1.0]], [[2.0, 2.0]])
        """
        if cells.shape[1] != self.total.shape[1]:
            raise ValueError(f"GroupMoments: cells have {cells.shape[1]} genes, the sums {self.total.shape[1]}")
        group = np.asarray(group, dtype=np.int64)
        order = np.argsort(group, kind="stable")  # cells of a group side by side: its row of sums stays in cache
        order = order[group[order] >= 0]
        if not len(order):
            return self
        self.count += np.bincount(group[order], minlength=len(self.count))
        self._seen += cells.nnz
        if has_numba() and ("numba" in sys.modules or self._seen > _WORTH):
            _scatter(order, group, cells.indptr, cells.indices, cells.data, self.total, self.squares)
        else:
            step = max(1, len(order) * _BLOCK // max(cells.nnz, 1))
            for start in range(0, len(order), step):
                part = order[start : start + step]
                self._add_at(cells[part], group[part])
        return self

    def _add_at(self, cells: sparse.csr_matrix, group: np.ndarray) -> None:
        """Numpy's form of `_scatter`: the same additions in the same order."""
        where = np.repeat(group * self.total.shape[1], np.diff(cells.indptr))
        where += cells.indices
        values = cells.data.astype(np.float64)
        np.add.at(self.total.ravel(), where, values)
        if len(self.squares):
            values *= values
            np.add.at(self.squares.ravel(), where, values)

    def mean(self) -> np.ndarray:
        """Means of shape (groups, g); 0 for an empty group."""
        return self.total / np.maximum(self.count, 1)[:, None]

    def deviations(self) -> np.ndarray:
        """Sums, shape (groups, g), of squared deviations from the group mean; never negative."""
        out = self.total**2
        out /= np.maximum(self.count, 1)[:, None]
        np.subtract(self.squares, out, out=out)
        return np.maximum(out, 0.0, out=out)

    def variance(self) -> np.ndarray:
        """Unbiased variances of shape (groups, g); a group of one cell borrows the variance pooled over groups.

        Pooled: summed squared deviations over summed degrees of freedom; 0 when no group has two cells.
        """
        freedom = self.count - 1
        out = self.deviations()
        pooled = out.sum(axis=0) / max(int(np.maximum(freedom, 0).sum()), 1)
        out /= np.maximum(freedom, 1)[:, None]
        out[freedom <= 0] = pooled
        return out

    def merged(self) -> GroupMoments:
        """All groups as one."""
        out = GroupMoments(0, 0)
        out.count = self.count.sum(keepdims=True)
        out.total, out.squares = self.total.sum(axis=0, keepdims=True), self.squares.sum(axis=0, keepdims=True)
        return out

    def take(self, groups: np.ndarray) -> GroupMoments:
        """Some of the groups."""
        out = GroupMoments(0, 0)
        out.count, out.total, out.squares = self.count[groups], self.total[groups], self.squares[groups]
        return out


@compiled
def _scatter(
    order: np.ndarray,
    group: np.ndarray,
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    total: np.ndarray,
    squares: np.ndarray,
) -> None:
    """Add the cells ``order`` to the rows of their groups, one value after the other, without copies of the chunk."""
    both = len(squares) > 0
    for cell in order:
        row = group[cell]
        for at in range(indptr[cell], indptr[cell + 1]):
            value = np.float64(data[at])
            total[row, indices[at]] += value
            if both:
                squares[row, indices[at]] += value * value


def batch_weights(perturbed: np.ndarray, control: np.ndarray, matching: str = "batch") -> np.ndarray:
    """Weights (b,) of per-batch differences of means, summing to 1; 0 for a batch that lacks one of the two.

    ``batch``: proportional to ``n_p n_c / (n_p + n_c)``, the inverse variance of a difference of two means under one
    common variance (Cochran 1954, Biometrics 10:101, weights of section 5); ``equal-batch``: equal; ``pooled``: as
    ``batch``, meant for cells whose batches were merged before. ``batch-means``, where perturbed and control cells get
    weights of their own, has no one weight per batch: see `mean_weights`.

    Parameters
    ----------
    perturbed, control : numbers of cells, of shape (b,).
    matching : see above.

    Raises
    ------
    ValueError
        Unknown matching.

    Examples
    --------
    >>> batch_weights(np.array([10, 10, 5]), np.array([10, 0, 5])).round(3).tolist()
    [0.667, 0.0, 0.333]
    """
    known = [name for name in MATCHING if name != "batch-means"]
    if matching not in known:
        raise ValueError(f"batch_weights: matching must be one of {', '.join(known)}, got {matching!r}")
    both = (perturbed > 0) & (control > 0)
    p, c = perturbed.astype(np.float64), control.astype(np.float64)
    raw = both.astype(np.float64) if matching == "equal-batch" else np.where(both, p * c / np.maximum(p + c, 1), 0.0)
    return raw / raw.sum() if both.any() else raw


def mean_weights(cells: np.ndarray) -> np.ndarray:
    """Weights (b,) of an unweighted mean over the batches that have cells, summing to 1; zeros where none has.

    Perturbed and control cells each get their own: effects are then differences of means over all batches of either,
    unmatched (the pseudobulk of Cole et al. 2026, doi 10.64898/2026.02.18.706454).

    Parameters
    ----------
    cells : numbers of cells, of shape (b,).

    Examples
    --------
    >>> mean_weights(np.array([10, 0, 3])).tolist()
    [0.5, 0.0, 0.5]
    """
    there = (np.asarray(cells) > 0).astype(np.float64)
    return there / max(there.sum(), 1.0)
