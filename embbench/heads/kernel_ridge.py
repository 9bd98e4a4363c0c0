"""Kernel ridge regression: a smooth, non-linear map from the embedding to every gene, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from embbench.core import Inputs
from embbench.heads._kernels import KERNELS, kernel_pair, kernel_ridge
from embbench.heads._smoother import Smoother, positive


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
                K, k = kernel_pair(train.X, query.X, head.kernel, head.gamma)
            yield kernel_ridge(K, k, head.alpha, "KernelRidge", head.kernel)
