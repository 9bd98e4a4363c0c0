"""How far sampled cells are from the observed cells of their condition: energy distances, MMD, Wasserstein.

Names end in the space: genes, or ``_pca50`` (principal axes of training cells and half-A controls). V statistics are 0
for equal clouds and positive by chance for two samples of one distribution; U statistics are unbiased, so they can be
negative.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from embbench.core import Truth
from embbench.metrics._cells import Frame, basis_of, clouds, place, population_metric, score_clouds
from embbench.metrics._rows import centred, ratio
from embbench.numerics import distances
from embbench.numerics.transport import sliced_wasserstein, unit_directions, wasserstein

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # gamma times the median squared distance of observed cells
CELLFLOW_GAMMAS = (2.0, 1.0, 0.5, 0.1, 0.01, 0.005)
DIRECTIONS = 200
LEAST_CONDITIONS = 3  # two points always correlate perfectly


def _rbf(x: np.ndarray, y: np.ndarray, *, unbiased: bool) -> float:
    """`mmd_rbf` with gammas ``w / median |y_i - y_j|^2``, w of `WIDTHS`; NaN when that median is 0.

    The observed cells alone set the widths, so that a prediction cannot widen the kernel it is judged by.
    """
    seen = distances.Reference(y)
    if not seen.median_square > 0:
        return float("nan")
    return seen.mmd_rbf(x, [w / seen.median_square for w in WIDTHS], unbiased=unbiased)


def _sliced(order: int, frame: Frame, pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    """Sliced Wasserstein distance (n,) along the same directions for every row, cut to its scored genes."""
    basis, out = basis_of(truth, frame), np.full(len(pred), np.nan)
    directions = unit_directions(mask.shape[1] if basis is None else basis.shape[1], DIRECTIONS)
    for row, x, y in clouds(pred, truth, mask, frame):
        scored = directions[mask[row]] if basis is None and not mask[row].all() else directions
        out[row] = sliced_wasserstein(x, y, scored, order)
    return out


def _strengths(controls: np.ndarray, frame: Frame, pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    """E-distances (2, n) of predicted and of observed cells to ``controls`` (m, g); NaN where nothing is compared."""
    basis, out = basis_of(truth, frame), np.full((2, len(pred)), np.nan)
    at = np.flatnonzero(mask.any(axis=1))
    sets, inverse = np.unique(mask[at], axis=0, return_inverse=True)
    code = dict(zip(at.tolist(), inverse.ravel().tolist(), strict=True))
    within = np.zeros(len(sets))  # with one gene set: the same for all conditions, no correlation sees it
    if len(sets) > 1 and basis is None:
        within = distances.mean_self_distances(controls, sets)
    elif len(sets) > 1:
        placed = (place(controls, keep, basis) for keep in sets)
        within[:] = [distances.Reference(c).spread for c in placed]
    last = -1
    for row, x, y in clouds(pred, truth, mask, frame):
        if code[row] != last:
            last, against = code[row], distances.Reference(place(controls, mask[row], basis))
        for kind, z in enumerate((x, y)):
            own = distances.Reference(z).spread
            out[kind, row] = 2 * against.mean_distance(z) - own - within[code[row]]
    return out


def _pearson_edistance(_: None, frame: Frame, pred: np.ndarray, truth: Truth, mask: np.ndarray) -> np.ndarray:
    """One Pearson correlation per context over its conditions of predicted and observed e, repeated in its rows."""
    out = np.full(len(pred), np.nan)
    if truth.cells is None:
        raise ValueError("pearson_edistance: needs the cells of the tested rows, found none")
    for code in np.unique(truth.context):
        controls = truth.cells.controls(int(code))
        if not len(controls):
            continue
        here = mask & (truth.context == code)[:, None]
        e = _strengths(controls, frame, pred, truth, here)
        rows = np.isfinite(e).all(axis=0)
        if rows.sum() >= LEAST_CONDITIONS:
            (p, pp), (t, tt) = (centred(z[None, rows], np.ones((1, int(rows.sum())), bool)) for z in e)
            out[rows] = np.clip(ratio((p * t).sum(axis=1), np.sqrt(pp * tt)), -1.0, 1.0)
    return out


EDISTANCE = "Székely and Rizzo (2013), Journal of Statistical Planning and Inference 143:1249 (energy distance); "
EUCLIDEAN_V = EDISTANCE + "as cell-eval 0.8.2, pertpy 1.0.3, scperturb 0.1.0 (euclidean, sample_correct=False)"
EUCLIDEAN_U = (
    EDISTANCE + "as scperturb 0.1.0 (euclidean, sample_correct=True): Peidli et al. (2024), Nature Methods 21:531"
)
SQUARED_V = EDISTANCE + "exponent 2, as CellFlow (commit 446ed60, compute_e_distance): Klein et al. (2025), bioRxiv"
SQUARED_U = EDISTANCE + "exponent 2, as the default of scperturb 0.1.0: Peidli et al. (2024), Nature Methods 21:531"
HALF = EDISTANCE + 'halved, as geomloss SamplesLoss("energy"): the loss of State and what PerturBench (2025) calls mmd'
GRETTON = "Gretton et al. (2012), Journal of Machine Learning Research 13:723, "
RBF = "; several widths around the median (section 8) as in Li, Swersky and Zemel (2015), ICML (PMLR 37:1718)"
LINEAR = GRETTON + "equation 5, linear kernel: the default mmd of pertpy 1.0.3"
CELLFLOW = GRETTON + "equation 5; gammas of CellFlow (commit 446ed60, compute_scalar_mmd): Klein et al. (2025), bioRxiv"
SLICED = "Bonneel et al. (2015), Journal of Mathematical Imaging and Vision 51:22; by Monte Carlo, as in POT 0.9.7"
EXACT = "Peyré and Cuturi (2019), Computational Optimal Transport, propositions 2.1 and 2.2"
STRENGTH = "cell-eval 0.8.2, pearson_edistance; there the predicted e is against the prediction's own controls"

RBF_ABOUT = (
    "Squared MMD, mean over w in {1/4, 1/2, 1, 2, 4} of that of the kernel exp(-w |a - b|^2 / s), s = the median "
    "squared distance of two different observed cells of the condition (NaN when 0)"
)
SLICED_ABOUT = (
    f"(mean over {DIRECTIONS} fixed random unit directions u and over ranks i of |(x.u)_(i) - (y.u)_(i)|^p)^(1/p), "
    "directions normal, the same for every row, cut to the scored genes and scaled to length 1; p = "
)
EXACT_ABOUT = "(min over pairings s of mean_i |x_i - y_s(i)|^p)^(1/p), Euclidean, by exact assignment; p = "
STRENGTH_ABOUT = (
    "Pearson correlation over the conditions of a context of predicted and observed e, e(z) = 2 mean|z_i - c_j| - "
    "mean|z_i - z_j| - mean|c_i - c_j|, Euclidean, all pairs, c = control cells of half B for both. One number per "
    "context, repeated in each of its rows; NaN with fewer than 3 conditions or constant e."
)

edistance_euclidean_v = population_metric(
    score_clouds,
    distances.edistance_euclidean_v,
    "2 mean|x_i - y_j| - mean|x_i - x_j| - mean|y_i - y_j|, Euclidean, over all pairs, i = j included.",
    EUCLIDEAN_V,
    unit="expression",
)
edistance_euclidean_u = population_metric(
    score_clouds,
    distances.edistance_euclidean_u,
    "2 mean|x_i - y_j| - mean|x_i - x_j| - mean|y_i - y_j|, Euclidean, within means over i != j; can be negative.",
    EUCLIDEAN_U,
    lower=-np.inf,
    unit="expression",
)
edistance_half_euclidean_v = population_metric(
    score_clouds,
    distances.edistance_half_euclidean_v,
    "mean|x_i - y_j| - mean|x_i - x_j| / 2 - mean|y_i - y_j| / 2, Euclidean, over all pairs, i = j included. geomloss "
    "takes no distance below 1e-4, which lowers its value by up to 1e-4 / k.",
    HALF,
    unit="expression",
)
edistance_sqeuclidean_v = population_metric(
    score_clouds,
    distances.edistance_sqeuclidean_v,
    "2 mean|x_i - y_j|^2 - mean|x_i - x_j|^2 - mean|y_i - y_j|^2 over all pairs = 2 |mean x - mean y|^2: means only.",
    SQUARED_V,
    unit="expression^2",
)
edistance_sqeuclidean_u = population_metric(
    score_clouds,
    distances.edistance_sqeuclidean_u,
    "2 mean|x_i - y_j|^2 - mean|x_i - x_j|^2 - mean|y_i - y_j|^2, within means over i != j; can be negative.",
    SQUARED_U,
    lower=-np.inf,
    unit="expression^2",
)
mmd_rbf_v = population_metric(
    score_clouds,
    partial(_rbf, unbiased=False),
    f"{RBF_ABOUT}, within means over all pairs.",
    GRETTON + "equation 5" + RBF,
    upper=2.0,
)
mmd_rbf_u = population_metric(
    score_clouds,
    partial(_rbf, unbiased=True),
    f"{RBF_ABOUT}, within means over pairs i != j; can be negative.",
    GRETTON + "equation 3" + RBF,
    lower=-np.inf,
    upper=2.0,
)
# fixed widths suit PCA scores only: in gene space every kernel value of CellFlow's list is near 0
mmd_rbf_cellflow_v = population_metric(
    score_clouds,
    partial(distances.mmd_rbf, gammas=CELLFLOW_GAMMAS, unbiased=False),
    "Squared MMD, mean over gamma in {2, 1, 0.5, 0.1, 0.01, 0.005} of that of exp(-gamma |a - b|^2), all pairs.",
    CELLFLOW,
    upper=2.0,
    space="pca50",
)
mmd_linear_v = population_metric(
    score_clouds, distances.mmd_linear_v, "|mean x - mean y|^2: sees means only.", LINEAR, unit="expression^2"
)
wasserstein_sliced_w1 = population_metric(_sliced, 1, SLICED_ABOUT + "1.", SLICED, unit="expression", pairs=True)
wasserstein_sliced_w2 = population_metric(_sliced, 2, SLICED_ABOUT + "2.", SLICED, unit="expression", pairs=True)
wasserstein_exact_w1 = population_metric(
    score_clouds, partial(wasserstein, order=1), EXACT_ABOUT + "1.", EXACT, unit="expression", pairs=True
)
wasserstein_exact_w2 = population_metric(
    score_clouds, partial(wasserstein, order=2), EXACT_ABOUT + "2.", EXACT, unit="expression", pairs=True
)
pearson_edistance_euclidean_v = population_metric(
    _pearson_edistance, None, STRENGTH_ABOUT, STRENGTH, best="high", lower=-1.0, upper=1.0, level="set"
)
