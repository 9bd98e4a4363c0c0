"""Semantic similarity of GO terms and genes after Wang et al. (2007): S-values, term similarity, best-match average.

Equations: ``S_A(A) = 1`` and ``S_A(t) = max { w_e S_A(t') : t' a child of t on the way to A }`` (1), ``SV(A)`` the sum
of ``S_A`` (2), the similarity of two terms (3) and of two genes (4) of Wang, Du, Payattakool, Yu and Chen (2007), A new
method to measure the semantic similarity of GO terms, Bioinformatics 23(10), 1274-1281. Equation 4 is what GOSemSim
calls BMA (Yu et al. 2010, Bioinformatics 26(7)).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import sparse

from embbench.core import UserError

BLOCK = 24  # landmarks compared at once: a block of term similarities stays near 50 MB for 12,000 terms


def s_values(
    terms: list[str], parents: Mapping[str, sparse.csr_matrix], factor: Mapping[str, float], asked: np.ndarray
) -> sparse.csr_matrix:
    """S-values of the asked terms, shape (asked, terms): row A holds ``S_A(t)`` of A's ancestors t and of A itself.

    Parameters
    ----------
    terms : names, for messages.
    parents : relation -> binary matrix (terms, terms) from child to parent.
    factor : relation -> semantic contribution factor w_e; only these relations are followed.
    asked : term numbers.

    Raises
    ------
    UserError
        The relations that are followed form a cycle.

    Examples
    --------
    >>> chain = sparse.csr_matrix(np.array([[0.0, 1, 0], [0, 0, 1], [0, 0, 0]]))
    >>> s_values(["a", "b", "c"], {"is_a": chain}, {"is_a": 0.8}, np.array([0])).toarray().round(2).tolist()
    [[1.0, 0.8, 0.64]]
    """
    up = _edges(len(terms), parents, factor)
    known: dict[int, dict[int, float]] = {}
    for term in _parents_first(terms, up, asked.tolist()):
        values = {term: 1.0}
        for parent, weight in up[term]:
            for ancestor, value in known[parent].items():
                values[ancestor] = max(values.get(ancestor, 0.0), weight * value)
        known[term] = values
    rows = [known[term] for term in asked.tolist()]
    data = np.array([value for row in rows for value in row.values()])
    columns = np.array([ancestor for row in rows for ancestor in row], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    out = sparse.csr_matrix((data, columns, starts), shape=(len(rows), len(terms)))
    out.sort_indices()
    return out


def _edges(
    count: int, parents: Mapping[str, sparse.csr_matrix], factor: Mapping[str, float]
) -> list[list[tuple[int, float]]]:
    up: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for relation, weight in factor.items():
        pairs = parents[relation].tocoo()
        for child, parent in zip(pairs.row.tolist(), pairs.col.tolist(), strict=True):
            up[child].append((parent, float(weight)))
    return up


def _parents_first(terms: list[str], up: list[list[tuple[int, float]]], asked: list[int]) -> list[int]:
    """The asked terms and their ancestors, every parent before its children."""
    done, active, order = set[int](), set[int](), list[int]()
    stack = [(term, False) for term in reversed(asked)]
    while stack:
        term, finished = stack.pop()
        if finished:
            active.discard(term)
            done.add(term)
            order.append(term)
        elif term not in done:
            if term in active:
                raise UserError(f"GO: the relations followed form a cycle through {terms[term]}; follow fewer of them")
            active.add(term)
            stack.append((term, True))
            stack += [(parent, False) for parent, _ in up[term] if parent not in done]
    return order


def term_similarity(S: sparse.csr_matrix, columns: np.ndarray) -> np.ndarray:
    """Equation 3 between all rows of S-values and some of them, shape (rows, len(columns)), float64.

    ``sim(A, B) = sum over common ancestors t of (S_A(t) + S_B(t)), divided by SV(A) + SV(B)``.

    Examples
    --------
    >>> S = sparse.csr_matrix(np.array([[1.0, 0.8], [0.0, 1.0]]))
    >>> term_similarity(S, np.array([0])).round(4).tolist()
    [[1.0], [0.6429]]
    """
    some = S[columns]
    binary, some_binary = (
        sparse.csr_matrix((np.ones_like(m.data), m.indices, m.indptr), shape=m.shape) for m in (S, some)
    )
    shared = S @ some_binary.T.toarray() + binary @ some.T.toarray()
    value, some_value = (np.asarray(m.sum(axis=1)).ravel() for m in (S, some))
    return shared / (value[:, None] + some_value[None, :])


def gene_similarity(annotation: sparse.csr_matrix, S: sparse.csr_matrix, landmarks: np.ndarray) -> np.ndarray:
    """Best-match average between all genes and some of them, shape (genes, len(landmarks)), float64.

    ``(sum_i max_j sim(i, j) + sum_j max_i sim(i, j)) / (m + n)`` over the m terms i of one gene and the n terms j of
    the other (equation 4).

    Parameters
    ----------
    annotation : binary (genes, terms), at least one term per gene.
    S : S-values (terms, any) of those terms.
    landmarks : gene numbers.
    """
    annotation = sparse.csr_matrix(annotation)
    count = np.diff(annotation.indptr)
    out = np.empty((annotation.shape[0], len(landmarks)))
    for start in range(0, len(landmarks), BLOCK):
        some = annotation[landmarks[start : start + BLOCK]]
        similarity = term_similarity(S, some.indices)  # a term of two landmarks is there twice: blocks stay simple
        forward = annotation @ np.maximum.reduceat(similarity, some.indptr[:-1], axis=1)
        best = np.maximum.reduceat(similarity[annotation.indices], annotation.indptr[:-1], axis=0)
        backward = np.add.reduceat(best, some.indptr[:-1], axis=1)
        out[:, start : start + BLOCK] = (forward + backward) / (count[:, None] + np.diff(some.indptr)[None, :])
    return out
