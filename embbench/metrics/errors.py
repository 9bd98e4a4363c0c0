"""Sizes of the error over scored genes: l2, mse, rmse, mae, and forms freed of the noise of the observed effect."""

from __future__ import annotations

import numpy as np

from embbench.core import Metric
from embbench.metrics._rows import by_rows, inner


@by_rows(1)
def _l2(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """sqrt(sum_g (p_g - t_g)^2) over scored genes g; NaN without a scored gene."""
    p -= t
    return np.sqrt(inner(p, p))


@by_rows(1)
def _mse(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """mean_g (p_g - t_g)^2 over scored genes g, unit squared; NaN without a scored gene."""
    p -= t
    return inner(p, p) / np.maximum(mask.sum(axis=1), 1)


@by_rows(1)
def _rmse(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """sqrt(mean_g (p_g - t_g)^2) over scored genes g; NaN without a scored gene."""
    p -= t
    return np.sqrt(inner(p, p) / np.maximum(mask.sum(axis=1), 1))


@by_rows(1)
def _mae(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """mean_g |p_g - t_g| over scored genes g; NaN without a scored gene."""
    p -= t
    return np.abs(p, out=p).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)


@by_rows(1, fields=("variance",))
def _l2_debiased(p: np.ndarray, t: np.ndarray, mask: np.ndarray, v: np.ndarray) -> np.ndarray:
    """sign(x) sqrt(|x|), x = sum_g (p_g - t_g)^2 - sum_g v_g over scored genes g, v_g = sampling variance of t_g.

    Estimates the distance to the noise-free effect m: E(p - t)^2 = (p - m)^2 + v for a prediction that is independent
    of the noise of t (control halves; not under shared controls), so x is unbiased for ||p - m||^2, whatever the
    number of cells. The root of an unbiased square is not unbiased itself. Negative where the prediction lies closer
    to the observed effect than its noise allows on average, as half of the perfect predictions do; clipping at 0
    would bias means. NaN without a scored gene or where the variance of one is not known.
    """
    p -= t
    x = inner(p, p) - v.sum(axis=1)
    return np.sign(x) * np.sqrt(np.abs(x))


@by_rows(1, fields=("variance",))
def _mse_debiased(p: np.ndarray, t: np.ndarray, mask: np.ndarray, v: np.ndarray) -> np.ndarray:
    """mean_g ((p_g - t_g)^2 - v_g) over scored genes g, v_g = sampling variance of t_g; unit squared, may be negative.

    Unbiased for the mean squared error against the noise-free effect, and so is its mean over conditions (l2_debiased
    takes a root). NaN without a scored gene or where the variance of one is not known.
    """
    p -= t
    return (inner(p, p) - v.sum(axis=1)) / np.maximum(mask.sum(axis=1), 1)


L2_SOURCE = "Ahlmann-Eltze, Huber and Anders (2025), Nature Methods 22:1657: ||prediction - truth||_2 over genes"
MSE_SOURCE = "Roohani, Huang and Leskovec (2024), Nature Biotechnology 42:927: mean squared error over genes"
MAE_SOURCE = "Wu et al. (2024), PerturBench, arXiv:2408.10609: mean absolute error over genes"
DEBIASED_SOURCE = (
    "Littman et al. (2025), PRESAGE, bioRxiv: squared norms of effects less their sampling variance; here of the error"
)

l2 = Metric(_l2, best="low", lower=0.0, unit="effect", source=L2_SOURCE)
mse = Metric(_mse, best="low", lower=0.0, unit="effect^2", source=MSE_SOURCE)
rmse = Metric(_rmse, best="low", lower=0.0, unit="effect", source=MSE_SOURCE + " (square root, as in PerturBench)")
mae = Metric(_mae, best="low", lower=0.0, unit="effect", source=MAE_SOURCE)
l2_debiased = Metric(_l2_debiased, best="low", unit="effect", needs=("variance",), source=DEBIASED_SOURCE)
mse_debiased = Metric(_mse_debiased, best="low", unit="effect^2", needs=("variance",), source=DEBIASED_SOURCE)
