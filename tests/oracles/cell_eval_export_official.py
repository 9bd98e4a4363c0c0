"""What cell-eval says of the pairs of ``embbench export --format cell-eval``: for tests/test_prediction_exchange.py.

cell-eval 0.8.2 (MIT) with pdex 0.3.0, in the environment of `cell_eval_official`; the pairs are written by embbench in
its own. From the root of the repository:

    PYTHONPATH=tests .venv/bin/python -m oracles.cell_eval_export_official pairs FOLDER
    PYTHONPATH=tests .oracles/cell_eval/bin/python -W ignore -m oracles.cell_eval_export_official score FOLDER

Effects are scored with profile ``anndata`` (one row per condition has no test), cells with every metric but clustering;
for `strong_cells` the DE table of the observed cells is stored too, which ``overlap_at_N`` reads.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

EXPECTED = Path(__file__).resolve().parent / "expected" / "cell_eval_export_official.json"
PINNED = {"cell-eval": "0.8.2", "pdex": "0.3.0"}
SIM = {"dataset": "sim_cells", "split": "unseen_perturbation:3"}
STRONG = "sim_kinds:n_perturbations=8:n_genes=60:n_contexts=1:cells_per_perturbation=300:effect_size=1.0:near_null=0.0"
CELLS = {**SIM, "target": "population", "samples": 30, "metrics": ["mse_all"]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {  # fold, axes of the grid
    "sim_effects": ("fold0", {**SIM, "emb": "random:8", "head": "knn:k=3", "metrics": ["mse_all"]}),
    "kang_effects": ("", {"dataset": "kang18", "split": "unseen_context", "context_emb": "none",
                          "head": "context_mean", "metrics": ["mse_all"]}),
    "sim_raised": ("fold0", {**CELLS, "head": "context_mean"}),
    "strong_cells": ("fold0", {**CELLS, "dataset": STRONG, "split": "unseen_perturbation:2", "samples": 60,
                               "head": "pooled_training_cells"}),
}  # fmt: skip


def write_pairs(folder: Path) -> dict[str, Any]:
    """Every case as pairs below ``folder/<case>``, and what was gathered of it; runs in embbench's environment."""
    from embbench.exchange.predictions import export

    found = gather_cases(folder / "results")
    for case, gathered in found.items():
        export(gathered, "cell-eval", folder / case)
    return found


def gather_cases(folder: Path) -> dict[str, Any]:
    """What a grid below ``folder/<case>`` predicted, of every case."""
    from _grid import run

    from embbench.exchange.predictions import gather

    found = {}
    for case, (fold, axes) in CASES.items():
        results, planned = run(folder / case, (), **axes)
        found[case] = gather(results, planned[0].config, fold=fold or None)
    return found


def score_pairs(folder: Path) -> dict[str, Any]:
    """Case -> fold -> context -> values per metric and condition, and the DE table of the first context of cells."""
    import anndata
    from cell_eval.utils import split_anndata_on_celltype

    out: dict[str, Any] = {}
    for case in CASES:
        for place in sorted(p.parent for p in (folder / case).glob("*/real.h5ad")):
            both = [
                split_anndata_on_celltype(anndata.read_h5ad(place / f"{n}.h5ad"), "cell_type") for n in ("real", "pred")
            ]
            for context in sorted(both[0]):
                pair = [part[context].copy() for part in both]
                for part in pair:
                    part.X = part.X.astype(np.float64)  # or distances are rounded to float32 on the way
                made = _score(*pair, cells="target" in CASES[case][1], table=case == "strong_cells")
                out.setdefault(case, {}).setdefault(place.name, {})[context] = made
    return out


def _score(real: Any, pred: Any, *, cells: bool, table: bool) -> dict[str, Any]:
    from cell_eval import MetricsEvaluator

    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stderr(io.StringIO()):
        evaluator = MetricsEvaluator(
            pred,
            real,
            control_pert="non-targeting",
            pert_col="target_gene",
            num_threads=1,
            outdir=work,
            skip_de=not cells,
        )
        profile, skip = ("full", ["clustering_agreement"]) if cells else ("anndata", ["clustering_agreement"])
        skip += (
            [] if cells and real.obs["target_gene"].nunique() > 2 else ["pearson_edistance"]
        )  # a correlation needs two conditions
        frame = evaluator.compute(profile=profile, skip_metrics=skip, write_csv=False)[0].to_pandas()
    frame = frame.set_index("perturbation").sort_index()
    out = {
        "shape": list(real.shape),
        "conditions": frame.index.tolist(),
        "values": {c: [_plain(v) for v in frame[c].astype(float)] for c in sorted(frame.columns)},
    }
    if table:
        observed = evaluator.de_comparison.real.data.to_pandas()
        wide = {c: observed.pivot(index="target", columns="feature", values=c) for c in ("log2_fold_change", "fdr")}
        genes = real.var_names.tolist()
        out["observed"] = {
            c: [[_plain(v) for v in row] for row in t.loc[frame.index, genes].to_numpy()] for c, t in wide.items()
        }
    return out


def _plain(value: float) -> float | None:
    value = float(value)
    if np.isinf(value):
        return float(np.copysign(1e300, value))
    return float(f"{value:.9g}") if np.isfinite(value) else None


if __name__ == "__main__":
    stage, target = sys.argv[1], Path(sys.argv[2])
    if stage == "pairs":
        write_pairs(target)
    else:
        for package, wanted in PINNED.items():
            if version(package) != wanted:
                raise SystemExit(f"expected {package} {wanted}, found {version(package)}")
        text = json.dumps({"versions": PINNED, "cases": score_pairs(target)}, sort_keys=True, allow_nan=False)
        EXPECTED.write_text(text.replace('], "', '],\n"').replace('}, "', '},\n"') + "\n", encoding="utf-8")
