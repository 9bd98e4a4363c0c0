"""One function per figure: draws on an empty matplotlib figure, and says whether there was anything to draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.figures.labels import (
    COLOURS,
    daggers,
    entries,
    modalities,
    modality_palette,
    shortened,
    title,
    vectors,
)
from embbench.report.sheets import decimals_of

if TYPE_CHECKING:
    import pandas as pd

CEILING = "#009e73"
MOST = 40  # entries of one figure
DAGGERS = ("†", "‡")
PARTS = ("embedding", "head", "interaction")


def sign_of(bundle: Mapping[str, Any], metric: str) -> float:
    """-1.0 where low is best, else 1.0."""
    return -1.0 if bundle["metrics"].get(metric, {}).get("best") == "low" else 1.0


def axis_title(bundle: Mapping[str, Any], metric: str) -> str:
    """Metric and its direction."""
    return f"{metric} ({'lower' if sign_of(bundle, metric) < 0 else 'higher'} is better)"


def heatmap(
    figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]
) -> bool:
    """Mean score of embedding x head; the best of the ranked is framed, what is not ranked hatched, with a dagger."""
    board = tables["leaderboard"]
    board = board[(board["role"].isin(("method", "random")) & board["mean"].notna()).to_numpy()].reset_index(drop=True)
    if not len(board):
        return False
    sign, signs = sign_of(bundle, facts["metric"]), daggers(board, bundle)
    board = board.assign(name=vectors(board, bundle), dagger=[signs[e] for e in entries(board, bundle)])
    able = board.assign(signed=(sign * board["mean"]).where(board["dagger"] == ""))
    names, heads = (_best_first(able, column)[:MOST] for column in ("name", "head"))
    wide = able.pivot_table(index="name", columns="head", values="signed", aggfunc="max", observed=True, dropna=False)
    values = wide.reindex(index=names, columns=heads).to_numpy(dtype=np.float64)
    rows, columns = shortened(names), shortened(heads)
    below, beside = (max(map(len, labels)) for labels in (columns, rows))
    figure.set_size_inches(max(4.2, 1.5 + 0.08 * beside + 0.85 * len(heads)), 1.2 + 0.05 * below + 0.32 * len(names))
    axes = figure.add_subplot()
    finite = values[np.isfinite(values)]
    low, high = (max(np.quantile(finite, 0.05), span(finite)[0]), finite.max()) if len(finite) else (0.0, 1.0)
    places = decimals_of(board, "") if {"low", "high"} <= set(board) else 3
    axes.imshow(values, aspect="auto", cmap="cividis", vmin=low, vmax=high if high > low else low + 1)
    for row in board.to_dict("records"):
        if row["name"] not in names or row["head"] not in heads:
            continue
        i, j = names.index(row["name"]), heads.index(row["head"])
        if row["dagger"]:
            axes.add_patch(_frame(j, i, edgecolor="#a5aeb8", linewidth=0.8, hatch="////"))
        dark = not row["dagger"] and values[i, j] < (low + high) / 2
        axes.text(
            j, i, f"{row['dagger']}{row['mean']:.{places}f}", ha="center", va="center", color="w" if dark else "k"
        )
    if len(finite):
        place = np.unravel_index(np.nanargmax(values), values.shape)
        axes.add_patch(_frame(int(place[1]), int(place[0]), edgecolor=COLOURS[1], linewidth=2.5))
    axes.set_xticks(range(len(heads)), columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), rows)
    axes.set_title(
        f"{title(facts, bundle)}\n{axis_title(bundle, facts['metric'])}{note(signs.values())}", fontsize=9, loc="left"
    )
    return True


def _best_first(able: pd.DataFrame, column: str) -> list[str]:
    best = able.groupby(column, sort=False, observed=True)["signed"].max()
    return [str(name) for name in best.sort_values(ascending=False, kind="stable", na_position="last").index]


def note(marks: Iterable[str]) -> str:
    """What the daggers of a figure mean, on a line of its own; empty where there are none."""
    seen = set(marks)
    said = [text for mark, text in (("†", "† incomplete"), ("‡", "‡ too few own conditions")) if mark in seen]
    return f"\n{', '.join(said)}: not ranked" if said else ""


def span(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value within ten interquartile ranges of the quartiles: a diverged entry hides no other."""
    low, high = np.quantile(values, (0.25, 0.75))
    if low == high:
        return float(values.min()), float(values.max())
    kept = values[(values >= low - 10 * (high - low)) & (values <= high + 10 * (high - low))]
    return float(kept.min()), float(kept.max())


def _frame(column: int, row: int, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, **style)


def rgb(colour: str) -> tuple[float, float, float]:
    """Red, green and blue of ``#rrggbb``, 0 to 1."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


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
    bars(figure.add_subplot(), parts, [float(row[name]) for name in parts], spans, list(COLOURS[: len(parts)]))
    figure.axes[0].set_xlabel("share of the variance of progress")
    said = f"\nwhich is larger: {row['answer']}" if row.get("answer") else ""
    ranges = [
        f"{p} {row[f'{p}_min']:.0%} to {row[f'{p}_max']:.0%}" for p in parts if np.isfinite(row.get(f"{p}_min", np.nan))
    ]
    without = f"\nwithout one level: {', '.join(ranges)}" if ranges else ""
    figure.axes[0].set_title(f"{title(facts, bundle)} · {facts['metric']}{said}{without}", fontsize=8, loc="left")
    return True


def bars(
    axes: Any, labels: list[str], values: list[float], spans: list[tuple[float, float]], colours: list[str]
) -> None:
    """Horizontal bars of shares with intervals; labels that begin with a dagger have no face."""
    from matplotlib.ticker import PercentFormatter

    for i, (value, span, colour) in enumerate(zip(values, spans, colours, strict=True)):
        axes.barh(
            i, value, height=0.62, color=(*rgb(colour), 0.0 if labels[i][:1] in DAGGERS else 0.35), edgecolor=colour
        )
        if np.isfinite(span).all():
            axes.plot(span, (i, i), color="#16191d", linewidth=1, marker="|", markersize=6)
    axes.set_yticks(range(len(labels)), shortened(labels))
    axes.invert_yaxis()
    axes.axvline(0, color="#16191d", linewidth=0.8)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="x", color="#d4d9df", linewidth=0.6)


def progress(figure: Any, leaderboard: pd.DataFrame, bundle: Mapping[str, Any]) -> bool:
    """Progress of the best ranked methods of every board of one metric, one panel each; two unranked below."""
    import pandas as pd

    if "progress" not in leaderboard:
        return False
    known = leaderboard[(leaderboard["role"].isin(("method", "random")) & leaderboard["progress"].notna()).to_numpy()]
    if not len(known):
        return False
    colours = modality_palette(bundle)
    parts = list(known.groupby(["dataset", "split", "genes"], sort=False))
    figure.set_size_inches(6.4, 0.7 + 2.4 * len(parts))
    for i, (where, part) in enumerate(parts):
        part = part.sort_values("progress", ascending=False, kind="stable").reset_index(drop=True)
        signs = daggers(part, bundle)
        mark = np.array([signs[entry] for entry in entries(part, bundle)], dtype=object)
        best = pd.concat([part[mark == ""].head(8), part[mark != ""].head(2)])
        labels = [" ".join(filter(None, (signs[entry], entry))) for entry in entries(best, bundle)]
        low, high = (best.get(f"progress_{side}", np.nan * best["progress"]) for side in ("low", "high"))
        axes = figure.add_subplot(len(parts), 1, i + 1)
        spans = list(zip(low, high, strict=True))
        kinds = [colours[kind][0] for kind in modalities(best, bundle)]
        bars(axes, labels, best["progress"].tolist(), spans, kinds)
        axes.axvline(1, color=CEILING, linewidth=1.5)
        facts = dict(zip(("dataset", "split", "genes"), map(str, where), strict=True))
        axes.set_title(
            f"{title(facts, bundle)} · {part['metric'].iloc[0]}{note(signs.values())}", fontsize=9, loc="left"
        )
    figure.axes[-1].set_xlabel("progress (0 = floor, 100 % = ceiling)")
    return True
