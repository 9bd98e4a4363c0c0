"""Ceilings from cells: pairs of resampled effects, scored like a prediction and a truth."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from embbench.core import Metric, Truth
from embbench.grid.resample import LEAST_BATCHES, LEAST_CELLS, Column, Resampler

Job = tuple[str, tuple[Column, ...]]  # what a pair of effects is for, and the resamples it is made of
VARIANTS = ("noise_free", "from_cells", "replicate_vs_replicate", "cole_q0.9", "cell_eval")
SQUARED = ("l2", "mse", "rmse")
CORRELATIONS = tuple(f"{c}{s}" for c in ("pearson", "cosine", "spearman") for s in ("", "_systema"))
TESTS = ("de", "labels", "labels_tested")  # fields that would need the test repeated on every resample
REPEATS = 2  # random splits per outer resample
QUANTILE = 0.9


@dataclass(frozen=True)
class Ceiling:
    """One variant of one metric's ceiling.

    Parameters
    ----------
    variant : one of `VARIANTS`.
    metric : registered name.
    values : (m,) float64, NaN where there is none.
    note : where it comes from, for the tables.
    bias : measured bias of the uncorrected mean (``values`` are corrected), or None where none was measured.
    """

    variant: str
    metric: str
    values: np.ndarray
    note: str
    bias: float | None = None


def _recipe(name: str, metric: Metric) -> str:
    family, _, genes = name.partition(":")[0].rpartition("_")
    if set(metric.needs) & set(TESTS):
        return "held"
    if not genes.startswith("top") and family in SQUARED:
        return "squared"
    return "correlation" if not genes.startswith("top") and family in CORRELATIONS else "resample"


def _jobs(recipes: set[str], outer: int, inner: int, variants: tuple[str, ...]) -> Iterator[Job]:
    """Pairs of effects to score, resamples of a resample beside it."""
    halves = range(REPEATS * outer)
    if "squared" in recipes:
        yield from (("squared", (("noise", (s,)),)) for s in halves)
    if recipes & {"correlation"} or "replicate_vs_replicate" in variants:
        yield from (("halves", (("noise", (s,)),)) for s in halves)
    for o in range(outer):
        if "held" in recipes:
            yield "held", (("boot", (o,)),)
        if "resample" in recipes:
            yield "boot", (("boot", (o,)),)
            yield from (("double", (("boot", (o,)), ("boot", (o, i)))) for i in range(inner))
    if "resample" in recipes:
        yield from (("boot", (("boot", (o,)),)) for o in range(outer, 3 * outer))
    if "cole_q0.9" in variants:
        yield from (("plain", (("plain", (o, i)),)) for o in range(outer) for i in range(inner))
    if "cell_eval" in variants:
        yield from (("twin", (("twin", (s, 0)), ("twin", (s, 1)))) for s in range(outer))


WANTED = {  # recipe -> kinds of pairs that its variants are made of
    "squared": ("squared", "halves", "plain", "twin"),
    "correlation": ("halves", "plain", "twin"),
    "resample": ("boot", "double", "halves", "plain", "twin"),
    "held": ("held", "plain"),
}


def from_cells(
    source: Resampler, truth: Truth, metrics: Mapping[str, Metric], outer: int, inner: int, variants: tuple[str, ...]
) -> Iterator[Ceiling]:
    """Variants of the ceilings of effect metrics; see `embbench.grid.ceiling.ceilings`.

    Parameters
    ----------
    source : resamples of the rows.
    truth : of the rows.
    metrics : registered name -> metric of effects, nothing unmet.
    outer, inner, variants : as in `embbench.grid.ceiling.ceilings`.
    """
    recipes = {name: _recipe(name, metric) for name, metric in metrics.items()}
    scores: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    jobs = list(_jobs(set(recipes.values()), outer, inner, variants))
    for chunk in _chunks(jobs, source.at_once):
        columns = list(dict.fromkeys(column for _, needed in chunk for column in needed))
        where = {column: k for k, column in enumerate(columns)}
        moved = source.deviations(columns)
        for kind, needed in chunk:
            names = [name for name, recipe in recipes.items() if kind in WANTED[recipe]]
            if not names:
                continue
            pred, seen = _pair(kind, source, [moved[where[column]] for column in needed], needed[0][1][0])
            for name in names:
                # where a test is read it stays that of the observed cells, so the resample is the prediction
                given = (seen, truth) if recipes[name] == "held" else (pred, replace(truth, effects=seen))
                scores[name, kind].append(np.asarray(metrics[name](*given), dtype=np.float64))
    for name, metric in metrics.items():
        yield from _variants(name, metric, recipes[name], scores, source)


def _chunks(jobs: list[Job], size: int) -> Iterator[list[Job]]:
    """Jobs in order, in lists whose resamples fit into memory together."""
    chunk: list[Job] = []
    used: set[Column] = set()
    for job in jobs:
        if chunk and len(used | set(job[1])) > size:
            yield chunk
            chunk, used = [], set()
        chunk.append(job)
        used |= set(job[1])
    if chunk:
        yield chunk


def _pair(kind: str, source: Resampler, moved: list[np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and observed effects of one pair; the noise-free stand-in predicts in ``boot`` and ``double``."""
    point = source.point
    if kind == "squared":
        return moved[0], np.zeros_like(point)
    if kind == "halves":
        return point + moved[0], point - moved[0]
    if kind == "twin":
        return point + moved[0], point + moved[1]
    if kind == "plain":
        return point, point + moved[0]
    if kind == "held":  # a draw that has the variance of the noise-free effect, and its covariance with the observed
        share = source.signal_share(point)[:, None]
        drawn = share * point + np.sqrt(share) * moved[0]
        return point, drawn.astype(np.float32)
    known = source.stand_in(point)
    if kind == "boot":
        return known, known + moved[0]
    again = source.stand_in(known + source.as_errors(moved[0], number))
    return again, again + (moved[1] - moved[0])


def _variants(
    name: str, metric: Metric, recipe: str, scores: Mapping[tuple[str, str], list[np.ndarray]], source: Resampler
) -> Iterator[Ceiling]:
    """The variants of one metric from its scores on pairs; rows whose noise is unknown are NaN."""

    def made(variant: str, values: np.ndarray, note: str, bias: float | None = None) -> Ceiling:
        inside = values if metric.level == "gene" else np.clip(values, metric.lower, metric.upper)
        return Ceiling(variant, name, np.where(source.usable, inside, np.nan), note + _small(source), bias)

    stages = _stages(source)
    if recipe == "squared":
        power = 1.0 if name.startswith("mse") else 2.0
        values = _nanmean([s**power for s in scores[name, "squared"]]) ** (1.0 / power)
        yield made("noise_free", values, "half differences" + _fixed(source))
    elif recipe == "correlation":
        half = np.maximum(_nanmean(scores[name, "halves"]), 0.0)
        yield made("noise_free", np.sqrt(2 * half / (1 + half)), "half correlations" + _fixed(source))
    elif recipe == "held":
        yield made("noise_free", _nanmean(scores[name, "held"]), f"{stages}, tests held, bias not measured")
    else:
        once, twice = _nanmean(scores[name, "boot"]), _nanmean(scores[name, "double"])
        gap = np.where(source.usable, twice - once, np.nan)
        bias = float(np.nanmean(gap)) if np.isfinite(gap).any() else None
        yield made(
            "noise_free", np.where(np.isfinite(twice), 2 * once - twice, once), f"{stages}, bias-corrected", bias
        )
    if scores.get((name, "halves")):
        yield made("replicate_vs_replicate", _nanmean(scores[name, "halves"]), "half against half" + _fixed(source))
    if scores.get((name, "plain")) and metric.level != "gene":
        at = QUANTILE if metric.best == "low" else 1.0 - QUANTILE
        values = _quantile(np.stack(scores[name, "plain"]), at)
        yield made("cole_q0.9", values, f"quantile {at:.1f} of {stages}, uncorrected")
    if scores.get((name, "twin")):
        yield made("cell_eval", _nanmean(scores[name, "twin"]), "two draws of the same cells: optimistic")


def _stages(source: Resampler) -> str:
    """What was resampled, and why not batches."""
    staged, usable = int(source.staged.sum()), int(source.usable.sum())
    few = f"cells only (fewer than {LEAST_BATCHES} batches)"
    if staged == 0:
        stages = few
    elif staged == usable:
        stages = "batches and cells"
    else:
        stages = f"batches and cells, in {usable - staged} rows {few}"
    return "resampled " + stages + _fixed(source)


def _fixed(source: Resampler) -> str:
    return ", shared controls fixed" if source.shared else ""


def _small(source: Resampler) -> str:
    missing = int((~source.usable).sum())
    return f"; {missing} of {len(source.usable)} rows too small (below {LEAST_CELLS} cells)" if missing else ""


def _nanmean(values: list[np.ndarray]) -> np.ndarray:
    """Mean over resamples where the score is defined, (m,); NaN where it never is."""
    stack = np.stack(values)
    seen = np.isfinite(stack)
    total = np.where(seen, stack, 0.0).sum(axis=0)
    return np.where(seen.any(axis=0), total / np.maximum(seen.sum(axis=0), 1), np.nan)


def _quantile(stack: np.ndarray, at: float) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN rows stay NaN
        return np.nanquantile(stack, at, axis=0)
