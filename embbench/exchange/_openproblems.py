"""Predictions as openproblems' task_perturbation_prediction reads them (``src/api/file_prediction.yaml``).

A file has the layer ``prediction``, observations named by the ids of ``id_map.csv`` in its order, genes as ``var``, and
``dataset_id`` and ``method_id`` in ``uns``; nothing else.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from embbench.cache.store import replacing
from embbench.core import UserError
from embbench.exchange.predictions import Gathered, Names, Written, place_of, save

COLUMNS = ("id", "cell_type", "sm_name")
SCORED = "clipped_sign_log10_pval"  # the layer of the truth that the task scores against


def write_openproblems(gathered: Gathered, out: Path, names: Names) -> Written:
    """``<fold>/prediction.h5ad`` and its ``id_map.csv``; with an id map of one's own a single ``prediction.h5ad``.

    Parameters
    ----------
    gathered : the predictions; of cells their mean effects are written.
    out : folder.
    names : ``id_map`` is the task's own file; its order is followed.

    Raises
    ------
    UserError
        The id map lacks a column, repeats an id, or asks for what is not predicted, or is predicted more than once.
    """
    notes, files = _limits(gathered), []
    if names.id_map is not None:
        asked = read_map(names.id_map)
        values, left = _ordered(gathered, asked, names.id_map)
        files.append(_save(gathered, values, [line["id"] for line in asked], out / "prediction.h5ad"))
        notes += [f"{left} predicted conditions are not in {names.id_map.name} and left out"] if left else []
        return Written(tuple(files), tuple(notes))
    for made in gathered.folds:
        pairs = [(gathered.data.context[i], "+".join(gathered.data.entities[i])) for i in made.rows]
        lines = [{"id": str(k), "cell_type": str(c), "sm_name": p} for k, (c, p) in enumerate(pairs)]
        folder = out / place_of(gathered, made)
        ids = [line["id"] for line in lines]
        files.append(_save(gathered, gathered.effects(made), ids, folder / "prediction.h5ad"))
        with replacing(folder / "id_map.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        files.append(folder / "id_map.csv")
        if repeats := len(pairs) - len(set(pairs)):
            notes.append(f"{made.fold}: {repeats} lines of id_map.csv repeat a pair, for the format holds no dose")
    return Written(tuple(files), tuple(notes))


def _limits(gathered: Gathered) -> list[str]:
    """What the format cannot hold."""
    lost = ["truth", "coverage", "folds", "ceilings", "scores"]
    lost += ["doses"] if gathered.data.dose is not None else []
    lost += ["cells (their mean effects are written)"] if gathered.cells else []
    sets = sum(len(gathered.data.entities[i]) > 1 for made in gathered.folds for i in made.rows)
    lost += [f"sets of perturbations ({sets} are written as names A+B)"] if sets else []
    missed = sum(int((~made.covered).sum()) for made in gathered.folds)
    return [
        "not in the files: " + ", ".join(lost),
        f"the task scores {SCORED}; these are {gathered.data.unit} effects, and are comparable with its leaderboard "
        "only if the screen's effects were those values",
        *([f"{missed} conditions are the fallback (context mean), which the file cannot say"] if missed else []),
    ]


def read_map(path: Path) -> list[dict[str, str]]:
    """Lines of an id map, each with id, cell_type and sm_name.

    Raises
    ------
    UserError
        It cannot be read, lacks a column or repeats an id.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--id-map {path}: cannot be read as CSV: {error}") from error
    found = list(lines[0]) if lines else []
    if absent := [name for name in COLUMNS if name not in found]:
        raise UserError(
            f"--id-map {path}: expected columns {', '.join(COLUMNS)}, found {', '.join(found) or 'no line'} (no "
            f"{', '.join(absent)})"
        )
    if repeats := len(lines) - len({line["id"] for line in lines}):
        raise UserError(f"--id-map {path}: ids must be unique, found {repeats} repeats")
    if short := [line["id"] for line in lines if any(line[name] is None for name in COLUMNS)]:
        raise UserError(f"--id-map {path}: expected {len(found)} cells in every line, found fewer for id {short[0]!r}")
    return lines


def _ordered(gathered: Gathered, asked: list[dict[str, str]], path: Path) -> tuple[np.ndarray, int]:
    """Predictions in the order of the id map, and how many it does not ask for."""
    where: dict[tuple[str, str], list[tuple[int, int]]] = {}
    effects = [gathered.effects(made) for made in gathered.folds]
    for f, made in enumerate(gathered.folds):
        for k, i in enumerate(made.rows.tolist()):
            pair = (str(gathered.data.context[i]), "+".join(gathered.data.entities[i]))
            where.setdefault(pair, []).append((f, k))
    pairs = [(line["cell_type"], line["sm_name"]) for line in asked]
    if absent := [p for p in pairs if p not in where]:
        raise UserError(
            f"--id-map {path}: {len(absent)} of {len(pairs)} lines are not predicted, e.g. {absent[0][1]!r} in "
            f"{absent[0][0]!r}; the test rows of the folds must hold them all"
        )
    if several := [p for p in pairs if len(where[p]) > 1]:
        raise UserError(
            f"--id-map {path}: {len(several)} lines are predicted more than once (folds or doses), e.g. "
            f"{several[0][1]!r} in {several[0][0]!r}; name one fold with --fold, or export without --id-map"
        )
    return np.stack([effects[f][k] for (f, k) in (where[p][0] for p in pairs)]), len(where) - len(set(pairs))


def _save(gathered: Gathered, values: np.ndarray, ids: list[str], path: Path) -> Path:
    import anndata
    import pandas as pd

    index = pd.Index([str(i) for i in ids], name="id")
    var = pd.DataFrame(index=gathered.data.genes.astype(str))
    uns: dict[str, Any] = {"dataset_id": gathered.run.dataset, "method_id": gathered.method}
    layers = {"prediction": values.astype(np.float64)}
    return save(anndata.AnnData(obs=pd.DataFrame(index=index), var=var, layers=layers, uns=uns), path)
