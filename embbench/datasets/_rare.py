"""What keeps tests of cells at their level where a group is small or few cells express a gene."""

from __future__ import annotations

import numpy as np
from scipy import special

from embbench.numerics import de

BORROWED = 20  # cells as many as which the variance within both groups counts in the variance of either
RARE = {"wilcoxon": 10.0, "welch": 20.0}  # expected expressing cells of the smaller group, below which p is guarded
LARGER = 9  # times the smaller group: what the larger one counts at most in a share of expressing cells


def enough(pooled: np.ndarray, cells: int, other: int, least: float) -> np.ndarray:
    """Genes (g,) that enough cells express, whichever group the cells are of: the choice must not know the outcome.

    A share is of all cells, the larger group counting at most `LARGER` times the smaller one; so a gene that only the
    cells of a small group express is tested, too.

    Parameters
    ----------
    pooled : shape (g,), expressing cells of both groups together.
    cells, other : sizes of the groups.
    least : a share (below 1) or a number of cells (from 1).

    Examples
    --------
    >>> enough(np.array([24, 25]), 50, 1200, 0.05)
    array([False,  True])
    """
    return pooled >= (least if least >= 1 else least * min(cells + other, (1 + LARGER) * min(cells, other)))


def guarded(p: np.ndarray, seen: np.ndarray, pooled: np.ndarray, cells: int, other: int, limit: float) -> np.ndarray:
    """P values (g,); those of rarely expressed genes are no smaller than that of an exact test of expressed or not.

    Normal and t approximations are far off where few cells of the smaller group are expected to express the gene,
    ``pooled x smaller / (cells + other) < limit``: an expressing cell or two suffice there. Given how many cells
    express it, their number in a group is hypergeometric; its doubled smaller tail keeps its level exactly.

    Parameters
    ----------
    p : shape (g,); NaN stays.
    seen : shape (g,), expressing cells of the first group.
    pooled : shape (g,), of both.
    cells, other : sizes of the groups.
    limit : expected cells from which on p is left as it is.

    References
    ----------
    Fisher (1935), Journal of the Royal Statistical Society 98:39; Cochran (1954), Biometrics 10:417, expected counts.

    Examples
    --------
    >>> guarded(np.full(2, 1e-9), np.array([1, 10]), np.array([5, 40]), 10, 30, 5.0)
    array([1.e+00, 1.e-09])
    """
    small, large = min(cells, other), max(cells, other)
    rare = np.flatnonzero(pooled * small < limit * (cells + other))
    out = np.array(p, dtype=np.float64)
    if len(rare):
        few = seen[rare] if cells <= other else pooled[rare] - seen[rare]
        out[rare] = np.maximum(out[rare], _detection(few, pooled[rare], small, large))
    return out


def _detection(few: np.ndarray, pooled: np.ndarray, small: int, large: int) -> np.ndarray:
    """Doubled smaller tail of the hypergeometric number of expressing cells in the smaller group."""
    numbers, at = np.unique(pooled, return_inverse=True)  # few distinct ones: every distribution is made once
    column, hits = numbers[:, None], np.arange(min(small, int(numbers.max(initial=0))) + 1)[None]
    logs = _log_choose(small, hits) + _log_choose(large, column - hits) - _log_choose(small + large, column)
    mass = np.exp(logs)
    below = np.cumsum(mass, axis=1)[at, few]
    above = np.cumsum(mass[:, ::-1], axis=1)[:, ::-1][at, few]
    return np.minimum(2.0 * np.minimum(below, above), 1.0)


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    inside = np.clip(k, 0, n).astype(np.float64)
    value = special.gammaln(n + 1.0) - special.gammaln(inside + 1.0) - special.gammaln(n - inside + 1.0)
    return np.where((k >= 0) & (k <= n), value, -np.inf)


Moments = tuple[np.ndarray, np.ndarray, int]


def welch_p(own: Moments, control: Moments) -> np.ndarray:
    """Two-sided p (g,) of Welch's t test with moderated variances; each group as (means, unbiased variances, cells).

    Each variance is ``(d s_pooled^2 + (n - 1) s^2) / (d + n - 1)`` with d = `BORROWED` and d + n - 1 degrees of
    freedom, where s_pooled^2 is the gene's variance within both groups: a group of a few equal values has none of its
    own. NaN where neither group varies and the means are equal, or a group has fewer than two cells.

    References
    ----------
    Welch (1947), Biometrika 34:28; Smyth (2004), Statistical Applications in Genetics and Molecular Biology 3:3,
    equation 3, with the gene's own pooled variance as the prior and a fixed weight of it.

    Examples
    --------
    >>> one = (np.ones(1), np.ones(1), 10)
    >>> float(welch_p(one, (np.zeros(1), np.ones(1), 10))[0].round(4))
    0.0292
    """
    (mean, variance, n), (mean_c, variance_c, k) = own, control
    if min(n, k) < 2:
        return np.full(np.shape(mean), np.nan)
    pooled = ((n - 1) * variance + (k - 1) * variance_c) / (n + k - 2)
    sizes = n + BORROWED, k + BORROWED  # as so many cells, de.welch has the degrees of freedom
    drawn = [
        (BORROWED * pooled + (cells - 1) * s) / (BORROWED + cells - 1) * (size / cells)
        for s, cells, size in ((variance, n, sizes[0]), (variance_c, k, sizes[1]))
    ]
    return de.welch(mean, drawn[0], sizes[0], mean_c, drawn[1], sizes[1])[1]


def moments(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and unbiased variances (g,), float64; variances NaN for fewer than two cells."""
    mean, variance = np.full((2, cells.shape[1]), np.nan)
    for block in de.gene_blocks(*cells.shape) if len(cells) else ():
        part = cells[:, block].astype(np.float64)
        mean[block] = part.mean(axis=0)
        if len(cells) > 1:
            variance[block] = np.where((part == part[0]).all(axis=0), 0.0, part.var(axis=0, ddof=1))
    return mean, variance


def donor_means(cells: np.ndarray, batches: np.ndarray, least: int) -> dict[int, np.ndarray]:
    """Mean expression (g,), float64, of each batch with enough cells."""
    codes, counts = np.unique(batches, return_counts=True)
    return {int(b): cells[batches == b].mean(axis=0, dtype=np.float64) for b in codes[counts >= least]}
