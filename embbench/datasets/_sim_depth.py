"""Simulator: mean and variance of log1p(normalised counts) under negative binomial counts and lognormal depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RectBivariateSpline

SCALE = 1e4
LOG_SHARE = (np.log(1e-7), np.log(0.05))  # range of the log expected share of one gene among all counts of a cell
NODES = 9


@dataclass(frozen=True)
class DepthMoments:
    """``m`` and ``v`` of ``x = log1p(SCALE * K / S)`` as functions of the log share and the log median depth.

    ``K | S ~ NB(mean = S * share, variance = mean + dispersion * mean^2)``, ``log S ~ N(log_depth, sigma^2)``. The sum
    over counts is exact to 1e-9, the depth is integrated by 9-point Gauss-Hermite quadrature, values between
    grid points come from cubic splines and then from linear interpolation on 2,048 points: the error of ``m`` and of
    the second moment stays below 1e-4, about a twentieth of the sampling error of 100,000 cells. For negative binomial
    counts of single cells see Grün et al. (2014), Nature Methods 11, 637-640.

    Parameters
    ----------
    dispersion : of the negative binomial, >= 0.01.
    sigma : standard deviation of the log depth.
    low, high : range of log median depths that will be asked for.
    """

    dispersion: float
    sigma: float
    low: float
    high: float

    def __post_init__(self) -> None:
        reach = self.sigma * np.sqrt(2.0) * float(np.polynomial.hermite.hermgauss(NODES)[0].max()) + 0.05
        depths = np.linspace(self.low - reach, self.high + reach, 28)
        shares = np.linspace(*LOG_SHARE, 112)
        mean, square = count_moments(np.exp(depths)[:, None], np.exp(shares)[None, :], self.dispersion)
        object.__setattr__(self, "_splines", tuple(RectBivariateSpline(depths, shares, m) for m in (mean, square)))

    @property
    def grid(self) -> np.ndarray:
        """Log shares of the tables, shape (2048,)."""
        return np.linspace(*LOG_SHARE, 2048)

    def tables(self, log_depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of shape (len(log_depth), 2048), float64, on `grid`, one row per log median depth."""
        x, w = np.polynomial.hermite.hermgauss(NODES)
        levels, inverse = np.unique(np.asarray(log_depth, dtype=np.float64), return_inverse=True)
        where = levels[:, None] + self.sigma * np.sqrt(2.0) * x
        flat, back = np.unique(where.ravel(), return_inverse=True)
        coarse = np.linspace(*LOG_SHARE, 224)
        moments = []
        for spline in self._splines:
            nodes = spline(flat, coarse)[back].reshape(len(levels), NODES, len(coarse))
            mixed = np.einsum("k,lkj->lj", w / np.sqrt(np.pi), nodes)
            moments.append(_refine(coarse, mixed, self.grid)[inverse])
        return moments[0], np.maximum(moments[1] - moments[0] ** 2, 0.0)


def _refine(coarse: np.ndarray, values: np.ndarray, fine: np.ndarray) -> np.ndarray:
    from scipy.interpolate import CubicSpline

    return CubicSpline(coarse, values, axis=1)(fine)


def clip_share(log_share: np.ndarray) -> np.ndarray:
    """Log shares kept inside the tables' range; sampling and expectation both use it.

    Examples
    --------
    >>> clip_share(np.array([-100.0, -5.0])).round(2).tolist()
    [-16.12, -5.0]
    """
    return np.clip(log_share, *LOG_SHARE)


@dataclass(frozen=True)
class Position:
    """Where log shares lie in the tables: left grid point and weight of the right one."""

    left: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, log_share: np.ndarray, size: int = 2048) -> Position:
        """Position of clipped log shares of any shape."""
        x = (clip_share(log_share) - LOG_SHARE[0]) * ((size - 1) / (LOG_SHARE[1] - LOG_SHARE[0]))
        left = np.minimum(x.astype(np.int32), size - 2)
        return cls(left, (x - left).astype(np.float32))

    def read(self, table: np.ndarray) -> np.ndarray:
        """Linear interpolation of one table row of shape (2048,), float32.

        Examples
        --------
        >>> Position.of(np.array([LOG_SHARE[0], LOG_SHARE[1]])).read(np.linspace(0.0, 1.0, 2048)).tolist()
        [0.0, 1.0]
        """
        left = table[self.left]
        return left + self.weight * (table[self.left + 1] - left)


def count_moments(depth: np.ndarray, share: np.ndarray, dispersion: float) -> tuple[np.ndarray, np.ndarray]:
    """First and second moment of ``log1p(SCALE * K / depth)``, ``K`` negative binomial with mean ``depth * share``.

    Parameters
    ----------
    depth, share : arrays that broadcast together, > 0.
    dispersion : > 0; at 0.01 and above no probability underflows below a mean of 50,000.

    Notes
    -----
    The results have the broadcast shape, float64. The probabilities follow the recursion ``p(k+1) = p(k) (k + r) /
    (k + 1) * q`` (Panjer 1981) until what is left changes no moment by more than about 1e-9.

    Examples
    --------
    >>> first, second = count_moments(np.array([5000.0]), np.array([1e-3]), dispersion=0.1)
    >>> first.round(3).tolist(), second.round(3).tolist()
    ([2.251], [5.42])
    """
    depth, share = np.broadcast_arrays(np.asarray(depth, dtype=np.float64), np.asarray(share, dtype=np.float64))
    mean = (depth * share).ravel()
    order = np.argsort(-mean, kind="stable")
    mean, unit = mean[order], (SCALE / depth).ravel()[order]
    r, q = 1.0 / dispersion, dispersion * mean / (1.0 + dispersion * mean)
    p = (1.0 + dispersion * mean) ** -r
    mass, first, second = p.copy(), np.zeros_like(p), np.zeros_like(p)
    active, k, block = len(mean), 0, 16
    while active:
        counts = np.arange(k + 1, k + block + 1)
        probability = p[:active, None] * np.cumprod((counts - 1 + r) / counts * q[:active, None], axis=1)
        x = np.log1p(counts * unit[:active, None])
        weighted = probability * x
        first[:active] += weighted.sum(axis=1)
        second[:active] += (weighted * x).sum(axis=1)
        mass[:active] += probability.sum(axis=1)
        p[:active], k = probability[:, -1], k + block
        rest = (1.0 - mass[:active] > 1e-12) & ((k < mean[:active]) | (p[:active] > 1e-15))
        active = int(np.flatnonzero(rest)[-1]) + 1 if rest.any() else 0
        block = min(512, 2 * block)
    out = np.empty_like(first), np.empty_like(second)
    out[0][order], out[1][order] = first, second
    return out[0].reshape(depth.shape), out[1].reshape(depth.shape)
