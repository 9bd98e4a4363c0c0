"""A small autoencoder of training cells: a latent space that bends where principal axes cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import nn

from embbench.core import Silent
from embbench.heads._torch import seeded
from embbench.heads._training import Plan, train_steps
from embbench.numerics.linalg import pca

HIDDEN = 256
READS = 256  # principal coordinates that the network reads and writes: no more pass through the hidden layer anyway
STEPS, BATCH, LR, LOOK = 400, 256, 2e-3, 50
HELD = 10  # every tenth cell is held out


class Layers(nn.Module):
    """Encoder r -> 256 -> k and decoder k -> 256 -> r, each added to the first k coordinates; both add 0 at first.

    Parameters
    ----------
    r : coordinates read and written.
    k : latent dimensions, at most ``r``.
    """

    def __init__(self, r: int, k: int) -> None:
        super().__init__()
        self.k, self.more = k, r - k
        ends = nn.Linear(HIDDEN, k), nn.Linear(HIDDEN, r)
        for end in ends:
            nn.init.zeros_(end.weight)
            nn.init.zeros_(end.bias)
        self.inner = nn.Sequential(nn.Linear(r, HIDDEN), nn.SiLU(), ends[0])
        self.outer = nn.Sequential(nn.Linear(k, HIDDEN), nn.SiLU(), ends[1])

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Codes (b, k) of coordinates (b, r)."""
        return x[:, : self.k] + self.inner(x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Coordinates (b, r) of codes (b, k)."""
        return nn.functional.pad(z, (0, self.more)) + self.outer(z)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Coordinates (b, r) after encoding and decoding."""
        return self.decode(self.encode(x))


@dataclass(frozen=True)
class Autoencoder:
    """A latent space fitted by reconstruction: principal components, bent by two small networks.

    Cells are read as their first 256 principal coordinates, whose squared error is that of expression up to a constant,
    so training costs the same for any number of genes. The untrained network is PCA with k axes, and it is kept where
    no trained one reconstructs held-out cells better. Trained on the cpu.

    Parameters
    ----------
    axes : shape (g, r), float32, orthonormal axes of the coordinates.
    unit : root mean square of the coordinates; the network reads and writes them divided by it.
    layers : encoder and decoder.
    scale : root mean square of the codes; latent coordinates are codes divided by it.

    References
    ----------
    Hinton and Salakhutdinov (2006), Science 313:504; PCA is the optimal linear autoencoder: Baldi and Hornik (1989).
    """

    axes: np.ndarray
    unit: float
    layers: Layers
    scale: float

    @classmethod
    def fitted(cls, cells: np.ndarray, width: int, seed: int) -> Self:
        """Fit on cells (m, g), m >= 1, relative to their contexts' control means; at most ``width`` latent dimensions,
        fewer where cells or genes are few.
        """
        _, axes, singular = pca(cells, max(width, READS))
        constant = not axes.shape[1]  # all cells equal: one axis, and nothing to learn
        axes = (np.eye(cells.shape[1], 1) if constant else axes).astype(np.float32)
        values = cells @ axes
        unit = 1.0 if constant else float(np.sqrt(np.square(singular).mean() / len(cells)))
        x = torch.from_numpy(np.ascontiguousarray(values / np.float32(unit)))
        with seeded(seed % 2**31):
            layers = Layers(axes.shape[1], min(width, axes.shape[1]))
            if not constant:
                _train(layers, x, seed % 2**31)
        layers.eval().requires_grad_(requires_grad=False)
        scale = float(layers.encode(x).square().mean().sqrt())
        return cls(axes, unit, layers, scale or 1.0)

    def encode(self, cells: np.ndarray) -> np.ndarray:
        """Latent coordinates (m, k), float32, of centred cells (m, g)."""
        values = (cells.astype(np.float32, copy=False) @ self.axes) / np.float32(self.unit)
        return self.layers.encode(torch.from_numpy(values)).numpy() / np.float32(self.scale)

    def change(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """What the move from ``start`` to ``end`` (m, k) adds to expression (m, g), float32; the rest of a cell stays
        its own.
        """
        scale = np.float32(self.scale)
        first, last = (self.layers.decode(torch.from_numpy(z.astype(np.float32) * scale)) for z in (start, end))
        return ((last - first).numpy() * np.float32(self.unit)) @ self.axes.T


def _train(layers: Layers, x: torch.Tensor, seed: int) -> None:
    """Minimise the squared error of coordinates (m, r), early-stopped on every tenth cell; inside a `seeded` block."""
    out = torch.arange(len(x)) % HELD == HELD - 1
    kept, held = x[~out], x[out]

    def loss(net: nn.Module, step: int) -> torch.Tensor:
        batch = kept[torch.randint(len(kept), (min(BATCH, len(kept)),))]
        return nn.functional.mse_loss(net(batch), batch)

    def held_out(net: nn.Module) -> float:
        return float(nn.functional.mse_loss(net(held), held))

    plan = Plan(STEPS, LR, 1e-3, 0.98, LOOK, STEPS // LOOK, seed)
    train_steps(layers, loss, held_out if len(held) else None, plan, Silent())
