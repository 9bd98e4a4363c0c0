"""Simulator: the packaged protein network, its dense modules, and smooth fields on them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from scipy import sparse

from embbench.core import UserError
from embbench.numerics.edges import graph_file, read_edges

MODULE_SIZE = 12


@functools.lru_cache(maxsize=2)
def overlap_network(path: Path | None = None) -> tuple[tuple[str, ...], sparse.csr_matrix]:
    """Gene names and the symmetric topological overlap of their edges, shape (m, m), float64.

    The weight of an edge is the number of shared neighbours over the number of neighbours of either end, so that an
    edge inside a complex counts and a stray one does not.

    Parameters
    ----------
    path : edge table; None takes the packaged protein network.

    Raises
    ------
    UserError
        The table cannot be read or holds no edge.

    Notes
    -----
    Ravasz et al. (2002), Science 297, 1551-1555, "topological overlap", here over the union of the neighbourhoods
    (Jaccard index).
    """
    names, adjacency = read_edges(path or graph_file("ppi"))
    upper = sparse.coo_matrix(sparse.triu(adjacency, 1))
    return tuple(names.tolist()), _overlap(np.stack([upper.row, upper.col], axis=1).astype(np.int64), len(names))


def _overlap(ends: np.ndarray, n_nodes: int) -> sparse.csr_matrix:
    """Jaccard overlap of the neighbourhoods of every edge; triangles are listed from their end of lowest degree."""
    degree = np.bincount(ends.ravel(), minlength=n_nodes)
    by_degree = np.argsort(degree, kind="stable")
    rank = np.empty(n_nodes, dtype=np.int64)
    rank[by_degree] = np.arange(n_nodes)
    codes = np.sort(rank[ends].min(axis=1) * n_nodes + rank[ends].max(axis=1))
    low, high = codes // n_nodes, codes % n_nodes
    later = np.searchsorted(low, low, side="right") - np.arange(len(low)) - 1
    first = np.repeat(np.arange(len(low)), later)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later)
    third = np.minimum(np.searchsorted(codes, high[first] * n_nodes + high[second]), len(codes) - 1)
    closed = codes[third] == high[first] * n_nodes + high[second]
    shared = sum(np.bincount(side[closed], minlength=len(codes)) for side in (first, second, third))
    a, b = by_degree[low], by_degree[high]
    weight = shared / (degree[a] + degree[b] - shared)
    upper = sparse.csr_matrix((weight, (a, b)), shape=(n_nodes, n_nodes))
    symmetric = sparse.csr_matrix(upper + upper.T)
    symmetric.eliminate_zeros()
    symmetric.sort_indices()
    return symmetric


def dense_modules(overlap: sparse.csr_matrix, n_genes: int, rng: np.random.Generator) -> np.ndarray:
    """Nodes, shape (n_genes,), of modules grown from random seeds among the nodes of largest summed overlap.

    A module takes up the node with the largest summed overlap to its members until it has `MODULE_SIZE` nodes or no
    free neighbour.

    `UserError`: the network has fewer nodes with overlap than asked for.

    Examples
    --------
    >>> dense_modules(sparse.csr_matrix(np.ones((3, 3))), 2, np.random.default_rng(0)).shape
    (2,)
    """
    strength = np.asarray(overlap.sum(axis=1)).ravel()
    usable = int((strength > 0).sum())
    if n_genes > usable:
        raise UserError(
            f"simulator: n_perturbations={n_genes} needs as many genes of the protein network; "
            f"found {usable} in triangles; ask for at most that many"
        )
    by_strength = np.argsort(-strength, kind="stable")[:usable]
    pool = min(usable, max(1000, 2 * n_genes))
    seeds = np.concatenate([rng.permutation(by_strength[:pool]), by_strength[pool:]])
    taken = strength <= 0
    chosen: list[int] = []
    for seed in seeds:
        if len(chosen) == n_genes:
            break
        if not taken[seed]:
            chosen += _grow(overlap, int(seed), taken, min(MODULE_SIZE, n_genes - len(chosen)))
    return np.array(chosen, dtype=np.int64)


def _grow(overlap: sparse.csr_matrix, node: int, taken: np.ndarray, size: int) -> list[int]:
    """Members of one module, marked in ``taken``; ties go to the lower node number."""
    attraction: dict[int, float] = {}
    members: list[int] = []
    while True:
        members.append(node)
        taken[node] = True
        attraction.pop(node, None)
        if len(members) == size:
            return members
        span = slice(overlap.indptr[node], overlap.indptr[node + 1])
        for other, weight in zip(overlap.indices[span].tolist(), overlap.data[span].tolist(), strict=True):
            if not taken[other]:
                attraction[other] = attraction.get(other, 0.0) + weight
        if not attraction:
            return members
        node = max(attraction, key=lambda other: (attraction[other], -other))


def smooth_field(overlap: sparse.csr_matrix, nodes: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random smooth signal of shape (len(nodes), width), each row of norm ``sqrt(width)``.

    White noise is diffused over the network among ``nodes`` by 30 steps of a random walk with restart probability 0.03,
    centred, and scaled to the sphere, so that hubs and leaves differ in direction only.

    Notes
    -----
    The diffusion is the power iteration of Köhler et al. (2008), Am J Hum Genet 82, 949-958, equation 1.

    Examples
    --------
    >>> ring = sparse.csr_matrix(np.roll(np.eye(5), 1, axis=1) + np.roll(np.eye(5), -1, axis=1))
    >>> field = smooth_field(ring, np.arange(5), width=3, rng=np.random.default_rng(0))
    >>> field.shape, (field**2).sum(axis=1).round(6).tolist()
    ((5, 3), [3.0, 3.0, 3.0, 3.0, 3.0])
    """
    walk = sparse.csr_matrix(overlap[nodes][:, nodes]) + 1e-9 * sparse.identity(len(nodes), format="csr")
    walk = sparse.diags(1.0 / np.asarray(walk.sum(axis=1)).ravel()) @ walk
    start = rng.standard_normal((len(nodes), width))
    field = start
    for _ in range(30):
        field = 0.97 * (walk @ field) + 0.03 * start
    field = field - field.mean(axis=0)
    return field * np.sqrt(width) / np.maximum(np.linalg.norm(field, axis=1, keepdims=True), 1e-12)
