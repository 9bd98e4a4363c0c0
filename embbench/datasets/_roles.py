"""Published splits by cell: a role per cell becomes a role per condition, and what does not fit is said."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embbench.core import UserError
from embbench.datasets._h5ad import describe, first_line

ROLES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
NO_ROLE = ("", "nan", "none", "na", "<na>")
NAMES = ("train", "val", "test")
OF_CELLS = ("", "index", "_index", "cell", "cells", "cell_id", "cell_name", "barcode", "cell_barcode", "obs_names")
OF_ROLES = ("split", "splits", "role", "roles", "set", "subset", "fold", "partition")
MAGIC = {b"\x1f\x8b": "a gzip file", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a zip archive"}

_AGAIN = "; remove the file and fetch it again (embbench data fetch)"


@dataclass(frozen=True)
class Groups:
    """Conditions of cells: ``codes`` of shape (m,), an index into ``names``, `CONTROL`, or `NONE`."""

    codes: np.ndarray
    names: list[str]

    CONTROL = -1
    NONE = -2


@dataclass(frozen=True)
class Roles:
    """A split by cells.

    Parameters
    ----------
    name : of the file.
    roles : cell name -> ``train``, ``val``, ``test`` or ''.
    header : the first line, where it was taken for the names of the columns.
    """

    name: str
    roles: Mapping[str, str]
    header: str = ""

    @classmethod
    def read(cls, path: Path) -> Roles:
        """From a CSV (UTF-8) of cell name and role, without header; a blank role means none.

        A first line is a header, and passed over, where it names columns: its second field is a word like ``split``, or
        its first is empty or a word like ``cell``.

        Raises
        ------
        UserError
            The file is no such text, a role is none, a cell is named twice, or there is no line.
        """
        roles: dict[str, str] = {}
        header = ""
        for number, row in _lines(path):
            told = row[1].strip().lower() if len(row) > 1 else ""
            if told not in ROLES and told not in NO_ROLE:
                if not roles and not header and (told in OF_ROLES or row[0].strip().lower() in OF_CELLS):
                    header = ",".join(row)
                    continue
                raise UserError(
                    f"{path.name}: line {number}: expected train, val, test or nothing after the cell's name, "
                    f"found {row[1]!r}{_AGAIN}"
                )
            if row[0] in roles:
                raise UserError(f"{path.name}: line {number}: the cell {row[0]!r} is named twice{_AGAIN}")
            roles[row[0]] = ROLES.get(told, "")
        if not roles:
            raise UserError(f"{path.name}: expected lines of cell name and role, found none{_AGAIN}")
        return cls(path.name, roles, header)

    def told(self) -> str:
        """Its cells by role, for messages.

        Examples
        --------
        >>> Roles("split.csv", {"cell1": "train", "cell2": ""}).told()
        '2 cells (1 train, 0 val, 0 test)'
        """
        counts = Counter(self.roles.values())
        return f"{len(self.roles):,} cells (" + ", ".join(f"{counts[role]:,} {role}" for role in NAMES) + ")"

    def of_conditions(self, cells: np.ndarray, groups: Groups, column_name: str) -> tuple[np.ndarray, list[str]]:
        """Role of every cell's condition, shape (m,), objects of str, and what to say of it.

        Parameters
        ----------
        cells : names, shape (m,).
        groups : their conditions.
        column_name : what the covariate is called.

        Raises
        ------
        UserError
            No cell is in the file: the split is of another screen.
        """
        place = {"": -1, **{role: i for i, role in enumerate(NAMES)}}
        codes = np.array([place[self.roles.get(cell, "")] for cell in cells.tolist()], dtype=np.int64)
        strange = len(self.roles.keys() - set(cells.tolist()))
        if strange == len(self.roles):
            raise UserError(
                f"{self.name}: none of its {strange:,} cells ({describe(list(self.roles))}) is in the screen "
                f"({describe(cells)}); the split is of another version of the file"
            )
        seen = np.zeros((len(groups.names), len(NAMES)), dtype=bool)
        used = (groups.codes >= 0) & (codes >= 0)
        seen[groups.codes[used], codes[used]] = True
        several = np.flatnonzero(seen.sum(axis=1) > 1)
        role = np.where(seen.sum(axis=1) == 1, seen.argmax(axis=1), -1)
        own = np.append(role, -1)[np.where(groups.codes < 0, len(role), groups.codes)]
        counts = np.bincount(role[role >= 0], minlength=len(NAMES))
        lines = [
            f"{column_name} ({self.name}): conditions "
            + ", ".join(f"{n} {name}" for n, name in zip(counts, NAMES, strict=True))
        ]
        if self.header:
            lines.append(f"{column_name}: the first line of {self.name} names columns, passed over: {self.header}")
        mixed = describe([groups.names[i] for i in several])
        controls = np.bincount(codes[(groups.codes == Groups.CONTROL) & (codes >= 0)], minlength=len(NAMES))
        spread = ", ".join(f"{n:,} {name}" for n, name in zip(controls, NAMES, strict=True))
        for number, text in (
            (len(several), f"conditions whose cells have several roles, in no fold ({mixed})"),
            (int(((own >= 0) & (codes < 0)).sum()), "cells without a role of their own, which follow their condition"),
            (strange, "cells of the split that the screen does not have"),
            (int(controls.sum()), f"roles of control cells, not used ({spread})"),
        ):
            if number:
                lines.append(f"{column_name}: {text}: {number:,}")
        return np.array(["", *NAMES], dtype=object)[own + 1], lines


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbers of the lines that are not empty, from 1, and their fields; `UserError`: it is not a CSV in UTF-8."""
    number = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)  # else a quote that never ends takes all cells after it for one
            for row in reader:
                number = reader.line_num
                if row:
                    yield number, row
    except (UnicodeDecodeError, csv.Error) as error:
        with path.open("rb") as binary:
            start = binary.read(2)
        found = MAGIC.get(start, f"other bytes after line {number} ({first_line(error)})")
        raise UserError(f"{path.name}: expected lines of cell name and role in UTF-8, found {found}{_AGAIN}") from error
