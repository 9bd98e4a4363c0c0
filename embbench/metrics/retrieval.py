"""Rank of the true condition: does a prediction single its own condition out, 0 best, 0.5 chance or collapse, 1 worst.

Both directions are computed within a context, over its n tested conditions:

- by prediction: prediction i against the truths j at distance S_ij,
  ``rank_i = (#{j: S_ij < S_ii} + #{j != i: S_ij = S_ii} / 2) / (n - 1)``;
- by truth: truth i against the predictions j, the same with ``S_ij`` = distance of prediction j to truth i.

The genes scored are those of row i (its own targets left out of all its distances in the ``notarget`` form) that are
observed for both. Two distances that differ by less than the float32 resolution of the stored vectors are tied, so that
equal predictions give exactly 0.5 by truth whatever the order of summation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse

from embbench.core import Metric, Truth

BLOCK = 512  # query rows at a time
RESOLUTION = 2.0**-20  # relative; eight float32 spacings

Distances = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PairSums:
    """Sums over the genes scored for each (query, candidate) pair, all of shape (b, n), float64.

    Parameters
    ----------
    count : number of scored genes.
    q, qq, c, cc, qc : sums of queries, their squares, candidates, their squares, and products.
    """

    count: np.ndarray
    q: np.ndarray
    qq: np.ndarray
    c: np.ndarray
    cc: np.ndarray
    qc: np.ndarray


def l2_distance(s: PairSums) -> Distances:
    """Root mean squared difference, shape (b, n), and its resolution: by the triangle inequality that of the norms."""
    count = np.maximum(s.count, 1)
    square = np.maximum(s.qq - 2 * s.qc + s.cc, 0.0) / count
    return np.sqrt(square), RESOLUTION * (np.sqrt(s.qq / count) + np.sqrt(s.cc / count))


def cosine_distance(s: PairSums) -> Distances:
    """1 - cosine, shape (b, n), 1 for a zero vector (it points nowhere), and the resolution."""
    size = np.sqrt(s.qq) * np.sqrt(s.cc)
    return 1.0 - np.where(size > 0, s.qc / np.where(size > 0, size, 1.0), 0.0), np.full(size.shape, 2 * RESOLUTION)


def pearson_distance(s: PairSums) -> Distances:
    """1 - Pearson correlation, shape (b, n), 1 for a constant vector, and the resolution (centring loses digits)."""
    count = np.maximum(s.count, 1)
    qq, cc, qc = s.qq - s.q**2 / count, s.cc - s.c**2 / count, s.qc - s.q * s.c / count
    varies = (qq > RESOLUTION**2 * s.qq) & (cc > RESOLUTION**2 * s.cc)
    qq, cc = np.where(varies, qq, 1.0), np.where(varies, cc, 1.0)
    loss = np.where(varies, np.sqrt(s.qq / qq) + np.sqrt(s.cc / cc), 2.0)
    return 1.0 - np.where(varies, qc / np.sqrt(qq * cc), 0.0), RESOLUTION * loss


def _rank(distance: Callable[[PairSums], Distances], pred: np.ndarray, truth: Truth, mask: np.ndarray, *,
          by_truth: bool) -> np.ndarray:  # fmt: skip
    """Ranks (n,) in [0, 1]; NaN where the context has fewer than 2 conditions to tell apart, or no gene is scored."""
    out = np.full(len(pred), np.nan)
    seen = None if by_truth else truth.observed
    query, candidates = (truth.effects, pred) if by_truth else (pred, truth.effects)
    for code in np.unique(truth.context):
        rows = np.flatnonzero(truth.context == code)
        observed = None if seen is None or seen[rows].all() else seen[rows]
        pool = candidates[rows].astype(np.float64)
        if observed is not None:
            pool[~observed] = 0.0
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            sums = pair_sums(query[part], mask[part], pool, observed)
            own = np.arange(start, start + len(part))
            out[part] = mid_rank(*distance(sums), sums.count > 0, own)
    return out


def pair_sums(query: np.ndarray, mask: np.ndarray, pool: np.ndarray, observed: np.ndarray | None) -> PairSums:
    """Sums over ``mask[i] & observed[j]`` of queries of shape (b, g) and candidates (n, g), which are 0 if unobserved.

    Examples
    --------
    >>> sums = pair_sums(np.array([[1.0, 2.0]]), np.array([[True, True]]), np.array([[3.0, 4.0]]), None)
    >>> sums.qc.tolist(), l2_distance(sums)[0].tolist()
    ([[11.0]], [[2.0]])
    """
    q = np.where(mask, query, 0.0).astype(np.float64)
    shape = (len(q), len(pool))
    if observed is None:
        count, total, squares = (np.broadcast_to(x.sum(axis=1)[:, None], shape) for x in (mask * 1.0, q, q * q))
    else:
        seen = observed.astype(np.float64)
        count, total, squares = _masked_sum(mask, seen), q @ seen.T, (q * q) @ seen.T
    return PairSums(
        count, total, squares, _masked_sum(mask, pool), np.maximum(_masked_sum(mask, pool * pool), 0.0), q @ pool.T
    )


def _masked_sum(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``mask @ valuesᵀ`` (b, n), over whichever of the mask and its complement is smaller."""
    invert = mask.mean() > 0.5
    few = ~mask if invert else mask
    columns = np.flatnonzero(few.any(axis=0))
    part = sparse.csr_matrix(few[:, columns], dtype=np.float64) @ np.ascontiguousarray(values[:, columns].T)
    return values.sum(axis=1)[None, :] - part if invert else part


def mid_rank(distance: np.ndarray, resolution: np.ndarray, valid: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Share (b,) of valid candidates closer than the own one, ties counted half; NaN with fewer than 2 valid candidates
    or when the own one is not valid.

    Parameters
    ----------
    distance, resolution : of shape (b, n).
    valid : (b, n) bool, candidates that share a scored gene with the query.
    own : (b,) column of each query's own candidate.

    References
    ----------
    Wu et al. (2024), PerturBench, arXiv:2408.10609 (rank); Mann and Whitney (1947): a tie counts one half.

    Examples
    --------
    >>> mid_rank(np.array([[2.0, 1.0, 2.0]]), np.zeros((1, 3)), np.ones((1, 3), bool), np.array([0])).tolist()
    [0.75]
    """
    at = (np.arange(len(own)), own)
    gap = distance - distance[at][:, None]
    slack = np.maximum(resolution, resolution[at][:, None])
    closer = ((gap < -slack) & valid).sum(axis=1)
    tied = ((np.abs(gap) <= slack) & valid).sum(axis=1) - 1
    others = valid.sum(axis=1) - 1
    return np.where(valid[at] & (others > 0), (closer + 0.5 * tied) / np.maximum(others, 1), np.nan)


def _metric(distance: Callable[[PairSums], Distances], source: str, *, by_truth: bool) -> Metric:
    fn = partial(_rank, distance, by_truth=by_truth)
    return Metric(fn, best="low", lower=0.0, upper=1.0, level="set", source=source)


BY_TRUTH = "Wu et al. (2024), PerturBench, arXiv:2408.10609: rank per reference; here mid-rank ties and n - 1"
BY_PREDICTION = (
    "Adduri et al. (2025), State, bioRxiv: perturbation discrimination score = 1 - rank; here mid-rank and n - 1"
)

rank_l2_by_prediction = _metric(l2_distance, BY_PREDICTION, by_truth=False)
rank_cosine_by_prediction = _metric(cosine_distance, BY_PREDICTION, by_truth=False)
rank_pearson_by_prediction = _metric(pearson_distance, BY_PREDICTION, by_truth=False)
rank_l2_by_truth = _metric(l2_distance, BY_TRUTH, by_truth=True)
rank_cosine_by_truth = _metric(cosine_distance, BY_TRUTH, by_truth=True)
rank_pearson_by_truth = _metric(pearson_distance, BY_TRUTH, by_truth=True)
