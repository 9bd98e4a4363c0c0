"""Exact nearest neighbours: faiss or torch propose, float64 decides, equal distances go to the smaller row number."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

METRICS = ("l2", "cosine", "inner_product")
SLACK = 16  # proposals beyond k, so that rounding rarely leaves the boundary open
BLOCK = 1 << 20  # float64 values of a working block (8 MB), small enough for the cache
LARGEST = 2048  # most proposals per query: the limit of faiss on GPUs


@functools.cache
def _library() -> tuple[str, Any]:
    """Name and module of the search library, loaded once."""
    try:
        import faiss
    except ImportError:
        import torch

        name = "torch-cuda" if torch.cuda.is_available() else "torch"
        warnings.warn(
            f"faiss is not installed: neighbours are searched with {name} (the same neighbours, another speed); "
            "for faiss: pip install faiss-cpu",
            stacklevel=2,
        )
        return name, torch
    return ("faiss-gpu" if faiss.get_num_gpus() > 0 else "faiss-cpu"), faiss


def backend() -> str:
    """The loaded search library: ``faiss-cpu``, ``faiss-gpu``, ``torch-cuda`` or ``torch``."""
    return _library()[0]


def nearest(X: np.ndarray, Q: np.ndarray, k: int, metric: str = "l2") -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of ``X`` (n, d) for each row of ``Q`` (q, d), by (float64 distance, row number).

    The library searches in its own precision and proposes more than k rows. A query is settled when its k-th float64
    distance is below everything left out, whatever the rounding; others get more proposals, and in the end all rows.

    Parameters
    ----------
    X, Q : of shape (n, d) and (q, d), finite.
    k : number of neighbours; more than n means n.
    metric : ``l2`` (Euclidean distance), ``cosine`` (1 - cosine; 1 where a vector is zero) or ``inner_product``
        (minus the inner product).

    Returns
    -------
    index, distance : of shape (q, min(k, n)), int64 and float64, nearest first.

    References
    ----------
    Rounding of a float inner product: Higham (2002), Accuracy and Stability of Numerical Algorithms, equation 3.5.

    Examples
    --------
    >>> index, distance = nearest(np.array([[0.0], [2.0], [-1.0], [1.0]]), np.array([[0.0]]), k=3)
    >>> index.tolist(), distance.tolist()
    ([[0, 2, 3]], [[0.0, 1.0, 1.0]])
    """
    rows, queries = _float64(X, metric), _float64(Q, metric)
    k = min(k, len(rows))
    index, distance = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    open_ = np.arange(len(queries))
    proposals = k + SLACK
    searcher = None
    while len(open_) and proposals <= min(len(rows) - 1, LARGEST) and rows.shape[1]:
        searcher = searcher or _Searcher(rows, queries, metric)
        near, beyond = searcher.propose(open_, proposals)
        found = _rank(rows, queries[open_], near, k, metric)
        settled = searcher.key(found[1][:, -1]) < beyond
        index[open_[settled]], distance[open_[settled]] = found[0][settled], found[1][settled]
        open_ = open_[~settled]
        proposals *= 4
    step = max(1, BLOCK // (len(rows) * max(1, rows.shape[1])))
    for start in range(0, len(open_), step):
        part = open_[start : start + step]
        every = np.broadcast_to(np.arange(len(rows)), (len(part), len(rows)))
        index[part], distance[part] = _rank(rows, queries[part], every, k, metric)
    return index, distance


def _float64(X: np.ndarray, metric: str) -> np.ndarray:
    """Rows in float64, on the unit sphere for cosine (zero rows stay zero)."""
    rows = np.ascontiguousarray(X, dtype=np.float64)
    if metric != "cosine":
        return rows
    # Dividing by the largest entry first keeps the squares in range; it is exact up to the last bit.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(largest > 0, largest, 1.0)
    norm = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return rows / np.where(norm > 0, norm, 1.0)


def _rank(
    rows: np.ndarray, queries: np.ndarray, near: np.ndarray, k: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """The best k of the candidates ``near`` (q, m), whose row numbers ascend, and their distances."""
    distance = _distances(rows, queries, near, metric)
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(distance, order, axis=1)


def _distances(rows: np.ndarray, queries: np.ndarray, near: np.ndarray, metric: str) -> np.ndarray:
    """Float64 distances (q, m); one pair's bits depend on that pair alone, which keeps ties and batches exact."""
    out = np.empty(near.shape)
    step = max(1, BLOCK // (near.shape[1] * max(1, rows.shape[1])))
    for start in range(0, len(queries), step):
        stop = start + step
        part = rows[near[start:stop]]
        if metric == "inner_product":
            part *= queries[start:stop, None, :]
            out[start:stop] = -part.sum(axis=2)
        else:
            part -= queries[start:stop, None, :]
            out[start:stop] = np.square(part, out=part).sum(axis=2)
    if metric == "l2":
        return np.sqrt(out, out=out)
    if metric == "cosine":
        empty = np.logical_not(rows.any(axis=1))
        out /= 2
        out[empty[near] | np.logical_not(queries.any(axis=1, keepdims=True))] = 1.0
    return out


class _Searcher:
    """One library index over the training rows, with a bound on the rounding of its scores.

    Scores are squared Euclidean distances, or minus the inner products for the other metrics, of rows that are centred
    (Euclidean only) and divided by the largest norm, so that single precision can hold them.
    """

    def __init__(self, rows: np.ndarray, queries: np.ndarray, metric: str) -> None:
        self.name, self.library = _library()
        self.metric = metric
        centre = rows.mean(axis=0) if metric == "l2" else 0.0
        rows, queries = rows - centre, queries - centre
        largest = max(np.abs(rows).max(), np.abs(queries).max())
        self.scale = largest * np.sqrt(rows.shape[1]) if 0 < largest < np.inf else 1.0
        self.rows, self.queries = rows / self.scale, queries / self.scale
        dim = rows.shape[1]
        # Unit roundoff of the sums, and of the factors: faiss multiplies in TF32 on GPUs, torch works in float64 here.
        sums, factors = (2.0**-53, 2.0**-53) if self.name.startswith("torch") else (2.0**-24, 2.0**-24)
        factors = 2.0**-11 if self.name == "faiss-gpu" else factors
        reach = np.linalg.norm(self.rows, axis=1).max() + np.linalg.norm(self.queries, axis=1)
        self.error = 2 * ((dim + 16) * sums + 4 * factors) * reach**2 + dim * 1e-37
        self.index: Any = self._index() if self.name.startswith("faiss") else None

    def key(self, distance: np.ndarray) -> np.ndarray:
        """Exact distances on the scale of the library's scores, same shape."""
        if self.metric == "l2":
            return np.square(distance / self.scale)
        return (distance - 1.0 if self.metric == "cosine" else distance) / self.scale**2

    def propose(self, which: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """For the queries ``which``: ascending row numbers of shape (len(which), count), and a score that no other row
        goes below.
        """
        search = self._faiss if self.name.startswith("faiss") else self._torch
        score, near = search(self.queries[which], count)
        return np.sort(near, axis=1), score.max(axis=1) - self.error[which]

    def _index(self) -> Any:
        kind = self.library.IndexFlatL2 if self.metric == "l2" else self.library.IndexFlatIP
        index = kind(self.rows.shape[1])
        if self.name == "faiss-gpu":
            index = self.library.index_cpu_to_gpu(_gpu_resources(), 0, index)
        index.add(self.rows.astype(np.float32))
        return index

    def _faiss(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        score, near = self.index.search(queries.astype(np.float32), count)
        return (score if self.metric == "l2" else -score).astype(np.float64), near

    def _torch(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        torch = self.library
        device = "cuda" if self.name == "torch-cuda" else "cpu"
        rows = torch.from_numpy(self.rows).to(device)
        offset = rows.square().sum(dim=1) if self.metric == "l2" else torch.zeros(len(rows), device=device)
        factor = 2.0 if self.metric == "l2" else 1.0
        scores, nears = [], []
        step = max(1, 16 * BLOCK // len(rows))
        for start in range(0, len(queries), step):
            part = torch.from_numpy(queries[start : start + step]).to(device)
            own = part.square().sum(dim=1, keepdim=True) if self.metric == "l2" else 0.0
            score, near = torch.topk(offset + own - factor * (part @ rows.T), count, dim=1, largest=False)
            scores.append(score.cpu().numpy())
            nears.append(near.cpu().numpy())
        return np.concatenate(scores), np.concatenate(nears)


@functools.cache
def _gpu_resources() -> Any:
    return _library()[1].StandardGpuResources()
