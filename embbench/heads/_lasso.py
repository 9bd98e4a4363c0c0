"""The Lasso at many targets from one Gram matrix: products, closed form, descent along a ladder, duality gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embbench.heads import _lasso_loops as loops

TOLERANCE = 1e-6  # violation of the optimality conditions, as a correlation of feature and residual
TURNS = 60  # of correction on nearly uncorrelated features; every one takes 90 % off the error
NEARLY = 0.1  # largest sum of correlations of a feature with the others for which corrections converge that fast
SWEEPS = (5, 20)  # of coordinate descent a round, in numpy and compiled: beside an exact solution they cost more there
BLOCK = 512  # genes whose targets and coefficients stay in the cache


@dataclass(frozen=True)
class Products:
    """All that a Lasso needs of its training rows, for centred features and targets, divided by the number of rows.

    Parameters
    ----------
    x_mean, y_mean : (d,) and (g,) column means.
    gram : (d, d) covariances of the features.
    cross : (d, g) covariances of features and targets.
    energy : (g,) variances of the targets.
    rank : rows - 1; more features than that have no unique minimum.
    correlation : largest absolute correlation of two features.
    rounding : of ``cross``, as a correlation of feature and target: eps of the precision it was taken in.
    """

    x_mean: np.ndarray
    y_mean: np.ndarray
    gram: np.ndarray
    cross: np.ndarray
    energy: np.ndarray
    rank: int
    correlation: float
    rounding: float

    @property
    def nearly_uncorrelated(self) -> bool:
        """Whether corrections of the closed form converge fast."""
        return self.correlation * len(self.gram) <= NEARLY


def gram_of(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (d,) and covariances (d, d) of features (n, d), n in the denominator, float64."""
    mean = X.mean(axis=0, dtype=np.float64)
    rows = X - mean
    return mean, rows.T @ rows / len(X)


def correlation(gram: np.ndarray) -> float:
    """Largest absolute correlation of two features from their covariances (d, d); 0 for a single one.

    Examples
    --------
    >>> correlation(np.array([[4.0, -1.0], [-1.0, 1.0]]))
    0.5
    """
    size = np.diagonal(gram)
    spread = np.sqrt(np.where(size > 0, size, np.inf))
    table = np.abs(gram / spread / spread[:, None])
    np.fill_diagonal(table, 0.0)
    return float(table.max(initial=0.0))


def products(X: np.ndarray, Y: np.ndarray) -> Products:
    """Products of features (n, d) and targets (n, g), float64.

    Nearly uncorrelated features hand rounding of ``cross`` on as it is, so the product of float32 features and targets
    is taken in float32: it rounds no more than they did. Correlated features magnify it: float64.
    """
    n, g = Y.shape
    x_mean, gram = gram_of(X)
    largest = correlation(gram)
    low = X.dtype == Y.dtype == np.float32 and largest * len(gram) <= NEARLY
    exact: type[np.floating[Any]] = np.float32 if low else np.float64
    empty = np.empty(g), gram, np.empty((X.shape[1], g)), np.empty(g)
    made = Products(x_mean, *empty, n - 1, largest, float(np.finfo(exact).eps))
    left = (np.vstack([(X - x_mean).T, np.ones((1, n))]) / n).astype(exact)
    for start in range(0, g, BLOCK):
        part = slice(start, start + BLOCK)
        first = np.zeros(1)
        target: np.ndarray = Y[:, part].astype(exact, copy=False)
        sums, square = left @ target, np.einsum("ng,ng->g", target, target) / n
        if (np.square(sums[-1]) > square / 2).any():  # centre where means are most of the targets
            first = Y[:, part].mean(axis=0, dtype=np.float64)
            target = (Y[:, part] - first).astype(exact)
            sums, square = left @ target, np.einsum("ng,ng->g", target, target) / n
        made.cross[:, part] = sums[:-1]
        made.y_mean[part] = first + sums[-1]
        made.energy[part] = np.maximum(square - np.square(sums[-1]), 0.0)
    return made


def uncorrelated(made: Products, alpha: float) -> tuple[np.ndarray, float, float]:
    """Coefficients (d, g) for nearly uncorrelated features, their violation and largest relative duality gap.

    With D the diagonal of the Gram matrix and E the rest, w = D^-1 soft(c, alpha) is the solution when E = 0. It
    violates the conditions of the true problem by E w alone. With r the largest correlation and u = sum s_j |w_j| for
    feature spreads s, |E w|_i <= r s_i u, and u <= sqrt(d) times the target's spread: nothing has to be computed to see
    that the closed form is good enough. Otherwise c - E w takes the place of c until it is.
    """
    size = np.diagonal(made.gram)[:, None].copy()
    share = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    coef, sums = loops.shrink(made.cross, share[:, 0], np.sqrt(size[:, 0]), alpha)
    left = made.correlation * np.sqrt(len(made.gram)) + made.rounding
    if left <= TOLERANCE:
        return coef, left, _bound(made, sums, alpha)
    rest = made.gram - np.diag(size[:, 0])
    for _ in range(TURNS):
        slope = made.cross - rest @ coef
        left = violation(made, slope - size * coef, coef, alpha)
        if left <= TOLERANCE:
            break
        coef = loops.shrink(slope, share[:, 0], np.sqrt(size[:, 0]), alpha)[0]
    return coef, left, gap(made, made.cross - made.gram @ coef, coef, alpha)


def _bound(made: Products, sums: np.ndarray, alpha: float) -> float:
    """No relative duality gap of closed-form coefficients is larger: `gap` with |E w| and the rounding of ``cross`` at
    their largest, from the sums (2, g) of |w_j| and s_j |w_j|.
    """
    total, reach = sums
    each = made.correlation * reach + made.rounding * np.sqrt(made.energy)
    excess = np.sqrt(np.diagonal(made.gram).max(initial=0.0)) * each
    bound = made.energy * np.square(excess / alpha) + 2 * (excess * total + each * reach)
    return float(np.divide(bound, made.energy, out=np.zeros_like(bound), where=reach > 0).max(initial=0.0))


def violation(made: Products, slope: np.ndarray, coef: np.ndarray, alpha: float) -> float:
    """Largest violation of the optimality conditions, as a correlation, for slopes ``cross - gram @ coef`` (d, g)."""
    worst = loops.violations(slope, coef, alpha, np.sqrt(np.diagonal(made.gram)), np.sqrt(made.energy))
    return float(worst.max(initial=0.0))


def gap(made: Products, slope: np.ndarray, coef: np.ndarray, alpha: float) -> float:
    """Largest duality gap over targets as a share of the objective's value at 0 coefficients (half the variance).

    Notes
    -----
    The residual, scaled by k so that no slope exceeds ``alpha``, is feasible for the dual; the difference of the two
    objectives is (1 - k)^2 ||r||^2 / (2 n) + alpha |w|_1 - k w's (Kim et al. 2007, J-STSP 1:606-617, section III.B).
    """
    inner = np.einsum("dg,dg->g", coef, slope)
    residual = np.maximum(made.energy - np.einsum("dg,dg->g", coef, made.cross) - inner, 0.0)
    k = alpha / np.maximum(np.abs(slope).max(axis=0, initial=0.0), alpha)
    gaps = np.square(1 - k) * residual / 2 + alpha * np.abs(coef).sum(axis=0) - k * inner
    used = made.energy > 0
    return float((2 * gaps[used] / made.energy[used]).max(initial=0.0))


def ladder(alphas: Sequence[float], largest: float) -> list[float]:
    """Penalties to solve for, descending: ``alphas``, and every power of ten from below ``largest`` to the least alpha.

    A solution starts from that of the power of ten next above it, never from another alpha's, so it does not depend on
    the penalties that are asked for together.

    Examples
    --------
    >>> ladder([0.03, 0.01], largest=2.0)
    [1.0, 0.1, 0.03, 0.01]
    """
    top = int(np.floor(np.log10(largest))) if largest > 0 else 0
    powers = [float(f"1e{p}") for p in range(top, int(np.floor(np.log10(min(alphas)))) - 1, -1)]
    return sorted({*alphas, *(p for p in powers if p >= min(alphas))}, reverse=True)


def descend(made: Products, alphas: Sequence[float], rounds: int) -> dict[float, tuple[np.ndarray, float, float]]:
    """For every alpha: coefficients (d, g), violation and relative gap, by descent on the Gram matrix.

    Rounds of cyclic coordinate descent, each followed by the exact solution on the features in use with their signs,
    for the targets whose optimality conditions do not hold yet.
    """
    d, g = made.cross.shape
    out = {alpha: np.empty((g, d)) for alpha in alphas}
    left = dict.fromkeys(alphas, 0.0)
    spread = np.sqrt(np.diagonal(made.gram))
    rungs = ladder(alphas, float(np.abs(made.cross).max(initial=0.0)))
    for start in range(0, g, BLOCK):
        part = slice(start, start + BLOCK)
        pull, scale = np.ascontiguousarray(made.cross[:, part].T), np.sqrt(made.energy[part])
        coef = np.zeros_like(pull)
        for alpha in rungs:
            solved, worst = _solve(made.gram, pull, coef, alpha, spread, scale, rounds, made.rank)
            if alpha in out:
                out[alpha][part], left[alpha] = solved, max(left[alpha], worst)
            if alpha == float(f"1e{round(np.log10(alpha))}"):
                coef = solved
    return {a: (w.T, left[a], gap(made, made.cross - made.gram @ w.T, w.T, a)) for a, w in out.items()}


def _solve(
    gram: np.ndarray,
    pull: np.ndarray,
    start: np.ndarray,
    alpha: float,
    spread: np.ndarray,
    scale: np.ndarray,
    rounds: int,
    rank: int,
) -> tuple[np.ndarray, float]:
    """Coefficients (m, d) of a block of genes from those of a larger penalty, and the violation left over."""
    coef = start.copy()
    for turn in range(rounds + 1):
        slope = pull - coef @ gram
        worst = loops.violations(slope.T, coef.T, alpha, spread, scale)
        late = np.flatnonzero(worst > TOLERANCE)
        if not len(late) or turn == rounds:
            break
        loops.sweeps(gram, slope, coef, late, alpha, SWEEPS[loops.has_numba()] if turn else 1)
        if turn:
            loops.finish(gram, pull, coef, late, alpha, rank)
    return coef, float(worst.max(initial=0.0))
