"""Weights of nearest neighbours: how much each of them counts, and the sparse smoother matrix they make."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.heads._search import nearest
from embbench.numerics.smoothers import Neighbours

WEIGHTS = ("uniform", "distance", "softmax")


def neighbour_weights(
    train_X: np.ndarray, query_X: np.ndarray, k: int, metric: str = "l2", weighting: str = "uniform",
    temperature: float = 1.0,
) -> sparse.csr_matrix:  # fmt: skip
    """Smoother matrix, shape (n_query, n_train), of the min(k, n_train) nearest training rows: CSR, rows summing to 1.

    Parameters
    ----------
    train_X, query_X : features, shapes (n_train, d) and (n_query, d).
    k, metric : number of neighbours, and ``l2``, ``cosine`` or ``inner_product``.
    weighting, temperature : as in ``neighbour_shares``.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [5.0]])
    >>> neighbour_weights(X, X, 2).toarray()[2].tolist()
    [0.0, 0.5, 0.5]
    """
    index, distance = nearest(train_X, query_X, k, metric)
    return Neighbours(index, neighbour_shares(distance, weighting, temperature), len(train_X)).matrix()


def neighbour_shares(distance: np.ndarray, weighting: str = "uniform", temperature: float = 1.0) -> np.ndarray:
    """Share of each neighbour from distances (n_query, k), nearest first: shape (n_query, k), rows summing to 1.

    ``uniform``; ``distance``, 1 / distance (neighbours at distance 0 share all the weight); ``softmax``,
    exp(-(d_j - d_1) / (temperature * s)) with s the median of d_j - d_1 over the query's neighbours (where s is 0, the
    neighbours at d_1 share all the weight).

    References
    ----------
    Dudani (1976), IEEE Trans. SMC 6:325-327; Goldberger et al. (2005), Neighbourhood Components Analysis, equation 1.
    """
    if weighting == "uniform":
        raw = np.ones_like(distance)
    elif weighting == "distance":
        zero = distance == 0
        raw = np.where(zero.any(axis=1, keepdims=True), zero, 1.0 / np.where(zero, 1.0, distance))
    else:
        excess = distance - distance[:, :1]
        scale = np.median(excess, axis=1, keepdims=True) * temperature
        raw = np.where(scale > 0, np.exp(-excess / np.where(scale > 0, scale, 1.0)), excess == 0)
    return raw / raw.sum(axis=1, keepdims=True)
