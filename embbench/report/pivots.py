"""Tables over contexts, groups and problems -> sheets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.boards import BOARD, NAMES, OTHER
from embbench.report.sheets import SECTIONS, Line, Section, Sheet, by_board, decimals_of, describe, title, varies

if TYPE_CHECKING:
    import pandas as pd

WIDE_CONTEXTS = 10


def context_sheets(
    frame: pd.DataFrame, metrics: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Mapping[str, Any]]
) -> list[Sheet]:
    """One sheet per board with a column per context, or with min, median and max over contexts when there are many."""
    return [_pivot(part, "context", metrics, facts) for part in by_board(frame)]


def group_sheets(
    frame: pd.DataFrame, metrics: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Mapping[str, Any]]
) -> list[Sheet]:
    """One sheet per board with a column per group of conditions."""
    return [_pivot(part, "group", metrics, facts) for part in by_board(frame)]


def problem_sheets(frame: pd.DataFrame) -> list[Sheet]:
    """Runs that are not done, with reasons; empty when there are none."""
    if not len(frame):
        return []
    shown = [c for c in frame.columns if c not in (*BOARD, "role", "folds") and varies(frame, c)]
    shown = [*[c for c in BOARD if frame[c].nunique() > 1], *shown]
    lines = tuple(Line(tuple(str(v) for v in row)) for row in frame[shown].itertuples(index=False))
    total = int(frame["runs"].sum())
    counts = frame.groupby("status")["runs"].sum()
    title = f"{total} runs without a result: " + ", ".join(f"{n} {status}" for status, n in counts.items())
    return [Sheet(title, tuple(shown), (("", lines),), text_columns=frozenset(shown) - {"runs"})]


def _pivot(
    part: pd.DataFrame, by: str, metrics: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Mapping[str, Any]]
) -> Sheet:
    names = [c for c in (*NAMES, *OTHER) if c in part.columns and varies(part, c)]
    keys = [c for c in (*NAMES, *OTHER, "role", "complete") if c in part.columns]
    wide = part.pivot(index=keys, columns=by, values="mean")
    values = wide.to_numpy(dtype=np.float64)
    headers = [str(c) for c in wide.columns]
    many = len(headers) > WIDE_CONTEXTS
    if many:
        values, headers = _spread(values), ["min", "median", "max"]
    decimals = decimals_of(part, "")
    labels = wide.index.to_frame(index=False)
    sign = -1.0 if metrics[part["metric"].iloc[0]]["best"] == "low" else 1.0
    finite = np.isfinite(values)
    overall = np.nan_to_num(values).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
    order = np.argsort(np.where(finite.any(axis=1), -sign * overall, np.inf), kind="stable")
    labels["head"] += np.where(labels["complete"], "", " †")
    ceiling = part.groupby(by, sort=True)["ceiling"].first().to_numpy(dtype=np.float64)
    sections: list[Section] = []
    if np.isfinite(ceiling).any() and not many:
        blank = [""] * (len(names) - 1)
        shown = [f"{v:.{decimals}f}" if np.isfinite(v) else "–" for v in ceiling]
        sections.append(("Ceiling", (Line(("noise ceiling", *blank, *shown)),)))
    for section, roles in SECTIONS.items():
        members = [i for i in order.tolist() if labels["role"].iloc[i] in roles]
        lines = [
            Line((*labels[names].iloc[i].astype(str), *[f"{v:.{decimals}f}" if v == v else "–" for v in values[i]]))
            for i in members
        ]
        sections += [(section, tuple(lines))] if lines else []
    counts = part.groupby(by, sort=True)["n_conditions"].max()
    told = f"{len(counts)} {by}s of {counts.min()} to {counts.max()}"
    if counts.nunique() == 1:
        told = f"{counts.iloc[0]} in each of {len(counts)}"
    elif not many:
        told = "; ".join(f"{name} {n}" for name, n in counts.items())
    legend = [f"{describe(part, metrics)} Conditions per {by}: {told}."]
    if (~part["complete"]).any():
        legend.append("† incomplete, mean over what is there: see the leaderboard.")
    footer = facts.get(part["dataset"].iloc[0], {}).get("footer")
    legend += [str(footer)] if footer else []
    return Sheet(f"{title(part, facts)} · per {by}", (*names, *headers), tuple(sections), tuple(legend))


def _spread(values: np.ndarray) -> np.ndarray:
    out = np.full((len(values), 3), np.nan)
    for i, row in enumerate(values):
        known = row[np.isfinite(row)]
        out[i] = (known.min(), np.median(known), known.max()) if len(known) else np.nan
    return out
