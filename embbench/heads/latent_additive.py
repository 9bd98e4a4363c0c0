"""PerturBench's latent additive model: encode the control cell, add the perturbation, decode."""

from __future__ import annotations

import torch
from torch import nn

from embbench.heads._perturbench import CellHead
from embbench.heads._perturbench_cells import Matched
from embbench.heads._perturbench_nets import decoder, mlp, shares
from embbench.heads._smoother import whole
from embbench.numerics.linalg import pca

CELLS = ("expression", "pca")
MASKS = ("none", "bernoulli")
COMPONENTS = 50  # of ``cell="pca"``


class LatentAdditiveNet(nn.Module):
    """x = softplus(D([E([cell(x0); c]) + m * P(p); c])), with m = 1 or a learned mask of zeros and ones.

    Parameters
    ----------
    encode, perturb, decode : E, P and D.
    mask : logits of m from p, or None (m = 1).
    mean, axes : (g,) and (g, k) of cell(x0) = (x0 - mean) axes; None for the expression itself.
    """

    mean: torch.Tensor | None
    axes: torch.Tensor | None

    def __init__(
        self,
        encode: nn.Module,
        perturb: nn.Module,
        decode: nn.Module,
        mask: nn.Module | None,
        axes: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> None:
        super().__init__()
        self.encode, self.perturb, self.decode, self.mask = encode, perturb, decode, mask
        self.register_buffer("mean", None if axes is None else axes[0])
        self.register_buffer("axes", None if axes is None else axes[1])

    def forward(self, x0: torch.Tensor, p: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Cells (n, g) of control cells (n, g), perturbations (n, d) and covariates (n, q)."""
        cell = x0 if self.axes is None or self.mean is None else (x0 - self.mean) @ self.axes
        moved = self.perturb(p)
        if self.mask is not None:
            moved = moved * straight_through(self.mask(p), random=self.training)
        latent = self.encode(torch.cat([cell, c], dim=1)) + moved
        return nn.functional.softplus(self.decode(torch.cat([latent, c], dim=1)))


def straight_through(logits: torch.Tensor, *, random: bool) -> torch.Tensor:
    """Zeros and ones of any shape, drawn with probability sigmoid(logits) or, where not ``random``, the likelier one;
    the gradient is that of the probability.

    References
    ----------
    Bengio, Leonard and Courville (2013), arXiv:1308.3432, section 4 (straight-through estimator).

    Examples
    --------
    >>> straight_through(torch.tensor([-1.0, 2.0]), random=False).tolist()
    [0.0, 1.0]
    """
    p = torch.sigmoid(logits)
    hard = torch.bernoulli(p) if random else (p > 0.5).to(p)
    return hard + (p - p.detach())


class LatentAdditive(CellHead):
    """``latent_additive`` of PerturBench: x = softplus(D([E([x0; c]) + P(p); c])), with p the embedding (the one-hot
    form is ``--emb onehot``), c the one-hot context with context vector and dose, x0 a control cell.

    Trained as `embbench.heads._perturbench.PerturbenchHead` says: on cells where the screen has them, else on control
    mean plus effect.

    Parameters
    ----------
    width, latent, layers : hidden width of E, P and D, width of the latent space, hidden layers of each, >= 1.
    dropout : share of hidden units left out in training, in [0, 1).
    mask : ``none``, or ``bernoulli``: P(p) is multiplied by a mask whose probabilities are learned from p
        (straight-through); in prediction, by its likelier values.
    cell : ``expression``, or ``pca``: E reads 50 principal components of the control cells.
    lr, weight_decay : of AdamW; lr > 0, weight_decay >= 0.
    steps, patience : most optimiser steps, and looks (one each 25 steps) without improvement before stopping, >= 1.
    batch_size : cells of a step, >= 1.
    seed : of the held-out units, the initial weights, the batches, and the control cells of `sample`.
    device : ``auto`` (cuda where there is one), ``cpu``, ``cuda`` ...

    References
    ----------
    Wu et al. (2024), PerturBench, arXiv:2408.10609, appendix on baselines (Latent Additive).

    Examples
    --------
    >>> LatentAdditive(cell="genes")
    Traceback (most recent call last):
    ValueError: LatentAdditive: cell must be one of ('expression', 'pca'), got 'genes'
    """

    def __init__(
        self, width: int = 256, latent: int = 64, layers: int = 1, dropout: float = 0.1, mask: str = "none",
        cell: str = "expression", lr: float = 1e-3, weight_decay: float = 1e-5, steps: int = 600, patience: int = 6,
        batch_size: int = 256, seed: int = 0, device: str = "auto",
    ) -> None:  # fmt: skip
        whole("LatentAdditive", width=width, latent=latent, layers=layers)
        shares("LatentAdditive", dropout=dropout)
        if mask not in MASKS:
            raise ValueError(f"LatentAdditive: mask must be one of {MASKS}, got {mask!r}")
        if cell not in CELLS:
            raise ValueError(f"LatentAdditive: cell must be one of {CELLS}, got {cell!r}")
        self.width, self.latent, self.layers, self.dropout = width, latent, layers, dropout
        self.mask, self.cell = mask, cell
        self._set(lr, weight_decay, steps, patience, batch_size, seed, device)

    def network(self, d: int, q: int, start: Matched) -> nn.Module:
        """The untrained network for codes of widths d and q."""
        axes, width = None, start.controls.shape[1]
        if self.cell == "pca":
            mean, found, _ = pca(start.controls.cpu().numpy(), COMPONENTS)
            axes, width = (torch.from_numpy(mean).float(), torch.from_numpy(found).float()), found.shape[1]
        shape = (self.width, self.layers, self.latent, self.dropout)
        mask = mlp(d, *shape) if self.mask == "bernoulli" else None
        decode = decoder(self.latent + q, self.width, self.layers, self.dropout, start)
        return LatentAdditiveNet(mlp(width + q, *shape), mlp(d, *shape), decode, mask, axes)
