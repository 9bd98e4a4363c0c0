"""Sheets of the tables that answer questions: embedding or head, simple or complex, information, ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.boards import BOARD
from embbench.report.composites import composite_sheets
from embbench.report.critical import CRITICAL
from embbench.report.decomposition import PARTS
from embbench.report.marks import ABOUT, EXPLODED, short_information
from embbench.report.sheets import Line, Sheet

if TYPE_CHECKING:
    import pandas as pd

_WHERE = ("dataset", "split", "metric")


def answer_sheets(frames: Mapping[str, pd.DataFrame]) -> list[Sheet]:
    """Sheets of ``composites``, ``decomposition``, ``choice``, ``by_information`` and ``ranks``, of those not empty.

    Parameters
    ----------
    frames : name -> table, as `embbench.report.write.report_frames` makes them.
    """
    makers = {"decomposition": _decomposition, "choice": _choice, "by_information": _information, "ranks": _ranks}
    out = [make(frames[name]) for name, make in makers.items() if name in frames and len(frames[name])]
    first = composite_sheets(frames["composites"]) if "composites" in frames else []
    return first + [_without_constants(sheet) for sheet in out if sheet.sections[0][1]]


def _without_constants(sheet: Sheet) -> Sheet:
    """Metric, dataset and split stand in the title where all lines have the same; empty columns go."""
    same = [c for c in _WHERE if c in sheet.columns and len(set(sheet.cells_of(sheet.columns.index(c)))) == 1]
    words = [sheet.title, *(sheet.cells_of(sheet.columns.index(c))[0] for c in same)]
    known = [i for i, name in enumerate(sheet.columns) if name not in same and any(sheet.cells_of(i))]
    kept = sheet.keep(known)
    return replace(kept, title=" · ".join(words))


def _decomposition(frame: pd.DataFrame) -> Sheet:
    lines = []
    for row in frame[frame["subset"] == "all"].to_dict("records"):
        told = [
            f"{_percent(row[p])} [{_percent(row[f'{p}_low'])}, {_percent(row[f'{p}_high'])}]"
            if row[p] == row[p]
            else ""
            for p in PARTS
        ]
        told = [t.replace("%", "") + "%" if t else "" for t in told]
        out = [f"{_percent(row[f'{p}_min'])[:-1]}–{_percent(row[f'{p}_max'])}" for p in PARTS[:2]]
        out = [text if row[f"{p}_min"] == row[f"{p}_min"] else "" for p, text in zip(PARTS, out, strict=False)]
        told = [told[0], out[0], told[1], out[1], told[2]]
        panel = f"{_count(row['embeddings'])} x {_count(row['heads'])}"
        lines.append(Line((*_where(row), *told, panel, str(row["answer"] or row["note"]))))
    legend = (
        "Shares of the variance of progress over a fixed, crossed panel of embeddings x heads (without permuted,"
        " oracle, random and embedding-blind entries), centred and scaled within dataset and context; noise is taken"
        " out, the 95 % intervals resample perturbations and hold for these entries, not for others.",
        "without one: range of the share on its left over the panels without one of the embeddings or heads.",
        "answer: which main effect is larger, by the interval of the difference, and in every panel without one level;"
        " else the levels it depends on. The panel: decomposition.csv.",
    )
    shares = ("embedding", "without one", "head", "w/o one", "interaction")
    columns = ("metric", "dataset", "split", *shares, "panel", "answer")
    return Sheet("Embedding or head?", columns, (("", tuple(lines)),), legend, frozenset((*columns[:3], "answer")))


def _choice(frame: pd.DataFrame) -> Sheet:
    lines = []
    for row in frame[frame["chosen"].astype(bool) & (frame["subset"] == "all")].to_dict("records"):
        sides = [f"{row[f'{k}_head']} on {row[f'{k}_embedding']}" for k in ("simple", "complex")]
        trials = " / ".join(
            f"{row[f'{k}_trials']:.0f}" if row[f"{k}_trials"] >= 0 else "–" for k in ("simple", "complex")
        )
        if row["same_budget"] == "no":
            trials += f" of {row['simple_budget']:.0f} / {row['complex_budget']:.0f}"
        p = f"{row['p']:.2g}" if np.isfinite(row["p"]) else ""
        lines.append(Line((*_where(row), *sides, f"{row['difference']:+.3g}", p, trials, str(row["better"]))))
    legend = (
        "The head of each kind with the best inner selection score, on the embedding where it has it; outer difference"
        " simple - complex on common conditions, positive = simple is better; paired sign flips of perturbations.",
        "trials: selection trials of a run, simple / complex, of those allowed. Where budgets differ, better is not"
        " claimed: the side that may try more chooses better. All pairs of embeddings: choice.csv.",
    )
    columns = ("metric", "dataset", "split", "simple", "complex", "Δ", "p", "trials", "better")
    texts = _texts(columns, 5) | {"better"}
    return Sheet("Best simple head against best complex head", columns, (("", tuple(lines)),), legend, texts)


def _information(frame: pd.DataFrame) -> Sheet:
    lines = []
    for row in frame[frame["subset"] == "all"].to_dict("records"):
        best = f"{row['best_head']} on {row['best_embedding']}"
        shown = [_percent(row[c]) if np.isfinite(row[c]) else "" for c in ("median_progress", "best_progress")]
        beat = f"{row['beat_permuted']}/{row['judged']}"
        lost = f"{row['exploded']}/{row['configurations']}" if (frame["exploded"] > 0).any() else ""
        cells = (
            *_where(row),
            short_information(row["information"]),
            str(row["embeddings"]),
            beat,
            lost,
            *shown,
            f"{row['best_score']:.4g}",
            best,
        )
        lines.append(Line(tuple(map(str, cells))))
    legend: tuple[str, ...] = (
        "A description: the best is the best of many. beat: configurations that beat their own permutations, of those"
        " that were judged. progress: from the floor (0 %) to the noise ceiling (100 %), median over configurations and"
        " that of the best score.",
    )
    if (frame["exploded"] > 0).any():
        legend = (*legend, f"exploded: of all configurations; {ABOUT[EXPLODED].partition(' (')[2].rstrip(')')}.")
    numbers = ("emb.", "beat", "exploded", "median progress", "best progress", "score")
    columns = ("metric", "dataset", "split", "information", *numbers, "best")
    texts = _texts(columns, 4) | {"best"}
    return Sheet("By information", columns, (("", tuple(lines)),), legend, texts)


def _ranks(frame: pd.DataFrame) -> Sheet:
    lines = []
    several = (frame["subset"] == "all") & (frame["n_screens"] > 1)  # one screen's ranks stand in its leaderboard
    for row in frame[several].to_dict("records"):
        width = f"{row['critical_difference']:.2f}" if np.isfinite(row["critical_difference"]) else ""
        cells = (
            row["metric"],
            row["split"],
            row["entry"],
            f"{row['mean_rank']:.2f}",
            row["n_screens"],
            row["label"],
            width,
        )
        lines.append(Line(tuple(map(str, (*cells, row["groups"])))))
    tested = (frame["label"] == CRITICAL).any()
    legend = ("Mean ranks over screens.",)
    if tested:
        legend = ("Mean ranks over screens; entries that share a group are not told apart (Friedman, Nemenyi).",)
    columns = ("metric", "split", "entry", "rank", "screens", "label", "CD", "groups")
    return Sheet("Ranks over screens", columns, (("", tuple(lines)),), legend, _texts(columns, 3) | {"label", "groups"})


def _texts(columns: tuple[str, ...], number: int) -> frozenset[str]:
    return frozenset(columns[:number])


def _where(row: Mapping[Any, Any]) -> tuple[str, str, str]:
    genes = "" if row["genes"] == "all" else f" genes {row['genes']}"
    return str(row["metric"]), str(row[BOARD[0]]) + genes, str(row["split"])


def _percent(share: float) -> str:
    return f"{100 * share + 0.0:.0f}%".replace("-0%", "0%")


def _count(levels: str) -> int:
    return len(levels.split("; ")) if levels else 0
