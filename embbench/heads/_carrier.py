"""From query rows to start points in a latent space: what a fitted generative head keeps beside its network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from embbench.core import Inputs, Sources, draw_sources, row_address
from embbench.heads._anchor import Anchor, means_only
from embbench.heads._conditions import Conditions
from embbench.heads._latent import Space


@dataclass(frozen=True)
class Carrier:
    """A fitted anchor, latent space and condition encoder.

    Parameters
    ----------
    anchor, kind : the anchor (None: control cells are not moved), and what it is.
    space, spread : the latent space, and the standard deviation (k,) of its coordinates.
    conditions : of the network.
    genes : number of genes.
    on_cells : whether the fit was on cells.
    """

    anchor: Anchor | None
    kind: str
    space: Space
    spread: np.ndarray
    conditions: Conditions
    genes: int
    on_cells: bool

    def moves(self, inputs: Inputs) -> np.ndarray:
        """The anchor's effects of query rows, shape (n, g), float32."""
        if self.anchor is None:
            return np.zeros((len(inputs), self.genes), dtype=np.float32)
        return self.anchor.predict(inputs if self.kind == "kernel" else means_only(inputs))

    def latent(self, moves: np.ndarray) -> np.ndarray:
        """Effects (n, g) as moves in the latent space, shape (n, k), float32."""
        still = self.space.encode(np.zeros((1, moves.shape[1]), dtype=np.float32))
        return self.space.encode(moves.astype(np.float32)) - still

    def starts(self, inputs: Inputs, moves: np.ndarray, sources: Sources) -> tuple[np.ndarray, np.ndarray]:
        """Latent coordinates (n, m, k) of moved control cells, and the control cells (n, m, g) themselves."""
        if inputs.cells is None:
            raise ValueError("generative head: the query has no single cells to start from")
        cells = sources.cells(inputs.cells)
        codes = np.unique(sources.context)
        means = np.stack([inputs.cells.controls(c).mean(axis=0, dtype=np.float64) for c in codes.tolist()])
        centred = cells - means.astype(np.float32)[np.searchsorted(codes, sources.context)]
        return self._encode(centred + moves[:, None, :].astype(np.float32)), cells

    def mirrored(self, inputs: Inputs, moves: np.ndarray, m: int, seed: int) -> np.ndarray:
        """Start points (n, 2 m, k) whose mean is the anchor's: control cells, or noise, and their mirror images."""
        if not self.on_cells or inputs.cells is None:
            drawn = np.stack(
                [row_rng(inputs, i, seed).standard_normal((m, len(self.spread))) for i in range(len(moves))]
            )
            half = (drawn * self.spread).astype(np.float32)
            still = self.latent(moves)[:, None] * np.float32(self.on_cells)
            return np.concatenate([still + half, still - half], axis=1)
        half, _ = self.starts(inputs, np.zeros_like(moves), draw_sources(inputs, m, seed))
        centre = self._encode(np.zeros((1, 1, self.genes), dtype=np.float32))
        still = self.latent(moves)[:, None]
        return np.concatenate([half + still, 2 * centre - half + still], axis=1)

    def _encode(self, cells: np.ndarray) -> np.ndarray:
        return self.space.encode(flat(cells)).reshape(*cells.shape[:2], -1)


def flat(values: np.ndarray) -> np.ndarray:
    """Values (n, m, k) as (n m, k)."""
    return np.ascontiguousarray(values.reshape(-1, values.shape[-1]))


def row_rng(inputs: Inputs, row: int, seed: int) -> np.random.Generator:
    """A stream that depends on what a row is, not on the other rows."""
    return np.random.default_rng([13, seed, *row_address(inputs, row)])


def row_noise(inputs: Inputs, like: torch.Tensor, m: int, seed: int, *, mirrored: bool) -> Callable[[], torch.Tensor]:
    """A source of standard normal noise of the shape of ``like`` (n m, k), one stream per row.

    With ``mirrored`` the second half of a row's draws is minus the first, as its start points are.
    """
    streams = [row_rng(inputs, row, seed) for row in range(len(inputs))]

    def draw() -> torch.Tensor:
        half = m // 2 if mirrored else m
        parts = [stream.standard_normal((half, like.shape[1]), dtype=np.float32) for stream in streams]
        if mirrored:
            parts = [np.concatenate([part, -part]) for part in parts]
        return torch.from_numpy(np.concatenate(parts)).to(like)

    return draw
