"""Inner products of a screen's effects over genes, made once: shared by all that is linear in the effects.

Every embedding, head, fold and hyper-parameter of smoothers is a few sums over these numbers. A pair of contexts is an
artefact of its own, whose arithmetic depends on the screen alone; large ones are kept on disk and memory-mapped.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from embbench.cache.home import home
from embbench.cache.keys import REVISION, digest
from embbench.cache.store import lock, map_h5, read_whole, write_h5
from embbench.core import PerturbationDataset
from embbench.grid.threads import one_thread
from embbench.numerics.linalg import gram

ROWS = 10_000  # with more rows in the contexts of a fit the matrix (0.8 GB) costs more than passes over genes
KEPT = 5e8  # multiplications from which on a matrix is worth a file (about 20 ms)
LARGE = 1 << 22  # and numbers from which on it is, whatever it costs (32 MB)


class Gram:
    """``Y Y'`` of the effects of a screen, and of its truths with its effects, in float64, for rows that miss no gene.

    Parameters
    ----------
    data : the screen, with its digest.
    """

    def __init__(self, data: PerturbationDataset) -> None:
        self.data = data
        self.totals = data.effects.sum(axis=1, dtype=np.float64)
        codes = data.context_codes
        self.members = [np.flatnonzero(codes == code) for code in range(len(data.contexts))]
        self.place = np.zeros(len(codes), dtype=np.int64)
        for rows in self.members:
            self.place[rows] = np.arange(len(rows))
        self._pairs: dict[tuple[int, int, str], np.ndarray] = {}

    def among(self, rows: np.ndarray) -> np.ndarray:
        """Inner products (n, n), float64, of the effects of some rows of the screen."""
        return self._gather(rows, rows, of="effects")

    def against_truth(self, rows: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Inner products (m, n), float64, of what rows are judged by with the effects of other rows."""
        return self._gather(rows, train, of="effects" if self.data.truth is self.data.effects else "truth")

    def _gather(self, rows: np.ndarray, others: np.ndarray, of: str) -> np.ndarray:
        sides = [(part, self.data.context_codes[part]) for part in (rows, others)]
        left, right = ([(c, np.flatnonzero(codes == c)) for c in np.unique(codes).tolist()] for _, codes in sides)
        out = np.empty((len(rows), len(others)))
        for a, i in left:
            for b, j in right:
                block = self._pair(a, b, of)[self.place[rows[i]]][:, self.place[others[j]]]
                if len(left) == len(right) == 1:
                    return block
                out[np.ix_(i, j)] = block
        return out

    def _pair(self, a: int, b: int, of: str) -> np.ndarray:
        if of == "effects" and a > b:
            return self._pair(b, a, of).T
        if (a, b, of) not in self._pairs:
            self._pairs[a, b, of] = self._kept(a, b, of)
        return self._pairs[a, b, of]

    def _kept(self, a: int, b: int, of: str) -> np.ndarray:
        left, right = self.members[a], self.members[b]
        size = len(left) * len(right)
        if self.data.meta.get("audited") or (size * self.data.effects.shape[1] < KEPT and size < LARGE):
            return self._compute(left, right, of)
        facts = {"dataset": self.data.meta["digest"], "contexts": [a, b], "of": of, "revision": REVISION}
        path = home("cache", "gram", f"{digest(facts)}.h5")
        found = read_whole(path, "gram", map_h5)
        if found is None:
            with lock(path):
                found = read_whole(path, "gram", map_h5)
                if found is None:
                    write_h5(path, "gram", {"matrix": self._compute(left, right, of)}, facts, {"spec": "gram"})
                    found = map_h5(path, "gram")
        return found[0]["matrix"]

    def _compute(self, left: np.ndarray, right: np.ndarray, of: str) -> np.ndarray:
        rows, effects = (self.data.truth if of == "truth" else self.data.effects), self.data.effects
        with one_thread():
            return gram(rows[left], None if of == "effects" and left is right else effects[right])


@dataclass(frozen=True)
class _Screen:
    """A screen, equal to another one when their digests are."""

    digest: str
    data: PerturbationDataset = field(compare=False)


@functools.lru_cache(maxsize=4)
def _gram(screen: _Screen) -> Gram:
    return Gram(screen.data)


def gram_of(data: PerturbationDataset) -> Gram:
    """The Gram matrix of a screen, once per process; an audit's screen has noise under the digest of the true one."""
    return Gram(data) if data.meta.get("audited") else _gram(_Screen(data.meta["digest"], data))


def affordable(data: PerturbationDataset, rows: np.ndarray) -> bool:
    """Whether the contexts of ``rows``, whose inner products are made as a whole, hold few enough rows."""
    codes = data.context_codes
    return int(np.isin(codes, np.unique(codes[rows])).sum()) <= ROWS
