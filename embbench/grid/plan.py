"""From a grid file or command line to runs: product of axes, baselines, permutations, skips with their reason."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.cache.keys import REVISION, array_digest, code_of, digest
from embbench.core import HeadDefaults, PerturbationDataset, Run, Split, UserError
from embbench.grid.fit import FALLBACK, SHIFTED_SELECT, shifts
from embbench.grid.metrics import metric_names, selection_metric
from embbench.grid.names import registry_of
from embbench.grid.protocols import key_facts, offered
from embbench.grid.screens import screen, split_digest, split_of
from embbench.grid.select import settings
from embbench.grid.targets import training_truth
from embbench.grid.validate import cell_spec, check_grid, preset_heads, split_spec
from embbench.grid.vectors import component_facts, compute_embedding, spec_facts, wanted_names
from embbench.registry import Registry

if TYPE_CHECKING:
    from embbench.grid.config import Grid

POPULATIONS = 2  # how control cells are drawn and populations stored; in the keys of populations only
# named in a key by what they are, not by what they are called
COMPONENTS = ("fold", "embedding", "context_embedding", "head", "features", "graph")
BASELINES = (
    *("no_change", "context_mean", "perturbation_mean", "additive"),
    *("label_no_change", "label_most_frequent", "label_prior"),
)


@dataclass(frozen=True)
class Planned:
    """One run of a plan: its keys, its role in the table, and why it is skipped (empty when it is not)."""

    run: Run
    key: str
    config: str
    role: str
    reason: str = ""


def plan(grid: Grid, paths: tuple[str, ...] = ()) -> list[Planned]:
    """Every run of the grid, in a fixed order, each once; skipped ones with their reason.

    Raises
    ------
    UserError
        A name that does not exist, a parameter out of range, or a dataset that the split does not fit.
    """
    registry = registry_of(paths)
    selection_metric(registry, grid.select, grid.target)
    metric_names(registry, grid.metrics, grid.target)
    grid = preset_heads(grid, registry)
    check_grid(grid, registry, paths)
    out: dict[str, Planned] = {}
    for name, split, seed in product(grid.dataset, grid.split, grid.seed):
        for planned in _plan_one(grid, registry, paths, name, split, seed):
            first = out.setdefault(planned.key, planned)
            if first.run != planned.run:  # another name for the same content is said, not dropped
                alias = replace(planned, key=digest([planned.key, planned.run.coordinates()]), reason=_same(first.run))
                out.setdefault(alias.key, alias)
    if not out:
        raise UserError(f"this grid has no run: {', '.join(grid.head)} without embedding; name one with --emb")
    return list(out.values())


def _same(run: Run) -> str:
    return f"the same content as {run.embedding} x {run.head} with {run.features}: scored there once"


def _plan_one(
    grid: Grid, registry: Registry, paths: tuple[str, ...], name: str, split_name: str, seed: int
) -> Iterator[Planned]:
    data = screen(name, grid.genes, paths)
    spec = split_spec(data, split_name)
    split = split_of(name, spec, grid.genes, seed, paths)
    marks = {f.name: array_digest(f.train, f.test) for f in split.folds}
    base = Run(
        dataset=name,
        split=spec,
        fold="",
        head="",
        seed=seed,
        scope=grid.scope,
        target=grid.target,
        select=selection_metric(registry, grid.select, grid.target),
        genes=grid.genes,
        strict_context=grid.strict_context,
        samples=grid.samples,
        protocol=grid.protocol,
    )
    reasons: dict[tuple[str, ...], str] = {}
    for run, role in _configurations(grid, registry, data, split.kind, base):
        combination = _compatibility_key(run)
        if combination not in reasons:
            reasons[combination] = unmet(registry, data, run, split.folds[0].train)
        config = configuration_id(registry, data, split, run)
        for fold in split.folds:
            each = replace(run, fold=fold.name)
            yield Planned(each, digest([config, fold.name, marks[fold.name]]), config, role, reasons[combination])


def configuration_id(registry: Registry, data: PerturbationDataset, split: Split, run: Run) -> str:
    """What a configuration's numbers depend on, as 16 hex digits: data, split, components with their code, choices."""
    choices = {k: v for k, v in run.coordinates().items() if k not in COMPONENTS}
    facts = {"data": data.meta["digest"], "split": split_digest(split), "run": choices}
    return digest({**facts, **_facts(registry, run)})


def _compatibility_key(run: Run) -> tuple[str, ...]:
    return run.head, run.embedding, run.context_embedding, run.graph, run.target


@functools.lru_cache(maxsize=4096)
def _component(registry: Registry, kind: str, text: str) -> Any:
    return spec_facts(registry, text) if kind == "embeddings" else component_facts(registry.parse(kind, text))


def _facts(registry: Registry, run: Run) -> dict[str, Any]:
    used = [b for b in (*run.blocks(), run.context_embedding) if b != "none"]
    return {
        "revision": REVISION,
        **({"populations": POPULATIONS} if run.target == "population" else {}),
        **key_facts(run.protocol),
        "fallback": code_of(registry.get("heads", FALLBACK).module),
        "head": _component(registry, "heads", run.head),
        "features": _component(registry, "features", run.features),
        "vectors": [_component(registry, "embeddings", b) for b in used],
        "graph": _component(registry, "graphs", run.graph) if run.graph != "none" else None,
    }


def _configurations(
    grid: Grid, registry: Registry, data: PerturbationDataset, kind: str, base: Run
) -> Iterator[tuple[Run, str]]:
    """Configurations in table order: baselines, then each embedding with its permutations."""
    contexts = _context_axis(grid, registry, data)
    if grid.baselines:
        for name in _baselines(grid.target, data, kind):
            yield replace(base, head=name), "baseline"
    embeddings = list(dict.fromkeys([*grid.emb, *(["random"] if grid.baselines and grid.emb else [])]))
    axes = product(contexts, grid.combine, grid.features, grid.graph, grid.head)
    for context, combine, features, graph, head in axes:
        declared = registry.parse("heads", head).entry.load()
        graph = graph if declared.needs_graph or declared.reads_graph else "none"
        run = replace(base, head=head, context_embedding=context, combine=combine, features=features, graph=graph)
        if not declared.needs_embedding:
            context = context if declared.needs_context_vector else "none"
            plain = replace(base, head=head, context_embedding=context, graph=graph)
            role = "baseline" if head in BASELINES else "method"
            yield plain, role
            if context != "none":
                yield from _permuted(grid, declared, plain)
            continue
        for embedding in embeddings or (["none"] if context != "none" else []):
            each = replace(run, embedding=embedding)
            yield each, _role(registry, each)
            if _role(registry, each) == "method":
                yield from _permuted(grid, declared, each)


def _baselines(target: str, data: PerturbationDataset, kind: str) -> list[str]:
    """Heads that always run: what a method has to beat before it says anything."""
    if target == "labels":
        return ["label_no_change", "label_most_frequent", "label_prior"]
    names = ["no_change", "context_mean"]
    names += ["perturbation_mean"] if kind in ("context", "transfer", "given") else []
    return names + (["additive"] if any(len(e) > 1 for e in data.entities) else [])


def _context_axis(grid: Grid, registry: Registry, data: PerturbationDataset) -> list[str]:
    """Context embeddings: those asked for and those of cell representations; the default one when neither is given."""
    default = str(data.meta.get("default_context_embedding") or "none")
    cells = [cell_spec(registry, text) for text in grid.cell_emb]
    asked = [] if cells and grid.context_emb == ["default"] else grid.context_emb
    return list(dict.fromkeys([*(default if c == "default" else c for c in asked), *cells]))


def _role(registry: Registry, run: Run) -> str:
    names = [*run.blocks(), *([run.context_embedding] if run.context_embedding != "none" else [])]
    if any(registry.parse("embeddings", n).entry.load().oracle for n in names):
        return "oracle"
    kinds = {registry.parse("embeddings", n).entry.name for n in names}
    return next((role for role in ("permuted", "random") if kinds == {role}), "method")


def _permuted(grid: Grid, head: type[HeadDefaults], run: Run) -> Iterator[tuple[Run, str]]:
    """The same configuration with the names of its vectors shuffled: what the embedding has to beat."""
    for draw in range(grid.permutations.get("trained" if head.trained else "smoother", 0)):
        tail = f":draw={draw}" if draw else ""
        if run.embedding != "none":
            shuffled = "+".join(f"permuted:{b}{tail}" for b in run.blocks())
            yield replace(run, embedding=shuffled), "permuted"
        elif run.context_embedding != "none":
            yield replace(run, context_embedding=f"permuted:{run.context_embedding}{tail}"), "permuted"


def unmet(registry: Registry, data: PerturbationDataset, run: Run, train: np.ndarray) -> str:
    """Why a configuration cannot run on a screen; empty when it can. Static vectors are extracted on the way."""
    head = registry.parse("heads", run.head).entry.load()
    if run.target not in head.targets and not shifts(head, run.target):
        return f"head {run.head} predicts {' and '.join(head.targets)}, not {run.target}"
    if run.target == "labels" and data.labels is None:
        return f"dataset {data.name} has no labels; test its cells with --dataset labelled:{data.name}"
    closed = (
        data.baseline is not None
        and run.strict_context
        and set(data.context.tolist()) - set(data.context[train].tolist())
    )
    needs = [
        ("needs_embedding", any(n != "none" for n in (run.embedding, run.context_embedding)), "an embedding (--emb)"),
        ("needs_cells", data.cells is not None, "single cells"),
        ("needs_baseline", data.baseline is not None, "control means"),
        ("needs_baseline", not closed, "control means of every context (--strict-context closes them)"),
        ("needs_graph", run.graph != "none", "a graph (--graph)"),
        ("needs_context_vector", run.context_embedding != "none", "a context embedding (--context-emb)"),
    ]
    if missing := [what for flag, met, what in needs if getattr(head, flag) and not met]:
        return f"head {run.head} needs {' and '.join(missing)}"
    if run.target == "population" and data.cells is None:
        return f"dataset {data.name} has no cells; populations need a screen imported with them"
    select = SHIFTED_SELECT if shifts(head, run.target) else run.select
    why = registry.get("metrics", select).make().unmet(training_truth(data, train[:1]))
    if why and len(settings(offered(registry.parse("heads", run.head), run.protocol))) > 1:
        return f"selection by {select} is not defined on {data.name}: {why}"
    for text in (*run.blocks(), *([run.context_embedding] if run.context_embedding != "none" else [])):
        if why := _unusable(registry, data, text, train, run):
            return why
    if run.strict_context and run.context_embedding != "none":
        table = compute_embedding(registry, run.context_embedding, data, train, strict=True)
        if without := sorted(set(data.context.tolist()) - set(table.names.tolist())):
            return f"--strict-context closes the controls of {', '.join(without)}: no {run.context_embedding} vector"
    return ""


def _unusable(registry: Registry, data: PerturbationDataset, text: str, train: np.ndarray, run: Run) -> str:
    context = text == run.context_embedding
    spec = registry.parse("embeddings", text)
    inner = spec.overrides.get("of")
    if isinstance(inner, str) and spec.entry.load().entity == "any":
        return _unusable(registry, data, inner, train, replace(run, context_embedding=inner if context else "none"))
    try:
        entity = spec.alone().entity
    except UserError as error:
        return str(error)
    if context and entity != "context":
        return f"embedding {text} holds {entity} vectors, not contexts (a table: table:FILE:entity=context)"
    if not context and entity not in ("any", data.entity_type):
        return f"embedding {text} holds {entity}s, the dataset perturbs {data.entity_type}s"
    try:
        table = compute_embedding(registry, text, data, train, strict=run.strict_context)
    except UserError as error:
        return str(error)
    queried = set(data.context.tolist()) - set(data.context[train].tolist())
    if table.contexts is not None and queried and not queried & set(table.contexts.tolist()):
        return f"--strict-context closes the controls of {', '.join(sorted(queried))}: no {text} vector there"
    known = set(wanted_names(table.entity if table.entity == "context" else data.entity_type, data))
    if not known & set(table.names.tolist()):
        return f"embedding {text} has no vector for any of the {len(known)} names of {data.name}"
    return ""
