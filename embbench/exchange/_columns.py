"""Splits as columns of a table of conditions: the form that `file:` reads, and columns as papers publish them.

Published forms: one column of train, val and test; one of fold numbers (``test_split``, 0 to 4: the fold that tests a
row); or one column per fold that says ``test`` (``fold_0`` ...).
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from embbench.core import PerturbationDataset, UserError
from embbench.core.tables import read_table
from embbench.exchange._roles import (
    BLANK,
    NAMES,
    TEST,
    TRAIN,
    UNUSED,
    Labels,
    Options,
    Roles,
    counted,
    left_out,
    one_each,
    shown,
)

SUFFIX = ".tsv"
FOLD, GROUP = "fold:", "group:"
CONDITION = ("condition", "perturbation", "pert", "pert_id", "symbol", "gene", "gene_id", "drug", "target")
CONTEXT = ("context", "cell_line", "cell_type", "line", "celltype")
DOSE = ("dose", "dose_val", "dose_value", "concentration")
NAMED = re.compile(r"(?:.*[_ .-])?(?:folds?|splits?)(?:[_ ]?\d+)?", re.IGNORECASE)  # test_split, fold, not fold_change
NEAR = re.compile("fold|split", re.IGNORECASE)
NUMBER = re.compile(r"(?:fold[ _-]?)?(\d{1,6})(?:\.0)?", re.ASCII)


def table(data: PerturbationDataset, folds: list[Roles]) -> bytes:
    """The portable table: condition, context, dose, then ``fold:NAME``, and ``group:NAME`` where test rows have groups.

    Raises
    ------
    UserError
        Conditions that share their labels: a table could not tell them apart.
    """
    doses = [""] * len(data) if data.dose is None else [f"{d:.6g}" if np.isfinite(d) else "" for d in data.dose]
    keys = list(zip(("+".join(e) for e in data.entities), map(str, data.context.tolist()), doses, strict=True))
    if same := [" in ".join(key[:2]) for key, number in Counter(keys).items() if number > 1]:
        raise UserError(
            f"dataset {data.name!r}: expected conditions with labels of their own, found {len(same)} labels of several "
            f"({shown(same)}); a table of folds cannot tell them apart"
        )
    columns: list[tuple[str, np.ndarray]] = []
    for fold in folds:
        columns.append((f"{FOLD}{fold.name}", fold.role))
        columns += [(f"{GROUP}{fold.name}", fold.groups)] if fold.groups is not None else []
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(["condition", "context", "dose", *(name for name, _ in columns)])
    writer.writerows([*key, *(values[i] for _, values in columns)] for i, key in enumerate(keys))
    return out.getvalue().encode()


def is_table(header: list[str]) -> bool:
    """Whether a header names conditions."""
    return any(name.strip().lower() in CONDITION for name in header)


def read(path: Path, data: PerturbationDataset, options: Options) -> tuple[list[Roles], list[str]]:
    """The folds of a table, and what did not meet.

    Raises
    ------
    UserError
        No column of conditions or of roles, a column of ``options.columns`` that is absent or holds neither roles nor
        fold numbers, a line of another length, or several roles of one condition.
    """
    header, lines = read_table(path, "a table of folds")
    if absent := [name for name in options.columns if name not in header]:
        raise UserError(f"{path}: no column {shown(absent)}; columns: {', '.join(header)}")
    keys = {
        part: next((i for name in names for i, h in enumerate(header) if h.lower() == name), None)
        for part, names in (("condition", CONDITION), ("context", CONTEXT), ("dose", DOSE))
    }
    if keys["condition"] is None:
        raise UserError(
            f"{path}: expected a column of conditions ({', '.join(CONDITION)}), found {', '.join(header[:8])}; "
            "rename it"
        )
    rows, notes = _rows(path, data, options, lines, keys)
    taken = {i for i in keys.values() if i is not None}
    folds: list[Roles] = []
    odd: list[str] = []
    used: list[str] = []
    for at, name in enumerate(header):
        values = [line[at].strip() for line in lines]
        if (at in taken or name.startswith(GROUP)) and name not in options.columns:
            continue
        if not _is_fold(values, name, options.columns):
            odd += [f"{name} with {shown(set(values))}"] if NEAR.search(name) or name in options.columns else []
            continue
        made, more = _folds(path, data, name, values, rows)
        folds, used = [*folds, *made], [*used, name]
        notes += more
    if not folds or set(options.columns) - set(used):
        raise UserError(
            f"{path}: expected a column of train, val and test, or of fold numbers called fold or split, found "
            f"{'; '.join(odd) or 'none of them in ' + ', '.join(header[:8])}; name it by --column"
        )
    notes += [f"{path.name}: folds of column{'s' * (len(used) > 1)} {', '.join(used)}"]
    notes += [f"{path.name}: not read as folds: {'; '.join(odd)}"] if odd else []
    folds = [_with_groups(fold, header, lines, rows) for fold in folds]
    unused = np.all([fold.role == UNUSED for fold in folds], axis=0)
    return folds, notes + left_out(data, np.where(unused, UNUSED, TRAIN), path)


def _rows(
    path: Path, data: PerturbationDataset, options: Options, lines: list[list[str]], keys: dict[str, int | None]
) -> tuple[list[list[int]], list[str]]:
    """Rows that each line speaks of."""
    at, context, dose = keys["condition"], keys["context"], keys["dose"]
    found = Labels(data, options).find(line[at] for line in lines)  # type: ignore[index]
    dose = dose if data.dose is not None else None
    out, lacking = [], set()
    for line in lines:
        rows = found[line[at]]  # type: ignore[index]
        here = [
            i
            for i in rows or ()
            if (context is None or str(data.context[i]) in (line[context], line[context].strip()))
            and (dose is None or _same(line[dose], data.dose[i]))  # type: ignore[index]
        ]
        out.append(here)
        if not here and rows != []:
            lacking.add(" ".join(line[i] for i in (at, context, dose) if i is not None))
    if len(lacking) == len({tuple(line) for line in lines}):
        raise UserError(f"{path}: no line names a condition of dataset {data.name!r} ({shown(lacking)})")
    many = counted(len(lacking), "condition")
    return out, [f"{path.name}: {many} of the file not in the screen ({shown(lacking)})"] if lacking else []


def _same(text: str, dose: float) -> bool:
    """Whether a field is that dose, to six digits; an empty one is the missing dose."""
    try:
        told = float(text) if text.strip() else float("nan")
    except ValueError:
        return False
    return bool(np.isnan(told) and np.isnan(dose)) or f"{told:.6g}" == f"{dose:.6g}"


def _is_fold(values: list[str], name: str, asked: tuple[str, ...]) -> bool:
    """Whether a column holds roles, or fold numbers (``train``: in every fold) under a name that says so; with columns
    asked for by name, whether it is one of those.
    """
    used = {v.lower() for v in values} - set(BLANK)
    if not used or (asked and name not in asked):
        return False
    rest = {v for v in used if NAMES.get(v) != TRAIN}
    numbers = bool(rest) and all(NUMBER.fullmatch(v) for v in rest)
    return used <= set(NAMES) or (numbers and bool(asked or NAMED.fullmatch(name)))


def _folds(
    path: Path, data: PerturbationDataset, name: str, values: list[str], rows: list[list[int]]
) -> tuple[list[Roles], list[str]]:
    """The fold of a column of roles, or the folds of a column of numbers."""
    found: dict[int, set[str]] = defaultdict(set)
    number = {v: NUMBER.fullmatch(v.lower()) for v in set(values)}
    numbered = any(number.values())
    for value, here in zip(values, rows, strict=True):
        match = number[value]
        word = f"fold{int(match[1])}" if numbered and match else NAMES.get(value.lower(), UNUSED)
        for i in here:
            found[i].add(word)
    step = "give the file a column of contexts or doses, or mend it"
    told = one_each(found, data, f"{path}: column {name}", step)
    if not numbered:
        fold, notes = name.removeprefix(FOLD), []
        if TRAIN not in set(told.tolist()):
            seen = np.array([i in found for i in range(len(data))])
            told[(told == UNUSED) & seen] = TRAIN
            notes = [f"{path.name}: column {name} never says train: conditions without a role train"]
        return [Roles(fold, told)], notes
    folds = sorted(set(told.tolist()) - {UNUSED, TRAIN}, key=lambda k: int(k[4:]))
    return [
        Roles(k, np.where(told == k, TEST, np.where(told == UNUSED, UNUSED, TRAIN)).astype(object)) for k in folds
    ], []


def _with_groups(fold: Roles, header: list[str], lines: list[list[str]], rows: list[list[int]]) -> Roles:
    """The fold with the groups of its test rows, where the table has them."""
    if f"{GROUP}{fold.name}" not in header:
        return fold
    at, groups = header.index(f"{GROUP}{fold.name}"), np.full(len(fold.role), "", dtype=object)
    for line, here in zip(lines, rows, strict=True):
        groups[here] = line[at].strip()
    return Roles(fold.name, fold.role, groups if any(groups.tolist()) else None)
