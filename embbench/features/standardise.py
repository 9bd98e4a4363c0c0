"""Columns with mean 0 and variance 1 over the training rows."""

from __future__ import annotations

import numpy as np

from embbench.features._scale import Scaler


class Standardise(Scaler):
    """z-scores of columns; columns that are constant in training become 0.

    Examples
    --------
    >>> Standardise().fit(np.array([[0.0, 5.0], [2.0, 5.0]])).transform(np.array([[4.0, 9.0]])).tolist()
    [[3.0, 0.0]]
    """

    def transform(self, X: np.ndarray) -> np.ndarray:
        """z-scores of shape (m, d), float32; RuntimeError before fit, ValueError for another width."""
        return self.scaled(X).astype(np.float32)
