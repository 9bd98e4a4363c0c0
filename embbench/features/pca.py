"""Standardised columns, then their first principal components over the training rows."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.features._scale import Scaler
from embbench.numerics.linalg import pca


class PCA(Scaler):
    """Scores on the first min(dim, d, n - 1) principal axes of the standardised training rows, exact.

    Axes without variance in training are left out (repeated rows make fewer than n - 1 axes): along them training rows
    do not differ and a new row's score would be arbitrary. At least one column is returned; it is 0 when all training
    rows are equal.

    Parameters
    ----------
    dim : axes wanted, >= 1.

    Raises
    ------
    ValueError
        ``dim`` is not an integer >= 1.

    References
    ----------
    Jolliffe (2002), Principal Component Analysis, sections 2.3 (correlation matrix) and 3.5.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(6, 20))
    >>> PCA(dim=100).fit(X).transform(X).shape
    (6, 5)
    """

    def __init__(self, dim: int = 100) -> None:
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise ValueError(f"PCA: dim must be an integer >= 1, got {dim!r}")
        self.dim = dim

    def fit(self, X: np.ndarray) -> Self:
        """Scaler and axes of the rows of ``X`` of shape (n, d)."""
        super().fit(X)
        self.centre_, self.components_, self.singular_ = pca(self.scaled(X), self.dim)
        if not self.components_.shape[1]:
            self.components_ = np.zeros((X.shape[1], 1))
        return self

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Scores of shape (m, k), float64; RuntimeError before fit, ValueError for another width."""
        return (self.scaled(X) - self.centre_) @ self.components_

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Scores of shape (m, k), float32; RuntimeError before fit, ValueError for another width."""
        return self.scores(X).astype(np.float32)
