"""Composite scores (the Virtual Cell Challenge's) from a leaderboard that holds their parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from embbench.core import Composite
from embbench.report.boards import BOARD, NAMES, OTHER

if TYPE_CHECKING:
    import pandas as pd


def composite_table(board: pd.DataFrame, composites: Mapping[str, Composite]) -> pd.DataFrame:
    """One row per composite, board and configuration whose parts were all scored; best first within each board.

    Parameters
    ----------
    board : leaderboards of several metrics, stacked (`embbench.report.tables.leaderboard`).
    composites : name -> definition.

    Returns
    -------
    pandas.DataFrame
        ``composite``, `BOARD`, `NAMES`, role, ``score`` and one column per part with its mean. Empty where a part or
        the baseline was not scored: a composite of some of its parts would be another score.
    """
    import pandas as pd

    where = [c for c in (*BOARD, *NAMES, *OTHER, "role", "config") if c in board.columns]
    whole = board[(board["subset"] == "all").to_numpy()] if len(board) else board
    out = []
    for name, made in composites.items():
        if not len(whole) or not set(made.parts) <= set(whole["metric"]):
            continue
        parts = [whole[(whole["metric"] == part).to_numpy()].set_index(where)["mean"] for part in made.parts]
        wide = pd.concat(parts, axis=1, keys=list(made.parts), join="inner").reset_index()
        for _, group in wide.groupby(list(BOARD), sort=False):
            base = group[(group["head"] == made.base).to_numpy()]
            if not len(base):
                continue
            means = group[list(made.parts)].to_numpy(dtype=np.float64)
            score = made(means, base[list(made.parts)].to_numpy(dtype=np.float64)[0])
            order = np.argsort(-score if made.best == "high" else score, kind="stable")
            out.append(group.assign(composite=name, score=score).iloc[order])
    columns = ["composite", *where, "score"]
    if not out:
        return pd.DataFrame(columns=columns)
    stacked = pd.concat(out, ignore_index=True)
    return stacked[[*columns, *(c for c in stacked.columns if c not in columns)]]
