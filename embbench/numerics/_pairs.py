"""Squared distances of all pairs of points: one matrix product a block, mended where it cancels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

NEAR = 1e-4  # squared distances below this share of the squared norms have lost digits and are computed again
MENDED = 1 << 20  # numbers of the differences that are computed again, at a time


class Points:
    """Points about a centre, as the factors whose product is squared distances.

    ``|a - b|^2 = (a, |a|^2, 1) . (-2 b, 1, |b|^2)``: no pass over the pairs but the product itself.

    Parameters
    ----------
    points : of shape (n, d), made float64.
    centre : of shape (d,), or None for their mean. Digits are lost where pairs are near each other and far from it.
    """

    def __init__(self, points: np.ndarray, centre: np.ndarray | None = None) -> None:
        self.points = np.ascontiguousarray(points, dtype=np.float64)  # sums run in one order whatever the layout
        n, d = self.points.shape
        self.centre = self.points.sum(axis=0) / max(n, 1) if centre is None else centre
        self.left = np.empty((n, d + 2))
        self.away = np.subtract(self.points, self.centre, out=self.left[:, :d])
        self.square = np.einsum("ij,ij->i", self.away, self.away)
        self.left[:, d], self.left[:, d + 1] = self.square, 1.0
        self._right: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.points)

    @property
    def right(self) -> np.ndarray:
        """The other factor, shape (n, d + 2)."""
        if self._right is None:
            self._right = np.empty_like(self.left)
            np.multiply(self.away, -2.0, out=self._right[:, :-2])
            self._right[:, -2], self._right[:, -1] = 1.0, self.square
        return self._right

    def across(self, other: Points, pairs: int) -> Iterator[np.ndarray]:
        """Squared distances of blocks of the points to all of ``other`` (about the same centre), float64.

        Parameters
        ----------
        other : m points.
        pairs : bound on the pairs of a block, one row at least.
        """
        step = max(1, pairs // max(len(other), 1))
        for start in range(0, len(self), step):
            yield self._block(slice(start, start + step), other, slice(0, len(other)))

    def within(self, pairs: int) -> Iterator[tuple[np.ndarray, int]]:
        """Blocks of squared distances among the points, and how often each block counts: every pair comes once.

        Blocks on the diagonal (count 1) hold both orders and the zeros of each point with itself; others count 2.
        """
        step = max(1, int(pairs**0.5))
        for start in range(0, len(self), step):
            rows = slice(start, min(start + step, len(self)))
            away, square = self.away[rows], self.square[rows]
            own = away @ away.T  # numpy sees the symmetry and does half the work
            own *= -2.0
            own += square[:, None]
            own += square
            np.fill_diagonal(own, np.inf)
            self._mend(own, rows, self, rows)
            np.fill_diagonal(own, 0.0)
            yield own, 1
            for first in range(rows.stop, len(self), step):
                yield self._block(rows, self, slice(first, first + step)), 2

    def _block(self, rows: slice, other: Points, columns: slice) -> np.ndarray:
        out = self.left[rows] @ other.right[columns].T
        self._mend(out, rows, other, columns)
        return out

    def _mend(self, out: np.ndarray, rows: slice, other: Points, columns: slice) -> None:
        """Compute again, as sums of squared differences, what has cancelled; the check is one pass where nothing has.

        Equal points end at exactly 0.
        """
        a, b = self.square[rows], other.square[columns]
        if not out.size or out.min() > NEAR * (a.max() + b.max()):
            return
        left, right = np.nonzero(out <= NEAR * (a[:, None] + b))
        x, y = self.points[rows], other.points[columns]
        step = max(1, MENDED // max(x.shape[1], 1))
        for start in range(0, len(left), step):
            i, j = left[start : start + step], right[start : start + step]
            out[i, j] = np.square(x[i] - y[j]).sum(axis=1)


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``|x_i - y_j|^2`` of shape (n, m), float64, to a relative 1e-11; exactly 0 for equal rows.

    One matrix product about the common mean; where that cancels (`NEAR`), the differences.

    Examples
    --------
    >>> squared_distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])).round(9).tolist()
    [[25.0, 0.0]]
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    centre = (x.sum(axis=0) + y.sum(axis=0)) / max(len(x) + len(y), 1)
    blocks = Points(x, centre).across(Points(y, centre), max(x.shape[0] * y.shape[0], 1))
    return next(blocks, np.zeros((0, len(y))))
