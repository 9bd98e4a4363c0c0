"""Pseudobulk of the packaged kang18 screen by scanpy's own aggregate: the oracle of tests/test_import.py.

Written with scanpy 1.11.5, anndata 0.12.19, numpy 2.4.6. To run it again, from the root of the repository:

    python3.11 -m venv .oracle && .oracle/bin/pip install -c constraints/cpu.txt scanpy==1.11.5
    .oracle/bin/python tests/oracles/scanpy_aggregate.py

It writes tests/oracles/expected/scanpy_aggregate.npz: ``means`` (16 groups x 1,000 genes, float32), and the
``context``, ``perturbation`` and ``cells`` of each group. Counts are scaled to 1e4 by the cell's total count
(``n_counts``, not the sum over the panel), then log1p, in float64.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np
import scanpy as sc

ROOT = Path(__file__).resolve().parents[2]
VERSION = "1.11.5"


def main() -> None:
    """Aggregate and write."""
    if version("scanpy") != VERSION:
        sys.exit(f"expected scanpy {VERSION}, found {version('scanpy')}")
    cells = anndata.read_h5ad(ROOT / "embbench" / "data" / "kang18.h5ad")
    cells.X = cells.X.astype(np.float64).multiply(1e4 / cells.obs["n_counts"].to_numpy(np.float64)[:, None]).tocsr()
    sc.pp.log1p(cells)
    out = sc.get.aggregate(cells, by=["celltype", "perturbation"], func="mean")
    groups = out.obs
    size = cells.obs.groupby(["celltype", "perturbation"], observed=True).size()
    pairs = list(zip(groups["celltype"].astype(str), groups["perturbation"].astype(str), strict=True))
    np.savez_compressed(
        ROOT / "tests" / "oracles" / "expected" / "scanpy_aggregate.npz",
        means=np.asarray(out.layers["mean"], dtype=np.float32),
        context=np.array([c for c, _ in pairs]),
        perturbation=np.array([p for _, p in pairs]),
        cells=np.array([int(size[pair]) for pair in pairs]),
        genes=cells.var_names.to_numpy(str),
    )


if __name__ == "__main__":
    main()
