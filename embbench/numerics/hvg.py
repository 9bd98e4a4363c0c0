"""Gene selection from control cells: all, expressed, or the most variable for their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embbench.core import UserError

EXPRESSED_MEAN = 0.01  # mean log1p(counts per 1e4); about one count in 100 cells of 10,000 counts
MEAN_BINS = 20  # as in the source


def select_genes(
    rule: str, names: Sequence[str] | np.ndarray, mean: np.ndarray | None, variance: np.ndarray | None
) -> np.ndarray:
    """Columns that a gene rule keeps, from half-A control cells only, the same for all folds.

    ``all`` keeps every gene; ``expressed`` those whose control mean exceeds 0.01 in any context; ``hvg:N`` the N genes
    with the largest normalised dispersion, averaged over the contexts that express them (ties: the smaller column).

    Parameters
    ----------
    rule : ``all``, ``expressed`` or ``hvg:N``.
    names : g gene names.
    mean : of shape (c, g), mean of log1p-normalised control cells, or None; rows of NaN are contexts without controls.
    variance : of shape (c, g), their variance over cells, or None.

    Returns
    -------
    Ascending int64 columns.

    Raises
    ------
    UserError
        Unknown rule, N outside 1 .. number of expressed genes, or no control mean or variance.

    References
    ----------
    Satija et al. (2015), Nature Biotechnology 33:495, methods: variance / mean, z-scored within 20 bins of the mean.
    Here the moments are those of log1p values, the scale of the effects (Seurat takes those of expm1 values).

    Examples
    --------
    >>> select_genes("expressed", ["A", "B"], np.array([[0.0, 0.3]]), None).tolist()
    [1]
    """
    if rule == "all":
        return np.arange(len(names), dtype=np.int64)
    kind, _, count = rule.partition(":")
    if kind not in ("expressed", "hvg") or (kind == "expressed") == bool(count):
        raise UserError(f"genes {rule!r}: expected all, expressed or hvg:N (e.g. hvg:2000)")
    if mean is None:
        raise UserError(f"genes {rule!r}: the dataset has no control means to select from; use --genes all")
    expressed = (np.nan_to_num(mean, nan=0.0) > EXPRESSED_MEAN).any(axis=0)
    if not expressed.any():
        raise UserError(
            f"genes {rule!r}: none of {len(names)} genes has a control mean above {EXPRESSED_MEAN}; use --genes all, "
            "or check that the data are log1p of counts scaled to 1e4"
        )
    return np.flatnonzero(expressed) if kind == "expressed" else _most_variable(count, expressed, mean, variance)


def _most_variable(count: str, expressed: np.ndarray, mean: np.ndarray, variance: np.ndarray | None) -> np.ndarray:
    if variance is None:
        raise UserError(
            f"genes 'hvg:{count}': needs the variance over control cells, found condition-level data without cells; "
            "use --genes all or --genes expressed"
        )
    wanted, most = int(count) if count.isdecimal() else 0, int(expressed.sum())
    if not 1 <= wanted <= most:
        raise UserError(
            f"genes 'hvg:{count}': N must be a number from 1 to {most} (genes with a control mean above "
            f"{EXPRESSED_MEAN}), found {count!r}"
        )
    score = np.where(expressed, pooled_dispersion(mean, variance), -np.inf)
    return np.sort(np.argsort(-score, kind="stable")[:wanted])


def pooled_dispersion(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Normalised dispersion (g,) of inputs of shape (c, g), averaged over contexts that express a gene, else -inf."""
    scores = np.stack([normalised_dispersion(m, v) for m, v in zip(mean, variance, strict=True)])
    defined = np.isfinite(scores)
    total = np.where(defined, scores, 0.0).sum(axis=0)
    return np.where(defined.any(axis=0), total / np.maximum(defined.sum(axis=0), 1), -np.inf)


def normalised_dispersion(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """z-score of ``log(variance / mean)`` among genes of a similar mean, for one context.

    Genes are cut into 20 bins of equal width in the mean; the standard deviation has n - 1 in the denominator. A gene
    alone in its bin (or in a bin without spread) gets 0: nothing says that it is unusual. Source: Satija et al. (2015),
    see `select_genes`.

    Parameters
    ----------
    mean, variance : of shape (g,), over control cells; NaN where the context has none.

    Returns
    -------
    (g,) float64; NaN where mean or variance is not above 0.
    """
    m, v = mean.astype(np.float64), variance.astype(np.float64)
    usable = (m > 0) & (v > 0)
    out = np.full(len(m), np.nan)
    if not usable.any():
        return out
    m, d = m[usable], np.log(v[usable] / m[usable])
    edges = np.linspace(m.min(), m.max(), MEAN_BINS + 1)[1:-1]
    bins = np.searchsorted(edges, m, side="left")
    count = np.bincount(bins, minlength=MEAN_BINS)
    centre = np.bincount(bins, d, MEAN_BINS) / np.maximum(count, 1)
    spread = np.sqrt(np.bincount(bins, (d - centre[bins]) ** 2, MEAN_BINS) / np.maximum(count - 1, 1))
    flat = spread[bins] <= 1e-12 * np.maximum(np.abs(centre[bins]), 1.0)
    out[usable] = np.where(flat, 0.0, (d - centre[bins]) / np.where(flat, 1.0, spread[bins]))
    return out
