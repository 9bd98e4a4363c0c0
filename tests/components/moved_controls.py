"""A population head: control cells of the query's context, moved by the mean training effect."""

from __future__ import annotations

from typing import Self

import numpy as np

from embbench.core import HeadDefaults, Inputs, Sources, draw_sources


class MovedControls(HeadDefaults):
    """Cells = control cells + ``scale`` times the mean training effect; says which control cells."""

    needs_embedding = False
    needs_cells = True
    scope = "joint"
    targets = ("effects", "population")

    def __init__(self, scale: float = 1.0, seed: int = 0) -> None:
        self.scale, self.seed = scale, seed

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        self.shift_ = (self.scale * Y.astype(np.float64).mean(axis=0)).astype(np.float32)
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        if not hasattr(self, "shift_"):
            raise RuntimeError("MovedControls.predict called before fit")
        return np.repeat(self.shift_[None], len(inputs), axis=0)

    def sources(self, inputs: Inputs, n_cells: int) -> Sources:
        return draw_sources(inputs, n_cells, self.seed)

    def sample(self, inputs: Inputs, n_cells: int) -> np.ndarray:
        return self.sources(inputs, n_cells).cells(inputs.cells) + self.predict(inputs)[:, None, :]
