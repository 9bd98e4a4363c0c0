"""A residual neural network from embedding and context to the effect, trained over all contexts at once."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import nn

from embbench.core import HeadDefaults, Inputs
from embbench.heads._smoother import check_rows, positive, whole
from embbench.heads._target import Target
from embbench.heads._torch import RowEncoder, Schedule, pick_device, seeded, train
from embbench.numerics.folds import inner_folds


class ResidualNet(nn.Module):
    """Linear map plus residual blocks (LayerNorm, linear, SiLU, dropout, linear); its output starts at 0."""

    def __init__(self, n_in: int, n_out: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.inlet = nn.Linear(n_in, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
            )
            for _ in range(depth)
        )
        last = nn.Linear(width, n_out)
        self.outlet = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout), last)
        self.direct = nn.Linear(n_in, n_out, bias=False)
        for parameter in (last.weight, last.bias, self.direct.weight):
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs of shape (n, n_out) for inputs of shape (n, n_in)."""
        h = self.inlet(x)
        for block in self.blocks:
            h = h + block(h)
        return self.outlet(h) + self.direct(x)


class MLP(HeadDefaults):
    """Multilayer perceptron on the embedding, the context (one-hot of training contexts, and the context vector where
    there is one) and the dose; it learns the deviation from the context mean, as scores on its principal axes.

    The number of epochs is found on held-out units (a fifth of them; rows with any such unit are held out), then the
    network is trained again on all rows for that many epochs. Zero epochs is the context mean. With fewer than two
    units there is nothing to hold out, and it trains for ``patience`` epochs. A query context without training rows
    has a zero one-hot, which training practises by hiding the one-hot of a tenth of the rows.

    Parameters
    ----------
    width, depth : units of a layer and number of residual blocks, >= 1.
    dropout : share of hidden units left out in training, in [0, 1).
    lr, weight_decay : of AdamW; lr > 0, weight_decay >= 0.
    epochs, patience : most epochs, and epochs without improvement before stopping, >= 1.
    batch_size : >= 1; grows with the rows so that an epoch has at most 32 steps.
    rank : most principal axes of the effects to predict, >= 1.
    seed : of the initial weights, the batches and dropout.
    device : ``auto`` (cuda where there is one), ``cpu``, ``cuda`` ...

    References
    ----------
    Gorishniy et al. (2021), Revisiting Deep Learning Models for Tabular Data, section 3.2 (ResNet), with a low-rank
    decoder; the embedding-to-effect MLP of Wenteler et al. (2024), PertEval-scFM.

    Examples
    --------
    >>> MLP(dropout=1.0)
    Traceback (most recent call last):
    ValueError: MLP: dropout must be in [0, 1), got 1.0
    """

    trained = True
    scope = "joint"

    def __init__(
        self, width: int = 128, depth: int = 2, dropout: float = 0.2, lr: float = 1e-3, weight_decay: float = 1e-2,
        epochs: int = 200, patience: int = 20, batch_size: int = 32, rank: int = 64, seed: int = 0,
        device: str = "auto",
    ) -> None:  # fmt: skip
        whole("MLP", width=width, depth=depth, epochs=epochs, patience=patience, batch_size=batch_size, rank=rank)
        positive("MLP", lr=lr)
        if not 0 <= dropout < 1:
            raise ValueError(f"MLP: dropout must be in [0, 1), got {dropout!r}")
        if not 0 <= weight_decay < np.inf:
            raise ValueError(f"MLP: weight_decay must be >= 0, got {weight_decay!r}")
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"MLP: seed must be a whole number >= 0, got {seed!r}")
        try:
            pick_device(device)
        except RuntimeError as error:
            raise ValueError(f"MLP: device {device!r} is not one of torch's: {error}") from error
        self.width, self.depth, self.dropout, self.rank = width, depth, dropout, rank
        self.lr, self.weight_decay, self.epochs, self.patience = lr, weight_decay, epochs, patience
        self.batch_size, self.seed, self.device = batch_size, seed, device

    @classmethod
    def candidates(cls) -> list[dict[str, Any]]:
        """The default, and a smaller, more regularised network."""
        return [{}, {"width": 64, "depth": 1, "dropout": 0.5, "weight_decay": 0.1}]

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Train on inputs (n, ...) and effects ``Y`` of shape (n, g); ``observed`` is not used, since unobserved
        entries of ``Y`` come filled.
        """
        check_rows(self, inputs, Y)
        folds = inner_folds(inputs.units, 5, self.seed)
        epochs = self.patience
        if folds:
            rows, held = folds[0]
            epochs = self._train(inputs.rows(rows), Y[rows], self.epochs, (inputs.rows(held), Y[held]))
        self.epochs_ = self._train(inputs, Y, epochs)
        return self

    def _train(self, inputs: Inputs, Y: np.ndarray, epochs: int, held: tuple[Inputs, np.ndarray] | None = None) -> int:
        """Set encoder, target and network from these rows; the best number of epochs on the rows held out."""
        self.encoder_, self.target_ = RowEncoder.fitted(inputs), Target.fitted(inputs, Y, self.rank)
        device, target = pick_device(self.device), self.target_
        self.net_: ResidualNet | None = None
        if not target.axes.shape[1]:  # every row equals its context mean
            return 0

        def tensors(part: Inputs, effects: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            both = self.encoder_(part), target.scores(part, effects)
            return torch.from_numpy(both[0]).to(device), torch.from_numpy(both[1]).to(device)

        data, n_contexts = tensors(inputs, Y), len(target.context)
        hide = 0.1 if n_contexts > 1 else 0.0
        plan = Schedule(self.lr, self.weight_decay, epochs, self.patience, self.batch_size, hide)
        held_out = None if held is None else tensors(*held)
        with seeded(self.seed) as generator:
            net = ResidualNet(data[0].shape[1], target.axes.shape[1], self.width, self.depth, self.dropout).to(device)
            best = train(net, data, plan, generator, n_contexts=n_contexts, held_out=held_out)
        self.net_ = net.cpu().eval()
        return best

    @torch.no_grad()
    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n_query, g), float32; RuntimeError before ``fit``."""
        if not hasattr(self, "net_"):
            raise RuntimeError(f"{type(self).__name__}.predict called before fit")
        out, rows = self.target_.base(inputs.context), self.encoder_(inputs)
        if self.net_ is not None:
            out += (
                self.net_(torch.from_numpy(rows)).numpy().astype(np.float64) * self.target_.scale @ self.target_.axes.T
            )
        return out.astype(np.float32)
