"""Hyper-parameters by inner folds that hold out whole units of the training rows; every head gets the same protocol."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from embbench.core import Inputs, Metric, Truth
from embbench.grid.inputs import Raw, query_part
from embbench.numerics.folds import inner_folds
from embbench.numerics.smoothers import ERRORS, SCORES, GramBlock, Weights, error_of, forms_of, matrix_of
from embbench.registry import Spec

FOLDS = 5
READ = {f"{name}_all": name for name in SCORES}  # metrics that inner products of effects tell, with their score
SQUARES = {f"{name}_all" for name in ERRORS}  # those that squared errors tell, where some genes are not observed too


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
    values : gives ``Y`` (n, g), training effects or labels, filled where unobserved; asked for when they are needed.
    observed : (n, g) bool or None.
    genes : g.
    truth : builds the `Truth` of some training rows from training effects.
    features : the feature spec, refitted in every inner fold.
    target : ``effects``, ``labels`` or ``population``.
    samples : cells per condition for population heads.
    gram : gives inner products (n, n) of ``Y`` over genes and its sums (n,); None: there are too many rows.
    equal_folds : each inner fold's mean counts once, as scikit-learn has it, not each row.
    """

    raw: Raw
    values: Callable[[], np.ndarray]
    observed: np.ndarray | None
    genes: int
    truth: Callable[[np.ndarray], Truth]
    features: Spec
    target: str = "effects"
    samples: int = 100
    gram: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None
    equal_folds: bool = False

    @functools.cached_property
    def Y(self) -> np.ndarray:
        """What heads are fitted to, (n, g) float32."""
        return self.values()


def settings(spec: Spec) -> list[dict[str, Any]]:
    """Candidate parameters with the user's own taking precedence, repeats removed, order kept."""
    tried = spec.entry.load().candidates() if spec.tried is None else spec.tried
    merged = [{**c, **spec.overrides} for c in tried]
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
    For linear smoothers under the metrics of `READ` no prediction is made: they are read off the inner products
    ``K = Y Y'`` (`embbench.numerics.smoothers.forms_of`). Where rows do not observe some genes (``Y`` is
    filled there), their part is subtracted from squared errors; cosine and Pearson are computed from predictions then.
    Where the training rows hold a single unit there is nothing to hold out: the head keeps its own defaults, after 0
    trials.
    """
    candidates = settings(spec)
    folds = inner_folds(problem.raw.inputs.units, FOLDS, seed) if len(candidates) > 1 else []
    if not folds:
        return Choice(candidates[0] if len(candidates) == 1 else dict(spec.overrides), 0)
    totals, count = np.zeros(len(candidates)), np.zeros(len(candidates))
    for values in _held_scores(spec, candidates, problem, metric_name, metric, folds, seed):
        seen = np.isfinite(values).sum(axis=1)
        share = 1.0 / np.maximum(seen, 1) if problem.equal_folds else 1.0
        totals += np.nansum(values, axis=1) * share
        count += seen * share
    mean = np.divide(
        totals, count, out=np.full(len(totals), np.inf if metric.best == "low" else -np.inf), where=count > 0
    )
    best = int(np.argmin(mean) if metric.best == "low" else np.argmax(mean))
    return Choice(candidates[best], len(candidates), float(mean[best]) if np.isfinite(mean[best]) else None)


def _held_scores(
    spec: Spec,
    candidates: list[dict[str, Any]],
    problem: Problem,
    name: str,
    metric: Metric,
    folds: list[tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> Iterator[np.ndarray]:
    """Scores (candidates, m) of the held rows of each fold, the cheapest exact way that the head has."""
    kind = spec.entry.load()
    plain = problem.target == "effects" and problem.observed is None
    if plain and name in SQUARES and hasattr(kind, "held_errors"):
        parts = [(problem.raw.featured(problem.features, fit), fit, held) for fit, held in folds]
        heads = [make_head(spec, seed, **candidate) for candidate in candidates]
        yield from (
            error_of(READ[name], squares, problem.genes) for squares in kind.held_errors(heads, parts, problem.Y)
        )
        return
    smoother = hasattr(kind, "weights") and problem.target == "effects" and problem.gram is not None
    gram = problem.gram() if smoother and (name in SQUARES or (plain and name in READ)) else None  # type: ignore[misc]
    for fit, held in folds:
        inputs = problem.raw.featured(problem.features, fit)
        train, query = inputs.rows(fit), query_part(inputs, held)
        if gram is not None:
            yield _read_off(name, all_weights(spec, candidates, train, query), gram, problem, fit, held)
        else:
            truth = problem.truth(held)
            yield np.array([metric(p, truth) for p in _explicit(spec, candidates, train, query, problem, fit, seed)])


def all_weights(spec: Spec, candidates: list[dict[str, Any]], train: Inputs, query: Inputs) -> Iterator[Weights]:
    """Weights of all candidates; heads that can share work between them offer ``path``."""
    head = spec.entry.load()
    if hasattr(head, "path"):
        yield from head.path([spec.entry.make(**c) for c in candidates], train, query)
    else:
        for candidate in candidates:
            yield spec.entry.make(**candidate).weights(train, query)


def _read_off(
    name: str,
    path: Iterator[Weights],
    gram: tuple[np.ndarray, np.ndarray],
    problem: Problem,
    fit: np.ndarray,
    held: np.ndarray,
) -> np.ndarray:
    """Scores (candidates, m) of the held rows from inner products (n, n) and sums (n,) of all rows."""
    block = GramBlock(*gram, fit, held, problem.genes)
    if problem.observed is None:
        return SCORES[READ[name]](forms_of(path, block))
    seen, squares = problem.observed[held].sum(axis=1), []
    for weights in path:
        lost = _unobserved(matrix_of(weights), problem, fit, held)
        squares.append(np.maximum(forms_of([weights], block).squared_error()[0] - lost, 0.0))
    return error_of(READ[name], np.array(squares), seen)


def _unobserved(W: np.ndarray | sparse.csr_matrix, problem: Problem, fit: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The part (m,) of the squared errors of ``W`` (m, n) that lies in genes the held row does not observe."""
    out = np.zeros(len(held))
    for i, row in enumerate(held if problem.observed is not None else ()):
        gaps = np.flatnonzero(~problem.observed[row])  # type: ignore[index]
        if len(gaps):
            Y = problem.Y[:, gaps].astype(np.float64)
            out[i] = np.square(W[i] @ Y[fit] - Y[row]).sum()
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
    """Predictions of the held rows by every candidate; heads that can share work between fits offer ``fit_path``."""
    observed, kind = None if problem.observed is None else problem.observed[fit], spec.entry.load()
    heads, Y = [make_head(spec, seed, **candidate) for candidate in candidates], problem.Y[fit]
    fitted = (
        kind.fit_path(heads, train, Y, observed)
        if hasattr(kind, "fit_path")
        else (head.fit(train, Y, observed) for head in heads)
    )
    for head in fitted:
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
