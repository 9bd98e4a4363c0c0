"""Published text: tables, and counts with one line per value, packed or not, read piece by piece."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from embbench.core import UserError

LINES = 1 << 21  # lines of text read at once
Pieces = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]


def open_text(path: Path) -> IO[bytes]:
    """A file, unpacked as it is read when it begins as gzip does (mirrors keep ``.gz`` names of unpacked files)."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]


def lines_of(file: IO[bytes], where: str) -> Pieces:
    """Three whole numbers a line, any white space between them, as arrays of shape (k,): int64, int64, float64.

    Raises
    ------
    UserError
        A line has other than three finite numbers, or the file breaks off.
    """
    import pandas as pd

    kinds = {0: np.int64, 1: np.int64, 2: np.float64}
    try:
        for frame in pd.read_csv(file, sep=r"\s+", header=None, dtype=kinds, chunksize=LINES, index_col=False):
            if frame.shape[1] != 3:
                raise UserError(f"{where}: expected three numbers a line, found {frame.shape[1]} columns")
            if not (finite := np.isfinite(frame[2].to_numpy())).all():
                first = int(frame.index[np.flatnonzero(~finite)[0]]) + 1
                raise UserError(
                    f"{where}: expected three numbers a line, found no count in value {first:,} "
                    f"({int((~finite).sum()):,} such lines); fetch or convert the file again"
                )
            yield frame[0].to_numpy(), frame[1].to_numpy(), frame[2].to_numpy()
    except pd.errors.EmptyDataError as error:
        raise UserError(
            f"{where}: expected lines of three numbers, found none; the file is empty or cut off"
        ) from error
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where}: expected three numbers a line ({_first(error)}); fetch the file again") from error


def matrix_market(path: Path) -> tuple[int, int, Callable[[], Pieces]]:
    """Rows, columns and values (from 0) of a Matrix Market file of coordinates, packed or not.

    Raises
    ------
    UserError
        It is no such file; when read: it holds another number of values than it says.

    References
    ----------
    Boisvert, Pozo and Remington (1996), The Matrix Market Exchange Formats, NIST IR 5935.
    """
    with open_text(path) as file:
        rows, columns, stored = _sizes(file, path)

    def pieces() -> Pieces:
        done = 0
        with open_text(path) as file:
            _sizes(file, path)
            for a, b, values in lines_of(file, path.name):
                done += len(a)
                yield a - 1, b - 1, values
        if done != stored:
            raise UserError(
                f"{path.name}: expected {stored:,} values, as its header says, found {done:,}: it is cut off"
            )

    return rows, columns, pieces


def _sizes(file: IO[bytes], path: Path) -> tuple[int, int, int]:
    """The numbers of the size line, the file left just behind it."""
    try:
        head = file.readline(1024).decode("ascii", "replace").split()
        line = file.readline(1 << 16)
        while line.startswith(b"%") or (line and not line.strip()):
            line = file.readline(1 << 16)
        sizes = [int(word) for word in line.split()]
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path.name}: not a Matrix Market file ({_first(error)}); fetch or convert it again"
        ) from error
    good = head[:3] == ["%%MatrixMarket", "matrix", "coordinate"] and head[3:] in (
        ["integer", "general"],
        ["real", "general"],
    )
    if not good or len(sizes) != 3:
        raise UserError(
            f"{path.name}: expected '%%MatrixMarket matrix coordinate integer general' and a line of three sizes, "
            f"found {' '.join(head)[:60]!r} and {line[:40]!r}; convert the object again"
        )
    return sizes[0], sizes[1], sizes[2]


def read_table(path: Path, missing: str = "NA", **how: Any) -> dict[str, np.ndarray]:
    """A text table, packed or not, as columns of objects of str, shape (m,), '' where missing.

    Parameters
    ----------
    missing : what the table writes where a value is missing.
    how : for `pandas.read_csv`, e.g. ``sep``. A column of row names without a header (as R writes it) is ``_index``.

    Raises
    ------
    UserError
        It cannot be read.
    """
    import pandas as pd

    try:
        with open_text(path) as file:
            frame = pd.read_csv(file, dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig", **how)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path.name}: cannot be read as a table ({_first(error)}); fetch it again") from error
    out = {} if isinstance(frame.index, pd.RangeIndex) else {"_index": frame.index.astype(str).to_numpy(dtype=object)}
    for name in frame.columns:
        values = frame[name].astype(str).str.strip().to_numpy(dtype=object)
        out[str(name)] = np.where(values == missing, "", values)
    return out


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
