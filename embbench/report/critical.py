"""Ranks over screens: Friedman and Nemenyi from six independent screens up, descriptive rank boxes below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import f, rankdata, studentized_range

from embbench.report.boards import BOARD, NAMES, OTHER, boards, settings
from embbench.report.ranking import COVERAGE, complete_draws
from embbench.report.stats import LEVEL
from embbench.report.tables import sign_of, varying

if TYPE_CHECKING:
    import pandas as pd

SCREENS = 6  # independent ones, from which ranks are tested
CRITICAL, DESCRIPTIVE = "critical difference", "descriptive"
COLUMNS: tuple[str, ...] = (
    "metric",
    "subset",
    "split",
    "genes",
    "by",
    "entry",
    "mean_rank",
    "n_entries",
    "n_screens",
    "label",
)
COLUMNS = (*COLUMNS, "critical_difference", "friedman_p", "groups", "screens")
ENTRIES = {"configuration": ("head", "embedding"), "embedding": ("embedding",), "head": ("head",)}


def ranks(
    board: pd.DataFrame,
    metrics: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    by: str = "configuration",
) -> pd.DataFrame:
    """Mean ranks over screens of the entries that every screen has: one row per entry, metric, subset, split and genes.

    Parameters
    ----------
    board : leaderboards of several datasets, from `embbench.report.tables.leaderboard`.
    metrics : registered name -> facts, of which ``best`` is read.
    facts : dataset name -> facts; datasets with the same ``study`` are one screen (their scores are averaged).
    by : ``configuration``; ``embedding`` or ``head`` average the scores over the partners that all screens have.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`. ``label`` is "critical difference" from six screens up, else "descriptive", without test. ``groups``
        numbers the largest sets of entries whose mean ranks lie within the critical difference (bars of the figure).

    Raises
    ------
    ValueError
        Unknown ``by``.

    Notes
    -----
    Demsar (2006), Journal of Machine Learning Research 7, 1-30: Friedman's statistic in Iman and Davenport's F form
    (section 3.2.2), Nemenyi's critical difference ``q sqrt(k (k + 1) / 6 N)``.
    """
    import pandas as pd

    if by not in ENTRIES:
        raise ValueError(f"ranks: by must be one of {sorted(ENTRIES)}, found {by!r}")
    keep = (board["role"] == "method") & board["complete"] & board["enough_coverage"] & board["mean"].notna()
    part = board[keep.to_numpy(dtype=bool)]
    part = part.assign(study=part["dataset"].map(lambda d: (facts or {}).get(d, {}).get("study") or d))
    out = []
    for where, group in part.groupby(["metric", "subset", "split", "genes"], sort=True):
        wide = _wide(group, by)
        if wide.shape[0] < 2 or wide.shape[1] < 1:
            continue
        sign = -1.0 if metrics[str(where[0])]["best"] == "low" else 1.0
        lines = pd.DataFrame(demsar(sign * wide.to_numpy(dtype=np.float64)))
        lines["entry"], lines["by"], lines["screens"] = wide.index.to_numpy(), by, "; ".join(map(str, wide.columns))
        lines = lines.assign(**dict(zip(("metric", "subset", "split", "genes"), map(str, where), strict=True)))
        out.append(lines.sort_values(["mean_rank", "entry"], kind="stable"))
    return pd.concat(out, ignore_index=True)[list(COLUMNS)] if out else pd.DataFrame(columns=list(COLUMNS))


def _wide(group: pd.DataFrame, by: str) -> pd.DataFrame:
    """Entries x screens, the scores of what every screen has."""
    extra = [c for c in (NAMES[2], *OTHER) if c in group and group[c].nunique(dropna=False) > 1]
    labels = group.assign(**{c: f"{c}=" + group[c].astype(str) for c in extra})
    where = ["head", "embedding", *extra]
    wide = labels.pivot_table(index=where, columns="study", values="mean", aggfunc="mean", sort=True, observed=True)
    wide = wide.dropna()
    fixed = [c for c in where if by == "configuration" or c == by or c in extra]
    names = wide.index.to_frame(index=False)
    if by != "configuration":  # partners that every entry has, so that the averages are of the same things
        partner = "head" if by == "embedding" else "embedding"
        count = names.groupby(fixed)[partner].nunique()
        shared = names.groupby(partner)[by].size()
        wide = wide[names[partner].map(shared).eq(len(count)).to_numpy()]
        names = wide.index.to_frame(index=False)
    entry = names[fixed].agg(" · ".join, axis=1) if len(names) else names.get("head")
    return wide.groupby(np.asarray(entry, dtype=object), sort=True).mean()


def demsar(scores: np.ndarray) -> dict[str, Any]:
    """Mean ranks, test and groups of ``scores`` (k entries, N screens), higher is better.

    Examples
    --------
    >>> found = demsar(np.arange(3.0)[:, None] + np.zeros((3, 8)))
    >>> found["mean_rank"].tolist(), found["label"], found["groups"]
    ([3.0, 2.0, 1.0], 'critical difference', ['2', '1; 2', '1'])
    """
    k, n = scores.shape
    place = rankdata(-np.round(scores, 12), axis=0)
    mean = place.mean(axis=1)
    out: dict[str, Any] = {"mean_rank": mean, "n_entries": k, "n_screens": n, "label": DESCRIPTIVE}
    out |= {"critical_difference": np.nan, "friedman_p": np.nan, "groups": [""] * k}
    if n < SCREENS:
        return out
    width = float(studentized_range.ppf(LEVEL, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)))
    out |= {"label": CRITICAL, "critical_difference": width, "friedman_p": friedman_p(place)}
    order = np.argsort(mean, kind="stable")
    ranges = [(i, int(np.searchsorted(mean[order], mean[order[i]] + width, side="right"))) for i in range(k)]
    bars = [r for i, r in enumerate(ranges) if r[1] - r[0] > 1 and (i == 0 or r[1] > ranges[i - 1][1])]
    groups: list[list[str]] = [[] for _ in range(k)]
    for number, (start, end) in enumerate(bars, 1):
        for i in order[start:end].tolist():
            groups[i].append(str(number))
    return out | {"groups": ["; ".join(g) for g in groups]}


def friedman_p(place: np.ndarray) -> float:
    """P value of equal ranks from ranks (k, N), ties allowed, by Iman and Davenport's F; NaN when all are tied.

    Notes
    -----
    Friedman's statistic with the correction for ties, Conover (1999), Practical Nonparametric Statistics, section 5.8.
    """
    k, n = place.shape
    spread = float((place**2).sum()) - n * k * (k + 1) ** 2 / 4
    if spread <= 1e-12:
        return float("nan")
    chi = (k - 1) * float(((place.sum(axis=1) - n * (k + 1) / 2) ** 2).sum()) / spread
    if n * (k - 1) - chi <= 1e-12:
        return 0.0
    return float(f.sf((n - 1) * chi / (n * (k - 1) - chi), k - 1, (k - 1) * (n - 1)))


def rank_boxes(
    scores: pd.DataFrame,
    runs: pd.DataFrame,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    metric: str,
    subset: str = "all",
    coverage: float = COVERAGE,
) -> pd.DataFrame:
    """Ranks in every (fold, context), as papers draw them; folds share training data, so nothing is tested on them.

    Parameters
    ----------
    scores, runs, metrics, metric, subset, coverage : as in `embbench.report.tables.leaderboard`.

    Returns
    -------
    pandas.DataFrame
        One row per board, fold, context and complete method with enough coverage: ``mean`` of its conditions, ``rank``
        (1 = best, ties share their mean rank; none where undefined) and ``label`` = "descriptive".
    """
    import pandas as pd

    sign = sign_of(metrics, metric)
    config = settings(runs)
    extra = [NAMES[2], *varying(config)]
    columns = ["metric", "subset", *BOARD, "fold", "context", "head", "embedding", *extra, "mean", "rank", "label"]
    fold = runs.drop_duplicates("key").set_index("key")["fold"]
    part = scores[(scores["metric"] == metric).to_numpy()]
    folds = part[["row"]].assign(fold=part["key"].astype(object).map(fold).astype(str).to_numpy())
    out = []
    for board in boards(part, config, metric, subset):
        incomplete = np.bincount(board.of_draw, weights=~complete_draws(board), minlength=len(board.table)) > 0
        share = np.nan_to_num(board.per_table(board.covered)).mean(axis=1)
        shown = np.flatnonzero((board.table["role"] == "method").to_numpy() & ~incomplete & (share >= coverage))
        if not len(shown):
            continue
        values = board.per_table(board.values)[shown]
        names = board.table.iloc[shown][["head", "embedding", *extra]].reset_index(drop=True)
        mine = part["key"].isin(runs.loc[_same(runs, board.where), "key"]).to_numpy()
        home = folds[mine].drop_duplicates("row").set_index("row")["fold"].reindex(board.rows["row"]).to_numpy()
        place = board.rows.assign(fold=home)[["fold", "context"]].drop_duplicates().sort_values(["fold", "context"])
        for at, context in place.itertuples(index=False):
            where = (home == at) & (board.rows["context"] == context).to_numpy()
            mean, rank = _box(values[:, where], sign)
            box = names.assign(**board.where, fold=at, context=context, mean=mean, rank=rank)
            out.append(box.sort_values(["rank", "head", "embedding"], kind="stable"))
    if not out:
        return pd.DataFrame(columns=columns)
    return pd.concat(out, ignore_index=True).assign(metric=metric, subset=subset, label=DESCRIPTIVE)[columns]


def _box(values: np.ndarray, sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Means and ranks (k,) of ``values`` (k, r); NaN where nothing is defined."""
    finite = np.isfinite(values)
    count = finite.sum(axis=1)
    total = np.where(finite, values, 0.0).sum(axis=1)
    mean = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    rank = np.full(len(values), np.nan)
    rank[count > 0] = rankdata(-sign * np.round(mean[count > 0], 12))
    return mean, rank


def _same(runs: pd.DataFrame, where: Mapping[str, str]) -> np.ndarray:
    keep = np.ones(len(runs), dtype=bool)
    for column, value in where.items():
        keep &= (runs[column].astype(str) == value).to_numpy()
    return keep
