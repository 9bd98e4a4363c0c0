"""The sum of the single effects: the baseline for combinations."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.core import Inputs
from embbench.heads._means import (
    context_mean,
    contexts_equal,
    fill_empty,
    in_own_context,
    indicator,
    same_set,
    set_mean,
)
from embbench.heads._smoother import Smoother


class Additive(Smoother):
    """Sum over the members of the query's set of each member's single effect.

    A member's single effect is the mean over the training rows of that entity alone (whatever their dose) in the
    query's context; without such rows, their mean over contexts (contexts equal). A member never seen alone
    contributes the mean single: the context mean over single-entity training rows; when training has no single at all,
    it contributes the context mean over all rows divided by the size of the query's set, so that the whole set gets
    the context mean. Training rows of two or more entities are never read otherwise. A query of one entity follows
    `PerturbationMean`.

    References
    ----------
    Ahlmann-Eltze, Huber and Anders (2025), Nature Methods 22:1657, additive model: LFC(A+B) = LFC(A) + LFC(B).

    Examples
    --------
    >>> sets = sparse.csr_matrix([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> rows = Inputs(np.zeros((3, 0)), np.zeros(3, int), sets, ((0,), (1,), (0, 1)))
    >>> Additive().weights(rows.rows([0, 1]), rows.rows([2])).toarray().tolist()
    [[1.0, 1.0]]
    """

    needs_embedding = False
    scope = "joint"

    def weights(self, train: Inputs, query: Inputs) -> sparse.csr_matrix:
        """Smoother matrix, shape (n_query, n_train), CSR; a row sums to about the size of its set."""
        sets = indicator(query.entities)
        size = np.diff(sets.indptr)
        alone, several = np.flatnonzero(size == 1), np.flatnonzero(size > 1)
        out = [set_mean(train, query.rows(alone)), self._sums(train, sets[several], query.context[several])]
        order = np.argsort(np.concatenate([alone, several]), kind="stable")
        return sparse.csr_matrix(sparse.vstack(out, format="csr")[order])

    def covers(self, train: Inputs, query: Inputs) -> np.ndarray:
        """Rows, shape (n_query,), all of whose members were seen alone in training."""
        known = indicator(train.entities)
        alone = np.asarray(known[np.diff(known.indptr) == 1].sum(axis=0)).ravel() > 0
        sets = indicator(query.entities)
        return np.asarray(sets @ alone.astype(np.float64)).ravel() == np.diff(sets.indptr)

    @staticmethod
    def _sums(train: Inputs, sets: sparse.csr_matrix, context: np.ndarray) -> sparse.csr_matrix:
        owner = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
        pairs = np.arange(sets.nnz)
        members = sparse.csr_matrix((np.ones(sets.nnz), (pairs, sets.indices)), shape=(sets.nnz, sets.shape[1]))
        known = indicator(train.entities)
        mask = in_own_context(same_set(members, known), context[owner], train.context)
        unseen = np.flatnonzero(np.diff(mask.indptr) == 0)
        single = np.flatnonzero(np.diff(known.indptr) == 1)
        fallback = np.zeros((len(unseen), len(train)))
        if len(single):
            fallback[:, single] = context_mean(context[owner[unseen]], train.context[single])
        else:
            size = np.diff(sets.indptr)[owner[unseen], None]
            fallback = context_mean(context[owner[unseen]], train.context) / size
        effects = fill_empty(contexts_equal(mask, train.context), unseen, fallback)
        total = sparse.csr_matrix((np.ones(sets.nnz), (owner, pairs)), shape=(sets.shape[0], sets.nnz))
        return sparse.csr_matrix(total @ effects)
