"""Tables that answer questions: embedding or head, and what each kind of information gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.boards import BOARD, Settings, boards, informed, settings, vectors
from embbench.report.decomposition import PARTS, Panel, blocks_of, cells, crossed, decompose
from embbench.report.marks import EXPLODED
from embbench.report.ranking import COVERAGE
from embbench.report.tables import sign_of, varying

if TYPE_CHECKING:
    import pandas as pd

POOLED = "all datasets"
_MEASURES = [f"{p}{s}" for p in PARTS for s in ("", "_low", "_high", "_min", "_max")]
_MEASURES += [f"embedding_minus_head{s}" for s in ("", "_low", "_high")]
DECOMPOSITION: tuple[str, ...] = ("metric", "subset", *BOARD, *_MEASURES, "answer", "note", "n_clusters", "n_blocks")
DECOMPOSITION = (*DECOMPOSITION, "embeddings", "heads", "left_out")
INFORMATION: tuple[str, ...] = ("metric", "subset", *BOARD, "information", "embeddings", "configurations", "exploded")
INFORMATION = (*INFORMATION, "mean_score", "median_score", "best_score", "median_progress", "best_progress")
INFORMATION = (*INFORMATION, "best_embedding", "best_head", "beat_permuted", "judged")


def decomposition(
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
    """Embedding or head: one row per board, and one over all datasets that share split and genes.

    Parameters
    ----------
    scores, runs, metrics, metric, subset, bootstrap, seed : as in `embbench.report.tables.leaderboard`.
    coverage : least share of covered conditions of an entry of the panel; a metric that is a statistic per gene over
        all conditions needs all of them.

    Returns
    -------
    pandas.DataFrame
        See `embbench.report.decomposition.decompose`; ``embeddings`` and ``heads`` state the panel, ``left_out`` the
        levels that are not crossed with all others. Permuted, oracle, random and embedding-blind entries never enter.
    """
    import pandas as pd

    sign_of(metrics, metric)
    coverage = 1.0 if metrics[metric].get("level") == "gene" else coverage
    config = settings(runs)
    extra = varying(config)
    found = list(boards(scores, config, metric, subset))
    lines = []
    order = sorted(found, key=lambda b: (b.where["split"], b.where["genes"], b.where["dataset"]))
    for _, same in groupby(order, key=lambda b: (b.where["split"], b.where["genes"])):
        group = [(board, *cells(board, extra, coverage)) for board in same]
        groups = [[one] for one in group] + ([group] if len(group) > 1 else [])
        for members in groups:
            names = set.intersection(*(set(where) for _, where, _ in members))
            panel = crossed(dict.fromkeys(sorted(names), 0))
            where = dict(members[0][0].where)
            if len(members) > 1:
                where["dataset"] = POOLED
            lines.append(where | _line(members, names, panel, bootstrap, seed))
    frame = pd.DataFrame(lines).assign(metric=metric, subset=subset) if lines else pd.DataFrame()
    return frame.reindex(columns=list(DECOMPOSITION))


def _line(members: list[Any], names: set[tuple[str, str]], panel: Panel, bootstrap: int, seed: int) -> dict[str, Any]:
    about = {name: "; ".join(getattr(panel, name)) for name in ("embeddings", "heads", "left_out")}
    if len(panel.embeddings) < 2 or len(panel.heads) < 2:
        why = sum((causes for _, _, causes in members), Counter[str]())
        return about | {"note": _too_small(names, panel, why, pooled=len(members) > 1), "answer": ""}
    made = [blocks_of(board, panel, where, i) for i, (board, where, _) in enumerate(members)]
    blocks = [b for some, _ in made for b in some]
    present = sorted({b.dataset for b in blocks})
    blocks = [type(b)(b.values, b.share, b.cluster, present.index(b.dataset)) for b in blocks]
    if not blocks:
        single = any(number for _, number in made)
        note = "every context has a single condition: noise cannot be taken out" if single else ""
        return about | {"note": note or "no condition that every entry of the panel covers", "answer": ""}
    number = len({(b.dataset, int(c)) for b in blocks for c in b.cluster})
    measured = decompose(blocks, resamples=bootstrap, seed=seed, levels=(panel.embeddings, panel.heads))
    return about | measured | {"n_clusters": number, "n_blocks": len(blocks)}


def _too_small(names: set[tuple[str, str]], panel: Panel, why: Mapping[str, int], *, pooled: bool) -> str:
    """Why there is no panel: what is there, how much of it is crossed, and what was not taken in."""
    levels = [len({pair[axis] for pair in names}) for axis in (0, 1)]
    there = f"{levels[0]} and {levels[1]} found{' in all datasets' if pooled else ''}"
    if min(levels) > 1:
        there += f", only {len(panel.embeddings)} x {len(panel.heads)} of them crossed"
    told = ", ".join(f"{number} {cause}" for cause, number in why.items() if number)
    return f"no crossed panel of 2 embeddings x 2 heads: {there}" + (f"; methods not taken in: {told}" if told else "")


def by_information(board: pd.DataFrame, metrics: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What each kind of information gives: one row per board and ``information`` of a leaderboard frame.

    Parameters
    ----------
    board : from `embbench.report.tables.leaderboard` (several may be stacked).
    metrics : registered name -> facts, of which ``best`` is read.

    Returns
    -------
    pandas.DataFrame
        Median and best over the configurations of complete methods that are covered enough to be ranked, a description:
        the best of many is chosen on the scores shown. ``exploded`` counts the ones flagged so, which move a mean
        (``mean_score``) as far as they like. ``beat_permuted`` of ``judged`` configurations beat their own
        permutations.
    """
    import pandas as pd

    lines = []
    keep = (board["role"] == "method") & board["complete"] & board["enough_coverage"] & informed(board)
    part = board[keep.to_numpy(dtype=bool)]
    part = part.assign(vectors=vectors(part))
    words = part["information"].where(~part["information"].isin(["", "none"]), "undeclared")
    for where, group in part.assign(information=words).groupby(["metric", "subset", *BOARD, "information"], sort=True):
        low = metrics[str(where[0])]["best"] == "low"
        group = group[group["mean"].notna()]
        if not len(group):
            continue
        best = group.iloc[int(np.argmin(group["mean"]) if low else np.argmax(group["mean"]))]
        lost = group["flags"].map(lambda words: EXPLODED in words.split("; "))
        lines.append(
            dict(zip(["metric", "subset", *BOARD, "information"], where, strict=True))
            | {"embeddings": group["vectors"].nunique(), "configurations": len(group), "exploded": int(lost.sum())}
            | {"mean_score": group["mean"].mean(), "median_score": _median(group["mean"]), "best_score": best["mean"]}
            | {"median_progress": _median(group["progress"]), "best_progress": best["progress"]}
            | {"best_embedding": best["vectors"], "best_head": best["head"]}
            | {"beat_permuted": int((group["beats_permuted"] == "yes").sum())}
            | {"judged": int((group["beats_permuted"] != "–").sum())}
        )
    return pd.DataFrame(lines, columns=list(INFORMATION)) if lines else pd.DataFrame(columns=list(INFORMATION))


def _median(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.median()) if len(known) else np.nan


def distinct(values: np.ndarray) -> str:
    """Different non-empty texts, sorted, joined by ``"; "``."""
    return "; ".join(sorted({str(v) for v in values if str(v)}))
