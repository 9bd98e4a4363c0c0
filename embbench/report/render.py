"""Sheets -> terminal, Markdown, CSV and SVG; whole reports as files."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embbench.cache.store import replacing
from embbench.report.sheets import Sheet

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group

_NAME_WIDTH = 17  # names fold beyond it when the terminal is narrow
_FIRST_WIDTH = 13  # section names stand in the first text column and must not fold


def terminal(sheets: Sequence[Sheet], *, width: int = 100) -> Group:
    """The sheets as rich tables that fit into ``width`` columns.

    What does not fit is first left out as the sheet allows (the legend names it), then moved to further tables.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for sheet in sheets:
        shown, hidden = _fitted(sheet, width)
        legend = [*sheet.legend, f"Not shown at {width} columns: {', '.join(hidden)}."] if hidden else sheet.legend
        parts.append(Text(sheet.title, style="bold"))
        for piece in _pieces(shown, width):
            parts += [_table(piece, width), Text()]
        parts[-1:] = [*[Text(line, style="dim") for line in legend], Text()]
    return Group(*parts)


def _width(sheet: Sheet, position: int) -> int:
    """Least width of a column: headers wrap between words, names fold, numbers do neither."""
    header = sheet.columns[position]
    longest = max(map(len, [*header.split(), *sheet.cells_of(position)]))
    if header not in sheet.text_columns:
        return longest
    first = next(i for i, name in enumerate(sheet.columns) if name in sheet.text_columns)
    return max(min(longest, _NAME_WIDTH), _FIRST_WIDTH if position == first else 0)


def _total(sheet: Sheet) -> int:
    return sum(_width(sheet, i) + 2 for i in range(len(sheet.columns))) - 2


def _fitted(sheet: Sheet, width: int) -> tuple[Sheet, list[str]]:
    hidden: list[str] = []
    for header in sheet.hidable:
        if _total(sheet) <= width:
            break
        sheet = sheet.keep([i for i, name in enumerate(sheet.columns) if name != header])
        hidden.append(header)
    return sheet, hidden


def _pieces(sheet: Sheet, width: int) -> list[Sheet]:
    """The sheet cut into sheets of at most ``width``, each with all the names."""
    names = [i for i, name in enumerate(sheet.columns) if name in sheet.text_columns or name == "#"]
    room = width - sum(_width(sheet, i) + 2 for i in names)
    pieces: list[list[int]] = [[]]
    left = room
    for i in (i for i in range(len(sheet.columns)) if i not in names):
        if pieces[-1] and _width(sheet, i) > left:
            pieces.append([])
            left = room
        pieces[-1].append(i)
        left -= _width(sheet, i) + 2
    if len(pieces) == 1:
        return [sheet]
    return [sheet.keep([*names, *piece]) for piece in pieces]


def _table(sheet: Sheet, width: int) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    spare = width - _total(sheet)
    for i, header in enumerate(sheet.columns):
        size = _width(sheet, i)
        if header in sheet.text_columns:
            more = max(0, min(spare, max(map(len, [header, *sheet.cells_of(i)])) - size))
            spare -= more
            table.add_column(Text(header), overflow="fold", width=size + more)
        else:
            table.add_column(Text(header), overflow="fold", justify="right", width=size)
    for name, lines in sheet.sections:
        if name:
            table.add_section()
            where = next((i for i, c in enumerate(sheet.columns) if c in sheet.text_columns), 0)
            table.add_row(*[Text()] * where, Text(name.partition(" (")[0], style="italic cyan"))
        for line in lines:
            table.add_row(*[Text(cell, style="bold" if line.bold else "") for cell in line.cells])
    return table


def text(renderable: Any, *, width: int = 100) -> str:
    r"""Plain text of anything rich can draw, without colour codes or trailing blanks.

    Examples
    --------
    >>> text("[bold]pearson[/bold]   ")
    'pearson\n'
    """
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, record=True, force_terminal=False)
    console.print(renderable)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


def svg(renderable: Any, path: Path, *, width: int = 100, title: str = "embbench report") -> Path:
    """Write a picture of anything rich can draw; the file refers to nothing outside itself."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, record=True, force_terminal=True)
    console.print(renderable)
    picture = console.export_svg(title=title, unique_id="embbench")
    picture = re.sub(r"@font-face\s*\{.*?\}\s*", "", picture, flags=re.DOTALL)
    with replacing(path) as temporary:
        temporary.write_text(picture, encoding="utf-8")
    return path


def markdown(sheets: Sequence[Sheet]) -> str:
    r"""The sheets as GitHub Markdown tables with their legends.

    Examples
    --------
    >>> from embbench.report.sheets import Line
    >>> sheet = Sheet("kang18", ("head", "mean"), (("", (Line(("ridge", "0.31"), bold=True),)),))
    >>> markdown([sheet]).split("\n")[2:5]
    ['| head | mean |', '| :-- | --: |', '| **ridge** | **0.31** |']
    """
    out: list[str] = []
    for sheet in sheets:
        align = [":--" if c in sheet.text_columns else "--:" for c in sheet.columns]
        out += [f"### {_escape(sheet.title)}", "", _pipe(sheet.columns), _pipe(align, escape=False)]
        for name, lines in sheet.sections:
            if name:
                blank = [""] * (len(sheet.columns) - 1)
                out.append(_pipe([f"*{_escape(name)}*", *blank], escape=False))
            for line in lines:
                cells = [_escape(c) for c in line.cells]
                out.append(_pipe([f"**{c}**" if line.bold and c else c for c in cells], escape=False))
        out += ["", *[f"{_escape(line)}  " for line in sheet.legend], ""]
    return "\n".join(out)


def _escape(cell: str) -> str:
    return re.sub(r"([|*<\\])", r"\\\1", cell).replace("\n", " ")


def _pipe(cells: Sequence[str], *, escape: bool = True) -> str:
    return "| " + " | ".join(_escape(c) if escape else c for c in cells) + " |"


def csv(frame: pd.DataFrame) -> str:
    r"""CSV text: nine significant digits, empty cells for missing values, one newline per line on every system.

    Examples
    --------
    >>> import pandas as pd
    >>> csv(pd.DataFrame({"mean": [1 / 3, None], "head": ["ridge", "knn"]}))
    'mean,head\n0.333333333,ridge\n,knn\n'
    """
    return frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
