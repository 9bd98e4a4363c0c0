"""A graph head: one step of propagation from training entities to their neighbours."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.core import HeadDefaults, Inputs


class GraphStep(HeadDefaults):
    """Mean effect of the training rows that perturb a neighbour of the query's entities; else the train mean."""

    needs_embedding = False
    needs_graph = True

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        self.entities_, self.Y_, self.mean_ = inputs.entities, Y.astype(np.float64), Y.astype(np.float64).mean(axis=0)
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        if not hasattr(self, "Y_"):
            raise RuntimeError("GraphStep.predict called before fit")
        weights = (inputs.entities @ inputs.graph @ self.entities_.T).toarray().astype(np.float64)
        total = weights.sum(axis=1, keepdims=True)
        near = (weights @ self.Y_) / np.where(total > 0, total, 1.0)
        return np.where(total > 0, near, self.mean_).astype(np.float32)
