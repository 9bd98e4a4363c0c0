"""What a file of predictions covers of a split's test rows, and whether it was made for those folds at all."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from embbench.core import Fold, PerturbationDataset, Run, UserError
from embbench.exchange._align import ANY, Aligned
from embbench.exchange._read import Table
from embbench.exchange.predictions import mark_of

LEAK = "what the model was trained on cannot be checked: the folds only say what this split holds out"


def check_origin(table: Table, data: PerturbationDataset, base: Run, folds: Sequence[Fold]) -> list[str]:
    """Whether a file that embbench exported was predicted under these folds; returns what is to be said.

    Parameters
    ----------
    table : the file; those of others say nothing of their origin.
    data, base : the screen; dataset, split, genes and seed that were asked for.
    folds : those that are scored.

    Raises
    ------
    UserError
        It was predicted under other folds: what is a test row here may have been a training row.
    """
    told = table.origin
    if "dataset_digest" not in told:
        return [LEAK]
    same = told["dataset_digest"] == data.meta["digest"]
    try:
        marks = json.loads(told.get("marks", "null"))
    except (ValueError, RecursionError):
        marks = None
    if same and isinstance(marks, dict):
        own = {fold.name: mark_of(fold.train, fold.test) for fold in folds}
        other = [name for name in own if marks.get(name, own[name]) != own[name]] or (
            [] if own.keys() & marks else [*own]
        )
    else:
        asked = {"split": base.split, "seed": str(base.seed)}
        other = [f"{name} {value}" for name, value in asked.items() if told.get(name, value) != value]
    if other:
        raise UserError(
            f"{table.path}: predicted by embbench under --split {told.get('split')} --seed {told.get('seed')} (folds "
            f"{told.get('folds')}), asked for --split {base.split} --seed {base.seed}, which differs in "
            f"{', '.join(other[:5])}: test rows here may have been training rows there; score it with its own "
            "split and seed"
        )
    if same:
        return ["predicted by embbench under these folds"]
    if (genes := told.get("genes", base.genes)) != base.genes:
        return [f"the file was made with --genes {genes}, is scored with {base.genes}: not the scores of its own run"]
    return [
        f"the file was made on {told.get('dataset')} {told['dataset_digest'][:8]}, not on this screen "
        f"({data.meta['digest'][:8]}): whether its training rows are test rows here cannot be checked"
    ]


def key_of(found: Aligned, fold: str, row: int) -> tuple[str, int] | None:
    """Where the file holds its prediction of a row in a fold: for that fold, else for every fold."""
    return next((key for key in ((fold, row), (ANY, row)) if key in found.values), None)


def samples_of(found: Aligned, folds: Sequence[Fold], data: PerturbationDataset, notes: list[str]) -> int:
    """Cells that every condition gives: the smallest number among the test rows of the scored folds."""
    tested = [key_of(found, fold.name, row) for fold in folds for row in fold.test.tolist()]
    sizes = {key: len(found.values[key]) for key in tested if key is not None}
    if found.content != "cells" or not sizes:
        return Run("", "", "", "").samples
    fewest = min(sizes, key=sizes.__getitem__)
    if sizes[fewest] < max(sizes.values()):
        notes.append(
            f"conditions have {sizes[fewest]} to {max(sizes.values())} cells: {sizes[fewest]} of each are scored, as "
            f"many as of {data.conditions[fewest[1]]} in {data.context[fewest[1]]}"
        )
    return sizes[fewest]


def counts(found: Aligned, own: np.ndarray, rows: np.ndarray, data: PerturbationDataset) -> list[str]:
    """What the file lacks, and what it holds beside the test rows.

    Parameters
    ----------
    found : the file.
    own : (m,) bool, test rows with a prediction of their own.
    rows : (m,) their dataset rows.
    data : the screen.
    """
    notes = []
    tested = set(rows.tolist())
    if (~own).any():
        names = [f"{data.conditions[i]} in {data.context[i]}" for i in rows[~own][:3]]
        notes.append(
            f"{int((~own).sum())} of {len(own)} test conditions are not covered (fallback: context mean), e.g. "
            f"{', '.join(names)}"
        )
    if more := len({row for _, row in found.values} - tested):
        notes.append(f"{more} conditions of the file are in no scored test fold and are not used")
    if found.extra:
        notes.append(
            f"{len(found.extra)} conditions of the file are not in {data.name}, e.g. {', '.join(found.extra[:3])}"
        )
    return notes
