"""A dose head: effects through the origin, in proportion to the dose."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.core import HeadDefaults, Inputs


class DoseSlope(HeadDefaults):
    """Least-squares slope of every gene on the dose; screens without doses count as dose 1."""

    needs_embedding = False

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        dose = self._dose(inputs)
        self.slope_ = dose @ Y.astype(np.float64) / np.square(dose).sum()
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        if not hasattr(self, "slope_"):
            raise RuntimeError("DoseSlope.predict called before fit")
        return np.outer(self._dose(inputs), self.slope_).astype(np.float32)

    @staticmethod
    def _dose(inputs: Inputs) -> np.ndarray:
        return np.ones(len(inputs)) if inputs.dose is None else inputs.dose.astype(np.float64)
