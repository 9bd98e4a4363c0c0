"""The energy loss of geomloss, which PerturBench calls "mmd" and STATE trains on: an oracle of test_metric_oracles.py.

geomloss 0.3.1 (MIT). From the root of the repository: ``make oracles/geomloss``, or

    python3.11 -m venv .oracle && .oracle/bin/pip install -c constraints/cpu.txt torch numpy h5py scipy geomloss==0.3.1
    PYTHONPATH=tests .oracle/bin/python -W ignore -m oracles.geomloss_official

``SamplesLoss("energy")`` in float64, between predicted and observed cells. geomloss takes no distance below 1e-4, not
even that of a cell to itself, which adds up to 3e-6 here: the loss is computed in units 4,096 times smaller, and also
as it stands (``energy_clamped``).
"""

from __future__ import annotations

import numpy as np
import torch
from geomloss import SamplesLoss
from oracles._metric_cases import PREDICTORS, Case, pair_of_arrays
from oracles._metric_expected import write


def energy(x: np.ndarray, y: np.ndarray, scale: float = 4096.0) -> float:
    """The loss between two samples of shapes (m, k) and (l, k)."""
    loss = SamplesLoss("energy", p=2, backend="tensorized")
    return float(loss(*(torch.from_numpy(z.astype("f8") * scale) for z in (x, y)))) / scale


def losses(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float]]:
    """Both forms of every pair."""
    return {"energy": [energy(*p) for p in pairs], "energy_clamped": [energy(*p, scale=1.0) for p in pairs]}


def run(case: Case) -> dict[str, dict[str, list[float]]]:
    """Predictor -> form -> value per condition."""
    return {p: losses(list(zip(case.predicted[p], case.observed, strict=True))) for p in PREDICTORS}


if __name__ == "__main__":
    two = {form: values[0] for form, values in losses([pair_of_arrays()]).items()}
    write("geomloss", {"geomloss": "0.3.1"}, ("torch", "numpy"), run, {"pair_of_arrays": two})
