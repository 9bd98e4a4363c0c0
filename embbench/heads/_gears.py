"""Graphs of a GEARS-style network: co-expressed genes, and where a perturbation finds states of training entities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import sparse

from embbench.core import Inputs
from embbench.heads._means import context_mean, indicator
from embbench.heads._neighbours import neighbour_shares
from embbench.heads._search import nearest

CELLS = 4000  # most control cells that co-expression is measured on
STRIP = 512  # genes whose correlations are held at a time
SPARE = 32  # further neighbours asked for, since those that share an entity with the row are left out


def gene_graph(inputs: Inputs, Y: np.ndarray, threshold: float, most: int, seed: int) -> sparse.csr_matrix:
    """Co-expression graph, shape (g, g), CSR float32: normalised as in `propagation`.

    Correlations are taken within contexts (each context's mean removed) over half-A control cells of the training
    contexts, at most 4,000 of them; on screens without cells, over the training effects ``Y`` (n, g).

    Parameters
    ----------
    inputs, Y : training rows.
    threshold : edges need ``|r| > threshold``.
    most : edges from a gene go to at most so many others, the strongest.
    seed : of the choice of cells.

    References
    ----------
    Roohani, Huang and Leskovec (2024), Nature Biotechnology 42:927-935, Methods, gene co-expression knowledge graph.
    """
    if inputs.cells is None:
        return propagation(correlated(_deviations(Y, inputs.context), threshold, most))
    contexts = np.unique(inputs.context)
    rng, share, parts = np.random.default_rng([seed, len(contexts)]), max(2, CELLS // len(contexts)), []
    for code in contexts.tolist():
        cells = inputs.cells.controls(code)
        parts.append(cells[np.sort(rng.permutation(len(cells))[:share])])
    owner = np.repeat(contexts, [len(part) for part in parts])
    return propagation(correlated(_deviations(np.concatenate(parts), owner), threshold, most))


def _deviations(values: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Values (m, g) less the mean of their context."""
    codes, place = np.unique(context, return_inverse=True)
    return np.asarray(values - (context_mean(codes, context) @ values)[place], dtype=np.float32)


def correlated(values: np.ndarray, threshold: float, most: int) -> sparse.csr_matrix:
    """Absolute correlations above a threshold between columns of ``values`` (m, g), the ``most`` largest per column.

    Returns
    -------
    Shape (g, g), CSR float32, symmetric (an edge that either end chose), without diagonal; constant columns have no
    edges.

    Examples
    --------
    >>> correlated(np.array([[0.0, 0.0, 1.0], [1.0, -2.0, 1.0]]), 0.4, 5).toarray().round(3).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    unit = values - values.mean(axis=0)
    size = np.sqrt(np.square(unit, dtype=np.float64).sum(axis=0))
    # Rounding leaves traces in a constant column, which would correlate perfectly.
    moving = size > 1e-6 * (1 + np.abs(values).max(initial=0)) * np.sqrt(max(1, len(values)))
    unit = np.asarray(unit / np.where(moving, size, np.inf), dtype=np.float32)
    g = unit.shape[1]
    most, parts = min(most, max(g - 1, 0)), []
    for start in range(0, g if most else 0, STRIP):
        strip = np.minimum(np.abs(unit[:, start : start + STRIP].T @ unit), 1.0)
        rows = np.arange(len(strip))[:, None]
        strip[rows[:, 0], start + rows[:, 0]] = 0
        top = np.argpartition(-strip, most - 1, axis=1)[:, :most]
        value = strip[rows, top]
        keep = value > threshold
        where = (np.broadcast_to(start + rows, top.shape)[keep], top[keep])
        parts.append(sparse.csr_matrix((value[keep], where), shape=(g, g)))
    chosen = sum(parts, start=sparse.csr_matrix((g, g), dtype=np.float32))
    return sparse.csr_matrix(chosen.maximum(chosen.T), dtype=np.float32)


def propagation(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """``D^-1/2 (A + I) D^-1/2``, float32 CSR, of a symmetric non-negative graph ``A`` (e, e); D: row sums of ``A + I``.

    References
    ----------
    Wu et al. (2019), Simplifying Graph Convolutional Networks, equation 4 and section 2.2.

    Examples
    --------
    >>> propagation(sparse.csr_matrix(np.array([[0.0, 1.0], [1.0, 0.0]]))).toarray().tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    looped = sparse.csr_matrix(graph, dtype=np.float64) + sparse.eye(graph.shape[0], format="csr")
    root = sparse.diags(1.0 / np.sqrt(np.asarray(looped.sum(axis=1)).ravel()))
    return sparse.csr_matrix(root @ looped @ root, dtype=np.float32)


@dataclass(frozen=True)
class Neighbourhood:
    """Which training entities lend a row their state: its own, and those near it.

    With a graph over entities, those near are what k hops of `propagation` reach, summed over the row's entities; a row
    of several entities has the sum of its members' weights. Without a graph they are the entities of the nearest
    training sets by features (softmax weights). Entities of the row itself are never near: a row that training has not
    seen is treated exactly as one whose own state is hidden.

    Parameters
    ----------
    known : shape (e,), bool, entities of training rows.
    near : shape (e, e), CSR, from an entity to training entities, rows summing to 1 or empty; None without a graph.
    sets, features : distinct training entity sets (m, e) and their mean features (m, d).
    k : number of nearest sets.
    """

    known: np.ndarray
    near: sparse.csr_matrix | None
    sets: sparse.csr_matrix
    features: np.ndarray
    k: int

    @classmethod
    def fitted(cls, inputs: Inputs, k: int, hops: int) -> Self:
        """From training rows; their ``graph`` is used where there is one."""
        members = indicator(inputs.entities)
        known = np.asarray(members.sum(axis=0)).ravel() > 0
        place: dict[tuple[int, ...], int] = {}
        keys = [tuple(members.indices[a:b].tolist()) for a, b in zip(members.indptr, members.indptr[1:], strict=False)]
        code = np.array([place.setdefault(tuple(sorted(key)), len(place)) for key in keys])
        counts = np.bincount(code)
        mean = sparse.csr_matrix((1 / counts[code], (code, np.arange(len(code)))), shape=(len(counts), len(code)))
        first = np.unique(code, return_index=True)[1]
        near = None if inputs.graph is None else _reach(inputs.graph, known, hops)
        return cls(known, near, members[first], mean @ inputs.X.astype(np.float64), k)

    def weights(self, inputs: Inputs) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Weights of each row's own entities, and of those near it, both (n, e), CSR float32.

        Raises
        ------
        ValueError
            The rows count other entities than the training rows did.
        """
        members = indicator(inputs.entities)
        if members.shape[1] != len(self.known):
            raise ValueError(
                f"rows must share the entity codes of training: expected {len(self.known)}, got {members.shape[1]}"
            )
        own = members @ sparse.diags(self.known.astype(np.float64))
        near = self._by_features(members, inputs.X) if self.near is None else members @ self.near
        return sparse.csr_matrix(own, dtype=np.float32), sparse.csr_matrix(near, dtype=np.float32)

    def _by_features(self, members: sparse.csr_matrix, X: np.ndarray) -> sparse.csr_matrix:
        if not X.shape[1]:
            return sparse.csr_matrix(members.shape)
        index, distance = nearest(self.features, X, self.k + SPARE)
        rows = np.repeat(np.arange(len(index)), index.shape[1])
        common = (members @ self.sets.T).tocsr()
        shared = np.asarray(common[rows, index.ravel()]).reshape(index.shape) > 0
        order = np.argsort(shared, axis=1, kind="stable")[:, : self.k]
        index, distance, shared = (np.take_along_axis(a, order, axis=1) for a in (index, distance, shared))
        share = _shares(distance, shared)
        starts = np.arange(len(index) + 1) * index.shape[1]
        chosen = sparse.csr_matrix((share.ravel(), index.ravel(), starts), shape=(len(index), self.sets.shape[0]))
        return chosen @ self.sets


def _shares(distance: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Softmax shares (n, k) of neighbours that are not ``shared``; a row of shared ones only has none."""
    raw = neighbour_shares(distance, "softmax") * ~shared
    total = raw.sum(axis=1, keepdims=True)
    return raw / np.where(total > 0, total, 1)


def _reach(graph: sparse.csr_matrix, known: np.ndarray, hops: int) -> sparse.csr_matrix:
    """Weights (e, e) of the known entities that ``hops`` propagations reach from each entity, itself left out."""
    edges = abs(sparse.csr_matrix(graph, dtype=np.float64))
    edges.setdiag(0)
    edges.eliminate_zeros()
    step = propagation(edges / (edges.data.max() if edges.nnz else 1.0)).astype(np.float64)
    reach = step
    for _ in range(hops - 1):
        reach = reach @ step
    reach = sparse.csr_matrix(reach @ sparse.diags(known.astype(np.float64)))
    reach.setdiag(0)
    reach.eliminate_zeros()
    total = np.asarray(reach.sum(axis=1)).ravel()
    return sparse.csr_matrix(sparse.diags(1 / np.where(total > 0, total, 1)) @ reach)
