"""scperturb 0.1.0: ``edist_to_control`` of every perturbation, one job."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from scperturb import edist_to_control


def screen(cells: np.ndarray, label: np.ndarray) -> anndata.AnnData:
    """Cells of shape (n, d) as scores, with nothing else to slice; label -1 is the control."""
    obs = pd.DataFrame({"target": pd.Categorical(np.where(label < 0, "control", label.astype(str)))})
    made = anndata.AnnData(obs=obs.set_axis(obs.index.astype(str)))
    made.obsm["X_pca"] = cells
    return made


def distances(cells: np.ndarray, label: np.ndarray, *, dist: str, correct: bool) -> dict[str, np.ndarray]:
    """``e`` (perturbations,), by number."""
    found = edist_to_control(screen(cells, label), "target", "control", dist=dist, sample_correct=correct, n_jobs=1,
                             verbose=False)  # fmt: skip
    values = found["distance"].drop("control")
    return {"e": values.to_numpy()[np.argsort(values.index.to_numpy().astype(int))]}
