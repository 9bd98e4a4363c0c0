"""Small text files and tables as others write them: gzipped or not, commas or tabs, line ends of any system."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from pathlib import Path

from embbench.core.screen import UserError


def read_text(path: Path, what: str) -> str:
    """A text file, gzipped or not, with or without a byte order mark.

    Parameters
    ----------
    path : the file.
    what : what it should be, for the message: ``a table of folds``.

    Raises
    ------
    UserError
        It cannot be read as UTF-8, or its gzip stream is damaged.
    """
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"{path}: expected {what}, cannot be read: {error}") from error


def split_lines(text: str, path: Path, what: str, mark: str = ",") -> list[tuple[int, list[str]]]:
    r"""Fields of each line that is not blank, with the number of the line, counted from 1.

    Raises
    ------
    UserError
        A quote that never ends, or another thing that csv refuses.

    Examples
    --------
    >>> split_lines('a,"b,c"\r\n\r\nd,e', Path("t.csv"), "a table")
    [(1, ['a', 'b,c']), (3, ['d', 'e'])]
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    try:
        return [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except csv.Error as error:
        raise UserError(f"{path}: expected {what}, line {reader.line_num} cannot be read: {error}") from error


def read_table(path: Path, what: str) -> tuple[list[str], list[list[str]]]:
    """Header (without blanks around its names) and lines of a tab- or comma-separated table.

    Raises
    ------
    UserError
        See `read_text` and `split_lines`; no lines, or a line of another length than the header.
    """
    text = read_text(path, what)
    found = split_lines(text, path, what, "\t" if "\t" in text.lstrip("\r\n").partition("\n")[0] else ",")
    if len(found) < 2:
        raise UserError(f"{path}: expected {what}: a header and lines, found {len(found)} of them")
    (_, names), *rows = found
    if odd := [(number, len(row)) for number, row in rows if len(row) != len(names)]:
        raise UserError(
            f"{path}: expected {len(names)} fields per line, found {odd[0][1]} in line {odd[0][0]}; mend the line"
        )
    return [name.strip() for name in names], [row for _, row in rows]
