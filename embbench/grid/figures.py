"""Published figures as data: one file for each published table, read and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import UserError

if TYPE_CHECKING:
    from embbench.grid.config import Grid

ROW = frozenset(("name", "embedding", "head", "metric", "task", "dataset", "split", "values", "spread", "why", "note"))
FILE = frozenset(("title", "source", "task", "metric", "dataset", "split", "anchor", "tolerance", "rows"))


@dataclass(frozen=True)
class Figure:
    """One published number.

    Parameters
    ----------
    name : of the row, as published.
    head, embedding : our names of what made it; ``none`` for heads without.
    dataset, split : of the grid that it is compared with.
    context : ``all`` for a mean over contexts.
    metric : our name of the measure.
    value, spread : the number, and its standard deviation over folds (None where it is not known).
    task : of the source that it belongs to; numbers of two tasks are never compared.
    why : why it cannot be compared with any run of ours; empty when it can.
    note : what else to know where it is compared.
    """

    name: str
    head: str
    embedding: str
    dataset: str
    split: str
    context: str
    metric: str
    value: float
    spread: float | None = None
    task: str = ""
    why: str = ""
    note: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """A published table as its file says it.

    Parameters
    ----------
    title, source : what it is and where its numbers come from.
    task : the task that its figures are of.
    anchor : head without a fit (``no_change``) whose number depends on data and folds alone: where ours is not the
        published one within the relative ``tolerance``, the data are of another task and nothing is compared.
    figures : all numbers.
    """

    title: str
    source: str
    task: str
    figures: tuple[Figure, ...]
    anchor: str = "no_change"
    tolerance: float = 0.005

    @property
    def metrics(self) -> tuple[str, ...]:
        """Measures of the figures, in order."""
        return tuple(dict.fromkeys(f.metric for f in self.figures))


def published_table(grid: Grid, file: Path) -> PublishedTable:
    """The published table that a grid file names.

    Raises
    ------
    UserError
        It names none, or see `read_published`.
    """
    if not grid.published:
        raise UserError(
            f"grid {file}: names no published table; expected published: FILE (relative to the grid file), or run it "
            "with embbench grid"
        )
    return read_published(file.parent / grid.published, grid)


def read_published(path: Path, grid: Grid) -> PublishedTable:
    """A file of published figures; each row has ``values``, context -> number.

    Rows take metric, task, dataset and split from the file where they name none, and dataset and split from the grid
    where the file names none and the grid has one.

    Raises
    ------
    UserError
        It cannot be read, has unknown or lacks needed fields, or a value that is no number.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"published table {path}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    _check_fields(path, "the file", content, FILE, ("title", "source", "task", "rows"))
    if not isinstance(content["rows"], list) or not content["rows"]:
        raise UserError(f"published table {path}: expected a list of rows, found {content['rows']!r}")
    only = {name: each[0] for name in ("dataset", "split") if len(each := getattr(grid, name)) == 1}
    common = {**only, **{k: content[k] for k in ("metric", "task", "dataset", "split") if k in content}}
    figures: list[Figure] = []
    for number, row in enumerate(content["rows"], start=1):
        _check_fields(path, f"row {number}", row, ROW, ("name", "head", "values"))
        figures += _figures(path, number, {"embedding": "none", **common, **row})
    more = {k: content[k] for k in ("anchor", "tolerance") if k in content}
    return PublishedTable(content["title"], content["source"], content["task"], tuple(figures), **more)


def _check_fields(path: Path, where: str, found: Any, known: frozenset[str], needed: Sequence[str]) -> None:
    names = set(found) if isinstance(found, dict) else set()
    if not isinstance(found, dict) or names - known or set(needed) - names:
        told = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise UserError(
            f"published table {path}: {where} needs {', '.join(needed)} and may have {', '.join(sorted(known))}; "
            f"found {told}"
        )


def _figures(path: Path, number: int, row: Mapping[str, Any]) -> Iterator[Figure]:
    facts = {f.name: row[f.name] for f in fields(Figure) if f.name in row and f.name != "spread"}
    if lacking := [name for name in ("metric", "dataset", "split") if name not in facts]:
        raise UserError(f"published table {path}: row {number} needs {', '.join(lacking)}, or the file for all rows")
    values, spreads = row["values"], row.get("spread") or {}
    numeric = isinstance(values, dict) and isinstance(spreads, dict) and set(spreads) <= set(values)
    if not (numeric and values and all(_number(v) for v in [*values.values(), *spreads.values()])):
        raise UserError(
            f"published table {path}: row {number} ({row['name']}): expected values as context -> number (and spread "
            f"for some of them), found {values!r}, {spreads!r}"
        )
    for context, value in values.items():
        spread = spreads.get(context)
        yield Figure(**{**facts, "context": str(context), "value": float(value)}, spread=spread and float(spread))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
