"""Tables of vectors in text form, and what every reader of tables returns."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from embbench.core import UserError
from embbench.embeddings._knowledge import text_lines

if TYPE_CHECKING:
    import pandas as pd


class RawTable(NamedTuple):
    """Names (m,) and values of shape (m, d) as found, NaN where a number is missing; ``contexts`` (m,) or None."""

    names: list[str]
    matrix: np.ndarray
    contexts: list[str] | None = None


def numbers(path: Path, values: Any) -> np.ndarray:
    """``values`` as a floating-point matrix of shape (m, d).

    Raises
    ------
    UserError
        Not numeric, ragged, or not two-dimensional.
    """
    try:
        array = np.asarray(values)
        array = array if array.dtype.kind == "f" else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: expected numbers in vectors of one length, found: {error}") from error
    if array.ndim != 2:
        raise UserError(f"{path}: expected a matrix (names, width), found shape {array.shape}; name it with key=")
    return array


def texts(values: Any) -> list[str]:
    """Strings of an array of str, bytes or numbers.

    Examples
    --------
    >>> texts(np.array([b"TP53", b"MYC"]))
    ['TP53', 'MYC']
    """
    return [value.decode() if isinstance(value, bytes) else str(value) for value in np.asarray(values).ravel().tolist()]


def frame_table(path: Path, frame: pd.DataFrame, key: str | None, names: str | None) -> RawTable:
    """A table whose index, or column ``names``, holds the names and whose other columns are numbers.

    Raises
    ------
    UserError
        A ``key``, an absent column, or columns of text.
    """
    if key is not None:
        raise UserError(f"{path}: key={key!r} is for files of several arrays; this one is a single table, leave it out")
    if names is not None:
        if names not in frame:
            raise UserError(f"{path}: expected a column {names!r}, found {', '.join(map(str, frame.columns[:8]))}")
        frame = frame.set_index(names)
    wrong = [str(name) for name, kind in frame.dtypes.items() if getattr(kind, "kind", "O") not in "fiub"]
    if wrong or not len(frame.columns):
        found = f"text in {', '.join(wrong[:4])}" if wrong else "no other column"
        raise UserError(f"{path}: expected numbers beside the names, found {found}; drop or fix those columns")
    return RawTable(texts(frame.index), numbers(path, frame))


MISSING = frozenset(  # numbers
    ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "NULL", "null", "None")
)


def read_delimited(path: Path, key: str | None, names: str | None) -> RawTable:
    """Comma- or tab-separated text with one header line; names in column ``names`` or the first.

    Empty fields and NaN are missing numbers; names are kept as written (a gene may be called NA). A header with one
    field less than the rows (as R writes it) is accepted.

    Raises
    ------
    UserError
        Empty, ragged, or not numeric beside the names.
    """
    import pandas as pd

    lines = [line for line in text_lines(path) if line.strip()]
    if len(lines) < 2:
        raise UserError(f"{path}: expected a header line and one line per name, found {len(lines)} lines")
    separator = "\t" if "\t" in lines[0] else ","
    header = next(csv.reader(lines[:1], delimiter=separator))
    widths = [len(fields) for fields in csv.reader(lines[1:], delimiter=separator)]
    header = ["", *header] if widths[0] == len(header) + 1 else header
    for number, width in enumerate(widths, start=2):
        if width != len(header):
            raise UserError(f"{path}: ragged table, row {number} has {width} fields, expected {len(header)}")
    column = header[0] if names is None else names
    if column not in header or len(set(header)) != len(header):
        found = ", ".join(header[:8])
        raise UserError(f"{path}: expected unique column names, among them {column!r}, found {found}")
    try:
        body = io.StringIO("\n".join(lines[1:]))
        options = {"sep": separator, "names": header, "header": None, "index_col": False, "dtype": {column: str}}
        missing = {name: sorted(MISSING) for name in header if name != column}
        frame = pd.read_csv(body, keep_default_na=False, na_values=missing, **options)
    except ValueError as error:
        raise UserError(f"{path}: expected a table of numbers, found: {str(error).strip()}") from error
    return frame_table(path, frame, key, column)


def read_word2vec(path: Path, key: str | None, names: str | None) -> RawTable:
    """One ``name v1 ... vd`` per line, with an optional first line ``count width``.

    Raises
    ------
    UserError
        Ragged lines, text where numbers are expected, or a ``key`` or ``names``.
    """
    if key is not None or names is not None:
        raise UserError(f"{path}: word2vec text has one table; leave key={key!r} and names={names!r} out")
    words: list[str] = []
    rows: list[np.ndarray] = []
    for number, line in enumerate(text_lines(path), start=1):
        fields = line.split()
        if not fields or (number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields)):
            continue
        if rows and len(fields) != len(rows[0]) + 1:
            raise UserError(
                f"{path}, line {number}: expected a name and {len(rows[0])} numbers, found {len(fields)} fields"
            )
        try:
            rows.append(np.array(fields[1:], dtype=np.float32))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: expected 'name number number ...', found: {error}") from error
        words.append(fields[0])
    return RawTable(words, numbers(path, np.array(rows) if rows else np.empty((0, 0))))
