"""A label head: kernel-weighted frequencies of down, unchanged and up."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.core import HeadDefaults, Inputs

CLASSES = (-1, 0, 1)


class LabelFrequency(HeadDefaults):
    """Class frequencies over training rows weighted by exp(-|x - x'|^2 / width), one pseudocount per class."""

    targets = ("labels",)

    def __init__(self, width: float = 4.0) -> None:
        if not width > 0:
            raise ValueError(f"LabelFrequency: width must be > 0, got {width}")
        self.width = width

    @classmethod
    def candidates(cls) -> list[dict[str, float]]:
        return [{"width": w} for w in (1.0, 4.0)]

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        seen = np.ones(Y.shape, bool) if observed is None else observed
        self.X_ = inputs.X.astype(np.float64)
        self.counts_ = np.stack([(c == Y) & seen for c in CLASSES], axis=2).astype(np.float64)
        return self

    def predict_proba(self, inputs: Inputs) -> np.ndarray:
        if not hasattr(self, "X_"):
            raise RuntimeError("LabelFrequency.predict called before fit")
        gap = np.square(inputs.X.astype(np.float64)[:, None, :] - self.X_[None]).sum(axis=2)
        weighted = np.einsum("qn,ngc->qgc", np.exp(-gap / self.width), self.counts_) + 1.0
        return (weighted / weighted.sum(axis=2, keepdims=True)).astype(np.float32)

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Expected label: P(up) - P(down)."""
        proba = self.predict_proba(inputs)
        return proba[:, :, 2] - proba[:, :, 0]
