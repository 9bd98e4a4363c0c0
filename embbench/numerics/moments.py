"""Normalisation of counts, streaming moments of groups of cells, and batch-matched differences of means."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy import sparse

TARGET_SUM = 1e4
MATCHING = ("batch", "equal-batch", "pooled")


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
    values = counts.data.astype(np.float64)
    values *= np.repeat(per_cell, np.diff(counts.indptr))
    np.log1p(values, out=values)
    return sparse.csr_matrix((values.astype(np.float32), counts.indices, counts.indptr), counts.shape)


class GroupMoments:
    """Count, sum and sum of squares of every gene in every group of cells, added to chunk by chunk in float64.

    Values of a group are added one by one in the order in which its cells come, so neither the chunk size nor the
    storage of the matrix can change a bit of the result. Memory: ``16 * groups * g`` bytes (half without squares).

    Parameters
    ----------
    groups, genes : shape of the accumulators.
    squares : False: means only.
    """

    def __init__(self, groups: int, genes: int, *, squares: bool = True) -> None:
        self.count = np.zeros(groups, dtype=np.int64)
        self.total = np.zeros((groups, genes))
        self.squares = np.zeros((groups if squares else 0, genes))

    def add(self, cells: sparse.csr_matrix, group: np.ndarray) -> Self:
        """Add cells of shape (m, g) to their groups (m,); cells of group -1 are left out.

        Examples
        --------
        >>> moments = GroupMoments(1, 2).add(sparse.csr_matrix([[1.0, 0.0], [3.0, 2.0]]), np.array([0, 0]))
        >>> moments.mean().tolist(), moments.variance().tolist()
        ([[2.0, 1.0]], [[2.0, 2.0]])
        """
        order = np.argsort(group, kind="stable")  # cells of a group side by side: its row of sums stays in cache
        order = order[group[order] >= 0]
        if not len(order):
            return self
        cells, group = cells[order], group[order].astype(np.int64)
        self.count += np.bincount(group, minlength=len(self.count))
        where = np.repeat(group * self.total.shape[1], np.diff(cells.indptr))
        where += cells.indices
        values = cells.data.astype(np.float64)
        np.add.at(self.total.ravel(), where, values)
        if not len(self.squares):
            return self
        values *= values
        np.add.at(self.squares.ravel(), where, values)
        return self

    def mean(self) -> np.ndarray:
        """Means of shape (groups, g); 0 for an empty group."""
        return self.total / np.maximum(self.count, 1)[:, None]

    def deviations(self) -> np.ndarray:
        """Sums, shape (groups, g), of squared deviations from the group mean; never negative."""
        return np.maximum(self.squares - self.total**2 / np.maximum(self.count, 1)[:, None], 0.0)

    def variance(self) -> np.ndarray:
        """Unbiased variances of shape (groups, g); a group of one cell borrows the variance pooled over groups.

        Pooled: summed squared deviations over summed degrees of freedom; 0 when no group has two cells.
        """
        freedom = self.count - 1
        deviations = self.deviations()
        pooled = deviations.sum(axis=0) / max(int(np.maximum(freedom, 0).sum()), 1)
        return np.where(freedom[:, None] > 0, deviations / np.maximum(freedom, 1)[:, None], pooled[None])

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


def batch_weights(perturbed: np.ndarray, control: np.ndarray, matching: str = "batch") -> np.ndarray:
    """Weights (b,) of per-batch differences of means, summing to 1; 0 for a batch that lacks one of the two.

    ``batch``: proportional to ``n_p n_c / (n_p + n_c)``, the inverse variance of a difference of two means under one
    common variance (Cochran 1954, Biometrics 10:101, weights of section 5); ``equal-batch``: equal; ``pooled``: as
    ``batch``, meant for cells whose batches were merged before.

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
    if matching not in MATCHING:
        raise ValueError(f"batch_weights: matching must be one of {', '.join(MATCHING)}, got {matching!r}")
    both = (perturbed > 0) & (control > 0)
    p, c = perturbed.astype(np.float64), control.astype(np.float64)
    raw = both.astype(np.float64) if matching == "equal-batch" else np.where(both, p * c / np.maximum(p + c, 1), 0.0)
    return raw / raw.sum() if both.any() else raw
