"""Hyper-parameters that all generative heads share, and their limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from embbench.heads._coupling import COUPLINGS
from embbench.heads._smoother import positive, whole
from embbench.heads._torch import pick_device

CHOICES = {
    "latent": ("pca", "autoencoder"),
    "anchor": ("kernel", "context_mean", "none"),
    "coupling": COUPLINGS,
    "network": ("mlp", "transformer"),
    "precision": ("auto", "float32", "bfloat16"),
}


@dataclass(eq=False)
class Settings:
    """What flow matching, diffusion and bridges can be told.

    Parameters
    ----------
    latent, latent_dim : ``pca`` or ``autoencoder`` of training cells, and its dimensions.
    anchor : mean effect that cells are moved by first: ``kernel``; ``context_mean`` (of other training units); or
        ``none``, where the field has to learn everything.
    coupling, block, epsilon : how control and perturbed cells of one condition are paired for training
        (``independent``, ``exact`` optimal assignment, ``sinkhorn`` with regularisation ``epsilon``), in blocks of so
        many cells; see `couple`.
    network, width, depth, dropout : ``mlp`` (residual) or ``transformer``; layers.
    steps, batch_size, lr, weight_decay, average : see `Plan`.
    check_every, patience : looks at the held-out loss, and how many without improvement end the training.
    drop_condition, guidance : share of training pairs whose perturbation is hidden, and the weight ``w`` of
        ``field(nothing) + w (field(perturbation) - field(nothing))`` in sampling; 1 is the plain field.
    precision : of the network: ``auto`` is bfloat16 on cuda and float32 on the cpu.
    compile : run the network through ``torch.compile``, which takes about a minute before it starts to pay.
    seed, device : of everything random; ``auto``, ``cpu``, ``cuda`` ...

    Notes
    -----
    The defaults were chosen on simulated screens with known truth (seeds 0 to 2 of three kinds of effects, 84 training
    perturbations); see docs/heads.md for what was tried.
    """

    latent: str = "pca"
    latent_dim: int = 50
    anchor: str = "kernel"
    coupling: str = "exact"
    block: int = 64
    epsilon: float = 1.0
    network: str = "mlp"
    width: int = 128
    depth: int = 3
    dropout: float = 0.1
    steps: int = 1000
    batch_size: int = 256
    lr: float = 2e-3
    weight_decay: float = 1e-2
    average: float = 0.99
    check_every: int = 50
    patience: int = 6
    drop_condition: float = 0.1
    guidance: float = 1.0
    precision: str = "auto"
    compile: bool = False
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        name = type(self).__name__
        counts = ("latent_dim", "block", "width", "depth", "steps", "batch_size", "check_every", "patience")
        whole(name, **{field: getattr(self, field) for field in counts})
        positive(name, lr=self.lr, epsilon=self.epsilon)
        if not isinstance(self.compile, bool):
            raise ValueError(f"{name}: compile must be true or false, got {self.compile!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer):
            raise ValueError(f"{name}: seed must be a whole number >= 0, got {self.seed!r}")
        for field, known in CHOICES.items():
            if getattr(self, field) not in known:
                raise ValueError(f"{name}: {field} must be one of {known}, got {getattr(self, field)!r}")
        top = dict.fromkeys(("dropout", "average", "drop_condition"), 1.0)
        for field, high in (top | dict.fromkeys(("weight_decay", "guidance", "seed"), math.inf)).items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < high:
                raise ValueError(f"{name}: {field} must be in [0, {high}), got {value!r}")
        if self.width < 2:
            raise ValueError(f"{name}: width must be at least 2, got {self.width}")
        if self.guidance != 1 and not self.drop_condition:
            raise ValueError(f"{name}: guidance {self.guidance} needs drop_condition > 0, got {self.drop_condition}")
        if self.network == "transformer" and self.width % 4:
            raise ValueError(f"{name}: width of a transformer must be a multiple of 4 (heads), got {self.width}")
        try:
            torch.empty(0, device=pick_device(self.device))
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"{name}: device {self.device!r} is not one of torch's, or not here: {error}") from error
