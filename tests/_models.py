"""What tests of foundation models share: counts, official outputs, and a run of a model on given cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from embbench.core import Counts

EXPECTED = Path(__file__).resolve().parent / "oracles" / "expected"


def counts_of(matrix: Any, genes: Any, total: Any = None) -> Counts:
    """Counts of a matrix (cells, genes); ``total`` defaults to the sums of its rows."""
    values = sparse.csr_matrix(matrix).astype(np.float32)
    depth = np.asarray(values.sum(axis=1, dtype=np.float64)).ravel() if total is None else np.asarray(total, float)
    return Counts(values, np.asarray(genes, dtype=object), depth)


def read_counts(path: Path, genes: str | None = None, total: str | None = None) -> Counts:
    """Counts of an `.h5ad` file; ``genes`` a column of var, ``total`` of obs."""
    import anndata

    data = anndata.read_h5ad(path)
    names = data.var_names if genes is None else data.var[genes]
    return counts_of(data.X, names.to_numpy(), None if total is None else data.obs[total].to_numpy())


def official(name: str) -> dict[str, np.ndarray]:
    """What an official package returned (tests/oracles/NAME.py)."""
    with np.load(EXPECTED / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@dataclass(frozen=True)
class Got:
    """Output of a model: vocabulary names of genes seen, mean rows, counts, cell vectors."""

    names: np.ndarray
    mean: np.ndarray
    count: np.ndarray
    cells: np.ndarray

    def near(self, names: np.ndarray, mean: np.ndarray, count: np.ndarray | None, tolerance: float) -> None:
        """The genes of ``names`` that were counted are exactly those seen, with these means and counts."""
        counted = np.ones(len(names), bool) if count is None else count > 0
        wanted = names[counted].tolist()
        where = {name: i for i, name in enumerate(self.names.tolist())}
        assert set(wanted) == set(where), sorted(set(wanted) ^ set(where))[:5]
        rows = [where[name] for name in wanted]
        assert np.abs(self.mean[rows] - mean[counted]).max() < tolerance
        if count is not None:
            assert np.array_equal(self.count[rows], count[counted])


def run_model(model: Any, counts: Counts) -> Got:
    """Feed all cells to a model."""
    out = model.means(counts.rows, len(counts))
    return Got(np.array(model.network().vocabulary, dtype=object)[out.index], out.mean, out.count, out.cells)
