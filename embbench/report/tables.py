"""Result frames -> tables: leaderboard, per context, per group, problems, timings, chosen hyper-parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.core import UserError
from embbench.report.boards import BOARD, NAMES, OTHER, STATUSES, Settings, boards, settings
from embbench.report.pairwise import COLUMNS, pairwise
from embbench.report.ranking import COVERAGE, board_plan, ceiling_values, means, rank
from embbench.report.stats import plan

if TYPE_CHECKING:
    import pandas as pd

_VERSUS = ("", "_low", "_high")
_PAIRS = ("pairs", "pairs_better", "pairs_worse")
_SCORE = ("mean", "low", "high", "n_units", "unit", "n_conditions", "n_contexts", "undefined")
_SAID = (
    *("coverage", "enough_coverage", "fallback", "dim", "query_controls", "config"),
    *("information", "modality", "dated", "complexity", "flags", "candidates"),
    *("ceiling", "ceiling_note", "ceiling_conditions", "floor", "floor_name", "floor_without"),
    *("progress", "progress_low", "progress_high", "progress_note", "permutation", "draws"),
    *(f"vs_permuted{e}" for e in _VERSUS),
    *("permutation_p", "beats_permuted"),
    *(f"vs_context_mean{e}" for e in _VERSUS),
    *("context_mean_p", "beats_context_mean", "verdicts", *_PAIRS, "best", "complete", *STATUSES),
)


def leaderboard(
    scores: pd.DataFrame,
    runs: pd.DataFrame | Settings,
    ceilings: pd.DataFrame | None,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    metric: str,
    subset: str = "all",
    bootstrap: int = 1000,
    seed: int = 0,
    coverage: float = COVERAGE,
) -> pd.DataFrame:
    """One row per configuration, permutation draws and seeds averaged; ordered per board, oracles last and unranked.

    Parameters
    ----------
    scores, runs, ceilings : result frames of the grid; ``runs`` may already be grouped by `boards.settings`.
    metrics : registered name -> facts, of which ``best`` (low or high) is read.
    metric : the metric shown.
    subset : ``all`` or ``detectable`` conditions.
    bootstrap : number of resamples, the same for all configurations of a board.
    seed : of the resamples and sign flips.
    coverage : least share of conditions with a prediction of their own; below it nothing is ranked, only listed.

    Returns
    -------
    pandas.DataFrame
        ``mean`` (equal over conditions within a context, then over contexts), its 95 % interval ``low``/``high`` (over
        perturbations; over contexts where contexts are held out; none below 3 units), ``ceiling``, ``floor`` and
        ``progress`` between them with its interval, comparisons ``vs_permuted`` and ``vs_context_mean`` (paired,
        positive = better) with intervals and verdicts, ``rank``, ``best`` (not told apart from the best; never below 10
        units), ``complete``, ``flags`` and status counts. An incomplete configuration has a mean over what is there,
        but no rank and no comparison.

    Raises
    ------
    UserError
        The metric is not among ``metrics``.
    """
    options: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed, "coverage": coverage}
    return _ranked(scores, runs, ceilings, metrics, metric, subset, pairs=False, **options)[0]


def leaderboard_and_pairs(
    scores: pd.DataFrame,
    runs: pd.DataFrame | Settings,
    ceilings: pd.DataFrame | None,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    metric: str,
    subset: str = "all",
    bootstrap: int = 1000,
    seed: int = 0,
    coverage: float = COVERAGE,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The `leaderboard` with ``pairs``, ``pairs_better`` and ``pairs_worse`` filled, and the table of all pairs.

    Parameters as in `leaderboard`; the pairs are described in `embbench.report.pairwise.pairwise`.
    """
    options: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed, "coverage": coverage}
    return _ranked(scores, runs, ceilings, metrics, metric, subset, pairs=True, **options)


def _ranked(
    scores: pd.DataFrame,
    runs: pd.DataFrame | Settings,
    ceilings: pd.DataFrame | None,
    metrics: Mapping[str, Mapping[str, Any]],
    metric: str,
    subset: str,
    *,
    pairs: bool,
    bootstrap: int,
    seed: int,
    coverage: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    if not 0 <= coverage <= 1:
        raise UserError(f"coverage: expected a share from 0 to 1, found {coverage}")
    sign = sign_of(metrics, metric)
    whole = metrics[metric].get("level") == "gene"
    config = settings(runs)
    parts, tests = [], []
    for board in boards(scores, config, metric, subset):
        ceiling = ceiling_values(ceilings, board, metric)
        part, places = rank(board, *ceiling, sign=sign, resamples=bootstrap, seed=seed, coverage=coverage)
        counts: dict[str, Any] = dict.fromkeys(_PAIRS, 0)
        if pairs:
            sample = board_plan(board, bootstrap, seed)
            table, found = pairwise(board, part, places, sample, sign=sign, seed=seed, whole=whole)
            counts = {column: found[column] for column in _PAIRS}
            tests.append(table.assign(**board.where))
        parts.append(part.assign(**counts, candidates=_span(board.rows)))
    extra = varying(config)
    shown = ["metric", "subset", *BOARD, *COLUMNS[:4], NAMES[2], *extra, *COLUMNS[4:]]
    columns = ["metric", "subset", *BOARD, "role", "rank", *NAMES, *extra, *_SCORE, *_SAID]
    return _stack(pd, parts, columns, metric, subset), _stack(pd, tests, shown, metric, subset)


def _span(rows: pd.DataFrame) -> str:
    """Smallest and largest number of conditions that a row was ranked among, e.g. ``8-12``."""
    if "candidates" not in rows or rows["candidates"].isna().all():
        return ""
    low, high = int(rows["candidates"].min()), int(rows["candidates"].max())
    return str(low) if low == high else f"{low}-{high}"


def by_context(
    scores: pd.DataFrame,
    runs: pd.DataFrame | Settings,
    ceilings: pd.DataFrame | None,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    metric: str,
    subset: str = "all",
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per configuration and context: mean over its conditions, interval over its perturbations.

    Parameters as in `leaderboard`; where contexts are held out the conditions of the context are resampled.
    """
    import pandas as pd

    sign_of(metrics, metric)
    config = settings(runs)
    parts = []
    for board in boards(scores, config, metric, subset):
        ceiling, _ = ceiling_values(ceilings, board, metric)
        kind = "condition" if board.over_contexts else "unit"
        context, unit = (board.rows[c].to_numpy() for c in ("context", kind))
        for name in np.unique(context).tolist():
            rows = np.flatnonzero(context == name)
            within = plan(context[rows], unit[rows], over_contexts=False, resamples=bootstrap, seed=seed)
            part = means(board, ceiling, rows, within)
            parts.append(part.assign(context=name, unit="conditions" if board.over_contexts else "perturbations"))
    columns = ["metric", "subset", *BOARD, "context", "role", *NAMES, *varying(config), *_SCORE]
    return _stack(pd, parts, [*columns, "ceiling", "complete"], metric, subset)


def by_group(
    scores: pd.DataFrame,
    runs: pd.DataFrame | Settings,
    ceilings: pd.DataFrame | None,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    metric: str,
    subset: str = "all",
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per configuration and group of conditions (combinations: how many singles were seen); rows without a
    group are left out. Parameters and aggregation as in `leaderboard`.
    """
    import pandas as pd

    sign_of(metrics, metric)
    config = settings(runs)
    parts = []
    scores = scores[(scores["metric"] == metric).to_numpy()]
    groups = scores["group"] if len(scores) else pd.Series(dtype=object)
    for name in sorted(set(groups.dropna()) - {""}):
        for board in boards(scores[(groups == name).to_numpy()], config, metric, subset):
            context, unit = (board.rows[c].to_numpy() for c in ("context", "unit"))
            sample = plan(context, unit, over_contexts=board.over_contexts, resamples=bootstrap, seed=seed)
            part = means(board, ceiling_values(ceilings, board, metric)[0], np.arange(len(context)), sample)
            parts.append(part.assign(group=name))
    columns = ["metric", "subset", *BOARD, "group", "role", *NAMES, *varying(config), *_SCORE]
    return _stack(pd, parts, [*columns, "ceiling", "complete"], metric, subset)


def problems(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs that are not done, one row per configuration (draws together), status and reason, with their folds."""
    config = settings(runs)
    lines = config.table[[*BOARD, *NAMES, *OTHER, "role"]].iloc[config.of_draw[config.of_run]].reset_index(drop=True)
    lines["status"] = runs["status"].to_numpy()
    lines["reason"] = runs["reason"].fillna("").to_numpy()
    lines["fold"] = runs["fold"].astype(str).to_numpy()
    lines = lines[lines["status"] != "done"]
    columns = [*BOARD, *NAMES, *varying(config), "role", "status", "reason"]
    found = lines.groupby(columns, sort=True, dropna=False)["fold"]
    out = found.agg(runs="size", folds=lambda folds: " ".join(sorted(set(folds)))).reset_index()
    return out[[*columns, "runs", "folds"]]


def timings(runs: pd.DataFrame) -> pd.DataFrame:
    """CPU seconds per configuration (draws and folds together): total, per run, and selection trials.

    Apart from the leaderboard, because a second run of the same grid takes another time.
    """
    config = settings(runs)
    done = (runs["status"] == "done").to_numpy()
    codes, n = config.of_draw[config.of_run], len(config.table)
    out = config.table[[*BOARD, *NAMES, *varying(config), "role", "done"]].copy()
    for column in ("cpu_seconds", "trials"):
        weights = np.where(done, runs[column].fillna(0).to_numpy(dtype=np.float64), 0.0)
        out[column] = np.bincount(codes, weights=weights, minlength=n)
    out["trials"] = out["trials"].astype(np.int64)
    out["cpu_seconds_per_run"] = out["cpu_seconds"] / out["done"].where(out["done"] > 0)
    return out[out["done"] > 0].reset_index(drop=True)


def chosen(runs: pd.DataFrame) -> pd.DataFrame:
    """How often each hyper-parameter value was selected, per configuration, over folds, seeds and draws.

    Raises
    ------
    ValueError
        A ``chosen`` text is not a JSON object.
    """
    import pandas as pd

    config = settings(runs)
    head = config.table[[*BOARD, *NAMES, *varying(config)]]
    codes = config.of_draw[config.of_run]
    lines = []
    for code, key, text in zip(codes.tolist(), runs["key"], runs["chosen"].fillna(""), strict=True):
        lines += [(code, name, json.dumps(value)) for name, value in sorted(_parameters(key, text).items())]
    found = pd.DataFrame(lines, columns=["code", "parameter", "value"]).groupby(["code", "parameter", "value"]).size()
    counts = found.rename("runs").reset_index()
    where = head.iloc[counts["code"].to_numpy(dtype=np.int64)].reset_index(drop=True)
    return pd.concat([where, counts[["parameter", "value", "runs"]]], axis=1)


def _parameters(key: str, text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"report: chosen values of run {key} must be JSON, found {text!r}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"report: chosen values of run {key} must be a JSON object, found {text!r}")
    return values


def sign_of(metrics: Mapping[str, Mapping[str, Any]], metric: str) -> float:
    """-1.0 where low is best, 1.0 where high is; UserError for a metric that is not in these results."""
    if metric not in metrics:
        raise UserError(f"no metric named {metric!r} in these results; known: {', '.join(sorted(metrics)) or 'none'}")
    return -1.0 if metrics[metric]["best"] == "low" else 1.0


def varying(config: Settings) -> list[str]:
    """Coordinates besides names that take several values in these results, so that tables need their columns."""
    return [c for c in OTHER if config.table[c].nunique(dropna=False) > 1]


def _stack(pd: Any, parts: list[pd.DataFrame], columns: list[str], metric: str, subset: str) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True).assign(metric=metric, subset=subset)[columns]
