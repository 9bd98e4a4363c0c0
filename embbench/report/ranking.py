"""One board -> one ranked table: means, noise ceiling, own permutation, context mean, best."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from embbench.report.boards import OTHER, Board, vectors
from embbench.report.floor import add_progress, exploded
from embbench.report.marks import ABOVE, EXPLODED
from embbench.report.stats import (
    MIN_CLAIM,
    RESOLUTION,
    Plan,
    Versus,
    holm,
    plan,
    summarise,
    versus_draws,
    versus_reference,
)

if TYPE_CHECKING:
    import pandas as pd

ROLE_ORDER = {"method": 0, "baseline": 1, "random": 1, "permuted": 2, "oracle": 3}
RANKED = ("method", "baseline", "random")
UNAVAILABLE = "not available"
VARIANT = "noise_free"  # of the ceiling that progress is measured against
COVERAGE = 0.8  # least share of covered conditions of what is ranked


def ceiling_values(ceilings: pd.DataFrame | None, board: Board, metric: str) -> tuple[np.ndarray, str]:
    """Ceiling, shape (r,), of each row of the board, NaN where there is none, and where it comes from."""
    out = np.full(len(board.rows), np.nan)
    if ceilings is None or not len(ceilings):
        return out, UNAVAILABLE
    keep = ceilings["metric"] == metric
    if "variant" in ceilings:
        keep &= ceilings["variant"].astype(object).where(ceilings["variant"].notna(), "").isin(["", VARIANT])
    for column in ("dataset", "split", "genes"):
        if column in ceilings:
            keep &= ceilings[column] == board.where[column]
    part = ceilings[keep].drop_duplicates("row").set_index("row")
    out = part["value"].reindex(board.rows["row"]).to_numpy(dtype=np.float64)
    notes = sorted(set(part["note"].reindex(board.rows["row"][np.isfinite(out)])))
    return out, "; ".join(notes) or UNAVAILABLE


def complete_draws(board: Board) -> np.ndarray:
    """Bool of shape (draws,): every fold done and every row of the board scored."""
    waiting = board.draws[["failed", "skipped", "pending"]].sum(axis=1).to_numpy()
    return (waiting == 0) & board.present.all(axis=1)


def means(board: Board, ceiling: np.ndarray, columns: np.ndarray, plan: Plan) -> pd.DataFrame:
    """Mean, interval, counts and ceiling of every configuration over the rows ``columns``, which ``plan`` describes."""
    values = board.per_table(board.values[:, columns])
    finite = np.isfinite(values)
    out = board.table.assign(**board.where)
    out["mean"], out["low"], out["high"], out["n_units"] = summarise(values, plan)
    out["unit"] = "contexts" if plan.over_contexts else "perturbations"
    out["n_conditions"] = finite.sum(axis=1)
    out["n_contexts"] = sum(finite[:, plan.context == c].any(axis=1).astype(np.int64) for c in np.unique(plan.context))
    missing = np.zeros(values.shape, dtype=bool)
    np.logical_or.at(missing, board.of_draw, board.undefined[:, columns] > 0)  # conditions, however many seeds or draws
    out["undefined"] = missing.sum(axis=1)
    out["ceiling"] = summarise(ceiling[None, columns], plan)[0][0]
    out["ceiling_conditions"] = int(np.isfinite(ceiling[columns]).sum())
    out["complete"] = _per_table(board, ~complete_draws(board)) == 0
    return out


def rank(
    board: Board, ceiling: np.ndarray, note: str, *, sign: float, resamples: int, seed: int, coverage: float = COVERAGE
) -> tuple[pd.DataFrame, np.ndarray]:
    """The board's leaderboard: `means` plus comparisons, progress, ranks and order.

    Parameters
    ----------
    ceiling, note : from `ceiling_values`.
    sign : -1.0 where low is best, else 1.0.
    coverage : least share of covered conditions of what is ranked.

    Returns
    -------
    table : one row per configuration, ordered.
    places : shape (N,), row of ``board.table`` of each row of ``table``.
    """
    resampling = board_plan(board, resamples, seed)
    out = means(board, ceiling, np.arange(len(board.rows)), resampling)
    out["ceiling_note"] = note
    covered, scored = (_per_table(board, m.sum(axis=1)) for m in (np.nan_to_num(board.covered), board.present))
    out["coverage"] = np.divide(covered, scored, out=np.full(len(out), np.nan), where=scored > 0)
    values = board.per_table(board.values)
    _add_verdicts(out, board, values, resampling, sign, seed)
    add_progress(out, values, ceiling, resampling, sign)
    for word, where in ((ABOVE, out["progress_low"].to_numpy() > 1 + RESOLUTION), (EXPLODED, exploded(out))):
        out.loc[where, "flags"] = [_with_word(v, word) for v in out.loc[where, "flags"]]
    out["enough_coverage"] = ~(out["coverage"] < coverage)
    _add_best(out, values, resampling, sign)
    role = out["role"].map(ROLE_ORDER)
    order = np.lexsort((np.arange(len(out)), _worst_last(out["mean"], sign), ~out["complete"], role))
    return out.iloc[order].reset_index(drop=True), order


def board_plan(board: Board, resamples: int, seed: int) -> Plan:
    """The resamples of a board: over perturbations, or over contexts where contexts are held out."""
    context, unit = (board.rows[c].to_numpy() for c in ("context", "unit"))
    return plan(context, unit, over_contexts=board.over_contexts, resamples=resamples, seed=seed)


def _with_word(words: str, word: str) -> str:
    return "; ".join(sorted({*filter(None, words.split("; ")), word}))


def _per_table(board: Board, weights: np.ndarray) -> np.ndarray:
    return np.bincount(board.of_draw, weights=weights, minlength=len(board.table))


def _worst_last(mean: pd.Series, sign: float) -> np.ndarray:
    # equal scores may differ in their last bit, which must not order them
    return np.where(mean.isna(), np.inf, -sign * np.round(mean.to_numpy(dtype=np.float64), 12))


def own_permutation(table: pd.DataFrame) -> np.ndarray:
    """Of shape (N,): for each configuration the row of its own permutation (everything else equal), -1 without one.

    With several (parts of it permuted), the one that permutes the whole embedding and nothing else goes first.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"head": "ridge", "embedding": ["go", "permuted:go"], "embedding_origin": "go"})
    >>> table = table.assign(context_embedding="none", context_embedding_origin="none", **dict.fromkeys(OTHER, ""))
    >>> own_permutation(table).tolist()
    [1, -1]
    """
    names = table[["embedding", "context_embedding"]].to_numpy()
    origins = table[["embedding_origin", "context_embedding_origin"]].to_numpy()
    shared = list(map(tuple, table[["head", *OTHER]].to_numpy()))
    permuted = names != origins
    found: dict[tuple[object, ...], tuple[int, int]] = {}
    for i in np.flatnonzero(permuted.any(axis=1)).tolist():
        whole = all(block.startswith("permuted:") for block in names[i, 0].split("+"))
        order = int(permuted[i, 1]) if whole else 2 + int(not permuted[i, 0])
        key = (*origins[i], *shared[i])
        found[key] = min(found.get(key, (order, i)), (order, i))
    real = ~permuted.any(axis=1)
    return np.array([found.get((*origins[i], *shared[i]), (0, -1))[1] if real[i] else -1 for i in range(len(table))])


def comparable(out: pd.DataFrame) -> np.ndarray:
    """Bool of shape (N,): complete, defined, and no oracle."""
    return (out["complete"] & (out["role"] != "oracle") & out["mean"].notna()).to_numpy()


def _write(out: pd.DataFrame, name: str, rows: np.ndarray, versus: Versus, verdict: list[str]) -> None:
    for suffix, field in (("", versus.mean), ("_low", versus.low), ("_high", versus.high)):
        column = np.full(len(out), np.nan)
        column[rows] = field
        out[f"vs_{name}{suffix}"] = column
    words = np.full(len(out), "–", dtype=object)
    words[rows] = verdict
    out[f"beats_{name}"] = words


def _add_verdicts(out: pd.DataFrame, board: Board, values: np.ndarray, plan: Plan, sign: float, seed: int) -> None:
    """Both verdict columns as one family: a board without signal says yes anywhere in at most 5 % of cases."""
    own = plan.units_seen(np.where(board.per_table(board.covered) > 0, 1.0, np.nan))  # fallbacks are no evidence
    rows, permuted = _permuted(out, board, values, plan, sign, seed)
    others, reference = _context_mean(out, values, plan, sign, seed)
    permuted = replace(permuted, units=np.minimum(permuted.units, own[rows]))
    claims = np.where((out["role"] == "permuted").to_numpy(), 0, own)  # shuffled names claim nothing
    reference = replace(reference, units=np.minimum(reference.units, claims[others]))
    tested = [np.where(v.tested(needs_draws=draws), v.p, np.nan) for v, draws in ((permuted, True), (reference, False))]
    family = holm(np.concatenate(tested))
    scale = out["mean"].to_numpy(dtype=np.float64)
    for name, where, versus, part, draws in (
        ("permuted", rows, permuted, family[: len(rows)], True),
        ("context_mean", others, reference, family[len(rows) :], False),
    ):
        verdict = versus.verdict(scale[where], needs_draws=draws, family=part)
        _write(out, name, where, versus, verdict)
        column = np.full(len(out), np.nan)
        column[where] = part
        out[f"{'permutation' if name == 'permuted' else name}_p"] = column
    out["verdicts"] = int(np.isfinite(family).sum())


def _permuted(
    out: pd.DataFrame, board: Board, values: np.ndarray, plan: Plan, sign: float, seed: int
) -> tuple[np.ndarray, Versus]:
    twin = own_permutation(board.table)
    usable = complete_draws(board)
    rows = np.flatnonzero(comparable(out) & (twin >= 0))
    draws = [board.values[usable & (board.of_draw == twin[i])] for i in rows]
    versus = versus_draws(values[rows], draws, plan, sign=sign, seed=seed)
    out["permutation"] = np.where(twin >= 0, vectors(out)[twin], "")
    count = np.bincount(board.of_draw, minlength=len(out))
    out["draws"] = np.where((out["role"] == "permuted").to_numpy(), count, 0)
    out.loc[rows, "draws"] = versus.draws
    return rows, versus


def _context_mean(
    out: pd.DataFrame, values: np.ndarray, plan: Plan, sign: float, seed: int
) -> tuple[np.ndarray, Versus]:
    references = np.flatnonzero(comparable(out) & (out["head"] == "context_mean").to_numpy())
    rows = np.flatnonzero(comparable(out) & (out["head"] != "context_mean").to_numpy() & bool(len(references)))
    if len(rows):
        coordinates = out[["context_embedding", *OTHER]].to_numpy()
        agree = np.stack([(coordinates[rows] == coordinates[i]).sum(axis=1) for i in references])
        against = values[references[np.argmax(agree, axis=0)]]
    else:
        against = values[rows]
    return rows, versus_reference(values[rows], against, plan, sign=sign, seed=seed)


def _add_best(out: pd.DataFrame, values: np.ndarray, plan: Plan, sign: float) -> None:
    ranked = comparable(out) & out["role"].isin(RANKED).to_numpy() & out["enough_coverage"].to_numpy()
    rows = np.flatnonzero(ranked)
    out["rank"], out["best"] = np.nan, False
    if len(rows):
        score = _worst_last(out["mean"].iloc[rows], sign)
        out.loc[rows, "rank"] = rankdata(score, method="min")
        if plan.n_units >= MIN_CLAIM:
            top = int(np.argmin(score))
            gap = versus_reference(values[rows], values[rows[top]], plan, sign=sign)
            out.loc[rows, "best"] = gap.high >= 0
            out.loc[rows[top], "best"] = gap.units[top] >= MIN_CLAIM
    out["rank"] = out["rank"].astype("Int64")
