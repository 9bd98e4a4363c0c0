"""Candidates from blocks of a matrix product: a compiled pass keeps every row that rounding could let into the k best.

Each score carries a bound of its error, so a row has a lowest and a highest possible score. The k-th smallest of the
highest is a limit; a row whose lowest is above it is none of the k nearest, whatever the rounding. What is kept is
ranked in float64, so the answer is exact without a second search; only ties beyond the room leave a query open.

Bound of a rounded inner product: Higham (2002), Accuracy and Stability of Numerical Algorithms, equation 3.5, with the
unit roundoff 2^-24 of float32 sums and, for factors and results in bfloat16, 2^-8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from embbench.heads._search_frame import Frame
from embbench.numerics.jit import compiled

FEW, MANY = 512, 1024  # queries of a chunk on few and on many rows: scores stay in the cache, or tiles are read once
TILE = 1024  # rows of a tile
HELD = 1 << 22  # features of rows that are few, and whose tiles are kept from chunk to chunk (16 MB)


class Tile:
    """Rows of a frame with what their scores need: numbers ``first`` ..., squared lengths, the greatest length."""

    def __init__(self, rows: np.ndarray, first: int, precision: str) -> None:
        self.rows, self.first = rows, first
        self.squared = np.einsum("ij,ij->i", rows, rows)
        self.reach = np.sqrt(float(self.squared.max(initial=0.0)) * 1.001)
        self.low, lost = _bf16(rows, precision)
        self.lost = float(lost.max(initial=0.0))


class Block:
    """Scores of tiles against a chunk of queries, ``offset - factor * dot``, and the bound of their error."""

    def __init__(self, queries: np.ndarray, metric: str, precision: str) -> None:
        self.queries, self.l2 = queries, metric == "l2"
        self.factor = np.float32(2.0 if self.l2 else 1.0)
        self.reach = np.sqrt(np.einsum("ij,ij->i", queries, queries).astype(np.float64) * 1.001)
        self.low, self.lost = _bf16(queries, precision)
        self.share = np.float32(0.0)  # error as a share of the product itself: bfloat16 products are rounded again
        if precision == "bf16":
            self.share = self.factor * np.float32(1.01 * 2.0**-8)

    def scores(self, tile: Tile, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inner products (q, t) into ``out``; offsets (t,) and error bounds (q,), float32."""
        dim = tile.rows.shape[1]
        product = float(self.factor) * tile.reach * self.reach
        error = (dim + 20) * 2.0**-24 * (self.l2 * tile.reach**2 + product)
        if self.low is None:
            np.matmul(self.queries, tile.rows.T, out=out)
        else:
            import torch

            torch.from_numpy(out).copy_(self.low @ tile.low.T)
            error += float(self.factor) * (tile.lost * (self.reach + self.lost) + tile.reach * self.lost)
        # The last term covers underflow: the frame keeps lengths between 1e-6 and 1e6.
        error = 1.01 * error + dim * 1e-30
        return tile.squared if self.l2 else np.zeros_like(tile.squared), error.astype(np.float32)


def _bf16(rows: np.ndarray, precision: str) -> tuple[Any, np.ndarray]:
    """Rows (m, d) as a bfloat16 tensor, and the length (m,) of what each of them lost; None for ``float32``."""
    if precision == "float32":
        return None, np.zeros(len(rows))
    import torch

    wide = torch.from_numpy(rows)
    low = wide.bfloat16()
    lost = (wide - low.float()).numpy()
    return low, np.sqrt(np.einsum("ij,ij->i", lost, lost).astype(np.float64) * 1.001)


class Kept:
    """Room for the candidates of a chunk: lowest and highest score and row number of each, made once per search."""

    def __init__(self, chunk: int, n: int, k: int) -> None:
        self.n, self.k, self.room = n, k, min(n, 3 * k + 64)
        self.low, self.high = (np.empty((chunk, self.room), np.float32) for _ in range(2))
        self.row = np.empty((chunk, self.room), np.int64)
        self.count = np.empty(chunk, np.int64)
        self.dot, self.scratch = (np.empty(chunk * min(n, TILE), np.float32) for _ in range(2))

    def near(self, limit: np.ndarray) -> np.ndarray:
        """Rows (q, m) that are left under the limits, ascending, n after the last; a query without room has none."""
        q = len(limit)
        left = _filter(self.low[:q], self.row[:q], self.count[:q], limit, self.n)
        return self.row[:q, : left.max(initial=0)]

    def tighten(self, q: int) -> np.ndarray:
        """Limits (q,): the k-th smallest highest score of what is kept."""
        _pad(self.high[:q], self.count[:q])
        return np.partition(self.high[:q], self.k - 1, axis=1)[:, self.k - 1]


def candidates(
    X: np.ndarray, Q: np.ndarray, k: int, metric: str, precision: str, frame: Frame
) -> Iterator[tuple[int, np.ndarray]]:
    """First query and row numbers (q, m) of each chunk of queries: all rows that can be among their k nearest.

    Row numbers ascend, n fills up. A query for which more rows tie than there is room has fewer than k. The array is
    used again for the next chunk.
    """
    few = X.size <= HELD
    chunk = min(len(Q), FEW if few else MANY)
    held = list(_tiles(X, precision, frame)) if few else None
    kept = Kept(chunk, len(X), k)
    for start in range(0, len(Q), chunk):
        block = Block(frame(Q[start : start + chunk]), metric, precision)
        yield start, _chunk(held or _tiles(X, precision, frame), block, kept)


def _tiles(X: np.ndarray, precision: str, frame: Frame) -> Iterator[Tile]:
    for start in range(0, len(X), TILE):
        yield Tile(frame(X[start : start + TILE]), start, precision)


def _chunk(tiles: Any, block: Block, kept: Kept) -> np.ndarray:
    """Candidates of one chunk of queries from all tiles."""
    q = len(block.queries)
    kept.count[:q] = 0
    limit = np.full(q, np.inf, np.float32)
    parts = [part[:q] for part in (kept.low, kept.high, kept.row, kept.count)]
    due = 2  # limits are tightened after 2, 4, 8, ... tiles: each time about k rows have come in
    for number, tile in enumerate(tiles):
        dot = kept.dot[: q * len(tile.rows)].reshape(q, -1)
        offset, error = block.scores(tile, dot)
        if number == 0 and len(tile.rows) >= kept.k:
            limit = _first_limit(dot, offset, block, kept) + error
        _keep(dot, offset, block.factor, block.share, error, limit, tile.first, kept.k, *parts)
        if number + 1 == due and kept.room < kept.n:
            limit, due = np.minimum(limit, kept.tighten(q)), 2 * due
    return kept.near(limit if kept.n <= TILE else np.minimum(limit, kept.tighten(q)))


def _first_limit(dot: np.ndarray, offset: np.ndarray, block: Block, kept: Kept) -> np.ndarray:
    """k-th smallest score of the first tile, at its highest but for the common error."""
    high = kept.scratch[: dot.size].reshape(dot.shape)
    np.multiply(dot, -block.factor, out=high)
    high += offset
    if block.share:
        high += block.share * np.abs(dot)
    if kept.k == 1:
        return high.min(axis=1)
    high.partition(kept.k - 1, axis=1)
    return high[:, kept.k - 1].copy()


@compiled
def _pad(high, count):  # type: ignore[no-untyped-def]
    for i in range(len(high)):
        high[i, max(0, count[i]) :] = np.inf


@compiled
def _filter(low, row, count, limit, n):  # type: ignore[no-untyped-def]
    left = np.zeros(len(low), np.int64)
    for i in range(len(low)):
        at = 0
        for j in range(max(0, count[i])):
            if low[i, j] <= limit[i]:
                row[i, at] = row[i, j]
                at += 1
        row[i, at:] = n
        left[i] = at
    return left


@compiled
def _keep(dot, offset, factor, share, error, limit, first, k, low, high, row, count):  # type: ignore[no-untyped-def]
    """Append the rows of a tile whose lowest score is within the limit; tighten the limit when the room is full."""
    room, t = low.shape[1], dot.shape[1]
    hit = np.empty(64, np.int64)
    for i in range(len(dot)):
        at, most = count[i], limit[i]
        for start in range(0, t, 64):
            if at < 0:
                break
            if start + 64 <= t:
                # A loop of known length without a way out is vectorised; most blocks hold nothing and end here.
                d, o = dot[i, start : start + 64], offset[start : start + 64]
                bound = most + error[i]
                found = False
                for j in range(64):
                    found |= o[j] - factor * d[j] - share * abs(d[j]) <= bound
                if not found:
                    continue
            hits = 0
            for j in range(start, min(start + 64, t)):
                hit[hits] = j  # kept only if the count moves on: cheaper than a branch that is hard to foresee
                hits += offset[j] - factor * dot[i, j] - share * abs(dot[i, j]) <= most + error[i]
            for j in hit[:hits]:
                if at == room:
                    most = min(most, np.partition(high[i], k - 1)[k - 1])
                    at = 0
                    for p in range(room):
                        if low[i, p] <= most:
                            low[i, at], high[i, at], row[i, at] = low[i, p], high[i, p], row[i, p]
                            at += 1
                    if at > room - room // 4:
                        at = -1
                        break
                score, slack = offset[j] - factor * dot[i, j], share * abs(dot[i, j]) + error[i]
                low[i, at], high[i, at], row[i, at] = score - slack, score + slack, first + j
                at += 1
        count[i], limit[i] = at, most
