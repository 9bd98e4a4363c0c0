"""Minibatches and held-out scores of PerturBench's networks, and a monitor for the first or second of two trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from embbench.core import Monitor
from embbench.heads._perturbench_cells import Matched

HELD = 4096  # most cells of held-out units that a look takes
HIDDEN = 0.1  # share of cells whose context is hidden in training, so that unseen contexts are practised


@dataclass(frozen=True)
class Task:
    """What minibatches are drawn from: matched cells, codes of rows, how many columns of c are the one-hot."""

    matched: Matched
    p: torch.Tensor
    c: torch.Tensor
    contexts: int
    size: int

    def loss(self, rows: np.ndarray) -> Callable[[nn.Module, int], torch.Tensor]:
        """Squared error of a minibatch of random conditions among ``rows``, a random cell of each."""
        known = torch.from_numpy(rows).to(self.p.device)
        known = known[self.matched.count[known] > 0]

        def of_step(net: nn.Module, _: int) -> torch.Tensor:
            chosen = known[torch.randint(len(known), (self.size,)).to(known.device)]
            x, x0 = self.matched.draw(chosen)
            c = self.c[chosen]
            if self.contexts > 1:
                shown = (torch.rand(len(c), 1) >= HIDDEN).to(c)
                c = torch.cat([c[:, : self.contexts] * shown, c[:, self.contexts :]], dim=1)
            return nn.functional.mse_loss(net(x0, self.p[chosen], c), x)

        return of_step

    def look(self, rows: np.ndarray) -> Callable[[nn.Module], float] | None:
        """Squared error of the mean cell of held-out conditions, over the same control cells each time.

        Not of the single cells, on which the loss still falls when a network has long begun to trade a biased mean for
        less spread.
        """
        known = torch.from_numpy(rows).to(self.p.device)
        known = known[self.matched.count[known] > 0]
        if not len(known):
            return None
        spans = zip(self.matched.first[known].tolist(), self.matched.count[known].tolist(), strict=True)
        truth = torch.stack([self.matched.cells[first : first + count].mean(dim=0) for first, count in spans])
        each = max(1, min(HELD // len(known), int(self.matched.count[known].max())))
        x0 = torch.stack([self.matched.draw(known)[1] for _ in range(each)])

        def of_net(net: nn.Module) -> float:
            total = sum(net(part, self.p[known], self.c[known]) for part in x0)
            return float(nn.functional.mse_loss(total / each, truth))

        return of_net


class Part:
    """The monitor of one of two trainings: its states carry a header that says which."""

    def __init__(self, monitor: Monitor, header: bytes) -> None:
        self._monitor, self._header = monitor, header

    def due(self) -> bool:
        """As the monitor says."""
        return self._monitor.due()

    def report(self, stage: str, done: int, total: int, note: str = "") -> None:
        """As the monitor does."""
        self._monitor.report(stage, done, total, note)

    def load(self) -> bytes | None:
        """The state of this training, if it is the one that was saved."""
        saved = self._monitor.load()
        return saved.removeprefix(self._header) if saved and saved.startswith(self._header) else None

    def save(self, state: bytes) -> None:
        """Keep the state under the header."""
        self._monitor.save(self._header + state)
