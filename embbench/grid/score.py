"""Scores of stored predictions: a metric can be added any time, nothing is refitted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embbench.cache.keys import array_digest, digest
from embbench.cache.store import write_h5
from embbench.core import Cells, CellView, DETable, Metric, PerturbationDataset, Run, Truth, UserError, view_cells
from embbench.grid.readoff import read_scores, readable
from embbench.grid.results import Results, Stored
from embbench.grid.screens import detectable
from embbench.grid.space import population_basis
from embbench.grid.targets import observed_means
from embbench.grid.vectors import component_facts
from embbench.registry import Registry


def truth_of(
    data: PerturbationDataset, rows: np.ndarray, train: np.ndarray, *, cells: bool = False, spaces: Collection[str] = ()
) -> Truth:
    """What predictions of dataset rows are judged against: effects against control half B.

    The centroids are mean training effects of the row's context (of all contexts, equally, where it has none).

    Parameters
    ----------
    data : the screen.
    rows, train : test and training rows.
    cells : open the observed cells too, and fit the basis of the population spaces named in ``spaces`` (``pca50``).
    """
    codes = data.context_codes
    own = observed_means(data, data.effects, train).astype(np.float32)[codes[rows]]
    theirs = own
    if data.truth is not data.effects:
        theirs = observed_means(data, data.truth, train).astype(np.float32)[codes[rows]]
    means = data.baseline_truth if data.baseline_truth is not None else data.baseline
    part = data.rows(rows)
    dims = {int(space.removeprefix("pca")) for space in spaces if space.startswith("pca")}
    if len(dims) > 1:
        raise UserError(f"population spaces of one report must agree, found pca{', pca'.join(map(str, sorted(dims)))}")
    view: CellView | None = view_cells(data.cells, rows) if cells and data.cells is not None else None
    return Truth(
        effects=part.truth,
        unit=data.unit,
        context=codes[rows],
        targets=part.target_columns(),
        entities=part.entities,
        observed=part.observed,
        baseline=None if means is None else means[codes[rows]],
        centroid=own,
        centroid_truth=theirs,
        variance=part.truth_variance,
        labels=part.truth_labels,
        labels_tested=part.truth_labels_tested,
        de=_de_table(part),
        cells=None if view is None else replace(view, source=_Kept(view.source), half="B", share="observed"),
        basis=population_basis(data, train, dims.pop()) if dims and view is not None else None,
    )


def _de_table(part: PerturbationDataset) -> DETable | None:
    """The DE table of the screen, at the level that its labels were made with."""
    if part.padj is None or part.log2fc is None:
        return None
    return DETable(part.log2fc, part.padj, float(dict(part.meta.get("labels", {})).get("level", 0.05)))


def scorable(metric: Metric, target: str) -> bool:
    """Whether a metric scores runs of ``target``; a population also has a mean effect."""
    return metric.target == target or (metric.target == "effects" and target == "population")


def mean_effects(cells: np.ndarray, data: PerturbationDataset, context: np.ndarray) -> np.ndarray:
    """Mean effect (m, g), float32, of predicted cells (m, s, g) against the half-A control mean of their contexts."""
    if data.baseline is None:
        raise UserError(f"{data.name} has no control means; a population's mean effect needs them")
    return (cells.mean(axis=1, dtype=np.float64) - data.baseline[context]).astype(np.float32)


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
    stored: Stored | None = None,
) -> dict[str, np.ndarray]:
    """Scores of one run, name -> (m,) float64; read where they are stored, computed and stored where not.

    Metrics of another target than the run's, and those a screen cannot serve (unit, no baseline, no cells ...), are
    left out; `reasons` says why. ``truths`` keeps what several runs of a fold are judged against,
    ``stored`` is the prediction where it is at hand; else it is read.
    """
    path = results.path("scores", key)
    kept = results.valid(path, "scores")
    arrays, facts = kept if kept is not None else ({}, {"metrics": {}})
    run = stored.run if stored is not None else Run(**results.facts(key)["run"])
    wanted = {n: v for n, v in metrics.items() if scorable(v[0], run.target)}
    missing = [n for n, (_, code) in wanted.items() if facts["metrics"].get(n) != code]
    if missing:
        at = results.rows(key) if stored is None else {"rows": stored.rows, "train": stored.train}
        spaces = {metrics[n][0].space for n in missing}
        mark = digest([data.meta["digest"], array_digest(at["rows"], at["train"]), run.target, sorted(spaces)])
        if mark not in truths:
            truths[mark] = truth_of(data, at["rows"], at["train"], cells=run.target == "population", spaces=spaces)
        missing = [n for n in missing if not metrics[n][0].unmet(truths[mark])]
    if missing:
        stored = results.prediction(key, data) if stored is None else stored
        names = readable(missing, data) if run.target == "effects" and stored.weights is not None else []
        if names:
            arrays |= read_scores(names, stored.weights, data, stored.rows, stored.train)
        for name in (n for n in missing if n not in names):
            metric = metrics[name][0]
            values = stored.values
            given = values if metric.target == run.target else mean_effects(values, data, truths[mark].context)
            arrays[name] = np.asarray(metric(given, truths[mark]), dtype=np.float64)
        facts["metrics"] |= {name: metrics[name][1] for name in missing}
        write_h5(path, "scores", arrays, facts)
    return {n: arrays[n] for n, (_, code) in metrics.items() if facts["metrics"].get(n) == code}


class _Kept:
    """Cells of a fold's test rows read once: dozens of metrics ask for the same ones."""

    def __init__(self, source: Cells) -> None:
        self.source = source
        self._found: dict[tuple[str, int, str], np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def perturbed(self, row: int) -> np.ndarray:
        """Perturbed cells of a row."""
        return self._keep(("row", row, ""), lambda: self.source.perturbed(row))

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """Control cells of a context and half."""
        return self._keep(("control", context, half), lambda: self.source.controls(context, half))

    def _keep(self, key: tuple[str, int, str], read: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._found:
            self._found[key] = read()
            self._found[key].setflags(write=False)
        return self._found[key]


_SOME = np.zeros((0, 0), np.float32)  # stands for a basis that is fitted when it is needed


def reasons(data: PerturbationDataset, metrics: dict[str, tuple[Metric, str]], targets: set[str]) -> dict[str, str]:
    """Metric -> why it is not defined on a screen, among the metrics of ``targets`` (what the runs predict)."""
    rows = np.arange(min(2, len(data)))
    truth = replace(truth_of(data, rows, rows, cells=True), basis=_SOME if data.cells is not None else None)
    asked = {n: m for n, (m, _) in metrics.items() if any(scorable(m, target) for target in targets)}
    return {n: why for n, m in asked.items() if (why := m.unmet(truth))}


def row_facts(data: PerturbationDataset, kind: str) -> dict[str, np.ndarray]:
    """Per dataset row: condition, context, whether it is detectable, and the unit that intervals resample."""
    units = data.context.tolist() if kind == "context" else ["+".join(e) for e in data.entities]
    return {
        "condition": np.array(data.conditions, dtype=object),
        "context": np.array(data.context.tolist(), dtype=object),
        "detectable": detectable(data),
        "unit": np.array(units, dtype=object),
    }
