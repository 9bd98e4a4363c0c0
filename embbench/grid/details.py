"""What a page shows beyond scores: single predictions, the neighbours behind them, populations, effect sizes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import Metric, PerturbationDataset, Run, view_cells
from embbench.grid.frames import with_cells
from embbench.grid.honesty import FLAGS
from embbench.grid.results import Results, Stored
from embbench.grid.space import population_basis
from embbench.registry import Registry

if TYPE_CHECKING:
    import pandas as pd

BEST = 2  # methods shown per board
CONDITIONS = 6  # and conditions of each
TOP, SAMPLE = 60, 140  # genes with the largest true effects, and others, evenly over the panel
NEIGHBOURS = 10
POINTS = 150  # cells drawn per cloud


def details_of(
    results: Results,
    registry: Registry,
    runs: pd.DataFrame,
    scores: pd.DataFrame,
    metric: tuple[str, Metric],
    coverage: float = 0.8,
) -> dict[str, Any]:
    """The ``details`` of `embbench.report.page.bundle.make_bundle`.

    Parameters
    ----------
    results : the folder.
    registry : for screens whose cells are wanted.
    runs, scores : from `embbench.grid.frames.read_frames`.
    metric : name and declaration of the metric by which the best methods, and conditions over their range, are chosen.
    coverage : least share of conditions with a prediction of their own of a method that may be the best.

    Returns
    -------
    dict
        ``conditions``, ``examples``, ``populations`` and ``flags``; deterministic. Of populations only the observed
        half of the cells is drawn, at the number of cells that was predicted.
    """
    out: dict[str, Any] = {"conditions": {}, "examples": [], "populations": [], "flags": dict(FLAGS)}
    done = runs[(runs["status"] == "done").to_numpy()]
    for dataset, group in done.groupby("dataset", sort=False):
        first = group.iloc[0]
        data = results.screen(results.facts(first["key"])["dataset"])
        out["conditions"][str(dataset)] = _conditions(data)
        for _, board in group.groupby(["split", "genes"], sort=False):
            for key in _best(board, runs, scores, metric, coverage):
                run = Run(**results.facts(key)["run"])
                full = data
                if run.target == "population":
                    full = with_cells(data, str(dataset), run.genes, registry)
                stored = results.prediction(key, data)
                own = scores[(scores["key"] == key).to_numpy()]
                for position in _spread(stored, own, metric[0]):
                    _add(out, data, full, stored, position, own)
    return out


def _conditions(data: PerturbationDataset) -> dict[str, Any]:
    seen = np.ones(data.truth.shape, bool) if data.observed is None else data.observed
    norm = np.sqrt(np.square(np.where(seen, data.truth, 0).astype(np.float64)).sum(axis=1))
    found: dict[str, Any] = {"row": np.arange(len(data)), "effect_norm": norm}
    return found | ({} if data.n_cells is None else {"n_cells": data.n_cells})


def _best(
    board: pd.DataFrame, runs: pd.DataFrame, scores: pd.DataFrame, metric: tuple[str, Metric], coverage: float
) -> list[str]:
    """One run (the first fold) of each of the best methods of a board, by their mean score, contexts equal.

    Methods that are not complete, or that predict too few conditions themselves, are taken only where there is no
    other: what is not ranked must not be shown as the best.
    """
    name, made = metric
    part = scores[(scores["metric"] == name).to_numpy() & scores["key"].isin(board["key"]).to_numpy()]
    part = part[(part["role"] == "method").to_numpy()]
    if not len(part):
        return []
    each = part.groupby(["config", "context"], observed=True)["value"].mean().dropna()
    mean = each.groupby(level="config", observed=True).mean()
    waiting = set(runs.loc[(runs["status"] != "done").to_numpy(), "config"])
    share = part.groupby("config", observed=True)["covered"].mean().reindex(mean.index)
    able = (share >= coverage).to_numpy() & ~mean.index.isin(waiting)
    mean = mean[able] if able.any() else mean
    order = mean.sort_values(ascending=made.best == "low", kind="stable").index[:BEST]
    return [str(board[(board["config"] == config).to_numpy()].iloc[0]["key"]) for config in order]


def _spread(stored: Stored, scores: pd.DataFrame, name: str) -> list[int]:
    """Covered test rows over the range of their ``scores``: best, worst and some between."""
    part = scores[(scores["metric"] == name).to_numpy()]
    value = part.set_index("row")["value"].reindex(stored.rows).to_numpy(dtype=np.float64)
    able = np.flatnonzero(np.isfinite(value) & stored.covered)
    order = able[np.argsort(value[able], kind="stable")]
    picks = np.unique(np.linspace(0, len(order) - 1, min(CONDITIONS, len(order))).round().astype(int))
    return order[picks].tolist() if len(order) else []


def _add(
    out: dict[str, Any],
    data: PerturbationDataset,
    full: PerturbationDataset,
    stored: Stored,
    position: int,
    scores: pd.DataFrame,
) -> None:
    """One condition of one run: as an example, and as a population where cells were predicted."""
    run, row = stored.run, int(stored.rows[position])
    where = {name: getattr(run, name) for name in ("dataset", "split", "genes", "head", "fold")}
    where |= {name: str(value) for name, value in asdict(run).items() if name not in (*where, "seed")}
    where |= {"condition": data.conditions[row], "context": str(data.context[row])}
    if run.target == "labels":
        return
    values, truth = stored.values[position], data.truth[row]
    if run.target == "population":
        if full.cells is not None:
            out["populations"].append(where | _population(full, stored, position))
        if data.baseline is None:
            return
        values = values.mean(axis=0, dtype=np.float64) - data.baseline[data.context_codes[row]]
    chosen, top = _genes(truth, None if data.observed is None else data.observed[row])
    own = scores[(scores["row"] == row).to_numpy()]
    example = where | {
        "unit": data.unit,
        "names": data.genes[chosen].tolist(),
        "true": truth[chosen],
        "predicted": np.asarray(values)[chosen],
        "top": top,
        "scores": dict(zip(own["metric"].astype(str), own["value"].astype(float), strict=True)),
    }
    if stored.weights is not None:
        example["neighbours"] = _neighbours(data, stored, position)
    out["examples"].append(example)


def _genes(truth: np.ndarray, observed: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Columns of the largest true effects, largest first, then others evenly over the panel; how many are the first."""
    able = np.arange(len(truth)) if observed is None else np.flatnonzero(observed)
    order = able[np.argsort(-np.abs(truth[able]), kind="stable")]
    rest = np.sort(order[TOP:])
    if len(rest) > SAMPLE:
        rest = rest[np.unique(np.linspace(0, len(rest) - 1, SAMPLE).round().astype(int))]
    return np.concatenate([order[:TOP], rest]), min(TOP, len(order))


def _neighbours(data: PerturbationDataset, stored: Stored, position: int) -> list[list[Any]]:
    weights = stored.weights[position]  # type: ignore[index]  # the caller has checked
    order = np.argsort(-np.abs(weights.data), kind="stable")[:NEIGHBOURS]
    rows = stored.train[weights.indices[order]]
    many = len(data.contexts) > 1
    labels = [data.conditions[r] + (f" ({data.context[r]})" if many else "") for r in rows.tolist()]
    return [[label, float(w)] for label, w in zip(labels, weights.data[order], strict=True)]


def _population(data: PerturbationDataset, stored: Stored, position: int) -> dict[str, Any]:
    """Clouds on the first two axes of the population space, and per-gene means and variances."""
    row = int(stored.rows[position])
    view = view_cells(data.cells, np.array([row]))  # type: ignore[arg-type]  # the caller has checked
    real, predicted = view.perturbed(0), stored.values[position]
    control = view.controls(int(data.context_codes[row]))
    axes = population_basis(data, stored.train, 2).astype(np.float64)
    chosen, top = _genes(data.truth[row], None if data.observed is None else data.observed[row])
    names = data.genes[chosen].tolist()
    return {
        "space": "first two principal axes of training cells and half-A controls",
        "real": _some(real) @ axes,
        "predicted": _some(predicted) @ axes,
        "control": _some(control) @ axes,
        "names": names,
        "top": names[: min(10, top)],
        **{
            f"{what}_{who}": getattr(np, {"mean": "mean", "variance": "var"}[what])(cells[:, chosen], axis=0)
            for who, cells in (("true", real), ("predicted", predicted))
            for what in ("mean", "variance")
        },
    }


def _some(cells: np.ndarray) -> np.ndarray:
    """At most `POINTS` cells, evenly over their order."""
    keep = np.unique(np.linspace(0, len(cells) - 1, min(POINTS, len(cells))).round().astype(int))
    return cells[keep].astype(np.float64)


def provenance_of(results: Results, report: str) -> dict[str, Any]:
    """Versions, hashes, seeds, grids and commands behind a folder; no time stamp, so that the page is reproducible.

    Versions are those that the grids ran with; ``report`` is the command that makes the page.
    """
    plans = results.plans()
    grids = [{**plan["facts"]["grid"], "scored": plan["facts"].get("scored", [])} for plan in plans]
    records = [plan.get("record", {}) for plan in plans]
    versions = list(
        {json.dumps(r.get("versions", {}), sort_keys=True): r.get("versions", {}) for r in records}.values()
    )
    return {
        "versions": versions[0] if len(versions) == 1 else versions,
        "hashes": {where: marks for plan in plans for where, marks in plan["facts"]["marks"].items()},
        "seeds": sorted({seed for grid in grids for seed in grid["seed"]}),
        "grids": grids,
        "registries": sorted({name for plan in plans for name in plan["facts"].get("registry", [])}),
        "commands": [*dict.fromkeys(r["command"] for r in records if r.get("command")), report],
    }
