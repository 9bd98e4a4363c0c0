"""Embedding or head? Shares of the differences in progress over a fixed, fully crossed panel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embbench.report.boards import OTHER, Board, informed, vectors
from embbench.report.ranking import COVERAGE, complete_draws
from embbench.report.stats import LEVEL, MIN_CLAIM

PARTS = ("embedding", "head", "interaction")
NOT_TOLD = "not told apart"
_SUFFIXES = ("", "_low", "_high", "_min", "_max")


@dataclass(frozen=True)
class Block:
    """Scores of the panel in one dataset and context.

    Parameters
    ----------
    values : shape (u, a, b), mean score of each cluster under each of ``a`` embeddings and ``b`` heads.
    share : shape (u,), weight of each cluster in the mean, sums to 1.
    cluster : shape (u,), int64, row of the cluster in the dataset's resampling counts.
    dataset : number of the dataset, which counts are its.
    """

    values: np.ndarray
    share: np.ndarray
    cluster: np.ndarray
    dataset: int = 0


@dataclass(frozen=True)
class Panel:
    """Embeddings crossed with heads: the levels, the configuration of each cell, and what did not fit."""

    embeddings: tuple[str, ...]
    heads: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def variances(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Unbiased variance components (3, k) of embedding, head and interaction over the levels of the panel.

    Parameters
    ----------
    values : shape (u, a, b), clusters x embeddings x heads.
    weights : shape (u, k), weight of each cluster in k resamples, columns sum to 1.

    Notes
    -----
    The two-way decomposition of a fixed table ``mu = m + alpha_i + beta_j + gamma_ij`` (Scheffe 1959, The Analysis of
    Variance, section 4.1): mean squares ``|alpha|^2 / a``, ``|beta|^2 / b``, ``|gamma|^2 / ab``, which add up to the
    variance over the cells of the panel. Each is a quadratic form of the mean over clusters; only products of two
    different clusters enter, ``sum_{u != v} w_u w_v y_u' P y_v / (1 - sum w_u^2)`` (Hoeffding 1948, Annals of
    Mathematical Statistics 19, 293: U-statistics), so that noise, however it correlates between cells, adds nothing.

    Examples
    --------
    >>> table = np.array([[0.0, 0.0], [2.0, 2.0]])
    >>> variances(np.stack([table, table]), np.full((2, 1), 0.5)).ravel().tolist()
    [1.0, 0.0, 0.0]
    """
    rest = 1.0 - (weights**2).sum(axis=0)
    out = np.empty((3, weights.shape[1]))
    for i, part in enumerate(effects(values)):
        cells = part.shape[1]
        mean = weights.T @ part
        same = (weights**2).T @ (part**2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            out[i] = np.where(rest > 1e-12, ((mean**2).sum(axis=1) - same) / (cells * rest), np.nan)
    return out


def effects(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embedding (u, a), head (u, b) and interaction (u, ab) effects of tables (u, a, b)."""
    centred = values - values.mean(axis=(1, 2), keepdims=True)
    alpha, beta = centred.mean(axis=2), centred.mean(axis=1)
    gamma = centred - alpha[:, :, None] - beta[:, None, :]
    return alpha, beta, gamma.reshape(len(values), -1)


def shares(blocks: Sequence[Block], counts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Shares (3, k) of embedding, head and interaction in k resamples, and the total (k,) they are shares of.

    Parameters
    ----------
    blocks : datasets x contexts.
    counts : per dataset (clusters, k), how often each resample takes each cluster; column 0 is ones.

    Notes
    -----
    Within a block scores are centred, and scaled by the standard deviation of the panel's mean scores. Progress is an
    affine function of the score there (floor and ceiling are the block's), so its shares are those of the score, and
    they exist where no ceiling does. Components below 0 (no variance beyond noise) count as 0.
    """
    total = np.zeros((3, counts[0].shape[1]))
    for block in blocks:
        mean = np.tensordot(block.share, block.values, axes=1)
        scale = float(mean.var())
        if scale <= 1e-20 * float((mean**2).max(initial=0.0)):
            continue
        weights = block.share[:, None] * counts[block.dataset][block.cluster]
        sums = weights.sum(axis=0)
        weights = np.divide(weights, sums, out=np.zeros_like(weights), where=sums > 0)
        found = variances(block.values, weights)
        total += np.where(np.isfinite(found), found, 0.0) / scale
    part = np.maximum(total, 0.0)
    whole = part.sum(axis=0)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0), total.sum(axis=0)


def decompose(
    blocks: Sequence[Block],
    *,
    resamples: int = 1000,
    seed: int = 0,
    levels: tuple[Sequence[str], Sequence[str]] | None = None,
) -> dict[str, float | str]:
    """Shares with cluster-bootstrap 95 % intervals and leave-one-level-out ranges, and what answers the question.

    Parameters
    ----------
    levels : names of the embeddings and the heads; None numbers them.

    Returns
    -------
    dict
        ``embedding``, ``head``, ``interaction`` and ``embedding_minus_head``, with ``_low`` and ``_high``; ``_min`` and
        ``_max`` over the panels without one embedding or one head (panels of at least 2 x 2); ``answer``: the larger
        main effect, `NOT_TOLD`, or ``depends on`` the levels without which the other one is larger; ``note``.
    """
    clusters = [
        len(np.unique(np.concatenate([b.cluster for b in blocks if b.dataset == d]))) for d in _datasets(blocks)
    ]
    blank: dict[str, float | str] = {f"{p}{s}": np.nan for p in PARTS for s in _SUFFIXES}
    blank |= {f"embedding_minus_head{s}": np.nan for s in _SUFFIXES[:3]} | {"answer": "", "note": ""}
    if sum(clusters) < MIN_CLAIM:
        return blank | {"note": f"fewer than {MIN_CLAIM} clusters"}
    counts = [_counts(blocks, d, resamples, seed) for d in _datasets(blocks)]
    found, total = shares(blocks, counts)
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if np.isnan(found[0, 0]) or np.quantile(total[1:], tails[0]) <= 0:
        return blank | {"note": "undefined: no differences over the panel beyond noise"}
    drawn = found[:, 1:][:, np.isfinite(found[0, 1:])]
    limits = np.quantile(drawn, tails, axis=1)
    gap = np.quantile(drawn[0] - drawn[1], tails)
    without = _without(blocks, [c[:, :1] for c in counts], levels)
    ranges = np.array([v for v in without.values() if np.isfinite(v[0])]).reshape(-1, len(PARTS)).T
    out = dict(blank)
    for i, name in enumerate(PARTS):
        out |= {name: float(found[i, 0]), f"{name}_low": float(limits[0, i]), f"{name}_high": float(limits[1, i])}
        if ranges.shape[1]:
            out |= {f"{name}_min": float(ranges[i].min()), f"{name}_max": float(ranges[i].max())}
    out |= {"embedding_minus_head": float(found[0, 0] - found[1, 0])}
    out |= {"embedding_minus_head_low": float(gap[0]), "embedding_minus_head_high": float(gap[1])}
    sign = 1.0 if gap[0] > 0 else -1.0 if gap[1] < 0 else 0.0
    if not sign:
        return out | {"answer": NOT_TOLD}
    # a level without which nothing differs any more (NaN) decides as well
    needed = [name for name, v in without.items() if not sign * (v[0] - v[1]) > 0]
    return out | {"answer": f"depends on {', '.join(needed)}" if needed else "embedding" if sign > 0 else "head"}


def _datasets(blocks: Sequence[Block]) -> range:
    return range(max(b.dataset for b in blocks) + 1)


def _counts(blocks: Sequence[Block], dataset: int, resamples: int, seed: int) -> np.ndarray:
    n = 1 + max(int(b.cluster.max()) for b in blocks if b.dataset == dataset)
    drawn = np.random.default_rng([seed, dataset]).multinomial(n, np.full(n, 1.0 / n), size=resamples).T
    return np.hstack([np.ones((n, 1)), drawn.astype(np.float64)])


def _without(
    blocks: Sequence[Block], ones: Sequence[np.ndarray], levels: tuple[Sequence[str], Sequence[str]] | None
) -> dict[str, np.ndarray]:
    """Level -> shares (3,) of the panel without it, NaN where nothing differs there; no level of an axis of two."""
    out = {}
    for axis, kind in ((1, "embedding"), (2, "head")):
        size = blocks[0].values.shape[axis]
        names = levels[axis - 1] if levels else [f"{kind} {i + 1}" for i in range(size)]
        for level in range(size if size > 2 else 0):
            cut = [Block(np.delete(b.values, level, axis), b.share, b.cluster, b.dataset) for b in blocks]
            out[names[level]] = shares(cut, ones)[0][:, 0]
    return out


def crossed(available: dict[tuple[str, str], int]) -> Panel:
    """The crossed panel of (embedding, head) pairs: levels with the largest share of missing partners go first.

    Examples
    --------
    >>> crossed({("go", "knn"): 0, ("go", "ridge"): 1, ("ppi", "knn"): 2, ("ppi", "ridge"): 3, ("txt", "knn"): 4})
    Panel(embeddings=('go', 'ppi'), heads=('knn', 'ridge'), left_out=('txt',))
    """
    levels = [sorted({pair[axis] for pair in available}) for axis in (0, 1)]
    dropped: list[str] = []
    while all(levels):
        has = np.array([[(e, h) in available for h in levels[1]] for e in levels[0]])
        if has.all():
            break
        gaps = [(1 - has.mean(axis=1 - axis), axis) for axis in (0, 1)]
        worst = max(((g[i], axis, levels[axis][i]) for g, axis in gaps for i in range(len(g))), key=lambda t: t)
        levels[worst[1]].remove(worst[2])
        dropped.append(worst[2])
    return Panel(tuple(levels[0]), tuple(levels[1]), tuple(sorted(dropped)))


def cells(
    board: Board, extra: Sequence[str], coverage: float = COVERAGE
) -> tuple[dict[tuple[str, str], int], Counter[str]]:
    """(embedding, head) -> row of ``board.table`` of what may enter a panel, and how many methods may not, by cause.

    Complete methods with vectors and enough coverage may. The embedding is the pair with the context embedding
    (`embbench.report.boards.vectors`); other settings that vary (features ...) are part of the head's name.
    """
    incomplete = np.bincount(board.of_draw, weights=~complete_draws(board), minlength=len(board.table)) > 0
    covered = np.nan_to_num(board.per_table(board.covered)).mean(axis=1)
    method = (board.table["role"] == "method").to_numpy()
    causes = {"without vectors": ~informed(board.table), "incomplete": incomplete, "poorly covered": covered < coverage}
    why, usable = Counter[str](), method
    for cause, hit in causes.items():
        why[cause] += int((usable & hit).sum())
        usable = usable & ~hit
    names, table = vectors(board.table), board.table
    out = {}
    for i in np.flatnonzero(usable).tolist():
        more = [f"{c}={table[c].iloc[i]}" for c in OTHER if c in extra]
        out[str(names[i]), " ".join([str(table["head"].iloc[i]), *more])] = i
    return out, why


def blocks_of(
    board: Board, panel: Panel, where: dict[tuple[str, str], int], dataset: int = 0
) -> tuple[list[Block], int]:
    """Blocks of one board, one per context of at least two clusters, and the number of conditions that may enter: those
    that every cell of the panel covers and defines.
    """
    rows = [where[e, h] for e in panel.embeddings for h in panel.heads]
    values, covered = board.per_table(board.values)[rows], board.per_table(board.covered)[rows]
    usable = np.flatnonzero((np.isfinite(values) & (covered > 0)).all(axis=0))
    kind = "condition" if board.over_contexts else "unit"
    _, cluster = np.unique(board.rows[kind].to_numpy(dtype=object)[usable].astype(str), return_inverse=True)
    context = board.rows["context"].to_numpy(dtype=object)[usable].astype(str)
    out = []
    for name in np.unique(context).tolist():
        part = np.flatnonzero(context == name)
        codes, place, number = np.unique(cluster[part], return_inverse=True, return_counts=True)
        if len(codes) < 2:
            continue
        sums = np.zeros((len(codes), len(rows)))
        np.add.at(sums, place, values[:, usable[part]].T)
        means = (sums / number[:, None]).reshape(len(codes), len(panel.embeddings), len(panel.heads))
        out.append(Block(means, number / number.sum(), codes.astype(np.int64), dataset))
    return out, len(usable)
