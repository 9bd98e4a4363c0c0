"""E-distances between predicted and observed cells by scperturb: an oracle of tests/test_metric_oracles.py.

scperturb 0.1.0 (MIT). From the root of the repository: ``make oracles/scperturb``, or

    python3.11 -m venv .oracle && .oracle/bin/pip install -c constraints/cpu.txt scperturb==0.1.0
    PYTHONPATH=tests .oracle/bin/python -W ignore -m oracles.scperturb_official

Euclidean and squared Euclidean, ``sample_correct`` on (U) and off (V), in the space of the genes; and of the pair of
arrays that five packages disagree about.
"""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from oracles._metric_cases import PREDICTORS, Case, pair_of_arrays
from oracles._metric_expected import write
from scperturb import edist

FORMS = {f"{d}_{form}": (d, form == "u") for d in ("euclidean", "sqeuclidean") for form in "uv"}


def distances(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Form -> E-distance of two samples of shapes (m, k) and (l, k)."""
    obs = pd.DataFrame({"group": ["x"] * len(x) + ["y"] * len(y)}, index=[f"c{i}" for i in range(len(x) + len(y))])
    cells = anndata.AnnData(np.zeros((len(obs), 1)), obs=obs)
    cells.obsm["space"] = np.concatenate([x, y]).astype(np.float64)
    out = {}
    for form, (dist, correct) in FORMS.items():
        table = edist(cells, "group", "space", dist=dist, sample_correct=correct, n_jobs=1, verbose=False)
        out[form] = float(table.loc["x", "y"])
    return out


def run(case: Case) -> dict[str, dict[str, list[float]]]:
    """Predictor -> form -> value per condition."""
    rows = {p: [distances(x, y) for x, y in zip(case.predicted[p], case.observed, strict=True)] for p in PREDICTORS}
    return {p: {form: [row[form] for row in found] for form in FORMS} for p, found in rows.items()}


if __name__ == "__main__":
    write("scperturb", {"scperturb": "0.1.0"}, ("scanpy", "anndata", "scikit-learn", "pandas", "numpy"), run,
          {"pair_of_arrays": distances(*pair_of_arrays())})  # fmt: skip
