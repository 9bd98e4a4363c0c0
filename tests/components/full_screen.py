"""A small simulated screen with all that a screen can hold: cells, tested labels, doses, gaps, a published split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from components.shifted_cells import ShiftedCells
from embbench.core import PerturbationDataset
from embbench.datasets.simulator import Simulator

SMALL = {"n_perturbations": 36, "n_genes": 40, "combos": 5, "cells_per_perturbation": 12, "controls_per_context": 80}


class FullScreen:
    """``doses``: effects in proportion to a dose; ``gaps``: share of entries that were not observed."""

    def __init__(
        self, level: str = "cells", contexts: int = 2, seed: int = 1, *, doses: bool = False, gaps: float = 0.0
    ) -> None:
        self.level, self.contexts, self.seed, self.doses, self.gaps = level, contexts, seed, doses, gaps

    def load(self) -> PerturbationDataset:
        data = Simulator(name="full", level=self.level, n_contexts=self.contexts, seed=self.seed, **SMALL).load()
        rng = np.random.default_rng(self.seed)
        labels = np.where(np.abs(data.noise_free) > 0.08, np.sign(data.noise_free), 0).astype(np.int8)
        rows = np.arange(len(data))
        data = replace(
            data,
            labels=labels,
            labels_tested=rng.random(labels.shape) < 0.8,
            covariates={"published": np.where(rows % 4 == 0, "test", "train")},
        )
        if self.doses:
            dose = np.array([0.5, 1.0, 2.0])[rows % 3]
            scaled = {f: (getattr(data, f) * dose[:, None]).astype(np.float32) for f in ("effects", "truth")}
            data = replace(data, dose=dose, cells=None, noise_free=None, **scaled)
        if self.gaps:
            seen = rng.random(labels.shape) >= self.gaps
            seen[:, 0] = data.context_codes != 0  # a gene that one context never observes
            hollow = {f: np.where(seen, getattr(data, f), np.float32(np.nan)) for f in ("effects", "truth")}
            data = replace(data, observed=seen, cells=None, noise_free=None, truth_variance=None, **hollow)
        return data


class EmbeddedCells(ShiftedCells):
    """A population head that wants vectors, so that rows without one take the fallback."""

    needs_embedding = True
