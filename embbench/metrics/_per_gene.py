"""Metrics of level ``gene``: a statistic of every gene over the rows of a context, given back as one value per row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BLOCK = 1 << 20  # entries (genes x rows) of a block: its float64 copies stay small

Part = Callable[[np.ndarray, slice], tuple[np.ndarray, np.ndarray]]


def by_gene(scored: np.ndarray, context: np.ndarray, part: Part) -> np.ndarray:
    """Row values whose mean over the rows of a context is the mean over genes of the gene's statistic there.

    Parameters
    ----------
    scored : (n, g) bool; rows without a scored entry have no value and are not given to ``part``.
    context : (n,) codes.
    part : ``part(rows, genes)`` with row numbers (m,) of one context and a slice of b genes gives the statistic (b,)
        and what it becomes without each of these rows (b, m); NaN where undefined.

    Returns
    -------
    (n,) float64: `linearised` in each context; NaN in contexts where no gene is defined.
    """
    out = np.full(len(scored), np.nan)
    used = scored.any(axis=1)
    for code in np.unique(context[used]):
        rows = np.flatnonzero(used & (context == code))
        step = max(1, BLOCK // len(rows))
        total, without = np.zeros(2), np.zeros((2, len(rows)))
        for start in range(0, scored.shape[1], step):
            values, left = part(rows, slice(start, start + step))
            total += np.nansum(values), np.isfinite(values).sum()
            without += np.nansum(left, axis=0), np.isfinite(left).sum(axis=0)
        out[rows] = linearised(_mean(*total[:, None])[0], _mean(*without))
    return out


def linearised(value: float, without: np.ndarray) -> np.ndarray:
    """``value + (n - 1) (mean_j without_j - without_i)``: Tukey's pseudo-values, moved so that their mean is ``value``.

    Parameters
    ----------
    value : a statistic of n rows.
    without : (n,) the statistic without each row; a row without which it is undefined (NaN) gets ``value`` itself.

    References
    ----------
    Efron and Stein (1981), Annals of Statistics 9:586 (jackknife influence); Jaeckel (1972), the infinitesimal
    jackknife: resampling the row values is, to first order, resampling the rows.

    Examples
    --------
    >>> linearised(2.0, np.array([2.5, 2.0, 1.5])).tolist()  # the mean of 1, 2, 3
    [1.0, 2.0, 3.0]
    """
    known = np.isfinite(without)
    if not known.any():
        return np.full(len(without), value)
    centre = without[known].mean()
    return value + np.where(known, (len(without) - 1) * (centre - np.where(known, without, centre)), 0.0)


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
