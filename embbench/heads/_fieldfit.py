"""The loss of a conditional field on minibatches of pairs, and on pairs of held-out perturbations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from embbench.heads._conditions import Conditions
from embbench.heads._pairs import Drawn, Pairs

HELD_OUT = 2048  # pairs of held-out perturbations that early stopping looks at


class Equations(Protocol):
    """What tells one generative head from another."""

    outputs: ClassVar[int]
    sees_source: ClassVar[bool]

    def practise(
        self, start: torch.Tensor, end: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (b, k) of pairs at times ``t`` (b, 1), and what the fields should be there, (b, outputs, k)."""
        ...

    def gain(self, t: torch.Tensor) -> torch.Tensor | float:
        """What the network's output is multiplied by at times ``t`` to give the fields, in the loss."""
        ...


@contextmanager
def precise(device: torch.device, precision: str) -> Iterator[None]:
    """Inside, matrix products run in ``precision``: ``auto`` is bfloat16 on cuda, float32 elsewhere."""
    low = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low):
        yield


@dataclass
class FieldLoss:
    """Minibatch and held-out loss of a field.

    Minibatches are slices of an epoch's shuffled pairs; epoch and place follow from the step's number, so a fit that
    goes on after a kill sees the same ones.

    Parameters
    ----------
    equations : of the head.
    pairs : where pairs come from.
    conditions, told : the encoder, and the conditions (n, p) of the training rows.
    offset : shape (n, k), taken off both points of a pair.
    spread : shape (k,), latent standard deviations of the cells, the units of the equations.
    rows : training rows.
    held : held-out rows, or None.
    drop : share of pairs whose perturbation is hidden.
    batch_size, seed : of the minibatches.
    """

    equations: Equations
    pairs: Pairs
    conditions: Conditions
    told: torch.Tensor
    offset: torch.Tensor
    spread: torch.Tensor
    rows: np.ndarray
    held: np.ndarray | None
    drop: float
    batch_size: int
    seed: int
    _epoch: tuple[int, tuple[torch.Tensor, ...]] = field(default=(-1, ()), init=False)
    _kept: tuple[torch.Tensor, ...] = field(default=(), init=False)
    _steps: int = field(default=0, init=False)

    def step(self, net: Any, step: int) -> torch.Tensor:
        """Loss of the step's minibatch; times, noise and hidden conditions come from torch's stream."""
        number, place = self._place(step)
        if self._epoch[0] != number:
            drawn = self.pairs.draw(self.rows, number)
            order = np.random.default_rng([9, self.seed, number]).permutation(len(drawn.row))
            self._epoch = (number, self._tensors(drawn, order))
        size = len(self._epoch[1][2])
        where = slice(place * self.batch_size % size, place * self.batch_size % size + self.batch_size)
        start, end, row = (part[where] for part in self._epoch[1])
        device = start.device
        t, noise = torch.rand(len(row), 1).to(device), torch.randn(start.shape).to(device)
        keep = torch.rand(len(row), 2) >= torch.tensor([self.drop, self.conditions.hide])
        return self._loss(net, start, end, t, noise, self.conditions.hidden(self.told[row], keep.to(device)))

    def held_out(self, net: Any) -> float:
        """Loss on pairs of held-out rows, the same at every look."""
        if not self._kept:
            start, end, row = self._tensors(self.pairs.draw(np.asarray(self.held), 0, HELD_OUT))
            rng = torch.Generator().manual_seed(self.seed)
            t = torch.linspace(0.01, 0.99, len(row))[torch.randperm(len(row), generator=rng)][:, None]
            noise = torch.randn(start.shape, generator=rng)
            told = self.conditions.foreign(self.told[row], self.told[self.rows])
            self._kept = (start, end, t.to(start.device), noise.to(start.device), told)
        start, end, t, noise, condition = self._kept
        return float(self._loss(net, start, end, t, noise, condition))

    def _place(self, step: int) -> tuple[int, int]:
        """Epoch and place in it of a step; an epoch gives every training row's pairs at most once."""
        if not self._steps:
            self._steps = max(1, len(self.pairs.draw(self.rows, 0).row) // self.batch_size)
        return divmod(step - 1, self._steps)

    def _tensors(self, drawn: Drawn, order: np.ndarray | None = None) -> tuple[torch.Tensor, ...]:
        order = np.arange(len(drawn.row)) if order is None else order
        row = torch.from_numpy(drawn.row[order]).to(self.told.device)
        both = (torch.from_numpy(part[order]).to(row.device) for part in (drawn.start, drawn.end))
        start, end = ((part - self.offset[row]) / self.spread for part in both)
        return start, end, row

    def _loss(
        self,
        net: Any,
        start: torch.Tensor,
        end: torch.Tensor,
        t: torch.Tensor,
        noise: torch.Tensor,
        condition: torch.Tensor,
    ) -> torch.Tensor:
        points, target = self.equations.practise(start, end, t, noise)
        source = start if self.equations.sees_source else start[:, :0]
        fields = net(points, t[:, 0], condition, source).float()
        weight = self.spread.square()  # so that errors are those of the latent space, where large axes count more
        fields = fields * self.equations.gain(t[:, :, None])
        return ((fields - target).square() * (weight / weight.mean())).mean()
