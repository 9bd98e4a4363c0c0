"""Cells of the same perturbation in other contexts, moved by the difference of the control means."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.core import Inputs
from embbench.heads._means import set_mean, set_seen
from embbench.heads._pooling import Pooled


class PooledPerturbation(Pooled):
    """Population of the cells of the training rows with the query's entity set, whatever their dose: rows of a context
    equal, then contexts equal; moved from their context to the query's by the difference of the control means. A set
    that no training row has gets the cells of the context mean.

    ``predict`` is the perturbation mean.

    Parameters
    ----------
    seed : of the draw.

    References
    ----------
    Vector arithmetic between cell types, Lotfollahi et al. (2019), scGen, Nature Methods 16:715-721, in gene space: the
    perturbed cells of one context plus the difference of the contexts' control means.

    Examples
    --------
    >>> PooledPerturbation(seed=-1)
    Traceback (most recent call last):
    ValueError: PooledPerturbation: seed must be a whole number >= 0, got -1
    """

    needs_embedding = False
    scope = "joint"

    def __init__(self, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"PooledPerturbation: seed must be a whole number >= 0, got {seed!r}")
        self.seed = seed

    def pool(self, train: Inputs, query: Inputs) -> sparse.csr_matrix:
        """Weights of the perturbation mean, shape (n_query, n_train), CSR."""
        return set_mean(train, query)

    def covers(self, train: Inputs, query: Inputs) -> np.ndarray:
        """Rows, shape (n_query,), whose set is in training; the others get the context mean."""
        return set_seen(train, query)
