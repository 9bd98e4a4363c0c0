"""Composite scores (the Virtual Cell Challenge's) from a leaderboard that holds their parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from embbench.core import Composite
from embbench.report.boards import BOARD, NAMES, OTHER
from embbench.report.ranking import RANKED, ROLE_ORDER
from embbench.report.sheets import SECTIONS, Line, Section, Sheet, varies

if TYPE_CHECKING:
    import pandas as pd

_SAID = ("best", "rank", "score", "complete", "enough_coverage", "flags", "note")


def composite_table(
    board: pd.DataFrame, composites: Mapping[str, Composite], asked: Collection[str] = ()
) -> pd.DataFrame:
    """One row per composite, board and configuration; methods, baselines, permutations, oracles, each best first.

    Parameters
    ----------
    board : leaderboards of several metrics, stacked (`embbench.report.tables.leaderboard`).
    composites : name -> definition.
    asked : names that somebody asked for; where one cannot be computed, a row without score says why.

    Returns
    -------
    pandas.DataFrame
        ``composite``, `BOARD`, `NAMES`, role, ``best`` (low or high), ``rank``, ``score``, ``complete``,
        ``enough_coverage``, ``flags``, ``note`` and one column per part with its mean. No score where a part is missing
        (of some of its parts it would be another score) or the baseline is not complete; no rank where a part is
        incomplete or covered too little, nor for permutations and oracles.
    """
    import pandas as pd

    where = [c for c in (*BOARD, *NAMES, *OTHER, "role", "config") if c in board.columns]
    columns = ["composite", *where, *_SAID]
    whole = board[(board["subset"] == "all").to_numpy()] if len(board) else board
    boards = whole[list(BOARD)].drop_duplicates().to_dict("records") if len(whole) else []
    out = []
    for name, made in composites.items():
        for place in boards or ([dict.fromkeys(BOARD, "")] if name in asked else []):
            here = whole[(whole[list(BOARD)] == pd.Series(place)).all(axis=1).to_numpy()] if boards else whole
            absent = [part for part in made.parts if not len(here) or part not in set(here["metric"])]
            found = "" if absent else _scored(here, made, where)
            if isinstance(found, str):
                note = f"part {', '.join(absent)} not scored" if absent else found
                found = pd.DataFrame([place | {"note": f"not computed: {note}"}] if name in asked else [])
            if len(found):
                out.append(found.assign(composite=name, best=made.best))
    if not out:
        return pd.DataFrame(columns=columns)
    stacked = pd.concat(out, ignore_index=True)
    for column in columns:
        blank: Any = np.nan if column in ("rank", "score") else False if column in _SAID[3:5] else ""
        stacked[column] = (stacked[column] if column in stacked else pd.Series(blank, stacked.index)).fillna(blank)
    return stacked[[*columns, *(c for c in stacked.columns if c not in columns)]]


def _scored(here: pd.DataFrame, made: Composite, where: list[str]) -> pd.DataFrame | str:
    """The configurations of one board with means of the parts, score and rank; or why there are none."""
    import pandas as pd

    parts = [here[(here["metric"] == part).to_numpy()].set_index(where) for part in made.parts]
    wide = pd.concat([part["mean"] for part in parts], axis=1, keys=list(made.parts))
    told = {c: pd.concat([part[c] for part in parts], axis=1) for c in ("complete", "enough_coverage", "flags")}
    missing = [
        ", ".join(p for p, present in zip(made.parts, row, strict=True) if not present)
        for row in wide.notna().to_numpy()
    ]
    wide["complete"] = (told["complete"] == True).all(axis=1).to_numpy()  # noqa: E712 (absent parts are NaN)
    wide["enough_coverage"] = (told["enough_coverage"] == True).all(axis=1).to_numpy()  # noqa: E712
    words = [{w for v in row if isinstance(v, str) for w in v.split("; ") if w} for row in told["flags"].to_numpy()]
    wide["flags"] = ["; ".join(sorted(found)) for found in words]
    wide["note"] = [f"not computed: part {names} not scored" if names else "" for names in missing]
    wide = wide.reset_index()
    base = _base(wide, made, where)
    if isinstance(base, str):
        return base
    means, known = wide[list(made.parts)].to_numpy(dtype=np.float64), np.array([not names for names in missing])
    score = np.full(len(wide), np.nan)
    for row in np.unique(base[known]):
        mine = known & (base == row)
        score[mine] = made(means[mine], means[row])
    turned = np.round(-score if made.best == "high" else score, 12)
    ranked = np.isfinite(score) & (wide["complete"] & wide["enough_coverage"] & wide["role"].isin(RANKED)).to_numpy()
    wide["score"], wide["rank"] = score, np.nan
    wide.loc[ranked, "rank"] = rankdata(turned[ranked], method="min")
    last = np.where(np.isfinite(turned), turned, np.inf)
    return wide.iloc[np.lexsort((last, ~wide["complete"], wide["role"].map(ROLE_ORDER)))]


def _base(wide: pd.DataFrame, made: Composite, where: list[str]) -> np.ndarray | str:
    """Shape (N,), row of the baseline that shares most settings with each configuration; or why there is none."""
    rows = np.flatnonzero((wide["head"] == made.base).to_numpy())
    if not len(rows):
        return f"baseline {made.base} not scored"
    rows = rows[(wide["complete"] & (wide["note"] == "")).to_numpy()[rows]]
    if not len(rows):
        return f"baseline {made.base} incomplete"
    shared = wide[[c for c in where if c in ("context_embedding", *OTHER)]].astype(str).to_numpy()
    agree = np.stack([(shared == shared[i]).sum(axis=1) for i in rows])
    return rows[np.argmax(agree, axis=0)]


def composite_sheets(frame: pd.DataFrame) -> list[Sheet]:
    """One sheet per composite and board of `composite_table`, with the sections of a leaderboard."""
    groups = frame.groupby(["composite", *BOARD], sort=False)
    return [_sheet(part.reset_index(drop=True)) for _, part in groups] if len(frame) else []


def _sheet(part: pd.DataFrame) -> Sheet:
    first = part.iloc[0]
    said = [first["dataset"], first["split"], first["composite"]]
    title = " · ".join(str(w) for w in said if w) + (
        f" · genes {first['genes']}" if first["genes"] not in ("all", "") else ""
    )
    known = part[part["role"].isin(list(ROLE_ORDER)).to_numpy()]
    if not len(known):
        return Sheet(title, ("note",), (("", (Line((str(first["note"]),)),)),), text_columns=frozenset({"note"}))
    names = [c for c in (*NAMES, *OTHER) if c in part.columns and varies(known, c)]
    made = set(_SAID) | {"composite", *BOARD, *NAMES, *OTHER, "role", "config"}
    parts = [c for c in part.columns if c not in made and part[c].notna().any()]
    short = {
        c: c.partition("_")[0] if [p.partition("_")[0] for p in parts].count(c.partition("_")[0]) == 1 else c
        for c in parts
    }
    lines = []
    for row in known.to_dict("records"):
        mark = "" if row["complete"] and row["enough_coverage"] else "‡" if row["complete"] else "†"
        place = f"{row['rank']:g}" if np.isfinite(row["rank"]) else mark
        score = f"{row['score']:.4f}" if np.isfinite(row["score"]) else "–"
        means = [f"{row[c]:.4g}" if np.isfinite(row[c]) else "–" for c in parts]
        lines.append(Line((place, *(str(row[c]) for c in names), score, *means)))
    sections: list[Section] = []
    for section, roles in SECTIONS.items():
        members = np.flatnonzero(known["role"].isin(roles)).tolist()
        sections += [(section, tuple(lines[i] for i in members))] if members else []
    return Sheet(title, ("#", *names, "score", *short.values()), tuple(sections), _legend(known, parts))


def _legend(known: pd.DataFrame, parts: list[str]) -> tuple[str, ...]:
    name, best = known["composite"].iloc[0], known["best"].iloc[0]
    out = [f"{name}: {'lower' if best == 'low' else 'higher'} is better; made of the means of {', '.join(parts)}."]
    if (~known["complete"].astype(bool)).any():
        out.append("† incomplete in a part: mean over what is there, not ranked.")
    if (known["complete"].astype(bool) & ~known["enough_coverage"].astype(bool) & known["role"].isin(RANKED)).any():
        out.append("‡ too few conditions with a prediction of their own: listed, not ranked.")
    out += [f"–: {note}." for note in sorted(set(known["note"]) - {""})]
    words = sorted({w for v in known["flags"] for w in str(v).split("; ") if w})
    return (*out, f"flags in a part: {'; '.join(words)}.") if words else tuple(out)
