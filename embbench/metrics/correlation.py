"""Agreement in direction over scored genes: pearson, spearman, cosine. High is best, in [-1, 1], without unit."""

from __future__ import annotations

import numpy as np

from embbench.core import Metric
from embbench.metrics._rows import by_rows, centred, inner, ratio
from embbench.numerics.ranks import rank_correlation


@by_rows(2)
def _pearson(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """sum_g p'_g t'_g / sqrt(sum_g p'_g^2 sum_g t'_g^2), p' = p - mean over scored genes; NaN for a constant row."""
    (p, pp), (t, tt) = centred(p, mask), centred(t, mask)
    return np.clip(ratio(inner(p, t), np.sqrt(pp) * np.sqrt(tt)), -1.0, 1.0)


@by_rows(2, stored=True)
def _spearman(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pearson correlation of mid-ranks over scored genes; NaN for a constant row."""
    return rank_correlation(p, t, mask)


@by_rows(1)
def _cosine(p: np.ndarray, t: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """sum_g p_g t_g / (||p|| ||t||) over scored genes; NaN for a zero row."""
    return np.clip(ratio(inner(p, t), np.sqrt(inner(p, p)) * np.sqrt(inner(t, t))), -1.0, 1.0)


PEARSON_SOURCE = "Roohani, Huang and Leskovec (2024), Nature Biotechnology 42:927: Pearson correlation of effects"
SPEARMAN_SOURCE = "Spearman (1904), American Journal of Psychology 15:72, on effects over genes, mid-ranks for ties"
COSINE_SOURCE = "Wu et al. (2024), PerturBench, arXiv:2408.10609: cosine of effects over genes"

pearson = Metric(_pearson, best="high", lower=-1.0, upper=1.0, source=PEARSON_SOURCE)
spearman = Metric(_spearman, best="high", lower=-1.0, upper=1.0, source=SPEARMAN_SOURCE)
cosine = Metric(_cosine, best="high", lower=-1.0, upper=1.0, source=COSINE_SOURCE)
