"""A head with a long fit: counts towards the mean effect with random steps, saves where it is, and can be killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Self

import numpy as np

from embbench.core import HeadDefaults, Inputs


class Counter(HeadDefaults):
    """``steps`` random steps towards the mean training effect.

    After half of them the process ends, where there is a file that the environment variable ``COUNTER_DIES`` names;
    that file is removed first, so that it dies once.
    """

    needs_embedding = True
    trained = True
    scope = "joint"

    def __init__(self, steps: int = 10, seed: int = 0) -> None:
        self.steps, self.seed = steps, seed

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        goal, saved = Y.astype(np.float64).mean(axis=0), self.monitor.load()
        step, at = json.loads(saved) if saved is not None else (0, [0.0] * len(goal))
        value, self.resumed_ = np.array(at), step
        while step < self.steps:
            value += (goal - value) * np.random.default_rng([self.seed, step]).random(len(goal))
            step += 1
            self.monitor.report("training", step, self.steps, f"value {value[0]:.3f}")
            if self.monitor.due():
                self.monitor.save(json.dumps([step, value.tolist()]).encode())
            if 2 * step == self.steps and Path(os.environ.get("COUNTER_DIES", "")).is_file():
                Path(os.environ["COUNTER_DIES"]).unlink()
                os._exit(9)
        self.mean_ = value.astype(np.float32)
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        if not hasattr(self, "mean_"):
            raise RuntimeError("Counter.predict called before fit")
        return np.repeat(self.mean_[None], len(inputs), axis=0)
