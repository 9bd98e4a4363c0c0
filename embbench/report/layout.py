"""Leaderboard -> sheets: sections, formatted cells and legends, independent of terminal or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.answers import answer_sheets
from embbench.report.boards import NAMES, OTHER, STATUSES
from embbench.report.floor import UNDEFINED
from embbench.report.marks import ABOUT, EXPLODED, FLAGS, INFORMATION, kinds_of, short_flags, short_information
from embbench.report.pivots import context_sheets, group_sheets, problem_sheets
from embbench.report.ranking import RANKED
from embbench.report.sheets import SECTIONS, Line, Section, Sheet, by_board, decimals_of, describe, title, varies
from embbench.report.stats import LEVEL, MIN_CLAIM, MIN_INTERVAL

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["answer_sheets", "context_sheets", "group_sheets", "leaderboard_sheets", "problem_sheets"]


def leaderboard_sheets(
    frame: pd.DataFrame,
    metrics: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
    *,
    top: int | None = None,
) -> list[Sheet]:
    """One sheet per metric, subset, dataset, split and gene set of a leaderboard frame.

    Parameters
    ----------
    frame : from `embbench.report.tables.leaderboard` (several may be stacked).
    facts : dataset name -> facts (controls, simulated, footer).
    top : rows shown per section; the legend says how many were left out. None shows all.
    """
    return [_leaderboard(part, metrics, facts, top) for part in by_board(frame)]


def _leaderboard(
    part: pd.DataFrame,
    metrics: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
    top: int | None,
) -> Sheet:
    names = [c for c in (*NAMES, *OTHER) if c in part.columns and varies(part, c)]
    cells = _cells(part)
    columns = ("#", *names, *cells)
    lines = [Line(row, bold=bool(best)) for row, best in zip(_rows(part, names, cells), part["best"], strict=True)]
    decimals = decimals_of(part, "")
    sections: list[Section] = [
        ("Ceiling, floor", (_ceiling(part, columns, decimals), *_floor(part, columns, decimals)))
    ]
    left_out = []
    for section, roles in SECTIONS.items():
        members = np.flatnonzero(part["role"].isin(roles)).tolist()
        if top is not None and len(members) > top:
            left_out.append(f"{section.partition(' (')[0].lower()}: {len(members) - top} more rows in leaderboard.csv.")
        if members:
            sections.append((section, tuple(lines[i] for i in members[:top])))
    # flags are never hidden: a score without them may be one that saw the truth
    hidable = tuple(c for c in ("undefined", "cov", "info", "pairs", "Δ ctx mean") if c in columns)
    return Sheet(
        title(part, facts), columns, tuple(sections), (*_legend(part, metrics, facts), *left_out), hidable=hidable
    )


def _rows(part: pd.DataFrame, names: Sequence[str], cells: Mapping[str, list[str]]) -> list[tuple[str, ...]]:
    ranks = [f"{v:g}" if np.isfinite(v) else "" for v in part["rank"].to_numpy(dtype=np.float64, na_value=np.nan)]
    totals = part[list(STATUSES)].sum(axis=1)
    shares = ["" if ok else f"†{d}/{n}" for ok, d, n in zip(part["complete"], part["done"], totals, strict=True)]
    low = ~part["enough_coverage"] & part["role"].isin(RANKED)
    shares = [share or ("‡" if few else "") for share, few in zip(shares, low, strict=True)]
    ranks = [rank or share for rank, share in zip(ranks, shares, strict=True)]
    labels = [part[c].astype(str).tolist() for c in names]
    return list(zip(ranks, *labels, *cells.values(), strict=True))


def _cells(part: pd.DataFrame) -> dict[str, list[str]]:
    score = _intervals(part, "mean", "low", "high", decimals_of(part, ""))
    out = {"score": score}
    if part["progress"].notna().any() or (part["progress_note"] == UNDEFINED).any():
        out["progress"] = _progress(part)
    for name, header in (("permuted", "Δ permuted"), ("context_mean", "Δ ctx mean")):
        column = f"vs_{name}"
        if not part[column].notna().any():
            continue
        texts = _intervals(part, column, f"{column}_low", f"{column}_high", decimals_of(part, column), signed=True)
        if name == "context_mean" or "progress" in out:  # full intervals are in the CSV; the terminal has 100 columns
            texts = [text.partition(" ")[0] for text in texts]
        verdicts = part[f"beats_{name}"].tolist()
        said = set(verdicts) != {"–"}
        out[header] = [f"{t} {v:>3}" if t and said else t for t, v in zip(texts, verdicts, strict=True)]
    if (part["coverage"] < 1).any():
        out["cov"] = [f"{v:.0%}" if np.isfinite(v) else "" for v in part["coverage"]]
    if (part["query_controls"] != "").any():
        out["q.ctrl"] = part["query_controls"].astype(str).tolist()
    if (part["undefined"] > 0).any():
        out["undefined"] = [str(v) if v else "" for v in part["undefined"]]
    if part["pairs"].any():
        told = zip(part["pairs"], part["pairs_better"], part["pairs_worse"], strict=True)
        out["pairs"] = [f"+{up} -{down}" if n else "" for n, up, down in told]
    if any(short_information(v) for v in part["information"]):
        out["info"] = [short_information(v) for v in part["information"]]
    if (part["flags"] != "").any():
        out["flags"] = [short_flags(v) for v in part["flags"]]
    if (part["config"] != "").any():
        out["id"] = [
            "" if draws else str(v)[:8]
            for v, draws in zip(part["config"], part["draws"] * (part["role"] == "permuted"), strict=True)
        ]
    return out


def _progress(part: pd.DataFrame) -> list[str]:
    """``47% [31, 60]``; the undefined and the exploded say so (a number of nine digits says no more)."""
    out = []
    numbers = part[["progress", "progress_low", "progress_high"]].to_numpy(dtype=np.float64)
    for (value, low, high), note, flags in zip(numbers.tolist(), part["progress_note"], part["flags"], strict=True):
        if EXPLODED in flags.split("; "):
            out.append(EXPLODED)
            continue
        shares = [f"{np.round(100 * v) + 0.0:.0f}" for v in (value, low, high)]  # no minus before zero
        known = f"{shares[0]}% [{shares[1]}, {shares[2]}]"
        out.append(known if np.isfinite(value) else UNDEFINED if note == UNDEFINED else "")
    return out


def _floor(part: pd.DataFrame, columns: Sequence[str], decimals: int) -> tuple[Line, ...]:
    value, name = part["floor"].iloc[0], part["floor_name"].iloc[0]
    if not np.isfinite(value):
        return ()
    cells = dict.fromkeys(columns, "") | {"head": "floor", "score": f"{value:.{decimals}f}"}
    place = next((c for c in ("embedding", "context_embedding") if c in cells), "head")
    cells[place] = f"{cells[place]} {name}".strip()
    return (Line(tuple(cells.values())),)


def _ceiling(part: pd.DataFrame, columns: Sequence[str], decimals: int) -> Line:
    value, note = part["ceiling"].iloc[0], part["ceiling_note"].iloc[0]
    text = f"{value:.{decimals}f}" if np.isfinite(value) else "not available"
    known, total = int(part["ceiling_conditions"].iloc[0]), int(part["n_conditions"].max())
    partly = f" ({known} of {total} conditions)" if 0 < known < total else ""
    cells = dict.fromkeys(columns, "")
    cells["head"] = "noise ceiling"
    cells["score"] = text
    if np.isfinite(value):
        place = next((c for c in ("embedding", "context_embedding") if c in cells), "head")
        cells[place] = f"{cells[place]} {note}{partly}".strip()
    return Line(tuple(cells.values()))


def _intervals(part: pd.DataFrame, mean: str, low: str, high: str, decimals: int, *, signed: bool = False) -> list[str]:
    sign = "+" if signed else ""
    out = []
    numbers = np.round(part[[mean, low, high]].to_numpy(dtype=np.float64), decimals) + 0.0  # no minus before zero
    for m, a, b in numbers.tolist():
        text = f"{m:{sign}.{decimals}f}" if np.isfinite(m) else ("" if signed else "undefined")
        out.append(f"{text} [{a:.{decimals}f}, {b:.{decimals}f}]" if np.isfinite(a) and text else text)
    return out


def _legend(
    part: pd.DataFrame, metrics: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    n, unit = int(part["n_units"].max()), str(part["unit"].iloc[0])
    conditions, contexts = int(part["n_conditions"].max()), int(part["n_contexts"].max())
    out = [
        f"{describe(part, metrics)} Mean over conditions within a context, then over contexts"
        f" ({conditions} conditions, {contexts} contexts)."
    ]
    if n >= MIN_INTERVAL:
        out.append(f"[low, high]: {LEVEL:.0%} percentile bootstrap over {n} {unit}, the same resamples for all rows.")
    else:
        out.append(f"n = {n} {unit}: no interval (needs {MIN_INTERVAL}).")
    if n < MIN_CLAIM:
        out.append(f"n = {n} {unit}: no winner claimed (needs {MIN_CLAIM}).")
    elif part["best"].any():
        out.append("Bold: the best and all that are not told apart from it (paired interval of the gap holds 0).")
    out += _progress_legend(part)
    if part["vs_permuted"].notna().any():
        out += _permuted_legend(part)
    if part["vs_context_mean"].notna().any():
        said = (part["beats_context_mean"] != "–").any()
        verdict = " yes: interval above 0, and sign-flip test (same Holm family)." if said else ""
        out.append(f"Δ ctx mean: paired difference to the context mean, positive = better.{verdict}")
    if part["pairs"].any():
        out.append(
            "pairs: entries with the same head or embedding that are told apart: this one is better than +n and worse"
            " than -n of them (paired sign flips of whole perturbations on common conditions, Holm; pairwise.csv)."
        )
    level = metrics[part["metric"].iloc[0]].get("level")
    if level == "set":
        told = str(part["candidates"].iloc[0]) if "candidates" in part else ""
        among = f" ({told}, the own one included)" if told else ""
        out.append(
            f"A value depends on the conditions of its fold and context{among}; resamples keep the values as they are."
        )
    if level == "gene":
        out.append(
            "A statistic per gene over the conditions of a context; a condition's value is its linear part (leave one"
            " out), the mean is the mean over genes, and intervals are those of an infinitesimal jackknife. An entry"
            " that does not cover all conditions is in no pair: the statistic of some of them is another one."
        )
    if (part["query_controls"] != "").any():
        out.append("q.ctrl: the embedding uses query controls, the unperturbed cells of held-out contexts.")
    if (part["config"] != "").any():
        out.append("id: for embbench predict --run and embbench explain --run.")
    if (~part["complete"]).any():
        out.append(
            "† runs done/all: incomplete (runs or rows missing), mean over what is there, neither ranked nor compared."
        )
    out += _marks_legend(part)
    if (part["coverage"] < 1).any():
        out.append(
            "cov: share of the conditions with a prediction of their own (they have a vector, or rows the head needs)."
        )
    fallback = sorted(set(part["fallback"][part["coverage"] < 1]) - {""})
    if fallback:
        out.append(f"Uncovered conditions are predicted by the fallback: {'; '.join(fallback)}.")
    footer = facts.get(part["dataset"].iloc[0], {}).get("footer")
    return [*out, str(footer)] if footer else out


def _progress_legend(part: pd.DataFrame) -> list[str]:
    if not np.isfinite(part["floor"].iloc[0]):
        return []
    left_out = str(part["floor_without"].iloc[0])
    known = int(part["ceiling_conditions"].iloc[0])
    without = f"; defined on too few conditions to be one: {left_out}" if left_out else ""
    out = [f"floor: the best of the baselines that always run, {part['floor_name'].iloc[0]}{without}."]
    if known:
        partly = f", on the {known} conditions with a ceiling" if known < int(part["n_conditions"].max()) else ""
        out.append(
            f"progress: (floor - score) / (floor - ceiling) of the means{partly}; joint resamples, the floor chosen"
            " again in each; undefined where the interval of floor - ceiling holds 0."
        )
    return out


def _marks_legend(part: pd.DataFrame) -> list[str]:
    out = []
    if (~part["enough_coverage"] & part["complete"] & part["role"].isin(RANKED)).any():
        out.append("‡ too few conditions with a prediction of their own: listed, not ranked.")
    words = sorted({w for v in part["flags"] for w in v.split("; ") if w})
    if words:
        out.append(f"flags: {'; '.join(f'{FLAGS[w]} {ABOUT.get(w, w)}' if w in FLAGS else w for w in words)}.")
    kinds = sorted({kind for v in part["information"] for kind in kinds_of(v)})
    if kinds:
        shown = [f"{INFORMATION[w]} = {w}" if INFORMATION.get(w, w) != w else w for w in kinds]
        out.append(f"info, what the embedding was made from: {'; '.join(shown)}.")
    return out


def _permuted_legend(part: pd.DataFrame) -> list[str]:
    out = ["Δ permuted: paired difference to the embedding's own permutations, positive = better."]
    said = int((part["beats_permuted"] != "–").sum())
    if said:
        out.append(
            "yes: interval above 0, and gap beyond the spread of the draws (5 %, Holm over the"
            f" {int(part['verdicts'].max())} verdicts of this table)."
        )
    if (part["vs_permuted"].notna() & (part["beats_permuted"] == "–")).any():
        out.append("–: too few units (10) or permutation draws (5) for a verdict.")
    return out
