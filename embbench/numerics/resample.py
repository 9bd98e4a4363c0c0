"""Resampling of cells within batches as weights, so that many resampled means are one matrix product.

Everything here is a deviation from the mean of a group of cells: a vector of coefficients ``c`` of shape (n,), one per
cell, sorted by batch, such that ``c @ cells`` (summed within a batch) is what a resample adds to that batch's mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

LEAST_ROWS = 4  # with fewer, the spread of effect sizes is not known
LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Strata:
    """Cells of one group, side by side by batch.

    Parameters
    ----------
    size : (b,) int, positive number of cells of each batch; cell ``j`` belongs to batch ``code[j]``.

    Examples
    --------
    >>> Strata(np.array([2, 1])).code.tolist(), Strata(np.array([2, 1])).start.tolist()
    ([0, 0, 1], [0, 2])
    """

    size: np.ndarray

    @cached_property
    def code(self) -> np.ndarray:
        """Batch of each cell, shape (n,)."""
        return np.repeat(np.arange(len(self.size)), self.size)

    @cached_property
    def start(self) -> np.ndarray:
        """First cell of each batch, shape (b,)."""
        return np.cumsum(self.size) - self.size

    @cached_property
    def alone(self) -> np.ndarray:
        """Batches of one cell."""
        return np.flatnonzero(self.size == 1)

    @cached_property
    def freedom(self) -> int:
        """Degrees of freedom within batches; without any, the noise of the group cannot be told."""
        return int((self.size - 1).sum())

    def split(self, rng: np.random.Generator) -> np.ndarray:
        """Half difference of a random split of every batch, (n,): ``sqrt(n1 n2) / n * (mean of half 1 - of half 2)``.

        The factor (1/2 for equal halves) makes its variance exactly that of the mean of all n cells, also for odd n,
        and it is uncorrelated with that mean. 0 in batches of one cell.

        Examples
        --------
        >>> np.abs(Strata(np.array([4, 1])).split(np.random.default_rng(0))).tolist()
        [0.25, 0.25, 0.25, 0.25, 0.0]
        """
        code = self.code
        order = np.lexsort((rng.random(len(code)), code))
        first = self.size // 2
        other = self.size - first
        scale = np.sqrt(first * other) / self.size
        in_first = np.arange(len(code)) - self.start[code] < first[code]
        out = np.empty(len(code))
        out[order] = np.where(in_first, (scale / np.maximum(first, 1))[code], -(scale / other)[code])
        return out

    def draw(self, rng: np.random.Generator, pool: np.ndarray | None = None) -> np.ndarray:
        """As many cells as there are, with replacement within batches: cell numbers (n,), sorted by batch.

        ``pool`` is an earlier draw to draw from again.
        """
        code = self.code
        index = self.start[code] + (rng.random(len(code)) * self.size[code]).astype(np.int64)
        return index if pool is None else pool[index]

    def shift(self, drawn: np.ndarray, origin: np.ndarray | None = None, *, rescale: bool = True) -> np.ndarray:
        """What a draw adds to each batch mean, (n,); to the mean of the draw ``origin`` where one is given.

        A draw of n from n has ``(n - 1) / n`` of the variance of a mean of n new cells; ``rescale`` multiplies its
        deviations by ``sqrt(n / (n - 1))`` (once more for a draw from a draw), which makes up for it.

        References
        ----------
        Rao and Wu (1988), Journal of the American Statistical Association 83:231: rescaled bootstrap within strata.

        Examples
        --------
        >>> strata = Strata(np.array([2]))
        >>> strata.shift(np.array([0, 0]), rescale=False).tolist()
        [0.5, -0.5]
        """
        code, n = self.code, len(drawn)
        from_ = np.arange(n) if origin is None else origin
        count = np.bincount(drawn, minlength=n) - np.bincount(from_, minlength=n)
        factor = self._factor() if rescale else np.ones(len(self.size))
        return count * (factor**2 if rescale and origin is not None else factor)[code] / self.size[code]

    def _factor(self) -> np.ndarray:
        return np.sqrt(self.size / np.maximum(self.size - 1, 1))

    def lend(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Noise for batches of one cell: a residual of a random cell elsewhere, with a random sign.

        Returns
        -------
        batches, cells, factors : of shape (l,); batch ``batches[i]`` borrows ``factors[i]`` times the deviation of
        cell ``cells[i]`` from its own batch mean. The factors make its expected square the variance pooled within
        batches. Empty when no batch has two cells.
        """
        alone = self.alone
        donors = np.flatnonzero((self.size > 1)[self.code])
        if not len(alone) or not len(donors):
            return alone[:0], donors[:0], np.zeros(0)
        chosen = donors[rng.integers(len(donors), size=len(alone))]
        sign = np.where(rng.random(len(alone)) < 0.5, -1.0, 1.0)
        return alone, chosen, sign * np.sqrt(len(donors) / self.freedom)

    def borrowed(self, amounts: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Coefficients (n,) of ``sum_i amounts[i] * (cell cells[i] - mean of its batch)``."""
        code = self.code
        out = np.bincount(cells, amounts, minlength=len(code))
        return out - (np.bincount(code[cells], amounts, minlength=len(self.size)) / self.size)[code]

    def two_stage(self, rng: np.random.Generator, slots: np.ndarray, weight: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Coefficients (n,) of batches ``slots`` and then cells of each of them, minus those of the weighted mean.

        ``weight`` and ``own`` are the weights (b,) of the batches in the draw and in the mean.
        """
        times = np.bincount(slots, minlength=len(weight))
        code = np.repeat(np.arange(len(self.size)), times * self.size)
        drawn = self.start[code] + (rng.random(len(code)) * self.size[code]).astype(np.int64)
        count = np.bincount(drawn, minlength=len(self.code))
        return count * (weight / np.maximum(times * self.size, 1))[self.code] - (own / self.size)[self.code]


def signal_share(size: np.ndarray, noise: np.ndarray, error: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Share of the squared size of noisy effects that is signal, shape (m,), above 0 and at most 1.

    ``size - noise`` estimates the squared size of the noise-free effect. Within a group of four or more these estimates
    are drawn together as far as their spread is no larger than their own sampling error (James and Stein 1961; Efron
    and Morris 1973, Journal of the American Statistical Association 68:117). Never 0: an effect that is all noise still
    points somewhere, so that directions stay defined.

    Parameters
    ----------
    size, noise : (m,) squared sizes of the effects, and what of them is expected to be noise.
    error : (m,) sampling variance of ``size``.
    groups : (m,) codes; rows of a negative one are left on their own.

    Examples
    --------
    >>> signal_share(np.array([4.0]), np.array([1.0]), np.zeros(1), np.zeros(1)).tolist()
    [0.75]
    """
    signal = size - noise
    for code in np.unique(groups[groups >= 0]).tolist():
        rows = np.flatnonzero(groups == code)
        spread = signal[rows].var(ddof=1) if len(rows) >= LEAST_ROWS else 0.0
        if spread > 0:
            centre = signal[rows].mean()
            signal[rows] = centre + max(0.0, 1.0 - error[rows].mean() / spread) * (signal[rows] - centre)
    return np.clip(signal / np.where(size > 0, size, 1.0), LEAST_SHARE, 1.0)


def draw_batches(
    weight: np.ndarray, rng: np.random.Generator, how: str, slots: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As many batches as there are, with replacement, and the weights that their differences then get.

    Parameters
    ----------
    weight : (b,) matching weights, summing to 1.
    rng : the stream.
    how : ``equal``: batches are drawn with equal probability and keep their weights; ``size``: drawn with probability
        ``weight`` and counted equally. Both are centred on the weighted mean.
    slots : (b,) an earlier draw, to draw from again (all of its slots alike).

    Returns
    -------
    slots, weights : (b,) batch numbers drawn, and (b,) weights of the batches, summing to 1.

    Examples
    --------
    >>> slots, weights = draw_batches(np.array([0.5, 0.5]), np.random.default_rng(0), "equal")
    >>> slots.shape, float(weights.sum())
    ((2,), 1.0)
    """
    b = len(weight)
    if slots is None:
        drawn = rng.choice(b, size=b, p=weight if how == "size" else None)
    else:
        drawn = slots[rng.integers(b, size=b)]
    raw = np.bincount(drawn, minlength=b) * (1.0 if how == "size" else weight)
    return drawn, raw / raw.sum()


def batch_scale(weight: np.ndarray, away: np.ndarray, noise: np.ndarray, how: str) -> tuple[float, float]:
    """Factor of the batch stage that leaves it the variance between batches that cells do not explain.

    Batch means differ by cell noise too, which the stage of cells adds again; drawing both with replacement counts it
    twice (Davison and Hinkley 1997, Bootstrap Methods, section 3.8). With ``D_b`` the difference of batch b, ``T`` the
    variance between batches and all of it summed over genes: ``E sum w_b |D_b - D|^2 = sum w_b (1 - w_b) (T + v_b)``
    gives T; a draw of batches has variance ``sum w_b^2 |D_b - D|^2`` (``equal``) or ``sum w_b |D_b - D|^2 / b``
    (``size``) where ``T sum w_b^2`` is wanted.

    Parameters
    ----------
    weight, away, noise : (b,) matching weights, ``|D_b - D|^2``, and ``v_b``.
    how : as in `draw_batches`.

    Returns
    -------
    scale, variance : the factor of deviations, 0 where cells explain everything, and ``T sum w_b^2``.

    Examples
    --------
    >>> batch_scale(np.full(4, 0.25), np.full(4, 3.0), np.full(4, 1.0), "equal")
    (1.0, 0.75)
    """
    spread = weight * (1.0 - weight)
    if not spread.sum() > 0:
        return 0.0, 0.0
    between = max(float(weight @ away - spread @ noise), 0.0) * float((weight**2).sum() / spread.sum())
    drawn = float(weight**2 @ away if how == "equal" else weight @ away / len(weight))
    return (float(np.sqrt(between / drawn)), between) if drawn > 0 else (0.0, 0.0)
