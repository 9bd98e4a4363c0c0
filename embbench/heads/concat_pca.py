"""Ridge regression on the principal components of several embeddings laid side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from embbench.core import Inputs
from embbench.heads._ridge import ridge_spectral
from embbench.heads._side_by_side import blocks_of
from embbench.heads._smoother import Smoother, positive, whole
from embbench.numerics.linalg import pca
from embbench.numerics.smoothers import Spectral


class ConcatPCA(Smoother):
    """The simplest fusion: blocks side by side, principal components of the training rows, ridge.

    Each block is centred and divided by its root mean square row norm over the training rows that have it, so that all
    count the same; a row that lacks a block gets the mean of that block (0).

    Parameters
    ----------
    dim : most principal components, >= 1.
    alpha : > 0, ridge penalty, where the squared norm of a row is 1 per block on average.

    References
    ----------
    Early integration: Gligorijevic and Przulj (2015), J. R. Soc. Interface 12:20150571, section 3; principal component
    regression with a ridge: Hastie, Tibshirani and Friedman (2009), section 3.5.

    Examples
    --------
    >>> ConcatPCA(dim=0)
    Traceback (most recent call last):
    ValueError: ConcatPCA: dim must be a whole number >= 1, got 0
    """

    handles_missing = True

    def __init__(self, dim: int = 50, alpha: float = 10.0) -> None:
        whole("ConcatPCA", dim=dim)
        positive("ConcatPCA", alpha=alpha)
        self.dim, self.alpha = dim, alpha

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """11 penalties from 1e-2 to 1e3 for each of 20, 50 and 200 components."""
        alphas = [float(f"{alpha:.3g}") for alpha in np.logspace(-2, 3, 11)]
        return [{"dim": dim, "alpha": alpha} for dim in (50, 20, 200) for alpha in alphas]

    def weights(self, train: Inputs, query: Inputs) -> np.ndarray:
        """Smoother matrix, shape (n_query, n_train); rows sum to 1."""
        return next(self.path([self], train, query)).matrix()

    @classmethod
    def path(cls, heads: Sequence[Self], train: Inputs, query: Inputs) -> Iterator[Spectral]:
        """Weights (n_query, n_train) of settings; successive ones that differ in ``alpha`` alone share an
        eigendecomposition.
        """
        blocks = blocks_of(train, query)
        rows, asked = (np.concatenate([part[side] for part in blocks], axis=1) for side in (0, 1))
        mean, axes, _ = pca(rows, max(head.dim for head in heads))
        rows, asked = (rows - mean) @ axes, (asked - mean) @ axes
        start = 0
        while start < len(heads):
            dim, stop = heads[start].dim, start
            while stop < len(heads) and heads[stop].dim == dim:
                stop += 1
            yield from ridge_spectral(rows[:, :dim], asked[:, :dim], [head.alpha for head in heads[start:stop]])
            start = stop
