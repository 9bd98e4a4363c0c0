"""What a GEARS-style network trains on: the deviation from the context mean, in minibatches of rows or their cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import torch
from scipy import sparse
from torch import nn

from embbench.core import Inputs
from embbench.heads._gears import Neighbourhood
from embbench.heads._gears_net import Loss
from embbench.heads._means import context_mean
from embbench.heads._torch import RowEncoder

HIDDEN_CONTEXT = 0.1  # share of training rows whose context one-hot is hidden: unseen contexts are practised
HIDDEN_STATE = 0.5  # share of training rows whose own free state is hidden: unseen perturbations are practised


Read: TypeAlias = tuple[torch.Tensor, sparse.csr_matrix, sparse.csr_matrix]  # what a `Reader` gives


@dataclass(frozen=True)
class Base:
    """The context mean of the training rows, and the scale of deviations from it.

    Parameters
    ----------
    context : (c,) training contexts, ascending.
    means : (c + 1, g) their means, float64; last, the mean over contexts.
    scale : root mean square deviation; 0 where every row equals its context's mean.
    """

    context: np.ndarray
    means: np.ndarray
    scale: float

    @classmethod
    def fitted(cls, context: np.ndarray, Y: np.ndarray) -> Self:
        """From training contexts (n,) and effects (n, g)."""
        codes, place = np.unique(context, return_inverse=True)
        means = context_mean(np.append(codes, -1), context) @ Y.astype(np.float64)  # -1 is no context's code
        scale = float(np.sqrt(np.square(Y - means[place]).mean())) if Y.size else 0.0
        # Deviations of the size of float32 rounding are none.
        return cls(codes, means, scale if scale > 1e-6 * np.abs(Y).max(initial=0) else 0.0)

    def __call__(self, context: np.ndarray) -> np.ndarray:
        """Context means (n, g), float64, of context codes (n,)."""
        place = np.minimum(np.searchsorted(self.context, context), len(self.context) - 1)
        return np.asarray(self.means[np.where(self.context[place] == context, place, -1)])


@dataclass(frozen=True)
class Reader:
    """Rows as the network reads them: features, and weights of the training entities' free states."""

    encoder: RowEncoder
    neighbourhood: Neighbourhood

    def __call__(self, inputs: Inputs) -> Read:
        """Features (n, p), weights of own entities and of near ones (n, e)."""
        return (torch.from_numpy(self.encoder(inputs)), *self.neighbourhood.weights(inputs))


def cell_targets(inputs: Inputs, Y: np.ndarray, cells: int, seed: int) -> np.ndarray:
    """Effects of single cells, shape (n, cells, g), float16: ``Y`` plus a cell's deviation from its row's mean cell.

    So their mean over all cells of a row is the row's effect, however that was matched to controls. Rows of fewer cells
    give some of them repeatedly; a row without cells gives its effect.
    """
    out = np.repeat(Y[:, None].astype(np.float16), cells, axis=1)
    for row in range(len(inputs) if inputs.cells is not None else 0):
        pool = inputs.cells.perturbed(row)
        if len(pool):
            rng = np.random.default_rng([seed, row])
            chosen = rng.permutation(len(pool))[:cells] if len(pool) >= cells else rng.integers(len(pool), size=cells)
            out[row] = Y[row] + pool[chosen] - pool.mean(axis=0, dtype=np.float64)
    return out


@dataclass(frozen=True)
class Batches:
    """Training rows and how a minibatch of them is made; everything random comes from the step and torch's stream.

    Parameters
    ----------
    x, own, near : see `Reader`.
    target, base : (n, g) or (n, cells, g) deviations in units of the scale; (n, g) context means in the same.
    unit : how many units of the loss one unit of the scale is.
    contexts : number of one-hot columns that lead ``x``.
    size, seed, loss, graph : rows of a batch, of the order of rows, `Loss`, gene graph (g, g) on the network's device.
    """

    x: torch.Tensor
    own: sparse.csr_matrix
    near: sparse.csr_matrix
    target: torch.Tensor
    base: torch.Tensor
    unit: float
    contexts: int
    size: int
    seed: int
    loss: Loss
    graph: torch.Tensor

    @classmethod
    def made(
        cls, read: Read, target: np.ndarray, base: Base, context: np.ndarray, size: int, seed: int, loss: Loss,
        graph: torch.Tensor,
    ) -> Self:  # fmt: skip
        """From what a `Reader` gave for rows, their effects (n, g) or cells' (n, cells, g), and their contexts."""
        means, on_cells = base(context).astype(np.float32), target.ndim == 3
        scaled = ((target - (means[:, None] if on_cells else means)) / np.float32(base.scale)).astype(target.dtype)
        # Cells vary more than effects do, and a power loss wants a unit scale of what it is given.
        unit = 1 / float(np.sqrt(np.square(scaled, dtype=np.float32).mean())) if on_cells else 1.0
        lifted = torch.from_numpy(means / np.float32(base.scale))
        return cls(*read, torch.from_numpy(scaled), lifted, unit, len(base.context), size, seed, loss, graph)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.graph.device

    def step(self, net: nn.Module, step: int) -> torch.Tensor:
        """Loss of one minibatch; ``step`` counts from 1."""
        epoch, place = divmod(step - 1, -(-len(self.x) // self.size))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.x))
        rows = order[place * self.size : (place + 1) * self.size]
        shown = torch.rand(2, len(rows), 1)
        lent = lend(self.own[rows], self.near[rows], shown[0] >= HIDDEN_STATE)
        x = self.x[rows]
        if self.contexts > 1:
            x[:, : self.contexts] *= shown[1] >= HIDDEN_CONTEXT
        out, log_variance = net(self.graph, x.to(self.device), lent.to(self.device))
        target, base = (part[rows].to(self.device).float() * self.unit for part in (self.target, self.base))
        return self.loss(out * self.unit, target, base, log_variance)


def lend(own: sparse.csr_matrix, near: sparse.csr_matrix, shown: torch.Tensor | None = None) -> torch.Tensor:
    """Weights of free states (b, e), dense float32; rows whose ``shown`` (b, 1) is False lend their own none."""
    self_part = torch.from_numpy(own.toarray())
    return (self_part if shown is None else self_part * shown) + torch.from_numpy(near.toarray())


def sparse_tensor(matrix: sparse.csr_matrix, device: torch.device) -> torch.Tensor:
    """A float32 CSR matrix as a sparse torch tensor (coordinates: torch calls its CSR layout unfinished)."""
    coo = matrix.tocoo()
    where = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    return (
        torch.sparse_coo_tensor(where, torch.from_numpy(coo.data), coo.shape, check_invariants=False)
        .coalesce()
        .to(device)
    )
