"""Average ranks along rows, ties and masks included, and their correlation (Spearman's).

Float32 values are sorted as one 64-bit integer each, the value above its column: numpy sorts those with vector
instructions, and order and values come out of one sort. Sums of ranks are whole numbers, hence exact in any order.
"""

from __future__ import annotations

import numpy as np

BLOCK = 1 << 16  # entries per block: keys, order and ranks of a block stay in the processor's cache


def average_ranks(X: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Rank 1, 2, ... of every value within its row; equal values share the mean of their ranks.

    Parameters
    ----------
    X : numbers of shape (n, g), finite where ranked.
    mask : of shape (n, g), bool, of the entries to rank, or None (all).

    Returns
    -------
    (n, g) float64; NaN where the mask is False.

    Raises
    ------
    ValueError
        A ranked value is not finite.

    References
    ----------
    Kendall (1945), "The treatment of ties in ranking problems", Biometrika 33: mid-ranks.

    Examples
    --------
    >>> average_ranks(np.array([[3.0, 1.0, 3.0]])).tolist()
    [[2.5, 1.0, 2.5]]
    """
    _check("average_ranks", X, mask)
    ranks = np.empty(X.shape)
    for part in _blocks(*X.shape):
        place, twice = _sorted_ranks(X[part], None if mask is None else mask[part])
        ranks[part].reshape(-1)[place] = twice / 2
    return ranks if mask is None else np.where(mask, ranks, np.nan)


def rank_correlation(A: np.ndarray, B: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Spearman's correlation of each row of ``A`` with the same row of ``B``, mid-ranks for ties.

    Parameters
    ----------
    A, B : numbers of shape (n, g), finite where ranked.
    mask : of shape (n, g), bool, of the entries to rank, or None (all).

    Returns
    -------
    (n,) float64 in [-1, 1], of sums that are exact for g < 2e5; NaN where either side is constant or has fewer than
    two entries.

    Raises
    ------
    ValueError
        A ranked value is not finite.

    References
    ----------
    Spearman (1904), American Journal of Psychology 15:72: the correlation of ranks.

    Examples
    --------
    >>> rank_correlation(np.array([[1.0, 2.0, 9.0]]), np.array([[3.0, 7.0, 5.0]])).tolist()
    [0.5]
    """
    for X in (A, B):
        _check("rank_correlation", X, mask)
    out = np.full(len(A), np.nan)
    for part in _blocks(*A.shape):
        kept = None if mask is None or mask[part].all() else mask[part]
        (at_a, a), (at_b, b) = (_deviations(X[part], kept) for X in (A, B))
        placed = np.empty(a.size)
        placed[at_a] = a.reshape(-1)
        top = np.einsum("ij,ij->i", placed[at_b].reshape(b.shape), b)
        bottom = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        out[part] = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)
    return np.clip(out, -1.0, 1.0)


def _check(name: str, X: np.ndarray, mask: np.ndarray | None) -> None:
    finite = np.isfinite(X)
    if not finite.all() and (mask is None or not (finite | ~mask).all()):
        bad = ~finite if mask is None else ~finite & mask
        raise ValueError(f"{name}: values must be finite, found {int(bad.sum())} that are not")


def _blocks(n: int, g: int) -> list[slice]:
    step = max(1, BLOCK // max(1, g))
    return [slice(start, start + step) for start in range(0, n, step)] if g else []


def _deviations(X: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Flat places in sorted order, and twice the rank less its mean there (b, g): whole numbers, 0 where not ranked."""
    place, twice = _sorted_ranks(X, mask)
    twice = twice.reshape(X.shape)
    if mask is None:
        return place, np.subtract(twice, X.shape[1] + 1, out=twice)
    count = mask.sum(axis=1, keepdims=True)
    twice -= count + 1
    least = count.min()
    twice[:, least:][np.arange(least, X.shape[1]) >= count] = 0.0
    return place, twice


def _sorted_ranks(X: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Flat places (b * g,) of each row's values in ascending order, masked ones last, and twice their mid-ranks."""
    b, g = X.shape
    place, equal = _by_key(X, mask) if X.dtype == np.float32 and g < 2**32 else _by_value(X, mask)
    place += g * np.arange(b)[:, None]
    twice = np.tile(np.arange(2.0, 2 * g + 1, 2.0), b)
    if equal.any():
        before = np.zeros((b, g), dtype=bool)  # as large as the value before it in its row
        before[:, 1:] = equal
        tied = before.copy()
        tied[:, :-1] |= equal
        at, first = np.flatnonzero(tied), np.flatnonzero(tied & ~before)
        size = np.diff(np.searchsorted(at, first), append=len(at))
        twice[at] = np.repeat(2.0 * (first % g) + 1 + size, size)
    return place.reshape(-1), twice


def _by_key(X: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Columns (b, g) in ascending order of float32 values, and which are as large as the one before (b, g - 1)."""
    bits = np.add(X, np.float32(0), order="C").view(np.int32)  # + 0: -0 and 0 are one value
    bits ^= (bits >> 31) & np.int32(2**31 - 1)  # negative floats count downwards; now the order is that of integers
    if mask is not None:
        np.putmask(bits, ~mask, 2**31 - 1)  # above every finite value
    key = bits.astype(np.int64)
    key <<= 32
    key |= np.arange(X.shape[1])
    key.sort(axis=1)
    value = key >> 32
    key &= 2**32 - 1
    return key, value[:, 1:] == value[:, :-1]


def _by_value(X: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """`_by_key` for other types."""
    filled = X if mask is None else np.where(mask, X, np.inf)
    order = np.argsort(filled, axis=1)
    value = np.take_along_axis(filled, order, axis=1)
    return order, value[:, 1:] == value[:, :-1]
