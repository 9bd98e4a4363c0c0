"""Weights of means over training rows: by context, and by identical entity set."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.core import Inputs


def context_mean(context: np.ndarray, train_context: np.ndarray) -> np.ndarray:
    """Weights, shape (n_query, n_train), of the mean over the training rows of each query's context; in a context
    without training rows, of the mean over the training contexts' means (contexts equal).

    Examples
    --------
    >>> context_mean(np.array([0, 7]), np.array([0, 0, 1])).tolist()
    [[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]
    """
    present, code, counts = np.unique(train_context, return_inverse=True, return_counts=True)
    wanted, row = np.unique(context, return_inverse=True)
    same = wanted[:, None] == train_context[None, :]
    known = np.isin(wanted, present)[:, None]
    return np.where(known, same / counts[code], 1.0 / (len(present) * counts[code]))[row]


def indicator(entities: sparse.csr_matrix) -> sparse.csr_matrix:
    """Entity sets as 0/1 float64 CSR rows of shape (n, e) without stored zeros."""
    sets = sparse.csr_matrix(entities, dtype=np.float64, copy=True)
    sets.data = (sets.data != 0).astype(np.float64)
    sets.eliminate_zeros()
    return sets


def same_set(query: sparse.csr_matrix, train: sparse.csr_matrix) -> sparse.csr_matrix:
    """Which training rows have exactly the query's entity set, as a 0/1 CSR matrix of shape (n_query, n_train)."""
    common = (query @ train.T).tocoo()
    size_query, size_train = np.diff(query.indptr), np.diff(train.indptr)
    hit = (common.data == size_query[common.row]) & (common.data == size_train[common.col])
    where = (common.row[hit], common.col[hit])
    return sparse.csr_matrix((np.ones(int(hit.sum())), where), shape=common.shape)


def contexts_equal(mask: sparse.csr_matrix, train_context: np.ndarray) -> sparse.csr_matrix:
    """Weights, shape (n_query, n_train), of the mean over the marked training rows: rows of a context equal, then
    contexts equal. Rows of ``mask`` (n_query, n_train) without a mark stay empty.

    Examples
    --------
    >>> contexts_equal(sparse.csr_matrix(np.ones((1, 3))), np.array([0, 0, 1])).toarray().tolist()
    [[0.25, 0.25, 0.5]]
    """
    present, code = np.unique(train_context, return_inverse=True)
    member = sparse.csr_matrix((np.ones(len(code)), (np.arange(len(code)), code)), shape=(len(code), len(present)))
    counts = (mask @ member).toarray()
    out = mask.tocoo()
    share = 1.0 / (counts[out.row, code[out.col]] * (counts > 0).sum(axis=1)[out.row])
    return sparse.csr_matrix((share, (out.row, out.col)), shape=mask.shape)


def in_own_context(mask: sparse.csr_matrix, context: np.ndarray, train_context: np.ndarray) -> sparse.csr_matrix:
    """``mask`` of shape (n_query, n_train) cut to the training rows in ``context`` (n_query,) where a row has some."""
    marks = mask.tocoo()
    own = context[marks.row] == train_context[marks.col]
    has_own = np.zeros(mask.shape[0], dtype=bool)
    has_own[marks.row[own]] = True
    keep = own | ~has_own[marks.row]
    return sparse.csr_matrix((marks.data[keep], (marks.row[keep], marks.col[keep])), shape=mask.shape)


def fill_empty(weights: sparse.csr_matrix, rows: np.ndarray, fallback: np.ndarray) -> sparse.csr_matrix:
    """``weights`` (n_query, n_train) with its empty rows ``rows`` (m,) replaced by ``fallback`` (m, n_train)."""
    if not len(rows):
        return weights
    place = sparse.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(weights.shape[0], len(rows)))
    return sparse.csr_matrix(weights + place @ sparse.csr_matrix(fallback))


def set_seen(train: Inputs, query: Inputs) -> np.ndarray:
    """Which queries, shape (n_query,), have training rows with their entity set."""
    return np.diff(same_set(indicator(query.entities), indicator(train.entities)).indptr) > 0


def set_mean(train: Inputs, query: Inputs) -> sparse.csr_matrix:
    """Weights, shape (n_query, n_train), of the mean over the training rows with the query's entity set (contexts
    equal); of the context mean where there is none.
    """
    mask = same_set(indicator(query.entities), indicator(train.entities))
    rows = np.flatnonzero(np.diff(mask.indptr) == 0)
    return fill_empty(contexts_equal(mask, train.context), rows, context_mean(query.context[rows], train.context))
