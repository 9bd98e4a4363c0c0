"""scanpy's pseudobulk of a file, after loading it."""

from __future__ import annotations

import anndata
import numpy as np
import scanpy as sc

HELD: dict[str, anndata.AnnData] = {}


def load(path: str) -> dict[str, np.ndarray]:
    """Read the file into memory and keep it for the calls that follow."""
    HELD["cells"] = anndata.read_h5ad(path)
    return {"cells": np.array(HELD["cells"].n_obs)}


def aggregate(functions: list[str]) -> dict[str, np.ndarray]:
    """``scanpy.get.aggregate`` by perturbation: one array per function, and the groups' names."""
    made = sc.get.aggregate(HELD["cells"], "perturbation", functions)
    return {
        "names": made.obs_names.to_numpy().astype(str),
        **{name: np.asarray(made.layers[name]) for name in functions},
    }
