"""A population head: the context's control mean, a mean shift, and residuals of training cells."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.core import HeadDefaults, Inputs


class ShiftedCells(HeadDefaults):
    """Cells = control mean + mean training effect + residual of a training cell drawn at random."""

    needs_embedding = False
    needs_cells = True
    needs_baseline = True
    targets = ("effects", "population")

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        self.shift_ = Y.astype(np.float64).mean(axis=0)
        cells = [inputs.cells.perturbed(i).astype(np.float64) for i in range(len(inputs))]
        self.residuals_ = np.concatenate([c - c.mean(axis=0) for c in cells])
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        if not hasattr(self, "shift_"):
            raise RuntimeError("ShiftedCells.predict called before fit")
        return np.repeat(self.shift_[None], len(inputs), axis=0).astype(np.float32)

    def sample(self, inputs: Inputs, n_cells: int) -> np.ndarray:
        """Cells (n, n_cells, g) float32 on the expression scale; the same draws for every row."""
        drawn = np.random.default_rng(self.seed).integers(len(self.residuals_), size=n_cells)
        centre = inputs.baseline[inputs.context] + self.predict(inputs)
        return (centre[:, None, :] + self.residuals_[drawn][None]).astype(np.float32)
