"""Lasso regression from the embedding to every gene: sparse coefficients, solved exactly."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np

from embbench.core import HeadDefaults, Inputs
from embbench.heads._smoother import check_rows, positive

GENES = 256  # genes solved together: their coefficients stay in the cache
ROUNDS = 200
SWEEPS = 5  # of coordinate descent a round
DROPS = 20  # sign changes followed in one exact solution
TOLERANCE = 1e-6  # violation of the optimality conditions, as a correlation of feature and residual


class Lasso(HeadDefaults):
    """For every gene: minimise ||y - b - X w||^2 / (2 n) + alpha ||w||_1, the intercept b not penalised.

    Rounds of cyclic coordinate descent on the Gram matrix, for blocks of genes at once, and of exact solutions on the
    features in use, until the optimality conditions hold to 1e-6. On uncorrelated features (scores of a PCA fitted on
    the same rows) one sweep is the solution: the soft-thresholded least-squares coefficient. On hundreds of correlated
    raw features it takes minutes.

    Parameters
    ----------
    alpha : > 0, in units of effect times feature (scikit-learn's ``alpha``).

    References
    ----------
    Tibshirani (1996), J. R. Stat. Soc. B 58:267-288; Friedman, Hastie and Tibshirani (2010), J. Stat. Softw. 33(1),
    equation 5 and section 2.2 (covariance updates); Lee et al. (2006), NeurIPS 19, algorithm 1 (feature-sign steps).

    Examples
    --------
    >>> rows = Inputs(np.array([[-1.0], [1.0]]), np.zeros(2, int), None, ((0,), (1,)))
    >>> Lasso(alpha=0.5).fit(rows, np.array([[-2.0], [2.0]])).coef_.tolist()
    [[1.5]]
    """

    trained = True

    def __init__(self, alpha: float = 0.1) -> None:
        positive("Lasso", alpha=alpha)
        self.alpha = alpha

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """Four penalties from 1e-3 to 1."""
        return [{"alpha": alpha} for alpha in (1e-3, 1e-2, 1e-1, 1.0)]

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Coefficients from features of shape (n, d) to effects ``Y`` of shape (n, g); ``observed`` is not used, since
        unobserved entries of ``Y`` come filled.
        """
        check_rows(self, inputs, Y)
        self.x_mean_, self.y_mean_ = inputs.X.mean(axis=0, dtype=np.float64), Y.mean(axis=0, dtype=np.float64)
        rows, n = inputs.X - self.x_mean_, len(Y)
        gram = rows.T @ rows / n
        self.coef_ = np.zeros((rows.shape[1], Y.shape[1]))
        worst = 0.0
        for start in range(0, Y.shape[1], GENES):
            part = slice(start, start + GENES)
            target = Y[:, part] - self.y_mean_[part]
            spread = np.sqrt(np.square(target).mean(axis=0))
            self.coef_[:, part], left = _descend(gram, rows.T @ target / n, self.alpha, spread, n - 1)
            worst = max(worst, left)
        if worst > TOLERANCE:
            warnings.warn(
                f"Lasso: {ROUNDS} rounds left a violation of {worst:.1e} (expected <= {TOLERANCE:.0e}) at alpha "
                f"{self.alpha}; raise alpha or use pca features",
                stacklevel=2,
            )
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n_query, g), float32; RuntimeError before ``fit``."""
        if not hasattr(self, "coef_"):
            raise RuntimeError(f"{type(self).__name__}.predict called before fit")
        return ((inputs.X - self.x_mean_) @ self.coef_ + self.y_mean_).astype(np.float32)


def _descend(
    gram: np.ndarray, cross: np.ndarray, alpha: float, spread: np.ndarray, rank: int
) -> tuple[np.ndarray, float]:
    """Coefficients (d, m) for Gram matrix (d, d) and feature-gene covariances (d, m), and the violation left over."""
    size = np.diagonal(gram)
    scale = np.sqrt(size)[:, None] * spread
    scale[scale == 0] = np.inf
    coef = np.zeros_like(cross)
    for turn in range(ROUNDS + 1):
        slope = cross - gram @ coef
        violation = np.where(coef != 0, np.abs(slope - alpha * np.sign(coef)), np.maximum(np.abs(slope) - alpha, 0.0))
        violation /= scale
        late = np.flatnonzero((violation > TOLERANCE).any(axis=0))
        if not len(late) or turn == ROUNDS:
            break
        part, pull = coef[:, late], cross[:, late]
        # The first sweep is all that uncorrelated features need.
        for _ in range(SWEEPS if turn else 1):
            for j in np.flatnonzero(size > 0):
                free = pull[j] - gram[j] @ part + size[j] * part[j]
                part[j] = np.sign(free) * np.maximum(np.abs(free) - alpha, 0.0) / size[j]
        if turn:
            part = np.stack([_finish(gram, pull[:, i], part[:, i], alpha, rank) for i in range(len(late))], axis=1)
        coef[:, late] = part
    return coef, float(violation.max(initial=0.0))


def _finish(gram: np.ndarray, pull: np.ndarray, coef: np.ndarray, alpha: float, rank: int) -> np.ndarray:
    """One gene's exact minimum (d,) on the features in use and their signs; a coefficient that would change its sign
    on the way is dropped. More features than ``rank`` have no unique minimum. Keeps ``coef`` when the objective does
    not fall.
    """

    def objective(b: np.ndarray) -> float:
        return float(b @ (gram @ b) / 2 - pull @ b + alpha * np.abs(b).sum())

    best, sign = coef.copy(), np.sign(coef)
    used = np.flatnonzero(best)
    for _ in range(DROPS):
        if not 0 < len(used) <= rank:
            break
        try:
            goal = np.linalg.solve(gram[np.ix_(used, used)], pull[used] - alpha * sign[used])
        except np.linalg.LinAlgError:
            break
        crossing = goal * sign[used] <= 0
        if not crossing.any():
            best[used] = goal
            break
        now = best[used]
        share = np.where(crossing, now / np.where(crossing, now - goal, 1.0), np.inf)
        best[used] = np.where(share == share.min(), 0.0, now + share.min() * (goal - now))
        used = np.flatnonzero(best)
    return best if objective(best) < objective(coef) else coef
