"""Members of a GEARS-style ensemble: each trains with another fifth of the units held out to say when to stop."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from embbench.core import Inputs, Monitor
from embbench.heads._gears_fit import Base, Batches, Reader, lend
from embbench.heads._gears_net import GeneNet
from embbench.heads._torch import seeded
from embbench.heads._training import Plan, train_steps

CHUNK = 512  # rows predicted at a time


class Stage:
    """The monitor of one member's training: what it saves includes the members finished before.

    Parameters
    ----------
    monitor : the head's.

    Attributes
    ----------
    found : state and number of steps of each member that was finished when the monitor saved last.
    done : the same of the members that are finished now.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor, self.due, self.report = monitor, monitor.due, monitor.report
        saved = monitor.load()
        body = {"done": [], "state": None} if saved is None else torch.load(io.BytesIO(saved), weights_only=True)
        self.found: list[dict[str, Any]] = body["done"]
        self.done: list[dict[str, Any]] = []
        self._left: torch.Tensor | None = body["state"]

    def load(self) -> bytes | None:
        """The state that the member in training had when it was saved last; None for members after it."""
        if self._left is None or len(self.done) != len(self.found):
            return None
        return self._left.numpy().tobytes()

    def save(self, state: bytes) -> None:
        """Keep ``state`` and the finished members."""
        buffer = io.BytesIO()
        torch.save({"done": self.done, "state": torch.frombuffer(bytearray(state), dtype=torch.uint8)}, buffer)
        self.monitor.save(buffer.getvalue())


@dataclass(frozen=True)
class Member:
    """A trained network and how it reads rows.

    Parameters
    ----------
    reader, net, genes : the network, what it reads, and its states of genes (g, hidden).
    base : context means of the rows it was trained on.
    log_unit : natural log of the squared unit of its log variances.
    steps : optimiser steps it was trained for.
    """

    reader: Reader
    net: GeneNet
    genes: torch.Tensor
    base: Base
    log_unit: float
    steps: int

    @torch.no_grad()
    def read(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray | None]:
        """Deviations from the context mean and log variances where they are learnt, both (n, g), float32."""
        means, spreads = [np.zeros((0, len(self.genes)), np.float32)], [np.zeros((0, len(self.genes)), np.float32)]
        for start in range(0, len(inputs), CHUNK):
            x, own, near = self.reader(inputs.rows(np.arange(start, min(start + CHUNK, len(inputs)))))
            mean, spread = self.net.read(self.genes, self.net.row_states(x, lend(own, near)))
            means.append(mean.numpy() * np.float32(self.base.scale))
            if spread is not None:
                spreads.append(spread.numpy() + np.float32(self.log_unit))
        return np.concatenate(means), None if self.net.spread is None else np.concatenate(spreads)


def train_member(
    make: Callable[[tuple[int, int, int]], GeneNet],
    batches: Batches,
    reader: Reader,
    base: Base,
    plan: Plan,
    stage: Stage,
    held: tuple[Inputs, np.ndarray] | None,
) -> Member:
    """Train one member, or take it from what an interrupted fit had finished.

    Parameters
    ----------
    make : the network, given numbers of features, entities and genes.
    batches, reader, base, plan : what it trains on and how.
    stage : monitor; the finished member is added to it.
    held : held-out rows and their effects (m, g); None trains for all of the plan's steps.
    """
    index = len(stage.done)
    with seeded(plan.seed + index):
        net = make((batches.x.shape[1], batches.own.shape[1], batches.base.shape[1])).to(batches.device)
        if index < len(stage.found):
            net.load_state_dict(stage.found[index]["net"])
            steps = int(stage.found[index]["steps"])
        else:
            score = None if held is None else _score(*held, batches, reader, base)
            steps = train_steps(net, batches.step, score, replace(plan, seed=plan.seed + index), stage)
    with torch.no_grad():
        genes = net.gene_states(batches.graph).cpu()
    net = net.cpu().eval()
    stage.done.append({"net": net.state_dict(), "steps": steps})
    return Member(reader, net, genes, base, 2 * float(np.log(base.scale / batches.unit)), steps)


def _score(query: Inputs, Y: np.ndarray, batches: Batches, reader: Reader, base: Base) -> Callable[[nn.Module], float]:
    """Squared error of a network on held-out rows, in units of the scale."""
    device = batches.device
    x, own, near = reader(query)
    x, lent = x.to(device), lend(own, near).to(device)
    wanted = torch.from_numpy(((Y - base(query.context)) / base.scale).astype(np.float32)).to(device)

    def score(net: nn.Module) -> float:
        return float((net(batches.graph, x, lent)[0] - wanted).square().mean())

    return score


def agreement(
    moved: np.ndarray, wanted: np.ndarray, units: tuple[tuple[int, ...], ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Products with the wanted deviations and squared norms of predicted ones (n, g), both summed over the rows of each
    set of units.
    """
    place: dict[tuple[int, ...], int] = {}
    code = np.array([place.setdefault(row, len(place)) for row in units])
    moved = moved.astype(np.float64)
    return np.bincount(code, (moved * wanted).sum(axis=1)), np.bincount(code, np.square(moved).sum(axis=1))


def factor(products: np.ndarray, norms: np.ndarray) -> float:
    """What predicted deviations are multiplied with: least squares, within [0, 1]; 0 where the squared error falls by
    less than one standard error over units (m,), since early stopping has looked at the same units.

    References
    ----------
    Breiman et al. (1984), Classification and Regression Trees, section 3.4.3 (the one-standard-error rule).

    Examples
    --------
    >>> two = np.array([2.0, 2.0])
    >>> factor(np.array([1.0, 1.0]), two), factor(np.array([9.0, -8.0]), two)
    (0.5, 0.0)
    """
    if not norms.sum():
        return 0.0
    best = float(np.clip(products.sum() / norms.sum(), 0, 1))
    gain = best * (2 * products - best * norms)
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
    return best if gain.mean() > error else 0.0
