"""Contracts of datasets and graphs."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.cache.screens import dataset_digest
from embbench.checks._contract import Make, name_of, require
from embbench.core import UNITS, PerturbationDataset

CONTROLS = {"control", "ctrl", "non-targeting", "nontargeting", "dmso", "vehicle", "unperturbed", "untreated", "nt"}


def dataset_is_a_screen(make: Make) -> None:
    """``load`` gives a screen with rows, genes, a known unit and names."""
    source = make()
    data = source.load()
    good = isinstance(data, PerturbationDataset)
    require(good, f"{name_of(source)}.load must give a PerturbationDataset, found {type(data).__name__}")
    require(len(data) and len(data.genes), f"{name_of(source)}: {len(data)} conditions x {len(data.genes)} genes")
    require(data.unit in UNITS and data.name, f"{name_of(source)}: unit {data.unit!r}, name {data.name!r}")


def dataset_rows_are_conditions(make: Make) -> None:
    """One row per (entities, dose, context); controls are never rows."""
    source = make()
    data = source.load()
    dose = [None] * len(data) if data.dose is None else data.dose.tolist()
    rows = list(zip(data.entities, dose, data.context.tolist(), strict=True))
    repeats = len(rows) - len(set(rows))
    require(not repeats, f"{name_of(source)}: {repeats} rows repeat an (entities, dose, context); average them")
    controls = sorted({e for row in data.entities for e in row if e.lower() in CONTROLS})
    require(not controls, f"{name_of(source)}: controls are rows: {controls}; they belong into baseline and cells")


def dataset_values_are_finite(make: Make) -> None:
    """Effects and truth are finite float32 where observed; baselines of contexts with rows are finite."""
    source = make()
    data = source.load()
    seen = np.ones(data.effects.shape, bool) if data.observed is None else data.observed
    for name in ("effects", "truth"):
        value = getattr(data, name)
        good = value.dtype == np.float32 and np.isfinite(value[seen]).all()
        require(good, f"{name_of(source)}: {name} must be finite float32 where observed, found {value.dtype}")
    used = np.unique(data.context_codes)
    for name in ("baseline", "baseline_truth"):
        value = getattr(data, name)
        require(
            value is None or np.isfinite(value[used]).all(),
            f"{name_of(source)}: {name} of a used context is not finite",
        )
    tested = data.labels is None or data.labels_tested is not None
    require(tested, f"{name_of(source)}: labels need the mask of tested entries")
    known = data.labels is None or set(np.unique(data.labels).tolist()) <= {-1, 0, 1}
    require(known, f"{name_of(source)}: labels must be -1, 0 or 1")


def dataset_cells_fit_the_screen(make: Make) -> None:
    """Cells of the first row and its context's control halves are finite, of shape (m, g); halves share no cells."""
    source = make()
    data = source.load()
    if data.cells is None:
        return
    inner = getattr(data.cells, "source", data.cells)
    context = int(data.context_codes[0])
    parts = {"perturbed": data.cells.perturbed(0), **{h: inner.controls(context, h) for h in ("A", "B", "all")}}
    for name, cells in parts.items():
        good = cells.ndim == 2 and len(cells) and cells.shape[1] == len(data.genes) and np.isfinite(cells).all()
        require(good, f"{name_of(source)}: {name} cells must be finite (m, {len(data.genes)}), found {cells.shape}")
    whole = len(parts["A"]) + len(parts["B"])
    require(whole == len(parts["all"]), f"{name_of(source)}: halves have {whole} cells, together {len(parts['all'])}")


def dataset_is_deterministic(make: Make) -> None:
    """Two loads have the same digest."""
    a, b = (dataset_digest(make().load()) for _ in range(2))
    require(a == b, f"{name_of(make())}: two loads differ ({a}, {b}); seed it")


def graph_is_symmetric(make: Make) -> None:
    """``load`` gives distinct names and a symmetric sparse matrix of shape (m, m), finite, >= 0, no self-loop."""
    source = make()
    names, edges = source.load()
    m = len(names)
    require(m and len(set(names.tolist())) == m, f"{name_of(source)}: names must be distinct, found {m}")
    require(sparse.issparse(edges) and edges.shape == (m, m), f"{name_of(source)}: expected a sparse ({m}, {m}) matrix")
    good = edges.nnz and np.isfinite(edges.data).all() and (edges.data >= 0).all()
    require(good, f"{name_of(source)}: needs edges with finite weights >= 0")
    require(abs(edges - edges.T).max() <= 1e-6, f"{name_of(source)}: the graph must be symmetric")
    require(not edges.diagonal().any(), f"{name_of(source)}: the graph must have no self-loop")


def graph_is_deterministic(make: Make) -> None:
    """Two loads give the same names and weights."""
    (names, edges), (again, other) = make().load(), make().load()
    same = np.array_equal(names, again) and edges.nnz == other.nnz and not abs(edges - other).max()
    require(same, f"{name_of(make())}: two loads differ")
