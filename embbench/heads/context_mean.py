"""The mean training effect of the query's context: the baseline that every head must beat."""

from __future__ import annotations

import numpy as np

from embbench.core import Inputs
from embbench.heads._means import context_mean
from embbench.heads._smoother import Smoother


class ContextMean(Smoother):
    """Mean over the training rows of the same context; in a context without training rows, the mean over the training
    contexts' means (contexts equal).

    References
    ----------
    The "mean" baseline of Ahlmann-Eltze, Huber and Anders (2025), Nature Methods, applied within each context.

    Examples
    --------
    >>> rows = Inputs(np.zeros((3, 0)), np.array([0, 0, 1]), None, ((0,), (1,), (2,)))
    >>> ContextMean().fit(rows, np.array([[1.0], [3.0], [5.0]])).predict(rows).ravel().tolist()
    [2.0, 2.0, 5.0]
    """

    needs_embedding = False
    scope = "joint"

    def weights(self, train: Inputs, query: Inputs) -> np.ndarray:
        """Smoother matrix, shape (n_query, n_train)."""
        return context_mean(query.context, train.context)
