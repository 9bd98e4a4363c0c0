"""PerturBench's multilayer perceptron, and heads that decode to expression with it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from embbench.heads._perturbench_cells import Matched


def mlp(n_in: int, width: int, layers: int, n_out: int, dropout: float) -> nn.Sequential:
    """``layers`` blocks of linear map, LayerNorm without parameters, ReLU and dropout, then a linear map to n_out."""
    blocks: list[nn.Module] = []
    for layer in range(layers):
        blocks += [nn.Linear(width if layer else n_in, width), nn.LayerNorm(width, elementwise_affine=False)]
        blocks += [nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*blocks, nn.Linear(width, n_out))


def inverse_softplus(y: torch.Tensor) -> torch.Tensor:
    """The x with log(1 + exp(x)) = y, of any shape; y below 1e-4 counts as 1e-4.

    Examples
    --------
    >>> nn.functional.softplus(inverse_softplus(torch.tensor([2.0]))).round(decimals=4).item()
    2.0
    """
    y = y.clamp(min=1e-4)
    return y + torch.log(-torch.expm1(-y))


def shares(name: str, **values: float) -> None:
    """Hyper-parameters in [0, 1); the ValueError names head, parameter and value."""
    for option, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < 1:
            raise ValueError(f"{name}: {option} must be in [0, 1), got {value!r}")


def decoder(n_in: int, width: int, layers: int, dropout: float, start: Matched) -> nn.Sequential:
    """A perceptron to all genes, its offsets such that an input without effect gives the mean of the training cells."""
    net = mlp(n_in, width, layers, start.cells.shape[1], dropout)
    with torch.no_grad():
        dict(net[-1].named_parameters())["bias"].copy_(inverse_softplus(start.cells.mean(dim=0)))
    return net


class DecoderNet(nn.Module):
    """x = softplus(D([p; c]))."""

    def __init__(self, decode: nn.Module) -> None:
        super().__init__()
        self.decode = decode

    def forward(self, x0: torch.Tensor, p: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Cells (n, g) of perturbations (n, d) and covariates (n, q); ``x0`` (n, g) is not read."""
        return nn.functional.softplus(self.decode(torch.cat([p, c], dim=1)))
