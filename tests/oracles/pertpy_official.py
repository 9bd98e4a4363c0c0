"""Distances between predicted and observed cells by pertpy: an oracle of tests/test_metric_oracles.py.

pertpy 1.0.3 (MIT). From the root of the repository: ``make oracles/pertpy``, or

    python3.11 -m venv .oracle && .oracle/bin/pip install -c constraints/cpu.txt pertpy==1.0.3 filelock \
        statsmodels==0.14.6
    PYTHONPATH=tests .oracle/bin/python -W ignore -m oracles.pertpy_official

X is the predicted, Y the observed sample; the distances of means are given effects as samples of one (``_effects``).
``mmd`` is linear by default; ``mmd_rbf`` has the one gamma 1 / number of genes.
"""

from __future__ import annotations

import numpy as np
from oracles._metric_cases import PREDICTORS, Case, pair_of_arrays
from oracles._metric_expected import write
from pertpy.tools import Distance

OF_CELLS = ("edistance", "mmd", "mean_pairwise", "euclidean", "mse", "mean_absolute_error", "r2_distance", "t_test",
            "ks_test", "pearson_distance", "spearman_distance", "cosine_distance")  # fmt: skip
OF_EFFECTS = ("euclidean", "mse", "mean_absolute_error", "pearson_distance", "spearman_distance", "cosine_distance",
              "r2_distance")  # fmt: skip


def distances(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Name -> distance of two samples of shapes (m, k) and (l, k)."""
    out = {name: float(Distance(name)(x, y)) for name in OF_CELLS}
    return {**out, "mmd_rbf": float(Distance("mmd").metric_fct(x, y, kernel="rbf", gamma=1.0 / x.shape[1]))}


def run(case: Case) -> dict[str, dict[str, list[float]]]:
    """Predictor -> name -> value per condition."""
    out = {}
    truth = case.effects(case.observed)
    for p in PREDICTORS:
        cells = [distances(*pair) for pair in zip(_double(case.predicted[p]), _double(case.observed), strict=True)]
        found = {name: [row[name] for row in cells] for name in cells[0]}
        guess = case.effects(case.predicted[p])
        for name in OF_EFFECTS:
            pairs = zip(guess, truth, strict=True)
            found[f"{name}_effects"] = [float(Distance(name)(a[None], b[None])) for a, b in pairs]
        out[p] = found
    return out


def _double(cells: np.ndarray) -> np.ndarray:
    return cells.astype(np.float64)


if __name__ == "__main__":
    write("pertpy", {"pertpy": "1.0.3", "statsmodels": "0.14.6"},
          ("scikit-learn", "scipy", "jax", "ott-jax", "numpy"), run,
          {"pair_of_arrays": distances(*pair_of_arrays())})  # fmt: skip
