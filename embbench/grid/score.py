"""Scores of stored predictions: a metric can be added any time, nothing is refitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embbench.cache.keys import digest
from embbench.cache.store import write_h5
from embbench.core import CellView, Metric, PerturbationDataset, Truth, view_cells
from embbench.grid.results import Results
from embbench.grid.screens import detectable
from embbench.grid.vectors import component_facts
from embbench.registry import Registry


def truth_of(data: PerturbationDataset, rows: np.ndarray, train: np.ndarray, *, cells: bool = False) -> Truth:
    """What predictions of dataset rows are judged against: effects against control half B.

    ``centroid`` is the mean training effect of the row's context (of all contexts, equally, where it has none).
    """
    codes = data.context_codes
    centroid = _centroids(data.effects, codes, train, len(data.contexts))
    means = data.baseline_truth if data.baseline_truth is not None else data.baseline
    part = data.rows(rows)
    view: CellView | None = view_cells(data.cells, rows) if cells and data.cells is not None else None
    return Truth(
        part.truth,
        data.unit,
        codes[rows],
        part.target_columns(),
        part.entities,
        part.observed,
        None if means is None else means[codes[rows]],
        centroid[codes[rows]],
        part.truth_variance,
        part.labels,
        part.labels_tested,
        view,
    )


def _centroids(effects: np.ndarray, codes: np.ndarray, train: np.ndarray, contexts: int) -> np.ndarray:
    means = [
        effects[train[codes[train] == c]].mean(axis=0, dtype=np.float64) if (codes[train] == c).any() else None
        for c in range(contexts)
    ]
    overall = np.mean([m for m in means if m is not None], axis=0)
    return np.array([overall if m is None else m for m in means], dtype=np.float32)


def metrics_of(registry: Registry, names: Sequence[str]) -> dict[str, tuple[Metric, str]]:
    """Name -> (metric, digest of its code and parameters)."""
    out = {}
    for name in names:
        spec = registry.parse("metrics", name)
        out[name] = (spec.make(), digest(component_facts(spec)))
    return out


def score_run(
    results: Results,
    key: str,
    data: PerturbationDataset,
    metrics: dict[str, tuple[Metric, str]],
    truths: dict[str, Truth],
) -> dict[str, np.ndarray]:
    """Scores of one run, name -> (m,) float64; read where they are stored, computed and stored where not.

    A metric that a screen cannot serve (unit, no baseline ...) is left out; `reasons` says why.
    """
    path = results.path("scores", key)
    kept = results.valid(path, "scores")
    arrays, facts = kept if kept is not None else ({}, {"metrics": {}})
    missing = [n for n, (_, code) in metrics.items() if facts["metrics"].get(n) != code]
    if missing:
        stored = results.prediction(key, data)
        mark = digest([stored.run.dataset, stored.run.split, stored.run.fold, stored.run.seed, stored.run.genes])
        if mark not in truths:
            truths[mark] = truth_of(data, stored.rows, stored.train, cells=stored.run.target == "population")
        for name in missing:
            metric, code = metrics[name]
            if not metric.unmet(truths[mark]):
                arrays[name] = np.asarray(metric(stored.values, truths[mark]), dtype=np.float64)
                facts["metrics"][name] = code
        write_h5(path, "scores", arrays, facts)
    return {n: arrays[n] for n in metrics if n in arrays}


def reasons(data: PerturbationDataset, metrics: dict[str, tuple[Metric, str]]) -> dict[str, str]:
    """Metric -> why it is not defined on a screen."""
    rows = np.arange(min(2, len(data)))
    truth = truth_of(data, rows, rows)
    return {n: why for n, (m, _) in metrics.items() if m.target == "effects" and (why := m.unmet(truth))}


def row_facts(data: PerturbationDataset, kind: str) -> dict[str, Any]:
    """Per dataset row: condition, context, whether it is detectable, and the unit that intervals resample."""
    units = data.context.tolist() if kind == "context" else ["+".join(e) for e in data.entities]
    return {
        "condition": list(data.conditions),
        "context": data.context.tolist(),
        "detectable": detectable(data),
        "unit": units,
    }
