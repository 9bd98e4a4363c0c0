"""Four different numbers that papers call R2: explained variance of effects or of expression, squared correlation."""

from __future__ import annotations

import numpy as np

from embbench.core import Metric
from embbench.metrics._rows import by_rows, centred, inner, ratio


@by_rows(2)
def _r2_effect(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """1 - sum_g (t_g - p_g)^2 / sum_g (t_g - mean t)^2 over scored genes; NaN when the true effects are constant."""
    return 1.0 - ratio(_squared_error(p, t), centred(t, mask)[1])


@by_rows(2)
def _r2_perturbench(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """1 - sum_g (t_g - p_g)^2 / sum_g (p_g - mean p)^2 over scored genes: the prediction plays the truth's part.

    The error is set against the spread of the prediction, so a prediction that is too large is hardly punished (pure
    noise tends to 0 as it grows) and one that is too small is punished without bound: not comparable with r2_effect.
    NaN when prediction or true effects are constant.
    """
    values = 1.0 - ratio(_squared_error(p, t), centred(p, mask)[1])
    return np.where(centred(t, mask)[1] > 0, values, np.nan)


@by_rows(2, expression=True)
def _r2_expression(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """1 - sum_g (t_g - p_g)^2 / sum_g (t_g - mean t)^2 over scored genes, p and t = control mean (half B) + effects.

    Dominated by differences between genes, which the control mean gives away: no change scores close to 1. NaN when
    the true expression is constant.
    """
    return 1.0 - ratio(_squared_error(p, t), centred(t, mask)[1])


@by_rows(2, expression=True)
def _r2_pearson_expression(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Squared Pearson correlation over scored genes of control mean (half B) + predicted and + true effect.

    Dominated by differences between genes, which the control mean gives away: no change scores close to 1. A wrong
    scale, a wrong offset and even the opposite sign are not seen. NaN when either is constant.
    """
    (p, pp), (t, tt) = centred(p, mask), centred(t, mask)
    return np.clip(ratio(np.square(inner(p, t)), pp * tt), 0.0, 1.0)


def _squared_error(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    error = t - p
    return inner(error, error)


EFFECT_SOURCE = (
    "coefficient of determination (Wright 1921, Journal of Agricultural Research 20:557) of effects over genes"
)
PERTURBENCH_SOURCE = (
    "Wu et al. (2024), PerturBench, arXiv:2408.10609: package calls r2_score(prediction, truth), whose first argument "
    "is the truth; here on effects"
)
TUTORIAL_SOURCE = (
    "r2_score(truth, prediction) of mean expression, as in the tutorials of CPA (Lotfollahi et al. 2023, Molecular "
    "Systems Biology 19:e11517) and chemCPA (Hetzel et al. 2022, NeurIPS 35)"
)
EXPRESSION_SOURCE = (
    "Lotfollahi, Wolf and Theis (2019), scGen, Nature Methods 16:715: squared Pearson of mean expression (linregress)"
)

r2_effect = Metric(_r2_effect, best="high", upper=1.0, source=EFFECT_SOURCE)
r2_perturbench = Metric(_r2_perturbench, best="high", upper=1.0, source=PERTURBENCH_SOURCE)
r2_expression = Metric(
    _r2_expression, best="high", upper=1.0, units=("delta",), needs=("baseline",), source=TUTORIAL_SOURCE
)
r2_pearson_expression = Metric(
    _r2_pearson_expression,
    best="high",
    lower=0.0,
    upper=1.0,
    units=("delta",),
    needs=("baseline",),
    source=EXPRESSION_SOURCE,
)
