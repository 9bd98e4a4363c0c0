"""Proposals of neighbours by a search library, faiss or torch, with a bound on the rounding of its scores.

Scores are squared Euclidean distances (l2) or minus the inner products (the others) of rows in a `Frame`. A query is
settled when the float64 distance of its k-th candidate lies below everything that was not proposed, whatever the
rounding; others get more proposals.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from embbench.heads._search_rank import best

SLACK = 16  # proposals beyond k, so that rounding rarely leaves the boundary open
LARGEST = 2048  # most proposals per query: the limit of faiss on GPUs
BLOCK = 1 << 24  # scores that torch holds at a time on a CPU (64 MB), and the bound on a GPU whose memory is unknown
INDEX = 1 << 28  # float32 values of rows that a faiss index on a GPU holds at a time (1 GB)


def settle(
    X: Any, Q: Any, k: int, metric: str, searcher: Searcher, which: np.ndarray, index: np.ndarray, distance: np.ndarray
) -> np.ndarray:
    """Neighbours of the queries ``which`` into ``index`` and ``distance``; the queries that stay open, ascending."""
    proposals = k + SLACK
    while len(which) and proposals <= min(len(X) - 1, LARGEST):
        near, beyond = searcher.propose(which, proposals)
        found = best(X, Q[which], near, k, metric)
        settled = searcher.key(found[1][:, -1]) < beyond
        index[which[settled]], distance[which[settled]] = found[0][settled], found[1][settled]
        which = which[~settled]
        proposals *= 4
    return which


class Searcher:
    """One library over the rows of a frame.

    Parameters
    ----------
    X, Q : arrays, or tensors on one device, of shapes (n, d) and (q, d).
    metric : ``l2``, ``cosine`` or ``inner_product``.
    name, library : ``faiss-cpu``, ``faiss-gpu``, ``torch`` or ``torch-cuda`` and its module.
    frame : rows in float32, as the library sees them.
    """

    def __init__(self, X: Any, Q: Any, metric: str, name: str, library: Any, frame: Any) -> None:
        self.X, self.metric, self.name, self.library, self.frame = X, metric, name, library, frame
        self.queries = frame(Q)
        self.reach = _lengths(self.queries)
        self.longest = 0.0
        # Unit roundoff of the factors: GPUs may multiply in TF32.
        self.factors = 2.0**-24 if name in ("faiss-cpu", "torch") else 2.0**-11
        self.index: Any = None

    def key(self, distance: np.ndarray) -> np.ndarray:
        """Exact distances on the scale of the library's scores, same shape."""
        if self.metric == "l2":
            return np.square(distance / self.frame.scale)
        return (distance - 1.0 if self.metric == "cosine" else distance) / self.frame.scale**2

    def propose(self, which: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """For the queries ``which``: ascending row numbers of shape (len(which), count), and a score that no other row
        goes below.
        """
        search = self._faiss if self.name.startswith("faiss") else self._torch
        score, near = search(self.queries[which], count)
        dim = self.X.shape[1]
        error = ((dim + 20) * 2.0**-24 + 4 * self.factors) * (self.longest + self.reach[which]) ** 2
        beyond = score.max(axis=1).astype(np.float64) - 2.02 * error - dim * 1e-30
        return np.sort(near, axis=1), beyond

    def _faiss(self, queries: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        step = len(self.X) if self.name == "faiss-cpu" else max(count, INDEX // self.X.shape[1])
        kept: tuple[np.ndarray, np.ndarray] | None = None
        for start in range(0, len(self.X), step):
            index = self.index if self.index is not None else self._faiss_index(self.X[start : start + step])
            if step >= len(self.X):
                self.index = index  # one index serves later calls; of several only one is held at a time
            score, near = index.search(queries, min(count, index.ntotal))
            score = score if self.metric == "l2" else -score
            kept = _merge(kept, score, near + start, count)
        return kept or (np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))

    def _faiss_index(self, X: np.ndarray) -> Any:
        kind = self.library.IndexFlatL2 if self.metric == "l2" else self.library.IndexFlatIP
        index = kind(X.shape[1])
        if self.name == "faiss-gpu":
            index = self.library.index_cpu_to_gpu(_gpu_resources(), 0, index)
        rows = self.frame(X)
        self.longest = max(self.longest, _lengths(rows).max())
        index.add(rows)
        return index

    def _torch(self, queries: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        torch = self.library
        device = self.queries.device if isinstance(self.queries, torch.Tensor) else _device(self.name)
        queries = torch.as_tensor(queries, device=device)
        room = _room(torch, device)
        chunk = max(1, min(len(queries), room // (4 * count)))
        tile = min(len(self.X), max(count, room // chunk))
        parts = [queries[start : start + chunk] for start in range(0, len(queries), chunk)]
        kept: list[Any] = [None] * len(parts)
        for start in range(0, len(self.X), tile):
            rows = torch.as_tensor(self.frame(self.X[start : start + tile]), device=device)
            squared = rows.square().sum(dim=1)
            self.longest = max(self.longest, float(squared.max().sqrt()) * 1.001)
            for i, part in enumerate(parts):
                score = part @ rows.T
                if self.metric == "l2":
                    score = score.mul_(-2).add_(squared).add_(part.square().sum(dim=1, keepdim=True))
                else:
                    score = score.neg_()
                found, near = torch.topk(score, min(count, len(rows)), dim=1, largest=False)
                kept[i] = _merge(kept[i], found.cpu().numpy(), near.cpu().numpy() + start, count)
        return np.concatenate([score for score, _ in kept]), np.concatenate([near for _, near in kept])


def _merge(
    kept: tuple[np.ndarray, np.ndarray] | None, score: np.ndarray, near: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` smallest scores of two lists per query, and their rows."""
    if kept is None:
        return score, near
    score, near = np.concatenate([kept[0], score], axis=1), np.concatenate([kept[1], near], axis=1)
    order = np.argpartition(score, min(count, score.shape[1]) - 1, axis=1)[:, :count]
    return np.take_along_axis(score, order, axis=1), np.take_along_axis(near, order, axis=1)


def _lengths(rows: Any) -> np.ndarray:
    """Lengths of float32 rows (m, d), rounded up, as a float64 array in main memory."""
    squared = (
        np.einsum("ij,ij->i", rows, rows) if isinstance(rows, np.ndarray) else rows.square().sum(dim=1).cpu().numpy()
    )
    return np.sqrt(squared.astype(np.float64)) * 1.001


def _device(name: str) -> str:
    return "cuda" if name == "torch-cuda" else "cpu"


def _room(torch: Any, device: Any) -> int:
    """Scores that a block may hold: a fixed bound in main memory, an eighth of what is free on a GPU."""
    if torch.device(device).type != "cuda":
        return BLOCK
    return max(BLOCK // 16, torch.cuda.mem_get_info(device)[0] // (8 * 4))


@functools.cache
def _gpu_resources() -> Any:
    import faiss

    return faiss.StandardGpuResources()
