"""Two-level means and their paired bootstrap: one set of resamples for everything that is compared."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse, stats

from embbench.report.flips import flip_p

LEVEL = 0.95
MIN_INTERVAL = 3  # units; below, no interval is given
MIN_CLAIM = 10  # units; below, nothing is said to beat anything
MIN_DRAWS = 5  # of a permutation; with fewer, Student's t has too few degrees of freedom to say anything
RESOLUTION = 1e-6  # relative; scores are promised to 1e-5 across machines, smaller differences are none
_CELLS = 4_000_000  # largest intermediate matrix


@dataclass(frozen=True)
class Plan:
    """Which rows are averaged together and how often each resample takes them.

    Parameters
    ----------
    context : shape (r,), int64 codes; conditions weigh equally within a context, contexts weigh equally.
    unit : shape (r,), int64 codes of what is resampled.
    over_contexts : True when the units are the contexts themselves.
    counts : shape (n_units, 1 + B), float64; column 0 is ones (the plain mean), the others are multinomial resamples.
    """

    context: np.ndarray
    unit: np.ndarray
    over_contexts: bool
    counts: np.ndarray

    @property
    def n_units(self) -> int:
        """Number of resampling units."""
        return len(self.counts)

    def row_weights(self, present: np.ndarray, resamples: slice = slice(None)) -> np.ndarray:
        """Weights of shape (k, 1 + B) of the ``k`` rows in the bool mask ``present``: ``values[present] @ weights`` is
        the mean over conditions within each context, then over the contexts that a resample holds.

        ``resamples`` takes some columns only. A resample without any present row has NaN weights.
        """
        codes, context = np.unique(self.context[present], return_inverse=True)
        counts = self.counts[self.unit[present], resamples]
        within = np.ones_like(counts) if self.over_contexts else counts
        member = sparse.csr_matrix((np.ones(len(context)), (context, np.arange(len(context)))))
        total = member @ within
        across = self.counts[codes, resamples] if self.over_contexts else (total > 0).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = across / across.sum(axis=0)
            per_row = np.where(total > 0, share / total, np.where(np.isnan(share), np.nan, 0.0))
        return within * per_row[context]

    def units_seen(self, values: np.ndarray) -> np.ndarray:
        """Number of units, shape (N,), with a finite value in each row of ``values`` (N, r)."""
        order = np.argsort(self.unit, kind="stable")
        starts = np.flatnonzero(np.diff(self.unit[order], prepend=-1))
        return np.logical_or.reduceat(np.isfinite(values[:, order]), starts, axis=1).sum(axis=1)


def plan(context: np.ndarray, unit: np.ndarray, *, over_contexts: bool, resamples: int, seed: int) -> Plan:
    """A bootstrap plan for rows with context labels and unit labels, each of shape (r,).

    Parameters
    ----------
    over_contexts : resample contexts instead of units (unseen contexts are the sample there).
    resamples : number B of resamples, at least 1.
    seed : of the multinomial draws; equal labels and seeds give equal plans.

    Raises
    ------
    ValueError
        No rows, or fewer than one resample.

    Examples
    --------
    >>> one = plan(np.array(["a", "a", "b"]), np.array(["x", "y", "x"]), over_contexts=False, resamples=5, seed=0)
    >>> one.row_weights(np.ones(3, bool))[:, 0].tolist()
    [0.25, 0.25, 0.5]
    """
    if not len(context) or resamples < 1:
        raise ValueError(f"bootstrap: needs rows and resamples >= 1, found {len(context)} rows, {resamples} resamples")
    contexts = np.unique(context, return_inverse=True)[1].astype(np.int64)
    units = contexts if over_contexts else np.unique(unit, return_inverse=True)[1].astype(np.int64)
    n = int(units.max()) + 1
    return Plan(contexts, units, over_contexts, _counts(n, resamples, seed))


@functools.lru_cache(maxsize=8)
def _counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """Counts (n, 1 + resamples) of a `Plan`: every metric and table of a report draws the same."""
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=resamples).T
    counts = np.hstack([np.ones((n, 1)), draws.astype(np.float64)])
    counts.setflags(write=False)
    return counts


def resampled_means(values: np.ndarray, plan: Plan) -> np.ndarray:
    """Two-level means, shape (N, 1 + B), of ``values`` (N, r): column 0 plain, the others under the plan's resamples.

    NaN values are left out, exactly: weights are renewed for every pattern of missing rows. A row without any finite
    value, and a resample without any, give NaN.

    Examples
    --------
    >>> one = plan(np.array(["a", "a", "b"]), np.array(["x", "y", "x"]), over_contexts=False, resamples=5, seed=0)
    >>> resampled_means(np.array([[1.0, np.nan, 3.0]]), one)[0, 0].item()
    2.0
    """
    width = plan.counts.shape[1]
    block = max(1, _CELLS // max(1, values.shape[1]))
    blocks = [slice(start, start + block) for start in range(0, width, block)]
    out = np.full((len(values), plan.counts.shape[1]), np.nan)
    for present, members in patterns(np.isfinite(values)):
        known = values[np.ix_(members, present)]
        for part in blocks:
            out[members, part] = known @ plan.row_weights(present, part)
    return out


def patterns(finite: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The distinct rows (r,) of a bool matrix (N, r) that hold any True, each with the numbers of its rows."""
    if not len(finite):
        return
    _, first, pattern = np.unique(np.packbits(finite, axis=1), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(pattern.ravel(), kind="stable")
    ends = np.flatnonzero(np.diff(pattern.ravel()[order], append=len(first)))
    for at, (start, end) in zip(first, pairwise([0, *(ends + 1)]), strict=True):
        if finite[at].any():
            yield finite[at], order[start:end]


def cluster_sums(values: np.ndarray, plan: Plan) -> np.ndarray:
    """Part of each resampling unit, shape (n_units, N), in the two-level means of ``values`` (N, r): columns add up to
    the means of `resampled_means`; 0 for units without a finite value.

    Examples
    --------
    >>> one = plan(np.array(["a", "a", "b"]), np.array(["x", "y", "x"]), over_contexts=False, resamples=5, seed=0)
    >>> cluster_sums(np.array([[1.0, 2.0, 4.0]]), one).ravel().tolist()
    [2.25, 0.5]
    """
    out = np.zeros((plan.n_units, len(values)))
    for present, members in patterns(np.isfinite(values)):
        weights = plan.row_weights(present, slice(0, 1))
        parts = np.zeros((plan.n_units, len(members)))
        np.add.at(parts, plan.unit[present], weights * values[np.ix_(members, present)].T)
        out[:, members] = parts
    return out


def interval(samples: np.ndarray, units: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap limits, each of shape (N,), from `resampled_means` output (N, 1 + B).

    NaN where ``units`` (scalar or (N,), units behind each mean) is below `MIN_INTERVAL`.

    Notes
    -----
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, eq. 13.5. With few units the percentile interval is
    too narrow by about sqrt((n - 1) / n); that is why nothing is claimed below `MIN_CLAIM` units.
    """
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    draws = samples[:, 1:]
    limits = np.full((2, len(samples)), np.nan)
    whole = np.isfinite(draws).all(axis=1)
    enough = np.broadcast_to(np.asarray(units) >= MIN_INTERVAL, (len(samples),))
    fast = whole & enough
    if fast.any():
        limits[:, fast] = np.quantile(draws[fast], tails, axis=1)
    for i in np.flatnonzero(~whole & enough & np.isfinite(samples[:, 0])):
        limits[:, i] = np.quantile(draws[i][np.isfinite(draws[i])], tails)
    return limits[0], limits[1]


def summarise(values: np.ndarray, plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low, high and number of units, each of shape (N,), behind the rows of ``values`` (N, r)."""
    units = plan.units_seen(values)
    mean, low, high = (np.full(len(values), np.nan) for _ in range(3))
    step = max(1, _CELLS // plan.counts.shape[1])
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        samples = resampled_means(values[part], plan)
        mean[part] = samples[:, 0]
        low[part], high[part] = interval(samples, units[part])
    return mean, low, high, units


@dataclass(frozen=True)
class Versus:
    """Paired comparisons, positive = better, each field of shape (N,).

    Parameters
    ----------
    mean, low, high : two-level mean of the row-wise differences and its 95 % interval.
    units : units in which both sides are defined.
    draws : permutation draws compared with (0: nothing to compare with).
    p : one-sided p value, against the spread of the draws or by sign flips; NaN where it cannot be had.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    units: np.ndarray
    draws: np.ndarray
    p: np.ndarray

    def tested(self, *, needs_draws: bool) -> np.ndarray:
        """Bool of shape (N,): enough units, and draws where they are needed, for a verdict."""
        known = (self.units >= MIN_CLAIM) & np.isfinite(self.low)
        return known & (self.draws >= MIN_DRAWS) if needs_draws else known

    def family_p(self, *, needs_draws: bool = True) -> np.ndarray:
        """`holm` p values, shape (N,), over the tested comparisons of this column alone; NaN for the others."""
        return holm(np.where(self.tested(needs_draws=needs_draws), self.p, np.nan))

    def verdict(self, scale: np.ndarray, *, needs_draws: bool, family: np.ndarray | None = None) -> list[str]:
        """``yes``, ``no`` or ``–`` (nothing to compare with, or too few units or draws to say) for each comparison.

        ``yes`` needs a lower limit above 0 and a p value <= 0.05 in its `holm` family, so that a board without any
        signal says yes anywhere in at most 5 % of cases. ``family`` of shape (N,): adjusted p values where the family
        is larger than this column. ``scale`` of shape (N,): the scores themselves; a gap below `RESOLUTION` of them is
        rounding, not a difference.
        """
        known = self.tested(needs_draws=needs_draws)
        adjusted = self.family_p(needs_draws=needs_draws) if family is None else family
        with np.errstate(invalid="ignore"):
            wins = (self.low > RESOLUTION * np.abs(scale)) & (adjusted <= 1 - LEVEL + 1e-12)
        return [("yes" if w else "no") if k else "–" for k, w in zip(known.tolist(), wins.tolist(), strict=True)]


def holm(p: np.ndarray) -> np.ndarray:
    """Family-wise p values, shape (N,), of one-sided tests; NaN (no test) is left out of the family.

    Notes
    -----
    Holm (1979), Scandinavian Journal of Statistics 6, 65-70: the step-down form of Bonferroni's correction.

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).round(3).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    out = np.full(len(p), np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(order) else scaled
    return out


def versus_reference(values: np.ndarray, reference: np.ndarray, plan: Plan, *, sign: float, seed: int = 0) -> Versus:
    """Rows of ``values``, shape (N, r), against one reference (r,) or one each; ``sign`` is -1 where low is best.

    ``p`` is the one-sided sign-flip test over the plan's units (`embbench.report.flips`).
    """
    gaps = sign * (values - reference)
    mean, low, high, units = summarise(gaps, plan)
    p = np.where(units > 0, flip_p(cluster_sums(gaps, plan), seed, two_sided=False), np.nan)
    return Versus(mean, low, high, units, np.zeros(len(values), np.int64), p)


def versus_draws(values: np.ndarray, draws: list[np.ndarray], plan: Plan, *, sign: float, seed: int) -> Versus:
    """Rows of ``values``, shape (N, r), against their own permutation draws, N arrays (D_i, r); ``D_i`` may be 0.

    The interval resamples units and draws together. Under the null hypothesis the embedding is one more draw, so the
    gap must also exceed what separates a new draw from the mean of D draws.

    Notes
    -----
    ``t = gap / (s sqrt(1 + 1/D))`` with ``s`` the standard deviation of the draws' means, against Student's t with
    D - 1 degrees of freedom: the prediction interval of one future normal observation, Hahn and Meeker (1991),
    Statistical Intervals, section 4.7.
    """
    out = [np.full(len(values), np.nan) for _ in range(4)]
    units, count = np.zeros(len(values), np.int64), np.array([len(d) for d in draws], dtype=np.int64)
    step = max(1, _CELLS // (max(values.shape[1], plan.counts.shape[1]) * max(1, int(count.max(initial=1)))))
    compared = np.flatnonzero(count)
    for members in (compared[start : start + step].tolist() for start in range(0, len(compared), step)):
        gaps = [sign * (values[i] - draws[i]) for i in members]
        samples = resampled_means(np.concatenate(gaps), plan)
        units[members] = plan.units_seen(np.stack([np.where(np.isfinite(g).any(axis=0), 1.0, np.nan) for g in gaps]))
        edges = np.cumsum([0, *count[members]])
        for i, part in zip(members, (samples[a:b] for a, b in pairwise(edges)), strict=True):
            both = np.concatenate([part[:, :1].mean(axis=0), _draw_means(part[:, 1:], seed)])[None]
            low, high = interval(both, int(units[i]))
            for field, value in zip(out, (both[0, 0], low[0], high[0], _draw_p(part[:, 0])), strict=True):
                field[i] = value
    mean, low, high, p = out
    return Versus(mean, low, high, units, count, p)


def _draw_means(samples: np.ndarray, seed: int) -> np.ndarray:
    """Mean (B,) over resampled draws of ``samples`` (D, B); NaN where a drawn one is undefined."""
    n, resamples = samples.shape
    weights = np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1.0 / n), size=resamples).T / n
    return np.where(weights > 0, weights * samples, 0.0).sum(axis=0)


def _draw_p(gaps: np.ndarray) -> float:
    """One-sided p value of the mean of ``gaps`` (D,) under "the embedding is one more draw"."""
    n = len(gaps)
    if n < 2 or not np.isfinite(gaps).all():
        return float("nan")
    spread = float(gaps.std(ddof=1)) * np.sqrt(1 + 1 / n)
    if spread == 0.0:
        return 0.0 if gaps.mean() > 0 else 1.0
    return float(stats.t.sf(gaps.mean() / spread, n - 1))
