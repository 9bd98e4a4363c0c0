"""GCN and GIN layers in plain torch, and their training by link prediction."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from embbench.core import UserError
from embbench.embeddings._links import matched_negatives, pair_auc


def as_torch(matrix: sparse.csr_matrix, device: torch.device) -> torch.Tensor:
    """A sparse CSR tensor, float32, of a symmetric matrix of shape (n, n)."""
    matrix.sort_indices()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr),
            torch.from_numpy(matrix.indices),
            torch.from_numpy(matrix.data.astype(np.float32)),
            size=matrix.shape,
            check_invariants=False,
        ).to(device)


class SymmetricProduct(torch.autograd.Function):
    """``S @ X`` for a sparse symmetric S: the gradient is again ``S @ gradient``, without a transposed copy."""

    @staticmethod
    def forward(ctx: Any, S: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        """Product of shape (n, d)."""
        ctx.S = S
        return S @ X

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:
        """Gradient of ``X``, shape (n, d)."""
        return None, ctx.S @ gradient


class GCNLayer(nn.Module):
    """``S H W + b`` (Kipf and Welling 2017, equation 2, before the nonlinearity)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, S: torch.Tensor, H: torch.Tensor) -> torch.Tensor:
        """Node vectors of shape (n, dim) -> (n, dim)."""
        return SymmetricProduct.apply(S, self.linear(H)) + self.bias


class GINLayer(nn.Module):
    """``MLP((1 + eps) H + A H)`` with learned eps (Xu et al. 2019, equation 4.1); two layers with batch norm between.

    The batch is the whole graph, in training and after it, so there are no running statistics.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))
        norm = nn.BatchNorm1d(dim, track_running_stats=False)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), norm, nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, S: torch.Tensor, H: torch.Tensor) -> torch.Tensor:
        """Node vectors of shape (n, dim) -> (n, dim)."""
        return self.mlp((1 + self.eps) * H + SymmetricProduct.apply(S, H))


class LinkNetwork(nn.Module):
    """Learned node vectors ``start`` of shape (n, dim), then graph layers with ReLU and dropout between them."""

    def __init__(self, start: torch.Tensor, layer: str, layers: int, dropout: float) -> None:
        super().__init__()
        self.start, self.dropout = nn.Parameter(start.clone()), dropout
        kind = {"gcn": GCNLayer, "gin": GINLayer}[layer]
        self.layers = nn.ModuleList(kind(start.shape[1]) for _ in range(layers))

    def forward(self, S: torch.Tensor) -> list[torch.Tensor]:
        """Vectors of every layer, each of shape (n, dim), the input first."""
        out = [self.start]
        for number, layer in enumerate(self.layers, start=1):
            H = layer(S, nn.functional.dropout(out[-1], self.dropout, self.training))
            out.append(torch.relu(H) if number < len(self.layers) else H)
        return out


@dataclass(frozen=True)
class Links:
    """Edges of a graph of ``n`` nodes: trained on ``train`` (e, 2), judged by ``held`` against ``negative``."""

    n: int
    train: np.ndarray
    held: np.ndarray
    negative: np.ndarray


@dataclass(frozen=True)
class Plan:
    """Adam with ``steps`` updates an epoch; stops after ``patience`` epochs without a better AUC on held-out edges."""

    lr: float
    epochs: int
    patience: int
    steps: int


def link_loss(z: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Mean logistic loss of inner products of ``z`` (n, d): edges (p, 2) against negatives (q, 2), equal in weight."""
    scores = [(z.index_select(0, p[:, 0]) * z.index_select(0, p[:, 1])).sum(dim=1) for p in (positive, negative)]
    return nn.functional.softplus(-scores[0]).mean() + nn.functional.softplus(scores[1]).mean()


def train_links(
    net: LinkNetwork, S: torch.Tensor, links: Links, plan: Plan, rng: np.random.Generator
) -> dict[str, Any]:
    """Train ``net`` in place to tell edges from matched negatives, drawn anew each epoch; the best state is restored.

    Without held-out edges all ``plan.epochs`` are trained and the last state stays.

    Returns
    -------
    ``best_epoch`` (0: before training), ``epochs`` trained, ``validation_auc`` of the best (None without held edges).
    """
    optimiser = torch.optim.Adam(net.parameters(), lr=plan.lr)
    known = np.concatenate([links.train, links.held])
    best, highest, state, epoch = 0, validation_auc(net, S, links), deepcopy(net.state_dict()), 0
    while epoch < plan.epochs and (highest is None or epoch - best < plan.patience):
        epoch += 1
        net.train()
        negative = matched_negatives(links.train, known, links.n, rng)
        orders = (rng.permutation(links.train), rng.permutation(negative))
        batches = (np.array_split(rows, min(plan.steps, len(negative))) for rows in orders)
        for pairs in zip(*batches, strict=True):
            positive, wrong = (torch.from_numpy(part).to(S.device) for part in pairs)
            optimiser.zero_grad(set_to_none=True)
            link_loss(net(S)[-1], positive, wrong).backward()
            optimiser.step()
        auc = validation_auc(net, S, links)
        if auc is None or highest is None:
            best = epoch
        elif auc > highest:
            best, highest, state = epoch, auc, deepcopy(net.state_dict())
    if highest is not None:
        net.load_state_dict(state)
    return {"best_epoch": best, "epochs": epoch, "validation_auc": highest}


@torch.no_grad()
def validation_auc(net: LinkNetwork, S: torch.Tensor, links: Links) -> float | None:
    """AUC on the held-out edges, without dropout; None when there are none."""
    if not len(links.held):
        return None
    net.eval()
    return pair_auc(net(S)[-1].cpu().numpy(), links.held, links.negative)


def pick_device(name: str) -> torch.device:
    """``auto`` is cuda where there is one, else cpu; other names are torch's own. UserError: no such device here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without cuda raises the latter
        found = str(error).splitlines()[0]
        raise UserError(f"expected device auto, cpu, cuda or another of torch, got {name!r}: {found}") from error


@contextmanager
def one_stream(seed: int) -> Iterator[None]:
    """Inside the block torch draws from ``seed`` and uses one thread, so that bits do not depend on the machine's load;
    after it both are as before.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
