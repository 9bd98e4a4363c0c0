"""Use a configuration after the benchmark: predict new conditions from a refit; say what a prediction is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embbench.cache.keys import digest
from embbench.core import PerturbationDataset, Run, UserError
from embbench.genes import parse_perturbation as read_labels
from embbench.grid.fit import Job, job_of, predict, rows_of, tables_for
from embbench.grid.inputs import Rows
from embbench.grid.names import registry_of
from embbench.grid.plan import configuration_id
from embbench.grid.prediction import Prediction, product
from embbench.grid.results import Results
from embbench.grid.score import metrics_of, score_run
from embbench.grid.screens import screen, split_of
from embbench.registry import Registry


@dataclass(frozen=True)
class Applied:
    """Predictions for conditions asked by name.

    Parameters
    ----------
    data : the screen that the head was fitted on.
    query : conditions, one per perturbation and context.
    effects : (m, g) float32.
    covered : (m,) bool; False rows are the fallback.
    prediction : weights and choices.
    train : rows it was fitted on.
    """

    data: PerturbationDataset
    query: Rows
    effects: np.ndarray
    covered: np.ndarray
    prediction: Prediction
    train: np.ndarray


def find_run(results: Results, key: str) -> tuple[Run, str]:
    """The configuration whose id, or one of whose run keys, starts with ``key``.

    Raises
    ------
    UserError
        None or several do.
    """
    hits: dict[str, Run] = {}
    known: dict[str, Run] = {}
    for stored in results.plans():
        for planned in stored["runs"]:
            known.setdefault(planned["config"], Run(**planned["run"]))
            if planned["config"].startswith(key) or planned["key"].startswith(key):
                hits.setdefault(planned["config"], known[planned["config"]])
    if len(hits) != 1 or len(key) < 4:
        listed = [f"{config} ({run.embedding} x {run.head})" for config, run in (hits or known).items()]
        shown = ", ".join(listed[:5]) + (f" ... ({len(listed)} in all)" if len(listed) > 5 else "")
        raise UserError(
            f"--run {key}: expected the start (4 or more characters) of one configuration id in {results.folder}, "
            f"found {len(hits) or 'none'}; {'these' if hits else 'it has'}: {shown}"
        )
    config, run = next(iter(hits.items()))
    return run, config


def check_unchanged(run: Run, config: str, paths: tuple[str, ...]) -> None:
    """A configuration of a results folder must still mean what it meant: same data, split, vectors, parameters, code.

    Raises
    ------
    UserError
        It does not; its scores are those of something else.
    """
    data = screen(run.dataset, run.genes, paths)
    split = split_of(run.dataset, run.split, run.genes, run.seed, paths)
    if configuration_id(registry_of(paths), data, split, run) != config:
        raise UserError(
            f"--run {config[:8]}: dataset {run.dataset!r}, its split, or the code or files of {run.embedding} x "
            f"{run.head} have changed since the benchmark; run the same embbench grid again and take the new id"
        )


def parse_perturbation(text: str, data: PerturbationDataset) -> tuple[str, ...]:
    """``A+B`` -> its members, read as the import reads labels (aliases, Ensembl, ``A_B``); compounds are taken whole.

    A gene that nobody knows keeps its name: whether it gets a prediction of its own is up to the embedding.

    Raises
    ------
    UserError
        No name, or a control.
    """
    if text in data.entity_names:
        return (text,)
    parts = [text] if data.entity_type == "compound" else [part for part in text.split("+") if part.strip()]
    if not text.strip() or not parts:
        raise UserError(f"--perturbation {text!r}: expected a name such as TP53 or a set such as KLF1+MAP2K6")
    found = read_labels(parts, known_genes=data.entity_names, entity_type=data.entity_type).entities
    if not any(found.values()):
        raise UserError(
            f"--perturbation {text!r} is a control label; expected a perturbation such as {data.conditions[0]}"
        )
    return tuple(sorted({name for members in found.values() for name in members}))


def refit(
    run: Run,
    perturbations: Sequence[str],
    contexts: Sequence[str],
    paths: tuple[str, ...],
    *,
    dose: float | None = None,
) -> Applied:
    """Fit the configuration on all conditions of its screen and predict perturbations in contexts.

    Parameters
    ----------
    run : a configuration (its fold is ignored).
    perturbations : names or ``A+B`` sets; they need not be in the screen.
    contexts : context names of the screen; empty means all.
    dose : of all asked perturbations, where the screen has doses; None is the median training dose.

    Raises
    ------
    UserError
        An unknown context, another target than effects, or a dataset that cannot be found any more.
    """
    if run.target != "effects":
        raise UserError(
            f"this configuration predicts {run.target}; a refit writes effects, choose one that predicts those"
        )
    registry = registry_of(paths)
    data = screen(run.dataset, run.genes, paths)
    if unknown := sorted(set(contexts) - set(data.contexts)):
        raise UserError(f"--context {unknown[0]!r} is not in {data.name}; it has {', '.join(data.contexts)}")
    sets = [parse_perturbation(text, data) for text in perturbations]
    where = list(contexts) or list(data.contexts)
    if dose is not None and data.dose is None:
        raise UserError(f"--dose {dose:g}: {data.name} has no doses; leave --dose out")
    doses = None
    if data.dose is not None:
        doses = np.full(len(sets) * len(where), np.nanmedian(data.dose) if dose is None else dose)
    query = Rows(tuple(s for s in sets for _ in where), np.array([c for _ in sets for c in where], dtype=object), doses)
    train = np.arange(len(data))
    run = replace(run, fold="all")
    tables = tables_for(run, registry, data, train, extra=frozenset(e for s in sets for e in s))
    split = split_of(run.dataset, run.split, run.genes, run.seed, paths)
    job = Job(
        run,
        data,
        train,
        query,
        split.kind,
        split.units,
        tables,
        registry.parse("heads", run.head),
        registry.parse("features", run.features),
        registry,
        digest(run.coordinates()),
    )
    made = predict(job)
    effects = made.values if made.values is not None else product(made.weights, data.effects, job.train)
    return Applied(data, query, effects, made.covered, made, job.train)


@dataclass(frozen=True)
class Error:
    """Held-out scores of a configuration: the leaderboard's mean (over conditions, then contexts), the middle 95 % of
    conditions, and how many conditions, folds done and folds there are.
    """

    mean: float
    low: float
    high: float
    conditions: int
    folds: int
    planned: int


def cross_validated(results: Results, config: str, registry: Registry, names: Sequence[str]) -> dict[str, Error]:
    """Held-out scores of a configuration by metric; folds that failed or have not run are counted, not hidden."""
    planned = {p["key"] for stored in results.plans() for p in stored["runs"] if p["config"] == config}
    keys = sorted(key for key in planned if results.path("predictions", key).exists())
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for key in keys:
        data = results.screen(results.facts(key)["dataset"])
        context = data.context_codes[results.rows(key)["rows"]]
        for name, values in score_run(results, key, data, metrics_of(registry, names), {}).items():
            found.setdefault(name, []).append((values, context))
    out = {}
    for name, parts in found.items():
        values, context = (np.concatenate(column) for column in zip(*parts, strict=True))
        known = np.isfinite(values)
        if known.any():
            means = [values[known & (context == c)].mean() for c in np.unique(context[known])]
            low, high = np.quantile(values[known], [0.025, 0.975])
            out[name] = Error(float(np.mean(means)), float(low), float(high), int(known.sum()), len(keys), len(planned))
    return out


@dataclass(frozen=True)
class Share:
    """One training condition that a smoother's prediction is made of, and its weight."""

    condition: str
    context: str
    weight: float


def explain(run: Run, perturbation: str, paths: tuple[str, ...]) -> tuple[dict[str, list[Share]], str]:
    """The training conditions behind a prediction, largest weight first, per context.

    A perturbation of the screen is explained by its held-out prediction (it never explains itself); another one by a
    refit on all conditions.

    Returns
    -------
    shares : context (and dose, where the screen has doses) -> contributions.
    how : which of the two it was.

    Raises
    ------
    UserError
        The head is not a linear smoother, or the perturbation took the fallback in every context.
    """
    registry = registry_of(paths)
    if not hasattr(registry.parse("heads", run.head).entry.load(), "weights"):
        raise UserError(
            f"head {run.head} is not a linear smoother, so no weights explain it; try knn, ridge or kernel_ridge"
        )
    data = screen(run.dataset, run.genes, paths)
    members = parse_perturbation(perturbation, data)
    if members in data.entities:
        return _held_out(run, data, members, paths), "held-out prediction"
    applied = refit(run, [perturbation], [], paths)
    shares = _shares(run, applied.prediction, applied.query, data, applied.train)
    return _some(shares, perturbation), "refit on all"


def _held_out(
    run: Run, data: PerturbationDataset, members: tuple[str, ...], paths: tuple[str, ...]
) -> dict[str, list[Share]]:
    name = "+".join(members)
    out: dict[str, list[Share]] = {}
    split = split_of(run.dataset, run.split, run.genes, run.seed, paths)
    tested = [(f, f.test[[data.entities[row] == members for row in f.test]]) for f in split.folds]
    for fold, rows in [(f, rows) for f, rows in tested if len(rows)]:
        query = rows_of(data, rows)
        made = predict(replace(job_of(replace(run, fold=fold.name), paths), query=query))
        out |= _shares(run, made, query, data, fold.train)
    if not any(len(rows) for _, rows in tested):
        raise UserError(f"{name} is in no test fold of {run.split}, so there is no held-out prediction to explain")
    return _some(out, name)


def _some(shares: dict[str, list[Share]], name: str) -> dict[str, list[Share]]:
    if not shares:
        raise UserError(f"{name} has no vector in this embedding: its prediction is the fallback (the context mean)")
    return shares


def _shares(
    run: Run, made: Prediction, query: Rows, data: PerturbationDataset, train: np.ndarray
) -> dict[str, list[Share]]:
    """Contributions to the covered rows of a query, by context (and dose, where the query has one)."""
    if made.weights is None:
        raise UserError(
            f"{data.name} has unobserved entries, so weights of {run.head} alone do not make up its {run.target}"
        )
    out = {}
    for i in np.flatnonzero(made.covered):
        row = made.weights[[i]].tocoo()
        order = np.argsort(-np.abs(row.data), kind="stable")
        out[str(query.context[i]) + ("" if query.dose is None else f" @{query.dose[i]:g}")] = [
            Share(data.conditions[train[row.col[j]]], str(data.context[train[row.col[j]]]), float(row.data[j]))
            for j in order
        ]
    return out
