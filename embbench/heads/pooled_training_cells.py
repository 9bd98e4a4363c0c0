"""Cells of all training perturbations of a context: what perturbed cells look like whatever the perturbation."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.core import Inputs
from embbench.heads._means import context_mean
from embbench.heads._pooling import Pooled


class PooledTrainingCells(Pooled):
    """Population of the cells of all training rows of the query's context, rows equal; in a context without training
    rows, of all training contexts, contexts equal, moved by the difference of the control means.

    ``predict`` is the context mean. This is the population that any use of an embedding has to beat.

    Parameters
    ----------
    seed : of the draw.

    References
    ----------
    The training mean of Ahlmann-Eltze et al. (2025), Nature Methods 22:1657-1661, with cells in place of their mean.

    Examples
    --------
    >>> PooledTrainingCells(seed=-1)
    Traceback (most recent call last):
    ValueError: PooledTrainingCells: seed must be a whole number >= 0, got -1
    """

    needs_embedding = False

    def __init__(self, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"PooledTrainingCells: seed must be a whole number >= 0, got {seed!r}")
        self.seed = seed

    def pool(self, train: Inputs, query: Inputs) -> sparse.csr_matrix:
        """Weights of the context mean, shape (n_query, n_train), CSR."""
        return sparse.csr_matrix(context_mean(query.context, train.context))
