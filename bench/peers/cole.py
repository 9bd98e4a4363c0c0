"""The published pipeline of gene embeddings and simple heads: StandardScaler, PCA(100), kNN or Lasso in a GridSearchCV.

Inner folds KFold(5, shuffle, seed 42), the score is the mean Euclidean distance of predicted and observed effects.
"""

from __future__ import annotations

import numpy as np
import sklearn
from sklearn.decomposition import PCA
from sklearn.linear_model import Lasso
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

KS, ALPHAS = (20, 40, 60, 80, 100), (1e-3, 1e-2, 1e-1, 1.0)


def version(**_: np.ndarray) -> dict[str, np.ndarray]:
    return {"version": np.array(sklearn.__version__)}


def _distance(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.linalg.norm(truth - predicted, axis=1).mean())


def run(
    Y: np.ndarray, fold: np.ndarray, *, X: str, head: str, dtype: str, solver: str, seed: int, outer: int,
    **more: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Chosen parameter and predictions of one outer fold for the embedding named ``X``."""
    vectors, Y = more[X].astype(dtype), Y.astype(dtype)
    train, test = fold != outer, fold == outer
    knn = head == "knn"
    model, grid = (KNeighborsRegressor(), {"head__n_neighbors": KS}) if knn else (Lasso(), {"head__alpha": ALPHAS})
    steps = [("scale", StandardScaler()), ("pca", PCA(100, svd_solver=solver, random_state=seed)), ("head", model)]
    score = make_scorer(_distance, greater_is_better=False)
    search = GridSearchCV(Pipeline(steps), grid, scoring=score, cv=KFold(5, shuffle=True, random_state=42))
    search.fit(vectors[train], Y[train])
    return {"chosen": np.array([next(iter(search.best_params_.values()))]), "predicted": search.predict(vectors[test])}
