"""One run: assemble inputs, choose hyper-parameters, fit, predict, and say what was covered and what was not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from embbench.cache.keys import array_digest, digest, stream
from embbench.core import (
    Fold,
    HeadDefaults,
    Inputs,
    Monitor,
    PerturbationDataset,
    Run,
    Sources,
    Split,
    Truth,
    UserError,
    draw_sources,
)
from embbench.grid.gram import affordable, gram_of
from embbench.grid.inputs import Raw, Rows, Tables, assemble, covered, query_part
from embbench.grid.names import registry_of
from embbench.grid.prediction import Part, Prediction, merge, mix, product
from embbench.grid.protocols import equal_folds, inner_units, offered
from embbench.grid.screens import screen, split_of
from embbench.grid.select import Problem, choose, make_head, predict_target
from embbench.grid.targets import observed_of, target_values, training_truth
from embbench.grid.vectors import compute_embedding
from embbench.numerics.linalg import gram
from embbench.registry import Registry, Spec

FALLBACK = "context_mean"
SHIFTED_SELECT = "l2_all"  # of heads that predict means: their populations are control cells, moved
Watch = Callable[[str, Callable[[], str]], Monitor]  # (name of the fit, digest of what it depends on beside the key)


@dataclass(frozen=True)
class Job:
    """A run with everything resolved: the screen, training rows, conditions to predict, vectors and specs.

    ``kind`` and ``units`` are those of the split: what is unseen, and what inner folds hold out.
    """

    run: Run
    data: PerturbationDataset
    train: np.ndarray
    query: Rows
    kind: str
    units: tuple[tuple[int, ...], ...]
    tables: Tables
    head: Spec
    features: Spec
    registry: Registry
    mark: str = ""


def shifts(head: type[HeadDefaults], target: str) -> bool:
    """Whether a population is made by moving control cells by the predicted effect: the head predicts means only."""
    return target == "population" and target not in head.targets and "effects" in head.targets


def fold_of(split: Split, name: str) -> Fold:
    """The fold of that name."""
    for fold in split.folds:
        if fold.name == name:
            return fold
    raise UserError(f"no fold named {name!r}; the split has {', '.join(f.name for f in split.folds)}")


def rows_of(data: PerturbationDataset, index: np.ndarray) -> Rows:
    """Dataset rows as conditions to predict: names only, no effects."""
    dose = None if data.dose is None else data.dose[index]
    return Rows(tuple(data.entities[i] for i in index), data.context[index], dose)


def resolve_scope(job: Job) -> str:
    """``per_context`` or ``joint``: joint when asked, declared, needed (contexts are held out, with or without support
    rows, or effects are carried over from other contexts) or implied by context vectors.
    """
    if job.run.scope != "auto":
        return job.run.scope
    unseen = set(job.query.context.tolist()) - set(job.data.context[job.train].tolist())
    joint = job.head.entry.load().scope == "joint" or job.kind in ("context", "transfer") or unseen
    return "joint" if joint or job.run.context_embedding != "none" else "per_context"


def tables_for(
    run: Run, registry: Registry, data: PerturbationDataset, train: np.ndarray, *, extra: frozenset[str] = frozenset()
) -> Tables:
    """Every vector that the run may use, from the cache or computed; ``extra`` names lie outside the screen."""
    strict = run.strict_context
    blocks = tuple((b, compute_embedding(registry, b, data, train, strict=strict, extra=extra)) for b in run.blocks())
    context = None
    if run.context_embedding != "none":
        context = compute_embedding(registry, run.context_embedding, data, train, strict=strict)
        if context.entity != "context":
            raise UserError(f"{run.context_embedding!r} embeds {context.entity}s, not contexts; use it as --emb")
    graph = registry.parse("graphs", run.graph).make().load() if run.graph != "none" else None
    return Tables(blocks, context, run.combine, graph)


def job_of(run: Run, paths: tuple[str, ...], mark: str = "") -> Job:
    """Resolve a run by name; ``mark`` is its configuration id, which heads' random streams start from."""
    registry = registry_of(paths)
    data = screen(run.dataset, run.genes, paths)
    split = split_of(run.dataset, run.split, run.genes, run.seed, paths)
    fold = fold_of(split, run.fold)
    return Job(
        run,
        data,
        fold.train,
        rows_of(data, fold.test),
        split.kind,
        split.units,
        tables_for(run, registry, data, fold.train),
        registry.parse("heads", run.head),
        registry.parse("features", run.features),
        registry,
        mark or digest(run.coordinates()),
    )


def predict(job: Job, watch: Watch | None = None) -> Prediction:
    """Fit on the training rows and predict the query, per context or jointly.

    ``watch`` makes the monitor of each fit; inner selection is not watched, nor is anything without it.
    """
    began = time.process_time()
    parts = [_predict_part(job, train, query, label, watch) for train, query, label in _parts(job, resolve_scope(job))]
    out = merge(parts, len(job.query), job.train, job.data.effects)
    used = [table.provenance for _, table in job.tables.blocks]
    used += [] if job.tables.context is None else [job.tables.context.provenance]
    unseen = bool(set(job.query.context.tolist()) - set(job.data.context[job.train].tolist()))
    marked = unseen and any(facts.get("uses_query_controls") for facts in used)
    return replace(out, cpu_seconds=time.process_time() - began, query_controls=marked)


def _parts(job: Job, scope: str) -> list[tuple[np.ndarray, np.ndarray, str]]:
    if scope == "joint":
        return [(job.train, np.arange(len(job.query)), "all")]
    out = []
    for name in dict.fromkeys(job.query.context.tolist()):
        train = job.train[job.data.context[job.train] == name]
        query = np.flatnonzero(job.query.context == name)
        out.append((train if len(train) else job.train, query, name))
    return out


def _predict_part(job: Job, train: np.ndarray, query: np.ndarray, label: str, watch: Watch | None) -> Part:
    """One fit: ``query`` are positions in ``job.query``."""
    asked = Rows(
        tuple(job.query.entities[i] for i in query),
        job.query.context[query],
        None if job.query.dose is None else job.query.dose[query],
    )
    raw, n = assemble(job.data, job.tables, train, asked, job.units, strict=job.run.strict_context)
    head = job.head.entry.load()
    has = covered(raw.inputs, handles_missing=head.handles_missing)
    if head.needs_embedding and not raw.inputs.blocks:
        has = np.zeros_like(has)
    fit, ask = np.flatnonzero(has[:n]), n + np.flatnonzero(has[n:])
    fallback = _fallback(job, raw, n, train, ~has[n:] if len(fit) else np.ones(len(query), dtype=bool))
    if not len(fit) or not len(ask):
        return Part(train, query, label, fallback)
    problem = _problem(job, raw, train, fit)
    run, select = job.run, SHIFTED_SELECT if shifts(head, job.run.target) else job.run.select
    metric = job.registry.get("metrics", select).make()
    spec, inner = offered(job.head, run.protocol), stream(run.dataset, run.split, run.fold, run.seed, "inner")
    choice = choose(spec, problem, select, metric, inner)
    seed = stream(job.mark, run.fold, label)
    inputs = raw.featured(job.features, fit)
    made = make_head(job.head, seed, **choice.params)

    def stage() -> str:
        return digest([choice.params, seed, array_digest(train[fit], inputs.X, problem.Y, problem.observed)])

    with _watched(made, watch(label, stage) if watch else None):
        done = _predict_rows(job, made, inputs, fit, ask, problem)
    mixed = mix(done, fallback, ask - n, fit, job.data.effects, train)
    return Part(train, query, label, replace(mixed, choices={label: choice}, dim=inputs.X.shape[1]))


@contextmanager
def _watched(head: Any, monitor: Monitor | None) -> Iterator[None]:
    """Give the head its monitor, and take it back in the end: a fitted head holds nothing of this machine."""
    if monitor is not None:
        head.monitor = monitor
    try:
        yield
    finally:
        vars(head).pop("monitor", None)


def _problem(job: Job, raw: Raw, train: np.ndarray, fit: np.ndarray) -> Problem:
    rows = train[fit]
    labels = job.run.target == "labels"
    observed = target_values(job.data, rows, "labels", job.train)[1] if labels else observed_of(job.data, rows)

    def values() -> np.ndarray:
        return target_values(job.data, rows, job.run.target, job.train)[0]

    def truth(index: np.ndarray) -> Truth:
        return training_truth(job.data, rows[index])

    def products() -> tuple[np.ndarray, np.ndarray]:
        if observed is not None:  # filled by the means of this fold: nobody else's
            Y = values()
            return gram(Y), Y.sum(axis=1, dtype=np.float64)
        shared = gram_of(job.data)
        return shared.among(rows), shared.totals[rows]

    part = Raw(inner_units(raw.inputs.rows(fit), job.run.protocol))
    target = "effects" if shifts(job.head.entry.load(), job.run.target) else job.run.target
    known = products if affordable(job.data, rows) else None
    more = (target, job.run.samples, known, equal_folds(job.run.protocol))
    return Problem(part, values, observed, job.data.effects.shape[1], truth, job.features, *more)


def _predict_rows(
    job: Job, head: Any, inputs: Inputs, fit: np.ndarray, ask: np.ndarray, problem: Problem
) -> Prediction:
    train, query = inputs.rows(fit), query_part(inputs, ask)
    served = head.covers(train, query) if hasattr(head, "covers") else np.ones(len(ask), dtype=bool)
    if hasattr(head, "weights") and problem.observed is None and job.run.target == "effects":
        return Prediction(None, sparse.csr_matrix(head.weights(train, query)), served)
    fitted, sources, run = head.fit(train, problem.Y, problem.observed), None, job.run
    if shifts(type(head), run.target):
        sources = _draw(job, query)
        values = sources.cells(query.cells)  # type: ignore[arg-type]
        values += fitted.predict(query)[:, None, :]
    else:
        values = predict_target(fitted, query, run.target, run.samples)
        if run.target == "population":
            sources = _own_sources(fitted, query, run.samples)
    if not np.isfinite(values).all():
        raise ValueError(f"{run.head} predicted {int((~np.isfinite(values)).sum())} non-finite values")
    return Prediction(values, None, served, sources=sources)


def _draw(job: Job, query: Inputs) -> Sources:
    """Control cells of query rows, from the run's own stream."""
    if query.cells is None:
        raise UserError(f"{job.data.name} has no cells; a population prediction needs them")
    return draw_sources(query, job.run.samples, stream(job.mark, job.run.fold, "controls"))


def _own_sources(head: Any, query: Inputs, samples: int) -> Sources:
    """The control cells that a head says its samples start from; nowhere, where it does not say."""
    if not hasattr(head, "sources"):
        return Sources.nowhere(len(query), samples)
    found = head.sources(query, samples)
    if found.context.shape != (len(query), samples):
        raise ValueError(
            f"{type(head).__name__}.sources gave shape {found.context.shape}, expected {(len(query), samples)}"
        )
    return found


def _fallback(job: Job, raw: Raw, n: int, train: np.ndarray, need: np.ndarray) -> Prediction:
    """The fallback for the query rows that ``need`` it, the others are nobody's prediction: the context mean (of all
    contexts where this one has no training rows).
    """
    smoother = job.registry.get("heads", FALLBACK).make()
    inputs = replace(raw.inputs, X=raw.inputs.X[:, :0], blocks=())
    weights = sparse.csr_matrix(
        smoother.weights(inputs.rows(np.arange(n)), query_part(inputs, np.arange(n, len(inputs))))
    ).multiply(need[:, None])
    weights = sparse.csr_matrix(weights)
    weights.eliminate_zeros()
    nobody = np.zeros(len(inputs) - n, dtype=bool)
    if job.run.target == "effects" and (job.data.observed is None or not need.any()):
        return Prediction(None, weights, nobody)
    Y, observed = target_values(job.data, train, job.run.target, job.train)
    if job.run.target == "effects":
        if observed is None:
            return Prediction(None, weights, nobody)
        return Prediction(product(weights, Y, np.arange(len(Y))), None, nobody)
    if job.run.target == "labels":
        return Prediction(_label_shares(weights, Y, observed), None, nobody)
    sources = Sources.nowhere(len(need), job.run.samples)
    values = np.zeros((*sources.context.shape, Y.shape[1]), dtype=np.float32)
    asked = np.flatnonzero(need)
    if len(asked):
        query = query_part(inputs, n + asked)
        drawn = _draw(job, query)
        sources.context[asked], sources.position[asked] = drawn.context, drawn.position
        values[asked] = drawn.cells(query.cells) + product(weights[asked], Y, np.arange(len(Y)))[:, None, :]  # type: ignore[arg-type]
    return Prediction(values, None, nobody, sources=sources)


def _label_shares(weights: sparse.csr_matrix, Y: np.ndarray, tested: np.ndarray | None) -> np.ndarray:
    """Weighted shares (m, g, 3) of down, unchanged and up among tested entries; a third each where none is tested."""
    seen = np.ones(Y.shape, dtype=bool) if tested is None else tested
    counts = np.stack([weights @ ((label == Y) & seen).astype(np.float64) for label in (-1, 0, 1)], axis=2)
    total = counts.sum(axis=2, keepdims=True)
    return np.divide(counts, total, out=np.full(counts.shape, 1 / 3), where=total > 0).astype(np.float32)
