"""The linear part of a fusion head: ridge regression on blocks side by side, shared by and apart for contexts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embbench.heads._fusion import Folds
from embbench.heads._ridge import ridge_path

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-2, 5, 15))
SHARES = (1.0, 0.7, 0.3, 0.0)  # how much of a coefficient all contexts have in common


@dataclass(frozen=True)
class LinearPart:
    """Ridge coefficients, common to all contexts and apart for each, and predictions of rows that did not see them.

    A row's features are ``sqrt(share) x`` and, in the columns of its context, ``sqrt(1 - share) x``, so that the
    coefficients of two contexts correlate with ``share``. Share and penalty are those with the least squared error of
    held-out folds.

    Parameters
    ----------
    share, alpha : what was chosen.
    mean, slope, level : (p,), (p, r), (r,): prediction = level + (features - mean) slope.
    out_of_fold : (n, r) float64, predictions of training rows by the fit without their fold.

    References
    ----------
    Hoerl and Kennard (1970), equation 2.1; common and own coefficients: Evgeniou and Pontil (2004), Regularized
    multi-task learning, section 2.
    """

    share: float
    alpha: float
    mean: np.ndarray
    slope: np.ndarray
    level: np.ndarray
    out_of_fold: np.ndarray

    @classmethod
    def fitted(cls, X: np.ndarray, hot: np.ndarray, Y: np.ndarray, folds: Folds) -> LinearPart:
        """Choose on ``folds`` and fit on features (n, d), one-hot contexts (n, c) and targets (n, r)."""
        best = (np.inf, 1.0, ALPHAS[-1])
        for share in SHARES if hot.shape[1] > 1 else (1.0,):
            for alpha, predicted in zip(ALPHAS, _crossed(_spread(X, hot, share), Y, folds, ALPHAS), strict=True):
                error = float(np.square(Y - predicted).sum())
                if error < best[0]:
                    best = (error, share, alpha)
        _, share, alpha = best
        rows = _spread(X, hot, share)
        mean = rows.mean(axis=0)
        units = np.vstack([mean, mean + np.eye(rows.shape[1])])
        at_units = next(ridge_path(rows, units, [alpha])) @ Y
        crossed = _crossed(rows, Y, folds, (alpha,))[0]
        return cls(share, alpha, mean, at_units[1:] - at_units[0], at_units[0], crossed)

    def __call__(self, X: np.ndarray, hot: np.ndarray) -> np.ndarray:
        """Predictions (n, r) of features (n, d) in contexts (n, c)."""
        return self.level + (_spread(X, hot, self.share) - self.mean) @ self.slope


def _spread(X: np.ndarray, hot: np.ndarray, share: float) -> np.ndarray:
    """Common features, and each context's own, (n, d + c d); common ones alone where ``share`` is 1."""
    if share == 1:
        return X.astype(np.float64)
    own = (np.sqrt(1 - share) * hot[:, :, None] * X[:, None]).reshape(len(X), hot.shape[1] * X.shape[1])
    return np.hstack([np.sqrt(share) * X, own]).astype(np.float64)


def _crossed(rows: np.ndarray, Y: np.ndarray, folds: Folds, alphas: tuple[float, ...]) -> np.ndarray:
    """Out-of-fold predictions (len(alphas), n, r); 0 for rows that no fold holds out."""
    out = np.zeros((len(alphas), *Y.shape))
    for fit, held in folds:
        for number, weights in enumerate(ridge_path(rows[fit], rows[held], alphas)):
            out[number, held] = weights @ Y[fit]
    return out
