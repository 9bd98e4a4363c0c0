"""What a score depends on: single conditions, settings, contexts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.figures.draw import CEILING, axis_title, span
from embbench.report.figures.labels import daggers, entries, palette, shortened, title, vectors

if TYPE_CHECKING:
    import pandas as pd

SERIES = 8  # drawn in one figure
GRID = "#d4d9df"
Figures = Callable[[Any, Mapping[str, "pd.DataFrame"], Mapping[str, Any], Mapping[str, str]], bool]


def log_axis(axis: Any, values: np.ndarray) -> None:
    """A logarithmic axis with round ticks, of which at least two are shown."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    low, high = float(values.min()), float(values.max())
    low, high = (low / 1.1, high * 1.1) if low < high else (low / 2, high * 2)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    fine, decades = (
        [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high] for steps in ((1, 2, 5), (1,))
    )
    ticks = fine if 3 <= len(fine) <= 7 else decades
    if len(ticks) < 2:
        ticks = [t for t in MaxNLocator(5).tick_values(low, high) if low <= t <= high]
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    getattr(axis.axes, f"set_{axis.axis_name}lim")(low, high)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def single(column: str, label: str) -> Figures:
    """The figure of single conditions of the best methods against a fact of the condition."""

    def draw(
        figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]
    ) -> bool:
        return _scatter(figure, tables.get("conditions"), bundle, facts, column, label, entries)

    return draw


def setting(column: str, label: str, by: Callable[..., np.ndarray], *, knn: bool = False) -> Figures:
    """The figure of fold x context means of ranked entries against a setting, with the mean line of each series."""

    def draw(
        figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]
    ) -> bool:
        points = tables.get("points")
        if points is None or not len(points):
            return False
        signs = daggers(tables["leaderboard"], bundle)
        keep = points["role"].isin(("method", "random")).to_numpy(dtype=bool)
        keep &= np.array([not signs.get(entry) for entry in entries(points, bundle)], dtype=bool)
        if knn:
            keep &= points["head"].str.contains(r"(?:^|_)knn|nearest").to_numpy(dtype=bool)
        return _scatter(figure, points[keep], bundle, facts, column, label, by, lines=knn)

    return draw


def heads(frame: pd.DataFrame, bundle: Mapping[str, Any]) -> np.ndarray:
    """Series by head."""
    return frame["head"].to_numpy()


def _scatter(
    figure: Any, frame: pd.DataFrame | None, bundle: Mapping[str, Any], facts: Mapping[str, str], column: str,
    label: str, by: Callable[..., np.ndarray], *, lines: bool = False,
) -> bool:  # fmt: skip
    metric = facts["metric"]
    if frame is None or metric not in frame or column not in frame:
        return False
    known = frame[((frame[column] > 0) & frame[metric].notna()).to_numpy()].reset_index(drop=True)
    if not len(known):
        return False
    names = by(known, bundle)
    shown = list(dict.fromkeys(names.tolist()))[:SERIES]
    figure.set_size_inches(5.6, 3.6)
    axes = figure.add_subplot()
    labels = dict(zip(shown, shortened(shown), strict=True))
    for name, (colour, marker) in palette(shown).items():
        part = known[names == name]
        style = {"color": colour, "marker": marker, "alpha": 0.6, "linewidths": 0.6}
        axes.scatter(part[column], part[metric], s=10, label=labels[name], **style)
        means = part.groupby(column)[metric].mean()
        if lines and len(means) > 1:
            axes.plot(means.index, means.to_numpy(), color=colour, linewidth=1.2)
    low, high = span(known[metric].to_numpy())
    if low > known[metric].min() or high < known[metric].max():
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    log_axis(axes.xaxis, known[column].to_numpy())
    axes.set_xlabel(label)
    axes.set_ylabel(axis_title(bundle, metric))
    axes.set_title(title(facts, bundle), fontsize=9, loc="left")
    axes.grid(color=GRID, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return True


def contexts(
    figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]
) -> bool:
    """The first ranked entries in each context, with intervals and the ceiling there; one panel each."""
    frame, board = tables.get("by_context"), tables["leaderboard"]
    signs = daggers(board, bundle)
    able = board[board["role"].isin(("method", "baseline", "random")).to_numpy() & board["mean"].notna().to_numpy()]
    able = able.sort_values("rank", kind="stable", na_position="last") if "rank" in able else able
    order = [name for name in entries(able, bundle) if not signs[name]][:SERIES]
    if frame is None or not len(frame) or not order:
        return False
    frame = frame.assign(name=entries(frame, bundle))
    frame = frame[(frame["name"].isin(order) & frame["mean"].notna()).to_numpy()]
    parts = list(frame.groupby("context", sort=False))
    if not parts:
        return False
    columns = min(3, len(parts))
    lines = -(-len(parts) // columns)
    figure.set_size_inches(2.2 + 2.3 * columns, 0.6 + (0.6 + 0.22 * len(order)) * lines)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    colours = palette(order)
    for axes, (context, part) in zip(grid, parts, strict=False):
        for row in part.to_dict("records"):
            i, (colour, marker) = order.index(row["name"]), colours[row["name"]]
            if np.isfinite(row.get("low", np.nan)):
                axes.plot((row["low"], row["high"]), (i, i), color=colour, linewidth=1.4)
            axes.scatter(row["mean"], i, color=colour, marker=marker, s=18, zorder=3)
        if "ceiling" in part and np.isfinite(part["ceiling"].iloc[0]):
            axes.axvline(part["ceiling"].iloc[0], color=CEILING, linewidth=1.5)
        axes.set_title(str(context), fontsize=8)
        axes.grid(axis="x", color=GRID, linewidth=0.6)
    grid[0].set_yticks(range(len(order)), shortened(order))
    grid[0].set_ylim(len(order) - 0.5, -0.5)
    for axes in grid[len(parts) :]:
        axes.set_visible(False)
    figure.supxlabel(axis_title(bundle, facts["metric"]), fontsize=9)
    figure.suptitle(title(facts, bundle), fontsize=9, x=0.01, ha="left")
    return True


SINGLE: dict[str, Figures] = {
    "effect_norm": single("effect_norm", "norm of the observed effect"),
    "n_cells": single("n_cells", "cells of the condition"),
}
SETTINGS: dict[str, Figures] = {
    "neighbours_k": setting("k", "neighbours k, given or chosen", vectors, knn=True),
    "dimension": setting("dim", "dimension after features", heads),
    "n_train": setting("n_train", "training conditions of the fold", heads),
}
