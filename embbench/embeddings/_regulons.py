"""Tables of regulators and targets as CollecTRI, DoRothEA and SCENIC write them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embbench.core import UserError
from embbench.embeddings._knowledge import text_lines

if TYPE_CHECKING:
    import pandas as pd

SOURCES = ("source", "tf", "TF", "regulator", "source_genesymbol")
TARGETS = ("target", "gene", "target_genesymbol")
STRENGTHS = ("weight", "importance", "mor")
SIGN = "mor"


class RegulonTable(NamedTuple):
    """Names of regulators and targets of every edge, and its signed strength (edges,), float64, finite, not 0.

    ``silent`` counts rows that were left out: without a regulator, a target or a strength other than 0.
    """

    source: list[str]
    target: list[str]
    strength: np.ndarray
    silent: int


def read_regulons(path: Path, weight: str | None = None, confidence: Sequence[str] | None = None) -> RegulonTable:
    """Edges of a table with a header line; edges of strength 0 say nothing and are left out.

    Parameters
    ----------
    path : TSV or CSV, plain or gzip.
    weight : column of the strength; None takes the first of `STRENGTHS` there is, else 1.
    confidence : levels of the column ``confidence`` to keep; None takes all.

    Raises
    ------
    UserError
        Unreadable, rows longer than the header, without a column that is needed, a strength that is no number, a level
        that does not occur.
    """
    table = _table(path)
    source, target = (_column(path, table, names) for names in (SOURCES, TARGETS))
    rows = len(table)
    table = table[(table[source].str.strip() != "") & (table[target].str.strip() != "")]
    nameless = rows - len(table)
    if confidence is not None:
        table = _confident(path, table, confidence)
    strength = _strength(path, table, weight)
    kept = strength != 0
    if not kept.any():
        raise UserError(f"{path}: expected regulators and targets, found no edge of a strength other than 0")
    ends = [table.loc[kept, column].str.strip().tolist() for column in (source, target)]
    return RegulonTable(ends[0], ends[1], strength[kept], nameless + int((~kept).sum()))


def _one_more(line: str, head: str, separator: str) -> bool:
    return line.endswith(separator) and line.count(separator) == head.count(separator) + 1


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd

    lines = [line for line in text_lines(path) if line.strip()]
    separator = "\t" if lines and "\t" in lines[0] else ","
    # a separator at the end of every row is no field; pandas 3 takes it for one
    lines = [line[:-1] if _one_more(line, lines[0], separator) else line for line in lines]
    try:
        with warnings.catch_warnings():
            # pandas would take the first field of longer rows for an index, or cut them: every column shifts
            warnings.simplefilter("error", pd.errors.ParserWarning)
            body = io.StringIO("\n".join(lines))
            return pd.read_csv(body, sep=separator, dtype=str, na_filter=False, index_col=False)
    except (ValueError, pd.errors.ParserWarning) as error:
        raise UserError(f"{path}: expected a table of regulators and targets, found: {str(error).strip()}") from error


def _column(path: Path, table: pd.DataFrame, names: Sequence[str]) -> str:
    found = [name for name in names if name in table]
    if not found:
        raise UserError(f"{path}: expected a column {' or '.join(names)}, found {', '.join(map(str, table.columns))}")
    return found[0]


def _confident(path: Path, table: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    if "confidence" not in table:
        raise UserError(
            f"{path}: confidence={list(levels)} needs a column confidence, found {', '.join(map(str, table.columns))}"
        )
    if unknown := set(levels) - set(table["confidence"]):
        found = ", ".join(sorted(set(table["confidence"])))
        raise UserError(f"{path}: no edge has confidence {sorted(unknown)}, found {found}")
    return table[table["confidence"].isin(list(levels))]


def _strength(path: Path, table: pd.DataFrame, weight: str | None) -> np.ndarray:
    if weight is not None and weight not in table:
        raise UserError(
            f"{path}: expected a column {weight!r} of strengths, found {', '.join(map(str, table.columns))}"
        )
    column = weight or next((name for name in STRENGTHS if name in table), None)
    if column is None:
        return np.ones(len(table))
    strength = _numbers(path, table[column])
    if column != SIGN and SIGN in table and (strength >= 0).all():
        return strength * np.sign(_numbers(path, table[SIGN]))
    return strength


def _numbers(path: Path, column: pd.Series) -> np.ndarray:
    import pandas as pd

    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        found = column.iloc[bad[0]]
        raise UserError(f"{path}: expected numbers in column {column.name!r}, found {found!r} ({len(bad)} such rows)")
    return values
