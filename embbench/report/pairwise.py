"""Every pair of embeddings under a head, and of heads on an embedding, on the conditions that both cover."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embbench.report.boards import NAMES, OTHER, Board
from embbench.report.flips import flip_p
from embbench.report.ranking import comparable
from embbench.report.stats import LEVEL, MIN_CLAIM, RESOLUTION, Plan, cluster_sums, holm, interval, resampled_means

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"embeddings": "embedding", "heads": "head"}
TESTED = ("method", "random")
COLUMNS: tuple[str, ...] = (
    "kind",
    "shared",
    "first",
    "second",
    "mean_first",
    "mean_second",
    "difference",
    "low",
    "high",
    "n_units",
)
COLUMNS = (*COLUMNS, "n_conditions", "p", "p_holm", "better")
_PAIRS = 4000  # whose resamples are held at a time


def pairwise(
    board: Board, ranked: pd.DataFrame, places: np.ndarray, plan: Plan, *, sign: float, seed: int, whole: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All pairs of a board, Holm over all of them, and how often each configuration was better or worse.

    Parameters
    ----------
    board, ranked, places : the board and what `embbench.report.ranking.rank` made of it.
    plan : of the board's rows.
    sign : -1.0 where low is best, else 1.0.
    seed : of the sign flips.
    whole : leave out pairs of entries that do not cover all conditions (a statistic per gene is over all of them).

    Returns
    -------
    pairs : `COLUMNS` plus the coordinates `OTHER`; ``difference`` > 0 where the first is better.
    counts : ``pairs`` (those with enough units to be tested), ``pairs_better``, ``pairs_worse``, per row of ``ranked``.

    Notes
    -----
    The cluster is the unit of the board (a perturbation with all its contexts): the paired sign-flip test of
    `embbench.report.flips` on two-level means, intervals by cluster bootstrap. ``better`` names the first or second
    where Holm's p <= 0.05, "–" where it does not, or below `MIN_CLAIM` units. Between embeddings it also needs a yes in
    one of the winner's verdict columns: of two embeddings that carry nothing, the one that disturbs the head less
    scores better, truly, and that is no reason to choose it. Thereby pairs add nothing to the false declarations of a
    board, whose verdict columns are one family.
    """
    first, second, kind = _pairs(ranked)
    values, covered = board.per_table(board.values)[places], board.per_table(board.covered)[places]
    usable = np.where(covered > 0, values, np.nan)
    if whole:
        full = (np.isfinite(usable) == np.isfinite(values)).all(axis=1)
        alike = full[first] & full[second] & (np.isfinite(values[first]) == np.isfinite(values[second])).all(axis=1)
        first, second, kind = first[alike], second[alike], kind[alike]
    found = paired(usable, first, second, plan, sign, seed)
    table = _table(ranked, first, second, kind).assign(**found)
    table["p_holm"] = holm(np.where(table["n_units"] >= MIN_CLAIM, table["p"], np.nan))
    winner = np.where(table["difference"] > 0, first, second)
    carries = (ranked[["beats_permuted", "beats_context_mean"]] == "yes").any(axis=1).to_numpy()
    size = np.fmax(np.abs(found["mean_first"]), np.abs(found["mean_second"]))
    declared = (table["p_holm"] <= 1 - LEVEL + 1e-12).to_numpy() & (table["difference"].abs() > RESOLUTION * size)
    declared &= (kind == "heads") | carries[winner]
    named = np.where(table["difference"] > 0, table["first"], table["second"])
    table["better"] = np.where(declared, named, "–")
    n, tested = len(ranked), np.isfinite(table["p_holm"].to_numpy())
    loser = first + second - winner
    counts = {
        "pairs": np.bincount(first[tested], minlength=n) + np.bincount(second[tested], minlength=n),
        "pairs_better": np.bincount(winner[declared], minlength=n),
        "pairs_worse": np.bincount(loser[declared], minlength=n),
    }
    return table[[*COLUMNS, *[c for c in (*NAMES[2:], *OTHER) if c in table]]], ranked[[]].assign(**counts)


def _pairs(ranked: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = np.flatnonzero(comparable(ranked) & ranked["role"].isin(TESTED).to_numpy())
    firsts, seconds, kinds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, dtype=object)]
    for kind, free in KINDS.items():
        shared = [c for c in (*NAMES, *OTHER) if c != free]
        part = ranked.iloc[rows].reset_index(drop=True)
        for members in part.groupby(shared, sort=True, dropna=False).indices.values():
            order = rows[members[np.argsort(part[free].to_numpy()[members], kind="stable")]]
            i, j = np.triu_indices(len(order), 1)
            firsts.append(order[i])
            seconds.append(order[j])
            kinds.append(np.full(len(i), kind, dtype=object))
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(kinds)


def _table(ranked: pd.DataFrame, first: np.ndarray, second: np.ndarray, kind: np.ndarray) -> pd.DataFrame:
    names = {c: ranked[c].to_numpy(dtype=object) for c in NAMES}
    out = ranked.iloc[first][[*NAMES[2:], *OTHER]].reset_index(drop=True)
    embeddings = kind == "embeddings"
    out["kind"] = kind
    out["shared"] = np.where(embeddings, names["head"][first], names["embedding"][first])
    for label, rows in (("first", first), ("second", second)):
        out[label] = np.where(embeddings, names["embedding"][rows], names["head"][rows])
    return out


def paired(
    usable: np.ndarray, first: np.ndarray, second: np.ndarray, plan: Plan, sign: float, seed: int
) -> dict[str, np.ndarray]:
    """Means, difference, interval, counts and p of each pair on its common rows, each of shape (P,)."""
    floats = ("mean_first", "mean_second", "difference", "low", "high", "p")
    out = {name: np.full(len(first), np.nan) for name in floats}
    out |= {name: np.zeros(len(first), np.int64) for name in ("n_units", "n_conditions")}
    finite = np.isfinite(usable)
    _, code = np.unique(np.packbits(finite, axis=1), axis=0, return_inverse=True)
    code = code.ravel()
    ends = np.sort(np.stack([code[first], code[second]]), axis=0)
    order = np.lexsort(ends)
    cuts = np.flatnonzero(np.any(np.diff(ends[:, order]) != 0, axis=0)) + 1
    for members in np.split(order, cuts) if len(order) else []:
        common = finite[first[members[0]]] & finite[second[members[0]]]
        if not common.any():
            continue
        rows, place = np.unique(np.concatenate([first[members], second[members]]), return_inverse=True)
        i, j = place[: len(members)], place[len(members) :]
        values = sign * np.where(common, usable[rows], np.nan)
        units = int(plan.units_seen(values[:1])[0])
        out["n_units"][members], out["n_conditions"][members] = units, int(common.sum())
        sums = cluster_sums(values, plan)[np.unique(plan.unit[common])]
        out["p"][members] = flip_p(sums, seed, two_sided=True, first=i, second=j)
        samples = resampled_means(values, plan)
        out["mean_first"][members], out["mean_second"][members] = sign * samples[i, 0], sign * samples[j, 0]
        for start in range(0, len(members), _PAIRS):
            part = slice(start, start + _PAIRS)
            gaps = samples[i[part]] - samples[j[part]]
            out["difference"][members[part]] = gaps[:, 0]
            out["low"][members[part]], out["high"][members[part]] = interval(gaps, units)
    return out
