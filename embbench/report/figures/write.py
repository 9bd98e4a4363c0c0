"""The page's figures as files for papers and slides, drawn by matplotlib from the same bundle."""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embbench.cache.store import replacing
from embbench.core import UserError
from embbench.report.boards import BOARD
from embbench.report.figures import details
from embbench.report.figures.boxes import boxes, critical, ranks
from embbench.report.figures.dependence import SETTINGS, SINGLE, contexts
from embbench.report.figures.draw import decomposition, heatmap, progress
from embbench.report.page.encode import decode

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("png", "svg", "pdf")
# no dates in files: the same bundle gives the same bytes
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "embbench",
    "pdf.fonttype": 42,
    "font.size": 9,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws alike
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # names of the user are not formulas
}
Drawing = Callable[..., bool]
OF_BOARD: dict[str, Drawing] = {
    "heatmap": heatmap,
    "boxes": boxes,
    "ranks": ranks,
    "decomposition": decomposition,
    "contexts": contexts,
    **SINGLE,
    **SETTINGS,
}
OF_METHOD: dict[str, tuple[str, Drawing]] = {
    "predictions": ("examples", details.predictions),
    "neighbours": ("examples", details.neighbours),
    "cells": ("populations", details.cells),
    "gene_means": ("populations", details.gene_means),
    "gene_variances": ("populations", details.gene_variances),
}
POOLED = "all datasets"  # of the decomposition
LONGEST = 180  # letters of a file's name


def write_figures(folder: Path, bundle: Mapping[str, Any], formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write the page's figures as files: of every board and metric (all conditions), over datasets, and of predictions.

    Parameters
    ----------
    folder : created when absent. Files are named
        ``<figure>-<metric or entry>-<dataset>-<split>-<genes>-<hash>.<format>``, with the hash of the whole names; a
        long dataset is shortened.
    bundle : from `embbench.report.page.bundle.make_bundle`.
    formats : of png, svg, pdf.

    Returns
    -------
    list of Path
        The files written; a figure without data is not.

    Raises
    ------
    UserError
        matplotlib is not installed, or a format is unknown.
    """
    if unknown := set(formats) - set(FORMATS):
        raise UserError(f"figures: formats must be of {', '.join(FORMATS)}, found {', '.join(sorted(unknown))}")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"figures need matplotlib ({error}): pip install 'embbench[plots]'") from error
    tables = {name: decode(table) for name, table in bundle["tables"].items()}
    board = tables.get("leaderboard")
    out: list[Path] = []
    if board is None or not len(board):
        return out
    whole = board[(board["subset"] == "all").to_numpy()]
    style: dict[Any, Any] = {**mpl.rcParamsDefault, **_STYLE, "backend": "agg"}
    labels = bundle.get("labels", {}).get("datasets", {})
    with mpl.rc_context(style):
        for names, drawing, given in _drawings(whole, tables, bundle):
            figure = Figure()
            if drawing(figure, *given):
                _wrap(figure)
                out += _save(figure, Path(folder) / stem(names, labels), formats)
    return list(dict.fromkeys(out))


def _drawings(
    whole: pd.DataFrame, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], Drawing, tuple[Any, ...]]]:
    """What may be drawn: (figure, metric or entry, dataset, split, genes), the function, what it is given."""
    for metric in dict.fromkeys(whole["metric"]):
        part = whole[(whole["metric"] == metric).to_numpy()]
        yield ("progress", metric), progress, (part, bundle)
        for where in part[list(BOARD)].drop_duplicates().astype(str).to_dict("records"):
            facts = {"metric": metric, **where}
            own = _on_board(tables, facts)
            for name, drawing in OF_BOARD.items():
                yield (name, *facts.values()), drawing, (own, bundle, facts)
        for where in part[["split", "genes"]].drop_duplicates().astype(str).to_dict("records"):
            facts = {"metric": metric, "dataset": POOLED, **where}
            yield ("decomposition", *facts.values()), decomposition, (_on_board(tables, facts), bundle, facts)
            ranked = _on_board(tables, facts).get("ranks")
            for by, rows in ranked.groupby("by", sort=False) if ranked is not None and len(ranked) else ():
                yield ("critical", *facts.values(), str(by)), critical, (rows, bundle, {**facts, "by": by})
    for name, (kind, drawing) in OF_METHOD.items():
        parts = bundle["details"].get(kind, [])
        for place in dict.fromkeys(tuple(str(part.get(c) or "") for c in BOARD) for part in parts):
            mine = [part for part in parts if tuple(str(part.get(c) or "") for c in BOARD) == place]
            for entry, members in details.methods(mine, bundle):
                yield (name, entry, *place), drawing, (members, bundle, entry)


def _on_board(tables: Mapping[str, pd.DataFrame], facts: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """The rows of every table that belong to one board, all conditions."""
    out = {}
    for name, frame in tables.items():
        keep = frame
        for column, value in {**facts, "subset": "all"}.items():
            keep = keep[(keep[column] == value).to_numpy()] if column in keep else keep
        out[name] = keep.reset_index(drop=True)
    return out


def _wrap(figure: Any) -> None:
    """Break titles that are wider than the figure."""
    most = int(figure.get_figwidth() * 14)
    for text in [*(axes._left_title for axes in figure.axes), figure._suptitle]:  # their setters reset the size
        if text is not None:
            lines = (textwrap.fill(line, most) for line in text.get_text().split("\n"))
            text.set_text("\n".join(lines))


def _save(figure: Any, base: Path, formats: Sequence[str]) -> list[Path]:
    out = []
    for kind in formats:
        path = base.with_name(f"{base.name}.{kind}")
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=_METADATA[kind])
        out.append(path)
    return out


def stem(names: Sequence[str], labels: Mapping[str, str]) -> str:
    """A file's name from (figure, metric or entry, dataset, ...): the dataset is shortened, a hash tells all apart.

    Examples
    --------
    >>> stem(("boxes", "l2_all", "kang18", "unseen_context", "all"), {})
    'boxes-l2_all-kang18-unseen_context-all-a4c019cd'
    """
    mark = hashlib.sha256(json.dumps([str(name) for name in names]).encode()).hexdigest()[:8]
    shown = [labels.get(name, name) if i == 2 else name for i, name in enumerate(names)]
    words = [re.sub(r"[^\w.=]+", "_", str(name), flags=re.ASCII).strip("_") for name in shown]
    if len(words) > 2:
        words[2] = words[2][: max(12, LONGEST - sum(len(word) + 1 for i, word in enumerate(words) if i != 2))]
    return f"{'-'.join(words)[:LONGEST]}-{mark}"
