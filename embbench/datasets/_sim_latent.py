"""Simulator: names and latent vectors of the perturbed genes, smooth fields on the protein network."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embbench.datasets._sim_network import dense_modules, overlap_network, smooth_field
from embbench.datasets._sim_settings import Settings

WIDTH = 6


def streams_of(s: Settings) -> list[np.random.Generator]:
    """One random stream for each part of the truth."""
    return [np.random.default_rng([s.seed, part]) for part in range(7)]


def fields(
    s: Settings, streams: list[np.random.Generator]
) -> tuple[list[str], np.ndarray, np.ndarray, tuple[str, ...]]:
    """Names of the singles, latent vectors (p, WIDTH), the coordinate of strengths (p,), and names of the network."""
    names, overlap = overlap_network()
    nodes = np.sort(dense_modules(overlap, s.n_perturbations, streams[0]))
    latent = mixed_field(overlap, nodes, WIDTH, s.rho, streams[1])
    level = mixed_field(overlap, nodes, 4, s.rho, streams[2])[:, 0]
    return _perturbation_names([names[i] for i in nodes], s.covered, streams[3]), latent, level, names


def quantiles(values: np.ndarray) -> np.ndarray:
    """Mid-ranks in (0, 1) of values of shape (p,).

    Examples
    --------
    >>> quantiles(np.array([0.3, -1.0])).tolist()
    [0.75, 0.25]
    """
    return (np.argsort(np.argsort(values, kind="stable"), kind="stable") + 0.5) / len(values)


def mixed_field(
    overlap: sparse.csr_matrix, nodes: np.ndarray, width: int, rho: float, rng: np.random.Generator
) -> np.ndarray:
    """``sqrt(rho) z_network + sqrt(1 - rho) z_hidden`` of shape (len(nodes), width).

    Both are smooth fields of unit variance on the protein network among ``nodes``; the second has its rows permuted at
    random, that is, it lives on a network of the same shape whose nodes bear each other's names. Hence ``rho`` is the
    expected share of the variance that the packaged network carries, and at ``rho = 0`` names are exchangeable.

    Examples
    --------
    >>> ring = sparse.csr_matrix(np.roll(np.eye(5), 1, axis=1) + np.roll(np.eye(5), -1, axis=1))
    >>> mixed_field(ring, np.arange(5), width=3, rho=0.7, rng=np.random.default_rng(0)).shape
    (5, 3)
    """
    seen, hidden = (smooth_field(overlap, nodes, width, rng) for _ in range(2))
    return np.sqrt(rho) * seen + np.sqrt(1.0 - rho) * hidden[rng.permutation(len(nodes))]


def _perturbation_names(real: list[str], covered: float, rng: np.random.Generator) -> list[str]:
    hidden = rng.permutation(len(real))[: len(real) - round(covered * len(real))]
    out = list(real)
    for number, i in enumerate(np.sort(hidden).tolist(), start=1):
        out[i] = f"SIMGENE{number:05d}"
    return out
