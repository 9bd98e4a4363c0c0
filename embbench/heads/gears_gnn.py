"""A GEARS-style network: states of genes over a co-expression graph, states of perturbations from any embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy import sparse

from embbench.core import HeadDefaults, Inputs, Sources, draw_sources
from embbench.heads._gears import Neighbourhood, gene_graph
from embbench.heads._gears_fit import Base, Batches, Reader, cell_targets, sparse_tensor
from embbench.heads._gears_members import Member, Stage, agreement, factor, train_member
from embbench.heads._gears_net import GeneNet, Loss
from embbench.heads._smoother import check_rows, positive, whole
from embbench.heads._torch import RowEncoder, pick_device
from embbench.heads._training import Plan
from embbench.numerics.folds import inner_folds

FOLDS = 5
AVERAGE = 0.98  # decay of the averaged weights


@dataclass(eq=False)
class GearsGNN(HeadDefaults):
    """GEARS on any frozen embedding: what it predicts is the deviation from the context mean, which starts at 0.

    Genes: trainable vectors, propagated over a co-expression graph (see `gene_graph`). Perturbations: a linear map of
    the row's features (a pair's features are its members' sum) plus free trainable vectors of training entities, which
    reach a row over ``inputs.graph`` (``hops`` propagations), or where there is none over its ``neighbours`` nearest
    training sets by features (see `Neighbourhood`); context (one-hot, vector) and dose are features too. Half of the
    training rows hide their own free vector and a tenth their context, as for an unseen perturbation or context.

    The prediction is the mean over ``members`` networks. Each trains without another fifth of the units (rows with any
    such unit) and stops where its error on them is least. Their predictions of held-out units also give the factor in
    [0, 1] that deviations are multiplied with (see `factor`), so that an embedding that says nothing leaves the context
    mean. With fewer than two units one network makes a tenth of the steps, and the factor is 1.

    It trains on the effects, one row a perturbation. ``cells`` > 0 trains on so many perturbed cells of each row
    instead; since the deviation depends on the row alone, batches of cells share it, and with ``gamma`` 0 and without
    ``uncertainty`` that is the same loss but for the cells' own variance. On screens without cells ``cells`` is not
    used, and co-expression is that of the training effects. Populations are control cells of the query's context moved
    by the predicted effect; ``uncertainty`` adds no noise to them.

    Against GEARS: embeddings of perturbations instead of free vectors only, propagation without self loops mixed into
    the lent state, one hidden layer of the shared decoder, layer normalisation for batch normalisation, no own state
    of a gene for being the perturbed one, and loss terms as `Loss` says.

    Defaults were chosen on four simulated screens and looked at on six more: plain squares gave a smaller L2 than the
    published power 4 in all seven that were informative, and four networks a smaller one than one in all three tried.

    Parameters
    ----------
    hidden, dropout : width of states; share of a row's state left out in training, in [0, 1).
    gamma, direction : of the loss; see `Loss`. GEARS has 2 and 0.1.
    uncertainty, reg : also learn log variances (`predict_log_variance`), and the weight of that term.
    threshold, gene_neighbours, gene_hops : co-expression edges have ``|r|`` above it, at most so many from a gene;
        propagations.
    neighbours, hops : of perturbations.
    cells : perturbed cells of a row to train on; 0 trains on effects.
    members : networks, 1 to 5.
    steps, lr, weight_decay, batch_size : most optimiser steps of each; see `Plan`.
    check_every, patience : looks at held-out units, and how many without improvement end the training.
    seed, device : of everything random; ``auto``, ``cpu``, ``cuda`` ...

    References
    ----------
    Roohani, Huang and Leskovec (2024), Predicting transcriptional outcomes of novel multigene perturbations with GEARS,
    Nature Biotechnology 42:927-935, Methods; Wu et al. (2019), Simplifying Graph Convolutional Networks, section 2.2.

    Examples
    --------
    >>> GearsGNN(dropout=1.0)
    Traceback (most recent call last):
    ValueError: GearsGNN: dropout must be in [0, 1), got 1.0
    """

    hidden: int = 64
    dropout: float = 0.2
    gamma: float = 0.0
    direction: float = 0.0
    uncertainty: bool = False
    reg: float = 0.1
    threshold: float = 0.4
    gene_neighbours: int = 20
    gene_hops: int = 1
    neighbours: int = 15
    hops: int = 1
    cells: int = 0
    members: int = 4
    steps: int = 1500
    lr: float = 6e-3
    weight_decay: float = 1e-2
    batch_size: int = 32
    check_every: int = 25
    patience: int = 8
    seed: int = 0
    device: str = "auto"

    trained: ClassVar[bool] = True
    scope: ClassVar[str] = "joint"
    targets: ClassVar[tuple[str, ...]] = ("effects", "population")
    reads_graph: ClassVar[bool] = True  # takes a graph where there is one

    def __post_init__(self) -> None:
        name = type(self).__name__
        counts = ("hidden", "gene_neighbours", "gene_hops", "neighbours", "hops", "steps", "batch_size", "check_every")
        whole(name, **{field: getattr(self, field) for field in (*counts, "patience")})
        positive(name, lr=self.lr)
        if self.members not in range(1, FOLDS + 1):
            raise ValueError(f"{name}: members must be a whole number from 1 to {FOLDS}, got {self.members!r}")
        tops = {
            "dropout": 1.0,
            "threshold": 1.0,
            **dict.fromkeys(("gamma", "direction", "reg", "weight_decay"), np.inf),
        }
        for field, high in tops.items():
            if not 0 <= getattr(self, field) < high:
                raise ValueError(f"{name}: {field} must be in [0, {high:g}), got {getattr(self, field)!r}")
        for field in ("cells", "seed"):
            if not isinstance(getattr(self, field), int | np.integer) or getattr(self, field) < 0:
                raise ValueError(f"{name}: {field} must be a whole number >= 0, got {getattr(self, field)!r}")
        try:
            pick_device(self.device)
        except RuntimeError as error:
            raise ValueError(f"{name}: device {self.device!r} is not one of torch's: {error}") from error

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Train on inputs (n, ...) and effects ``Y`` of shape (n, g), or on the rows' cells; ``observed`` is not used,
        since unobserved entries of ``Y`` come filled.
        """
        check_rows(self, inputs, Y)
        self.base_, self.members_ = Base.fitted(inputs.context, Y), []
        on_cells = inputs.cells is not None
        several = cell_targets(inputs, Y, self.cells, self.seed) if self.cells and on_cells else None
        graph = self._graph(inputs, Y) if on_cells else None
        stage, folds = Stage(self.monitor), inner_folds(inputs.units, FOLDS, self.seed)
        seen: list[tuple[np.ndarray, np.ndarray]] = []
        for rows, held in folds[: self.members] or [(np.arange(len(inputs)), np.array([], dtype=np.int64))]:
            part = inputs.rows(rows)
            network = self._graph(part, Y[rows]) if graph is None else graph
            asked = (inputs.rows(held), Y[held]) if folds else None
            member = self._member(part, Y[rows] if several is None else several[rows], Y[rows], network, stage, asked)
            if member is None:  # every row equals its context's mean
                continue
            self.members_.append(member)
            if asked is not None:
                wanted = Y[held] - member.base(asked[0].context)
                seen.append(agreement(member.read(asked[0])[0], wanted, asked[0].units))
        self.factor_ = factor(*map(np.concatenate, zip(*seen, strict=True))) if seen else float(not folds)
        return self

    def _graph(self, inputs: Inputs, Y: np.ndarray) -> sparse.csr_matrix:
        return gene_graph(inputs, Y, self.threshold, self.gene_neighbours, self.seed)

    def _member(
        self, inputs: Inputs, target: np.ndarray, Y: np.ndarray, graph: sparse.csr_matrix, stage: Stage,
        held: tuple[Inputs, np.ndarray] | None,
    ) -> Member | None:  # fmt: skip
        """One network trained on rows (n, ...) to give ``target``, (n, g) or (n, cells, g); None: nothing to learn."""
        base = Base.fitted(inputs.context, Y)
        if not base.scale:
            return None
        reader = Reader(RowEncoder.fitted(inputs), Neighbourhood.fitted(inputs, self.neighbours, self.hops))
        batches = Batches.made(
            reader(inputs), target, base, inputs.context, self.batch_size, self.seed,
            Loss(self.gamma, self.direction, self.reg), sparse_tensor(graph, pick_device(self.device)),
        )  # fmt: skip
        steps, seed = self.steps if held is not None else max(1, self.steps // 10), self.seed % 2**31
        plan = Plan(steps, self.lr, self.weight_decay, AVERAGE, self.check_every, self.patience, seed)

        def make(sizes: tuple[int, int, int]) -> GeneNet:
            return GeneNet(*sizes, self.hidden, self.dropout, self.gene_hops, uncertain=self.uncertainty)

        return train_member(make, batches, reader, base, plan, stage, held)

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n_query, g), float32; RuntimeError before ``fit``."""
        if not hasattr(self, "factor_"):
            raise RuntimeError(f"{type(self).__name__}.predict called before fit")
        out = self.base_(inputs.context)
        for member in self.members_:
            out += member.read(inputs)[0] * (self.factor_ / len(self.members_))
        return out.astype(np.float32)

    def predict_log_variance(self, inputs: Inputs) -> np.ndarray:
        """Log variance of effects (of single cells' effects when trained on cells) around the prediction, natural, mean
        over members, shape (n_query, g), float32.

        Raises
        ------
        RuntimeError
            Before ``fit``, or without ``uncertainty``.
        """
        if not hasattr(self, "factor_") or not self.uncertainty:
            raise RuntimeError(f"{type(self).__name__}.predict_log_variance needs uncertainty=True, and a fit")
        spreads = [s for _, s in (member.read(inputs) for member in self.members_) if s is not None]
        if not spreads:
            return np.full((len(inputs), self.base_.means.shape[1]), np.log(np.finfo(np.float32).tiny), np.float32)
        return np.asarray(np.mean(spreads, axis=0, dtype=np.float64), dtype=np.float32)

    def sources(self, inputs: Inputs, n_cells: int) -> Sources:
        """Control cells that `sample` moves; ValueError on screens without cells."""
        return draw_sources(inputs, n_cells, self.seed)

    def sample(self, inputs: Inputs, n_cells: int) -> np.ndarray:
        """Cells on the expression scale, shape (n_query, n_cells, g), float32: control cells plus the predicted effect.

        Raises
        ------
        ValueError
            The screen has no cells.
        """
        effect = self.predict(inputs)
        if inputs.cells is None:
            raise ValueError("GearsGNN.sample: the screen has no single cells to start a population from")
        cells = self.sources(inputs, n_cells).cells(inputs.cells)
        cells += effect[:, None]
        return cells
