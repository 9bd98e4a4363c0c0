"""pdex 0.3.0: rank-sum tests of every perturbation against one control group, one numba thread."""

from __future__ import annotations

import numpy as np
import pdex
from cells import screen


def tests(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, label: np.ndarray, *, genes: int
) -> dict[str, np.ndarray]:
    """``p``, ``fdr``, ``u`` and ``change`` of shape (perturbations, genes), perturbations by number."""
    cells = screen(data, indices, indptr, genes, label)
    table = pdex.pdex(cells, "target", mode="ref", reference="control", threads=1, is_log1p=True)
    shape = (-1, genes)
    order = np.argsort(table["target"].to_numpy().astype(str).reshape(shape)[:, 0].astype(int))
    columns = {"p": "p_value", "fdr": "fdr", "u": "statistic", "change": "log2_fold_change"}
    return {name: table[column].to_numpy().reshape(shape)[order] for name, column in columns.items()}
