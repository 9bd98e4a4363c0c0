"""Paired sign-flip tests over clusters: exact for few clusters, else seeded flips, bounded below their resolution."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

EXACT = 12  # clusters; up to here all 2^n sign patterns are taken
FLIPS = 10_000
_BLOCK = 1000  # flips held at a time; fixed, because the random stream is cut there
_CELLS = 4_000_000
_TILTS = np.geomspace(0.5, 30.0, 40)  # of the Chernoff bound, in units of its Gaussian optimum


def signs(n: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks (k, n) of signs, float64 +1 and -1: every pattern for ``n <= EXACT`` clusters, else `FLIPS` random ones.

    Examples
    --------
    >>> np.concatenate(list(signs(2, seed=0))).tolist()
    [[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]
    """
    if n <= EXACT:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        yield 1.0 - 2.0 * patterns
        return
    rng = np.random.default_rng([seed, n])
    for start in range(0, FLIPS, _BLOCK):
        yield 1.0 - 2.0 * rng.integers(0, 2, size=(min(_BLOCK, FLIPS - start), n)).astype(np.float64)


def flip_p(
    sums: np.ndarray, seed: int, *, two_sided: bool, first: np.ndarray | None = None, second: np.ndarray | None = None
) -> np.ndarray:
    """Test "differences are symmetric about 0" on cluster sums: p values, NaN without a cluster.

    Parameters
    ----------
    sums : shape (u, N), the part of each cluster in each statistic, which is the column sum.
    seed : of the flips where there are more than `EXACT` clusters.
    two_sided : count both tails, else the upper one.
    first, second : shape (P,), columns whose differences are tested; None tests the columns themselves.

    Returns
    -------
    numpy.ndarray
        Shape (N,) or (P,).

    Notes
    -----
    A cluster without a difference (sum exactly 0) does not change under a flip. Random flips give
    ``(1 + hits) / (1 + FLIPS)`` (Phipson and Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9,
    39), which is at least 1e-4 and would never survive Holm over many hundred comparisons. Where no flip reaches the
    observed value and the Chernoff bound ``min_t exp(sum log cosh(t d_u) - t T)`` on the exact p value (Chernoff 1952,
    Annals of Mathematical Statistics 23, 493) is smaller, the bound is the p value: conservative, never too small.

    Examples
    --------
    >>> flip_p(np.array([[1.0], [2.0], [0.5]]), 0, two_sided=True).tolist()
    [0.25]
    """
    u = len(sums)
    pick = np.arange(sums.shape[1]) if first is None else first
    less = np.full(len(pick), -1) if second is None else second
    out = np.full(len(pick), np.nan)
    if not u or not len(pick):
        return out
    padded = np.hstack([sums, np.zeros((u, 1))])  # column -1: nothing to subtract
    total = padded.sum(axis=0)
    # Two equal sums may differ in their last bits: a flip within rounding of the observed value reaches it.
    slack = 1e-12 * np.abs(padded).sum(axis=0)
    observed, room = total[pick] - total[less], slack[pick] + slack[less]
    bar = (np.abs(observed) if two_sided else observed) - room
    hits, flips = np.zeros(len(pick)), 0
    for block in signs(u, seed):
        flipped = block @ padded
        flips += len(block)
        step = max(1, _CELLS // len(block))
        for start in range(0, len(pick), step):
            part = slice(start, start + step)
            gaps = flipped[:, pick[part]] - flipped[:, less[part]]
            hits[part] += ((np.abs(gaps) if two_sided else gaps) >= bar[part]).sum(axis=0)
    if u <= EXACT:
        return hits / flips
    out = (1.0 + hits) / (1.0 + flips)
    for i in np.flatnonzero((hits == 0) & (np.abs(observed) > room)).tolist():
        bound = (2.0 if two_sided else 1.0) * chernoff(padded[:, pick[i]] - padded[:, less[i]])
        out[i] = min(out[i], bound)
    return out


def chernoff(parts: np.ndarray) -> float:
    """Upper bound on the exact one-sided sign-flip p value of the sum of ``parts`` (u,), whatever its sign.

    Examples
    --------
    >>> 2.0**-20 <= chernoff(np.ones(20)) <= 1.001 * 2.0**-20
    True
    """
    observed, square = abs(float(parts.sum())), float((parts**2).sum())
    if observed == 0.0 or square == 0.0:
        return 1.0
    tilt = _TILTS * observed / square
    grown = np.abs(tilt[:, None] * parts)
    log_cosh = grown + np.log1p(np.exp(-2.0 * grown)) - np.log(2.0)
    smallest = (log_cosh.sum(axis=1) - tilt * observed).min()
    return float(np.exp(min(0.0, smallest + 1e-9)))  # rounding must not push a bound below what it bounds
