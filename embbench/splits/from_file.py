"""A split from a file: a table of conditions and their roles, as `embbench splits import` writes it."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from embbench.core import Fold, PerturbationDataset, Split, UserError
from embbench.core.tables import read_table
from embbench.splits._units import unseen_units

ROLES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
UNUSED = ("", "nan", "none", "<na>")
KEYS = ("condition", "context", "dose")
FOLD, GROUP = "fold:", "group:"  # what the headers of role and group columns begin with
SHOWN = 3

Key = tuple[str, str, str]  # perturbations joined by +, context, dose


class FromFile:
    """Folds read from a tab- or comma-separated table with a line per condition.

    Columns are ``condition`` (perturbations joined by ``+``, in any order), ``context`` and ``dose`` where the screen
    has several, and one column of ``train`` / ``val`` / ``test`` per fold, headed ``fold:NAME`` (where no header begins
    so, every other column is a fold). Conditions with an empty cell are in no part of that fold. ``group:NAME`` labels
    test rows for separate reporting. A table without ``context`` or ``dose`` speaks of all of them. Rows are found by
    these labels, never by their number; lines that the screen lacks, and rows that have no line, are warned of.

    Parameters
    ----------
    path : the table, may be gzipped; ValueError when empty.

    Examples
    --------
    >>> FromFile("folds.tsv").files()
    (PosixPath('folds.tsv'),)
    """

    def __init__(self, path: str) -> None:
        if not isinstance(path, str) or not path:
            raise ValueError(f"file: path must name a table of folds, got {path!r}")
        self.path = path

    def files(self) -> tuple[Path, ...]:
        """The table."""
        return (Path(self.path).expanduser(),)

    def split(self, data: PerturbationDataset) -> Split:
        """The folds of the table; effects are never read.

        Raises
        ------
        UserError
            No such file, not such a table, an unknown role, several roles of one row, no training or no test rows, rows
            tested in several folds, or rows of the screen that the labels do not tell apart.
        """
        header, lines = self._table()
        rows = self._rows(data, header, lines)
        folds = [self._fold(data, header, lines, rows, name) for name in _fold_columns(header)]
        tested = Counter(i for fold in folds for i in fold.test.tolist())
        if twice := sum(n > 1 for n in tested.values()):
            raise UserError(
                f"{self.path}: expected every row to be tested in one fold, found {twice} rows tested in several; "
                "keep folds that overlap in files of their own"
            )
        return Split("given", tuple(folds), unseen_units(data, folds))

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Header and lines."""
        path = self.files()[0]
        header, lines = read_table(path, "a table of folds")
        if "condition" not in header or not _fold_columns(header) or len(set(header)) < len(header):
            raise UserError(
                f"{path}: expected a header with distinct names, condition and a column per fold among them, found "
                f"{', '.join(header[:6]) or 'nothing'}; embbench splits import makes such a table"
            )
        return header, lines

    def _rows(self, data: PerturbationDataset, header: list[str], lines: list[list[str]]) -> list[list[int]]:
        """Row numbers that each line speaks of."""
        known = [name for name in KEYS if name in header]
        where: dict[Key, list[int]] = {}
        for i, key in enumerate(_keys(data)):
            where.setdefault(_masked(key, known), []).append(i)
        full = Counter(_keys(data))
        if (same := len(data) - len(full)) > 0:
            raise UserError(
                f"dataset {data.name!r}: expected conditions with labels of their own, found {same} that share theirs "
                "with another; a table of folds cannot tell them apart"
            )
        out = []
        for line in lines:
            told = dict(zip(header, line, strict=True))
            context, dose = told.get("context", ""), dose_text(told.get("dose", ""))
            name = told["condition"].strip()
            ordered = "+".join(sorted(part.strip() for part in name.split("+")))
            keys = [_masked((n, c, dose), known) for c in (context, context.strip()) for n in (name, ordered)]
            out.append(next((where[key] for key in keys if key in where), []))
        self._warn(data, header, lines, out)
        return out

    def _warn(
        self, data: PerturbationDataset, header: list[str], lines: list[list[str]], rows: list[list[int]]
    ) -> None:
        """Say what does not meet."""
        at = header.index("condition")
        absent = [line[at] for line, found in zip(lines, rows, strict=True) if not found]
        silent = sorted(set(range(len(data))) - {i for found in rows for i in found})
        conditions = data.conditions
        for found, what in (
            (absent, f"line(s) name conditions that dataset {data.name!r} lacks"),
            ([f"{conditions[i]} in {data.context[i]}" for i in silent], "condition(s) have no line and are in no fold"),
        ):
            if found:
                more = ", ..." if len(found) > SHOWN else ""
                warnings.warn(f"{self.path}: {len(found)} {what} ({', '.join(found[:SHOWN])}{more})", stacklevel=2)

    def _fold(
        self, data: PerturbationDataset, header: list[str], lines: list[list[str]], rows: list[list[int]], column: str
    ) -> Fold:
        """One fold."""
        name = column.removeprefix(FOLD)
        at, marked = header.index(column), f"{GROUP}{name}"
        group = header.index(marked) if marked in header else None
        role: dict[int, str] = {}
        groups: dict[int, str] = {}
        for number, (line, found) in enumerate(zip(lines, rows, strict=True), 2):
            told = line[at].strip().lower()
            if told not in ROLES and told not in UNUSED:
                raise UserError(
                    f"{self.path}: line {number}: expected train, val, test or nothing in {column}, found {told!r}"
                )
            for i in found:
                if role.setdefault(i, ROLES.get(told, "")) != ROLES.get(told, ""):
                    raise UserError(
                        f"{self.path}: {data.conditions[i]} in {data.context[i]} has several roles in {column}; "
                        "give it one, or name its context and dose"
                    )
                groups[i] = line[group].strip() if group is not None else ""
        train, validation, test = (
            np.array(sorted(i for i, r in role.items() if r == part), dtype=np.int64)
            for part in ("train", "validation", "test")
        )
        if not len(train) or not len(test):
            raise UserError(
                f"{self.path}: fold {name} has {len(train)} training and {len(test)} test rows in dataset "
                f"{data.name!r}; expected at least one of each"
            )
        labels = np.array([groups[i] for i in test.tolist()]) if any(groups.values()) else None
        return Fold(name, train, test, validation, labels)


def _fold_columns(header: list[str]) -> list[str]:
    """Headers of role columns."""
    return [n for n in header if n.startswith(FOLD)] or [n for n in header if n not in KEYS and not n.startswith(GROUP)]


def _masked(key: Key, known: list[str]) -> Key:
    """The key without what the table has no column for."""
    condition, context, dose = (part if name in known else "" for name, part in zip(KEYS, key, strict=True))
    return condition, context, dose


def _keys(data: PerturbationDataset) -> list[Key]:
    """Labels of each row."""
    doses = [""] * len(data) if data.dose is None else [dose_text(d) for d in data.dose.tolist()]
    names = ["+".join(entities) for entities in data.entities]
    return list(zip(names, [str(c) for c in data.context.tolist()], doses, strict=True))


def dose_text(value: object) -> str:
    """A dose to six digits, so that 0.1 is itself in any precision; nothing for a missing one.

    Examples
    --------
    >>> [dose_text(d) for d in (np.float32(0.1), "1e3", "", float("nan"), "high")]
    ['0.1', '1000', '', '', 'high']
    """
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return "" if np.isnan(number) else f"{number:.6g}"
