"""Simulator: the known truth of a screen: names, latent vectors, effects on log expression, cells per batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import ndtri

from embbench.datasets._sim_latent import WIDTH, fields, quantiles, streams_of
from embbench.datasets._sim_settings import KINDS, Settings

FEATURES, CONTEXT_WIDTH = 16, 3
NULL_SIZE = 0.15  # of effect_size: a near-null perturbation's typical log fold change
LARGEST = 1.5  # log fold change, knocked-down targets apart
MEAN_CP10K, MOST_CP10K, PANEL = 5.0, 50.0, 0.6


@dataclass(frozen=True)
class Design:
    """Everything that is known about a simulated screen before a cell is drawn.

    ``q`` perturbations (singles, then pairs) meet ``c`` contexts with ``b`` batches each; ``f`` directions of effect.

    Parameters
    ----------
    entities : q sorted tuples of names.
    genes : shape (g,); names.
    strength : shape (q, c); root mean square log fold change.
    coefficients : shape (q, f); weights of the directions at strength 1.
    directions : shape (c, f, g).
    particular : shape (q, g), sparse, the part of one perturbation only, at strength 1.
    knockdown : shape (q, g), sparse, log of what remains of the own gene's expression.
    log_share : shape (c, b, g); log expected share of a gene among all counts of an unperturbed cell.
    log_depth : shape (c, b); log median depth of unperturbed cells.
    depth_shift : shape (q, c); added to it in perturbed cells.
    n_cells : shape (q, c, b); perturbed cells.
    kind : shape (q,); how cells respond, indices into `KINDS`; a pair responds as the stronger of its two.
    near_null : shape (q,), bool; effects far below the sampling noise (pairs: both of the two).
    """

    entities: tuple[tuple[str, ...], ...]
    genes: np.ndarray
    strength: np.ndarray
    coefficients: np.ndarray
    directions: np.ndarray
    particular: sparse.csr_matrix
    knockdown: sparse.csr_matrix
    log_share: np.ndarray
    log_depth: np.ndarray
    depth_shift: np.ndarray
    n_cells: np.ndarray
    kind: np.ndarray
    near_null: np.ndarray

    def log_fold_change(self, context: int, perturbations: np.ndarray) -> np.ndarray:
        """Log fold changes of shape (len(perturbations), g), float32, of the expected share of each gene."""
        part = self.coefficients[perturbations] @ self.directions[context] + self.particular[perturbations].toarray()
        out = np.clip(part * self.strength[perturbations, context][:, None], -LARGEST, LARGEST).astype(np.float32)
        own = sparse.coo_matrix(self.knockdown[perturbations])
        out[own.row, own.col] = own.data
        return out

    def multiplied(self, change: np.ndarray, perturbation: int, multiplier: float) -> np.ndarray:
        """A log fold change (g,) times ``multiplier``, but for the own genes, knocked down in full in whatever cell
        responds (multiplier not 0).
        """
        out = change * np.float32(multiplier)
        own = self.knockdown[perturbation].indices if multiplier else []
        out[own] = change[own]
        return out


def make_design(s: Settings) -> Design:
    """The truth of a screen with these settings; each part has its own random stream.

    Raises
    ------
    UserError
        The protein network has too few genes, or cannot be read.
    """
    streams = streams_of(s)
    singles, latent, level, network = fields(s, streams)
    genes = _measured(singles, network, s.n_genes, streams[3])
    place = quantiles(level)
    weights = _combine(latent, _strengths(place, s), s, streams[4])
    leader = _leaders(weights)
    null = place < s.near_null
    kind = _kinds(latent[:, 0], null, s)
    entities = tuple((name,) for name in singles) + tuple(
        tuple(sorted((singles[i], singles[j]))) for i, j in weights.pairs
    )
    strength = weights.size[:, None] * np.exp(0.2 * streams[4].standard_normal((len(entities), s.n_contexts)))
    directions, log_share, log_depth = _contexts(s, streams[5])
    relative = strength / s.effect_size if s.effect_size else strength
    return Design(
        entities,
        genes,
        strength,
        weights.coefficients,
        directions,
        _particular(weights, s, streams[6]),
        _knockdown(entities, genes, streams[6]),
        log_share,
        log_depth,
        np.maximum(-0.25 * s.fitness * relative, -1.0),
        _cells_per_batch(relative, s, streams[6]),
        kind[leader],
        null[leader],
    )


def _kinds(order: np.ndarray, null: np.ndarray, s: Settings) -> np.ndarray:
    """Kinds in the order of a latent coordinate, so that neighbours share them: variance, mean, bimodal.

    The shares hold among near-null perturbations and among the others, whatever the coordinate has to do with strength.
    """
    kind = np.full(len(order), KINDS.index("mean"))
    for rows in (np.flatnonzero(null), np.flatnonzero(~null)):
        place = quantiles(order[rows])
        kind[rows[place < s.variance_only]] = KINDS.index("variance")
        kind[rows[place > 1.0 - s.bimodal]] = KINDS.index("bimodal")
    return kind


def _measured(perturbed: list[str], network: tuple[str, ...], n_genes: int, rng: np.random.Generator) -> np.ndarray:
    """About half of the perturbed genes, then other genes of the network, then invented ones."""
    own = rng.permutation(perturbed)[: min(len(perturbed) // 2, n_genes // 2)].tolist()
    others = rng.permutation(sorted(set(network) - set(perturbed))).tolist()[: n_genes - len(own)]
    invented = [f"SIMREAD{i:05d}" for i in range(1, n_genes - len(own) - len(others) + 1)]
    return np.array(sorted(own + others + invented))


def _strengths(u: np.ndarray, s: Settings) -> np.ndarray:
    """Lognormal sizes in the order of ``u``; the lower ``near_null`` share is a lognormal far below the noise."""
    null = u < s.near_null
    low = s.effect_size * NULL_SIZE * np.exp(0.35 * ndtri(np.clip(u / max(s.near_null, 1e-9), 1e-6, 1 - 1e-6)))
    upper = np.clip((u - s.near_null) / max(1.0 - s.near_null, 1e-9), 1e-6, 1 - 1e-6)
    return np.where(null, low, s.effect_size * np.exp(s.effect_spread * ndtri(upper)))


@dataclass(frozen=True)
class _Weights:
    pairs: np.ndarray  # (k, 2) numbers of singles
    size: np.ndarray  # (q,)
    coefficients: np.ndarray  # (q, 1 + FEATURES)
    mixing: sparse.csr_matrix  # (q, p): particular parts of a pair are the weighted sum of its singles'


def _leaders(weights: _Weights) -> np.ndarray:
    """Number of the single (q,) that leads each perturbation: itself, or the stronger of a pair."""
    a, b = weights.pairs.T
    p = len(weights.size) - len(a)
    return np.r_[np.arange(p), np.where(weights.size[a] >= weights.size[b], a, b)]


def _combine(latent: np.ndarray, size: np.ndarray, s: Settings, rng: np.random.Generator) -> _Weights:
    """Coefficients of singles from their latent vectors, and of near-additive pairs from those of their singles."""
    p = len(latent)
    u = np.tanh(1.5 / np.sqrt(WIDTH) * latent @ rng.standard_normal((WIDTH, FEATURES)))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    rest = 1.0 - s.programme_share
    single = np.hstack([np.full((p, 1), np.sqrt(s.programme_share)), np.sqrt(rest * (1.0 - s.sparse_share)) * u])
    codes = np.sort(rng.choice(p * (p - 1) // 2, s.combos, replace=False))
    pairs = (
        np.stack([axis[codes] for axis in np.triu_indices(p, 1)], axis=1) if s.combos else np.zeros((0, 2), np.int64)
    )
    twist = rng.standard_normal((len(pairs), FEATURES + 1))
    twist *= s.interaction / np.linalg.norm(twist, axis=1, keepdims=True)
    a, b = size[pairs[:, 0]], size[pairs[:, 1]]
    double = (
        0.9 * (a[:, None] * single[pairs[:, 0]] + b[:, None] * single[pairs[:, 1]]) + np.sqrt(a * b)[:, None] * twist
    )
    total = np.maximum(np.hypot(a, b), 1e-12)
    shares = 0.9 * np.stack([a / total, b / total], axis=1)
    mixing = sparse.vstack(
        [
            sparse.identity(p),
            sparse.csr_matrix(
                (shares.ravel(), (np.repeat(np.arange(len(pairs)), 2), pairs.ravel())), shape=(len(pairs), p)
            ),
        ],
        format="csr",
    )
    return _Weights(pairs, np.r_[size, np.hypot(a, b)], np.vstack([single, double / total[:, None]]), mixing)


def _contexts(s: Settings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions (c, f, g), log shares (c, b, g) and log depths (c, b); a context vector shapes the first two."""
    where = rng.standard_normal((s.n_contexts, CONTEXT_WIDTH))
    where /= np.linalg.norm(where, axis=1, keepdims=True)
    respond = np.exp(0.5 * rng.standard_normal(s.n_genes))
    respond /= np.sqrt(np.mean(respond**2))
    parts = rng.standard_normal((1 + CONTEXT_WIDTH, 1 + FEATURES, s.n_genes), dtype=np.float32) * respond.astype(
        np.float32
    )
    mix = np.hstack([np.full((s.n_contexts, 1), np.sqrt(s.context_share)), np.sqrt(1.0 - s.context_share) * where])
    directions = np.tensordot(mix, parts.astype(np.float64), axes=1)
    log_mean = 1.2 * rng.standard_normal(s.n_genes) + 0.6 * where @ rng.standard_normal((CONTEXT_WIDTH, s.n_genes))
    share = np.exp(log_mean)
    share *= min(MEAN_CP10K * s.n_genes / 1e4, PANEL) / share.sum(axis=1, keepdims=True)
    share = np.minimum(share, MOST_CP10K / 1e4)
    batch = s.batch_effect * rng.standard_normal((s.n_contexts, s.n_batches, s.n_genes))
    depth = np.log(s.depth) + 0.15 * np.clip(rng.standard_normal((s.n_contexts, s.n_batches)), -2, 2)
    return directions, np.log(share)[:, None, :] + batch, depth


def _particular(weights: _Weights, s: Settings, rng: np.random.Generator) -> sparse.csr_matrix:
    """A fiftieth of the genes per single, Student t (3 degrees of freedom), root mean square set by the shares."""
    p, each = weights.mixing.shape[1], max(1, s.n_genes // 50)
    columns = np.sort(rng.integers(0, s.n_genes, (p, each)), axis=1)
    values = rng.standard_t(3, (p, each))
    values *= np.sqrt(s.n_genes * (1.0 - s.programme_share) * s.sparse_share / (values**2).sum(axis=1, keepdims=True))
    single = sparse.csr_matrix((values.ravel(), (np.repeat(np.arange(p), each), columns.ravel())), shape=(p, s.n_genes))
    return sparse.csr_matrix(weights.mixing @ single)


def _knockdown(entities: tuple[tuple[str, ...], ...], genes: np.ndarray, rng: np.random.Generator) -> sparse.csr_matrix:
    """60 to 95 % of the own gene's expression goes, in every perturbation of it, near-null ones too."""
    column = {gene: i for i, gene in enumerate(genes.tolist())}
    names = sorted({name for row in entities for name in row})
    remains = dict(zip(names, np.log(1.0 - rng.uniform(0.6, 0.95, len(names))).tolist(), strict=True))
    cells = [(i, column[name], remains[name]) for i, row in enumerate(entities) for name in row if name in column]
    rows, columns, values = (np.array(x) for x in zip(*cells, strict=True)) if cells else (np.zeros(0, int),) * 3
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(entities), len(genes)), dtype=np.float64)


def _cells_per_batch(relative: np.ndarray, s: Settings, rng: np.random.Generator) -> np.ndarray:
    """Perturbed cells (q, c, b): lognormal, fewer for stronger effects, at least 4 per context."""
    expected = s.cells_per_perturbation * np.exp(0.3 * rng.standard_normal(relative.shape) - s.fitness * relative)
    total = np.maximum(4, np.rint(expected)).astype(np.int64)
    return rng.multinomial(total, np.full(s.n_batches, 1.0 / s.n_batches))
