"""scanpy 1.11.5: ``rank_genes_groups`` of every perturbation against one control group."""

from __future__ import annotations

import numpy as np
import scanpy
from cells import screen


def tests(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, label: np.ndarray, *, genes: int
) -> dict[str, np.ndarray]:
    """``p``, ``padj`` and ``change`` of shape (perturbations, genes) with tie correction; perturbations by number."""
    cells = screen(data, indices, indptr, genes, label)
    scanpy.tl.rank_genes_groups(cells, "target", method="wilcoxon", tie_correct=True, reference="control",
                                n_genes=genes, use_raw=False, pts=False)  # fmt: skip
    found = cells.uns["rank_genes_groups"]
    names = sorted(found["names"].dtype.names, key=int)
    out = {"p": "pvals", "padj": "pvals_adj", "change": "logfoldchanges"}
    place = {name: found["names"][name].astype(int) for name in names}
    return {
        ours: np.stack([found[theirs][name][np.argsort(place[name])] for name in names]) for ours, theirs in out.items()
    }
