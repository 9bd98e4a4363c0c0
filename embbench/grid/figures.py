"""Published figures as data: one file for each published table, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import UserError
from embbench.grid.metrics import metric_names
from embbench.registry import Registry, unknown_name

if TYPE_CHECKING:
    from embbench.grid.config import Grid

ROW = frozenset(("name", "embedding", "head", "metric", "task", "dataset", "split", "values", "spread", "why", "note"))
FILE = frozenset(("title", "source", "task", "metric", "dataset", "split", "anchor", "tolerance", "rows"))
FILE_TEXTS = FILE - {"tolerance", "rows"}
NONE = "none"  # anchor of a table that has no number without a fit


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
        published one within the relative ``tolerance``, the data are of another task and nothing is compared;
        ``none``: no such check.
    figures : all numbers.
    """

    title: str
    source: str
    task: str
    figures: tuple[Figure, ...]
    anchor: str = "no_change"
    tolerance: float = 0.005

    @property
    def compared(self) -> tuple[Figure, ...]:
        """Figures that can be compared: the others may have names that are not ours."""
        return tuple(f for f in self.figures if not f.why and f.task == self.task)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Measures of the figures that can be compared, in order."""
        return tuple(dict.fromkeys(f.metric for f in self.compared))


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
        It cannot be read, has unknown or lacks needed fields, text that is none, or a value that is no number.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: no UTF-8, no such date
        raise UserError(f"published table {path}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    _check_fields(path, "the file", content, FILE, ("title", "source", "task", "rows"))
    _check_text(path, "the file", content, FILE_TEXTS)
    if not _number(limit := content.get("tolerance", 0.0)) or limit < 0:
        raise UserError(f"published table {path}: expected tolerance as a number of at least 0, found {limit!r}")
    if not isinstance(content["rows"], list) or not content["rows"]:
        raise UserError(f"published table {path}: expected a list of rows, found {content['rows']!r}")
    only = {name: each[0] for name in ("dataset", "split") if len(each := getattr(grid, name)) == 1}
    common = {**only, **{k: content[k] for k in ("metric", "task", "dataset", "split") if k in content}}
    figures: list[Figure] = []
    for number, row in enumerate(content["rows"], start=1):
        _check_fields(path, f"row {number}", row, ROW, ("name", "head", "values"))
        _check_text(path, f"row {number}", row, ROW - {"values", "spread"})
        figures += _figures(path, number, {"embedding": "none", **common, **row})
    more = {k: content[k] for k in ("anchor", "tolerance") if k in content}
    return PublishedTable(content["title"], content["source"], content["task"], tuple(figures), **more)


def check_names(table: PublishedTable, registry: Registry, target: str, file: Path) -> None:
    """Whether what a table names is there, before anything runs; what it never compares may have names of its own.

    Raises
    ------
    UserError
        An unknown anchor or head, or a metric that is unknown or scores another target.
    """
    if table.anchor != NONE and table.anchor not in registry.names("heads"):
        raise UserError(
            f"{file}: anchor of its published table: expected none or a head without a fit such as no_change: "
            f"{unknown_name('heads', table.anchor, registry.names('heads'))}"
        )
    try:
        for head in dict.fromkeys(figure.head for figure in table.compared):
            registry.parse("heads", head)
        for metric in table.metrics:
            if metric not in (parts := metric_names(registry, [metric], target)):
                raise UserError(f"metric {metric!r} is made of others; expected one of {', '.join(parts)}")
    except UserError as error:
        raise UserError(f"{file}: its published table: {error}") from error


def _check_fields(path: Path, where: str, found: Any, known: frozenset[str], needed: Sequence[str]) -> None:
    names = set(found) if isinstance(found, dict) else set()
    if not isinstance(found, dict) or names - known or set(needed) - names:
        told = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise UserError(
            f"published table {path}: {where} needs {', '.join(needed)} and may have {', '.join(sorted(known))}; "
            f"found {told}"
        )


def _check_text(path: Path, where: str, found: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse what YAML read as a number, a list or nothing where text is meant."""
    for name in sorted(set(names) & set(found)):
        if not isinstance(found[name], str) or (not found[name].strip() and name not in ("why", "note")):
            raise UserError(
                f"published table {path}: {where}: expected {name} as text, found {found[name]!r}; quote it"
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
