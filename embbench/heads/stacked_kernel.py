"""Kernel ridge regression on the average of one kernel per embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from embbench.core import Inputs
from embbench.heads._kernels import kernel_pair, kernel_ridge
from embbench.heads._side_by_side import blocks_of
from embbench.heads._smoother import Smoother, positive

KERNELS = ("rbf", "cosine", "linear")


class StackedKernel(Smoother):
    """Kernels of the embeddings stacked on one another and averaged, all with the same weight, then kernel ridge with a
    free intercept; no second model is fitted, as it would be in stacked generalisation.

    K[i, j] is the mean of the kernels of the blocks that rows i and j both have, 0 where they share none. Each block
    is centred and divided by its root mean square row norm over the training rows that have it; ``rbf`` takes the
    median heuristic within each block. Where training rows lack blocks, K need not be positive semi-definite; the
    nearest matrix that is takes its place.

    Parameters
    ----------
    alpha : > 0, on the scale of the kernel (about 1 on the diagonal).
    kernel : ``rbf``, ``cosine`` or ``linear``.
    gamma : > 0; the squared distances in ``rbf`` are multiplied by gamma / their median over pairs of training rows.

    References
    ----------
    Unweighted multiple kernel learning: Pavlidis et al. (2001), RECOMB; Gonen and Alpaydin (2011), JMLR 12:2211,
    section 3.1; nearest positive semi-definite matrix: Higham (1988), Linear Algebra and its Applications 103:103,
    theorem 2.1.

    Examples
    --------
    >>> StackedKernel(kernel="laplacian")
    Traceback (most recent call last):
    ValueError: StackedKernel: kernel must be one of ('rbf', 'cosine', 'linear'), got 'laplacian'
    """

    handles_missing = True

    def __init__(self, alpha: float = 1.0, kernel: str = "rbf", gamma: float = 1.0) -> None:
        positive("StackedKernel", alpha=alpha, gamma=gamma)
        if kernel not in KERNELS:
            raise ValueError(f"StackedKernel: kernel must be one of {KERNELS}, got {kernel!r}")
        self.alpha, self.kernel, self.gamma = alpha, kernel, gamma

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """Five penalties for ``rbf`` at two widths, ``cosine`` and ``linear``."""
        kinds = ({"kernel": "rbf"}, {"kernel": "rbf", "gamma": 0.25}, {"kernel": "cosine"}, {"kernel": "linear"})
        return [{**kind, "alpha": alpha} for kind in kinds for alpha in (0.1, 0.3, 1.0, 3.0, 30.0)]

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
                K, k = _stacked(train, query, head.kernel, head.gamma)
            yield kernel_ridge(K, k, head.alpha, "StackedKernel", head.kernel)


def _stacked(train: Inputs, query: Inputs, kernel: str, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean kernels among training rows (n_train, n_train), positive semi-definite, and from queries to them."""
    total = [np.zeros((len(rows), len(train))) for rows in (train, query)]
    shared = [np.zeros_like(part) for part in total]
    for block in blocks_of(train, query):
        has = block.has_train
        pair = kernel_pair(block.train[has], block.query[block.has_query], kernel, gamma) if has.any() else ()
        for side, (rows, values) in enumerate(zip((has, block.has_query), pair, strict=False)):
            where = np.ix_(rows, has)
            total[side][where] += values
            shared[side][where] += 1.0
    K, k = (part / np.maximum(count, 1.0) for part, count in zip(total, shared, strict=True))
    uneven = shared[0].size > 0 and shared[0].min() < shared[0].max()
    return (_semidefinite(K) if uneven else K), k


def _semidefinite(K: np.ndarray) -> np.ndarray:
    """The positive semi-definite matrix nearest to a symmetric ``K``, in the Frobenius norm."""
    value, vector = np.linalg.eigh(K)
    return (vector * np.maximum(value, 0.0)) @ vector.T
