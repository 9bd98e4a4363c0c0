"""What a table on paper is: a sheet of sections, and the words that boards have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.boards import BOARD, NAMES, OTHER

if TYPE_CHECKING:
    import pandas as pd

SECTIONS = {
    "Methods": ("method",),
    "Baselines": ("baseline", "random"),
    "Permutations (names shuffled; mean over draws)": ("permuted",),
    "Oracles (see the truth; never ranked)": ("oracle",),
}


@dataclass(frozen=True)
class Line:
    """One row of cells; ``bold`` marks the best."""

    cells: tuple[str, ...]
    bold: bool = False


Section = tuple[str, tuple[Line, ...]]


@dataclass(frozen=True)
class Sheet:
    """A table ready to be drawn.

    Parameters
    ----------
    title : one line, everything that names the numbers.
    columns : headers.
    sections : (name, lines); an empty name draws no section line.
    legend : sentences below the table.
    text_columns : headers of left-aligned columns that may fold.
    hidable : headers that a narrow terminal may leave out, least important first.
    """

    title: str
    columns: tuple[str, ...]
    sections: tuple[Section, ...]
    legend: tuple[str, ...] = ()
    text_columns: frozenset[str] = field(default_factory=lambda: frozenset((*NAMES, *OTHER)))
    hidable: tuple[str, ...] = ()

    def keep(self, positions: Sequence[int]) -> Sheet:
        """The sheet with the columns at ``positions`` only.

        Examples
        --------
        >>> sheet = Sheet("kang18", ("head", "mean"), (("Methods", (Line(("ridge", "0.31")),)),))
        >>> sheet.keep([1]).columns, sheet.keep([1]).cells_of(0)
        (('mean',), ['0.31'])
        """
        sections = tuple(
            (name, tuple(Line(tuple(line.cells[i] for i in positions), line.bold) for line in lines))
            for name, lines in self.sections
        )
        return replace(self, columns=tuple(self.columns[i] for i in positions), sections=sections)

    def cells_of(self, position: int) -> list[str]:
        """All cells of one column."""
        return [line.cells[position] for _, lines in self.sections for line in lines]


def by_board(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The parts of a table that share metric, subset, dataset, split and gene set, in order of appearance."""
    for _, part in frame.groupby(["metric", "subset", *BOARD], sort=False):
        yield part.reset_index(drop=True)


def varies(part: pd.DataFrame, column: str) -> bool:
    """Whether a coordinate tells lines apart, so that it needs a column.

    Examples
    --------
    >>> import pandas as pd
    >>> part = pd.DataFrame({"scope": ["auto", "auto"], "graph": ["none", "ppi"]})
    >>> varies(part, "scope"), varies(part, "graph")
    (False, True)
    """
    if column == "embedding":
        return bool((part[column] != "none").any())
    return column in ("head", "status", "reason", "runs") or part[column].nunique(dropna=False) > 1


def title(part: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]]) -> str:
    """Title line of one board; shared controls and simulated screens are marked in it."""
    first = part.iloc[0]
    known = facts.get(first["dataset"], {})
    words = [first["dataset"], first["split"], first["metric"]]
    words += ["detectable conditions"] if first["subset"] == "detectable" else []
    words += [f"genes {first['genes']}"] if first["genes"] != "all" else []
    words += ["CONTROLS SHARED"] if known.get("controls") == "shared" else []
    words += ["SIMULATED"] if known.get("simulated") else []
    return " · ".join(str(w) for w in words)


def decimals_of(part: pd.DataFrame, column: str) -> int:
    """Decimals that show two digits of the typical interval, or three of the values where there is none.

    Examples
    --------
    >>> import pandas as pd
    >>> decimals_of(pd.DataFrame({"mean": [0.31], "low": [0.28], "high": [0.34]}), "")
    3
    """
    low, high = (f"{column}_low", f"{column}_high") if column else ("low", "high")
    width = (part[high] - part[low]).to_numpy(dtype=np.float64) / 2
    width = width[width > 0]
    if len(width):
        return int(np.clip(1 - np.floor(np.log10(np.median(width))), 1, 4))
    values = np.abs(part[column or "mean"].to_numpy(dtype=np.float64))
    values = values[values > 0]
    return int(np.clip(2 - np.floor(np.log10(np.median(values))), 1, 4)) if len(values) else 3


def describe(part: pd.DataFrame, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Name, direction and range of the board's metric.

    Examples
    --------
    >>> import pandas as pd
    >>> describe(pd.DataFrame({"metric": ["pearson"]}), {"pearson": {"best": "high", "lower": -1.0, "upper": 1.0}})
    'pearson: higher is better, from -1 up to 1.'
    """
    name = part["metric"].iloc[0]
    facts = metrics[name]
    low, high = facts.get("lower", -np.inf), facts.get("upper", np.inf)
    span = f", from {low:g}" if np.isfinite(low) else ""
    span += f"{' ' if span else ', '}up to {high:g}" if np.isfinite(high) else ""
    better = "lower" if facts["best"] == "low" else "higher"
    return f"{name}: {better} is better{span}."
