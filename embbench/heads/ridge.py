"""Ridge regression from the embedding to every gene, as a smoother in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from embbench.core import Inputs
from embbench.heads._ridge import ridge_spectral
from embbench.heads._smoother import Smoother, positive
from embbench.numerics.smoothers import Spectral


class Ridge(Smoother):
    """Least squares with penalty ``alpha * ||B||^2`` on the coefficients and a free intercept.

    With A the training features minus their column means, W = 1/n + (x - mean) (A'A + alpha I)^-1 A', through the
    eigenvectors of A'A or of A A', whichever is smaller, in float64.

    Parameters
    ----------
    alpha : > 0, in units of squared feature norm (scikit-learn's ``alpha``).

    References
    ----------
    Hoerl and Kennard (1970), Technometrics 12:55-67, equation 2.1; the dual form: Saunders, Gammerman and Vovk (1998).

    Examples
    --------
    >>> rows = Inputs(np.array([[-1.0], [1.0]]), np.zeros(2, int), None, ((0,), (1,)))
    >>> Ridge(alpha=2.0).fit(rows, np.array([[-2.0], [2.0]])).predict(rows).ravel().tolist()
    [-1.0, 1.0]
    """

    def __init__(self, alpha: float = 100.0) -> None:
        positive("Ridge", alpha=alpha)
        self.alpha = alpha

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """15 penalties from 1e-2 to 1e5, two a decade."""
        return [{"alpha": float(f"{alpha:.3g}")} for alpha in np.logspace(-2, 5, 15)]

    def weights(self, train: Inputs, query: Inputs) -> np.ndarray:
        """Smoother matrix, shape (n_query, n_train); rows sum to 1."""
        return next(self.path([self], train, query)).matrix()

    @classmethod
    def path(cls, heads: Sequence[Self], train: Inputs, query: Inputs) -> Iterator[Spectral]:
        """Weights (n_query, n_train) of several penalties from one eigendecomposition."""
        return ridge_spectral(train.X, query.X, [head.alpha for head in heads])
