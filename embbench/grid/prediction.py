"""What one run predicts: values or smoother weights, from one or several fits and the fallback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from embbench.core import Sources
from embbench.grid.select import Choice
from embbench.numerics.smoothers import DENSE


@dataclass(frozen=True)
class Prediction:
    """Predictions of the query rows of one run.

    Parameters
    ----------
    values : (m, g) float32 effects, (m, g, 3) probabilities or (m, s, g) cells; None where ``weights`` says it all.
    weights : (m, n_train) CSR float64 or None: ``weights @ effects[train]`` is the prediction.
    covered : (m,) bool; False rows took the fallback.
    choices : one per fit (per context, or one).
    dim : features used (largest over fits).
    cpu_seconds : process CPU time.
    query_controls : an embedding read unperturbed cells of contexts without training rows.
    sources : of a population, the control cell that each of its cells was made of.
    """

    values: np.ndarray | None
    weights: sparse.csr_matrix | None
    covered: np.ndarray
    choices: dict[str, Choice] = field(default_factory=dict)
    dim: int = 0
    cpu_seconds: float = 0.0
    query_controls: bool = False
    sources: Sources | None = None


@dataclass(frozen=True)
class Part:
    """The prediction of one fit: its training rows, the positions of its rows in the query, and its name."""

    train: np.ndarray
    query: np.ndarray
    label: str
    prediction: Prediction


ROWS, GENES = 512, 512  # of a block of a product: its float64 copies stay near the processor


def product(
    weights: sparse.csr_matrix, effects: np.ndarray, train: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """``weights`` (m, n) times the rows ``train`` (n,) of effects (rows, g), summed in float64: (m, g) float32.

    Rows of one of ``groups`` (m,) are taken together: those of a context mostly use the training rows of that context.

    Examples
    --------
    >>> product(sparse.csr_matrix([[0.5, 0.5]]), np.array([[1.0], [7.0], [2.0]], np.float32), np.array([0, 2])).tolist()
    [[1.5]]
    """
    out = np.zeros((weights.shape[0], effects.shape[1]), dtype=np.float32)
    groups = np.zeros(len(out), dtype=np.int64) if groups is None else groups
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    for rows in (part for group in np.split(order, cuts) for part in _pieces(group)):
        some = weights[rows]
        used = np.unique(some.indices)
        some = some[:, used]
        part = some.toarray() if some.nnz > DENSE * some.shape[0] * len(used) else some
        for first in range(0, effects.shape[1], GENES):
            genes = slice(first, first + GENES)
            out[rows, genes] = part @ effects[train[used], genes].astype(np.float64)
    return out


def _pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    yield from (rows[start : start + ROWS] for start in range(0, len(rows), ROWS))


def mix(
    done: Prediction, fallback: Prediction, where: np.ndarray, fit: np.ndarray, effects: np.ndarray, train: np.ndarray
) -> Prediction:
    """Covered rows (positions ``where``) from the head, fitted on positions ``fit`` of the training rows ``train`` of
    the screen's ``effects``, the rest from the fallback.
    """
    m = len(fallback.covered)
    has = np.zeros(m, dtype=bool)
    has[where] = True
    served = has.copy()
    served[where] = done.covered  # a head's own fallback is no prediction of the row either
    if done.weights is not None and fallback.weights is not None:
        if len(where) == m and len(fit) == len(train):
            return Prediction(None, done.weights, served)
        place = sparse.csr_matrix((np.ones(len(fit)), (np.arange(len(fit)), fit)), shape=(len(fit), len(train)))
        keep = sparse.diags((~has).astype(np.float64)) @ fallback.weights
        put = sparse.csr_matrix((np.ones(len(where)), (where, np.arange(len(where)))), shape=(m, len(where)))
        return Prediction(None, sparse.csr_matrix(keep + put @ done.weights @ place), served)
    base = fallback.values if fallback.values is not None else product(fallback.weights, effects, train)
    base[where] = done.values if done.values is not None else product(done.weights, effects, train[fit])
    if fallback.sources is None or done.sources is None:
        return Prediction(base, None, served)
    sources = fallback.sources
    sources.context[where], sources.position[where] = done.sources.context, done.sources.position
    return Prediction(base, None, served, sources=sources)


def merge(parts: Sequence[Part], m: int, train: np.ndarray, effects: np.ndarray) -> Prediction:
    """One prediction of all ``m`` query rows; as weights over ``train`` (n,) where every part has weights.

    Parameters
    ----------
    parts : the fits; each query row belongs to one.
    m, train : number of query rows, and training rows of the run.
    effects : (rows of the screen, g), to turn weights of single parts into values.
    """
    covered_rows = np.zeros(m, dtype=bool)
    choices: dict[str, Choice] = {}
    dim = 0
    for part in parts:
        covered_rows[part.query] = part.prediction.covered
        choices |= part.prediction.choices
        dim = max(dim, part.prediction.dim)
    if len(parts) == 1 and len(parts[0].train) == len(train) and len(parts[0].query) == m:
        return replace(parts[0].prediction, choices=choices, dim=dim)
    smoothed = [part.prediction.weights for part in parts if part.prediction.weights is not None]
    if len(smoothed) == len(parts):
        position = np.zeros(train.max(initial=0) + 1, dtype=np.int64)
        position[train] = np.arange(len(train))
        blocks = [
            sparse.csr_matrix((w.data, position[part.train][w.indices], w.indptr), shape=(w.shape[0], len(train)))
            for part, w in zip(parts, smoothed, strict=True)
        ]
        order = np.argsort(np.concatenate([part.query for part in parts]))
        weights = sparse.csr_matrix(sparse.vstack(blocks, format="csr")[order])
        weights.sort_indices()
        return Prediction(None, weights, covered_rows, choices, dim)
    dense = [
        p.prediction.values if p.prediction.values is not None else product(p.prediction.weights, effects, p.train)
        for p in parts
    ]
    values = np.zeros((m, *dense[0].shape[1:]), dtype=np.float32)
    for part, value in zip(parts, dense, strict=True):
        values[part.query] = value
    sources = _merged_sources(parts, m)
    return Prediction(values, None, covered_rows, choices, dim, sources=sources)


def _merged_sources(parts: Sequence[Part], m: int) -> Sources | None:
    known = [(part.query, part.prediction.sources) for part in parts if part.prediction.sources is not None]
    if len(known) < len(parts):
        return None
    out = Sources.nowhere(m, known[0][1].context.shape[1])
    for query, found in known:
        out.context[query], out.position[query] = found.context, found.position
    return out
