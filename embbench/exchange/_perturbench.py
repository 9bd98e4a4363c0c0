"""PerturBench's saved split: a headerless CSV of cell and train, val or test; blank for unused cells.

Wu et al. (2024), PerturBench, arXiv:2408.10609; the file that its data splitter reads and writes.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from pathlib import Path

import numpy as np

from embbench.cache.cells import BOTH, CONTROL, A, H5Cells
from embbench.core import CellView, PerturbationDataset, UserError
from embbench.core.tables import split_lines
from embbench.exchange._roles import (
    NAMES,
    TEST,
    TRAIN,
    UNUSED,
    VAL,
    Options,
    Roles,
    counted,
    left_out,
    one_each,
    role_of,
    shown,
    text_of,
)

SUFFIX = ".csv"


def write(data: PerturbationDataset, fold: Roles, options: Options) -> tuple[dict[str, bytes], list[str]]:
    """The file's bytes by suffix, and what it does not hold.

    Every kept cell has a line: a perturbed cell the role of its condition, a control a role of its own, because
    PerturBench trains on and compares with the controls of each set.

    Raises
    ------
    UserError
        The screen has no single cells by name.
    """
    table = _cells(data)
    row = table["row"]
    roles = np.full(len(row), UNUSED, dtype=object)
    perturbed = row >= 0
    roles[perturbed] = fold.role[row[perturbed]]
    controls = np.flatnonzero(row == CONTROL)
    roles[controls] = _control_roles(table, controls, validation=bool((fold.role == VAL).any()))
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(zip(table["name"].tolist(), roles.tolist(), strict=True))
    notes = [
        f"{counted(len(controls), 'control cell')}: those of half A train, those of half B are dealt to "
        "val and test in turn, within each context (PerturBench draws them at random)",
        "cells that the import left out are not in the file",
    ]
    if unused := int((roles == UNUSED).sum()):
        notes.append(f"{counted(unused, 'cell')} of conditions in no set, written with a blank role")
    if fold.groups is not None:
        notes.append("groups of test rows are not held by this format")
    return {SUFFIX: out.getvalue().encode()}, notes


def _control_roles(table: dict[str, np.ndarray], controls: np.ndarray, *, validation: bool) -> np.ndarray:
    """Roles of control cells; where both halves are one, every other cell trains."""
    out = np.full(len(controls), TRAIN, dtype=object)
    context, half = table["context"][controls], table["half"][controls]
    held = (VAL, TEST) if validation else (TEST, TEST)
    for code in np.unique(context):
        own = np.flatnonzero((context == code) & (half != A))
        if (half[own] == BOTH).all():
            own = own[1::2]
        out[own[0::2]], out[own[1::2]] = held
    return out


def read(path: Path, data: PerturbationDataset, options: Options) -> tuple[list[Roles], list[str]]:
    """The fold of a saved split, and what did not meet.

    Raises
    ------
    UserError
        Not two columns, an unknown role, a cell with two roles, a condition whose cells have several, or no cell that
        the screen knows.
    """
    told = _lines(path)
    table = _cells(data)
    names = table["name"].tolist()
    found: dict[int, set[str]] = defaultdict(set)
    met = mixed = controls = 0
    for name, row in zip(names, table["row"].tolist(), strict=True):
        if name not in told:
            continue
        met += 1
        controls += row == CONTROL
        if row >= 0:
            found[row].add(told[name])
    if not met:
        raise UserError(
            f"{path}: expected names of the cells of dataset {data.name!r} such as {shown(names[:2])}, found none of "
            f"them ({shown(list(told)[:2])}); is it a split of another file?"
        )
    role = one_each(found, data, str(path), "PerturBench keeps a condition in one set: was the file made cell by cell?")
    mixed = sum(len(roles) > 1 for roles in found.values())
    notes = [
        f"{path.name}: {counted(met, 'cell')} of {len(names):,} found, {controls:,} of them controls (their roles are "
        "not used: halves of controls are the screen's own)"
    ]
    if absent := len(told) - met:
        notes.append(f"{path.name}: {counted(absent, 'cell')} of the file not in the screen (dropped at its import?)")
    if mixed:
        notes.append(f"{path.name}: {counted(mixed, 'condition')} with unused cells beside used ones; all cells count")
    return [Roles(path.name.partition(".")[0], role)], notes + left_out(data, role, path)


def _lines(path: Path) -> dict[str, str]:
    """Role of each cell; a first line whose second field is no role is a header."""
    told: dict[str, str] = {}
    for at, (number, fields) in enumerate(split_lines(text_of(path), path, "a split of PerturBench")):
        if not at and len(fields) == 2 and fields[1].strip().lower() not in ("", *NAMES):
            continue
        if len(fields) != 2:
            raise UserError(f"{path}: line {number}: expected cell,role, found {len(fields)} fields")
        role = role_of(fields[1], f"{path}: line {number}")
        if told.setdefault(fields[0], role) != role:
            raise UserError(f"{path}: line {number}: cell {fields[0]!r} has a second role; give each cell one")
    return told


def _cells(data: PerturbationDataset) -> dict[str, np.ndarray]:
    """The cells table with rows of ``data``: cells of rows that it does not have are dropped conditions' (-2)."""
    view = data.cells if isinstance(data.cells, CellView) else None
    cells = data.cells if view is None else view.source
    if not isinstance(cells, H5Cells):
        raise UserError(
            f"dataset {data.name!r}: splits by cell need the names of single cells, found none; import the screen with "
            "--cells all, or use another format"
        )
    table = cells.table()
    if view is not None:
        index = np.asarray(view.rows)
        where = np.full(int(max(table["row"].max(initial=0), index.max(initial=0))) + 1, CONTROL - 1)
        where[index] = np.arange(len(index))
        table["row"] = np.where(table["row"] >= 0, where[np.maximum(table["row"], 0)], table["row"])
    return table
