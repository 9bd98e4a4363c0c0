"""Somebody else's predictions under our metrics: folds, truth, averages, references and ceilings of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import Fold, Metric, PerturbationDataset, Run, Truth, UserError
from embbench.exchange._align import Aligned, align
from embbench.exchange._coverage import check_origin, counts, key_of, samples_of
from embbench.exchange._plain import average
from embbench.exchange._read import read_table
from embbench.grid.ceiling import ceilings
from embbench.grid.fit import FALLBACK, job_of, predict
from embbench.grid.limits import INNER, OUTER
from embbench.grid.metrics import METRICS, metric_names
from embbench.grid.names import registry_of
from embbench.grid.prediction import product
from embbench.grid.score import mean_effects, metrics_of, reasons, row_facts, truth_of
from embbench.grid.screens import screen, split_of
from embbench.grid.validate import split_spec

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("no_change", FALLBACK)  # heads that are scored beside the file, on the same rows by the same code


@dataclass(frozen=True)
class Asked:
    """What is to be scored against what.

    Parameters
    ----------
    path : the file.
    dataset, split, genes, seed : as in a grid; the seed is that of the folds.
    metrics : registered names; empty takes the defaults.
    perturbation_key, context_key : columns of the file, or None to look for the usual names.
    unit : ``auto``, ``delta``, ``expression`` or ``cells``.
    fold : score this fold alone; None takes all.
    id_map : CSV of openproblems, for a file whose rows are its ids.
    """

    path: Path
    dataset: str
    split: str = "default"
    genes: str = "all"
    seed: int = 0
    metrics: tuple[str, ...] = ()
    perturbation_key: str | None = None
    context_key: str | None = None
    unit: str = "auto"
    fold: str | None = None
    id_map: Path | None = None


@dataclass(frozen=True)
class Scored:
    """Scores of a file.

    Parameters
    ----------
    rows : one row per fold, condition and metric: value, no_change, context_mean, ceiling, covered.
    summary : one record per metric with the leaderboard's means.
    coverage : share of test conditions with a prediction of their own.
    notes : counts and caveats, one line each.
    """

    rows: pd.DataFrame
    summary: list[dict[str, Any]]
    coverage: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """One fold: rows, whose predictions are the file's own, and values by name of the predictor."""

    fold: Fold
    rows: np.ndarray
    own: np.ndarray
    values: dict[str, np.ndarray]


def score_file(asked: Asked, paths: tuple[str, ...] = ()) -> Scored:
    """Score a file of predictions on the test folds of a screen.

    Parameters
    ----------
    asked : file, screen and split.
    paths : the user's registry files.

    Notes
    -----
    A test condition that the file lacks takes the split's fallback, the context mean of its training rows, and counts
    as uncovered. Cells are scored as a population and by their mean effect against half A; where conditions differ in
    their number of cells, all give the smallest number of the scored folds (seeded draw). Of a screen without cells,
    cells are scored by their means alone.

    Raises
    ------
    UserError
        Whatever does not fit: see `embbench.exchange._align.align`; an unknown fold, none with a test row, or a file
        that embbench itself predicted under other folds.
    """
    registry, data = registry_of(paths), screen(asked.dataset, asked.genes, paths)
    text = split_spec(data, asked.split)
    split = split_of(asked.dataset, text, asked.genes, asked.seed, paths)
    names = [f.name for f in split.folds]
    if asked.fold is not None and asked.fold not in names:
        raise UserError(f"--fold {asked.fold!r}: {text} has {', '.join(names)}")
    folds = [f for f in split.folds if asked.fold in (None, f.name) and len(f.test)]
    if not folds:
        raise UserError(f"--split {text}: no fold has a test condition on {data.name}; choose another split")
    usual = ("|".join(map(str, data.meta.get("context_keys") or ())),) if data.meta.get("context_keys") else ()
    table = read_table(asked.path, asked.perturbation_key, asked.context_key, usual, asked.id_map)
    base = Run(asked.dataset, text, "", FALLBACK, genes=asked.genes, seed=asked.seed)
    told = check_origin(table, data, base, folds)
    found = align(table, data, asked.unit, names)
    notes = [*found.notes, *told]
    if found.content == "cells" and data.cells is None:
        found = _means_of(found, data)
        notes.append(f"{data.name} has no cells: predicted cells are scored by their mean effects alone")
    target = "population" if found.content == "cells" else "effects"
    wanted = metrics_of(registry, metric_names(registry, asked.metrics or METRICS, target))
    lost = reasons(data, wanted, {target})
    notes += [f"not scored: {name} ({why})" for name, why in lost.items()]
    metrics = {n: m for n, (m, _) in wanted.items() if n not in lost}
    samples = samples_of(found, folds, data, notes)
    base = replace(base, target=target, samples=samples)
    parts = [_part(found, data, fold, base, paths) for fold in folds]
    frame = _scores(parts, data, metrics, samples, split.kind)
    own, rows = (np.concatenate(c) for c in zip(*((p.own, p.rows) for p in parts), strict=True))
    notes += counts(found, own, rows, data)
    return Scored(frame, _summary(frame, metrics, data), float(own.mean()), tuple(notes))


def _means_of(found: Aligned, data: PerturbationDataset) -> Aligned:
    """Cells as their mean effects."""
    codes = data.context_codes
    made = {k: mean_effects(v[None], data, codes[[k[1]]])[0] for k, v in found.values.items()}
    return Aligned("effects", made, found.own, found.extra, found.notes)


def _part(found: Aligned, data: PerturbationDataset, fold: Fold, base: Run, paths: tuple[str, ...]) -> _Part:
    """The file's predictions of a fold, the fallback where it has none, and the references."""
    values = {}
    for head in REFERENCES:
        made = predict(job_of(replace(base, fold=fold.name, head=head), paths))
        if made.values is None:
            values[head] = product(made.weights, data.effects, fold.train, data.context_codes[fold.test])
        else:
            values[head] = made.values
    file, own = values[FALLBACK].copy(), np.zeros(len(fold.test), dtype=bool)
    for i, row in enumerate(fold.test.tolist()):
        key = key_of(found, fold.name, row)
        if key is None:
            continue
        value = found.values[key]
        if found.content == "cells" and len(value) > base.samples:
            value = value[np.sort(np.random.default_rng([0, row]).permutation(len(value))[: base.samples])]
        file[i], own[i] = value, found.own[key]
    return _Part(fold, fold.test, own, {"value": file, **values})


def _scores(
    parts: Sequence[_Part], data: PerturbationDataset, metrics: dict[str, Metric], samples: int, kind: str
) -> pd.DataFrame:
    import pandas as pd

    facts = row_facts(data, kind)
    spaces = {m.space for m in metrics.values()}
    out = []
    for part in parts:
        cells = part.values["value"].ndim == 3
        truth = truth_of(data, part.rows, part.fold.train, cells=cells, spaces=spaces if cells else ())
        limits = _limits(data, truth, part, metrics, samples)
        for name, metric in metrics.items():
            scores = {k: _score(metric, v, truth, data) for k, v in part.values.items()}
            columns = {"condition": facts["condition"][part.rows], "context": facts["context"][part.rows]}
            columns |= {"row": part.rows, "fold": part.fold.name, "covered": part.own, "metric": name, **scores}
            out.append(pd.DataFrame({**columns, "ceiling": limits.get(name, np.full(len(part.rows), np.nan))}))
    return pd.concat(out, ignore_index=True) if out else pd.DataFrame()


def _score(metric: Metric, values: np.ndarray, truth: Truth, data: PerturbationDataset) -> np.ndarray:
    """Scores (m,) float64; the mean effect of cells under a metric of effects."""
    given = mean_effects(values, data, truth.context) if values.ndim == 3 and metric.target == "effects" else values
    return np.asarray(metric(given, truth), dtype=np.float64)


def _limits(
    data: PerturbationDataset, truth: Truth, part: _Part, metrics: dict[str, Metric], samples: int
) -> dict[str, np.ndarray]:
    """Noise-free ceilings, as the grid has them: of effects for effects, of cells for cells."""
    target = "population" if part.values["value"].ndim == 3 else "effects"
    own = {n: m for n, m in metrics.items() if m.target == target}
    sizes: dict[str, Any] = {"outer": OUTER, "inner": INNER, "samples": samples, "variants": ("noise_free",)}
    made = ceilings(data, truth, part.rows, part.fold.train, own, **sizes)
    return {c.metric: c.values for c in made if c.variant == "noise_free"}


def _summary(frame: pd.DataFrame, metrics: dict[str, Metric], data: PerturbationDataset) -> list[dict[str, Any]]:
    out = []
    for name, metric in metrics.items():
        part = frame[(frame["metric"] == name).to_numpy()]
        rows, values = part["row"].to_numpy(), part["value"].to_numpy()
        columns = ("value", *REFERENCES, "ceiling")
        means = {c: average(part[c].to_numpy(), rows, data.context_codes[rows]) for c in columns}
        known = np.unique(rows[np.isfinite(values)])
        out.append(
            {
                "metric": name,
                "best": metric.best,
                "score": means["value"],
                **{c: means[c] for c in columns[1:]},
                "conditions": len(known),
                "undefined": len(np.unique(rows)) - len(known),
            }
        )
    return out
