"""Network and loss of the GEARS-style head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

BLOCK = 2**17  # values of a (rows, genes, width) block that are worked on at a time: they stay in a core's cache
LENT = 2.0  # free states start at 0 and move in steps of the learning rate; doubled, they keep pace with the features
WIDEST = 8.0  # log variances stay within this of the unit scale


class Readout(torch.autograd.Function):
    """``out[b, u] = sum_m w[u, m] relu(gene[u, m] + row[b, m])``, without ever holding all (rows, genes, width) values.

    Both passes go over blocks of genes; the backward pass computes the activations again.
    """

    @staticmethod
    def forward(ctx: Any, gene: torch.Tensor, row: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Outputs (b, g) of gene states (g, m), row states (b, m) and weights (g, m)."""
        ctx.save_for_backward(gene, row, weight)
        out = row.new_empty(len(row), len(gene))
        for part in _parts(gene, row):
            active = (row[:, None] + gene[part]).relu_()
            out[:, part] = active.mul_(weight[part]).sum(dim=2)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """Gradients of the three arguments, given that of the outputs (b, g)."""
        gene, row, weight = ctx.saved_tensors
        to_gene, to_row, to_weight = torch.empty_like(gene), torch.zeros_like(row), torch.empty_like(weight)
        for part in _parts(gene, row):
            active = (row[:, None] + gene[part]).relu_()
            here = grad[:, part]
            to_weight[part] = (active * here[:, :, None]).sum(dim=0)
            inner = active.sign_().mul_(here[:, :, None])
            to_gene[part] = inner.sum(dim=0) * weight[part]
            to_row += inner.mul_(weight[part]).sum(dim=1)
        return to_gene, to_row, to_weight


def _parts(gene: torch.Tensor, row: torch.Tensor) -> list[slice]:
    size = len(gene) if gene.is_cuda else max(1, BLOCK // max(1, row.numel()))
    return [slice(i, i + size) for i in range(0, len(gene), size)]


class Propagate(torch.autograd.Function):
    """A symmetric sparse matrix (g, g) times states (g, m); being its own transpose, it carries the gradient back."""

    @staticmethod
    def forward(ctx: Any, matrix: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """The product, shape (g, m)."""
        ctx.matrix = matrix
        return torch.sparse.mm(matrix, states)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor]:  # type: ignore[override]
        """Gradient of the states (g, m)."""
        return None, torch.sparse.mm(ctx.matrix, grad)


class GeneNet(nn.Module):
    """Deviations of gene effects, starting at 0, from states of rows and of genes.

    A gene's state is its trainable vector after ``hops`` propagations over the gene graph. A row's is a linear map of
    its features plus the free vectors that training entities lend it, and a residual layer of that sum. Their sum goes
    through one linear layer (which is applied to either before adding: it commutes with the sum), a rectifier and a
    read-out of each gene's own; then all outputs pass a network whose state a second read-out of each gene adds.

    Parameters
    ----------
    n_features, n_entities, n_genes : widths of what goes in and out.
    hidden, dropout, hops : width of states, share of a row's state left out in training, propagations.
    uncertain : whether there is a read-out of log variances.

    References
    ----------
    Roohani, Huang and Leskovec (2024), Methods: gene and perturbation embeddings, cross-gene decoder, uncertainty.
    """

    def __init__(
        self, n_features: int, n_entities: int, n_genes: int, hidden: int, dropout: float, hops: int,
        *, uncertain: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.hops = hops
        self.inlet = nn.Linear(n_features, hidden)
        self.free = nn.Parameter(torch.zeros(n_entities, hidden))
        self.fuse = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden)
        )
        self.drop = nn.Dropout(dropout)
        self.genes = nn.Parameter(torch.randn(n_genes, hidden))
        self.joint = nn.Linear(hidden, hidden)
        self.cross = nn.Sequential(nn.Linear(n_genes, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.first, self.second = (nn.Parameter(torch.zeros(n_genes, hidden)) for _ in range(2))
        self.level = nn.Parameter(torch.zeros(n_genes))
        self.spread = nn.Parameter(torch.zeros(n_genes, hidden)) if uncertain else None

    def gene_states(self, graph: torch.Tensor) -> torch.Tensor:
        """States (g, hidden) after propagation over ``graph`` (g, g), through the linear layer (without offset)."""
        states: torch.Tensor = self.genes
        for _ in range(self.hops):
            states = Propagate.apply(graph, states)
        return states @ self.joint.weight.T

    def row_states(self, x: torch.Tensor, lent: torch.Tensor) -> torch.Tensor:
        """States (b, hidden) of features (b, n_features) and weights of entities (b, n_entities), through the layer."""
        states = self.inlet(x) + LENT * (lent @ self.free)
        states = self.drop(states + self.fuse(states))
        return self.joint(states)

    def read(self, genes: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Deviations (b, g) and, where there is a read-out of them, log variances (b, g)."""
        own = Readout.apply(genes, rows, self.first)
        out = own + self.cross(own) @ self.second.T + self.level
        if self.spread is None:
            return out, None
        return out, Readout.apply(genes, rows, self.spread).clamp(-WIDEST, WIDEST)

    def forward(
        self, graph: torch.Tensor, x: torch.Tensor, lent: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Deviations and log variances of rows, from the gene graph; see `read`."""
        return self.read(self.gene_states(graph), self.row_states(x, lent))


@dataclass(frozen=True)
class Loss:
    """Mean over rows and genes of ``|e|^(2 + gamma) + direction (sign(y) - tanh(p))^2``, on effects of unit scale, and
    with log variances ``s`` also ``reg (exp(-s) e^2 + s) / 2``.

    The published direction term has ``sign(p)``, whose derivative is 0 wherever it exists, so that it never moves a
    weight; ``tanh`` is its smooth form. The published uncertainty term ``reg exp(-s) |e|^(2 + gamma)`` is least at
    infinite ``s``; here it is the Gaussian likelihood, which is least where ``exp(s)`` is the mean squared error.

    References
    ----------
    Roohani, Huang and Leskovec (2024), Methods, autofocus direction-aware loss (gamma 2); Kendall and Gal (2017), What
    Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?, equation 8.

    Examples
    --------
    >>> Loss(2.0, 0.0, 0.1)(torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([[0.0]]), None).item()
    16.0
    """

    gamma: float
    direction: float
    reg: float

    def __call__(
        self, predicted: torch.Tensor, target: torch.Tensor, base: torch.Tensor, log_variance: torch.Tensor | None
    ) -> torch.Tensor:
        """Loss of deviations (b, g) from ``base``, for targets of shape (b, g) or (b, cells, g)."""
        if target.ndim == 3:
            predicted, base = predicted[:, None], base[:, None]
            log_variance = None if log_variance is None else log_variance[:, None]
        error = predicted - target
        square = error.square()
        # Powers of the square: at 0 the derivative of |e|^a through a logarithm is not a number.
        loss = square if self.gamma == 0 else square.square() if self.gamma == 2 else error.abs() ** (2 + self.gamma)
        if self.direction:
            loss = loss + self.direction * (torch.sign(target + base) - torch.tanh(predicted + base)).square()
        if log_variance is not None:
            loss = loss + self.reg / 2 * (torch.exp(-log_variance) * square + log_variance)
        return loss.mean()
