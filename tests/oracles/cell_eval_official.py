"""Every per-perturbation metric of cell-eval on the metric cases: an oracle of tests/test_metric_oracles.py.

cell-eval 0.8.2 (MIT) with pdex 0.3.0. From the root of the repository: ``make oracles/cell_eval``, or

    python3.11 -m venv .oracle && .oracle/bin/pip install -c constraints/cpu.txt cell-eval==0.8.2 pdex==0.3.0
    PYTHONPATH=tests .oracle/bin/python -W ignore -m oracles.cell_eval_official

Both files of a pair hold the same control cells, except in the group ``replicate_own_controls``. A perturbation that
cell-eval drops (no significant gene) is null. ``clustering_agreement`` is left out: it needs more perturbations.
"""

from __future__ import annotations

import contextlib
import io
import tempfile

import anndata
import numpy as np
import pandas as pd
import polars as pl
from cell_eval import MetricsEvaluator
from cell_eval._score import score_agg_metrics
from oracles._metric_cases import PREDICTORS, Case
from oracles._metric_expected import write
from pdex import pdex

CONTROL = "zz_control"


def screen(case: Case, cells: np.ndarray, controls: np.ndarray) -> anndata.AnnData:
    """Cells (n, m, g) and controls (m0, g) as cell-eval reads them, in float64."""
    names = np.repeat([*case.conditions, CONTROL], [*(cells.shape[1],) * len(cells), len(controls)])
    obs = pd.DataFrame({"target": names}, index=[f"cell{i}" for i in range(len(names))])
    values = np.concatenate([*cells, controls]).astype(np.float64)
    return anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=list(case.genes)))


Results = tuple[dict[str, list[float]], pl.DataFrame]


def evaluate(case: Case, cells: np.ndarray, controls: np.ndarray, **tables: pl.DataFrame) -> Results:
    """Metric -> value per condition, and cell-eval's aggregated results; ``tables``: DE results to use instead."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        real, pred = screen(case, case.observed, case.controls), screen(case, cells, controls)
        evaluator = MetricsEvaluator(pred, real, control_pert=CONTROL, num_threads=1, outdir=folder, **tables)
        table, aggregated = evaluator.compute(skip_metrics=["clustering_agreement"], write_csv=False)
    frame = table.to_pandas().set_index("perturbation").reindex(list(case.conditions))
    return {c: frame[c].astype(float).tolist() for c in frame.columns}, aggregated


def ranked(case: Case, cells: np.ndarray) -> pl.DataFrame:
    """Predicted effects as a DE table in which every gene is significant: what ranks genes without p values."""
    effects = case.effects(cells)
    n, g = effects.shape
    names = {"target": np.repeat(case.conditions, g), "feature": np.tile(case.genes, n)}
    numbers = {"log2_fold_change": effects.ravel(), "p_value": np.zeros(n * g), "fdr": np.zeros(n * g)}
    return pl.DataFrame({k: v.tolist() for k, v in {**names, **numbers}.items()})


def challenge(user: pl.DataFrame, base: pl.DataFrame) -> float:
    """The Virtual Cell Challenge score: `cell-eval score` on the three metrics of profile vcc."""
    kept = ["statistic", "mae", "discrimination_score_l1", "overlap_at_N"]
    table = score_agg_metrics(user.select(kept), base.select(kept))
    return float(table.filter(pl.col("metric") == "avg_score")["from_baseline"][0])


def tests(case: Case) -> dict[str, list[list[float]]]:
    """log2 fold changes, p values and FDR of pdex as cell-eval calls it, each (conditions, genes)."""
    frame = pdex(screen(case, case.observed, case.controls), groupby="target", mode="ref", threads=1,
                 reference=CONTROL, is_log1p=True, epsilon=0.0, as_pandas=True)  # fmt: skip
    wide = {c: frame.pivot(index="target", columns="feature", values=c) for c in ("log2_fold_change", "p_value", "fdr")}
    order = (list(case.conditions), list(case.genes))
    return {c: table.loc[order[0], order[1]].to_numpy().tolist() for c, table in wide.items()}


OF_EFFECTS = ("overlap_at_", "de_direction_match", "de_spearman_lfc_sig")


def run(case: Case) -> dict[str, dict[str, list[float]]]:
    """All predictors, one with controls of its own, and the differential expression of the observed cells."""
    found = {p: evaluate(case, case.predicted[p], case.controls) for p in PREDICTORS}
    values = {p: dict(columns) for p, (columns, _) in found.items()}
    for p in PREDICTORS:
        values[p]["vcc"] = [challenge(found[p][1], found["collapsed"][1])]
        by_effect = evaluate(case, case.predicted[p], case.controls, de_pred=ranked(case, case.predicted[p]))[0]
        values[p] |= {f"{c}_effects": v for c, v in by_effect.items() if c.startswith(OF_EFFECTS)}
    values["replicate_own_controls"] = evaluate(case, case.predicted["replicate"], case.other_controls)[0]
    return {**values, "observed": tests(case)}


if __name__ == "__main__":
    write("cell_eval", {"cell-eval": "0.8.2", "pdex": "0.3.0"},
          ("numba-mwu", "polars", "anndata", "scanpy", "scikit-learn", "scipy", "numpy"), run)  # fmt: skip
