"""No effect at all: the perturbed cells equal the controls."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.core import Inputs
from embbench.heads._smoother import Smoother


class NoChange(Smoother):
    """Predicts an effect of 0 for every gene.

    References
    ----------
    The "no change" baseline of Ahlmann-Eltze, Huber and Anders (2025), Nature Methods.

    Examples
    --------
    >>> rows = Inputs(np.eye(2), np.zeros(2, int), sparse.eye(2), ((0,), (1,)))
    >>> NoChange().fit(rows, np.ones((2, 3))).predict(rows).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    needs_embedding = False
    scope = "joint"

    def weights(self, train: Inputs, query: Inputs) -> sparse.csr_matrix:
        """Smoother matrix, shape (n_query, n_train), without an entry."""
        return sparse.csr_matrix((len(query), len(train)), dtype=np.float64)
