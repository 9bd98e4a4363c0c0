"""PerturBench's linear model: control expression plus a linear map of perturbation and covariates."""

from __future__ import annotations

import torch
from torch import nn

from embbench.heads._perturbench import CellHead
from embbench.heads._perturbench_cells import Matched


class LinearNet(nn.Module):
    """x = softplus(x0 + W [p; c] + b); W starts at 0 and b where the mean output is the mean of training cells."""

    def __init__(self, d: int, q: int, start: Matched) -> None:
        super().__init__()
        self.shift = nn.Linear(d + q, start.cells.shape[1])
        nn.init.zeros_(self.shift.weight)
        with torch.no_grad():
            self.shift.bias.copy_(_offset(start.controls[:CELLS], start.cells.mean(dim=0)))

    def forward(self, x0: torch.Tensor, p: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Cells (n, g) of control cells (n, g), perturbations (n, d) and covariates (n, q)."""
        return nn.functional.softplus(x0 + self.shift(torch.cat([p, c], dim=1)))


CELLS = 1000  # control cells that the first offset is computed from


def _offset(x0: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """The b (g,) with mean softplus(x0 + b) = mean, by bisection (50 halvings of [-20, 20])."""
    low, high = torch.full_like(mean, -20.0), torch.full_like(mean, 20.0)
    for _ in range(50):
        middle = (low + high) / 2
        below = nn.functional.softplus(x0 + middle).mean(dim=0) < mean
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


class LinearAdditive(CellHead):
    """``linear_additive`` of PerturBench: x = softplus(x0 + W [p; c] + b), with p the embedding (the one-hot form is
    ``--emb onehot``), c the one-hot context with context vector and dose, x0 a control cell.

    Trained as `embbench.heads._perturbench.PerturbenchHead` says: on cells where the screen has them, else on control
    mean plus effect. The softplus lifts a zero of x0 that the offset does not push down, as published.

    Parameters
    ----------
    lr, weight_decay : of AdamW; lr > 0, weight_decay >= 0.
    steps, patience : most optimiser steps, and looks (one each 25 steps) without improvement before stopping, >= 1.
    batch_size : cells of a step, >= 1.
    seed : of the held-out units, the initial weights, the batches, and the control cells of `sample`.
    device : ``auto`` (cuda where there is one), ``cpu``, ``cuda`` ...

    References
    ----------
    Wu et al. (2024), PerturBench, arXiv:2408.10609, appendix on baselines (Linear).

    Examples
    --------
    >>> LinearAdditive(lr=0)
    Traceback (most recent call last):
    ValueError: LinearAdditive: lr must be > 0, got 0
    """

    def __init__(
        self, lr: float = 1e-3, weight_decay: float = 1e-5, steps: int = 600, patience: int = 6, batch_size: int = 256,
        seed: int = 0, device: str = "auto",
    ) -> None:  # fmt: skip
        self._set(lr, weight_decay, steps, patience, batch_size, seed, device)

    def network(self, d: int, q: int, start: Matched) -> nn.Module:
        """The untrained network for codes of widths d and q."""
        return LinearNet(d, q, start)
