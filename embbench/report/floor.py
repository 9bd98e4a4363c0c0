"""Floor (the best baseline that always runs) and progress: where a score lies between floor and noise ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embbench.report.boards import vectors
from embbench.report.stats import LEVEL, MIN_INTERVAL, Plan, patterns, resampled_means

if TYPE_CHECKING:
    import pandas as pd

UNDEFINED = "undefined"
SHARE = 0.8  # of the conditions of the best defined baseline that a candidate shares with the others
FAR = -10.0  # progress below it, beyond doubt, is no prediction any more
_ROWS = 2000  # configurations whose resamples are held at a time


def add_progress(out: pd.DataFrame, values: np.ndarray, ceiling: np.ndarray, plan: Plan, sign: float) -> None:
    """Add ``floor``, ``floor_name``, ``floor_without``, ``progress`` (``_low``, ``_high``, ``_note``) to a table.

    Parameters
    ----------
    out : the board's configurations (role, complete, head and embedding are read).
    values : shape (N, r), scores.
    ceiling : shape (r,), NaN where a condition has none.
    plan : the resamples, shared by score, floor and ceiling.
    sign : -1.0 where low is best, else 1.0.

    Notes
    -----
    ``progress = (floor - score) / (floor - ceiling)``, a ratio of two-level means over the conditions that have a
    ceiling, a value of every floor candidate and a score; never a mean of ratios. The floor is the best baseline,
    chosen again in every resample; a baseline that is defined on too few conditions to be a candidate is named in
    ``floor_without``. ``undefined`` where the 95 % interval of floor - ceiling holds 0 (or lies on the
    wrong side), so that a resampled denominator of the wrong sign is rare; it counts as an infinite ratio.
    """
    known = np.isfinite(ceiling)
    out["floor"], out["floor_name"], out["floor_without"] = np.nan, "", ""
    for column in ("progress", "progress_low", "progress_high"):
        out[column] = np.nan
    out["progress_note"] = np.where(out["complete"], "" if known.any() else "no ceiling", "incomplete")
    where = known if known.any() else np.ones(len(ceiling), dtype=bool)
    candidates, shared, out["floor_without"] = _candidates(out, values, where)
    if not len(candidates):
        out.loc[out["progress_note"] == "", "progress_note"] = "no baseline"
        return
    level = resampled_means(np.where(shared, values[candidates], np.nan), plan)[:, 0]
    best = int(np.argmax(sign * level))
    out["floor"], out["floor_name"] = level[best], _label(out, int(candidates[best]))
    if not known.any():
        return
    usable = np.isfinite(values) & shared & out["complete"].to_numpy(dtype=bool)[:, None]
    found = np.full((3, len(out)), np.nan)
    notes = out["progress_note"].to_numpy(dtype=object, copy=True)
    for present, members in patterns(usable):
        for start in range(0, len(members), _ROWS):
            part = members[start : start + _ROWS]
            found[:, part], notes[part] = _ratios(values[part], values[candidates], ceiling, present, plan, sign)
    notes[(notes == "") & ~np.isfinite(found[0])] = UNDEFINED
    out["progress"], out["progress_low"], out["progress_high"] = found
    out["progress_note"] = notes


def exploded(out: pd.DataFrame) -> np.ndarray:
    """Bool of shape (N,): far worse than every baseline, so that means over such scores say nothing of the others.

    Progress below `FAR` with its whole interval, and a gap to the floor larger than floor and ceiling themselves: where
    the room between them is small, an ordinary prediction has a progress of minus ten as well.
    """
    size = np.fmax(out["floor"].abs(), out["ceiling"].abs())
    return ((out["progress_high"] < FAR) & ((out["mean"] - out["floor"]).abs() > size)).to_numpy(dtype=bool)


def _candidates(out: pd.DataFrame, values: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Baselines that may be the floor, the rows (r,) of ``where`` on which all of them are defined, and the others.

    Best defined first, a baseline joins where at least `SHARE` of the largest number of conditions stay shared: one
    undefined condition or a failed fold must not change the floor, and no change has no correlation at all.
    """
    rows = np.flatnonzero((out["role"] == "baseline").to_numpy())
    defined = np.isfinite(values[rows]) & where
    count = defined.sum(axis=1)
    shared, kept, dropped = where.copy(), [], []
    for i in np.argsort(-count, kind="stable").tolist():
        if count[i] and (shared & defined[i]).sum() >= SHARE * count.max():
            shared = shared & defined[i]
            kept.append(i)
        else:
            dropped.append(f"{_label(out, int(rows[i]))} ({count[i]} of {int(where.sum())} conditions)")
    return rows[sorted(kept)], shared, "; ".join(sorted(dropped))


def _label(out: pd.DataFrame, row: int) -> str:
    name = str(vectors(out.iloc[[row]])[0])
    return str(out["head"].iloc[row]) + ("" if name == "none" else f" on {name}")


def _ratios(
    values: np.ndarray, baselines: np.ndarray, ceiling: np.ndarray, present: np.ndarray, plan: Plan, sign: float
) -> tuple[np.ndarray, str]:
    """Progress, low and high, shape (3, N), of configurations that share their rows ``present``, and a note."""
    if int(plan.units_seen(np.where(present, 1.0, np.nan)[None])[0]) < MIN_INTERVAL:
        return np.full((3, len(values)), np.nan), f"fewer than {MIN_INTERVAL} units"
    stack = np.where(present, np.vstack([values, baselines, ceiling[None]]), np.nan)
    samples = sign * resampled_means(stack, plan)
    score, floor, top = samples[: len(values)], samples[len(values) : -1].max(axis=0), samples[-1]
    room = top - floor
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    drawn = np.isfinite(room[1:])
    # on the scale of the scores: rounding is no headroom
    if np.quantile(room[1:][drawn], tails[0]) <= 1e-9 * max(abs(top[0]), abs(floor[0])):
        return np.full((3, len(values)), np.nan), UNDEFINED
    gain = score - floor
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(room > 0, gain / room, np.where(gain == 0, 0.0, np.sign(gain) * np.inf))
    low, high = np.quantile(ratio[:, 1:][:, drawn], tails, axis=1, method="inverted_cdf")
    return np.stack([ratio[:, 0], low, high]), ""
