"""The same perturbation in the most similar training context."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.core import Inputs
from embbench.heads._means import context_mean, contexts_equal, fill_empty, indicator, same_set, set_seen
from embbench.heads._smoother import Smoother


class NearestContext(Smoother):
    """Mean over the training rows with the query's entity set (whatever their dose) in the nearest context that has
    such rows; for a set that no training row has, the mean over all rows of the nearest training context.

    Contexts are compared by Euclidean distance between context vectors whose columns are standardised over the
    training contexts (constant columns are left unscaled); equal distances go to the smaller context code. The query's
    own context, when it has training rows, is a training context like any other, at distance 0.

    References
    ----------
    Cover and Hart (1967), IEEE Trans. Inf. Theory 13:21-27: the 1-nearest-neighbour rule, here over contexts.

    Examples
    --------
    >>> sets, vectors = sparse.csr_matrix(np.ones((3, 1))), np.array([[0.0], [9.0], [8.0]])
    >>> rows = Inputs(np.zeros((3, 0)), np.arange(3), sets, ((0,), (0,), (0,)), context_vector=vectors)
    >>> NearestContext().weights(rows.rows([0, 1]), rows.rows([2])).toarray().tolist()
    [[0.0, 1.0]]
    """

    needs_embedding = False
    needs_context_vector = True
    scope = "joint"

    def weights(self, train: Inputs, query: Inputs) -> sparse.csr_matrix:
        """Smoother matrix, shape (n_query, n_train), CSR.

        Raises
        ------
        ValueError
            There is no context vector, or one in use is not finite.
        """
        present = np.unique(train.context)
        wanted, row = np.unique(query.context, return_inverse=True)
        known, asked = self._vectors(train, present), self._vectors(query, wanted)
        centre, spread = known.mean(axis=0), known.std(axis=0)
        spread[spread == 0] = 1.0
        gap = ((asked - centre) / spread)[:, None, :] - ((known - centre) / spread)[None, :, :]
        order = np.argsort(np.square(gap).sum(axis=2), axis=1, kind="stable")
        place = np.argsort(order, axis=1)[row]
        marks = same_set(indicator(query.entities), indicator(train.entities)).tocoo()
        found = place[marks.row, np.searchsorted(present, train.context[marks.col])]
        best = np.full(len(query), len(present))
        np.minimum.at(best, marks.row, found)
        keep = found == best[marks.row]
        chosen = sparse.csr_matrix((marks.data[keep], (marks.row[keep], marks.col[keep])), shape=marks.shape)
        unseen = np.flatnonzero(best == len(present))
        fallback = context_mean(present[order[row[unseen], 0]], train.context)
        return fill_empty(contexts_equal(chosen, train.context), unseen, fallback)

    def covers(self, train: Inputs, query: Inputs) -> np.ndarray:
        """Rows, shape (n_query,), whose set is in training; the others get a context mean."""
        return set_seen(train, query)

    @staticmethod
    def _vectors(inputs: Inputs, codes: np.ndarray) -> np.ndarray:
        if inputs.context_vector is None:
            raise ValueError(
                f"NearestContext: expected a context_vector for contexts {codes.tolist()}, found None; "
                "name a context embedding"
            )
        vectors = inputs.context_vector[codes].astype(np.float64)
        if bad := codes[~np.isfinite(vectors).all(axis=1)].tolist():
            raise ValueError(f"NearestContext: context vectors must be finite, found other values for contexts {bad}")
        return vectors
