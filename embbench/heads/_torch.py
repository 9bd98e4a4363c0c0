"""Shared by torch heads: inputs as numbers, devices, seeding, and a training loop with early stopping."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from embbench.core import Inputs

STEPS = 32  # most optimiser steps an epoch: batches grow with the number of rows


@dataclass(frozen=True)
class RowEncoder:
    """Numbers that a network reads for each row, fitted on training rows: features on one common scale (principal
    components keep their proportions), one-hot of the training contexts (zero for others), standardised context vector
    and standardised dose, where there are any.

    Examples
    --------
    >>> rows = Inputs(np.array([[1.0], [3.0]]), np.array([0, 1]), None, ((0,), (1,)))
    >>> RowEncoder.fitted(rows)(rows).tolist()
    [[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]]
    """

    x_mean: np.ndarray
    x_scale: float
    contexts: np.ndarray
    vector: tuple[np.ndarray, np.ndarray] | None
    dose: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def fitted(cls, inputs: Inputs) -> RowEncoder:
        """Scales of the training rows, from features of shape (n, d)."""
        mean = inputs.X.mean(axis=0, dtype=np.float64)
        scale = float(np.sqrt(np.square(inputs.X - mean).mean())) if inputs.X.size else 1.0
        contexts = np.unique(inputs.context)
        vector = None if inputs.context_vector is None else _scale(inputs.context_vector[contexts])
        dose = None if inputs.dose is None else _scale(inputs.dose[:, None])
        return cls(mean, scale or 1.0, contexts, vector, dose)

    def __call__(self, inputs: Inputs) -> np.ndarray:
        """Matrix of shape (n, p), float32; the one-hot columns come first.

        Raises
        ------
        ValueError
            A feature, context vector or dose is not finite.
        """
        parts = [inputs.context[:, None] == self.contexts, (inputs.X - self.x_mean) / self.x_scale]
        if self.vector is not None and inputs.context_vector is not None:
            parts.append((inputs.context_vector[inputs.context] - self.vector[0]) / self.vector[1])
        if self.dose is not None and inputs.dose is not None:
            parts.append((inputs.dose[:, None] - self.dose[0]) / self.dose[1])
        out = np.concatenate(parts, axis=1).astype(np.float32)
        if not np.isfinite(out).all():
            bad = np.unique(inputs.context[~np.isfinite(out).all(axis=1)])[:5].tolist()
            raise ValueError(
                f"features, context vectors and doses must be finite, found other values in contexts {bad}"
            )
        return out


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column means, and standard deviations times the root of the width: the block then has the norm of one column."""
    values = values.astype(np.float64)
    spread = values.std(axis=0)
    return values.mean(axis=0), np.where(spread > 0, spread, 1.0) * np.sqrt(values.shape[1])


def pick_device(name: str) -> torch.device:
    """``auto`` is cuda where there is one, else cpu; other names are torch's own."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


@contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """Inside the block torch's random streams start from ``seed``; after it they go on as before. Yields a generator of
    its own.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def reseed(seed: int) -> None:
    """Start torch's streams from ``seed``; only inside a `seeded` block, which puts them back."""
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Schedule:
    """How a network is trained: AdamW on mean squared error, in shuffled batches."""

    lr: float
    weight_decay: float
    epochs: int
    patience: int
    batch_size: int
    drop_context: float = 0.0  # share of rows whose context one-hot is hidden, so that unseen contexts are practised


def train(
    net: nn.Module,
    data: tuple[torch.Tensor, torch.Tensor],
    plan: Schedule,
    generator: torch.Generator,
    *,
    n_contexts: int,
    held_out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> int:
    """Train ``net`` in place on inputs of shape (n, p) and targets of shape (n, r).

    Returns
    -------
    The number of epochs after which the squared error on ``held_out`` was lowest (0: before training); without
    ``held_out``, the number of epochs trained.

    References
    ----------
    Loshchilov and Hutter (2019), AdamW, algorithm 2; early stopping: Prechelt (1998), criterion UP with patience.
    """
    x, y = data
    size = max(plan.batch_size, -(-len(x) // STEPS))
    optimiser = torch.optim.AdamW(net.parameters(), lr=plan.lr, weight_decay=plan.weight_decay, fused=True)
    best, lowest = 0, _error(net, held_out)
    for epoch in range(1, plan.epochs + 1):
        net.train()
        for batch in torch.randperm(len(x), generator=generator).split(size):
            part = x[batch.to(x.device)]
            if plan.drop_context:
                keep = torch.rand(len(part), 1, generator=generator) >= plan.drop_context
                part[:, :n_contexts] *= keep.to(part)
            optimiser.zero_grad(set_to_none=True)
            nn.functional.mse_loss(net(part), y[batch.to(y.device)]).backward()
            optimiser.step()
        if held_out is None:
            best = epoch
            continue
        error = _error(net, held_out)
        if error < lowest:
            best, lowest = epoch, error
        elif epoch - best >= plan.patience:
            break
    return best


@torch.no_grad()
def _error(net: nn.Module, held_out: tuple[torch.Tensor, torch.Tensor] | None) -> float:
    if held_out is None:
        return float("inf")
    net.eval()
    return float(nn.functional.mse_loss(net(held_out[0]), held_out[1]))
