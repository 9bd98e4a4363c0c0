"""Sizes of the error over scored genes: l2, mse, rmse, mae. Low is best, from 0, in the unit of the effect."""

from __future__ import annotations

import numpy as np

from embbench.core import Metric
from embbench.metrics._rows import by_rows


@by_rows(1)
def _l2(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """sqrt(sum_g (p_g - t_g)^2) over scored genes g; NaN without a scored gene."""
    return np.sqrt(np.square(p - t).sum(axis=1))


@by_rows(1)
def _mse(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """mean_g (p_g - t_g)^2 over scored genes g, unit squared; NaN without a scored gene."""
    return np.square(p - t).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)


@by_rows(1)
def _rmse(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """sqrt(mean_g (p_g - t_g)^2) over scored genes g; NaN without a scored gene."""
    return np.sqrt(np.square(p - t).sum(axis=1) / np.maximum(mask.sum(axis=1), 1))


@by_rows(1)
def _mae(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """mean_g |p_g - t_g| over scored genes g; NaN without a scored gene."""
    return np.abs(p - t).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)


L2_SOURCE = "Ahlmann-Eltze, Huber and Anders (2025), Nature Methods 22:1657: ||prediction - truth||_2 over genes"
MSE_SOURCE = "Roohani, Huang and Leskovec (2024), Nature Biotechnology 42:927: mean squared error over genes"
MAE_SOURCE = "Wu et al. (2024), PerturBench, arXiv:2408.10609: mean absolute error over genes"

l2 = Metric(_l2, best="low", lower=0.0, source=L2_SOURCE)
mse = Metric(_mse, best="low", lower=0.0, source=MSE_SOURCE)
rmse = Metric(_rmse, best="low", lower=0.0, source=MSE_SOURCE + " (square root, as in PerturBench)")
mae = Metric(_mae, best="low", lower=0.0, source=MAE_SOURCE)
