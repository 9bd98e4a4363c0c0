"""One run: assemble inputs, choose hyper-parameters, fit, predict, and say what was covered and what was not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import sparse

from embbench.cache.keys import digest, stream
from embbench.core import CellView, Fold, HeadDefaults, Inputs, PerturbationDataset, Run, Split, Truth, UserError
from embbench.grid.inputs import Raw, Rows, Tables, assemble, covered, query_part
from embbench.grid.names import registry_of
from embbench.grid.screens import screen, split_of
from embbench.grid.select import Choice, Problem, choose, make_head, predict_target
from embbench.grid.targets import target_values, training_truth
from embbench.grid.vectors import compute_embedding
from embbench.registry import Registry, Spec

FALLBACK = "context_mean"
SHIFTED_SELECT = "l2_all"  # of heads that predict means: their populations are control cells, moved


@dataclass(frozen=True)
class Prediction:
    """Predictions of the query rows of one run.

    Parameters
    ----------
    values : (m, g) float32 effects, (m, g, 3) probabilities or (m, s, g) cells; None where ``weights`` says it all.
    weights : (m, n_train) CSR float64 or None: ``weights @ effects[train]`` is the prediction.
    covered : (m,) bool; False rows took the fallback.
    choices : one per fit (per context, or one).
    dim : features used (largest over fits).
    cpu_seconds : process CPU time.
    query_controls : an embedding read unperturbed cells of contexts without training rows.
    """

    values: np.ndarray | None
    weights: sparse.csr_matrix | None
    covered: np.ndarray
    choices: dict[str, Choice] = field(default_factory=dict)
    dim: int = 0
    cpu_seconds: float = 0.0
    query_controls: bool = False


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


def predict(job: Job) -> Prediction:
    """Fit on the training rows and predict the query, per context or jointly."""
    began = time.process_time()
    parts = [_predict_part(job, train, query, label) for train, query, label in _parts(job, resolve_scope(job))]
    out = _merge(job, parts)
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


@dataclass(frozen=True)
class _Part:
    train: np.ndarray
    query: np.ndarray
    label: str
    prediction: Prediction


def _predict_part(job: Job, train: np.ndarray, query: np.ndarray, label: str) -> _Part:
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
        return _Part(train, query, label, fallback)
    problem, Y, observed = _problem(job, raw, train, fit)
    run, select = job.run, SHIFTED_SELECT if shifts(head, job.run.target) else job.run.select
    metric = job.registry.get("metrics", select).make()
    choice = choose(job.head, problem, select, metric, stream(run.dataset, run.split, run.fold, run.seed, "inner"))
    seed = stream(job.mark, run.fold, label)
    inputs = raw.featured(job.features, fit)
    fitted = make_head(job.head, seed, **choice.params)
    done = _predict_rows(job, fitted, inputs, fit, ask, Y, observed)
    mixed = _mix(done, fallback, ask - n, fit, job.data.effects[train])
    return _Part(train, query, label, replace(mixed, choices={label: choice}, dim=inputs.X.shape[1]))


def _problem(job: Job, raw: Raw, train: np.ndarray, fit: np.ndarray) -> tuple[Problem, np.ndarray, np.ndarray | None]:
    rows = train[fit]
    Y, observed = target_values(job.data, rows, job.run.target, job.train)

    def truth(index: np.ndarray) -> Truth:
        return training_truth(job.data, rows[index])

    part = Raw(raw.inputs.rows(fit))
    target = "effects" if shifts(job.head.entry.load(), job.run.target) else job.run.target
    return Problem(part, Y, observed, truth, job.features, target, job.run.samples), Y, observed


def _predict_rows(
    job: Job, head: Any, inputs: Inputs, fit: np.ndarray, ask: np.ndarray, Y: np.ndarray, observed: np.ndarray | None
) -> Prediction:
    train, query = inputs.rows(fit), query_part(inputs, ask)
    served = head.covers(train, query) if hasattr(head, "covers") else np.ones(len(ask), dtype=bool)
    if hasattr(head, "weights") and observed is None and job.run.target == "effects":
        return Prediction(None, sparse.csr_matrix(head.weights(train, query)), served)
    fitted = head.fit(train, Y, observed)
    if shifts(type(head), job.run.target):
        if query.cells is None:
            raise UserError(f"{job.data.name} has no cells; a population prediction needs them")
        cells = _control_cells(job, query.cells, query.context)
        values = (cells + fitted.predict(query)[:, None, :]).astype(np.float32)
    else:
        values = predict_target(fitted, query, job.run.target, job.run.samples)
    if not np.isfinite(values).all():
        raise ValueError(f"{job.run.head} predicted {int((~np.isfinite(values)).sum())} non-finite values")
    return Prediction(values, None, served)


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
    Y, observed = target_values(job.data, train, job.run.target, job.train)
    if job.run.target == "effects":
        return Prediction(None, weights, nobody) if observed is None else Prediction(_product(weights, Y), None, nobody)
    if job.run.target == "labels":
        return Prediction(_label_shares(weights, Y, observed), None, nobody)
    if inputs.cells is None:
        raise UserError(f"{job.data.name} has no cells; a population prediction needs them")
    cells = _control_cells(job, inputs.cells, inputs.context[n:])
    return Prediction((cells + _product(weights, Y)[:, None, :]).astype(np.float32), None, nobody)


def _label_shares(weights: sparse.csr_matrix, Y: np.ndarray, tested: np.ndarray | None) -> np.ndarray:
    """Weighted shares (m, g, 3) of down, unchanged and up among tested entries; a third each where none is tested."""
    seen = np.ones(Y.shape, dtype=bool) if tested is None else tested
    counts = np.stack([weights @ ((label == Y) & seen).astype(np.float64) for label in (-1, 0, 1)], axis=2)
    total = counts.sum(axis=2, keepdims=True)
    return np.divide(counts, total, out=np.full(counts.shape, 1 / 3), where=total > 0).astype(np.float32)


def _control_cells(job: Job, cells: CellView, contexts: np.ndarray) -> np.ndarray:
    """Half-A control cells (m, samples, g) for query rows, drawn with replacement from the run's own stream.

    A context whose controls are closed takes those of the open contexts.
    """
    pools: dict[int, np.ndarray] = {}
    for code in dict.fromkeys(contexts.tolist()):
        sources = [code] if cells.contexts is None or code in cells.contexts else sorted(cells.contexts)
        pools[code] = np.concatenate([cells.controls(c) for c in sources])
    out = []
    for row, code in enumerate(contexts.tolist()):
        draw = np.random.default_rng(stream(job.mark, job.run.fold, "controls", row))
        out.append(pools[code][draw.integers(len(pools[code]), size=job.run.samples)])
    return np.stack(out)


def _product(weights: sparse.csr_matrix, Y: np.ndarray) -> np.ndarray:
    return np.asarray(weights @ Y.astype(np.float64), dtype=np.float32)


def _mix(done: Prediction, fallback: Prediction, where: np.ndarray, fit: np.ndarray, Y: np.ndarray) -> Prediction:
    """Covered rows (positions ``where``) from the head, the rest from the fallback; ``Y`` are all training effects."""
    m = len(fallback.covered)
    has = np.zeros(m, dtype=bool)
    has[where] = True
    served = has.copy()
    served[where] = done.covered  # a head's own fallback is no prediction of the row either
    if done.weights is not None and fallback.weights is not None:
        place = sparse.csr_matrix((np.ones(len(fit)), (np.arange(len(fit)), fit)), shape=(len(fit), len(Y)))
        keep = sparse.diags((~has).astype(np.float64)) @ fallback.weights
        put = sparse.csr_matrix((np.ones(len(where)), (where, np.arange(len(where)))), shape=(m, len(where)))
        return Prediction(None, sparse.csr_matrix(keep + put @ done.weights @ place), served)
    base = fallback.values if fallback.values is not None else _product(fallback.weights, Y)
    values = base.copy()
    values[where] = done.values if done.values is not None else _product(done.weights, Y[fit])
    return Prediction(values, None, served)


def _merge(job: Job, parts: Sequence[_Part]) -> Prediction:
    m, position = len(job.query), {row: i for i, row in enumerate(job.train.tolist())}
    covered_rows = np.zeros(m, dtype=bool)
    choices: dict[str, Choice] = {}
    dim = 0
    for part in parts:
        covered_rows[part.query] = part.prediction.covered
        choices |= part.prediction.choices
        dim = max(dim, part.prediction.dim)
    smoothed = [part.prediction.weights for part in parts if part.prediction.weights is not None]
    if len(smoothed) == len(parts):
        blocks = [weights.tocoo() for weights in smoothed]
        rows = np.concatenate([part.query[b.row] for part, b in zip(parts, blocks, strict=True)])
        where = [np.array([position[r] for r in part.train.tolist()]) for part in parts]
        columns = np.concatenate([w[b.col] for w, b in zip(where, blocks, strict=True)])
        values = np.concatenate([b.data for b in blocks])
        weights = sparse.csr_matrix((values, (rows, columns)), shape=(m, len(job.train)))
        weights.sort_indices()
        return Prediction(None, weights, covered_rows, choices, dim)
    dense = [
        p.prediction.values
        if p.prediction.values is not None
        else _product(p.prediction.weights, job.data.effects[p.train])
        for p in parts
    ]
    values = np.zeros((m, *dense[0].shape[1:]), dtype=np.float32)
    for part, value in zip(parts, dense, strict=True):
        values[part.query] = value
    return Prediction(values, None, covered_rows, choices, dim)
