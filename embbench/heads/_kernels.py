"""Kernels between rows of features, and kernel ridge regression as a smoother matrix."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve
from scipy.spatial.distance import cdist

KERNELS = ("rbf", "laplacian", "cosine", "linear")


def kernel_pair(train_X: np.ndarray, query_X: np.ndarray, kernel: str, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Kernel among training rows (n_train, n_train) and from queries to them (n_query, n_train), float64.

    Widths of ``rbf`` and ``laplacian`` are ``gamma`` / median distance over pairs of training rows (1 where that median
    is 0 or there is one row).

    References
    ----------
    Median heuristic: Gretton et al. (2012), JMLR 13:723-773, section 8.
    """
    rows, asked = train_X.astype(np.float64), query_X.astype(np.float64)
    width = gamma / _median(rows, kernel)
    return kernel_values(rows, rows, kernel, width), kernel_values(asked, rows, kernel, width)


def kernel_values(X: np.ndarray, Z: np.ndarray, kernel: str, g: float) -> np.ndarray:
    """Kernel values, shape (len(X), len(Z)): ``rbf`` exp(-g |x - z|_2^2), ``laplacian`` exp(-g |x - z|_1), ``cosine``
    (0 where a vector is zero) or ``linear``.
    """
    if kernel in ("rbf", "laplacian"):
        return np.exp(-g * _gaps(X, Z, kernel))
    if kernel == "cosine":
        X, Z = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-300) for part in (X, Z))
    return X @ Z.T


def kernel_ridge(K: np.ndarray, k: np.ndarray, alpha: float, name: str, kernel: str) -> np.ndarray:
    """Weights (n_query, n_train) = 1/n + k (K + alpha I)^-1 (I - 11'/n): the training mean is not penalised.

    Raises
    ------
    ValueError
        ``alpha`` is too small for ``K`` (n_train, n_train) to be inverted in float64; ``name`` (of the head) and
        ``kernel`` are for the message.

    References
    ----------
    Saunders, Gammerman and Vovk (1998), ICML, equation 8.
    """
    ridge = K.copy()
    ridge.flat[:: len(K) + 1] += alpha
    try:
        dual = solve(ridge, k.T, assume_a="pos", overwrite_a=True, check_finite=False).T
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"{name}: alpha {alpha} is too small for the {kernel} kernel of {len(K)} rows ({error}); raise alpha"
        ) from error
    return dual - dual.mean(axis=1, keepdims=True) + 1.0 / len(K)


def _gaps(X: np.ndarray, Z: np.ndarray, kernel: str) -> np.ndarray:
    """Squared Euclidean (rbf) or Manhattan (laplacian) distances, shape (len(X), len(Z))."""
    if kernel == "laplacian":
        return cdist(X, Z, "cityblock")
    centre = Z.mean(axis=0)
    X, Z = X - centre, Z - centre
    norms = np.square(X).sum(axis=1)[:, None] + np.square(Z).sum(axis=1)
    return np.maximum(norms - 2 * (X @ Z.T), 0.0)


def _median(rows: np.ndarray, kernel: str) -> float:
    """Median distance over pairs of rows, 1 where there is none or it is 0, or the kernel has no width."""
    if kernel not in ("rbf", "laplacian") or len(rows) < 2:
        return 1.0
    return float(np.median(_gaps(rows, rows, kernel)[np.triu_indices(len(rows), 1)])) or 1.0
