"""The embedding as it is."""

from __future__ import annotations

from typing import Self

import numpy as np


class Raw:
    """Identity: columns of the embedding without centring or scaling."""

    def fit(self, X: np.ndarray) -> Self:
        """Remember the width of ``X`` of shape (n, d)."""
        self.width_ = X.shape[1]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """``X`` of shape (m, d) as float32.

        Raises
        ------
        RuntimeError
            Before fit.
        ValueError
            Another number of columns than fitted.

        Examples
        --------
        >>> Raw().fit(np.eye(2)).transform(np.eye(2)).dtype.name
        'float32'
        """
        if not hasattr(self, "width_"):
            raise RuntimeError("Raw.transform called before fit")
        if X.shape[1] != self.width_:
            raise ValueError(f"Raw: fitted on {self.width_} columns, got {X.shape[1]}")
        return X.astype(np.float32)
