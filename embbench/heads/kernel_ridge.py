"""Kernel ridge regression: a smooth, non-linear map from the embedding to every gene, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from scipy.linalg import solve
from scipy.spatial.distance import cdist

from embbench.core import Inputs
from embbench.heads._smoother import Smoother, positive

KERNELS = ("rbf", "laplacian", "cosine", "linear")


class KernelRidge(Smoother):
    """Kernel ridge regression of the effects minus their training mean, which is the unpenalised intercept:
    W = 1/n + k(x, X) (K + alpha I)^-1 (I - 11'/n). Far from every training row, ``rbf`` and ``laplacian`` predict the
    training mean.

    Parameters
    ----------
    alpha : > 0, on the scale of the kernel (1 on the diagonal, except ``linear``).
    kernel : ``rbf`` exp(-g |x - y|_2^2), ``laplacian`` exp(-g |x - y|_1), ``cosine`` (0 where a vector is zero) or
        ``linear`` (inner product of the features as they come).
    gamma : > 0; g = gamma / median over pairs of training rows of |x - y|_2^2 or |x - y|_1 (1 where that median is 0
        or there is one row). Of no effect for ``cosine`` and ``linear``.

    References
    ----------
    Saunders, Gammerman and Vovk (1998), ICML, equation 8; median heuristic: Gretton et al. (2012), JMLR 13:723-773,
    section 8.

    Examples
    --------
    >>> KernelRidge(kernel="poly")
    Traceback (most recent call last):
    ValueError: KernelRidge: kernel must be one of ('rbf', 'laplacian', 'cosine', 'linear'), got 'poly'
    """

    def __init__(self, alpha: float = 1.0, kernel: str = "rbf", gamma: float = 1.0) -> None:
        positive("KernelRidge", alpha=alpha, gamma=gamma)
        if kernel not in KERNELS:
            raise ValueError(f"KernelRidge: kernel must be one of {KERNELS}, got {kernel!r}")
        self.alpha, self.kernel, self.gamma = alpha, kernel, gamma

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """Four penalties for ``rbf`` at three widths and for ``cosine``."""
        alphas = (0.03, 0.3, 3.0, 30.0)
        rbf = [{"kernel": "rbf", "gamma": g, "alpha": a} for g in (1.0, 0.25, 4.0) for a in alphas]
        return rbf + [{"kernel": "cosine", "alpha": a} for a in alphas]

    def weights(self, train: Inputs, query: Inputs) -> np.ndarray:
        """Smoother matrix, shape (n_query, n_train); rows sum to 1.

        Raises
        ------
        ValueError
            ``alpha`` is too small for the kernel matrix to be inverted in float64.
        """
        return next(self.path([self], train, query))

    @classmethod
    def path(cls, heads: Sequence[Self], train: Inputs, query: Inputs) -> Iterator[np.ndarray]:
        """Weights (n_query, n_train) of settings; successive ones that differ in ``alpha`` alone share kernels."""
        made: tuple[str, float] | None = None
        for head in heads:
            if made != (head.kernel, head.gamma):
                made = (head.kernel, head.gamma)
                rows, asked = train.X.astype(np.float64), query.X.astype(np.float64)
                scale = _median(rows, head.kernel)
                K, k = (_kernel(part, rows, head.kernel, head.gamma / scale) for part in (rows, asked))
            yield head._solve(K, k)

    def _solve(self, K: np.ndarray, k: np.ndarray) -> np.ndarray:
        ridge = K.copy()
        ridge.flat[:: len(K) + 1] += self.alpha
        try:
            dual = solve(ridge, k.T, assume_a="pos", overwrite_a=True, check_finite=False).T
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"KernelRidge: alpha {self.alpha} is too small for the {self.kernel} kernel of {len(K)} rows "
                f"({error}); raise alpha"
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


def _kernel(X: np.ndarray, Z: np.ndarray, kernel: str, g: float) -> np.ndarray:
    """Kernel values, shape (len(X), len(Z))."""
    if kernel in ("rbf", "laplacian"):
        return np.exp(-g * _gaps(X, Z, kernel))
    if kernel == "cosine":
        X, Z = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-300) for part in (X, Z))
    return X @ Z.T
