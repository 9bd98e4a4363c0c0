"""Average ranks along rows, ties and masks included."""

from __future__ import annotations

import numpy as np


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
    bad = ~np.isfinite(X) if mask is None else ~np.isfinite(X) & mask
    if bad.any():
        raise ValueError(f"average_ranks: values must be finite, found {int(bad.sum())} that are not")
    n, g = X.shape
    if not n or not g:
        return np.zeros((n, g))
    filled = X if mask is None else np.where(mask, X, np.inf)
    order = np.argsort(filled, axis=1)
    ordered = np.take_along_axis(filled, order, axis=1)
    starts = np.ones((n, g), dtype=bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = np.cumsum(starts.ravel()) - 1
    first = np.flatnonzero(starts.ravel()) % g
    shared = first + (np.bincount(group) + 1) / 2
    ranks = np.empty((n, g))
    np.put_along_axis(ranks, order, shared[group].reshape(n, g), axis=1)
    return ranks if mask is None else np.where(mask, ranks, np.nan)
