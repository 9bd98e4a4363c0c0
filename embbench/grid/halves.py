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
DEBIASED = ("l2_debiased", "mse_debiased")
ROOTED = ("l2", "rmse", "l2_debiased")  # squares are averaged, then the root is taken
CORRELATIONS = ("pearson", "cosine")
TESTS = ("de", "labels", "labels_tested")  # fields that would need the test repeated on every resample
REPEATS = 2  # random splits per outer resample
QUANTILE = 0.9
OPTIMISTIC = {  # what docs/ceilings.md measured
    "set": "; too good with many near-null conditions",
    "systema_top": "; 11 to 27 % too good on simulated screens",
}


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


def family_of(name: str) -> str:
    """``mse_debiased`` of ``mse_debiased_all:genes=top20``: a registered name without its gene set and parameters."""
    return name.partition(":")[0].rpartition("_")[0]


def _recipe(name: str, metric: Metric) -> str:
    family, by_truth = family_of(name), metric.genes.startswith("top")  # the set itself is chosen by the noisy truth
    if set(metric.needs) & set(TESTS):
        return "tests"
    if "centroid_truth" in metric.needs:
        return "systema_top" if by_truth else "systema"
    if family == "spearman" and not by_truth:
        return "posterior"
    if by_truth:
        return "resample"
    if family in DEBIASED:
        return "debiased"
    return "squared" if family in SQUARED else "correlation" if family in CORRELATIONS else "resample"


def _jobs(recipes: set[str], outer: int, inner: int, variants: tuple[str, ...]) -> Iterator[Job]:
    """Pairs of effects to score, resamples of a resample beside it."""
    halves = range(REPEATS * outer)
    if recipes & {"squared", "debiased"}:
        yield from (("squared", (("noise", (s,)),)) for s in halves)
    if recipes & {"correlation"} or "replicate_vs_replicate" in variants:
        yield from (("halves", (("noise", (s,)),)) for s in halves)
    if "systema" in recipes or ("systema_top" in recipes and "replicate_vs_replicate" in variants):
        yield from (("own", (("own", (s,)),)) for s in halves)
    if "resample" in recipes:
        for o in range(outer):
            yield "boot", (("boot", (o,)),)
            yield from (("double", (("boot", (o,)), ("boot", (o, i)))) for i in range(inner))
        yield from (("boot", (("boot", (o,)),)) for o in range(outer, 3 * outer))
    if "cole_q0.9" in variants:
        yield from (("plain", (("plain", (o, i)),)) for o in range(outer) for i in range(inner))
    if "cell_eval" in variants:
        yield from (("twin", (("twin", (s, 0)), ("twin", (s, 1)))) for s in range(outer))


WANTED = {  # recipe -> kinds of pairs that its variants are made of
    "squared": ("squared", "halves", "plain", "twin"),
    "debiased": ("squared", "halves", "plain", "twin"),
    "correlation": ("halves", "plain", "twin"),
    "systema": ("own",),  # in the other kinds controls are drawn again, which the centroid would not follow
    "systema_top": ("own",),
    "resample": ("boot", "double", "halves", "plain", "twin"),
    "posterior": ("halves", "plain", "twin"),
    "tests": ("plain",),
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
    _score_posterior(source, truth, metrics, recipes, scores, REPEATS * outer)
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
                given = (pred, _judge(recipes[name], kind, truth, seen, source))
                if (
                    recipes[name] == "tests"
                ):  # the test stays that of the observed cells: the resample is the prediction
                    given = (seen, truth)
                scores[name, kind].append(np.asarray(metrics[name](*given), dtype=np.float64))
    for name, metric in metrics.items():
        yield from _variants(name, metric, recipes[name], scores, source)


def _judge(recipe: str, kind: str, truth: Truth, seen: np.ndarray, source: Resampler) -> Truth:
    """What a pair's prediction is judged against."""
    if recipe.startswith("systema"):
        # both sides hold the same control noise, that of half B, and so must the centroid that is taken from them
        return replace(truth, effects=seen, centroid=truth.centroid_truth)
    if (
        recipe == "debiased" and kind == "squared" and not source.shared
    ):  # `_variants` takes away the variance that the splits have
        return replace(truth, effects=seen, variance=np.asarray(truth.variance) * 0)
    return replace(truth, effects=seen)


def _score_posterior(
    source: Resampler,
    truth: Truth,
    metrics: Mapping[str, Metric],
    recipes: Mapping[str, str],
    scores: dict[tuple[str, str], list[np.ndarray]],
    draws: int,
) -> None:
    """Add scores of posterior draws of the noise-free effect, judged like an entry by everything that was observed."""
    for fixed, served in ((False, ("posterior", "tests")), (True, ("systema_top",))):
        names = [name for name, recipe in recipes.items() if recipe in served]
        judge = replace(truth, centroid=truth.centroid_truth) if fixed else truth
        for number in range(draws if names else 0):
            pred = source.posterior(number, fixed=fixed)
            for name in names:
                scores[name, "posterior"].append(np.asarray(metrics[name](pred, judge), dtype=np.float64))


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
    if kind in ("halves", "own"):
        return point + moved[0], point - moved[0]
    if kind == "twin":
        return point + moved[0], point + moved[1]
    if kind == "plain":
        return point, point + moved[0]
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

    stages, fixed = _stages(source), ", controls held" if recipe.startswith("systema") else _fixed(source)
    if recipe in ("squared", "debiased"):
        power = 2.0 if family_of(name) in ROOTED else 1.0
        values = _errors(scores[name, "squared"], power, debiased=recipe == "debiased")
        if recipe == "debiased" and source.shared:  # fixed controls leave less error than the variance says
            values = _nanmean(scores[name, "squared"])
        yield made("noise_free", values, "half differences" + fixed)
    elif recipe in ("correlation", "systema"):
        half = np.maximum(_nanmean(scores[name, "halves" if recipe == "correlation" else "own"]), 0.0)
        yield made("noise_free", np.sqrt(2 * half / (1 + half)), "half correlations" + fixed)
    elif recipe in ("posterior", "tests", "systema_top"):
        held = "tests held, " if recipe == "tests" else ""
        note = f"posterior draws of the effect{fixed}, {held}bias not measured" + OPTIMISTIC.get(recipe, "")
        yield made("noise_free", _nanmean(scores[name, "posterior"]), note)
    else:
        once, twice = _nanmean(scores[name, "boot"]), _nanmean(scores[name, "double"])
        gap = np.where(source.usable, twice - once, np.nan)
        bias = float(np.nanmean(gap)) if np.isfinite(gap).any() else None
        note = f"{stages}, bias-corrected" + OPTIMISTIC["set"] * (metric.level == "set")
        yield made("noise_free", np.where(np.isfinite(twice), 2 * once - twice, once), note, bias)
    if halves := scores.get((name, "halves")) or scores.get((name, "own")):
        yield made("replicate_vs_replicate", _nanmean(halves), "half against half" + fixed)
    if scores.get((name, "plain")) and metric.level != "gene":
        at = QUANTILE if metric.best == "low" else 1.0 - QUANTILE
        values = _quantile(np.stack(scores[name, "plain"]), at)
        yield made("cole_q0.9", values, f"quantile {at:.1f} of {stages}, uncorrected")
    if scores.get((name, "twin")):
        yield made("cell_eval", _nanmean(scores[name, "twin"]), "two draws of the same cells: optimistic")


def _errors(scores: list[np.ndarray], power: float, *, debiased: bool) -> np.ndarray:
    """Expected error (m,): ``power`` of the errors is averaged and its root taken; of the signed excess if debiased.

    A debiased square is that of the error less its expectation: it is 0 on average, its root is not.
    """
    squares = np.stack(scores) ** power
    mean = _nanmean(list(squares))
    if not debiased:
        return mean ** (1.0 / power)
    away = squares - mean
    return _nanmean(list(np.sign(away) * np.abs(away) ** (1.0 / power))) if power != 1.0 else 0.0 * mean


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
