"""Heads that generate cells: a conditional field that carries control cells to perturbed ones in a latent space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch

from embbench.core import HeadDefaults, Inputs, Sources, draw_sources
from embbench.heads._anchor import Anchor, means_only
from embbench.heads._carrier import Carrier, flat, row_noise
from embbench.heads._conditions import Conditions
from embbench.heads._fieldfit import FieldLoss, precise
from embbench.heads._generative_settings import Settings
from embbench.heads._latent import Space, material, residual_axes
from embbench.heads._networks import Field
from embbench.heads._pairs import CellPairs, EffectPairs, Pairs
from embbench.heads._smoother import check_rows
from embbench.heads._torch import pick_device, seeded
from embbench.heads._training import Plan, train_steps
from embbench.numerics.folds import inner_folds

MEAN_CELLS = 128  # start points that a predicted mean effect is taken over
CHUNK = 4096  # cells that are carried at a time

Vector = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (cells (b, k), times (b,)) -> fields (b, outputs, k)
Noise = Callable[[], torch.Tensor]  # a fresh draw of standard normal (b, k)


@dataclass(eq=False)
class Generative(Settings, HeadDefaults):
    """What flow matching, diffusion and bridges share; a subclass gives the equations.

    A population is made from half-A control cells of the query's context: each is moved by the anchor's mean effect
    (kernel ridge, see `Anchor`), then carried in the latent space by a learnt field; what the field changes is added to
    the cell's expression; what the latent space does not hold stays the control cell's own. An untrained field
    changes nothing (diffusion: Gaussian cells around the anchor), so training starts from a strong simple predictor,
    and early stopping on held-out training units returns to it where cells have nothing more to tell. Where the
    training rows hold one unit only there is nothing to hold out, and a fifth of the steps are made. On screens without
    cells the same field is trained on effects: from Gaussian noise to the scores of an effect's deviation from the
    anchor on principal axes of those deviations.

    The parameters are those of `Settings`.

    References
    ----------
    Hidden conditions and guidance: Ho and Salimans (2022), equation 6.
    """

    trained: ClassVar[bool] = True
    scope: ClassVar[str] = "joint"
    targets: ClassVar[tuple[str, ...]] = ("effects", "population")
    outputs: ClassVar[int] = 1  # vector fields of the network
    sees_source: ClassVar[bool] = False  # the network reads the start point beside the moving cell

    def practise(
        self, start: torch.Tensor, end: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (b, k) of pairs at times ``t`` (b, 1), and what the fields should be there, (b, outputs, k)."""
        raise NotImplementedError(f"{type(self).__name__} must implement practise")

    def gain(self, t: torch.Tensor) -> torch.Tensor | float:
        """What the network's output is multiplied by at times ``t`` to give the fields, in the loss."""
        return 1.0

    def carry(self, vector: Vector, start: torch.Tensor, noise: Noise) -> torch.Tensor:
        """End points (b, k) of start points (b, k)."""
        raise NotImplementedError(f"{type(self).__name__} must implement carry")

    def mean_change(self, vector: Vector, start: torch.Tensor, noise: Noise) -> torch.Tensor:
        """Expected end point minus start point (b, k), given the start point, by one evaluation of the fields."""
        raise NotImplementedError(f"{type(self).__name__} must implement mean_change")

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Learn from training rows (n, ...) and effects ``Y`` of shape (n, g), and from their cells where there are
        some; ``observed`` is not used, since unobserved entries of ``Y`` come filled.

        Raises
        ------
        ValueError
            ``Y`` has another number of rows, or the screen has cells but none of a training row.
        """
        check_rows(self, inputs, Y)
        anchor = None
        if self.anchor != "none":
            anchor = Anchor.fitted(inputs if self.anchor == "kernel" else means_only(inputs), Y)
        # Training cells are moved by their own mean effect, so that the field learns the shape of a population and
        # leaves means, which it would overfit, to the anchor. Effects alone have no shape: there the field learns what
        # the anchor misses of rows that it has not seen.
        moves = np.zeros_like(Y)
        if anchor is not None:
            moves = Y if inputs.cells is not None else anchor.out_of_unit
        pairs, space, spread = self._pairs(inputs, Y, moves)
        conditions = Conditions.fitted(inputs, len(spread))
        device = pick_device(self.device)
        carrier = Carrier(anchor, self.anchor, space, spread, conditions, Y.shape[1], inputs.cells is not None)
        latent = carrier.latent(moves)
        rows, held = pairs.having(len(inputs)), None
        if not len(rows):
            raise ValueError(f"{type(self).__name__}.fit: none of the {len(inputs)} training rows has perturbed cells")
        folds = inner_folds([inputs.units[i] for i in rows], 5, self.seed % 2**32)
        if folds:
            rows, held = (rows[part] for part in folds[0])
        loss = FieldLoss(
            self,
            pairs,
            conditions,
            torch.from_numpy(conditions(inputs, latent / spread)).to(device),
            torch.from_numpy(latent * np.float32(carrier.on_cells)).to(device),
            torch.from_numpy(spread).to(device),
            rows,
            held,
            self.drop_condition,
            self.batch_size,
            self.seed % 2**31,
        )
        self._train(loss, self.steps if folds else max(1, self.steps // 5), device)
        self.carrier_ = carrier
        return self

    def _pairs(self, inputs: Inputs, Y: np.ndarray, moves: np.ndarray) -> tuple[Pairs, Space, np.ndarray]:
        if inputs.cells is None:
            space, scores, spread = residual_axes(Y - moves, self.latent_dim)
            return EffectPairs(scores, spread, max(4, self.block // 8), self.seed), space, spread
        made = material(inputs, self.latent_dim, self.latent)
        epsilon = self._regularisation()
        pairs = CellPairs(made, inputs.context, moves, self.coupling, self.block, epsilon, self.seed)
        return pairs, made.space, made.spread

    def _regularisation(self) -> float:
        return self.epsilon

    def _train(self, loss: FieldLoss, steps: int, device: torch.device) -> None:
        k = loss.offset.shape[1]
        seed = self.seed % 2**31
        plan = Plan(steps, self.lr, self.weight_decay, self.average, self.check_every, self.patience, seed)
        more = k if self.sees_source else 0
        with seeded(seed), precise(device, self.precision):
            told = loss.told.shape[1]
            net = Field(k, told, more, self.outputs, self.width, self.depth, self.dropout, self.network).to(device)
            if self.compile:
                net.compile()
            held_out = None if loss.held is None else loss.held_out
            self.steps_ = train_steps(net, loss.step, held_out, plan, self.monitor)
        self.net_ = net.cpu().eval()

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n_query, g), float32: the anchor's, and the mean change of 128 start points of each row (64
        control cells and their mirror images about the control mean); RuntimeError before ``fit``.
        """
        self._check("predict")
        made = self.carrier_
        moves = made.moves(inputs)
        if not len(moves):
            return moves
        start = made.mirrored(inputs, moves, MEAN_CELLS // 2, self.seed)
        end = self._carried(inputs, moves, start, mean=True)
        means = [made.space.change(*pair).mean(axis=0) for pair in zip(start, end, strict=True)]
        return moves + np.stack(means).astype(np.float32)

    def sample(self, inputs: Inputs, n_cells: int) -> np.ndarray:
        """Cells, shape (n_query, n_cells, g), float32, log1p expression, made of the control cells that `sources`
        names; RuntimeError before ``fit``, or after one without cells.
        """
        self._check("sample")
        if not self.carrier_.on_cells or inputs.cells is None:
            raise RuntimeError(f"{type(self).__name__}.sample needs a fit on single cells; this one had effects only")
        moves = self.carrier_.moves(inputs)
        if not len(moves):
            return np.zeros((0, n_cells, moves.shape[1]), dtype=np.float32)
        start, cells = self.carrier_.starts(inputs, moves, self.sources(inputs, n_cells))
        end = self._carried(inputs, moves, start, mean=False)
        for row, pair in enumerate(zip(start, end, strict=True)):
            cells[row] += moves[row] + self.carrier_.space.change(*pair)
        return cells

    def sources(self, inputs: Inputs, n_cells: int) -> Sources:
        """The control cells that `sample` starts from, (n_query, n_cells) of them."""
        return draw_sources(inputs, n_cells, self.seed)

    def _check(self, method: str) -> None:
        if not hasattr(self, "carrier_"):
            raise RuntimeError(f"{type(self).__name__}.{method} called before fit")

    @torch.no_grad()
    def _carried(self, inputs: Inputs, moves: np.ndarray, start: np.ndarray, *, mean: bool) -> np.ndarray:
        """Where start points (n, m, k) in the latent space end, or, with ``mean``, end on average given each."""
        made, device = self.carrier_, pick_device(self.device)
        latent = made.latent(moves)
        told = torch.from_numpy(made.conditions(inputs, latent / made.spread))
        spread = torch.from_numpy(made.spread).to(device)
        offset = latent * np.float32(made.on_cells)
        net, m = self.net_.to(device), start.shape[1]
        out = np.empty_like(start)
        step = max(1, CHUNK // m)
        with precise(device, self.precision):
            for first in range(0, len(start), step):
                rows = np.arange(first, min(first + step, len(start)))
                x = torch.from_numpy(flat(start[rows] - offset[rows, None])).to(device) / spread
                vector = self._vector(net, told[rows].to(device).repeat_interleave(m, dim=0), x)
                noise = row_noise(inputs.rows(rows), x, m, self.seed, mirrored=mean)
                ended = x + self.mean_change(vector, x, noise) if mean else self.carry(vector, x, noise)
                here = (ended * spread).float().cpu().numpy().reshape(len(rows), m, -1)
                out[rows] = here + offset[rows, None]
                self.monitor.report("sampling", int(rows[-1]) + 1, len(start))
        self.net_ = net.cpu()
        return out

    def _vector(self, net: Field, told: torch.Tensor, start: torch.Tensor) -> Vector:
        """The fields at points and times, guided where guidance is asked for."""
        source = start if self.sees_source else start[:, :0]
        nothing = self.carrier_.conditions.nothing(told) if self.guidance != 1 else None

        def vector(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            plain = net(x, t, told, source).float()
            if nothing is None:
                return plain
            free = net(x, t, nothing, source).float()
            return free + self.guidance * (plain - free)

        return vector
