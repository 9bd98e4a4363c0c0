"""The mean training effect of the same perturbation, over contexts."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.core import Inputs
from embbench.heads._means import set_mean, set_seen
from embbench.heads._smoother import Smoother


class PerturbationMean(Smoother):
    """Mean over the training rows whose entity set is the query's, whatever their dose: rows of a context equal, then
    contexts equal. A set that no training row has gets the context mean (in a context without training rows: the mean
    over the training contexts' means).

    References
    ----------
    The perturbation-average baseline for unseen contexts, e.g. Wu et al. (2024), PerturBench, arXiv:2408.10609.

    Examples
    --------
    >>> import numpy as np
    >>> sets = sparse.csr_matrix([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> rows = Inputs(np.zeros((3, 0)), np.arange(3), sets, ((0,), (0,), (1,)))
    >>> PerturbationMean().weights(rows, rows).toarray()[0].tolist()
    [0.5, 0.5, 0.0]
    """

    needs_embedding = False
    scope = "joint"

    def weights(self, train: Inputs, query: Inputs) -> sparse.csr_matrix:
        """Smoother matrix, shape (n_query, n_train), CSR."""
        return set_mean(train, query)

    def covers(self, train: Inputs, query: Inputs) -> np.ndarray:
        """Rows, shape (n_query,), whose set is in training; the others get the context mean."""
        return set_seen(train, query)
