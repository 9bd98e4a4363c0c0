"""Peers of the neighbour search, as their users call them: build, search 1,000 queries, one thread."""

from __future__ import annotations

import faiss
import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

torch.set_num_threads(1)
faiss.omp_set_num_threads(1)
TILE = 16384


def faiss_flat(X: np.ndarray, Q: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """``IndexFlatL2``: add all rows, search all queries."""
    index = faiss.IndexFlatL2(X.shape[1])
    index.add(X)
    return {"index": index.search(Q, k)[1]}


def torch_whole(X: np.ndarray, Q: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """``addmm`` of all scores at once, then ``topk``."""
    rows, queries = torch.from_numpy(X), torch.from_numpy(Q)
    score = torch.addmm(rows.square().sum(1), queries, rows.T, alpha=-2)
    return {"index": torch.topk(score, k, largest=False).indices.numpy()}


def torch_tiled(X: np.ndarray, Q: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """``addmm`` and ``topk`` by tiles of 16,384 rows, running lists merged."""
    rows, queries = torch.from_numpy(X), torch.from_numpy(Q)
    best: torch.Tensor | None = None
    near: torch.Tensor | None = None
    for start in range(0, len(rows), TILE):
        part = rows[start : start + TILE]
        score = torch.addmm(part.square().sum(1), queries, part.T, alpha=-2)
        found, at = torch.topk(score, min(k, len(part)), largest=False)
        best, near = (found, at) if best is None else (torch.cat([best, found], 1), torch.cat([near, at + start], 1))
        if best.shape[1] > k:
            best, chosen = torch.topk(best, k, largest=False)
            near = near.gather(1, chosen)
    return {"index": near.numpy()}


def sklearn_brute(X: np.ndarray, Q: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """``NearestNeighbors(algorithm="brute")``."""
    return {"index": NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X).kneighbors(Q)[1]}
