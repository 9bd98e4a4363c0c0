"""One function per figure: draws on an empty matplotlib figure, and says whether there was anything to draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from embbench.report.figures.labels import COLOURS, entries, modalities, modality_palette, palette, shortened, vectors
from embbench.report.sheets import decimals_of

if TYPE_CHECKING:
    import pandas as pd

DASHES = ((0, (7, 4)), (0, (2, 3)), (0, (9, 3, 2, 3)), (0, (12, 3)), (0, (4, 2)))
CEILING = "#009e73"
MOST = 40  # entries of one figure
SHOWN = ("method", "random", "oracle")
PARTS = ("embedding", "head", "interaction")


def _sign(bundle: Mapping[str, Any], metric: str) -> float:
    return -1.0 if bundle["metrics"].get(metric, {}).get("best") == "low" else 1.0


def _axis_title(bundle: Mapping[str, Any], metric: str) -> str:
    return f"{metric} ({'lower' if _sign(bundle, metric) < 0 else 'higher'} is better)"


def _title(facts: Mapping[str, str]) -> str:
    genes = "" if facts["genes"] == "all" else f" · genes {facts['genes']}"
    return f"{facts['dataset']} · {facts['split']}{genes}"


def heatmap(
    figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]
) -> bool:
    """Mean score of embedding x head; the best is framed."""
    board = tables["leaderboard"]
    board = board[(board["role"].isin(("method", "random")) & board["mean"].notna()).to_numpy()]
    if not len(board):
        return False
    sign = _sign(bundle, facts["metric"])
    board = board.assign(name=vectors(board), signed=sign * board["mean"])
    wide = board.pivot_table(index="name", columns="head", values="signed", aggfunc="max", observed=True)
    wide = wide.loc[wide.max(axis=1).sort_values(ascending=False, kind="stable").index[:MOST]]
    wide = wide[wide.max(axis=0).sort_values(ascending=False, kind="stable").index]
    values = wide.to_numpy(dtype=np.float64)
    rows, columns = shortened(wide.index), shortened(wide.columns)
    below, beside = (max(map(len, names)) for names in (columns, rows))
    figure.set_size_inches(1.5 + 0.08 * beside + 0.85 * values.shape[1], 1.0 + 0.05 * below + 0.32 * values.shape[0])
    axes = figure.add_subplot()
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, 0.05), finite.max()
    places = decimals_of(board, "") if {"low", "high"} <= set(board) else 3
    axes.imshow(values, aspect="auto", cmap="cividis", vmin=low, vmax=high if high > low else low + 1)
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
        dark = values[i, j] < (low + high) / 2
        axes.text(
            j, i, f"{sign * values[i, j]:.{places}f}", ha="center", va="center", color="white" if dark else "black"
        )
    i, j = np.unravel_index(np.nanargmax(values), values.shape)
    axes.add_patch(_frame(int(j), int(i)))
    axes.set_xticks(range(values.shape[1]), columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(values.shape[0]), rows)
    axes.set_title(f"{_title(facts)}\n{_axis_title(bundle, facts['metric'])}", fontsize=9, loc="left")
    return True


def _frame(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=2.5)


def boxes(figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]) -> bool:
    """Scores of each embedding over folds, contexts and heads, coloured by modality, with ceiling and baselines."""
    metric = facts["metric"]
    points = tables.get("points")
    if points is None or metric not in points:
        return False
    shown = points[(points["role"].isin(SHOWN) & points[metric].notna()).to_numpy()].reset_index(drop=True)
    if not len(shown):
        return False
    colours = modality_palette(bundle)
    axes = _box_axes(figure, shown.assign(value=shown[metric]), bundle, -_sign(bundle, metric), colours)
    ceiling = points.loc[(points["role"] == "ceiling").to_numpy(), metric].dropna().to_numpy()
    if len(ceiling):
        axes.axhspan(*np.quantile(ceiling, (0.1, 0.9)), color=CEILING, alpha=0.16, linewidth=0)
        axes.axhline(ceiling.mean(), color=CEILING, linewidth=1.5, label="ceiling (mean; band: middle 80 %)")
    board = tables["leaderboard"]
    base = board[((board["role"] == "baseline") & board["mean"].notna()).to_numpy()].reset_index(drop=True)
    base = base[vectors(base) == "no embedding"].head(len(DASHES)) if len(base) else base
    for dash, row in zip(DASHES, base.to_dict("records"), strict=False):
        axes.axhline(row["mean"], color="#535b66", linewidth=1.1, linestyle=dash, label=row["head"])
    axes.set_ylabel(_axis_title(bundle, metric))
    axes.set_title(_title(facts), fontsize=9, loc="left")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return True


def _box_axes(
    figure: Any, points: pd.DataFrame, bundle: Mapping[str, Any], order: float, colours: Mapping[str, tuple[str, str]]
) -> Any:
    """Boxes of ``value`` per embedding, lowest ``order * median`` first."""
    names, kinds = vectors(points), modalities(points, bundle)
    values = {name: points["value"].to_numpy()[names == name] for name in dict.fromkeys(names)}
    kind = dict(zip(names, kinds, strict=True))
    ordered = sorted(values, key=lambda name: (order * float(np.median(values[name])), name))[:MOST]
    longest = max(map(len, shortened(ordered)))  # slanted names need room below and to the left
    figure.set_size_inches(max(4.8, 3.0 + 0.42 * len(ordered)) + 0.04 * longest, 3.2 + 0.05 * longest)
    axes = figure.add_subplot()
    seen: set[str] = set()
    for i, name in enumerate(ordered):
        colour, marker = colours[kind[name]]
        box = axes.boxplot(values[name], positions=[i], widths=0.62, patch_artist=True, showfliers=False)
        for part in (*box["boxes"], *box["whiskers"], *box["caps"], *box["medians"]):
            part.set_color(colour)
        box["boxes"][0].set_facecolor((*_rgb(colour), 0.28))
        box["medians"][0].set_linewidth(2)
        label = None if kind[name] in seen else kind[name]
        seen.add(kind[name])
        spread = (np.arange(len(values[name])) * 7919 % 13 / 13 - 0.5) * 0.45
        axes.scatter(i + spread, values[name], s=5, color=colour, marker=marker, alpha=0.6, linewidths=0.6, label=label)
    axes.set_xticks(range(len(ordered)), shortened(ordered), rotation=40, ha="right", rotation_mode="anchor")
    axes.grid(axis="y", color="#d4d9df", linewidth=0.6)
    return axes


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def ranks(figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]) -> bool:
    """Ranks of embeddings within each fold, context and head (1 = best); descriptive, folds share training data."""
    import pandas as pd

    metric = facts["metric"]
    points = tables.get("points")
    if points is None or metric not in points:
        return False
    shown = points[(points["role"].isin(SHOWN[:2]) & points[metric].notna()).to_numpy()].reset_index(drop=True)
    cells = [part for _, part in shown.groupby(["fold", "context", "head"], sort=True)]
    most = max((len(part) for part in cells), default=0)
    if most < 2:
        return False
    sign = _sign(bundle, metric)
    ranked = [
        part.assign(value=rankdata(-sign * part[metric].to_numpy(dtype=np.float64)))
        for part in cells
        if len(part) == most
    ]
    points = pd.concat(ranked, ignore_index=True)
    axes = _box_axes(figure, points, bundle, 1.0, modality_palette(bundle))
    axes.invert_yaxis()
    axes.set_ylabel(f"rank among {most} (1 = best)")
    axes.set_title(f"{_title(facts)} · {metric} · descriptive", fontsize=9, loc="left")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return True


def decomposition(
    figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]
) -> bool:
    """Shares of the variance of progress with intervals."""
    frame = tables.get("decomposition")
    if frame is None or not len(frame):
        return False
    row = frame.iloc[0]
    parts = [name for name in PARTS if name in row and np.isfinite(row[name])]
    if not parts:
        return False
    spans = [(row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan)) for name in parts]
    figure.set_size_inches(4.6, 1.2 + 0.35 * len(parts))
    _bars(figure.add_subplot(), parts, [float(row[name]) for name in parts], spans, list(COLOURS[: len(parts)]))
    figure.axes[0].set_xlabel("share of the variance of progress")
    figure.axes[0].set_title(f"{_title(facts)} · {facts['metric']}", fontsize=9, loc="left")
    return True


def _bars(
    axes: Any, labels: list[str], values: list[float], spans: list[tuple[float, float]], colours: list[str]
) -> None:
    from matplotlib.ticker import PercentFormatter

    for i, (value, span, colour) in enumerate(zip(values, spans, colours, strict=True)):
        axes.barh(i, value, height=0.62, color=(*_rgb(colour), 0.35), edgecolor=colour)
        if np.isfinite(span).all():
            axes.plot(span, (i, i), color="#16191d", linewidth=1, marker="|", markersize=6)
    axes.set_yticks(range(len(labels)), shortened(labels))
    axes.invert_yaxis()
    axes.axvline(0, color="#16191d", linewidth=0.8)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="x", color="#d4d9df", linewidth=0.6)


def progress(figure: Any, leaderboard: pd.DataFrame, bundle: Mapping[str, Any]) -> bool:
    """Progress of the best methods of every board of one metric, one panel each."""
    if "progress" not in leaderboard:
        return False
    known = leaderboard[(leaderboard["role"].isin(("method", "random")) & leaderboard["progress"].notna()).to_numpy()]
    if not len(known):
        return False
    colours = modality_palette(bundle)
    parts = list(known.groupby(["dataset", "split", "genes"], sort=False))
    figure.set_size_inches(6.4, 0.7 + 2.4 * len(parts))
    for i, (where, part) in enumerate(parts):
        best = part.sort_values("progress", ascending=False, kind="stable").head(8)
        low, high = (best.get(f"progress_{side}", np.nan * best["progress"]) for side in ("low", "high"))
        axes = figure.add_subplot(len(parts), 1, i + 1)
        spans = list(zip(low, high, strict=True))
        kinds = [colours[kind][0] for kind in modalities(best, bundle)]
        _bars(axes, list(entries(best)), best["progress"].tolist(), spans, kinds)
        axes.axvline(1, color=CEILING, linewidth=1.5)
        facts = dict(zip(("dataset", "split", "genes"), map(str, where), strict=True))
        axes.set_title(f"{_title(facts)} · {part['metric'].iloc[0]}", fontsize=9, loc="left")
    figure.axes[-1].set_xlabel("progress (0 = floor, 100 % = ceiling)")
    return True


def effect_norm(
    figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]
) -> bool:
    """Scores of single conditions against the norm of their observed effect."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    metric = facts["metric"]
    frame = tables.get("conditions")
    if frame is None or metric not in frame or "effect_norm" not in frame:
        return False
    known = frame[((frame["effect_norm"] > 0) & frame[metric].notna()).to_numpy()].reset_index(drop=True)
    if not len(known):
        return False
    names = entries(known)
    figure.set_size_inches(5.6, 3.6)
    axes = figure.add_subplot()
    for name, (colour, marker) in palette(names).items():
        part = known[names == name]
        axes.scatter(
            part["effect_norm"],
            part[metric],
            s=10,
            color=colour,
            marker=marker,
            alpha=0.6,
            linewidths=0.6,
            label=shortened([name])[0],
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("norm of the observed effect")
    axes.set_ylabel(_axis_title(bundle, metric))
    axes.set_title(_title(facts), fontsize=9, loc="left")
    axes.grid(color="#d4d9df", linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return True
