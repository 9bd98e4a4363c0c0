"""A whole report as files: the same results give the same bytes (timings apart)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embbench.cache.store import replacing
from embbench.report import tables
from embbench.report.boards import SUBSETS, settings
from embbench.report.choice import choices
from embbench.report.critical import ENTRIES, rank_boxes, ranks
from embbench.report.findings import by_information, decomposition
from embbench.report.layout import answer_sheets, context_sheets, group_sheets, leaderboard_sheets, problem_sheets
from embbench.report.ranking import COVERAGE
from embbench.report.render import csv, markdown

if TYPE_CHECKING:
    import pandas as pd


OPTIONAL = ("composites",)  # tables that not every report has


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
    coverage: float = COVERAGE,
) -> dict[str, Path]:
    """Write the tables of `report_frames` as CSV, and ``leaderboard.md``.

    Parameters
    ----------
    folder : created when absent; each file is replaced atomically.
    scores, runs, ceilings, metrics, facts : result frames and facts of the grid.
    names : metrics in the order shown; None takes all that were scored, by name.
    bootstrap, seed : of the intervals and sign flips.
    coverage : least share of conditions with a prediction of their own of what is ranked.

    Returns
    -------
    dict
        File name -> path. Everything but ``timings.csv`` depends on the results alone.
    """
    order = list(names) if names is not None else sorted(set(scores["metric"])) or sorted(metrics)
    options: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed, "coverage": coverage}
    frames = report_frames(scores, runs, ceilings, metrics, facts, order, **options)
    return write_frames(folder, frames, metrics, facts, order)


def write_frames(
    folder: Path,
    frames: Mapping[str, pd.DataFrame],
    metrics: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
    order: Sequence[str],
) -> dict[str, Path]:
    """Write tables that `report_frames` made, as `write_report` does; file name -> path.

    A table of `OPTIONAL` that an earlier report left and this one does not have is removed: it is of other results.
    """
    for label in OPTIONAL:
        if label not in frames:
            (Path(folder) / f"{label}.csv").unlink(missing_ok=True)
    texts = {f"{label}.csv": csv(frame) for label, frame in frames.items()}
    texts["leaderboard.md"] = _page(frames, order, metrics, facts)
    return {name: _write(Path(folder) / name, content) for name, content in texts.items()}


def report_frames(
    scores: pd.DataFrame,
    runs: pd.DataFrame,
    ceilings: pd.DataFrame | None,
    metrics: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
    order: Sequence[str],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    coverage: float = COVERAGE,
) -> dict[str, pd.DataFrame]:
    """All tables of a report over the metrics ``order``: leaderboard, pairwise, by_context, by_group, decomposition,
    choice, by_information, ranks, rank_boxes, problems, chosen, timings. Pairs, choices and rank boxes are of all
    conditions, the others also of the detectable ones. Parameters as in `write_report`.
    """
    few: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed}
    grouped = settings(runs)
    names = ("leaderboard", "pairwise", "by_context", "by_group", "decomposition", "choice", "rank_boxes")
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in names}
    for name in order:
        part = scores[(scores["metric"] == name).to_numpy()]
        given = (part, grouped, ceilings, metrics)
        board, pairs = tables.leaderboard_and_pairs(*given, metric=name, coverage=coverage, **few)
        bare = (part, grouped, metrics)
        parts["leaderboard"].append(board)
        parts["pairwise"].append(pairs)
        parts["choice"].append(choices(*bare, metric=name, coverage=coverage, **few))
        parts["rank_boxes"].append(rank_boxes(part, runs, metrics, metric=name, coverage=coverage))
        # a statistic per gene over all conditions is not that of some of them
        for subset in SUBSETS if metrics[name].get("level") != "gene" else SUBSETS[:1]:
            where: dict[str, Any] = {"metric": name, "subset": subset, **few}
            if subset != "all":
                parts["leaderboard"].append(tables.leaderboard(*given, coverage=coverage, **where))
            parts["by_context"].append(tables.by_context(*given, **where))
            if metrics[name].get("level") != "gene":
                parts["by_group"].append(tables.by_group(*given, **where))
            parts["decomposition"].append(decomposition(*bare, coverage=coverage, **where))
    frames = {label: _stack(found) for label, found in parts.items()}
    board = frames["leaderboard"]
    frames["by_information"] = by_information(board, metrics)
    frames["ranks"] = _stack([ranks(board, metrics, facts, by=by) for by in ENTRIES])
    return frames | {"problems": tables.problems(runs), "chosen": tables.chosen(runs), "timings": tables.timings(runs)}


def _stack(parts: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    filled = [part for part in parts if len(part)]  # pandas guesses the types of empty frames when it stacks them
    if filled:
        return pd.concat(filled, ignore_index=True)
    return parts[0] if parts else pd.DataFrame(columns=["metric", "subset"])


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
    answers = answer_sheets(frames)
    out += ["## Answers", "", markdown(answers)] if answers else []
    if len(frames["problems"]):
        out += ["## Problems", "", markdown(problem_sheets(frames["problems"]))]
    return "\n".join(out).rstrip() + "\n"


def _write(path: Path, content: str) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="\n")
    return path
