"""Edges as pairs for link prediction: held-out edges, degree-matched negatives, AUC, propagation matrices."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import minimum_spanning_tree

from embbench.core import UserError

REPAIRS = 50  # rounds of redrawing negatives that are edges; only pairs among saturated hubs are left after a few


def edge_pairs(adjacency: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Each edge of a symmetric matrix once: ends of shape (e, 2), low < high, and weights of shape (e,).

    Examples
    --------
    >>> edge_pairs(sparse.csr_matrix([[0.0, 2.0], [2.0, 0.0]]))[0].tolist()
    [[0, 1]]
    """
    upper = sparse.triu(adjacency, 1, format="coo")
    return np.stack([upper.row, upper.col], axis=1).astype(np.int64), upper.data


def weighted_graph(pairs: np.ndarray, weights: np.ndarray, n: int) -> sparse.csr_matrix:
    """The symmetric (n, n) matrix of edges given once, of shape (e, 2), with weights of shape (e,)."""
    half = sparse.csr_matrix((weights, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return (half + half.T).tocsr()


def hold_out(pairs: np.ndarray, n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Mask of shape (e,) of edges to hold out, drawn from the edges outside a random spanning forest.

    The remaining graph has the same connected components, so every node keeps an edge. ``share`` of all edges (rounded
    up) are held out, or as many as the forest leaves.

    Examples
    --------
    >>> chain, triangle = np.array([[0, 1], [1, 2]]), np.array([[0, 1], [1, 2], [0, 2]])
    >>> [int(hold_out(graph, 3, 0.5, np.random.default_rng(0)).sum()) for graph in (chain, triangle)]
    [0, 1]
    """
    lengths = 1.0 + rng.random(len(pairs))  # distinct random lengths make the shortest tree a random one
    tree = minimum_spanning_tree(weighted_graph(pairs, lengths, n)).tocoo()
    kept = _codes(np.stack([tree.row, tree.col], axis=1).astype(np.int64), n)
    free = np.flatnonzero(~np.isin(_codes(pairs, n), kept))
    mask = np.zeros(len(pairs), dtype=bool)
    mask[rng.permutation(free)[: int(np.ceil(share * len(pairs)))]] = True
    return mask


def _codes(pairs: np.ndarray, n: int) -> np.ndarray:
    return pairs.min(axis=1) * n + pairs.max(axis=1)


def matched_negatives(pairs: np.ndarray, known: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs that are no known edge, in which nodes are as frequent as among ``pairs`` of shape (e, 2).

    The second ends of randomly oriented edges are shuffled, and those that hit a known edge or a node itself are
    shuffled again with as many others: degrees tell nothing about who is a negative. Pairs that cannot be repaired are
    left out.

    Parameters
    ----------
    pairs : edges to be matched.
    known : edges of shape (k, 2) that may not occur among the negatives.

    Raises
    ------
    UserError
        There are ``pairs``, but every negative drawn is an edge: the graph is too dense.
    """
    flip = rng.random(len(pairs)) < 0.5
    first = np.where(flip, pairs[:, 1], pairs[:, 0])
    second = rng.permutation(np.where(flip, pairs[:, 0], pairs[:, 1]))
    codes = np.sort(_codes(known, n))
    bad = _clashes(first, second, codes, n)
    for _ in range(REPAIRS):
        if not len(bad):
            break
        pool = np.unique(np.concatenate([bad, rng.integers(0, len(first), len(bad))]))
        second[pool] = second[rng.permutation(pool)]
        bad = pool[_clashes(first[pool], second[pool], codes, n)]
    good = np.setdiff1d(np.arange(len(first)), bad)
    if len(pairs) and not len(good):
        raise UserError(
            f"link prediction: expected pairs of nodes that are no edge, found none among {n} nodes with {len(known)} "
            "edges; raise the threshold or keep fewer edges per node"
        )
    return np.stack([first[good], second[good]], axis=1)


def _clashes(first: np.ndarray, second: np.ndarray, codes: np.ndarray, n: int) -> np.ndarray:
    asked = _codes(np.stack([first, second], axis=1), n)
    order = np.argsort(asked)  # sorted questions walk the codes in order: several times faster than random access
    where = np.minimum(np.searchsorted(codes, asked[order]), len(codes) - 1)
    hit = np.empty(len(asked), dtype=bool)
    hit[order] = codes[where] == asked[order]
    return np.flatnonzero(hit | (first == second))


def pair_auc(vectors: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that an edge has a larger inner product of ``vectors`` (n, d) than a negative; ties count half.

    Examples
    --------
    >>> pair_auc(np.array([[1.0], [2.0], [-1.0]]), np.array([[0, 1]]), np.array([[0, 2]]))
    1.0
    """
    from scipy.stats import rankdata  # a second of imports, which the list of embeddings need not wait for

    both = np.concatenate([positive, negative])
    ranks = rankdata(np.einsum("ij,ij->i", vectors[both[:, 0]], vectors[both[:, 1]], dtype=np.float64))
    p, q = len(positive), len(negative)
    return float((ranks[:p].sum() - p * (p + 1) / 2) / (p * q))


def propagation(layer: str, adjacency: sparse.csr_matrix) -> sparse.csr_matrix:
    """What a layer multiplies node vectors with, of shape (n, n): ``gcn``: D^-1/2 (A + I) D^-1/2; ``gin``: A.

    Weights are first divided by their mean, so that a self-loop counts as one average edge.
    """
    scaled = adjacency / adjacency.data.mean()
    if layer == "gin":
        return scaled.tocsr()
    looped = scaled + sparse.identity(adjacency.shape[0])
    root = sparse.diags(1 / np.sqrt(np.asarray(looped.sum(axis=1)).ravel()))
    return (root @ looped @ root).tocsr()
