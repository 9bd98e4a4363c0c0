"""Several embeddings at once: a ridge per block, averaged over the blocks that a row has."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.core import HeadDefaults, Inputs


class BlockVote(HeadDefaults):
    """Mean over a row's found blocks of that block's ridge prediction; the train mean where no block is found."""

    handles_missing = True

    def __init__(self, alpha: float = 1.0) -> None:
        if not alpha > 0:
            raise ValueError(f"BlockVote: alpha must be > 0, got {alpha}")
        self.alpha = alpha

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        Y = Y.astype(np.float64)
        self.mean_, self.coef_ = Y.mean(axis=0), []
        for number, (_, where) in enumerate(inputs.blocks):
            has = inputs.found[:, number]
            X = inputs.X[has, where].astype(np.float64)
            gram = X.T @ X + self.alpha * np.eye(X.shape[1])
            self.coef_.append(np.linalg.solve(gram, X.T @ (Y[has] - self.mean_)))
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        if not hasattr(self, "coef_"):
            raise RuntimeError("BlockVote.predict called before fit")
        found = inputs.found.astype(np.float64)
        total = sum(
            found[:, [i]] * (inputs.X[:, where].astype(np.float64) @ self.coef_[i])
            for i, (_, where) in enumerate(inputs.blocks)
        )
        return (self.mean_ + total / np.maximum(found.sum(axis=1, keepdims=True), 1)).astype(np.float32)
