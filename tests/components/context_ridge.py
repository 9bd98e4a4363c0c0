"""A joint head: one ridge over all contexts, on the perturbation's vector beside the context's."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.core import HeadDefaults, Inputs


class ContextRidge(HeadDefaults):
    """Ridge on (1, x, context vector), fitted once over all contexts, so that it reaches an unseen one."""

    needs_context_vector = True
    scope = "joint"

    def __init__(self, alpha: float = 1.0) -> None:
        if not alpha > 0:
            raise ValueError(f"ContextRidge: alpha must be > 0, got {alpha}")
        self.alpha = alpha

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        Z = self._columns(inputs)
        self.coef_ = np.linalg.solve(Z.T @ Z + self.alpha * np.eye(Z.shape[1]), Z.T @ Y.astype(np.float64))
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        if not hasattr(self, "coef_"):
            raise RuntimeError("ContextRidge.predict called before fit")
        return (self._columns(inputs) @ self.coef_).astype(np.float32)

    @staticmethod
    def _columns(inputs: Inputs) -> np.ndarray:
        own = inputs.context_vector[inputs.context]
        return np.hstack([np.ones((len(inputs), 1)), inputs.X, own]).astype(np.float64)
