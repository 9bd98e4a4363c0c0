"""A whole report as files: the same results give the same bytes (timings apart)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embbench.cache.store import replacing
from embbench.report import tables
from embbench.report.boards import SUBSETS, settings
from embbench.report.layout import context_sheets, group_sheets, leaderboard_sheets, problem_sheets
from embbench.report.render import csv, markdown

if TYPE_CHECKING:
    import pandas as pd


def write_report(
    folder: Path,
    *,
    scores: pd.DataFrame,
    runs: pd.DataFrame,
    ceilings: pd.DataFrame | None,
    metrics: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
    names: Sequence[str] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Path]:
    """Write ``leaderboard.csv``, ``leaderboard.md``, ``by_context.csv``, ``by_group.csv``, ``problems.csv``,
    ``chosen.csv`` and ``timings.csv``.

    Parameters
    ----------
    folder : created when absent; each file is replaced atomically.
    scores, runs, ceilings, metrics, facts : result frames and facts of the grid.
    names : metrics in the order shown; None takes all that were scored, by name.
    bootstrap, seed : of the intervals.

    Returns
    -------
    dict
        File name -> path. Everything but ``timings.csv`` depends on the results alone.
    """
    order = list(names) if names is not None else sorted(set(scores["metric"])) or sorted(metrics)
    options = {"bootstrap": bootstrap, "seed": seed}
    grouped = settings(runs)
    makers = {"leaderboard": tables.leaderboard, "by_context": tables.by_context, "by_group": tables.by_group}
    frames = {}
    by_metric = {name: scores[(scores["metric"] == name).to_numpy()] for name in order}
    for label, make in makers.items():
        parts = [
            make(by_metric[name], grouped, ceilings, metrics, metric=name, subset=subset, **options)
            for name in order
            for subset in SUBSETS
        ]
        frames[label] = _stack(parts)
    frames |= {"problems": tables.problems(runs), "chosen": tables.chosen(runs), "timings": tables.timings(runs)}
    texts = {f"{label}.csv": csv(frame) for label, frame in frames.items()}
    texts["leaderboard.md"] = _page(frames, order, metrics, facts)
    return {name: _write(Path(folder) / name, content) for name, content in texts.items()}


def _stack(parts: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    filled = [part for part in parts if len(part)]  # pandas guesses the types of empty frames when it stacks them
    if filled:
        return pd.concat(filled, ignore_index=True)
    return parts[0] if parts else pd.DataFrame()


def _page(
    frames: Mapping[str, pd.DataFrame],
    order: Sequence[str],
    metrics: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
) -> str:
    board, contexts, groups = (frames[name] for name in ("leaderboard", "by_context", "by_group"))
    missing = [name for name in order if not len(board) or name not in set(board["metric"])]
    out = ["# Leaderboard", ""]
    out += [f"Not scored: {', '.join(missing)}.", ""] if missing else []
    out.append(markdown(leaderboard_sheets(board, metrics, facts)) if len(board) else "")
    for title, frame, column, make in (
        ("Per context", contexts, "context", context_sheets),
        ("Per group", groups, "group", group_sheets),
    ):
        if len(frame) and frame[column].nunique() > 1:
            out += [f"## {title}", "", markdown(make(frame[frame["subset"] == "all"], metrics, facts))]
    if len(frames["problems"]):
        out += ["## Problems", "", markdown(problem_sheets(frames["problems"]))]
    return "\n".join(out).rstrip() + "\n"


def _write(path: Path, content: str) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="\n")
    return path
