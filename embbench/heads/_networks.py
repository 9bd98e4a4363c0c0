"""Networks of population heads: a field over latent cells, conditional on time and on the perturbation."""

from __future__ import annotations

import math

import torch
from torch import nn

FREQUENCIES = 8


def time_features(t: torch.Tensor) -> torch.Tensor:
    """Sines and cosines of ``t`` (b,) in [0, 1] at 8 octaves, shape (b, 16)."""
    angles = t[:, None] * (2.0 ** torch.arange(FREQUENCIES, device=t.device, dtype=t.dtype)) * (math.pi / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    """A residual layer whose normalised input is scaled and shifted by the condition, and whose output is gated by it.

    References
    ----------
    FiLM: Perez et al. (2018), equation 2; adaLN-zero: Peebles and Xie (2023), section 3.2.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.inner = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.film = nn.Linear(width // 2, 3 * width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, h: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """States (b, w) given conditions (b, w // 2)."""
        scale, shift, gate = self.film(condition).chunk(3, dim=1)
        return h + (1 + gate) * self.inner(self.norm(h) * (1 + scale) + shift)


class Trunk(nn.Module):
    """Residual layers on the whole latent cell."""

    def __init__(self, n_in: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.inlet = nn.Linear(n_in, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """States (b, w) of cells (b, n_in) under conditions (b, w // 2)."""
        h = self.inlet(x)
        for block in self.blocks:
            h = block(h, condition)
        return self.norm(h)


class Attention(nn.Module):
    """A transformer over groups of latent coordinates, each group a token, with adaLN-zero conditions.

    References
    ----------
    Peebles and Xie (2023), Scalable diffusion models with transformers, figure 3.
    """

    def __init__(self, n_in: int, width: int, depth: int, dropout: float, group: int = 5, heads: int = 4) -> None:
        super().__init__()
        self.group, self.tokens = group, -(-n_in // group)
        self.pad = self.tokens * group - n_in
        self.inlet = nn.Linear(group, width)
        self.place = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.heads, self.dropout = heads, dropout
        self.packed = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.joined = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.inner = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.film = nn.ModuleList(nn.Linear(width // 2, 6 * width) for _ in range(depth))
        for layer in self.film:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Mean token states (b, w) of cells (b, n_in) under conditions (b, w // 2)."""
        x = nn.functional.pad(x, (0, self.pad)).unflatten(1, (self.tokens, self.group))
        h = self.inlet(x) + self.place
        for packed, joined, inner, film in zip(self.packed, self.joined, self.inner, self.film, strict=True):
            a, b, c, d, e, f = film(condition)[:, None, :].chunk(6, dim=2)
            query, key, value = (
                part.unflatten(2, (self.heads, -1)).transpose(1, 2)
                for part in packed(self.norm(h) * (1 + a) + b).chunk(3, dim=2)
            )
            mixed = nn.functional.scaled_dot_product_attention(query, key, value)
            h = h + c * joined(mixed.transpose(1, 2).flatten(2))
            h = h + d * inner(self.norm(h) * (1 + e) + f)
        return self.norm(h).mean(dim=1)


class Field(nn.Module):
    """Vector fields over latent cells: ``outputs`` vectors of k numbers for a cell, a time and a condition.

    The condition holds the anchor's latent move ``m`` in its last k columns. A cell's coordinate along ``m`` is an
    input and a part of each field points along ``m``, so that splitting a population along its predicted direction
    need not be learnt anew for every direction. All fields are 0 before training.

    Parameters
    ----------
    k : latent dimensions.
    n_condition : columns of the condition.
    n_more : further columns that the trunk reads beside the cell (a source cell).
    outputs : number of fields.
    width, depth, dropout : of the trunk.
    network : ``mlp`` or ``transformer``.
    """

    def __init__(
        self, k: int, n_condition: int, n_more: int, outputs: int, width: int, depth: int, dropout: float, network: str
    ) -> None:
        super().__init__()
        self.k, self.outputs = k, outputs
        n_in = k + n_more + 2
        self.trunk: nn.Module
        self.trunk = Trunk(n_in, width, depth, dropout) if network == "mlp" else Attention(n_in, width, depth, dropout)
        half = width // 2
        self.told = nn.Sequential(nn.Linear(n_condition, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, half))
        self.clock = nn.Sequential(nn.Linear(2 * FREQUENCIES, half), nn.SiLU(), nn.Linear(half, half))
        self.outlet = nn.Linear(width, outputs * (k + 1))
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        """Fields, shape (b, outputs, k).

        Parameters
        ----------
        x : shape (b, k), cells in units of each axis' spread.
        t : shape (b,), times in [0, 1].
        condition : shape (b, n_condition).
        more : shape (b, n_more).
        """
        move = condition[:, -self.k :]
        size = move.norm(dim=1, keepdim=True)
        direction = move / (size + 1e-2)
        along = (x * direction).sum(dim=1, keepdim=True)
        h = nn.functional.silu(self.told(condition) + self.clock(time_features(t)))
        out = self.outlet(self.trunk(torch.cat([x, more, along, size], dim=1), h))
        fields, gates = out[:, : self.outputs * self.k], out[:, self.outputs * self.k :]
        return fields.unflatten(1, (self.outputs, self.k)) + gates[:, :, None] * direction[:, None, :]
