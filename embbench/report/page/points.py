"""Scores -> the points that figures are drawn from: fold x context means, and single conditions of a few entries."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.boards import BOARD, NAMES, OTHER

if TYPE_CHECKING:
    import pandas as pd

SHOWN_CONDITIONS = 300  # of one board, spread evenly over effect norms
SHOWN_METHODS = 3  # of one board, whose single conditions are shown
CEILING = "noise_free"  # the variant that a score is shown against
_K = re.compile(r"(?:^|:)k=(\d+)")


def points(scores: pd.DataFrame, runs: pd.DataFrame, ceilings: pd.DataFrame | None) -> pd.DataFrame:
    """One row per subset, configuration, fold and context: the mean score of each metric, seeds averaged.

    Permutations are left out (their means are in the leaderboard). Rows of role ``ceiling`` hold the mean ceiling of
    the same conditions. ``k`` is the number of neighbours, named in the head or chosen (mean over seeds); ``n_train``
    and ``dim`` are those of the runs.
    """
    import pandas as pd

    wanted = runs[(runs["status"] == "done") & (runs["role"] != "permuted")]
    scores = scores[scores["key"].isin(set(wanted["key"])).to_numpy()]
    if not len(scores):
        return pd.DataFrame()
    own = [c for c in (*BOARD, *NAMES, *OTHER, "role", "fold") if c in wanted]
    facts = wanted[[*own, "key"]].copy()
    facts["n_train"], facts["dim"] = wanted["n_train"], wanted["dim"]
    facts["k"] = [_neighbours(h, c) for h, c in zip(wanted["head"], wanted["chosen"], strict=True)]
    facts["own"] = facts.groupby(own, sort=False, dropna=False).ngroup()
    parts = []
    for subset, part in subsets(scores):
        wide = _wide(part.assign(own=part["key"].astype(object).map(facts.set_index("key")["own"])), ["own", "context"])
        parts.append(wide.assign(subset=subset))
        parts[-1] = parts[-1].merge(_per_config(facts, own), on="own").drop(columns="own")
        if ceilings is not None and len(ceilings):
            parts.append(_ceilings(part, facts, ceilings).assign(subset=subset, role="ceiling"))
    out = pd.concat(parts, ignore_index=True)
    texts = ["subset", *own, "context"]
    out[texts] = out[texts].astype(object).fillna("")
    metrics = [c for c in wide.columns if c not in ("own", "context")]
    return out.sort_values(texts, kind="stable")[[*texts, "n_train", "dim", "k", *metrics]].reset_index(drop=True)


def subsets(scores: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """All conditions, and the detectable ones where that is known and not all of them."""
    out = [("all", scores)]
    if "detectable" in scores:
        hit = scores["detectable"].to_numpy(dtype=bool)
        if hit.any() and not hit.all():
            out.append(("detectable", scores[hit]))
    return out


def _per_config(facts: pd.DataFrame, own: list[str]) -> pd.DataFrame:
    grouped = facts.groupby("own")
    return grouped[own].first().join(grouped[["n_train", "dim", "k"]].mean()).reset_index()


def _wide(part: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean of ``value`` (undefined left out), one row per group and one column per metric."""
    keys = {c: part[c].astype(object) if str(part[c].dtype) == "category" else part[c] for c in (*by, "metric")}
    found = part["value"].groupby(list(keys.values()), sort=True).mean().unstack("metric")
    found.columns = found.columns.astype(str)
    found.columns.name = None
    return found.rename_axis(by).reset_index()


def _ceilings(part: pd.DataFrame, facts: pd.DataFrame, ceilings: pd.DataFrame) -> pd.DataFrame:
    rows = part[["key", "row", "context"]].drop_duplicates()
    where = [*BOARD, "fold"]
    rows = rows.assign(key=rows["key"].astype(object)).merge(facts[["key", *where]], on="key")
    rows = rows[[*where, "context", "row"]].drop_duplicates()
    known = main_ceilings(ceilings)
    known = known[[c for c in (*BOARD, "row", "metric", "value") if c in known]].drop_duplicates()
    joined = rows.astype({"context": object}).merge(known, on=[c for c in (*BOARD, "row") if c in known])
    return _wide(joined, [*where, "context"]) if len(joined) else joined[[*where, "context"]]


def main_ceilings(ceilings: pd.DataFrame) -> pd.DataFrame:
    """The variant that scores are shown against; everything where variants are not told apart."""
    if "variant" not in ceilings:
        return ceilings
    variant = ceilings["variant"].astype(object)
    return ceilings[variant.where(variant.notna(), "").isin(["", CEILING]).to_numpy()]


def _neighbours(head: str, chosen: Any) -> float:
    if found := _K.search(str(head)):
        return float(found.group(1))
    try:
        values = json.loads(chosen) if isinstance(chosen, str) and chosen else {}
    except json.JSONDecodeError:
        return float("nan")
    flat = [v for v in values.values() if isinstance(v, dict)] if isinstance(values, dict) else []
    ks = [v["k"] for v in flat if isinstance(v.get("k"), int | float)]
    return float(np.mean(ks)) if ks else float("nan")


def conditions(
    scores: pd.DataFrame,
    runs: pd.DataFrame,
    leaderboard: pd.DataFrame,
    metrics: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> pd.DataFrame:
    """Scores of single conditions for the best methods of each board and its context mean, with what they depend on.

    Parameters
    ----------
    scores : one row per run, test row and metric.
    runs : what the run of each key is.
    leaderboard : names the best: the first ranked methods of each board's first metric, and ``context_mean``.
    metrics : metric names in the order shown.
    facts : dataset -> {"row", "effect_norm", "n_cells"} arrays; absent ones leave their column NaN.
    """
    import pandas as pd

    names = [c for c in (*NAMES, *OTHER) if c in leaderboard]
    own = [c for c in (*BOARD, *names) if c in runs]
    facts_of = runs.drop_duplicates("key").set_index("key")[own].astype(str)
    parts = []
    for board, best in _best(leaderboard, names, list(metrics)):
        mine = facts_of[np.logical_and.reduce([(facts_of[c].astype(str) == board[c]).to_numpy() for c in BOARD])]
        mine = mine.reset_index().merge(best.astype(str), on=names)
        part = scores.loc[scores["key"].isin(mine["key"]).to_numpy(), ["key", "row", "condition", "context", "metric"]]
        part = part.assign(value=scores.loc[part.index, "value"], key=part["key"].astype(object)).merge(mine, on="key")
        if not len(part):
            continue
        wide = _wide(part, [*own, "role", "row", "condition", "context"])
        known = facts.get(board["dataset"], {})
        for name in ("effect_norm", "n_cells"):
            values = dict(zip(known.get("row", ()), known.get(name, ()), strict=False)) if name in known else {}
            wide[name] = wide["row"].map(values).astype(np.float64) if values else np.nan
        parts.append(_spread(wide))
    return pd.concat(parts, ignore_index=True).drop(columns="row") if parts else pd.DataFrame()


def _best(leaderboard: pd.DataFrame, names: list[str], metrics: list[str]) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """Per board the coordinates ``names`` of its best ranked methods (of the listed ones where none is ranked)."""
    out = []
    whole = leaderboard[leaderboard["subset"] == "all"] if len(leaderboard) else leaderboard
    for where, board in whole.groupby(list(BOARD), sort=False) if len(whole) else ():
        first = board[board["metric"] == next((m for m in metrics if m in set(board["metric"])), "")]
        method = first[first["role"] == "method"]
        able = method[rankable(method)]
        base = first[first["head"] == "context_mean"].head(1)
        rows = np.concatenate([(able if len(able) else method).head(SHOWN_METHODS).index, base.index])
        chosen = first.loc[rows, [*names, "role"]].drop_duplicates(names)
        out.append((dict(zip(BOARD, map(str, where), strict=True)), chosen))
    return out


def rankable(board: pd.DataFrame) -> np.ndarray:
    """Bool of shape (n,): rows of a leaderboard that are complete and cover enough; told by the columns it has."""
    able = np.ones(len(board), dtype=bool)
    for column in ("complete", "enough_coverage"):
        if column in board:
            able &= board[column].to_numpy(dtype=np.float64) > 0
    return able


def _spread(wide: pd.DataFrame) -> pd.DataFrame:
    """At most `SHOWN_CONDITIONS` dataset rows, evenly spread over the order of effect norms (else of rows)."""
    rows = wide.drop_duplicates("row").sort_values(["effect_norm", "row"], kind="stable")["row"].to_numpy()
    if len(rows) <= SHOWN_CONDITIONS:
        return wide
    kept = rows[np.linspace(0, len(rows) - 1, SHOWN_CONDITIONS).round().astype(np.int64)]
    return wide[wide["row"].isin(set(kept.tolist()))]
