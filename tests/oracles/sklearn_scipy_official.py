"""Metrics by scikit-learn, scipy and plain loops over genes and conditions: an oracle of tests/test_metric_oracles.py.

scikit-learn 1.9.1, scipy 1.17.1. From the root of the repository: ``make oracles/sklearn_scipy``, or

    python3.11 -m venv .oracle && .oracle/bin/pip install -c constraints/cpu.txt scikit-learn==1.9.1 scipy==1.17.1 \
        numpy==2.4.6 h5py
    PYTHONPATH=tests .oracle/bin/python -W ignore -m oracles.sklearn_scipy_official

Values have the names of embbench's variants. Undefined ones are null. Of label metrics within genes the mean over the
genes is stored. DE metrics take the table of the observed cells that cell_eval_official.py wrote (run it first). The
directions of the sliced Wasserstein distance are an input, taken from embbench.numerics.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from oracles._de_loops import of_cells, of_effects
from oracles._metric_cases import PREDICTORS, Case
from oracles._metric_expected import write
from scipy import stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist
from sklearn import metrics as skm
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

from embbench.numerics.transport import unit_directions

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
CELLFLOW = (2.0, 1.0, 0.5, 0.1, 0.01, 0.005)
DISTANCES = {"l1": "cityblock", "l2": "euclidean", "cosine": "cosine", "pearson": "correlation"}
WHOLE = ("all", "notarget")
TOP = ("top20", "top50", "top100")
SETS = {  # gene sets that are registered for a family; else WHOLE
    **dict.fromkeys(("l2", "pearson"), (*WHOLE, *TOP, "expressed1000")),
    **dict.fromkeys(("mse", "spearman", "cosine"), (*WHOLE, *TOP)),
}
Vectors = Callable[[np.ndarray, np.ndarray], float]
OF_VECTORS: dict[str, Vectors] = {  # of prediction p and truth t
    "l2": lambda p, t: float(cdist(p[None], t[None])[0, 0]),
    "mse": lambda p, t: skm.mean_squared_error(t, p),
    "rmse": lambda p, t: skm.root_mean_squared_error(t, p),
    "mae": lambda p, t: skm.mean_absolute_error(t, p),
    "pearson": lambda p, t: stats.pearsonr(p, t).statistic,
    "spearman": lambda p, t: stats.spearmanr(p, t).statistic,
    "cosine": lambda p, t: 1.0 - float(cdist(p[None], t[None], "cosine")[0, 0]),
    "r2_effect": lambda p, t: skm.r2_score(t, p),
    "r2_perturbench": lambda p, t: skm.r2_score(p, t),
}
OF_EXPRESSION: dict[str, Vectors] = {
    "r2_expression": lambda p, t: skm.r2_score(t, p),
    "r2_pearson_expression": lambda p, t: stats.linregress(p, t).rvalue ** 2,
}


def columns(case: Case, row: int, genes: str) -> np.ndarray:
    """Scored columns of a row in a gene set."""
    if genes == "all":
        return np.arange(len(case.genes))
    if genes.startswith("expressed"):
        order = sorted(range(len(case.genes)), key=lambda g: (-case.baseline[row, g], g))
        return np.array(sorted(order[: int(genes[9:])]))
    kept = [g for g in range(len(case.genes)) if g not in set(case.targets[row].tolist())]
    if genes == "notarget":
        return np.array(kept)
    size = np.abs(case.effects(case.observed)[row]) / np.sqrt(np.maximum(case.variance[row], np.finfo("f4").tiny))
    return np.array(sorted(sorted(kept, key=lambda g: (-size[g], g))[: int(genes[3:])]))


def vectors(case: Case, cells: np.ndarray) -> dict[str, list[float]]:
    """Errors, correlations and the four R2, in all gene sets."""
    pred, truth, base = case.effects(cells), case.effects(case.observed), case.baseline
    out: dict[str, list[float]] = {}
    for genes in (*WHOLE, *TOP, "expressed1000"):
        cols = [columns(case, row, genes) for row in range(len(pred))]
        for name, fn in OF_VECTORS.items():
            if genes not in SETS.get(name, WHOLE):
                continue
            out[f"{name}_{genes}"] = [fn(p[c], t[c]) for p, t, c in zip(pred, truth, cols, strict=True)]
        for name, fn in OF_EXPRESSION.items():
            if genes not in (*WHOLE, "top100"):
                continue
            rows = zip(pred + base, truth + base, cols, strict=True)
            out[f"{name}_{genes}"] = [fn(p[c], t[c]) for p, t, c in rows]
        if genes not in (*WHOLE, "top20"):
            continue
        noisy = zip(pred, truth, case.variance, cols, strict=True)
        away = [skm.mean_squared_error(t[c], p[c]) - v[c].mean() for p, t, v, c in noisy]
        out[f"mse_debiased_{genes}"] = away
        out[f"l2_debiased_{genes}"] = [np.sign(x) * np.sqrt(abs(x) * len(c)) for x, c in zip(away, cols, strict=True)]
        rows = zip(pred - case.centroid, truth - case.centroid_truth, cols, strict=True)
        out[f"pearson_systema_{genes}"] = [stats.pearsonr(p[c], t[c]).statistic for p, t, c in rows]
    return out


def ranks(case: Case, cells: np.ndarray) -> dict[str, list[float]]:
    """Retrieval: distances by scipy, mid-ranks by scipy, every convention by name."""
    pred, truth = case.effects(cells), case.effects(case.observed)
    n, out = len(pred), {}
    for genes in WHOLE:
        cols = [columns(case, row, genes) for row in range(n)]
        for short, metric in DISTANCES.items():
            for by, query, pool in (("prediction", pred, truth), ("truth", truth, pred)):
                d = [_tied(cdist(query[i, c][None], pool[:, c], metric)[0]) for i, c in enumerate(cols)]
                place = [stats.rankdata(row)[i] - 1 for i, row in enumerate(d)]
                own = "_own" if (by, genes) == ("prediction", "notarget") else ""
                out[f"rank_{short}{own}_by_{by}_{genes}"] = [x / (n - 1) for x in place]
                if by == "truth" and short != "l1":
                    out[f"rank_{short}_over_n_by_truth_{genes}"] = [x / n for x in place]
                elif by == "prediction":
                    stable = [np.argsort(row, kind="stable").tolist().index(i) for i, row in enumerate(d)]
                    if short != "pearson":
                        out[f"discrimination_{short}_cell_eval_{genes}"] = [1 - x / n for x in stable]
                    if short != "pearson":
                        continue
                    up = [np.argsort(-row, kind="stable").tolist().index(i) for i, row in enumerate(d)]
                    out[f"retrieval_{short}_txpert_{genes}"] = [x / n for x in up]
            if short == "l2":
                d = [_tied(cdist(pred[i, c][None], truth[:, c])[0]) for i, c in enumerate(cols)]
                farther = [(np.delete(row, i) > row[i]).mean() for i, row in enumerate(d)]
                out[f"centroid_accuracy_{genes}"] = farther
            if genes == "all" or short == "l1":
                continue
            both = [[np.intersect1d(a, b) for b in cols] for a in cols]
            beaten = [[_wins(pred[i], truth[j], truth[i], both[i][j], metric) for j in range(n) if j != i]
                      for i in range(n)]  # fmt: skip
            out[f"rank_{short}_by_prediction_{genes}"] = [float(np.mean(row)) for row in beaten]
    return out


def _tied(distances: np.ndarray) -> np.ndarray:
    """Distances without their last digits, so that equal predictions are tied."""
    return np.round(distances, 9)


def _wins(query: np.ndarray, other: np.ndarray, own: np.ndarray, cols: np.ndarray, metric: str) -> float:
    mine, theirs = _tied(cdist(query[None, cols], np.stack([own, other])[:, cols], metric)[0])
    return 1.0 if theirs < mine else 0.5 if theirs == mine else 0.0


def clouds(case: Case, cells: np.ndarray) -> dict[str, list[float]]:
    """Distances of samples, in gene space and on the basis."""
    found: dict[str, list[float]] = {}
    for row in range(len(cells)):
        x, y = cells[row].astype(np.float64), case.observed[row].astype(np.float64)
        basis = case.basis.astype(np.float64)
        for genes in (*WHOLE, "pca50"):
            c = columns(case, row, "all" if genes == "pca50" else genes)
            a, b = (x @ basis, y @ basis) if genes == "pca50" else (x[:, c], y[:, c])
            angles = unit_directions(50 if genes == "pca50" else x.shape[1], 200)
            values = _distances(a, b, angles if genes == "pca50" else angles[c])
            for name, value in values.items():
                found.setdefault(f"{name}_{genes}", []).append(value)
        for genes in (*WHOLE, "top100"):
            c = columns(case, row, genes)
            for name, value in _per_gene(x[:, c], y[:, c]).items():
                found.setdefault(f"{name}_{genes}", []).append(value)
    return found


def strengths(case: Case, cells: np.ndarray) -> dict[str, list[float]]:
    """Pearson correlation over conditions of the E-distances to controls, predicted and observed."""
    out, basis = {}, case.basis.astype(np.float64)
    for genes in (*WHOLE, "pca50"):
        e: list[list[float]] = [[], []]
        for row in range(len(cells)):
            c = columns(case, row, "all" if genes == "pca50" else genes)
            x, y, z = (part.astype(np.float64) for part in (cells[row], case.observed[row], case.controls))
            x, y, z = (part @ basis if genes == "pca50" else part[:, c] for part in (x, y, z))
            for found, part in zip(e, (x, y), strict=True):
                found.append(2 * cdist(part, z).mean() - cdist(part, part).mean() - cdist(z, z).mean())
        same = np.ptp(e[0]) < 1e-9
        value = float("nan") if same else float(stats.pearsonr(*e).statistic)
        out[f"pearson_edistance_euclidean_v_{genes}"] = [value] * len(cells)
    return out


def _distances(x: np.ndarray, y: np.ndarray, angles: np.ndarray) -> dict[str, float]:
    out = {}
    for name, metric in (("euclidean", "euclidean"), ("sqeuclidean", "sqeuclidean")):
        across = cdist(x, y, metric).mean()
        u, v = (sum(pdist(z, metric).sum() * 2 / (len(z) * (len(z) - less)) for z in (x, y)) for less in (1, 0))
        out |= {f"edistance_{name}_u": 2 * across - u, f"edistance_{name}_v": 2 * across - v}
    out["edistance_half_euclidean_v"] = out["edistance_euclidean_v"] / 2
    middle = np.median(pdist(y, "sqeuclidean"))
    kernels = {form: [_mmd(rbf_kernel, x, y, form == "u", gamma=w / middle) for w in WIDTHS] for form in "uv"}
    out |= {f"mmd_rbf_{form}": float(np.mean(values)) for form, values in kernels.items()}
    out["mmd_rbf_cellflow_v"] = float(np.mean([_mmd(rbf_kernel, x, y, False, gamma=g) for g in CELLFLOW]))
    out["mmd_linear_v"] = _mmd(polynomial_kernel, x, y, False, degree=1, gamma=1.0, coef0=0.0)
    for order in (1, 2):
        cost = cdist(x, y) ** order
        out[f"wasserstein_exact_w{order}"] = float(cost[linear_sum_assignment(cost)].mean()) ** (1 / order)
    units = angles / np.linalg.norm(angles, axis=0)
    along = np.sort(x @ units, axis=0) - np.sort(y @ units, axis=0)
    singles = [stats.wasserstein_distance(x @ u, y @ u) for u in units.T]
    out["wasserstein_sliced_w1"] = float(np.mean(singles))
    out["wasserstein_sliced_w2"] = float(np.sqrt(np.square(along).mean()))
    return out


def _mmd(kernel: Callable[..., np.ndarray], x: np.ndarray, y: np.ndarray, unbiased: bool, **options: float) -> float:
    inner = [kernel(z, z, **options) for z in (x, y)]
    if unbiased:
        within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in inner)
    else:
        within = sum(k.mean() for k in inner)
    return float(within - 2 * kernel(x, y, **options).mean())


def _per_gene(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    pairs = list(zip(x.T, y.T, strict=True))
    gaps = [(a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2 for a, b in pairs]
    return {
        "ks_gene": float(np.mean([stats.ks_2samp(a, b).statistic for a, b in pairs])),
        "mean_variance": float(np.sqrt(np.mean(gaps))),
        "r2_pearson_cells_mean": stats.linregress(x.mean(axis=0), y.mean(axis=0)).rvalue ** 2,
        "r2_pearson_cells_variance": stats.linregress(x.var(axis=0), y.var(axis=0)).rvalue ** 2,
    }


def classes(case: Case, predictor: str) -> dict[str, list[float]]:
    """Label metrics by scikit-learn, within conditions and (mean over genes) within genes."""
    proba = case.probabilities(predictor)
    out: dict[str, list[float]] = {}
    for genes in WHOLE:
        scored = case.tested.copy()
        for row in range(len(scored)):
            scored[row] &= np.isin(np.arange(scored.shape[1]), columns(case, row, genes))
        rows = [_areas(case.labels[i, s], proba[i, s]) for i, s in enumerate(scored)]
        within = [_areas(case.labels[s, g], proba[s, g]) for g, s in enumerate(scored.T)]
        for name in rows[0]:
            out[f"{name}_condition_{genes}"] = [r[name] for r in rows]
            out[f"{name}_gene_{genes}"] = [_mean([r[name] for r in within])]
    return out


def _areas(labels: np.ndarray, proba: np.ndarray) -> dict[str, float]:
    """Macro metrics of one condition or gene; a class that all or none of the entries have has no area."""
    if not len(labels):
        return dict.fromkeys(("auroc", "ap", "f1_macro", "precision_macro", "recall_macro"), float("nan"))
    mixed = [(proba[:, i], labels == c) for i, c in enumerate((-1, 0, 1)) if 0 < (labels == c).sum() < len(labels)]
    top = proba.max(axis=1, keepdims=True) == proba
    guess = np.where(top.sum(axis=1) > 1, 0, top.argmax(axis=1) - 1)
    options = {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
    return {
        "auroc": float(np.mean([skm.roc_auc_score(t, p) for p, t in mixed])) if mixed else float("nan"),
        "ap": float(np.mean([skm.average_precision_score(t, p) for p, t in mixed])) if mixed else float("nan"),
        "f1_macro": skm.f1_score(labels, guess, **options),
        "precision_macro": skm.precision_score(labels, guess, **options),
        "recall_macro": skm.recall_score(labels, guess, **options),
    }


def _mean(values: list[float]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def run(case: Case) -> dict[str, dict[str, list[float]]]:
    """All predictors."""
    parts = {}
    for p in PREDICTORS:
        x = case.predicted[p]
        found = vectors(case, x), ranks(case, x), clouds(case, x), strengths(case, x), classes(case, p)
        parts[p] = {name: value for part in found for name, value in part.items()}
    return parts


def run_de(case: Case) -> dict[str, dict[str, list[float]]]:
    """All predictors, the metrics that need a DE table."""
    cells = {p: case.predicted[p] for p in PREDICTORS}
    return {p: of_effects(case, x, columns) | of_cells(case, x, columns) for p, x in cells.items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    PINNED = {"scikit-learn": "1.9.1", "scipy": "1.17.1", "numpy": "2.4.6"}
    write("sklearn_scipy", PINNED, (), run)
    write("sklearn_scipy_de", PINNED, (), run_de)
