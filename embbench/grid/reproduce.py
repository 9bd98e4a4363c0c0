"""Published figures beside our own numbers: matched with the runs of a grid, differences and what has none said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from embbench.grid.figures import Figure, PublishedTable
from embbench.grid.frames import Frames

if TYPE_CHECKING:
    import pandas as pd

MATCHED = ("dataset", "split", "embedding", "head")  # what names a published row among our runs
SETTINGS = (  # shown where several runs match
    *("context_embedding", "features", "combine", "scope", "target", "graph"),
    *("select", "samples", "genes", "strict_context", "protocol"),
)
ALL = "all"  # context of a figure that is a mean over contexts


@dataclass(frozen=True)
class Compared:
    """A figure beside our number.

    Parameters
    ----------
    figure : the published one.
    ours, spread, folds : mean over the folds' means, their standard deviation and number; None where there is none.
    coverage : share of tested conditions with a vector.
    setting : what tells several of our runs for one figure apart.
    why : why there is no difference; empty when there is one.
    """

    figure: Figure
    ours: float | None = None
    spread: float | None = None
    folds: int = 0
    coverage: float | None = None
    setting: str = ""
    why: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the published number, where they are of one task."""
        return None if self.why or self.ours is None else self.ours - self.figure.value


def compare(frames: Frames, table: PublishedTable) -> list[Compared]:
    """Every figure beside our number, in the order of the table, or with the reason why there is no difference.

    Our number is the mean over folds (and seeds) of the mean over the tested conditions of the context, as benchmarks
    report it; for the context ``all`` the mean over contexts of these, unless a context is called so.
    """
    numbers = _numbers(frames)
    found = [each for figure in table.figures for each in _matches(figure, table, numbers, frames.runs)]
    return _same_task(found, table)


def _numbers(frames: Frames) -> pd.DataFrame:
    import pandas as pd

    by = [*MATCHED, *SETTINGS, "metric", "context"]
    scores = frames.scores
    if not len(scores):
        return pd.DataFrame(columns=[*by, "mean", "std", "folds", "coverage"])
    parts = scores.groupby([*by, "fold", "seed"], observed=True, sort=False)
    folds = parts.agg(value=("value", "mean"), covered=("covered", "mean")).reset_index()
    groups = folds.groupby(by, observed=True, sort=False)
    made = groups.agg(
        mean=("value", "mean"), std=("value", "std"), folds=("value", "size"), coverage=("covered", "mean")
    )
    made = made.reset_index()
    rest = [name for name in by if name != "context"]
    # a screen without contexts may call its only one so: its own number is the whole then
    own = made.groupby(rest, observed=True, sort=False)["context"].transform(lambda names: (names == ALL).any())
    apart = made[~own.astype(bool).to_numpy()]
    whole = apart.groupby(rest, observed=True, sort=False)[["mean", "coverage"]].mean().reset_index()
    counts = apart.groupby(rest, observed=True, sort=False)["folds"].max().to_numpy()
    return pd.concat([made, whole.assign(context=ALL, std=np.nan, folds=counts)], ignore_index=True)


def _matches(figure: Figure, table: PublishedTable, numbers: pd.DataFrame, runs: pd.DataFrame) -> Iterator[Compared]:
    """Our numbers for a figure: one for each configuration that matches, or none with the reason."""
    if figure.why:
        yield Compared(figure, why=figure.why)
        return
    if figure.task != table.task:
        yield Compared(figure, why=f"of another task ({figure.task})")
        return
    wanted = {name: getattr(figure, name) for name in MATCHED}
    if why := _not_done(_where(runs, wanted), figure):
        yield Compared(figure, why=why)
        return
    scored = _where(numbers, {**wanted, "metric": figure.metric})
    rows = _where(scored, {"context": figure.context})
    if not len(rows):
        what = f"context {figure.context} is not tested" if len(scored) else f"{figure.metric} is not scored"
        yield Compared(figure, why=f"{what} in this grid")
    varying = [name for name in SETTINGS if rows[name].nunique() > 1]
    for row in rows.to_dict("records"):
        setting = ", ".join(f"{name} {row[name]}" for name in varying)
        spread = None if not np.isfinite(row["std"]) else float(row["std"])
        mean = float(row["mean"])
        why = "" if np.isfinite(mean) else f"{figure.metric} is undefined for every condition"
        yield Compared(figure, None if why else mean, spread, int(row["folds"]), float(row["coverage"]), setting, why)


def _not_done(runs: pd.DataFrame, figure: Figure) -> str:
    """Why the runs of a figure have no number; empty when they have."""
    if not len(runs):
        what = figure.head if figure.embedding == "none" else f"{figure.embedding} under {figure.head}"
        return f"{what} is not in this grid"
    undone = runs[(runs["status"] != "done").to_numpy()]
    if not len(undone):
        return ""
    first = undone.iloc[0]
    told = f"{first['status']}: {first['reason'] or 'no reason given'}"
    return told if len(undone) == len(runs) else f"{len(undone)} of {len(runs)} runs not done; {told}"


def _where(frame: pd.DataFrame, wanted: Mapping[str, str]) -> pd.DataFrame:
    keep = np.ones(len(frame), dtype=bool)
    for name, value in wanted.items():
        keep &= (frame[name].astype(str) == value).to_numpy()
    return frame[keep]


def _same_task(found: list[Compared], table: PublishedTable) -> list[Compared]:
    """Without differences where the anchor says that data or folds are not those of the published task."""
    wrong: dict[tuple[str, ...], str] = {}
    for each in found:
        figure = each.figure
        if figure.head != table.anchor or figure.task != table.task or each.ours is None:
            continue
        if abs(each.ours - figure.value) > table.tolerance * abs(figure.value):
            wrong[_place(figure)] = (
                f"another task or other data: {table.anchor} is {each.ours:.3f} here, {figure.value:.3f} published"
            )
    return [replace(c, why=c.why or wrong.get(_place(c.figure), "")) for c in found]


def unchecked(found: Sequence[Compared], table: PublishedTable) -> list[str]:
    """Contexts with differences whose task could not be checked, because the anchor has no number there."""
    known = {_place(c.figure) for c in found if c.figure.head == table.anchor and c.ours is not None}
    open_ = {_place(c.figure) for c in found if c.difference is not None} - known
    return sorted({" ".join((place[0], place[2])) for place in open_})


def agreement(found: Sequence[Compared]) -> list[str]:
    """Lines that sum up: how many figures were compared, how far apart they are, and whether the order is the same."""
    from scipy.stats import spearmanr

    some = [c for c in found if c.difference is not None]
    lines = [f"{len(some)} of {len(found)} figures compared"]
    for metric in dict.fromkeys(c.figure.metric for c in some):
        part = [c for c in some if c.figure.metric == metric]
        gaps = np.abs([c.ours - c.figure.value for c in part if c.ours is not None])
        lines.append(f"{metric}: mean difference {gaps.mean():.4f}, largest {gaps.max():.4f}, over {len(part)} figures")
        for where in dict.fromkeys(_place(c.figure) for c in part):
            pairs = [(c.ours, c.figure.value) for c in part if _place(c.figure) == where]
            if len({p[0] for p in pairs}) > 2 and len({p[1] for p in pairs}) > 2:
                order = spearmanr(*zip(*pairs, strict=True)).statistic
                lines.append(f"  {where[0]} {where[2]}: rank correlation {order:.3f} over {len(pairs)} rows")
    return lines


def _place(figure: Figure) -> tuple[str, ...]:
    return figure.dataset, figure.split, figure.context, figure.metric


def comparison_frame(found: Sequence[Compared]) -> pd.DataFrame:
    """All comparisons as one table, for ``reproduction.csv``."""
    import pandas as pd

    rows = [
        {f.name: getattr(c.figure, f.name) for f in fields(Figure) if f.name not in ("value", "spread", "why", "note")}
        | {"published": c.figure.value, "published_spread": c.figure.spread, "ours": c.ours, "ours_spread": c.spread}
        | {"difference": c.difference, "folds": c.folds, "coverage": c.coverage, "setting": c.setting}
        | {"not_compared": c.why, "note": c.figure.note}
        for c in found
    ]
    return pd.DataFrame(rows)
