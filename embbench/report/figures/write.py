"""The page's figures as files for papers and slides, drawn by matplotlib from the same bundle."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embbench.cache.store import replacing
from embbench.core import UserError
from embbench.report.boards import BOARD
from embbench.report.figures.draw import boxes, decomposition, effect_norm, heatmap, progress, ranks
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
    "effect_norm": effect_norm,
}


def write_figures(folder: Path, bundle: Mapping[str, Any], formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write the figures of every board and metric (all conditions), and progress over datasets.

    Parameters
    ----------
    folder : created when absent. Files are named ``<figure>-<dataset>-<split>-<genes>-<metric>.<format>``.
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
    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, "backend": "agg"}):
        for metric in dict.fromkeys(whole["metric"]):
            part = whole[(whole["metric"] == metric).to_numpy()]
            figure = Figure()
            if progress(figure, part, bundle):
                out += _save(figure, Path(folder), ("progress", metric), formats)
            for where in part[list(BOARD)].drop_duplicates().to_dict("records"):
                facts = {"metric": metric, **{str(k): str(v) for k, v in where.items()}}
                for name, drawing in OF_BOARD.items():
                    figure = Figure()
                    if drawing(figure, _on_board(tables, facts), bundle, facts):
                        out += _save(figure, Path(folder), (name, *facts.values()), formats)
    return out


def _on_board(tables: Mapping[str, pd.DataFrame], facts: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """The rows of every table that belong to one board, all conditions."""
    out = {}
    for name, frame in tables.items():
        keep = frame
        for column, value in {**facts, "subset": "all"}.items():
            keep = keep[(keep[column] == value).to_numpy()] if column in keep else keep
        out[name] = keep.reset_index(drop=True)
    return out


def _save(figure: Any, folder: Path, names: tuple[str, ...], formats: Sequence[str]) -> list[Path]:
    name, *rest = names
    metric, *board = rest
    stem = "-".join(re.sub(r"[^\w.=]+", "_", text) for text in (name, *board, metric))
    out = []
    for kind in formats:
        path = folder / f"{stem[:200]}.{kind}"
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=_METADATA[kind])
        out.append(path)
    return out
