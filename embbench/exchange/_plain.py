"""Predictions as one plain AnnData file: everything that embbench knows of them, readable by anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embbench.exchange.predictions import MARK, Gathered, Names, Predicted, Written, save

FILE = "predictions.h5ad"


def write_plain(gathered: Gathered, out: Path, names: Names) -> Written:
    """``predictions.h5ad``: predicted effects (one observation per fold and condition) or cells in ``X``.

    Parameters
    ----------
    gathered : the predictions.
    out : folder.
    names : not used; columns are embbench's own.

    Returns
    -------
    Written
        Effects: layers ``truth`` (against control half B), ``observed`` (1 where the screen observes the entry) and
        ``noise_free`` (simulated screens); ``obs`` has a column ``score:<metric>`` and ``ceiling:<metric>`` per metric
        of the grid. Cells: one observation per cell; scores and ceilings are means in ``uns`` alone.
        ``uns["embbench"]`` holds configuration, digest, mean scores and mean ceilings (over conditions, then contexts).
    """
    import anndata
    import pandas as pd

    data = gathered.data
    scores, ceilings = gathered.scores()
    obs, rows = _obs(gathered), np.concatenate([made.rows for made in gathered.folds])
    if gathered.cells:
        samples = [made.values.shape[1] for made in gathered.folds for _ in made.rows]
        values = np.concatenate([made.values.reshape(-1, len(data.genes)) for made in gathered.folds])
        numbers = np.concatenate([np.arange(s) for s in samples]) if samples else np.zeros(0, dtype=np.int64)
        frame = pd.DataFrame({name: np.repeat(column, samples) for name, column in obs.items()})
        labels = [f"{f}|{r}-{i}" for f, r, i in zip(frame["fold"], frame["row"], numbers, strict=True)]
    else:
        values = np.concatenate([made.values for made in gathered.folds])
        extra = {f"score:{n}": v for n, v in _joined(scores).items()}
        extra |= {f"ceiling:{n}": v for n, v in _joined(ceilings).items()}
        frame = pd.DataFrame({**obs, **extra})
        pairs = zip(frame["fold"], frame["condition"], frame["context"], strict=True)
        labels = ["|".join(map(str, parts)) for parts in pairs]
    made = anndata.AnnData(values, frame.set_axis(pd.Index(labels)), pd.DataFrame(index=data.genes.astype(str)))
    if not gathered.cells:
        made.layers["truth"] = data.truth[rows]
        if data.observed is not None:
            made.layers["observed"] = data.observed[rows].astype(np.uint8)
        if data.noise_free is not None:
            made.layers["noise_free"] = data.noise_free[rows]
    means = {"scores": _means(scores, gathered), "ceilings": _means(ceilings, gathered)}
    made.uns[MARK] = {**gathered.facts(), **means}
    missed = int((~obs["covered"]).sum())
    notes = (f"{missed} of {len(rows)} conditions are the fallback (context mean): covered is False",) if missed else ()
    return Written((save(made, out / FILE),), notes)


def average(values: np.ndarray, rows: np.ndarray, context: np.ndarray) -> float:
    """The leaderboard's mean: over the folds that test a row, over rows within a context, then over contexts.

    Parameters
    ----------
    values, rows, context : (m,) scores, dataset rows and context codes; scores that are not finite are left out.

    Returns
    -------
    float
        NaN when nothing is finite.

    Examples
    --------
    >>> average(np.array([1.0, 3.0, 5.0, np.nan]), np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]))
    3.5
    """
    known = np.isfinite(values)
    if not known.any():
        return float("nan")
    unique, first, code = np.unique(rows[known], return_index=True, return_inverse=True)
    per_row = np.bincount(code, values[known], len(unique)) / np.bincount(code, minlength=len(unique))
    where = context[known][first]
    return float(np.mean([per_row[where == c].mean() for c in np.unique(where)]))


def _condition_obs(gathered: Gathered, made: Predicted) -> dict[str, np.ndarray]:
    """What is known of each row of a fold, columns of length m: labels, context, dose, fold, coverage, cells."""
    data, rows = gathered.data, made.rows
    obs: dict[str, np.ndarray] = {
        "condition": np.array(data.conditions, dtype=object)[rows],
        "perturbation": np.array(["+".join(data.entities[i]) for i in rows], dtype=object),
        "context": np.asarray(data.context, dtype=object)[rows],
        "fold": np.full(len(rows), made.fold, dtype=object),
        "row": rows.astype(np.int64),
        "covered": made.covered,
    }
    obs |= {} if data.dose is None else {"dose": data.dose[rows]}
    return obs | ({} if data.n_cells is None else {"n_cells": data.n_cells[rows]})


def _obs(gathered: Gathered) -> dict[str, np.ndarray]:
    parts = [_condition_obs(gathered, made) for made in gathered.folds]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Name -> values of all folds, for the names that every fold has."""
    shared = [n for n in parts[0] if all(n in part for part in parts)]
    return {n: np.concatenate([part[n] for part in parts]) for n in shared}


def _means(parts: Sequence[Mapping[str, np.ndarray]], gathered: Gathered) -> dict[str, Any]:
    rows = np.concatenate([made.rows for made in gathered.folds])
    return {n: average(v, rows, gathered.data.context_codes[rows]) for n, v in _joined(parts).items()}
