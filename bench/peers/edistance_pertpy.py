"""pertpy 1.0.3: ``Distance("edistance").onesided_distances`` to the control, one job."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from pertpy.tools import Distance

KEPT: dict[str, anndata.AnnData] = {}


def distances(cells: np.ndarray, label: np.ndarray, *, again: bool) -> dict[str, np.ndarray]:
    """``e`` (perturbations,), by number; ``again``: on the object whose cell by cell distances pertpy has kept."""
    if not again or "screen" not in KEPT:
        obs = pd.DataFrame({"target": pd.Categorical(np.where(label < 0, "control", label.astype(str)))})
        made = anndata.AnnData(obs=obs.set_axis(obs.index.astype(str)))
        made.obsm["X_pca"] = cells
        KEPT["screen"] = made
    groups = [str(k) for k in range(int(label.max()) + 1)]
    found = Distance("edistance", obsm_key="X_pca").onesided_distances(
        KEPT["screen"], "target", "control", groups, show_progressbar=False, n_jobs=1
    )
    return {"e": found.loc[groups].to_numpy()}
