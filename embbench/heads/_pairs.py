"""Training pairs of population heads: start and end points in a latent space, drawn anew every epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from embbench.heads._coupling import couple, matched_controls
from embbench.heads._latent import Material


@dataclass(frozen=True)
class Drawn:
    """Pairs of an epoch: start and end points (p, k), float32, and the training row (p,) each belongs to."""

    start: np.ndarray
    end: np.ndarray
    row: np.ndarray


class Pairs(Protocol):
    """Where pairs come from. The draw depends on rows, epoch and seed alone."""

    def having(self, n: int) -> np.ndarray:
        """Which of the ``n`` training rows have pairs, ascending."""
        ...

    def draw(self, rows: np.ndarray, epoch: int, most: int | None = None) -> Drawn:
        """Pairs of some training rows, equally many of each; at most ``most`` in all."""
        ...


@dataclass(frozen=True)
class CellPairs:
    """A moved control cell and a perturbed cell of the same condition.

    Parameters
    ----------
    material : the training cells.
    context : shape (n,), context codes of the training rows.
    moves : shape (n, g), float32, the anchor's effect of each row; control cells are moved by it.
    coupling, block, epsilon : see `couple`; ``block`` is the number of pairs that a row gives in an epoch.
    seed : of the draws.
    """

    material: Material
    context: np.ndarray
    moves: np.ndarray
    coupling: str
    block: int
    epsilon: float
    seed: int
    coded: dict[int, np.ndarray] = field(default_factory=dict, compare=False)

    def having(self, n: int) -> np.ndarray:
        """Rows with perturbed cells, of the first ``n``."""
        return np.flatnonzero([len(cells) > 0 for cells in self.material.perturbed[:n]])

    def draw(self, rows: np.ndarray, epoch: int, most: int | None = None) -> Drawn:
        """Pairs of some rows; batches match where both sides have cells of a batch."""
        block = self.block if most is None else max(4, min(self.block, most // max(1, len(rows))))
        parts = [self._row(int(row), epoch, block) for row in rows]
        start, end = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        return Drawn(start, end, np.repeat(rows, [len(part[0]) for part in parts]))

    def _row(self, row: int, epoch: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([7, self.seed, epoch, row])
        made, code = self.material, int(self.context[row])
        cells = made.perturbed[row]
        if not len(cells):
            return (np.zeros((0, len(made.spread)), np.float32),) * 2
        turns = [rng.permutation(len(cells)) for _ in range(-(-block // len(cells)))]
        chosen = np.concatenate(turns)[:block]
        end, batches = cells[chosen], made.batches[row][chosen]
        control = matched_controls(batches, made.control_batches[code], rng)
        start = self._moved(row, code, control)
        unit = made.spread
        order = couple(
            start / unit, end / unit, self.coupling, batches, epsilon=self.epsilon, seed=int(rng.integers(2**31))
        )
        return start[order], end

    def _moved(self, row: int, code: int, control: np.ndarray) -> np.ndarray:
        """Latent coordinates of control cells after the anchor's move."""
        return self.material.space.encode(self.material.controls[code][control] + self.moves[row])


@dataclass(frozen=True)
class EffectPairs:
    """Gaussian noise and the scores of an effect's deviation from the anchor, on screens without cells.

    Parameters
    ----------
    scores : shape (n, k), float32.
    spread : shape (k,), standard deviation of the scores, that of the noise too.
    block : pairs that a row gives in an epoch.
    seed : of the noise.
    """

    scores: np.ndarray
    spread: np.ndarray
    block: int
    seed: int

    def having(self, n: int) -> np.ndarray:
        """All ``n`` rows."""
        return np.arange(n)

    def draw(self, rows: np.ndarray, epoch: int, most: int | None = None) -> Drawn:
        """Pairs of some rows."""
        block = self.block if most is None else max(1, min(self.block, most // max(1, len(rows))))
        row = np.repeat(rows, block)
        noise = np.random.default_rng([8, self.seed, epoch]).standard_normal((len(row), self.scores.shape[1]))
        return Drawn((noise * self.spread).astype(np.float32), self.scores[row], row)
