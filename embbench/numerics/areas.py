"""Areas under ROC and precision-recall curves of many scorings at once, and the same with each entry left out.

Every function works along the last axis: one scoring per row. Per gene over conditions: pass transposes, (genes,
conditions). Equal scores are one threshold. Cost: one sort per row, also for all the leave-one-out values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def auroc(scores: np.ndarray, positive: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """P(positive above negative) + P(tie) / 2, of shape (m,); NaN without a positive or without a negative.

    Parameters
    ----------
    scores : (m, n), finite where scored.
    positive : (m, n) bool.
    mask : (m, n) bool of the scored entries, or None (all).

    References
    ----------
    Hanley and McNeil (1982), Radiology 143:29, equation 1 (the Mann-Whitney statistic).

    Examples
    --------
    >>> auroc(np.array([[0.1, 0.4, 0.4, 0.9]]), np.array([[False, False, True, True]])).tolist()
    [0.875]
    """
    s = _sorted(scores, positive, mask)
    return _ratio((s.pos * s.beaten).sum(axis=1, keepdims=True), s.P * s.Q)[:, 0]


def average_precision(scores: np.ndarray, positive: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Sum over thresholds of (recall gained) x (precision there), of shape (m,); NaN without a positive.

    No interpolation: scikit-learn's ``average_precision_score``. 1 where every scored entry is positive.

    Parameters
    ----------
    scores, positive, mask : (m, n), as in `auroc`.

    References
    ----------
    Manning, Raghavan and Schütze (2008), Introduction to Information Retrieval, section 8.4; tied
    scores as one threshold.

    Examples
    --------
    >>> average_precision(np.array([[0.1, 0.4, 0.4, 0.9]]), np.array([[False, False, True, True]])).round(4).tolist()
    [0.8333]
    """
    s = _sorted(scores, positive, mask)
    return _ratio((s.pos * s.hits / np.maximum(s.seen, 1)).sum(axis=1, keepdims=True), s.P)[:, 0]


def auroc_without_each(
    scores: np.ndarray, positive: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`auroc` (m,), and what it becomes without each entry (m, n): itself without an entry that is not scored.

    With U the pairs won and u_i entry i's own part of them: (U - u_i) / ((P - 1) Q) without a positive,
    (U - u_i) / (P (Q - 1)) without a negative; NaN where no pair is left.

    Examples
    --------
    >>> area, without = auroc_without_each(np.array([[0.1, 0.4, 0.4, 0.9]]), np.array([[False, False, True, True]]))
    >>> area.tolist(), without.tolist()
    ([0.875], [[0.75, 1.0, 1.0, 0.75]])
    """
    s = _sorted(scores, positive, mask)
    won = (s.pos * s.beaten).sum(axis=1, keepdims=True)
    own = np.where(s.pos > 0, s.beaten, s.beaters)
    left = _ratio(won - own * s.weight, (s.P - s.pos) * (s.Q - (s.weight - s.pos)))
    return _ratio(won, s.P * s.Q)[:, 0], s.back(left)


def average_precision_without_each(
    scores: np.ndarray, positive: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`average_precision` (m,), and what it becomes without each entry (m, n), by prefix and suffix sums.

    Thresholds above the entry's keep their terms; at its own and below, hits and sizes lose the entry.

    Examples
    --------
    >>> found = average_precision_without_each(np.array([[0.9, 0.4, 0.1]]), np.array([[True, False, True]]))
    >>> [values.round(4).tolist() for values in found]
    [[0.8333], [[0.5, 1.0, 1.0]]]
    """
    s = _sorted(scores, positive, mask)
    terms = s.pos * s.hits / np.maximum(s.seen, 1)
    fewer = np.maximum(s.seen - 1, 1)  # a threshold that the entry alone makes has no other term
    above = _before(terms, s.first)
    less_hit, less_seen = s.pos * (s.hits - 1) / fewer, s.pos * s.hits / fewer
    positives_here = _upto(s.pos, s.last) - _before(s.pos, s.first)
    without_hit = above + (positives_here - 1) * (s.hits - 1) / fewer + _after(less_hit, s.last)
    without_miss = above + positives_here * s.hits / fewer + _after(less_seen, s.last)
    total = terms.sum(axis=1, keepdims=True)
    left = np.where(s.pos > 0, without_hit, np.where(s.weight > 0, without_miss, total))
    return _ratio(total, s.P)[:, 0], s.back(_ratio(left, s.P - s.pos))


@dataclass(frozen=True)
class _Sorted:
    """Scorings in descending order, unscored entries last; (m, n) float64 unless said, ties counted whole.

    weight, pos : 1 where scored, 1 where scored and positive.
    hits, seen : positives and entries with at least the entry's score.
    beaten, beaters : negatives below a positive's score, and positives above a negative's, ties as halves.
    P, Q : (m, 1) positives and negatives.
    first, last : int, first and last position with the entry's score.
    """

    order: np.ndarray
    weight: np.ndarray
    pos: np.ndarray
    first: np.ndarray
    last: np.ndarray
    hits: np.ndarray
    seen: np.ndarray
    P: np.ndarray
    Q: np.ndarray

    @property
    def beaten(self) -> np.ndarray:
        misses = self.weight - self.pos
        return self.Q - (_upto(misses, self.last) + _before(misses, self.first)) / 2

    @property
    def beaters(self) -> np.ndarray:
        return (self.hits + _before(self.pos, self.first)) / 2

    def back(self, values: np.ndarray) -> np.ndarray:
        """(m, n) values in the order that the scores came in."""
        out = np.empty(values.shape)
        np.put_along_axis(out, self.order, values, axis=1)
        return out


def _sorted(scores: np.ndarray, positive: np.ndarray, mask: np.ndarray | None) -> _Sorted:
    scores, positive = np.asarray(scores), np.asarray(positive, dtype=bool)
    if scores.ndim != 2 or positive.shape != scores.shape or (mask is not None and mask.shape != scores.shape):
        shapes = f"{scores.shape}, {positive.shape}, {None if mask is None else mask.shape}"
        raise ValueError(f"areas: scores, positive and mask must be (m, n) alike, found {shapes}")
    bad = ~np.isfinite(scores) if mask is None else ~np.isfinite(scores) & mask
    if bad.any():
        raise ValueError(f"areas: scores must be finite, found {int(bad.sum())} that are not")
    key = -scores if mask is None else np.where(mask, -scores, np.inf)
    m, n = key.shape
    order = np.argsort(key, axis=1, kind="stable")
    key = np.take_along_axis(key, order, axis=1)
    scored = np.ones((m, n)) if mask is None else np.take_along_axis(mask, order, axis=1).astype(np.float64)
    pos = np.take_along_axis(positive, order, axis=1) * scored
    new = np.ones((m, n + 1), dtype=bool)
    new[:, 1:n] = key[:, 1:] != key[:, :-1]
    where = np.arange(n)
    first = np.maximum.accumulate(np.where(new[:, :n], where, 0), axis=1)
    last = np.minimum.accumulate(np.where(new[:, 1:], where, n)[:, ::-1], axis=1)[:, ::-1]
    P, total = pos.sum(axis=1, keepdims=True), scored.sum(axis=1, keepdims=True)
    return _Sorted(order, scored, pos, first, last, _upto(pos, last), _upto(scored, last), P, total - P)


def _upto(values: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Sums of ``values`` (m, n) up to and with each entry's ties."""
    return np.take_along_axis(np.cumsum(values, axis=1), last, axis=1)


def _before(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Sums of ``values`` (m, n) before each entry's ties."""
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
    return np.take_along_axis(sums, first, axis=1)


def _after(values: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Sums of ``values`` (m, n) after each entry's ties, added up from the far end (no cancellation)."""
    sums = np.concatenate([np.cumsum(values[:, ::-1], axis=1)[:, ::-1], np.zeros((len(values), 1))], axis=1)
    return np.take_along_axis(sums, last + 1, axis=1)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """``top / bottom`` of shape (m, 1) or (m, n), NaN where ``bottom`` is 0."""
    return np.divide(top, bottom, out=np.full(np.broadcast_shapes(top.shape, bottom.shape), np.nan), where=bottom > 0)
