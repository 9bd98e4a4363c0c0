"""Scores of stored predictions: a metric can be added any time, nothing is refitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from embbench.cache.keys import array_digest, digest
from embbench.cache.store import write_h5
from embbench.core import CellView, DETable, Metric, PerturbationDataset, Run, Truth, view_cells
from embbench.grid.results import Results
from embbench.grid.screens import detectable
from embbench.grid.targets import observed_means
from embbench.grid.vectors import component_facts
from embbench.registry import Registry


def truth_of(data: PerturbationDataset, rows: np.ndarray, train: np.ndarray, *, cells: bool = False) -> Truth:
    """What predictions of dataset rows are judged against: effects against control half B.

    ``centroid`` is the mean training effect of the row's context (of all contexts, equally, where it has none).
    """
    codes = data.context_codes
    seen = np.ones((len(train), data.effects.shape[1]), dtype=bool) if data.observed is None else data.observed[train]
    centroid = observed_means(data.effects[train], seen, codes[train], len(data.contexts)).astype(np.float32)
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
        part.truth_labels,
        part.truth_labels_tested,
        None if part.padj is None or part.log2fc is None else DETable(part.log2fc, part.padj),
        None if view is None else replace(view, half="B", share="observed"),
    )


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

    Metrics of another target than the run's, and those a screen cannot serve (unit, no baseline, no cells ...), are
    left out; `reasons` says why. ``truths`` keeps what several runs of a fold are judged against.
    """
    path = results.path("scores", key)
    kept = results.valid(path, "scores")
    arrays, facts = kept if kept is not None else ({}, {"metrics": {}})
    run = Run(**results.facts(key)["run"])
    missing = [n for n, (m, code) in metrics.items() if m.target == run.target and facts["metrics"].get(n) != code]
    if missing:
        at = results.rows(key)
        mark = digest([data.meta["digest"], array_digest(at["rows"], at["train"]), run.target == "population"])
        if mark not in truths:
            truths[mark] = truth_of(data, at["rows"], at["train"], cells=run.target == "population")
        missing = [n for n in missing if not metrics[n][0].unmet(truths[mark])]
    if missing:
        values = results.prediction(key, data).values
        for name in missing:
            metric, code = metrics[name]
            arrays[name] = np.asarray(metric(values, truths[mark]), dtype=np.float64)
            facts["metrics"][name] = code
        write_h5(path, "scores", arrays, facts)
    return {n: arrays[n] for n, (_, code) in metrics.items() if facts["metrics"].get(n) == code}


def reasons(data: PerturbationDataset, metrics: dict[str, tuple[Metric, str]], targets: set[str]) -> dict[str, str]:
    """Metric -> why it is not defined on a screen, among the metrics of ``targets`` (what the runs predict)."""
    rows = np.arange(min(2, len(data)))
    truth = truth_of(data, rows, rows, cells=True)
    return {n: why for n, (m, _) in metrics.items() if m.target in targets and (why := m.unmet(truth))}


def row_facts(data: PerturbationDataset, kind: str) -> dict[str, np.ndarray]:
    """Per dataset row: condition, context, whether it is detectable, and the unit that intervals resample."""
    units = data.context.tolist() if kind == "context" else ["+".join(e) for e in data.entities]
    return {
        "condition": np.array(data.conditions, dtype=object),
        "context": np.array(data.context.tolist(), dtype=object),
        "detectable": detectable(data),
        "unit": np.array(units, dtype=object),
    }
