"""Differential expression of each condition against controls by scanpy: an oracle of tests/test_metric_oracles.py.

scanpy 1.11.5 (BSD-3-Clause). From the root of the repository: ``make oracles/scanpy``, or

    python3.11 -m venv .oracle && .oracle/bin/pip install -c constraints/cpu.txt scanpy==1.11.5
    PYTHONPATH=tests .oracle/bin/python -W ignore -m oracles.scanpy_official

``rank_genes_groups`` with ``reference`` = controls: Wilcoxon without and with tie correction, and the Welch t test;
p values, Benjamini-Hochberg p values and log2 fold changes of the first three conditions, genes in the case's order.
"""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
from oracles._metric_cases import Case
from oracles._metric_expected import write

CONTROL = "zz_control"
TESTS = {
    "wilcoxon": {"method": "wilcoxon", "tie_correct": False},
    "wilcoxon_ties": {"method": "wilcoxon", "tie_correct": True},
    "welch": {"method": "t-test"},
}
CONDITIONS = 3


def run(case: Case) -> dict[str, dict[str, list[list[float]]]]:
    """Test -> ``pvals``, ``pvals_adj`` or ``logfoldchanges`` -> conditions x genes."""
    names = np.repeat([*case.conditions, CONTROL], [*(case.observed.shape[1],) * len(case.conditions),
                                                    len(case.controls)])  # fmt: skip
    obs = pd.DataFrame({"target": pd.Categorical(names)}, index=[f"cell{i}" for i in range(len(names))])
    values = np.concatenate([*case.observed, case.controls]).astype(np.float64)
    cells = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=list(case.genes)))
    out = {}
    for test, options in TESTS.items():
        sc.tl.rank_genes_groups(cells, "target", reference=CONTROL, **options)
        found: dict[str, list[list[float]]] = {"pvals": [], "pvals_adj": [], "logfoldchanges": []}
        for name in case.conditions[:CONDITIONS]:
            table = sc.get.rank_genes_groups_df(cells, name).set_index("names").loc[list(case.genes)]
            for column, rows in found.items():
                rows.append(table[column].astype(float).tolist())
        out[test] = found
    return out


if __name__ == "__main__":
    write("scanpy", {"scanpy": "1.11.5"}, ("anndata", "scipy", "statsmodels", "numpy"), run)
