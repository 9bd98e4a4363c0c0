"""How good a score could have been: the noise-free effect against the observed one.

Three sources, named in every table: the known effect of a simulated screen, the sampling variance of the truth
estimated from cells, or "not available" (metrics that need resampled cells).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embbench.core import Metric, PerturbationDataset, Truth

Formula = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # (truth, variance, mask) -> (n,)


def _mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.sum(np.where(mask, values, 0), axis=1) / np.maximum(mask.sum(axis=1), 1)


def _squared(truth: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return _mean(variance, mask)


def _pearson(truth: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    centred = truth - _mean(truth, mask)[:, None]
    return _attenuated(_mean(centred**2, mask), _mean(variance, mask))


def _cosine(truth: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return _attenuated(_mean(truth**2, mask), _mean(variance, mask))


def _attenuated(total: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Correlation of signal with signal + noise, ``sqrt(signal / total)``; 0 where noise explains everything.

    Notes
    -----
    Spearman (1904), American Journal of Psychology 15, 72-101: correction for attenuation, one side noise-free.
    """
    share = np.divide(total - noise, total, out=np.zeros_like(total), where=total > 0)
    return np.sqrt(np.clip(share, 0, 1))


FORMULAS: dict[str, Formula] = {
    "mse": _squared,
    "rmse": lambda t, v, m: np.sqrt(_squared(t, v, m)),
    "l2": lambda t, v, m: np.sqrt(np.sum(np.where(m, v, 0), axis=1)),
    "pearson": _pearson,
    "cosine": _cosine,
}


def ceiling(
    data: PerturbationDataset, truth: Truth, rows: np.ndarray, name: str, metric: Metric
) -> tuple[np.ndarray, str]:
    """Score of the noise-free effect for each row of one fold.

    Parameters
    ----------
    data : the screen.
    truth : of ``rows``.
    rows : (m,) dataset rows.
    name : registered metric name, e.g. ``l2_notarget``.
    metric : the metric.

    Returns
    -------
    values : (m,) float64, NaN where there is no ceiling.
    note : ``simulated truth``, ``from cells`` or ``not available``.

    Notes
    -----
    With sampling variance ``v`` of the observed effect ``t``: expected squared error of the noise-free effect is
    ``sum v`` (l2 takes its root, which is above the expected distance by Jensen's inequality, less than 1 % from 50
    genes on); Pearson and cosine are ``sqrt(1 - noise / total)``. Control noise shared by the genes of a row is part
    of ``v``. Top-k sets are chosen by the noisy truth, so only simulated screens give them a ceiling.
    """
    if data.noise_free is not None:
        return np.asarray(metric(data.noise_free[rows], truth), dtype=np.float64), "simulated truth"
    family, _, genes = name.rpartition("_")
    if truth.variance is None or family not in FORMULAS or genes not in ("all", "notarget"):
        return np.full(len(rows), np.nan), "not available"
    mask = truth.mask(metric.genes)
    values = FORMULAS[family](truth.effects.astype(np.float64), truth.variance.astype(np.float64), mask)
    return values, "from cells"
