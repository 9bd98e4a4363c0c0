"""Which candidates are nearer to a query than its own one: decided in float32 where its error bound allows, else exact.

Distances fall with the product of query and candidate, so a bound of the product's error bounds that of the distance.
Products are added up in float32 over chunks of genes, twice as fast as in float64; pairs that this leaves undecided
are computed again in float64, one by one or, where there are many, all of them. The answer is that of float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from embbench.metrics._pairs import (
    BLOCK,
    KERNELS,
    Distances,
    Linear,
    PairSums,
    Vectors,
    l1_distances,
    pair_sums,
    row_products,
)

CHUNK = 1024  # genes added up in float32: the error of the sum grows with them
WIDE = 2048  # fewer genes are multiplied in float64 at once
ROUNDING = (CHUNK + 8) * 2.0**-24  # of a chunk's sum and of turning to float32, relative to the norms
UNDERFLOW = 2.0**-126  # of each product
FEW = 1 / 64  # share of undecided pairs up to which they are computed one by one


def sides(
    kind: str,
    query: Vectors,
    mask: np.ndarray,
    pool: Vectors,
    seen: np.ndarray | None,
    first: int,
    own: Distances | None,
    *,
    fine: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """-1, 0 or 1 where candidate j is nearer to query i than its own one, as far, or farther, over ``mask & seen``.

    Parameters
    ----------
    kind : ``l1``, ``l2``, ``cosine`` or ``pearson``.
    query, mask : of shape (b, g); queries are 0 outside the mask.
    pool : candidates of shape (n, g), 0 outside ``seen``.
    seen : of shape (n, g), bool, or None (everything).
    first : number of the first query's own candidate; those of the other queries follow it.
    own : distances of own candidates and their resolutions, of shape (b, n), or None: over ``mask[i] & seen`` of the
        own candidate.
    fine : distances nearer than the rounding of float64 are tied, not those nearer than that of float32 vectors.

    Returns
    -------
    int8 of shape (b, n), and bool of shape (b, n): the pair shares a scored gene.

    Examples
    --------
    >>> query, pool = Vectors(np.array([[1.0]])), Vectors(np.array([[2.0], [1.0], [0.0], [9.0]]))
    >>> sides("l2", query, np.array([[True]]), pool, None, 0, None, fine=True)[0].tolist()
    [[0, -1, 0, 1]]
    """
    shape = len(mask), len(pool.values)
    if kind == "l1":
        away, slack, count = l1_distances(query, mask, pool, seen, fine=fine)
        rows = np.arange(len(mask))
        itself = own or (away[rows, first + rows][:, None], slack[rows, first + rows][:, None])
        return side((away, slack), itself), np.broadcast_to(count > 0, shape)
    sums = pair_sums(kind, query, mask, pool, seen)
    valid = np.broadcast_to(sums.count > 0, shape)
    kernel = partial(KERNELS[kind], fine=fine)
    return _by_products(kernel, sums, query, pool, valid, first, own), valid


def _by_products(
    kernel: Callable[[PairSums, np.ndarray], Linear],
    sums: PairSums,
    query: Vectors,
    pool: Vectors,
    valid: np.ndarray,
    first: int,
    own: Distances | None,
) -> np.ndarray:
    """`sides` of distances that fall with the product of query and candidate; resolutions do not depend on it."""
    rows = np.arange(len(valid))
    at = first + rows
    itself = row_products(query.values, pool.values[first : first + len(rows)])
    if own is None:
        away, slack, _ = kernel(sums.at(rows, at), itself)
        own = away[:, None], slack[:, None]
    rough = rough_products(query, pool)
    if rough is not None:
        product, left, right = rough
        product[rows, at] = itself
        away, slack, slope = kernel(sums, product)
        found = side((away, slack), own)
        away -= own[0]
        border = np.abs(away, out=away)
        border -= np.maximum(slack, own[1])
        undecided = np.abs(border, out=border) <= slope * left * right
        undecided[rows, at] = False
        i, j = np.nonzero(undecided & valid)
        if len(i) <= FEW * found.size:
            away, slack = (np.broadcast_to(x, valid.shape)[i, j] for x in own)
            found[i, j] = side(kernel(sums.at(i, j), products(query, pool, i, j))[:2], (away, slack))
            return found
    return side(kernel(sums, query.values.astype(np.float64) @ pool.values.astype(np.float64).T)[:2], own)


def side(other: Distances, own: Distances) -> np.ndarray:
    """-1 nearer than the own one, 0 within the larger of the two resolutions, 1 farther; int8.

    Examples
    --------
    >>> side((np.array([1.0, 2.0, 3.0]), np.zeros(3)), (np.array([2.1]), np.array([0.2]))).tolist()
    [-1, 0, 1]
    """
    gap, slack = other[0] - own[0], np.maximum(other[1], own[1])
    return (gap > slack).astype(np.int8) - (gap < -slack)


def rough_products(query: Vectors, pool: Vectors) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Products (b, n) from float32 sums, off by at most the second (b, 1) times the third (1, n); None if it won't pay.

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, section 3.1: an inner product of k terms in any
    order is off by at most ``k u / (1 - k u) sum |x| |y|``, which by Cauchy and Schwarz is within the norms.

    Examples
    --------
    >>> rough_products(Vectors(np.ones((1, 3))), Vectors(np.ones((2, 3)))) is None  # too few genes
    True
    """
    g = query.values.shape[1]
    if g < WIDE:
        return None
    out = np.zeros((len(query.values), len(pool.values)))
    with np.errstate(over="ignore", invalid="ignore"):
        q, c = (x.values.astype(np.float32, copy=False) for x in (query, pool))
        for start in range(0, g, CHUNK):
            out += q[:, start : start + CHUNK] @ c[:, start : start + CHUNK].T
    if not np.isfinite(out).all():  # beyond float32
        return None
    left, right = (np.sqrt(ROUNDING * x.square) + np.sqrt(g * UNDERFLOW) for x in (query, pool))
    return out, left[:, None], right[None, :]


def products(query: Vectors, pool: Vectors, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """``sum_g query_ig pool_jg`` of pairs (i, j), shape (m,), in float64.

    Examples
    --------
    >>> one = Vectors(np.array([[1.0, 2.0]]))
    >>> products(one, one, np.array([0]), np.array([0])).tolist()
    [5.0]
    """
    out, step = np.empty(len(i)), max(1, BLOCK // max(1, query.values.shape[1]))
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        out[part] = row_products(query.values[i[part]], pool.values[j[part]])
    return out
