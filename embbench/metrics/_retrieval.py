"""Where the own candidate stands among the tested conditions of a context, under every convention of the papers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from embbench.core import Metric, Truth
from embbench.metrics._nearer import sides
from embbench.metrics._pairs import DISTANCES, Vectors, own_distances

BLOCK = 512  # query rows at a time
CHOICES = {
    "distance": DISTANCES,
    "by": ("prediction", "truth"),
    "ties": ("mid", "optimistic", "pessimistic", "order"),
    "over": ("n-1", "n"),
    "form": ("rank", "score", "position"),
    "genes_of": ("row", "pair"),
}
FORMS = {"rank": "closer / {}", "score": "1 - closer / {}", "position": "farther / {}"}
TIED = {
    "mid": "ties count half",
    "optimistic": "ties count for the own one",
    "pessimistic": "ties count against the own one",
    "order": "ties in the order of the rows, as a stable sort leaves them",
}


@dataclass(frozen=True)
class Standing:
    """How many candidates are closer to a query than its own one, all of shape (b,).

    Parameters
    ----------
    closer : strictly closer.
    before, after : as far as the own one, in rows before and after it.
    others : candidates without the own one; 0 where the own one shares no gene with its query.
    """

    closer: np.ndarray
    before: np.ndarray
    after: np.ndarray
    others: np.ndarray

    def share(self, ties: str, over: str, form: str) -> np.ndarray:
        """Rank, score or position (b,), float64; NaN where there is no other candidate.

        Examples
        --------
        >>> two_closer_one_tied = Standing(*(np.array([x]) for x in (2, 1, 0, 4)))
        >>> [float(two_closer_one_tied.share("mid", over, "rank")[0]) for over in ("n-1", "n")]
        [0.625, 0.5]
        """
        tied = self.before + self.after
        kept = self.others - self.closer - tied if form == "position" else self.closer
        favourable = ties == ("pessimistic" if form == "position" else "optimistic")  # then no tie is counted
        counted = {"mid": tied / 2, "order": self.before}.get(ties, 0 * tied if favourable else tied)
        below = self.others + (over == "n")
        value = (kept + counted) / np.maximum(below, 1)
        return np.where(self.others > 0, 1.0 - value if form == "score" else value, np.nan)


def standing(side: np.ndarray, valid: np.ndarray, at: np.ndarray) -> Standing:
    """Count the candidates of each query on either side of its own one.

    Parameters
    ----------
    side : of shape (b, n): -1 closer than the own candidate, 0 tied, 1 farther.
    valid : (b, n) bool, candidates that share a scored gene with the query.
    at : (b,) column of each query's own candidate.

    Examples
    --------
    >>> standing(np.array([[0, -1, 0]]), np.ones((1, 3), bool), np.array([0])).share("mid", "n-1", "rank")
    array([0.75])
    """
    column = np.arange(side.shape[1])[None, :]
    others = valid & (column != at[:, None]) & valid[np.arange(len(at)), at][:, None]
    tied = (side == 0) & others
    early = column < at[:, None]
    counts = ((side < 0) & others, tied & early, tied & ~early, others)
    return Standing(*(x.sum(axis=1) for x in counts))


def _contexts(truth: Truth, mask: np.ndarray, by: str, genes_of: str) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Per context its rows, and which genes of each candidate may be used (None: all)."""
    out: list[tuple[np.ndarray, np.ndarray | None]] = []
    for code in np.unique(truth.context):
        rows = np.flatnonzero(truth.context == code)
        seen = mask[rows] if genes_of == "pair" else None
        if genes_of == "row" and by == "prediction" and truth.observed is not None:
            seen = truth.observed[rows]
        out.append((rows, None if seen is None or seen.all() else seen))
    return out


def rank_rows(
    pred: np.ndarray,
    truth: Truth,
    mask: np.ndarray,
    *,
    distance: str = "l2",
    by: str = "prediction",
    ties: str = "mid",
    over: str = "n-1",
    form: str = "rank",
    genes_of: str = "row",
) -> np.ndarray:
    """Values (n,); NaN where the context has fewer than 2 conditions to tell apart, or no gene is scored."""
    out = np.full(len(pred), np.nan)
    query, candidate = (truth.effects, pred) if by == "truth" else (pred, truth.effects)
    fine = ties == "order"  # what a package's sort would tell apart
    for rows, seen in _contexts(truth, mask, by, genes_of):
        pool = Vectors(_scored(candidate, rows, seen))
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            at, kept, own = np.arange(start, start + len(part)), mask[part], None
            asked = Vectors(_scored(query, part, None if kept.all() else kept))
            if genes_of == "pair" and seen is not None:
                own = own_distances(distance, asked, kept, candidate[part], seen, fine=fine)
            side, valid = sides(distance, asked, kept, pool, seen, start, own, fine=fine)
            out[part] = standing(side, valid, at).share(ties, over, form)
    return out


def _scored(values: np.ndarray, rows: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """Rows in float32 or float64, 0 where not kept; not copied where nothing changes."""
    part = values if len(rows) == len(values) else values[rows]
    part = part.astype(part.dtype if part.dtype in (np.float32, np.float64) else np.float64, copy=False)
    return part if kept is None else np.where(kept, part, part.dtype.type(0))


def candidates(truth: Truth, mask: np.ndarray, by: str = "prediction", genes_of: str = "row") -> np.ndarray:
    """Number of candidates that each row is ranked among, its own one included, (n,) int64.

    Tested conditions of the row's context that share a scored gene with it; 0 where no gene of the row is scored.

    Parameters
    ----------
    truth : of the n tested rows.
    mask : of shape (n, g), bool, the scored entries: ``truth.mask("notarget")``.
    by, genes_of : as in `Retrieval`.

    Examples
    --------
    >>> truth = Truth(np.ones((3, 2)), "delta", np.array([0, 0, 1]), ((), (), ()))
    >>> candidates(truth, truth.mask("all")).tolist()
    [2, 2, 1]
    """
    out = np.zeros(len(mask), dtype=np.int64)
    for rows, seen in _contexts(truth, mask, by, genes_of):
        if seen is None:
            out[rows] = np.where(mask[rows].any(axis=1), len(rows), 0)
            continue
        shared = (mask[rows].astype(np.float32) @ seen.T.astype(np.float32)) > 0
        out[rows] = np.where(np.diagonal(shared), shared.sum(axis=1), 0)
    return out


@dataclass(frozen=True)
class Retrieval(Metric):
    """A rank metric: how many of the n tested conditions of a context look closer than the own one.

    ``ties`` and ``over`` may be given with a registered name (``rank_l2_by_truth_all:ties=order``); ``fn``, ``best``,
    ``level`` and the range follow from the fields below.

    Parameters
    ----------
    distance : ``l1``, ``l2``, ``cosine`` or ``pearson``.
    by : ``prediction`` (each prediction looks for its truth among the true effects) or ``truth`` (each truth looks for
        its prediction among the predictions).
    ties : ``mid``, ``optimistic``, ``pessimistic`` or ``order`` (the position after a stable sort: depends on the
        order of the rows).
    over : denominator ``n-1`` (the others) or ``n``.
    form : ``rank`` (share closer than the own one, low is best), ``score`` (1 - rank) or ``position`` (share farther
        than the own one).
    genes_of : ``row`` (the genes scored for the query's row, where the candidate is observed) or ``pair`` (the own
        candidate and another one are compared on the genes scored for both rows).

    Raises
    ------
    ValueError
        An unknown word, or ``pair`` with a top-k set, which differs between rows.
    """

    distance: str = "l2"
    by: str = "prediction"
    ties: str = "mid"
    over: str = "n-1"
    form: str = "rank"
    genes_of: str = "row"

    settable: ClassVar[tuple[str, ...]] = ("ties", "over")

    def __post_init__(self) -> None:
        """Check the words; derive what follows from them."""
        told = {name: getattr(self, name) for name in CHOICES}
        for name, known in CHOICES.items():
            if told[name] not in known:
                raise ValueError(f"Retrieval: {name} must be {', '.join(known)}, found {told[name]!r}")
        if self.genes_of == "pair" and self.genes.startswith("top"):
            raise ValueError(f"Retrieval: genes_of=pair needs genes all, notarget or expressedK, found {self.genes!r}")
        # the truth reaches (n - 1) / n only, another bound in each context, when farther candidates are divided by n
        open_end = self.form == "position" and self.over == "n"
        derived = {"best": "low" if self.form == "rank" else "high", "level": "set", "fn": partial(rank_rows, **told)}
        for name, value in {**derived, "lower": 0.0, "upper": np.inf if open_end else 1.0}.items():
            object.__setattr__(self, name, value)

    @property
    def formula(self) -> str:
        """The definition in words and symbols, one paragraph.

        Examples
        --------
        >>> Retrieval(rank_rows, "low", "definition").formula.partition(":")[0]
        'closer / (n - 1)'
        """
        below = "(n - 1)" if self.over == "n-1" else "n"
        query, pool = ("prediction", "true effects") if self.by == "prediction" else ("true effect", "predictions")
        sides = "rows of both" if self.genes_of == "pair" else "row"
        what = "farther from" if self.form == "position" else "closer to"
        limit = "; at most (n - 1) / n" if self.upper == np.inf else ""
        return (
            f"{FORMS[self.form].format(below)}: how many of the {pool} of the n tested conditions of the context are "
            f"{what} the {query} than its own one, by {self.distance} distance over the genes scored for the {sides}; "
            f"{TIED[self.ties]}; NaN for n < 2{limit}."
        )

    def candidates(self, truth: Truth) -> np.ndarray:
        """Number of candidates n that each row is ranked among, its own one included, (n,) int64."""
        return candidates(truth, truth.mask(self.genes), self.by, self.genes_of)
