"""Differential expression, all genes at once: rank-sum against shared controls, Welch, paired, Benjamini-Hochberg."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import special

PSEUDOCOUNT = 1.0  # counts per million
CPM = 100.0  # counts per million in one count per 1e4, the scale on which cells are stored
BLOCK = 1 << 22  # entries of a block of genes: bounds temporary memory to about 30 bytes each
_SPAN, _LOW, _HIGH = 32, 1 << 31, np.int32(0x7FFFFFFF)


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
    one search in one array places the values of a group in all genes together. Float32 values are packed into 64 bits,
    others are compared as float64; both are exact. Memory: 8 (16) bytes per value that is not 0.

    Parameters
    ----------
    control : cells of shape (k, g), finite.

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

    def __init__(self, control: np.ndarray) -> None:
        control = _matrix(control)
        self.cells, self.genes = control.shape
        self._wide = not _fits_float32(control)
        self.nonzero = np.zeros(self.genes, dtype=np.int64)
        self.negative = np.zeros(self.genes, dtype=np.int64)
        self._ties = np.zeros(self.genes)
        parts = []
        for block in gene_blocks(*control.shape):
            keys, self.nonzero[block], self.negative[block] = _sorted_keys(control[:, block], wide=self._wide)
            gene, times = _runs(keys, self.nonzero[block])[:2]
            self._ties[block] = np.bincount(gene, _cubes(times), block.stop - block.start)
            parts.append(keys)
        self._keys = parts
        self._starts = [block.start for block in gene_blocks(*control.shape)]

    def test(self, perturbed: np.ndarray, *, continuity: bool = True, ties: bool = True) -> RankSum:
        """Rank-sum test of each gene, two-sided by the normal approximation.

        ``z = (|U - m k / 2| - c) / s``, ``s^2 = m k / 12 (N + 1 - sum_t (t^3 - t) / (N (N - 1)))``, N = m + k.

        Parameters
        ----------
        perturbed : cells of shape (m, g), finite.
        continuity : c = 1/2 (scipy ``mannwhitneyu(method="asymptotic")`` and pdex 0.3), else 0 (scanpy).
        ties : the sum over groups of t tied values; False leaves it out (scanpy's default ``tie_correct=False``).

        Raises
        ------
        ValueError
            The genes do not match, or a value is not finite.
        """
        perturbed = _matrix(perturbed)
        m, k = len(perturbed), self.cells
        if perturbed.shape[1] != self.genes:
            raise ValueError(f"rank-sum test: {perturbed.shape[1]} genes against controls of {self.genes}")
        if not m or not k:
            nothing = np.full(self.genes, np.nan)
            return RankSum(nothing, nothing, nothing)
        if not self._wide and not _fits_float32(perturbed):
            self._widen()
        twice, tied = np.zeros(self.genes), np.zeros(self.genes)
        ends = [*self._starts, self.genes][1:]
        for start, end, keys in zip(self._starts, ends, self._keys, strict=True):
            for part in gene_blocks(m, end - start):
                block = slice(start + part.start, start + part.stop)
                before = int(self.nonzero[start : block.start].sum())
                own = keys[before : before + int(self.nonzero[block].sum())]
                twice[block], tied[block] = self._block(perturbed, block, own, start)
        away, n = (twice - m * k) / 2.0, float(m + k)
        spread = (n + 1.0) - (tied / (n * (n - 1.0)) if ties else 0.0)
        scale = np.sqrt(m * k / 12.0 * np.maximum(spread, 0.0))
        size = np.maximum(np.abs(away) - (0.5 if continuity else 0.0), 0.0)
        z = np.sign(away) * np.divide(size, scale, out=np.zeros(self.genes), where=scale > 0)
        return RankSum(twice / 2.0, z, 2.0 * special.ndtr(-np.abs(z)))

    def _block(
        self, perturbed: np.ndarray, block: slice, control: np.ndarray, first: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Twice U and the tie sum of some genes; ``control`` holds their keys, numbered from gene ``first`` on."""
        keys, count, negative = _sorted_keys(perturbed[:, block], wide=self._wide, offset=block.start - first)
        kept, below_zero = self.nonzero[block], self.negative[block]
        left = np.searchsorted(control, keys)
        right = left.copy()
        if len(control):
            equal = control[np.minimum(left, len(control) - 1)] == keys
            right[equal] = np.searchsorted(control, keys[equal], side="right")
        ends = np.cumsum(count)
        places = np.concatenate([[0], np.cumsum(left + right)])
        inside = places[ends] - places[ends - count] - 2 * count * (np.cumsum(kept) - kept)
        zeros, zeros_control = len(perturbed) - count, self.cells - kept
        twice = inside + 2 * (count - negative) * zeros_control + zeros * (2 * below_zero + zeros_control)
        gene, times, at = _runs(keys, count)
        shared = (right - left)[at]
        more = np.bincount(gene, _cubes(shared + times) - _cubes(shared), len(count))
        return twice.astype(np.float64), self._ties[block] + more + _cubes(zeros + zeros_control)

    def _widen(self) -> None:
        """Keep float64 keys from now on: a group came whose values float32 cannot hold."""
        self._keys = [_unpacked(keys) for keys in self._keys]
        self._wide = True


def wilcoxon(perturbed: np.ndarray, control: np.ndarray, *, continuity: bool = True, ties: bool = True) -> RankSum:
    """Rank-sum test of each gene, cells of shape (m, g) against (k, g); see `SortedControls.test`.

    Examples
    --------
    >>> round(float(wilcoxon(np.array([[3.0], [4.0]]), np.array([[0.0], [1.0], [2.0]])).p[0]), 4)
    0.1489
    """
    return SortedControls(control).test(perturbed, continuity=continuity, ties=ties)


def welch(
    mean: np.ndarray, var: np.ndarray, n: int, mean_control: np.ndarray, var_control: np.ndarray, n_control: int
) -> tuple[np.ndarray, np.ndarray]:
    """Welch's t (g,) and two-sided p (g,) from moments, as ``scipy.stats.ttest_ind(equal_var=False)``.

    Parameters
    ----------
    mean, var, n : means and unbiased variances (ddof 1) of shape (g,), and number of cells; the same of the controls.

    Notes
    -----
    NaN with fewer than two cells in a group, or where both variances are 0 and the means equal; p = 0 where both are 0
    and the means differ. Welch (1947), Biometrika 34:28.

    Examples
    --------
    >>> [float(x[0].round(4)) for x in welch(np.ones(1), np.ones(1), 10, np.zeros(1), np.ones(1), 10)]
    [2.2361, 0.0382]
    """
    if min(n, n_control) < 2:
        nothing = np.full(np.shape(mean), np.nan)
        return nothing, nothing
    a, b = np.asarray(var, dtype=np.float64) / n, np.asarray(var_control, dtype=np.float64) / n_control
    away = np.asarray(mean, dtype=np.float64) - np.asarray(mean_control, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.square(a + b) / (np.square(a) / (n - 1) + np.square(b) / (n_control - 1))
        t = away / np.sqrt(a + b)
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


def mean_counts(cells: np.ndarray) -> np.ndarray:
    """Mean counts per 1e4, shape (g,), of cells (m, g) stored as natural log1p; negative values count as 0.

    Examples
    --------
    >>> mean_counts(np.log1p(np.array([[1.0], [3.0]]))).round(6).tolist()
    [2.0]
    """
    out = np.full(cells.shape[1], np.nan)
    for block in gene_blocks(*cells.shape) if len(cells) else ():
        out[block] = np.expm1(np.maximum(cells[:, block], 0).astype(np.float64)).mean(axis=0)
    return out


def gene_blocks(cells: int, genes: int) -> Iterator[slice]:
    """Slices of genes with at most `BLOCK` entries of the cells each (one gene at least)."""
    step = max(1, BLOCK // max(1, cells))
    yield from (slice(start, min(start + step, genes)) for start in range(0, genes, step))


def _matrix(cells: np.ndarray) -> np.ndarray:
    cells = np.asarray(cells)
    if cells.ndim != 2 or cells.dtype.kind not in "fiub":
        raise ValueError(f"rank-sum test: cells must be numbers (m, g), found {cells.dtype} of shape {cells.shape}")
    if bad := sum(int((~np.isfinite(cells[:, block])).sum()) for block in gene_blocks(*cells.shape)):
        raise ValueError(f"rank-sum test: cells must be finite, found {bad} values that are not")
    return cells


def _fits_float32(cells: np.ndarray) -> bool:
    if cells.dtype.kind == "b" or cells.dtype in (np.float32, np.float16):
        return True
    blocks = gene_blocks(*cells.shape)
    with np.errstate(over="ignore"):
        return all(np.array_equal(cells[:, b].astype(np.float32).astype(np.float64), cells[:, b]) for b in blocks)


def _sorted_keys(cells: np.ndarray, *, wide: bool, offset: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted keys of all values that are not 0; per gene how many there are, and how many are negative."""
    row, gene = np.nonzero(cells)
    values, genes = cells[row, gene], cells.shape[1]
    count, negative = np.bincount(gene, minlength=genes), np.bincount(gene[values < 0], minlength=genes)
    keys = _packed(gene + offset, values, wide=wide)
    keys.sort()
    return keys, count, negative


def _packed(gene: np.ndarray, values: np.ndarray, *, wide: bool) -> np.ndarray:
    """Numbers that sort as (gene, value): 64-bit integers, or complex ones, which numpy orders by real, then imaginary
    part.
    """
    if wide:
        keys = gene.astype(np.complex128)
        keys.imag = values
        return keys
    bits = values.astype(np.float32).view(np.int32)
    return (gene.astype(np.int64) << _SPAN) + (bits ^ ((bits >> 31) & _HIGH)) + _LOW


def _unpacked(keys: np.ndarray) -> np.ndarray:
    """Integer keys as complex ones."""
    bits = ((keys & ((1 << _SPAN) - 1)) - _LOW).astype(np.int32)
    return _packed(keys >> _SPAN, (bits ^ ((bits >> 31) & _HIGH)).view(np.float32), wide=True)


def _runs(keys: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gene, length and first position of every run of equal keys; ``count`` keys belong to each gene."""
    new = np.ones(len(keys), dtype=bool)
    new[1:] = keys[1:] != keys[:-1]
    at = np.flatnonzero(new)
    return np.repeat(np.arange(len(count)), count)[at], np.diff(np.append(at, len(keys))), at


def _cubes(times: np.ndarray) -> np.ndarray:
    """t^3 - t, float64."""
    t = times.astype(np.float64)
    return t * t * t - t
