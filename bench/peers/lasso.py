"""The published pipeline in scikit-learn: standardise, PCA, Lasso, its penalty by ``GridSearchCV`` on mean L2."""

from __future__ import annotations

import warnings

import numpy as np
import sklearn
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler


def mean_l2(truth: np.ndarray, pred: np.ndarray) -> float:
    """Mean over rows of the Euclidean norm of the error."""
    return float(np.linalg.norm(truth - pred, axis=1).mean())


def loop(
    X: np.ndarray,
    Y: np.ndarray,
    train: np.ndarray,
    *,
    alphas: list[float],
    dtype: str,
    tol: float = 1e-4,
    folds: list[int],
    solver: str = "full",
) -> dict[str, np.ndarray]:
    """Outer folds ``folds`` of ``train`` (folds, n) bool: chosen penalties, inner and outer mean L2, coefficients of
    the last fold (in the basis of the standardised features, where signs of components do not matter).
    """
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, Y = X.astype(dtype), Y.astype(dtype)
    chosen, inner, outer = [], [], []
    for fold in folds:
        fit = train[fold]
        steps = [
            ("scale", StandardScaler()),
            ("pca", PCA(100, svd_solver=solver)),
            ("lasso", Lasso(tol=tol, max_iter=10_000)),
        ]
        search = GridSearchCV(
            Pipeline(steps),
            {"lasso__alpha": alphas},
            scoring=make_scorer(mean_l2, greater_is_better=False),
            cv=KFold(5, shuffle=True, random_state=42),
        ).fit(X[fit], Y[fit])
        chosen.append(search.best_params_["lasso__alpha"])
        inner.append(-search.cv_results_["mean_test_score"])
        outer.append(mean_l2(Y[~fit], search.predict(X[~fit])))
    best = search.best_estimator_
    coef = best["pca"].components_.T @ best["lasso"].coef_.T
    return {"chosen": np.array(chosen), "inner": np.array(inner), "outer": np.array(outer), "coef": coef}


def fit(X: np.ndarray, Y: np.ndarray, *, alpha: float, tol: float) -> dict[str, np.ndarray]:
    """Coefficients (d, g) and largest sweep count of one Lasso."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    made = Lasso(alpha, tol=tol, max_iter=100_000).fit(X, Y)
    return {"coef": made.coef_.T, "sweeps": np.array(np.max(made.n_iter_)), "version": np.array(sklearn.__version__)}
