"""Shared parts of the DE metrics: which genes are judged, the k largest with ties shared, agreement with a DE table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embbench.core import DETable, Truth
from embbench.metrics._rows import centred, ratio
from embbench.numerics import areas
from embbench.numerics.ranks import average_ranks

BLOCK = 1 << 20  # entries (rows x genes) of a block: its float64 copies stay small
LARGEST = 1e300  # stands for an infinite log2fc (a mean of 0 without a pseudocount)

Area = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Judged:
    """The DE table of the test rows where it is scored, all of shape (n, g).

    Parameters
    ----------
    scored : bool: in the gene set, observed and tested.
    significant : bool: scored and below the table's level.
    change : float64, finite true log2fc; 0 where not scored.
    """

    scored: np.ndarray
    significant: np.ndarray
    change: np.ndarray

    @property
    def count(self) -> np.ndarray:
        """Number N of significant genes of each row, shape (n,)."""
        return self.significant.sum(axis=1)


def judged(truth: Truth, mask: np.ndarray) -> Judged:
    """What of the DE table is scored under ``mask`` of shape (n, g); ValueError without a table."""
    table = table_of(truth)
    scored = mask & np.isfinite(table.padj) & ~np.isnan(table.log2fc)
    return Judged(scored, table.significant & scored, finite(np.where(scored, table.log2fc, 0.0)))


def table_of(truth: Truth) -> DETable:
    """The DE table; ValueError when there is none."""
    if truth.de is None:
        raise ValueError("DE metrics: need the DE table of the tested rows, found none; label the screen first")
    return truth.de


def finite(change: np.ndarray) -> np.ndarray:
    """Log2 fold changes as float64, infinite ones at +-`LARGEST`."""
    return np.clip(change.astype(np.float64), -LARGEST, LARGEST)


def top(size: np.ndarray, among: np.ndarray, k: np.ndarray, *, shared: bool = True) -> np.ndarray:
    """Membership (n, g) in 0..1 of the ``k`` largest entries of each row; all of ``among`` where there are fewer.

    Parameters
    ----------
    size : shape (n, g), finite where ``among``.
    among : shape (n, g), bool.
    k : shape (n,), >= 0.
    shared : equal entries at the border share the places that are left (the expectation of breaking the tie at
        random); False gives them to the smaller columns.

    Examples
    --------
    >>> top(np.array([[3.0, 1.0, 1.0]]), np.ones((1, 3), bool), np.array([2])).tolist()
    [[1.0, 0.5, 0.5]]
    """
    key = np.where(among, size, -np.inf)
    k = np.minimum(k, among.sum(axis=1))[:, None]
    order = np.argsort(-key, axis=1, kind="stable")
    if not shared:
        chosen = np.zeros(size.shape)
        np.put_along_axis(chosen, order, (np.arange(size.shape[1]) < k).astype(np.float64), axis=1)
        return chosen
    border = np.take_along_axis(np.take_along_axis(key, order, axis=1), np.maximum(k - 1, 0), axis=1)
    above, at = among & (key > border), among & (key == border)
    left = k - above.sum(axis=1, keepdims=True)
    return np.where(k > 0, above + at * left / np.maximum(at.sum(axis=1, keepdims=True), 1), 0.0)


def direction_match(pred: np.ndarray, table: Judged) -> np.ndarray:
    """Share (n,) of significant genes whose predicted sign is the true one; a prediction of 0 has neither sign."""
    same = table.significant & (np.sign(pred) == np.sign(table.change))
    return ratio(same.sum(axis=1).astype(np.float64), table.count)


def spearman_significant(pred: np.ndarray, table: Judged) -> np.ndarray:
    """Spearman correlation (n,) of prediction and true log2fc over significant genes; NaN below 2 or if constant."""
    out = np.full(len(pred), np.nan)
    for rows in blocks(*pred.shape):
        keep = table.significant[rows]
        p, t = (np.where(keep, x[rows], 0.0) for x in (pred, table.change))
        (p, pp), (t, tt) = (centred(np.nan_to_num(average_ranks(x, keep), nan=0.0), keep) for x in (p, t))
        out[rows] = np.clip(ratio((p * t).sum(axis=1), np.sqrt(pp) * np.sqrt(tt)), -1.0, 1.0)
    return out


def area_condition(score: np.ndarray, table: Judged, area: Area, *, gain: bool = False) -> np.ndarray:
    """Area (n,) of ``score`` for the significant among the scored genes of each row; NaN unless both kinds are there.

    ``gain``: (area - prevalence) / (1 - prevalence).
    """
    out = np.full(len(score), np.nan)
    for rows in blocks(*score.shape):
        kept, positive = table.scored[rows], table.significant[rows]
        value = area(np.where(kept, score[rows], 0.0), positive, kept)
        n, hits = kept.sum(axis=1), positive.sum(axis=1)
        value = np.where((hits > 0) & (hits < n), value, np.nan)
        out[rows] = above_chance(value, hits, n) if gain else value
    return out


def above_chance(value: np.ndarray, hits: np.ndarray, n: np.ndarray) -> np.ndarray:
    """``(value - hits / n) / (1 - hits / n)``; NaN where ``value`` is."""
    share = hits / np.maximum(n, 1)
    return (value - share) / np.where(share < 1, 1.0 - share, np.nan)


def blocks(n: int, g: int) -> list[slice]:
    """Slices of rows with about `BLOCK` entries each."""
    step = max(1, BLOCK // max(1, g))
    return [slice(start, start + step) for start in range(0, n, step)]


AREAS: dict[str, Area] = {"auroc": areas.auroc, "auprc": areas.average_precision}
