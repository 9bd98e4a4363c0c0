"""Rows of several embeddings as tokens, and training of a fusion network whose members sit on folds of units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from embbench.core import HeadDefaults, Inputs
from embbench.heads._fusion_net import FusionNet, drop_blocks
from embbench.heads._smoother import positive, whole
from embbench.heads._torch import RowEncoder, pick_device, seeded
from embbench.heads._training import Plan, train_steps
from embbench.numerics.folds import inner_folds

CHUNK = 1024  # rows that pass the network at a time outside training
HIDDEN = 0.1  # share of training rows whose context is hidden, so that unseen contexts are practised
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # outputs (K, m, r), row numbers (K, m) -> losses (K, m)
Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Tokens:
    """Blocks and context of rows as numbers, fitted on training rows: each block centred and on one scale over the rows
    that have it, 0 where it is missing; the context as in `RowEncoder`.

    Examples
    --------
    >>> rows = Inputs(np.array([[1.0], [3.0], [0.0]]), np.zeros(3, int), None, (), (("a", slice(0, 1)),))
    >>> rows = replace(rows, found=np.array([[True], [True], [False]]))
    >>> [part.ravel().tolist() for part in Tokens.fitted(rows)(rows)]
    [[-1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [True, True, False]]
    """

    blocks: tuple[tuple[str, slice], ...]
    mean: np.ndarray
    scale: np.ndarray
    context: RowEncoder

    @classmethod
    def fitted(cls, inputs: Inputs) -> Tokens:
        """Means and scales of features (n, d); without named blocks, all columns are one block."""
        blocks = inputs.blocks or ((("X", slice(0, inputs.X.shape[1])),) if inputs.X.shape[1] else ())
        mean, scale = np.zeros(inputs.X.shape[1]), np.ones(inputs.X.shape[1])
        for (_, where), has in zip(blocks, found_blocks(inputs, len(blocks)).T, strict=True):
            part = inputs.X[has, where].astype(np.float64)
            if part.size:
                mean[where] = part.mean(axis=0)
                scale[where] = np.sqrt(np.square(part - mean[where]).mean()) or 1.0
        return cls(blocks, mean, scale, RowEncoder.fitted(_bare(inputs)))

    def __call__(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features (n, d) float32, context (n, p) float32 with the one-hot first, and blocks found (n, blocks)."""
        found = found_blocks(inputs, len(self.blocks))
        X = ((inputs.X - self.mean) / self.scale).astype(np.float32)
        for (_, where), has in zip(self.blocks, found.T, strict=True):
            X[~has, where] = 0.0
        return X, self.context(_bare(inputs)), found


def found_blocks(inputs: Inputs, n_blocks: int) -> np.ndarray:
    """Which rows have which block, bool (n, n_blocks); all where ``inputs`` do not say.

    Raises
    ------
    ValueError
        The rows come with another number of blocks.
    """
    if inputs.found is None or not inputs.blocks:
        return np.ones((len(inputs), n_blocks), dtype=bool)
    if inputs.found.shape[1] != n_blocks:
        raise ValueError(f"fusion: fitted on {n_blocks} blocks, found {inputs.found.shape[1]} in the rows asked")
    return inputs.found.astype(bool)


def _bare(inputs: Inputs) -> Inputs:
    """The rows without features."""
    return replace(inputs, X=np.zeros((len(inputs), 0), dtype=np.float32))


@dataclass(frozen=True)
class Members:
    """Training rows on a device, and for each member the rows that it is fitted to and those that judge it.

    Parameters
    ----------
    x, context, found : (n, d), (n, p), (n, blocks).
    n_contexts : how many columns of ``context`` are the one-hot.
    fit, held : (K, m) row numbers, padded.
    n_fit, n_held : (K,) how many of them count.
    """

    x: torch.Tensor
    context: torch.Tensor
    found: torch.Tensor
    n_contexts: int
    fit: torch.Tensor
    held: torch.Tensor
    n_fit: torch.Tensor
    n_held: torch.Tensor

    @classmethod
    def of(cls, inputs: Inputs, tokens: Tokens, folds: Folds, device: torch.device) -> Members:
        """The rows of ``inputs``, one member per fold (fit rows, held-out rows)."""
        x, context, found = (torch.from_numpy(part).to(device) for part in tokens(inputs))
        fit, held = (_padded([fold[side] for fold in folds]) for side in (0, 1))
        parts = (torch.from_numpy(part).to(device) for part in (fit[0], held[0], fit[1], held[1]))
        return cls(x, context, found, len(tokens.context.contexts), *parts)

    def loss(self, net: nn.Module, loss_of: Loss, size: int, drop: float) -> torch.Tensor:
        """Mean loss of ``size`` random fit rows of each member, with blocks and contexts hidden at random."""
        luck = torch.rand(len(self.fit), size).to(self.x.device)
        rows = self.fit.gather(1, (luck * self.n_fit[:, None]).long())
        context = self.context[rows]
        if self.n_contexts > 1:
            shown = torch.rand(*rows.shape, 1, device=context.device) >= HIDDEN
            context = torch.cat([context[..., : self.n_contexts] * shown, context[..., self.n_contexts :]], dim=-1)
        return loss_of(net(self.x[rows], context, drop_blocks(self.found[rows], drop)), rows).mean()

    def out_of_fold(self, net: nn.Module) -> torch.Tensor:
        """Outputs (K, m, n_out) of each member for its held-out rows, padded."""
        parts = [net(self.x[r], self.context[r], self.found[r]) for r in self.held.split(CHUNK, dim=1)]
        return torch.cat(parts, dim=1)

    def held_loss(self, out: torch.Tensor, loss_of: Loss) -> float:
        """Mean loss over the held-out rows of all members, each row once, of outputs (K, m, n_out)."""
        counts = torch.arange(self.held.shape[1], device=out.device) < self.n_held[:, None]
        pairs = zip(out.split(CHUNK, dim=1), self.held.split(CHUNK, dim=1), strict=True)
        losses = torch.cat([loss_of(part, rows) for part, rows in pairs], dim=1)
        return float((losses * counts).sum() / counts.sum())


def _padded(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (K, longest), filled up with each one's first, and how many count (K,)."""
    longest = max(len(part) for part in rows)
    table = np.stack([np.append(part, np.full(longest - len(part), part[0])) for part in rows])
    return table.astype(np.int64), np.array([len(part) for part in rows], dtype=np.int64)


class FusionHead(HeadDefaults):
    """What fusion heads share: options, and a network of one member per fold of units.

    Members are trained together and each is fitted without its own fold, so that every training row is predicted by a
    member that has not seen its units; training stops where the loss of these predictions is lowest.

    Parameters
    ----------
    width, depth, heads : of the transformer encoder; ``heads`` divides ``width``.
    dropout, drop_block : shares of hidden units and of whole blocks left out in training, in [0, 1).
    lr, weight_decay : of AdamW; lr > 0, weight_decay >= 0.
    steps, patience : most optimiser steps, and looks (one each 20 steps) without improvement before stopping, >= 1.
    batch_size : training rows of a step, >= 1.
    rank : most principal axes of the targets to predict, >= 1.
    folds : members, >= 2.
    seed : of the folds, the initial weights, the batches and dropout.
    device : ``auto`` (cuda where there is one), ``cpu``, ``cuda`` ...
    """

    tokens_: Tokens
    handles_missing = True
    trained = True
    scope = "joint"

    def __init__(
        self, width: int = 64, depth: int = 1, heads: int = 4, dropout: float = 0.0, drop_block: float = 0.05,
        lr: float = 2e-3, weight_decay: float = 0.1, steps: int = 1000, patience: int = 8, batch_size: int = 64,
        rank: int = 64, folds: int = 5, seed: int = 0, device: str = "auto",
    ) -> None:  # fmt: skip
        name = type(self).__name__
        whole(name, width=width, depth=depth, heads=heads, steps=steps, patience=patience, batch_size=batch_size)
        whole(name, rank=rank)
        positive(name, lr=lr)
        for option, share in (("dropout", dropout), ("drop_block", drop_block)):
            if not 0 <= share < 1:
                raise ValueError(f"{name}: {option} must be in [0, 1), got {share!r}")
        if width % heads:
            raise ValueError(f"{name}: heads must divide width {width}, got {heads}")
        if not 0 <= weight_decay < np.inf:
            raise ValueError(f"{name}: weight_decay must be >= 0, got {weight_decay!r}")
        if not isinstance(folds, int | np.integer) or folds < 2:
            raise ValueError(f"{name}: folds must be a whole number >= 2, got {folds!r}")
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"{name}: seed must be a whole number >= 0, got {seed!r}")
        self.width, self.depth, self.heads, self.dropout, self.drop_block = width, depth, heads, dropout, drop_block
        self.lr, self.weight_decay, self.steps, self.patience = lr, weight_decay, steps, patience
        self.batch_size, self.rank, self.folds, self.seed, self.device = batch_size, rank, folds, seed, device

    def _folds(self, inputs: Inputs) -> Folds:
        """Fit and held-out rows of each member; none with fewer than two units."""
        return inner_folds(inputs.units, self.folds, self.seed)

    def _train(
        self, inputs: Inputs, folds: Folds, n_out: int, loss_of: Callable[[torch.device], Loss]
    ) -> tuple[torch.Tensor, Callable[[float], float]]:
        """Train the members on rows whose ``tokens_`` are fitted.

        Returns
        -------
        Outputs (K, m, n_out) of the held-out rows, padded, on the CPU; and the loss of these rows as a function of a
        factor of the outputs.
        """
        device = pick_device(self.device)
        members = Members.of(inputs, self.tokens_, folds, device)
        loss = loss_of(device)
        plan = Plan(self.steps, self.lr, self.weight_decay, 0.95, 20, self.patience, self.seed)
        with seeded(self.seed):
            slices = tuple(where for _, where in self.tokens_.blocks)
            shape = (self.width, self.heads, self.depth, self.dropout)
            net = FusionNet(len(folds), n_out, slices, members.context.shape[1], *shape).to(device)
            self.steps_ = train_steps(
                net,
                lambda net, step: members.loss(net, loss, self.batch_size, self.drop_block),
                lambda net: members.held_loss(members.out_of_fold(net), loss),
                plan,
                self.monitor,
            )
            with torch.no_grad():
                out = members.out_of_fold(net.eval())
        self.net_ = net.cpu()
        return out.cpu(), lambda factor: members.held_loss(out * factor, loss)

    @torch.no_grad()
    def _outputs(self, inputs: Inputs) -> torch.Tensor:
        """Outputs (K, n, n_out) of all members for all rows."""
        parts = [torch.from_numpy(part) for part in self.tokens_(inputs)]
        members = len(self.net_.query)
        chunks = zip(*(part.split(CHUNK) for part in parts), strict=True)
        return torch.cat([self.net_(*(part.expand(members, -1, -1) for part in chunk)) for chunk in chunks], dim=1)
