"""Hyper-parameters by inner folds that hold out whole units of the training rows; every head gets the same protocol."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from embbench.core import Inputs, Metric, Truth
from embbench.grid.inputs import Raw, query_part
from embbench.numerics.folds import inner_folds
from embbench.registry import Spec

FOLDS = 5
BLOCK = 8_000_000  # smoother weights held at a time (64 MB)
QUADRATIC: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "l2_all": np.sqrt,
    "mse_all": lambda total: total,
    "rmse_all": np.sqrt,
}  # of the squared error over all observed genes


@dataclass(frozen=True)
class Choice:
    """What selection chose: parameters, number of candidate settings tried, and their best inner score."""

    params: dict[str, Any]
    trials: int
    score: float | None = None


@dataclass(frozen=True)
class Problem:
    """Training rows as selection sees them (covered rows only; nothing of the outer test rows).

    Parameters
    ----------
    raw : inputs of the training rows before features.
    Y : (n, g) training effects or labels, filled where unobserved.
    observed : (n, g) bool or None.
    truth : builds the `Truth` of some training rows from training effects.
    features : the feature spec, refitted in every inner fold.
    target : ``effects``, ``labels`` or ``population``.
    samples : cells per condition for population heads.
    """

    raw: Raw
    Y: np.ndarray
    observed: np.ndarray | None
    truth: Callable[[np.ndarray], Truth]
    features: Spec
    target: str = "effects"
    samples: int = 100


def settings(spec: Spec) -> list[dict[str, Any]]:
    """Candidate parameters with the user's own taking precedence, repeats removed, order kept."""
    merged = [{**c, **spec.overrides} for c in spec.entry.load().candidates()]
    return [c for i, c in enumerate(merged) if c not in merged[:i]]


def choose(spec: Spec, problem: Problem, metric_name: str, metric: Metric, seed: int) -> Choice:
    """The candidate with the best mean inner score; ties go to the earlier candidate.

    Parameters
    ----------
    spec : the head.
    problem : training rows.
    metric_name, metric : the registered score that selection optimises.
    seed : of the inner folds and of heads that take one.

    Notes
    -----
    For linear smoothers under ``l2_all``, ``mse_all`` and ``rmse_all`` no prediction is made: with ``K = Y Y'`` the
    squared error of ``p = w Y`` against row ``t`` is ``w K w' - 2 w K_t + K_tt``, less the part of genes that the row
    does not observe (``Y`` is filled there). Where the training rows hold a single unit there is nothing to hold out:
    the head keeps its own defaults, after 0 trials.
    """
    candidates = settings(spec)
    folds = inner_folds(problem.raw.inputs.units, FOLDS, seed) if len(candidates) > 1 else []
    if not folds:
        return Choice(candidates[0] if len(candidates) == 1 else dict(spec.overrides), 0)
    smoother = hasattr(spec.entry.load(), "weights") and problem.target == "effects"
    gram = None
    if smoother and metric_name in QUADRATIC:
        Y = problem.Y.astype(np.float64)
        gram = Y @ Y.T
    seen = problem.observed
    totals, count = np.zeros(len(candidates)), np.zeros(len(candidates))
    for fit, held in folds:
        inputs = problem.raw.featured(problem.features, fit)
        train, query = inputs.rows(fit), query_part(inputs, held)
        if gram is not None:
            scores = _quadratic(spec, candidates, train, query, gram, problem, fit, held)
            genes = np.full(len(held), problem.Y.shape[1]) if seen is None else seen[held].sum(axis=1)
            scores = np.where(genes > 0, scores, np.nan)
            values = QUADRATIC[metric_name](scores / (1 if metric_name.startswith("l2") else np.maximum(genes, 1)))
        else:
            truth = problem.truth(held)
            values = np.array([metric(p, truth) for p in _explicit(spec, candidates, train, query, problem, fit, seed)])
        totals += np.nansum(values, axis=1)
        count += np.isfinite(values).sum(axis=1)
    mean = np.divide(
        totals, count, out=np.full(len(totals), np.inf if metric.best == "low" else -np.inf), where=count > 0
    )
    best = int(np.argmin(mean) if metric.best == "low" else np.argmax(mean))
    return Choice(candidates[best], len(candidates), float(mean[best]) if np.isfinite(mean[best]) else None)


def all_weights(
    spec: Spec, candidates: list[dict[str, Any]], train: Inputs, query: Inputs
) -> Iterator[np.ndarray | sparse.csr_matrix]:
    """Smoother matrices of all candidates; heads that can share work between them offer ``path``."""
    head = spec.entry.load()
    if hasattr(head, "path"):
        yield from head.path([spec.entry.make(**c) for c in candidates], train, query)
    else:
        for candidate in candidates:
            yield spec.entry.make(**candidate).weights(train, query)


def _quadratic(
    spec: Spec,
    candidates: list[dict[str, Any]],
    train: Inputs,
    query: Inputs,
    gram: np.ndarray,
    problem: Problem,
    fit: np.ndarray,
    held: np.ndarray,
) -> np.ndarray:
    """Squared errors (candidates, m) of the held rows over their observed genes; candidates are taken in blocks that
    bound memory.
    """
    inner, cross, own = gram[np.ix_(fit, fit)], gram[np.ix_(held, fit)], gram[held, held]
    step = max(1, BLOCK // cross.size)
    weights, out = all_weights(spec, candidates, train, query), []
    while block := [w.toarray() if isinstance(w, sparse.csr_matrix) else w for w in itertools.islice(weights, step)]:
        W = np.stack(block)
        quadratic = np.einsum("cmn,cmn->cm", W @ inner, W)
        out.append(quadratic - 2 * np.einsum("cmn,mn->cm", W, cross) + own - _unobserved(W, problem, fit, held))
    return np.maximum(np.concatenate(out), 0)


def _unobserved(W: np.ndarray, problem: Problem, fit: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The part (c, m) of the squared errors of ``W`` (c, m, n) that lies in genes the held row does not observe."""
    out = np.zeros(W.shape[:2])
    if problem.observed is None:
        return out
    for i, row in enumerate(held):
        gaps = np.flatnonzero(~problem.observed[row])
        if len(gaps):
            Y = problem.Y[:, gaps].astype(np.float64)
            out[:, i] = np.square(W[:, i] @ Y[fit] - Y[row]).sum(axis=1)
    return out


def _explicit(
    spec: Spec,
    candidates: list[dict[str, Any]],
    train: Inputs,
    query: Inputs,
    problem: Problem,
    fit: np.ndarray,
    seed: int,
) -> Iterator[np.ndarray]:
    observed = None if problem.observed is None else problem.observed[fit]
    for candidate in candidates:
        head = make_head(spec, seed, **candidate).fit(train, problem.Y[fit], observed)
        yield predict_target(head, query, problem.target, problem.samples)


def make_head(spec: Spec, seed: int, /, **params: Any) -> Any:
    """A fresh head; heads whose constructor takes a ``seed`` get it unless the user set one."""
    import inspect

    takes = "seed" in inspect.signature(spec.entry.load().__init__).parameters
    given = "seed" in {**spec.overrides, **params}
    return spec.make(
        **({"seed": seed} if takes and not given else {}), **{k: v for k, v in params.items() if k != "seed" or given}
    )


def predict_target(head: Any, query: Inputs, target: str, samples: int) -> np.ndarray:
    """Effects (n, g), label probabilities (n, g, 3) or cells (n, samples, g)."""
    if target == "labels":
        return np.asarray(head.predict_proba(query), dtype=np.float32)
    if target == "population":
        return np.asarray(head.sample(query, samples), dtype=np.float32)
    return np.asarray(head.predict(query), dtype=np.float32)
