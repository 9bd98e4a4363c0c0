"""Sums of absolute differences between all rows of two matrices: compiled tiles, or scipy, with the same bits."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from embbench.numerics.jit import compiled, has_numba

SMALL = 1 << 22  # differences below which loading the compiler costs more than it saves
WIDTH, DEPTH = 512, 64  # candidates x genes of a tile: it stays in the processor's cache for all queries


def cityblock(query: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """``sum_g |query_ig - turned_gj|``, shape (b, n), float64, added up in the order of the genes.

    Parameters
    ----------
    query : of shape (b, g), float64.
    turned : of shape (g, n), float32 or float64, a candidate in each column: neighbours in memory are added side by
        side, which leaves the order of every single sum as it is.

    Examples
    --------
    >>> cityblock(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])).tolist()
    [[4.0]]
    """
    b, n = len(query), turned.shape[1]
    if b * turned.size < SMALL or not has_numba():
        # in float64: scipy adds up in the order of the genes too
        return cdist(query, np.ascontiguousarray(turned.T, dtype=np.float64), "cityblock")
    out = np.zeros((b, n))
    _add_tiles(np.ascontiguousarray(query), np.ascontiguousarray(turned), out, WIDTH, DEPTH)
    return out


@compiled
def _add_tiles(query: np.ndarray, turned: np.ndarray, out: np.ndarray, width: int, depth: int) -> None:
    g, n = turned.shape
    for left in range(0, n, width):
        right = min(n, left + width)
        for first in range(0, g, depth):
            last = min(g, first + depth)
            for i in range(len(query)):
                total = out[i, left:right]
                k = first
                while k + 4 <= last:  # four genes at a time: the totals are loaded and stored a quarter as often
                    q0, q1, q2, q3 = query[i, k], query[i, k + 1], query[i, k + 2], query[i, k + 3]
                    c0, c1 = turned[k, left:right], turned[k + 1, left:right]
                    c2, c3 = turned[k + 2, left:right], turned[k + 3, left:right]
                    for j in range(right - left):
                        some = total[j] + abs(q0 - c0[j]) + abs(q1 - c1[j])
                        total[j] = some + abs(q2 - c2[j]) + abs(q3 - c3[j])
                    k += 4
                for rest in range(k, last):
                    one, c = query[i, rest], turned[rest, left:right]
                    for j in range(right - left):
                        total[j] += abs(one - c[j])
