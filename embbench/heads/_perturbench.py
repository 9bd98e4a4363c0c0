"""Shared by PerturBench's heads: networks from control cell, perturbation and covariates to a perturbed cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import nn

from embbench.core import HeadDefaults, Inputs, Sources, draw_sources
from embbench.heads._perturbench_cells import Matched, baseline_of, controls_of
from embbench.heads._perturbench_nets import DecoderNet, decoder, shares
from embbench.heads._perturbench_task import Part, Task
from embbench.heads._smoother import check_rows, positive, whole
from embbench.heads._torch import RowEncoder, pick_device, seeded
from embbench.heads._training import Plan, train_steps
from embbench.numerics.folds import inner_folds

CHECK = 25  # steps between looks at the held-out units
SUBSET = 256  # control cells that a predicted mean is taken over
VALUES = 1 << 23  # values that pass the network at a time in prediction
REFIT = b"refit "


@dataclass(frozen=True)
class Codes:
    """Rows as a network reads them: perturbation p (n, d), covariates c (n, q) with the context's one-hot first."""

    encoder: RowEncoder

    def __call__(self, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """The two, float32."""
        table, k, d = torch.from_numpy(self.encoder(inputs)), len(self.encoder.contexts), inputs.X.shape[1]
        return table[:, k : k + d].contiguous(), torch.cat([table[:, :k], table[:, k + d :]], dim=1)


class PerturbenchHead(HeadDefaults):
    """Training, prediction and sampling of PerturBench's networks; a head gives the network (`network`).

    Trained on squared error between outputs and observed cells, conditions with equal weight, each cell started from a
    random half-A control cell of its context (and batch, where that has controls); on a screen without cells, on
    control mean plus effect, started from the control mean. A fifth of the units is held out to find the number of
    steps, then all rows are fitted for as many. The effect is the mean output over control cells minus the context's
    control mean: over a fixed 256 of them, corrected for how their mean differs from that of all (regression estimator:
    Cochran 1977, Sampling Techniques, section 7.3).
    """

    trained = True
    scope = "joint"
    needs_baseline = True
    reads_cells: ClassVar[bool] = True  # whether the network reads the control cell

    def _set(
        self, lr: float, weight_decay: float, steps: int, patience: int, batch_size: int, seed: int, device: str
    ) -> None:
        """Check and keep what all these heads have."""
        name = type(self).__name__
        positive(name, lr=lr)
        whole(name, steps=steps, patience=patience, batch_size=batch_size)
        if not 0 <= weight_decay < np.inf:
            raise ValueError(f"{name}: weight_decay must be >= 0, got {weight_decay!r}")
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"{name}: seed must be a whole number >= 0, got {seed!r}")
        self.lr, self.weight_decay, self.steps, self.patience = lr, weight_decay, steps, patience
        self.batch_size, self.seed, self.device = batch_size, seed, device

    def network(self, d: int, q: int, start: Matched) -> nn.Module:
        """The untrained network ``(x0, p, c) -> x``, for codes of widths d and q; ``start`` may set its offsets."""
        raise NotImplementedError(f"{type(self).__name__} must implement network")

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Train on inputs (n, ...) with their cells, or effects ``Y`` (n, g) where there are none; ``observed`` is not
        used, since unobserved entries of ``Y`` come filled.

        Raises
        ------
        ValueError
            No context has control means, or no training row has cells.
        """
        check_rows(self, inputs, Y)
        device = pick_device(self.device)
        inputs = self._seen(inputs)
        self.codes_, self.genes_ = Codes(RowEncoder.fitted(inputs)), Y.shape[1]
        p, c = (part.to(device) for part in self.codes_(inputs))
        folds = inner_folds(inputs.units, 5, self.seed)
        saved, best = self.monitor.load() or b"", CHECK
        matched = Matched.of(inputs, Y, self.seed, device)
        task = Task(matched, p, c, len(self.codes_.encoder.contexts), self.batch_size)
        if saved.startswith(REFIT):
            best = int(saved.partition(b"\n")[0].removeprefix(REFIT))
        elif folds:
            best = self._train(task, *folds[0], steps=self.steps, header=b"search\n")[1]
        everything = np.arange(len(Y))
        self.net_, self.steps_ = self._train(task, everything, None, steps=best, header=b"%b%d\n" % (REFIT, best))
        return self

    def _train(
        self, task: Task, rows: np.ndarray, held: np.ndarray | None, *, steps: int, header: bytes
    ) -> tuple[nn.Module, int]:
        """A network fitted to some rows, on the CPU, and the step at which ``held`` rows were predicted best."""
        plan = Plan(steps, self.lr, self.weight_decay, 0.95, CHECK, self.patience, self.seed)
        with seeded(self.seed):
            net = self.network(task.p.shape[1], task.c.shape[1], task.matched).to(task.p.device)
            look = None if held is None else task.look(held)
            best = train_steps(net, task.loss(rows), look, plan, Part(self.monitor, header))
        return net.cpu().eval(), best

    @torch.no_grad()
    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n, g), float32; RuntimeError before ``fit``."""
        if not hasattr(self, "net_"):
            raise RuntimeError(f"{type(self).__name__}.predict called before fit")
        inputs = self._seen(inputs)
        (p, c), out = self.codes_(inputs), np.empty((len(inputs), self.genes_), dtype=np.float32)
        for code in np.unique(inputs.context).tolist():
            here, base = np.flatnonzero(inputs.context == code), baseline_of(inputs, code)
            x0, mean = self._starts(inputs, code, base)
            for rows in _chunks(here, x0.shape[0] * self.genes_):
                cells = self._cells(x0.expand(len(rows), -1, -1), p[rows], c[rows])
                out[rows] = _regressed(cells, x0, mean).numpy() - base
        return out

    def _sampled(self, inputs: Inputs, n_cells: int) -> np.ndarray:
        """Cells (n, n_cells, g), float32, made of `draw_sources`; RuntimeError before ``fit``."""
        if not hasattr(self, "net_"):
            raise RuntimeError(f"{type(self).__name__}.sample called before fit")
        inputs = self._seen(inputs)
        (p, c), sources = self.codes_(inputs), draw_sources(inputs, n_cells, self.seed)
        out = np.empty((len(inputs), n_cells, self.genes_), dtype=np.float32)
        for rows in _chunks(np.arange(len(inputs)), n_cells * self.genes_):
            x0 = torch.from_numpy(sources.rows(rows).cells(inputs.cells))  # type: ignore[arg-type]
            with torch.no_grad():
                out[rows] = self._cells(x0, p[rows], c[rows]).numpy()
        return out

    def _cells(self, x0: torch.Tensor, p: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Outputs (r, m, g) of rows' control cells (r, m, g), perturbations (r, d) and covariates (r, q)."""
        r, m, _ = x0.shape
        each = (part[:, None].expand(-1, m, -1).reshape(r * m, -1) for part in (p, c))
        return torch.as_tensor(self.net_(x0.reshape(r * m, -1), *each)).reshape(r, m, -1)

    def _starts(self, inputs: Inputs, code: int, base: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Control cells (m, g) that all rows of a context start from, and the mean (g,) over all of its controls."""
        pool = base[None]
        if self.reads_cells and inputs.cells is not None:
            pool = controls_of(inputs.cells, code)
        chosen = np.random.default_rng([self.seed, 1, code]).permutation(len(pool))[:SUBSET]
        mean = pool.mean(axis=0, dtype=np.float64).astype(np.float32)
        return torch.from_numpy(pool[np.sort(chosen)].astype(np.float32)), torch.from_numpy(mean)

    def _seen(self, inputs: Inputs) -> Inputs:
        """The rows as far as the head may read them."""
        return inputs if self.needs_embedding else replace(inputs, X=inputs.X[:, :0])


class CellHead(PerturbenchHead):
    """Heads whose network turns a control cell into a perturbed one."""

    targets = ("effects", "population")

    def sample(self, inputs: Inputs, n_cells: int) -> np.ndarray:
        """Cells (n, n_cells, g) on the log1p scale, float32: one output per control cell of `sources`; RuntimeError
        before ``fit``, ValueError where the screen has no cells.
        """
        return self._sampled(inputs, n_cells)

    def sources(self, inputs: Inputs, n_cells: int) -> Sources:
        """The control cells that `sample` starts from."""
        return draw_sources(inputs, n_cells, self.seed)


class DecoderHead(PerturbenchHead):
    """Heads whose network decodes codes alone, and gives all cells of a condition one prediction.

    Parameters
    ----------
    width, layers : of the decoder's hidden layers, >= 1.
    dropout : share of hidden units left out in training, in [0, 1).
    lr, weight_decay : of AdamW; lr > 0, weight_decay >= 0.
    steps, patience : most optimiser steps, and looks (one each 25 steps) without improvement before stopping, >= 1.
    batch_size : cells of a step, >= 1.
    seed : of the held-out units, the initial weights and the batches.
    device : ``auto`` (cuda where there is one), ``cpu``, ``cuda`` ...
    """

    reads_cells = False

    def __init__(
        self, width: int = 256, layers: int = 2, dropout: float = 0.1, lr: float = 1e-3, weight_decay: float = 1e-5,
        steps: int = 600, patience: int = 6, batch_size: int = 256, seed: int = 0, device: str = "auto",
    ) -> None:  # fmt: skip
        whole(type(self).__name__, width=width, layers=layers)
        shares(type(self).__name__, dropout=dropout)
        self.width, self.layers, self.dropout = width, layers, dropout
        self._set(lr, weight_decay, steps, patience, batch_size, seed, device)

    def network(self, d: int, q: int, start: Matched) -> nn.Module:
        """The untrained network for codes of widths d and q."""
        return DecoderNet(decoder(d + q, self.width, self.layers, self.dropout, start))


def _chunks(rows: np.ndarray, each: int) -> Iterator[np.ndarray]:
    step = max(1, VALUES // max(1, each))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _regressed(cells: torch.Tensor, x0: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Mean (r, g) of outputs (r, m, g), moved along their regression on the starts (m, g) to the starts' mean (g,)."""
    average = x0.mean(dim=0)
    centred = x0 - average
    spread = centred.square().mean(dim=0)
    slope = torch.einsum("rmg,mg->rg", cells, centred) / len(x0) / torch.where(spread > 0, spread, 1.0)
    return cells.mean(dim=1) + slope * (mean - average)
