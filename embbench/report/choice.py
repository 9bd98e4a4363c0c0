"""Best simple head on embedding A against best complex head on B, chosen on inner scores, tested on outer ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.boards import BOARD, OTHER, Board, Settings, boards, informed, settings, vectors
from embbench.report.pairwise import paired
from embbench.report.ranking import COVERAGE, board_plan, comparable, means
from embbench.report.stats import LEVEL, MIN_CLAIM, RESOLUTION, Plan, holm
from embbench.report.tables import sign_of

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("simple", "complex")
ERRORS = ("l2", "mse", "rmse", "mae", "edistance", "mmd", "wasserstein", "ks")  # families of metrics where low is best
_SIDE = ("embedding", "head", "settings", "inner", "trials", "budget", "mean")
COLUMNS: tuple[str, ...] = (
    "metric",
    "subset",
    *BOARD,
    "select",
    "chosen",
    *(f"{kind}_{c}" for kind in KINDS for c in _SIDE),
)
COLUMNS = (*COLUMNS, "same_budget", "difference", "low", "high", "n_units", "n_conditions", "p", "p_holm", "better")


def choices(
    scores: pd.DataFrame,
    runs: pd.DataFrame | Settings,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    metric: str,
    subset: str = "all",
    bootstrap: int = 1000,
    seed: int = 0,
    coverage: float = COVERAGE,
) -> pd.DataFrame:
    """One row per board, selection score, and pair of embeddings (A under simple, B under complex heads).

    Parameters
    ----------
    scores, runs, metrics, metric, subset, bootstrap, seed, coverage : as in `embbench.report.tables.leaderboard`.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`: for each side the embedding, the head and settings with the best mean inner score on it, that score,
        the largest number of selection trials of a run and the budget allowed, and the outer mean (over all conditions,
        fallback included); the outer difference simple - complex on the conditions that both cover (positive: the
        simple one is better), its cluster-bootstrap interval and paired sign-flip p, Holm over the board. ``chosen``
        marks the embeddings with the best inner score of each side: nobody picked that comparison by outer scores, so
        that its own ``p`` is valid as it stands. ``better`` is ``simple``, ``complex`` or "–", for the chosen row by
        ``p``, for the others by Holm's; where ``same_budget`` is no it is withheld and says so (more trials choose
        better). Under a statistic per gene both sides cover all conditions. Inner scores choose, outer scores never do.
    """
    import pandas as pd

    sign = sign_of(metrics, metric)
    coverage = 1.0 if metrics[metric].get("level") == "gene" else coverage
    config = settings(runs)
    parts = [
        _board(board, metrics, sign, bootstrap, seed, coverage) for board in boards(scores, config, metric, subset)
    ]
    filled = [part for part in parts if len(part)]
    if not filled:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(filled, ignore_index=True).assign(metric=metric, subset=subset)[list(COLUMNS)]


def _board(
    board: Board, metrics: Mapping[str, Mapping[str, Any]], sign: float, resamples: int, seed: int, coverage: float
) -> pd.DataFrame:
    import pandas as pd

    plan = board_plan(board, resamples, seed)
    rows = np.arange(len(board.rows))
    table = means(board, np.full(len(rows), np.nan), rows, plan)
    table["vectors"] = vectors(table)
    share = np.nan_to_num(board.per_table(board.covered)).mean(axis=1)
    usable = comparable(table) & (table["role"] == "method").to_numpy() & (share >= coverage)
    usable &= table["inner_score"].notna().to_numpy() & informed(table)
    lines: list[dict[str, Any]] = []
    pairs: list[tuple[int, int]] = []
    for select, group in table[usable].groupby("select", sort=True):
        turn = -1.0 if low_is_best(str(select), metrics) else 1.0
        best = {kind: _best(group[group["complexity"] == kind], turn) for kind in KINDS}
        if not all(best.values()):
            continue
        top = {kind: max(found, key=lambda i: turn * table["inner_score"][i]) for kind, found in best.items()}
        for one in best["simple"]:
            for other in best["complex"]:
                line = {"select": select, "chosen": (one, other) == (top["simple"], top["complex"])}
                sides = [_side(table, i, kind) for kind, i in zip(KINDS, (one, other), strict=True)]
                budgets = [side[f"{kind}_budget"] for kind, side in zip(KINDS, sides, strict=True)]
                known = all(np.isfinite(b) for b in budgets)
                line["same_budget"] = ("yes" if budgets[0] == budgets[1] else "no") if known else ""
                lines.append(board.where | line | sides[0] | sides[1])
                pairs.append((one, other))
    if not lines:
        return pd.DataFrame()
    return _tested(pd.DataFrame(lines), board, pairs, plan, sign, seed)


def _best(group: pd.DataFrame, turn: float) -> list[int]:
    """Per embedding, in order of name, the row with the best inner score; ties go to the name that sorts first."""
    order = group.assign(_inner=-turn * group["inner_score"]).sort_values(
        ["vectors", "_inner", "head", *OTHER], kind="stable"
    )
    return [int(i) for i in order.drop_duplicates("vectors").index]


def _side(table: pd.DataFrame, row: int, kind: str) -> dict[str, Any]:
    line = table.loc[row]
    more = [f"{c}={line[c]}" for c in OTHER if c != "select" and table[c].nunique() > 1]
    found = {"embedding": line["vectors"], "head": line["head"], "settings": " ".join(more)}
    found |= {"inner": line["inner_score"], "trials": line["trials"], "budget": line["budget"], "mean": line["mean"]}
    return {f"{kind}_{c}": found[c] for c in _SIDE}


def _tested(
    frame: pd.DataFrame, board: Board, pairs: list[tuple[int, int]], plan: Plan, sign: float, seed: int
) -> pd.DataFrame:
    first, second = np.array(pairs, dtype=np.int64).T
    values, covered = board.per_table(board.values), board.per_table(board.covered)
    found = paired(np.where(covered > 0, values, np.nan), first, second, plan, sign, seed)
    for column in ("difference", "low", "high", "n_units", "n_conditions", "p"):
        frame[column] = found[column]
    enough = frame["n_units"] >= MIN_CLAIM
    frame["p_holm"] = holm(np.where(enough, frame["p"], np.nan))
    size = np.fmax(np.abs(found["mean_first"]), np.abs(found["mean_second"]))
    deciding = np.where(frame["chosen"], frame["p"], frame["p_holm"])
    told = enough.to_numpy() & (deciding <= 1 - LEVEL + 1e-12) & (np.abs(found["difference"]) > RESOLUTION * size)
    frame["better"] = np.where(told, np.where(found["difference"] > 0, *KINDS), "–")
    unequal = (frame["same_budget"] == "no").to_numpy()
    budgets = frame.loc[unequal, [f"{kind}_budget" for kind in KINDS]].to_numpy()
    frame.loc[unequal, "better"] = [f"budgets differ: {a:g} against {b:g} trials" for a, b in budgets.tolist()]
    return frame


def low_is_best(select: str, metrics: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a selection score is an error, by the facts of these results, else by the family its name begins with.

    Examples
    --------
    >>> low_is_best("l2_all", {}), low_is_best("pearson_all", {})
    (True, False)
    """
    if select in metrics:
        return bool(metrics[select]["best"] == "low")
    return select.split("_")[0] in ERRORS
