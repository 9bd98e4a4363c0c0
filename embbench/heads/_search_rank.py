"""Float64 distances of chosen pairs, and the k best of them by (distance, row number).

The distance of a pair is one sum in a fixed order: 64 lanes (feature j in lane j mod 64, counted from the start of the
last whole block), the lanes then added pairwise by halves. The order names nothing but the two rows, so equal rows tie
exactly, batches do not matter, and the compiled, the numpy and the torch form give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from embbench.numerics.jit import compiled, has_numba

LANES = 64
CACHE = 1 << 18  # features of a tile of rows that stays in the cache (1 MB in float32)
BLOCK = 1 << 20  # float64 values of a working block of the array form (8 MB)
UNIT = 1 << 24  # float64 values of rows on the unit sphere that are held at a time (128 MB)


def unit_rows(rows: Any) -> np.ndarray:
    """Rows (m, d) on the unit sphere in float64; zero rows stay zero."""
    wide = np.asarray(rows, dtype=np.float64)
    # Dividing by the largest entry first keeps the squares in range; it is exact up to the last bit.
    largest = np.abs(wide).max(axis=1, keepdims=True, initial=0.0)
    wide = wide / np.where(largest > 0, largest, 1.0)
    norm = np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
    return wide / np.where(norm > 0, norm, 1.0)


def best(X: Any, Q: Any, near: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The best k of the candidates ``near`` (q, m) of each query and their distances, nearest first, both (q, k).

    Row numbers ascend along ``near``; n, the number of rows of ``X``, stands for none (at the end only). A query with
    fewer than k candidates gets n and infinity in the places that are left.
    """
    distance = distances(X, Q, near, metric)
    order = np.argsort(distance, axis=1)
    ranked = np.take_along_axis(distance, order, axis=1)
    head = ranked[:, : k + 1]
    # The fast sort leaves equal distances in any order: only queries that have some are sorted again, stably.
    tied = np.flatnonzero(np.equal(head[:, 1:], head[:, :-1]).any(axis=1))
    order[tied] = np.argsort(distance[tied], axis=1, kind="stable")
    order = order[:, :k]
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(distance, order, axis=1)


def distances(X: Any, Q: Any, near: np.ndarray, metric: str) -> np.ndarray:
    """Float64 distances (q, m) of the pairs (query, candidate); infinity where ``near`` names no row.

    ``X`` and ``Q`` are both arrays or both tensors (then computed on their device), of shapes (n, d) and (q, d).
    """
    n = len(X)
    out = np.full(near.shape, np.inf)
    if metric != "cosine" and isinstance(X, np.ndarray):
        _sums(X, Q, near, out, inner=metric == "inner_product")
    else:
        step = max(1, UNIT // max(1, near.shape[1] * X.shape[1]))
        for start in range(0, len(near), step):
            part = near[start : start + step]
            used = np.unique(part[part < n])
            rows, queries = _host(X, used, metric), _host(Q, slice(start, start + step), metric)
            place = np.where(part < n, np.searchsorted(used, part), len(used))
            _sums(rows, queries, place, out[start : start + step], inner=metric == "inner_product")
            if metric == "cosine":
                zero = np.append(np.logical_not(rows.any(axis=1)), False)
                _cosine(out[start : start + step], zero[place] | np.logical_not(queries.any(axis=1, keepdims=True)))
                out[start : start + step][part >= n] = np.inf
    return np.sqrt(out, out=out) if metric == "l2" else out


def _host(X: Any, which: Any, metric: str) -> np.ndarray:
    """Rows ``which`` of an array or a tensor in main memory, on the unit sphere for cosine."""
    if not isinstance(X, np.ndarray):
        import torch

        chosen = torch.from_numpy(which).to(X.device) if isinstance(which, np.ndarray) else which
        return _host(X[chosen].cpu().numpy(), slice(None), metric)
    return unit_rows(X[which]) if metric == "cosine" else X[which]


def _cosine(squared: np.ndarray, undefined: np.ndarray) -> None:
    """1 - cosine from squared distances on the unit sphere, in place; 1 where a vector is zero."""
    squared /= 2
    squared[undefined] = 1.0


def _sums(X: np.ndarray, Q: np.ndarray, near: np.ndarray, out: np.ndarray, *, inner: bool) -> None:
    """Squared distances, or minus the inner products, of the pairs into ``out`` (q, m)."""
    if has_numba():
        # Contiguous: another layout would be another compilation.
        _compiled_sums(X, Q, np.ascontiguousarray(near), inner, max(1, CACHE // max(1, X.shape[1])), out)
        return
    n = len(X)
    step = max(1, BLOCK // max(1, near.shape[1] * X.shape[1]))
    for start in range(0, len(near), step):
        part = near[start : start + step]
        rows = X[np.minimum(part, n - 1)].astype(np.float64)
        sums = lane_sums(rows, Q[start : start + step, None, :].astype(np.float64), inner=inner)
        out[start : start + step] = np.where(part < n, sums, np.inf)


def lane_sums(rows: np.ndarray, queries: np.ndarray, *, inner: bool) -> np.ndarray:
    """Sums over the last axis of (rows - queries)^2, or of -rows * queries, float64, in the stated order."""
    terms = -(rows * queries) if inner else np.square(rows - queries)
    whole = terms.shape[-1] // LANES * LANES
    lanes = np.zeros((*terms.shape[:-1], LANES))
    lanes[..., : terms.shape[-1] - whole] = terms[..., whole:]
    for start in range(0, whole, LANES):
        lanes += terms[..., start : start + LANES]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


@compiled
def _compiled_sums(X, Q, near, inner, tile, out):  # type: ignore[no-untyped-def]
    """`lane_sums` of the pairs, tile by tile of rows, so that rows are read from memory once."""
    n, d = X.shape
    whole = d // 64 * 64
    rest = d - whole
    lanes = np.zeros(64)
    at = np.zeros(len(Q), np.int64)
    for stop in range(tile, n + tile, tile):
        for i in range(len(Q)):
            p = at[i]
            query = Q[i]
            while p < near.shape[1] and near[i, p] < min(stop, n):
                row = X[near[i, p]]
                lanes[rest:] = 0.0
                x, y = row[whole:], query[whole:]
                if inner:
                    for j in range(rest):
                        lanes[j] = -(np.float64(x[j]) * np.float64(y[j]))
                else:
                    for j in range(rest):
                        gap = np.float64(x[j]) - np.float64(y[j])
                        lanes[j] = gap * gap
                for start in range(0, whole, 64):
                    # Slices of a known length: without them the loops below are not vectorised.
                    x, y = row[start : start + 64], query[start : start + 64]
                    if inner:
                        for j in range(64):
                            lanes[j] -= np.float64(x[j]) * np.float64(y[j])
                    else:
                        for j in range(64):
                            gap = np.float64(x[j]) - np.float64(y[j])
                            lanes[j] += gap * gap
                half = 32
                while half > 0:
                    for j in range(half):
                        lanes[j] += lanes[j + half]
                    half //= 2
                out[i, p] = lanes[0]
                p += 1
            at[i] = p
