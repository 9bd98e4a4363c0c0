"""Lasso regression from the embedding to every gene: sparse coefficients, solved exactly, whole paths at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from embbench.core import HeadDefaults, Inputs
from embbench.heads._lasso import BLOCK, TOLERANCE, Products, descend, products, uncorrelated
from embbench.heads._lasso_folds import closed_errors
from embbench.heads._smoother import check_rows, positive

ROUNDS = 200


class Lasso(HeadDefaults):
    """For every gene: minimise ||y - b - X w||^2 / (2 n) + alpha ||w||_1, the intercept b not penalised.

    On uncorrelated features (scores of a PCA fitted on the same rows) the solution is the soft-thresholded
    least-squares coefficient, in closed form for all genes; float32 scores are uncorrelated to rounding, and a bound
    shows that this suffices, else corrections follow. On correlated features, coordinate descent on the Gram matrix
    with exact solutions on the features in use, along powers of ten of the penalty. Both end when the optimality
    conditions hold to 1e-6 (as a correlation of feature and residual).

    A fit alone has the bits of the fit in a path. After ``fit``, ``coef_`` (d, g) float64 are the coefficients and
    ``gap_`` is the largest duality gap over genes (for the closed form an upper bound of it), as a share of the
    objective's value without coefficients.

    Parameters
    ----------
    alpha : > 0, in units of effect times feature (scikit-learn's ``alpha``).

    References
    ----------
    Tibshirani (1996), J. R. Stat. Soc. B 58:267-288, section 2.2 (orthonormal design); Friedman, Hastie and Tibshirani
    (2010), J. Stat. Softw. 33(1), equation 5 and section 2.2 (covariance updates); Lee et al. (2006), NeurIPS 19,
    algorithm 1 (feature-sign steps).

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

        Raises
        ------
        ValueError
            ``Y`` has another number of rows than ``inputs``, or there is no training row.
        """
        return next(self.fit_path([self], inputs, Y, observed))

    @classmethod
    def fit_path(
        cls, heads: Sequence[Self], inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None
    ) -> Iterator[Self]:
        """The heads, in the order given, each fitted on the same rows: the bits of ``fit`` one by one.

        Products of features and effects are made once. On uncorrelated features each head is fitted when it is asked
        for; else all are fitted at the first, and (d, g) coefficients are held for each.
        """
        if not heads:
            return
        check_rows(heads[0], inputs, Y)
        made = products(inputs.X, Y)
        closed = made.nearly_uncorrelated
        solved = {} if closed else descend(made, [head.alpha for head in heads], ROUNDS)
        for head in heads:
            yield head._take(made, *(uncorrelated(made, head.alpha) if closed else solved[head.alpha]))

    def _take(self, made: Products, coef: np.ndarray, left: float, gap: float) -> Self:
        """Keep a solution; a warning when it is not one to `TOLERANCE`."""
        self.x_mean_, self.y_mean_, self.coef_, self.gap_ = made.x_mean, made.y_mean, coef, gap
        if left > TOLERANCE:
            warnings.warn(
                f"Lasso: {ROUNDS} rounds left a violation of {left:.1e} (expected <= {TOLERANCE:.0e}) and a relative "
                f"duality gap of {gap:.1e} at alpha {self.alpha}; raise alpha or use pca features",
                stacklevel=3,
            )
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n_query, g), float32; RuntimeError before ``fit``."""
        if not hasattr(self, "coef_"):
            raise RuntimeError(f"{type(self).__name__}.predict called before fit")
        rows, out = inputs.X - self.x_mean_, np.empty((len(inputs), len(self.y_mean_)), np.float32)
        for start in range(0, out.shape[1], BLOCK):
            part = slice(start, start + BLOCK)
            out[:, part] = rows @ self.coef_[:, part] + self.y_mean_[part]
        return out

    @classmethod
    def held_errors(
        cls, heads: Sequence[Self], folds: Sequence[tuple[Inputs, np.ndarray, np.ndarray]], Y: np.ndarray
    ) -> list[np.ndarray]:
        """Squared Euclidean distances of predictions and effects of held rows: for each fold (len(heads), n_held).

        What selection by squared error needs, for all folds at once: on uncorrelated features neither coefficients nor
        predictions are kept, and effects are read once. Elsewhere `fit_path` and `predict`. No head is fitted.

        Parameters
        ----------
        heads : one for each penalty.
        folds : features of all rows as this fold sees them, and the row numbers that are fitted and held.
        Y : (n, g) effects of all rows.

        Raises
        ------
        ValueError
            ``Y`` has another number of rows than the inputs, or a fold fits no row.
        """
        for inputs, fit, _ in folds:
            check_rows(cls(), inputs, Y)
            if not len(fit):
                raise ValueError(f"{cls.__name__}.held_errors: a fold of {len(inputs)} rows fits none of them")
        closed = closed_errors([(i.X, f, h) for i, f, h in folds], Y, [head.alpha for head in heads])
        if closed is not None:
            return closed
        out = []
        for inputs, fit, held in folds:
            query, errors = inputs.rows(held), np.zeros((len(heads), len(held)))
            for number, head in enumerate(cls.fit_path([cls(head.alpha) for head in heads], inputs.rows(fit), Y[fit])):
                off = head.predict(query) - Y[held]
                errors[number] = np.einsum("ng,ng->n", off, off, dtype=np.float64)
            out.append(errors)
        return out
