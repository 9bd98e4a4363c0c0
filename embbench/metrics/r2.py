"""Two different numbers that papers call R2: explained variance of effects, squared correlation of expression."""

from __future__ import annotations

import numpy as np

from embbench.core import Metric
from embbench.metrics._rows import by_rows, centred, ratio


@by_rows(2)
def _r2_effect(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """1 - sum_g (t_g - p_g)^2 / sum_g (t_g - mean t)^2 over scored genes; NaN when the true effects are constant."""
    return 1.0 - ratio(np.square(t - p).sum(axis=1), centred(t, mask)[1])


@by_rows(2, expression=True)
def _r2_pearson_expression(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Squared Pearson correlation over scored genes of control mean (half B) + predicted and + true effect.

    Dominated by differences between genes, which the control mean gives away: no change scores close to 1.
    """
    (p, pp), (t, tt) = centred(p, mask), centred(t, mask)
    return np.clip(ratio(np.square((p * t).sum(axis=1)), pp * tt), 0.0, 1.0)


EFFECT_SOURCE = (
    "coefficient of determination (Wright 1921, Journal of Agricultural Research 20:557) of effects over genes"
)
EXPRESSION_SOURCE = (
    "Lotfollahi, Wolf and Theis (2019), scGen, Nature Methods 16:715: squared Pearson of mean expression"
)

r2_effect = Metric(_r2_effect, best="high", upper=1.0, source=EFFECT_SOURCE)
r2_pearson_expression = Metric(
    _r2_pearson_expression,
    best="high",
    lower=0.0,
    upper=1.0,
    units=("delta",),
    needs=("baseline",),
    source=EXPRESSION_SOURCE,
)
