"""Contracts of metrics."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import numpy as np

from embbench.checks._contract import ContractError, Make, require
from embbench.checks._toy import own_de, toy_truth
from embbench.core import DETable, Metric, Truth

LEVELS, TARGETS = ("condition", "set", "gene", "population"), ("effects", "labels", "population")
ALWAYS = {"effects", "unit", "context", "targets", "entities"}
GENES, SPACES = re.compile(r"all|notarget|(top|expressed)[1-9]\d*"), re.compile(r"genes|pca[1-9]\d*")
BOUND = 1e-6  # how far from a declared bound rounding may take a value


def _truth(metric: Metric) -> Truth:
    truth = toy_truth(metric.units[0] if metric.units else "delta")
    return replace(truth, de=own_de(truth, metric.target)) if "de" in metric.needs else truth


def perfect(metric: Metric, truth: Truth) -> np.ndarray:
    """The prediction that is the truth: effects of shape (n, g), label probabilities (n, g, 3) or cells (n, m, g)."""
    if metric.target == "labels":
        return np.eye(3, dtype=np.float32)[truth.labels.astype(int) + 1]
    if metric.target == "population":
        return np.stack([truth.cells.perturbed(i) for i in range(len(truth.effects))])
    return np.nan_to_num(truth.effects, nan=0.0)


def noisy(metric: Metric, truth: Truth, amount: float, seed: int) -> np.ndarray:
    """The truth with ``amount`` of noise (0: none); probabilities stay probabilities, cells move and spread."""
    pred, rng = perfect(metric, truth), np.random.default_rng([17, seed])
    if metric.target == "labels":
        share = amount / (1 + amount)
        return ((1 - share) * pred + share * rng.dirichlet(np.ones(3), pred.shape[:2])).astype(np.float32)
    if metric.target != "population":
        return (pred + amount * rng.normal(size=pred.shape)).astype(np.float32)
    if not amount:
        return pred
    centre = pred.mean(axis=1, keepdims=True)
    shift, stretch = (rng.normal(size=(len(pred), 1, pred.shape[2])) for _ in range(2))
    return (centre + amount * shift + (pred - centre) * (1 + amount * np.abs(stretch))).astype(np.float32)


def subset(truth: Truth, rows: np.ndarray) -> Truth:
    """The truth of some rows.

    Examples
    --------
    >>> truth = toy_truth()
    >>> subset(truth, np.array([4, 0])).entities == (truth.entities[4], truth.entities[0])
    True
    """
    cut = {}
    for field in fields(truth):
        value = getattr(truth, field.name)
        if isinstance(value, tuple):
            cut[field.name] = tuple(value[i] for i in rows)
        elif field.name == "cells" and value is not None:
            cut[field.name] = value.take(rows)
        elif isinstance(value, DETable):
            cut[field.name] = replace(value, log2fc=value.log2fc[rows], padj=value.padj[rows])
        elif isinstance(value, np.ndarray) and field.name != "basis":
            cut[field.name] = value[rows]
    return replace(truth, **cut)


def _scored(metric: Metric, truth: Truth) -> np.ndarray:
    mask = truth.mask(metric.genes)
    return mask & truth.labels_tested if metric.target == "labels" else mask


def metric_declares_itself(make: Make) -> None:
    """Direction, level, target, gene set, range, needs and source are stated and of known words."""
    metric = make()
    require(isinstance(metric, Metric), f"a metric must be an embbench.core.Metric, found {type(metric).__name__}")
    require(metric.best in ("low", "high"), f"metric: best must be low or high, found {metric.best!r}")
    require(metric.level in LEVELS, f"metric: level must be one of {LEVELS}, found {metric.level!r}")
    require(metric.target in TARGETS, f"metric: target must be one of {TARGETS}, found {metric.target!r}")
    require(metric.lower < metric.upper, f"metric: range {metric.lower} .. {metric.upper} is empty")
    require(bool(GENES.fullmatch(metric.genes)), f"metric: genes must be {GENES.pattern}, found {metric.genes!r}")
    require(bool(SPACES.fullmatch(metric.space)), f"metric: space must be {SPACES.pattern}, found {metric.space!r}")
    require(metric.formula, "metric: the formula is empty; write the docstring of its function, or `about`")
    strange = set(metric.needs) - {f.name for f in fields(Truth)}
    require(not strange, f"metric: needs {sorted(strange)} are not fields of Truth")
    require(metric.source.strip(), "metric: source (paper and equation) is empty")


def metric_gives_one_value_per_row(make: Make) -> None:
    """Values of shape (n,), float64, most of them defined on ordinary data."""
    metric = make()
    truth = _truth(metric)
    values = metric(noisy(metric, truth, 1.0, 0), truth)
    n = len(truth.effects)
    good = isinstance(values, np.ndarray) and values.shape == (n,) and values.dtype == np.float64
    require(good, f"metric: expected ({n},) float64, found {np.shape(values)} {getattr(values, 'dtype', type(values))}")
    require(
        np.isfinite(values).mean() > 0.5, f"metric: only {int(np.isfinite(values).sum())} of {n} values are defined"
    )


def metric_truth_is_best(make: Make) -> None:
    """The truth reaches the declared bound; the score worsens as noise grows."""
    metric = make()
    truth, sign = _truth(metric), 1 if metric.best == "high" else -1
    own, amounts = metric(perfect(metric, truth), truth), (0.0, 0.5, 5.0)
    if "de" in metric.needs:  # cell-eval's forms are 0 where nothing is significant
        own = own[(truth.de.significant & truth.mask(metric.genes)).any(axis=1)]
        # cells far away are significant in every gene, which a recall likes
        amounts = (0.0, 0.1, 0.4) if metric.target == "population" else amounts
    bound = metric.upper if metric.best == "high" else metric.lower
    reached = not np.isfinite(bound) or np.allclose(own[np.isfinite(own)], bound, atol=BOUND)
    require(reached, f"metric: the truth itself scores {np.nanmean(own):.6g}, not the bound {bound}")
    scores = [np.nanmean([metric(noisy(metric, truth, a, s), truth) for s in range(3)]) for a in amounts]
    falls = sign * scores[0] >= sign * scores[1] >= sign * scores[2] and sign * scores[0] > sign * scores[2]
    require(falls, f"metric: best is {metric.best!r} but scores go {scores} as noise grows")


def metric_stays_in_range(make: Make) -> None:
    """Every defined value lies in the declared range, for the truth, its opposite and noise."""
    metric = make()
    truth = _truth(metric)
    preds = [perfect(metric, truth), noisy(metric, truth, 1.0, 1), noisy(metric, truth, 50.0, 2)]
    preds.append(perfect(metric, truth)[..., ::-1].copy())
    if metric.target == "effects":
        preds.append(-3 * perfect(metric, truth))
    found = [metric(pred, truth) for pred in preds]
    if metric.level == "gene":  # rows are a linearisation, which may leave the range; their mean is the statistic
        found = [np.array([np.nanmean(v[truth.context == c]) for c in np.unique(truth.context)]) for v in found]
    values = np.concatenate(found)
    values = values[~np.isnan(values)]
    inside = ((values >= metric.lower - BOUND) & (values <= metric.upper + BOUND)).all()
    require(inside, f"metric: {values.min():.6g} .. {values.max():.6g} leaves {metric.lower} .. {metric.upper}")


def metric_follows_its_rows(make: Make) -> None:
    """Reordering conditions reorders values; unless the level is ``set`` or ``gene``, a row scores alike alone."""
    metric = make()
    truth = _truth(metric)
    pred = noisy(metric, truth, 1.0, 3)
    values = metric(pred, truth)
    orders = [np.random.default_rng(1).permutation(len(pred))]
    orders += [] if metric.level in ("set", "gene") else [np.array([4]), np.array([8, 1, 5])]
    for rows in orders:
        again = metric(pred[rows], subset(truth, rows))
        same = np.allclose(again, values[rows], rtol=1e-9, atol=1e-9, equal_nan=True)
        require(same, f"metric of level {metric.level!r}: values change when rows {rows[:4].tolist()} are scored apart")


def metric_refuses_what_it_cannot_score(make: Make) -> None:
    """ValueError for a prediction that is not finite, and for one of another number of rows."""
    metric = make()
    truth = _truth(metric)
    bad = perfect(metric, truth)
    bad[(1,) * bad.ndim] = np.nan
    for pred, what in ((bad, "NaN"), (perfect(metric, truth)[:-1], "a row less")):
        try:
            metric(pred, truth)
        except ValueError:
            continue
        raise ContractError(f"metric: a prediction with {what} must raise ValueError")


def metric_ignores_entries_it_does_not_score(make: Make) -> None:
    """A value stays whatever is predicted where its row is unobserved, untested or (``notarget``) its own target.

    Truth is NaN where it is unobserved, so a metric that reads it there shows it too.
    """
    metric = make()
    truth = _truth(metric)
    pred, open_ = noisy(metric, truth, 1.0, 4), _scored(metric, truth)
    values = metric(pred, truth)
    for row in (0, 3, 9):
        junk = pred.copy()
        if metric.target == "labels":
            junk[row, ~open_[row]] = [0.8, 0.1, 0.1]
        else:
            junk[row, ..., ~open_[row]] += 7.0
        again = metric(junk, truth)[row]
        same = np.allclose(again, values[row], rtol=1e-9, atol=1e-9, equal_nan=True)
        require(
            same, f"metric ({metric.genes}): row {row} goes from {values[row]:.6g} to {again:.6g} by unscored entries"
        )


def metric_of_nothing_is_nan(make: Make) -> None:
    """A condition without a scored entry has no value: NaN, not 0."""
    metric = make()
    truth = _truth(metric)
    blank = np.arange(len(truth.effects)) == 2
    tested = truth.labels_tested & ~blank[:, None]
    truth = replace(truth, observed=truth.observed & ~blank[:, None], labels_tested=tested)
    value = metric(noisy(metric, truth, 1.0, 5), truth)[2]
    require(np.isnan(value), f"metric: a condition with no scored entry must be NaN, found {value:.6g}")


def metric_undefined_is_nan(make: Make) -> None:
    """NaN, not 0, for a zero truth (scores up to 1 that go below 0) and a zero prediction (correlations, from -1)."""
    metric = make()
    if metric.target != "effects" or metric.level != "condition" or metric.upper != 1 or metric.lower >= 0:
        return
    if {"baseline", "centroid"} & set(metric.needs):
        return  # effects are added to a reference, or taken from one: a zero effect is not a zero vector
    truth = _truth(metric)
    zero = np.zeros_like(truth.effects)
    flat = replace(truth, effects=np.where(truth.observed, zero, np.nan).astype(np.float32))
    if "de" in metric.needs:
        flat = replace(flat, de=DETable(zero, np.ones_like(zero)))
    cases = [("truth", noisy(metric, truth, 1.0, 6), flat)]
    cases += [("prediction", zero, truth)] if metric.lower == -1 else []
    for what, pred, target in cases:
        values = metric(pred, target)
        require(np.isnan(values).all(), f"metric: undefined for a zero {what}, expected NaN, found {values[:3]}")


def metric_needs_only_what_it_declares(make: Make) -> None:
    """It runs on a truth that has nothing but the required fields and its ``needs``."""
    metric = make()
    truth = _truth(metric)
    effects = np.nan_to_num(truth.effects, nan=0.0)
    needs = set(metric.needs) | ({"baseline"} if metric.genes.startswith("expressed") else set())
    needs |= {"basis"} if metric.space != "genes" else set()
    gone = {f.name: None for f in fields(truth) if f.name not in ALWAYS | needs}
    pred = noisy(metric, truth, 1.0, 7)
    try:
        metric(pred, replace(truth, effects=effects, **gone))
    except (TypeError, AttributeError, ValueError) as error:
        raise ContractError(f"metric: needs {metric.needs} are not enough: {error}") from error


def metric_leaves_its_arguments_alone(make: Make) -> None:
    """Scoring writes neither into the prediction nor into the truth."""
    metric = make()
    truth = _truth(metric)
    pred = noisy(metric, truth, 1.0, 8)
    copies = pred.copy(), truth.effects.copy(), truth.observed.copy()
    metric(pred, truth)
    same = all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(copies, (pred, truth.effects, truth.observed), strict=True)
    )
    require(same, "metric: scoring changed the prediction or the truth in place; copy before writing")
