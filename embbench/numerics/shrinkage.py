"""Noise-free effects given noisy ones, gene by gene: most genes of a condition do not change, some change a lot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 256  # of |z|: the mixture is fitted to counts, so that its cost does not grow with the number of genes
RATIO = 1.6  # of neighbouring standard deviations of the mixture
SMALLEST = 0.1  # standard deviation next to 0, in standard errors
STEPS = 200  # of the EM algorithm
BORROWED_GENES = 10.0  # the mixture of the group counts as so many genes of each condition
BORROWED_CELLS = 20.0  # the variance of a gene over conditions counts as so many cells of each


def moderated(variance: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Sampling variances (m, g) of means, each drawn towards what the gene's variance is over all m conditions.

    With few cells a gene's own variance follows its own mean, and its z score has heavy tails.

    Parameters
    ----------
    variance : (m, g) of the means.
    freedom : (m,) positive degrees of freedom, about the number of cells.

    References
    ----------
    Smyth (2004), Statistical Applications in Genetics and Molecular Biology 3:3, equation 3, with a fixed prior weight.

    Examples
    --------
    >>> moderated(np.array([[1.0], [3.0]]), np.array([20.0, 20.0])).ravel().tolist()
    [1.5, 2.5]
    """
    n = freedom[:, None]
    prior = (variance * n).mean(axis=0) / n
    return (BORROWED_CELLS * prior + n * variance) / (BORROWED_CELLS + n)


@dataclass(frozen=True)
class Mixture:
    """Zero-centred normal mixtures of effects in units of their standard errors, one of each condition.

    Parameters
    ----------
    sd : (k,) standard deviations, ascending; the first is 0: no effect.
    weight : (m, k), rows sum to 1.
    width : of the bins of ``asinh |z|``.
    """

    sd: np.ndarray
    weight: np.ndarray
    width: float

    def draw(self, row: int, effect: np.ndarray, variance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One draw (g,) of the noise-free effects of condition ``row`` given ``effect`` with errors of ``variance``.

        The mean over such draws of any score of them is its expectation for the noise-free effect, as far as the
        mixture is right. Effects without error (variance 0) are what they are.
        """
        error = np.sqrt(variance)
        z = np.divide(effect, error, out=np.zeros(len(error)), where=error > 0)
        share = np.cumsum(_likelihood(self.width, self.sd) * self.weight[row], axis=1)
        share /= share[:, -1:]
        at = _bin(z, self.width)
        # cumulated shares of all bins side by side: one search picks a component for every gene
        flat = (share + np.arange(BINS)[:, None]).ravel()
        chosen = np.searchsorted(flat, at + rng.random(len(z)), side="right") - at * len(self.sd)
        keep = self.sd**2 / (1.0 + self.sd**2)
        kept = keep[np.clip(chosen, 0, len(self.sd) - 1)]
        drawn = error * (kept * z + np.sqrt(kept) * rng.standard_normal(len(z)))
        return np.where(error > 0, drawn, effect)


def fit_mixture(effects: np.ndarray, variance: np.ndarray, groups: np.ndarray) -> Mixture:
    """The mixture of each condition by EM, drawn towards that of its group.

    Parameters
    ----------
    effects, variance : (m, g); genes of variance 0 do not count.
    groups : (m,) codes.

    References
    ----------
    Stephens (2017), Biostatistics 18:275: adaptive shrinkage, here with effects in proportion to standard errors
    (alpha = 1) and weights that conditions share in part.

    Examples
    --------
    >>> effects = np.array([[0.0] * 90 + [30.0] * 10])
    >>> fitted = fit_mixture(effects, np.ones((1, 100)), np.zeros(1))
    >>> round(float(fitted.weight[0][fitted.sd > 5].sum()), 2)
    0.1
    """
    known = variance > 0
    z = np.divide(effects, np.sqrt(variance), out=np.zeros(effects.shape), where=known)
    largest = float(np.abs(z).max(initial=0.0))
    top = 1.2 * np.sqrt(max(largest**2 - 1.0, 1.0))
    steps = int(np.ceil(np.log(top / SMALLEST) / np.log(RATIO)))
    sd = np.concatenate([[0.0], SMALLEST * RATIO ** np.arange(steps + 1)])
    width = max(float(np.arcsinh(largest)), 1.0) / BINS
    at = _bin(z, width)
    counts = np.zeros((len(z), BINS))
    for row, (bins, kept) in enumerate(zip(at, known, strict=True)):
        counts[row] = np.bincount(bins[kept], minlength=BINS)
    return Mixture(sd, _expectation_maximisation(counts, _likelihood(width, sd), groups), width)


def _expectation_maximisation(counts: np.ndarray, likelihood: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Weights (m, k) of components with likelihoods (bins, k) for counts (m, bins)."""
    weight = np.full((len(counts), likelihood.shape[1]), 1.0 / likelihood.shape[1])
    total = counts.sum(axis=1, keepdims=True)
    members = [np.flatnonzero(groups == code) for code in np.unique(groups)]
    for _ in range(STEPS):
        density = weight @ likelihood.T
        share = np.divide(counts, density, out=np.zeros_like(counts), where=density > 0)
        expected = weight * (share @ likelihood)
        for rows in members:
            pooled = expected[rows].sum(axis=0) + 1e-9
            expected[rows] += BORROWED_GENES * pooled / pooled.sum()
        weight = expected / (total + BORROWED_GENES)
    return weight / weight.sum(axis=1, keepdims=True)


def _bin(z: np.ndarray, width: float) -> np.ndarray:
    return np.minimum((np.arcsinh(np.abs(z)) / width).astype(np.int64), BINS - 1)


def _likelihood(width: float, sd: np.ndarray) -> np.ndarray:
    """Density (bins, k) of z in the middle of each bin under each component, up to a factor of the bin."""
    z = np.sinh((np.arange(BINS) + 0.5) * width)[:, None]
    log = -0.5 * np.log1p(sd**2) - 0.5 * z**2 / (1.0 + sd**2)
    return np.exp(log - log.max(axis=1, keepdims=True))
