"""Boxes over folds and contexts: scores and ranks; critical differences over screens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.figures.draw import CEILING, MOST, axis_title, note, rgb, sign_of, span
from embbench.report.figures.labels import (
    BARE,
    COLOURS,
    daggers,
    entries,
    modalities,
    modality_palette,
    relabelled,
    shortened,
    title,
    vectors,
)

if TYPE_CHECKING:
    import pandas as pd

DASHES = ((0, (7, 4)), (0, (2, 3)), (0, (9, 3, 2, 3)), (0, (12, 3)), (0, (4, 2)))
SHOWN = ("method", "random", "oracle")


def boxes(figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]) -> bool:
    """Scores of each embedding over folds, contexts and heads, coloured by modality, with ceiling and baselines."""
    metric = facts["metric"]
    points = tables.get("points")
    if points is None or metric not in points:
        return False
    shown = points[(points["role"].isin(SHOWN) & points[metric].notna()).to_numpy()].reset_index(drop=True)
    if not len(shown):
        return False
    board = tables["leaderboard"]
    signs = daggers(board, bundle)
    roles = zip(entries(shown, bundle), shown["role"], strict=True)
    marks = ["" if role == "oracle" else signs.get(entry, "") for entry, role in roles]
    names = [" ".join(filter(None, pair)) for pair in zip(marks, vectors(shown, bundle), strict=True)]
    apart = [bool(mark) or role == "oracle" for mark, role in zip(marks, shown["role"], strict=True)]
    made = shown.assign(value=shown[metric], name=names, apart=apart)
    axes = box_axes(figure, made, bundle, -sign_of(bundle, metric))
    ceiling = points.loc[(points["role"] == "ceiling").to_numpy(), metric].dropna().to_numpy()
    if len(ceiling):
        axes.axhspan(*np.quantile(ceiling, (0.1, 0.9)), color=CEILING, alpha=0.16, linewidth=0)
        axes.axhline(ceiling.mean(), color=CEILING, linewidth=1.5, label="ceiling (mean; band: middle 80 %)")
    base = board[((board["role"] == "baseline") & board["mean"].notna()).to_numpy()].reset_index(drop=True)
    base = base[[name.startswith(BARE) for name in vectors(base, bundle)]].head(len(DASHES)) if len(base) else base
    for dash, row in zip(DASHES, base.to_dict("records"), strict=False):
        axes.axhline(row["mean"], color="#535b66", linewidth=1.1, linestyle=dash, label=row["head"])
    axes.set_ylabel(axis_title(bundle, metric))
    low, high = span(np.concatenate([shown[metric].to_numpy(), ceiling, base["mean"].to_numpy()]))
    cut = low > shown[metric].min() or high < shown[metric].max()
    if cut:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    far = "\nvalues far outside are beyond the axis" if cut else ""
    axes.set_title(f"{title(facts, bundle)}{note(marks)}{far}", fontsize=9, loc="left")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return True


def box_axes(figure: Any, points: pd.DataFrame, bundle: Mapping[str, Any], order: float) -> Any:
    """Boxes of ``value`` per ``name``, lowest ``order * median`` first, rows told ``apart`` last."""
    colours = modality_palette(bundle)
    names, kinds = points["name"].to_numpy(), modalities(points, bundle)
    values = {name: points["value"].to_numpy()[names == name] for name in dict.fromkeys(names)}
    kind, apart = (dict(zip(names, of, strict=True)) for of in (kinds, points["apart"]))
    ordered = sorted(values, key=lambda name: (apart[name], order * float(np.median(values[name])), name))[:MOST]
    longest = max(map(len, shortened(ordered)))  # slanted names need room below and to the left
    figure.set_size_inches(max(4.8, 3.0 + 0.42 * len(ordered)) + 0.04 * longest, 3.2 + 0.05 * longest)
    axes = figure.add_subplot()
    seen: set[str] = set()
    for i, name in enumerate(ordered):
        colour, marker = colours[kind[name]]
        box = axes.boxplot(values[name], positions=[i], widths=0.62, patch_artist=True, showfliers=False)
        for part in (*box["boxes"], *box["whiskers"], *box["caps"], *box["medians"]):
            part.set_color(colour)
        box["boxes"][0].set_facecolor((*rgb(colour), 0.0 if apart[name] else 0.28))
        box["medians"][0].set_linewidth(2)
        label = None if kind[name] in seen else kind[name]
        seen.add(kind[name])
        spread = (np.arange(len(values[name])) * 7919 % 13 / 13 - 0.5) * 0.45
        axes.scatter(i + spread, values[name], s=5, color=colour, marker=marker, alpha=0.6, linewidths=0.6, label=label)
    axes.set_xticks(range(len(ordered)), shortened(ordered), rotation=40, ha="right", rotation_mode="anchor")
    axes.grid(axis="y", color="#d4d9df", linewidth=0.6)
    return axes


def ranks(figure: Any, tables: Mapping[str, pd.DataFrame], bundle: Mapping[str, Any], facts: Mapping[str, str]) -> bool:
    """Ranks of entries within each fold and context (1 = best); descriptive, folds share training data."""
    frame = tables.get("rank_boxes")
    if frame is None or not len(frame):
        return False
    shown = frame[frame["rank"].notna().to_numpy()].reset_index(drop=True)
    made = shown.assign(value=shown["rank"], name=entries(shown, bundle) if len(shown) else "", apart=False)
    if made["name"].nunique() < 2:
        return False
    axes = box_axes(figure, made, bundle, 1.0)
    axes.invert_yaxis()
    axes.set_ylabel(f"rank among {made['name'].nunique()} (1 = best)")
    axes.set_title(f"{title(facts, bundle)} · {facts['metric']} · descriptive", fontsize=9, loc="left")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return True


def critical(figure: Any, part: pd.DataFrame, bundle: Mapping[str, Any], facts: Mapping[str, str]) -> bool:
    """Mean ranks over screens, the critical difference, and bars that join what is not told apart.

    Parameters
    ----------
    part : rows of the ranks table of one metric, split, gene set and kind of entry.
    """
    width = part["critical_difference"].iloc[0] if len(part) else np.nan
    if not np.isfinite(width):
        return False
    part = part.sort_values("mean_rank", kind="stable").head(MOST).reset_index(drop=True)
    figure.set_size_inches(6.4, 1.3 + 0.24 * len(part))
    axes = figure.add_subplot()
    mean = part["mean_rank"].to_numpy()
    axes.scatter(mean, range(len(part)), color=COLOURS[0], s=28, zorder=3)
    axes.plot((mean[0], mean[0] + width), (-1, -1), color="#16191d", linewidth=2.5)
    axes.text(mean[0], -1.25, f"critical difference {width:.2f}", va="bottom", fontsize=8)
    number = 0
    for name in sorted({g for text in part["groups"] for g in str(text).split("; ") if g}, key=int):
        members = [i for i, text in enumerate(part["groups"]) if name in str(text).split("; ")]
        if len(members) > 1:
            at = 1.02 + 0.03 * number
            axes.plot((at, at), (members[0] - 0.25, members[-1] + 0.25), transform=axes.get_yaxis_transform(),
                      color="#16191d", linewidth=3, clip_on=False)  # fmt: skip
            number += 1
    axes.set_yticks(range(len(part)), shortened(relabelled(text, bundle) for text in part["entry"]))
    axes.set_ylim(len(part) - 0.5, -2.2)
    axes.set_xlabel(f"mean rank over {part['n_screens'].iloc[0]:g} screens (1 = best)")
    words = f"{facts['split']} · {facts['metric']} · by {facts['by']}"
    axes.set_title(f"{words}\nbars join entries that are not told apart (Nemenyi)", fontsize=9, loc="left")
    axes.grid(axis="x", color="#d4d9df", linewidth=0.6)
    return True
