"""How good a score could have been: the noise-free effect against the observed one, in several named variants.

``noise_free`` is the ceiling of every table: the known effect of a simulated screen, else halves or resamples of cells,
else the sampling variance of the truth. The other variants are what papers and packages print under that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from embbench.core import CellView, DETable, Metric, PerturbationDataset, Truth, share_of
from embbench.grid.halves import VARIANTS, Ceiling, family_of, from_cells
from embbench.grid.resample import LEAST_CELLS, Resampler
from embbench.grid.targets import observed_means

Formula = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # (truth, variance, mask) -> (n,)
NONE = "not available"
WITHOUT = {"r2_perturbench": "a prediction larger than the noise-free effect scores higher, one near 0 without bound"}


def _mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.sum(np.where(mask, values, 0), axis=1) / np.maximum(mask.sum(axis=1), 1)


def _squared(truth: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return _mean(variance, mask)


def _pearson(truth: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    centred = truth - _mean(truth, mask)[:, None]
    return _attenuated(_mean(centred**2, mask), _mean(variance, mask))


def _cosine(truth: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return _attenuated(_mean(truth**2, mask), _mean(variance, mask))


def _attenuated(total: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Correlation of signal with signal + noise, ``sqrt(signal / total)``; 0 where noise explains everything.

    Notes
    -----
    Spearman (1904), American Journal of Psychology 15, 72-101: correction for attenuation, one side noise-free.
    """
    share = np.divide(total - noise, total, out=np.zeros_like(total), where=total > 0)
    return np.sqrt(np.clip(share, 0, 1))


FORMULAS: dict[str, Formula] = {
    "mse": _squared,
    "rmse": lambda t, v, m: np.sqrt(_squared(t, v, m)),
    "l2": lambda t, v, m: np.sqrt(np.sum(np.where(m, v, 0), axis=1)),
    "pearson": _pearson,
    "cosine": _cosine,
    "mse_debiased": lambda t, v, m: np.zeros(len(t)),
}


def ceiling(
    data: PerturbationDataset, truth: Truth, rows: np.ndarray, name: str, metric: Metric
) -> tuple[np.ndarray, str]:
    """Score of the noise-free effect for each row of one fold, without cells.

    Parameters
    ----------
    data : the screen.
    truth : of ``rows``; for Systema's metrics its ``centroid`` is that of noise-free training effects.
    rows : (m,) dataset rows.
    name : registered metric name, e.g. ``l2_notarget``.
    metric : the metric.

    Returns
    -------
    values : (m,) float64, NaN where there is no ceiling.
    note : ``simulated truth``, ``from variance`` or ``not available``.

    Notes
    -----
    With sampling variance ``v`` of the observed effect ``t``: expected squared error of the noise-free effect is
    ``sum v`` (l2 takes its root, which is above the expected distance by Jensen's inequality, less than 1 % from 50
    genes on); Pearson and cosine are ``sqrt(1 - noise / total)``. Control noise shared by the genes of a row is part
    of ``v``. Top-k sets are chosen by the noisy truth, so formulas do not give them a ceiling.
    """
    if reason := _unavailable(name, metric):
        return np.full(len(rows), np.nan), reason
    if data.noise_free is not None and metric.target == "effects":
        return np.asarray(metric(data.noise_free[rows], truth), dtype=np.float64), "simulated truth"
    family = family_of(name)
    if truth.variance is None or family not in FORMULAS or metric.genes not in ("all", "notarget"):
        return np.full(len(rows), np.nan), NONE
    mask = truth.mask(metric.genes)
    values = FORMULAS[family](np.where(mask, truth.effects, 0.0).astype(np.float64), truth.variance * 1.0, mask)
    return np.where(mask.any(axis=1), values, np.nan), "from variance"


def ceilings(
    data: PerturbationDataset,
    truth: Truth,
    rows: np.ndarray,
    train: np.ndarray,
    metrics: Mapping[str, Metric],
    *,
    outer: int = 10,
    inner: int = 10,
    weights: str = "equal",
    samples: int = 100,
    seed: int = 0,
    variants: tuple[str, ...] = VARIANTS,
) -> list[Ceiling]:
    """Every variant of the ceiling of every metric, for the rows of one fold.

    Parameters
    ----------
    data : the screen.
    truth : of ``rows``, from `embbench.grid.score.truth_of`; population metrics need it with cells.
    rows, train : test and training rows of the fold; training rows count through ``truth`` alone.
    metrics : registered name -> metric; those with an unmet need are left out.
    outer, inner : resamples, and resamples of each resample (for the bias); ``outer * inner`` for `cole_q0.9`.
    weights : of batches in their stage, ``equal`` or ``size`` (see `embbench.numerics.resample.draw_batches`).
    samples : cells per condition of the population entries that the ceiling is drawn beside.
    seed : of all streams.
    variants : which of `VARIANTS` to compute.

    Returns
    -------
    Ceilings by metric, then variant; each metric has ``noise_free``. ``from_cells`` (what ``noise_free`` would be on a
    real screen) is only there where ``noise_free`` is the known effect.

    Notes
    -----
    `noise_free`. Squared errors: the mean square of scaled half differences (perturbed cells within batches, and half-B
    controls, split at random), whose expectation is the sampling variance; debiased ones less that mean. Correlations:
    ``sqrt(2 r / (1 + r))``, r the mean correlation of halves (Spearman 1910 and Brown 1910, British Journal of
    Psychology 3:271 and 3:296; the root is the correlation with the noise-free effect); Systema's with the controls
    held, for their noise cancels against that of the centroid. Spearman, and metrics that read a test (DE): draws of
    the noise-free effect given the observed one, each gene shrunk by itself (`numerics.shrinkage`), are the
    predictions. Other metrics: the observed effect, shrunk to the size that its noise leaves it, plays the noise-free
    one, and its resample the observed one: ``theta``; done again with the resample in the place of the observed effect
    it gives ``theta2``; values are ``2 theta - theta2``, bias is ``theta2 - theta`` (Hall and Martin 1988, Biometrika
    75:661).
    """
    known = {n: m for n, m in metrics.items() if not m.unmet(truth)}
    effects = {n: m for n, m in known.items() if m.target == "effects" and not _unavailable(n, m)}
    source = _source(data, truth, rows, weights, seed) if effects else None
    found: dict[str, dict[str, Ceiling]] = {name: {} for name in known}
    if source is not None:
        for made in from_cells(source, truth, effects, outer, inner, variants):
            found[made.metric][made.variant] = made
    exact = _against_noise_free(data, truth, rows, train)
    for name, metric in known.items():
        own = found[name]
        if metric.target == "population":
            _add_population(own, truth, name, metric, samples, seed)
            continue
        if data.noise_free is not None and "noise_free" in own:
            own["from_cells"] = replace(own["noise_free"], variant="from_cells")
        if data.noise_free is not None or "noise_free" not in own:
            own["noise_free"] = Ceiling("noise_free", name, *ceiling(data, exact, rows, name, metric))
    return [own[v] for own in found.values() for v in VARIANTS if v in own and v in (*variants, "noise_free")]


def _unavailable(name: str, metric: Metric) -> str:
    """Why a metric has no ceiling at all, as a note; empty when it may have one."""
    reason = WITHOUT.get(family_of(name), "")
    if metric.target == "population" and "de" in metric.needs:
        reason = "the DE table was made with the replicate's cells"
    if getattr(metric, "cells", "equal") == "all":
        reason = "cells=all: entries and ceiling would differ in number"
    return f"{NONE} ({reason})" if reason else ""


def _against_noise_free(data: PerturbationDataset, truth: Truth, rows: np.ndarray, train: np.ndarray) -> Truth:
    """The truth with the centroid of noise-free training effects, which hold no control noise, as predictions of them.

    `Truth.centroid` holds the noise of half A, as predictions of a head do: it cancels in theirs, not in the known
    effect.
    """
    if data.noise_free is None or truth.centroid is None:
        return truth
    means = observed_means(data, data.noise_free, train)
    return replace(truth, centroid=means.astype(np.float32)[truth.context])


def _source(data: PerturbationDataset, truth: Truth, rows: np.ndarray, weights: str, seed: int) -> Resampler | None:
    """A resampler of the rows; None without cells, or when the cells kept are not those of any row."""
    if weights not in ("equal", "size"):
        raise ValueError(f"ceilings: weights must be equal or size, got {weights!r}")
    if data.cells is None or not len(rows):
        return None
    made = Resampler(data, truth, rows, weights=weights, seed=seed)
    return made if made.usable.any() else None


def _add_population(own: dict[str, Ceiling], truth: Truth, name: str, metric: Metric, samples: int, seed: int) -> None:
    """The replicate half scored against the observed half, at as many cells as an entry has.

    Finite samples of one distribution are apart from each other, the more the fewer they are: the number of cells is
    ``min(samples, n // 2)``, that of the rows scored together where a value depends on other rows.
    """
    values, note = np.full(len(truth.effects), np.nan), _unavailable(name, metric)
    if note or truth.cells is None:
        own["noise_free"] = Ceiling("noise_free", name, values, note or NONE)
        return
    note = f"replicate half of the cells, at most {samples}"
    halves = [_replicate(truth.cells, i, samples, seed) for i in range(len(truth.effects))]
    size = np.array([len(h) for h in halves])
    if metric.level == "set":
        rows = np.flatnonzero(size >= LEAST_CELLS // 2)
        if len(rows):
            least = int(size[rows].min())
            cells = np.stack([halves[i][:least] for i in rows])
            values[rows] = metric(cells, _take(truth, rows))
    else:
        for i in np.flatnonzero(size >= LEAST_CELLS // 2).tolist():
            values[i] = metric(halves[i][None], _take(truth, np.array([i])))[0]
    if missing := int((size < LEAST_CELLS // 2).sum()):
        note += f"; {missing} of {len(size)} rows too small (below {LEAST_CELLS} cells)"
    own["noise_free"] = Ceiling("noise_free", name, values, note)
    own["replicate_vs_replicate"] = replace(own["noise_free"], variant="replicate_vs_replicate")


def _replicate(view: CellView, i: int, samples: int, seed: int) -> np.ndarray:
    """At most ``samples`` cells (k, g) of the half that nothing is judged against, in random order."""
    cells = replace(view, share="all").perturbed(i)
    row = int(view.rows[i])
    mine = share_of(len(cells), row, "replicate")
    return cells[np.random.default_rng([seed, row, len(cells)]).permutation(mine)[:samples]]


def _take(truth: Truth, rows: np.ndarray) -> Truth:
    """The truth of some rows."""
    cut: dict[str, Any] = {}
    for field in fields(truth):
        value = getattr(truth, field.name)
        if isinstance(value, tuple):
            cut[field.name] = tuple(value[i] for i in rows) if value else value
        elif isinstance(value, DETable):
            cut[field.name] = replace(value, log2fc=value.log2fc[rows], padj=value.padj[rows])
        elif isinstance(value, CellView):
            cut[field.name] = value.take(rows)
        elif isinstance(value, np.ndarray) and field.name != "basis":
            cut[field.name] = value[rows]
    return replace(truth, **cut)
