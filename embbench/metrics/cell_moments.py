"""Do sampled cells have the distribution of each gene: Kolmogorov-Smirnov, mean and variance, one gene at a time."""

from __future__ import annotations

import numpy as np

from embbench.metrics._cells import population_metric, score_clouds
from embbench.metrics._rows import centred, ratio
from embbench.numerics.transport import kolmogorov_smirnov


def _ks(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over genes of the two-sample Kolmogorov-Smirnov statistic of cells of shape (k, d)."""
    return float(kolmogorov_smirnov(x, y).mean())


def _mean_variance(x: np.ndarray, y: np.ndarray) -> float:
    """Root mean square over genes of the Fréchet distance of the normals with the genes' means and variances."""
    means, spreads = ([f(z, axis=0) for z in (x, y)] for f in (np.mean, np.std))
    return float(np.sqrt(np.mean((means[0] - means[1]) ** 2 + (spreads[0] - spreads[1]) ** 2)))


def _squared_pearson(p: np.ndarray, t: np.ndarray) -> float:
    """Squared Pearson correlation of two vectors (d,), NaN where one is constant or d < 2."""
    keep = np.ones((1, len(p)), bool)
    (a, aa), (b, bb) = centred(p[None], keep), centred(t[None], keep)
    return float(np.clip(ratio(np.square((a * b).sum(axis=1)), aa * bb), 0.0, 1.0)[0])


def _r2_mean(x: np.ndarray, y: np.ndarray) -> float:
    return _squared_pearson(x.mean(axis=0), y.mean(axis=0))


def _r2_variance(x: np.ndarray, y: np.ndarray) -> float:
    return _squared_pearson(x.var(axis=0), y.var(axis=0))


KS_SOURCE = "Smirnov (1939), Bulletin of Moscow University 2:3; two-sided statistic of scipy.stats.ks_2samp, per gene"
FRECHET_SOURCE = (
    "Dowson and Landau (1982), Journal of Multivariate Analysis 12:450, equation 4 with diagonal covariances, per gene"
)
SCGEN_SOURCE = (
    "Lotfollahi, Wolf and Theis (2019), scGen, Nature Methods 16:715: squared Pearson of gene means and variances over "
    "cells (tutorials: reg_mean_plot, reg_var_plot)"
)

ks_gene = population_metric(
    score_clouds,
    _ks,
    "Mean over scored genes g of sup_z |F_x,g(z) - F_y,g(z)|, F the empirical distribution functions over cells.",
    KS_SOURCE,
    upper=1.0,
)
mean_variance = population_metric(
    score_clouds,
    _mean_variance,
    "sqrt(mean_g [(mean x_g - mean y_g)^2 + (sd x_g - sd y_g)^2]) over scored genes g, sd with divisor k: the root "
    "mean squared 2-Wasserstein distance of normals with each gene's mean and variance.",
    FRECHET_SOURCE,
    unit="expression",
)
r2_pearson_cells_mean = population_metric(
    score_clouds,
    _r2_mean,
    "Squared Pearson correlation over scored genes of mean x_g and mean y_g; dominated by differences between genes, "
    "which any control cell shows. NaN when constant.",
    SCGEN_SOURCE,
    best="high",
    upper=1.0,
)
r2_pearson_cells_variance = population_metric(
    score_clouds,
    _r2_variance,
    "Squared Pearson correlation over scored genes of var x_g and var y_g; blind to shifts. NaN when constant.",
    SCGEN_SOURCE,
    best="high",
    upper=1.0,
)
