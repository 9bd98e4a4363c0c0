"""Column means and standard deviations, with constant columns recognised despite rounding."""

from __future__ import annotations

from typing import Self

import numpy as np

NOISE = 1e-6


class Scaler:
    """z-scores of columns in float64; a column that is constant over the fitted rows becomes 0 for every row.

    Constant is what spreads less than `NOISE` times the widest column: a truncated SVD of gene families leaves such
    columns where no fitted row belongs to the family.

    Examples
    --------
    >>> Scaler().fit(np.array([[1.0], [3.0]])).scaled(np.array([[4.0]])).tolist()
    [[2.0]]
    """

    def fit(self, X: np.ndarray) -> Self:
        """Means and standard deviations (n in the denominator) of the columns of ``X`` of shape (n, d).

        Raises
        ------
        ValueError
            No row, or a value that is not finite.
        """
        if X.ndim != 2 or not len(X) or not np.isfinite(X).all():
            raise ValueError(f"{type(self).__name__}: needs a finite matrix with at least one row, got shape {X.shape}")
        X = X.astype(np.float64)
        self.mean_ = X.mean(axis=0)
        X -= self.mean_
        variance = np.einsum("nd,nd->d", X, X) / len(X)
        rounding = np.square(len(X) * np.finfo(np.float64).eps * self.mean_)  # variance that rounding alone can make
        # vectors are float32: beside the widest column this is noise, which a new row's real value would blow up
        rounding = np.maximum(rounding, NOISE**2 * variance.max())
        self.scale_ = np.where(variance > rounding, 1.0 / np.sqrt(np.where(variance > rounding, variance, 1.0)), 0.0)
        return self

    def scaled(self, X: np.ndarray) -> np.ndarray:
        """z-scores of shape (m, d), float64.

        Raises
        ------
        RuntimeError
            Before fit.
        ValueError
            Another number of columns than fitted.
        """
        if not hasattr(self, "scale_"):
            raise RuntimeError(f"{type(self).__name__}.transform called before fit")
        if X.shape[1] != len(self.mean_):
            raise ValueError(f"{type(self).__name__}: fitted on {len(self.mean_)} columns, got {X.shape[1]}")
        out = X.astype(np.float64)
        out -= self.mean_
        out *= self.scale_
        return out
