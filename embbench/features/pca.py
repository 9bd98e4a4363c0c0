"""Standardised columns, then their first principal components over the training rows."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.features._scale import Scaler
from embbench.numerics.linalg import pca, sklearn_pca

SOLVERS = ("exact", "randomized", "auto")


class PCA(Scaler):
    """Scores on the first min(dim, d, n - 1) principal axes of the standardised training rows, exact unless
    asked otherwise.

    Axes without variance in training are left out (repeated rows make fewer than n - 1 axes): along them training rows
    do not differ and a new row's score would be arbitrary. At least one column is returned; it is 0 when all training
    rows are equal.

    Parameters
    ----------
    dim : axes wanted, >= 1.
    svd : ``exact``; or, to reproduce tables made with scikit-learn, its ``randomized`` solver, or ``auto``, the solver
        that its ``PCA(n_components=dim)`` picks for the shape (randomised for most screens).
    seed : of the randomised solver (its ``random_state``), >= 0; the exact one draws nothing.

    Attributes
    ----------
    fitted_ : (n, k) float32, after a fit with a solver of scikit-learn: scores of the fitted rows. Its pipelines give
        them the solver's left vectors, which a randomised solver does not make equal to the rows' projections.

    Raises
    ------
    ValueError
        ``dim`` is not an integer >= 1, ``svd`` not one of the three, or ``seed`` not an integer >= 0.

    References
    ----------
    Jolliffe (2002), Principal Component Analysis, sections 2.3 (correlation matrix) and 3.5; randomised: Halko,
    Martinsson and Tropp (2011), SIAM Review 53:217-288.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(6, 20))
    >>> PCA(dim=100).fit(X).transform(X).shape
    (6, 5)
    """

    def __init__(self, dim: int = 100, svd: str = "exact", seed: int = 0) -> None:
        for name, value, least in (("dim", dim, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"PCA: {name} must be an integer >= {least}, got {value!r}")
        if svd not in SOLVERS:
            raise ValueError(f"PCA: svd must be one of {', '.join(SOLVERS)}, got {svd!r}")
        self.dim, self.svd, self.seed = dim, svd, seed

    def fit(self, X: np.ndarray) -> Self:
        """Scaler and axes of the rows of ``X`` of shape (n, d)."""
        super().fit(X)
        rows = self.scaled(X)
        if self.svd == "exact":
            self.centre_, self.components_, self.singular_ = pca(rows, self.dim)
        else:
            found = sklearn_pca(rows, self.dim, self.svd, self.seed)
            self.centre_, self.components_, self.singular_, own = found
            self.fitted_ = own.astype(np.float32) if own.shape[1] else np.zeros((len(X), 1), dtype=np.float32)
        if not self.components_.shape[1]:
            self.components_ = np.zeros((X.shape[1], 1))
        return self

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Scores of shape (m, k), float64; RuntimeError before fit, ValueError for another width."""
        out = self.scaled(X)
        out -= self.centre_
        return out @ self.components_

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Scores of shape (m, k), float32; RuntimeError before fit, ValueError for another width."""
        return self.scores(X).astype(np.float32)
