"""Differential expression, all genes at once: rank-sum against shared controls, Welch, paired, Benjamini-Hochberg."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse, special

from embbench.numerics._rank_keys import Cells, Runs, canonical, checked, cubes, entries, fits_float32, runs, widened

PSEUDOCOUNT = 1.0  # counts per million
CPM = 100.0  # counts per million in one count per 1e4, the scale on which cells are stored
BLOCK = 1 << 22  # entries of a block of genes: bounds temporary memory to about 30 bytes each


@dataclass(frozen=True)
class RankSum:
    """Rank-sum tests of g genes.

    Parameters
    ----------
    u : shape (g,), pairs (perturbed, control) in which the perturbed value is larger, ties counted half.
    z : shape (g,), signed normal score (after the continuity correction where asked for); NaN without cells.
    p : shape (g,), two-sided; 1 where all values are tied, NaN without cells.
    """

    u: np.ndarray
    z: np.ndarray
    p: np.ndarray


class SortedControls:
    """Control cells sorted once per gene, to test many groups of cells against them.

    Zeros are counted and never sorted. Every other value becomes one integer whose order is that of (gene, value), so
    one search in one array places the distinct values of a group in all genes together. Float32 values are packed into
    64 bits, others are compared as float64; both are exact. Memory: 12 (20) bytes per distinct value of a gene.

    Parameters
    ----------
    control : cells of shape (k, g), finite, an array or sparse (CSR), which is not made dense.

    Raises
    ------
    ValueError
        Not two-dimensional, or a value is not finite.

    References
    ----------
    Mann and Whitney (1947), Annals of Mathematical Statistics 18:50; Lehmann (1975), Nonparametrics, for ties.

    Examples
    --------
    >>> controls = SortedControls(np.array([[0.0], [1.0], [2.0]]))
    >>> controls.test(np.array([[2.0], [3.0]])).u.tolist()
    [5.5]
    """

    def __init__(self, control: Cells) -> None:
        control = checked(control)
        self.cells, self.genes = control.shape
        self._wide = not fits_float32(control)
        self._ties = np.zeros(self.genes)
        parts: list[Runs] = []
        for block, gene, values in entries(control, BLOCK):
            parts.append(part := runs(block, gene, values, wide=self._wide))
            self._ties[block] = np.bincount(part.gene, cubes(part.times), len(part.count))
        nothing = np.zeros(0, np.int64)
        self.nonzero = np.concatenate([nothing, *(p.count for p in parts)])
        self.negative = np.concatenate([nothing, *(p.negative for p in parts)])
        self._first = np.concatenate([[0], *(np.bincount(p.gene, minlength=len(p.count)) for p in parts)]).cumsum()
        before = np.concatenate([[0], *(p.times for p in parts)]).cumsum()
        self._before = before.astype(np.int32) if before[-1] < 1 << 31 else before
        self._keys = np.concatenate([p.keys for p in parts]) if parts else nothing

    def test(self, perturbed: Cells, *, continuity: bool = True, ties: bool = True) -> RankSum:
        """Rank-sum test of each gene, two-sided by the normal approximation.

        ``z = (|U - m k / 2| - c) / s``, ``s^2 = m k / 12 (N + 1 - sum_t (t^3 - t) / (N (N - 1)))``, N = m + k.

        Parameters
        ----------
        perturbed : cells of shape (m, g), finite, an array or sparse (CSR).
        continuity : c = 1/2 (scipy ``mannwhitneyu(method="asymptotic")`` and pdex 0.3), else 0 (scanpy).
        ties : the sum over groups of t tied values; False leaves it out (scanpy's default ``tie_correct=False``).

        Raises
        ------
        ValueError
            The genes do not match, or a value is not finite.
        """
        perturbed = checked(perturbed)
        m, k = perturbed.shape[0], self.cells
        if perturbed.shape[1] != self.genes:
            raise ValueError(f"rank-sum test: {perturbed.shape[1]} genes against controls of {self.genes}")
        if not m or not k:
            nothing = np.full(self.genes, np.nan)
            return RankSum(nothing, nothing, nothing)
        if not self._wide and not fits_float32(perturbed):
            self._keys, self._wide = widened(self._keys), True  # for values that float32 cannot hold, from now on
        twice, tied = np.zeros(self.genes), np.zeros(self.genes)
        for block, gene, values in entries(perturbed, BLOCK):
            twice[block], tied[block] = self._block(block, runs(block, gene, values, wide=self._wide), m)
        away, n = (twice - m * k) / 2.0, float(m + k)
        spread = (n + 1.0) - (tied / (n * (n - 1.0)) if ties else 0.0)
        scale = np.sqrt(m * k / 12.0 * np.maximum(spread, 0.0))
        size = np.maximum(np.abs(away) - (0.5 if continuity else 0.0), 0.0)
        z = np.sign(away) * np.divide(size, scale, out=np.zeros(self.genes), where=scale > 0)
        return RankSum(twice / 2.0, z, 2.0 * special.ndtr(-np.abs(z)))

    def _block(self, block: slice, own: Runs, m: int) -> tuple[np.ndarray, np.ndarray]:
        """Twice U and the tie sum of some genes of m cells."""
        start, stop = self._first[block.start], self._first[block.stop]
        left, shared = np.full(len(own.keys), self._before[stop], np.int64), np.zeros(len(own.keys), np.int64)
        if stop > start:
            place = start + np.searchsorted(self._keys[start:stop], own.keys)
            left = self._before[place].astype(np.int64)
            place = np.minimum(place, stop - 1)
            shared = np.where(self._keys[place] == own.keys, self._before[place + 1] - self._before[place], 0)
        kept, below_zero = self.nonzero[block], self.negative[block]
        left -= self._before[self._first[block.start : block.stop]][own.gene]  # of this gene
        inside = np.bincount(own.gene, own.times * (2 * left + shared), len(own.count))
        zeros, zeros_control = m - own.count, self.cells - kept
        outside = 2 * (own.count - own.negative) * zeros_control + zeros * (2 * below_zero + zeros_control)
        more = np.bincount(own.gene, cubes(shared + own.times) - cubes(shared), len(own.count))
        return inside + outside, self._ties[block] + more + cubes(zeros + zeros_control)


def wilcoxon(perturbed: Cells, control: Cells, *, continuity: bool = True, ties: bool = True) -> RankSum:
    """Rank-sum test of each gene, cells of shape (m, g) against (k, g); see `SortedControls.test`.

    Examples
    --------
    >>> round(float(wilcoxon(np.array([[3.0], [4.0]]), np.array([[0.0], [1.0], [2.0]])).p[0]), 4)
    0.1489
    """
    return SortedControls(control).test(perturbed, continuity=continuity, ties=ties)


def welch(
    mean: np.ndarray,
    var: np.ndarray,
    n: int | np.ndarray,
    mean_control: np.ndarray,
    var_control: np.ndarray,
    n_control: int | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Welch's t and two-sided p from moments, as ``scipy.stats.ttest_ind(equal_var=False)``, of shape (g,) or (k, g).

    Parameters
    ----------
    mean, var, n : means and unbiased variances (ddof 1), and number of cells: (g,), (g,) and a number of one group, or
        (k, g), (k, g) and (k, 1) of k groups at once (`embbench.numerics.moments.GroupMoments` streams them).
    mean_control, var_control, n_control : the same of the controls, (g,) serving all groups.

    Notes
    -----
    NaN with fewer than two cells in a group, or where both variances are 0 and the means equal; p = 0 where both are 0
    and the means differ. Welch (1947), Biometrika 34:28.

    Examples
    --------
    >>> [float(x[0].round(4)) for x in welch(np.ones(1), np.ones(1), 10, np.zeros(1), np.ones(1), 10)]
    [2.2361, 0.0382]
    """
    m, k = np.asarray(n, dtype=np.float64), np.asarray(n_control, dtype=np.float64)
    away = np.asarray(mean, dtype=np.float64) - np.asarray(mean_control, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = np.asarray(var, dtype=np.float64) / m, np.asarray(var_control, dtype=np.float64) / k
        freedom = np.square(a + b) / (np.square(a) / (m - 1) + np.square(b) / (k - 1))
        t = away / np.sqrt(a + b)
    t = np.where((m < 2) | (k < 2), np.nan, t)
    return t, 2.0 * special.stdtr(np.where(np.isnan(freedom), 1.0, freedom), -np.abs(t))


def paired(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paired t (g,) and two-sided p (g,) of differences of shape (b, g), as ``scipy.stats.ttest_rel``; NaN if b < 2.

    Examples
    --------
    >>> [float(x[0].round(4)) for x in paired(np.array([[1.0], [2.0], [3.0]]))]
    [3.4641, 0.0742]
    """
    b = len(differences)
    if b < 2:
        nothing = np.full(differences.shape[1], np.nan)
        return nothing, nothing
    with np.errstate(divide="ignore", invalid="ignore"):
        t = differences.mean(axis=0) / np.sqrt(differences.var(axis=0, ddof=1) / b)
    return t, 2.0 * special.stdtr(b - 1.0, -np.abs(t))


def benjamini_hochberg(p: np.ndarray, axis: int = -1) -> np.ndarray:
    """Adjusted p values, ``min_{j >= i} p_(j) n / j`` over the n tested ones; NaN (not tested) stays NaN and uncounted.

    Raises
    ------
    ValueError
        A value lies outside 0 .. 1.

    References
    ----------
    Benjamini and Hochberg (1995), Journal of the Royal Statistical Society B 57:289.

    Examples
    --------
    >>> benjamini_hochberg(np.array([0.01, np.nan, 0.04, 0.03])).round(3).tolist()
    [0.03, nan, 0.04, 0.04]
    """
    p = np.moveaxis(np.asarray(p, dtype=np.float64), axis, -1)
    if bad := int(((p < 0) | (p > 1)).sum()):
        raise ValueError(f"benjamini_hochberg: p values must lie in 0 .. 1, found {bad} that do not")
    order = np.argsort(p, axis=-1, kind="stable")  # NaN last
    tested = np.isfinite(p).sum(axis=-1, keepdims=True)
    raw = np.take_along_axis(p, order, axis=-1) * (tested / np.arange(1, p.shape[-1] + 1))
    raw = np.where(np.isnan(raw), np.inf, raw)
    best = np.minimum(np.minimum.accumulate(raw[..., ::-1], axis=-1)[..., ::-1], 1.0)
    out = np.empty_like(p)
    np.put_along_axis(out, order, best, axis=-1)
    return np.moveaxis(np.where(np.isnan(p), np.nan, out), -1, axis)


def log2fc(mean: np.ndarray, mean_control: np.ndarray, pseudocount: float = PSEUDOCOUNT) -> np.ndarray:
    """``log2((100 mean + c) / (100 mean_control + c))``: log2 ratio of mean counts per million with pseudocount c.

    Parameters
    ----------
    mean, mean_control : mean counts per 1e4 (see `mean_counts`), >= 0; one of them is 100 counts per million.
    pseudocount : c, in counts per million (1e-7 here is pdex's 1e-9 per 1e4); 0 gives infinities, and 0 for 0 / 0.

    Raises
    ------
    ValueError
        A negative pseudocount.

    Examples
    --------
    >>> log2fc(np.array([0.03, 0.0]), np.array([0.01, 0.0])).tolist()
    [1.0, 0.0]
    """
    if not pseudocount >= 0:
        raise ValueError(f"log2fc: pseudocount must be >= 0 counts per million, got {pseudocount}")
    top, bottom = (CPM * np.asarray(x, dtype=np.float64) + pseudocount for x in (mean, mean_control))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2(top) - np.log2(bottom)
    return np.where((top == 0) & (bottom == 0), 0.0, ratio)


def mean_counts(cells: Cells) -> np.ndarray:
    """Mean counts per 1e4, shape (g,), of cells (m, g) stored as natural log1p; negative values count as 0.

    Sparse cells (CSR) are not made dense. NaN without cells.

    Examples
    --------
    >>> mean_counts(np.log1p(np.array([[1.0], [3.0]]))).round(6).tolist()
    [2.0]
    """
    m, genes = cells.shape
    if sparse.issparse(cells) and m:
        rows = sparse.csr_matrix(canonical(cells))
        return np.bincount(rows.indices, np.expm1(np.maximum(rows.data, 0).astype(np.float64)), genes) / m
    out = np.full(genes, np.nan)
    for block in gene_blocks(m, genes) if m else ():
        out[block] = np.expm1(np.maximum(cells[:, block], 0).astype(np.float64)).mean(axis=0)
    return out


def gene_blocks(cells: int, genes: int) -> Iterator[slice]:
    """Slices of genes with at most `BLOCK` entries of the cells each (one gene at least)."""
    step = max(1, BLOCK // max(1, cells))
    yield from (slice(start, min(start + step, genes)) for start in range(0, genes, step))
