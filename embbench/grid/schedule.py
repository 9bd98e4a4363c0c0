"""Run a plan over local processes or a cluster: resumable, with progress, failures kept apart from results."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embbench.cache.home import home
from embbench.cache.store import sweep, versions
from embbench.core import UserError
from embbench.grid.cluster import DaskCluster
from embbench.grid.executors import LocalPool, Watch, outcomes_of
from embbench.grid.honesty import facts_of, flags_of
from embbench.grid.metrics import metric_names
from embbench.grid.monitor import seconds, tidy
from embbench.grid.names import registry_of
from embbench.grid.order import Pace, Price, price_of, tasks_of
from embbench.grid.plan import Planned, plan
from embbench.grid.results import Results, place
from embbench.grid.screens import screen, split_of
from embbench.grid.threads import one_thread
from embbench.grid.work import Errand, Outcome

if TYPE_CHECKING:
    from embbench.grid.config import Grid

# takes the outcome of a run (None once at the start), runs finished, runs in all, and estimated seconds that are left
Progress = Callable[[Outcome | None, int, int, float | None], None]


@dataclass(frozen=True)
class Tally:
    """How a grid ended; ``notices`` counts the runs behind each warning."""

    done: int
    reused: int
    skipped: int
    failed: int
    messages: tuple[str, ...] = ()
    notices: tuple[tuple[str, int], ...] = ()


def run_grid(
    grid: Grid,
    out: Path,
    *,
    workers: int = 1,
    cluster: str | None = None,
    paths: tuple[str, ...] = (),
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Tally:
    """Run what is not there yet; what exists is read, never refitted.

    Parameters
    ----------
    grid : axes and options.
    out : results folder; start the same grid again after a kill and it goes on where it was.
    workers : processes; the number never changes a result (one thread each).
    cluster : address or scheduler file of a Dask cluster whose workers are used instead; nor does that.
    paths : further registry files.
    progress : called with (outcome, finished, total, seconds left) after every run, and once at the start; None stands
        for the outcome then, and for the time that is left until a run has ended.
    watch : called about once a second with a line for every run in flight that reports progress.

    Raises
    ------
    UserError
        Bad names or options (nothing is written then), or a cluster that cannot do the grid.
    """
    if workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")
    if cluster is not None and workers > 1:
        raise UserError(
            f"--workers {workers} starts processes of this machine, --cluster {cluster} has its own: name one"
        )
    results = Results(out)
    crew: LocalPool | DaskCluster | None = LocalPool(workers) if workers > 1 else None
    if cluster is not None:
        crew = DaskCluster(cluster, results.folder.resolve(), paths)
        crew.check()
    seconds()  # a bad setting is told before anything is computed
    with one_thread():  # also while planning, which loads screens and extracts embeddings
        try:
            planned = plan(grid, paths)
            if all(p.reason for p in planned):
                raise UserError(f"no run of this grid is possible: {planned[0].reason}")
            prices = _prices(planned, _keep(results, planned, grid, paths), paths)
            metrics = tuple(metric_names(registry_of(paths), grid.metrics, grid.target))
            errand = Errand(str(results.folder.resolve()), paths, metrics, watch is not None)
            return _run(results, planned, prices, errand, crew, progress, watch)
        finally:
            sweep(Path(out))  # workers that were killed just now leave theirs behind


def _run(
    results: Results,
    planned: list[Planned],
    prices: dict[str, Price],
    errand: Errand,
    crew: LocalPool | DaskCluster | None,
    progress: Progress | None,
    watch: Watch | None,
) -> Tally:
    _tidy(results)
    sweep(home())
    open_runs = [p for p in planned if not p.reason]
    todo = [p for p in open_runs if not results.done(p.key)]
    failed: list[Outcome] = []
    notices: Counter[str] = Counter()
    finished = reused = len(open_runs) - len(todo)
    if progress:
        progress(None, finished, len(open_runs), None)
    with contextlib.ExitStack() as stack:
        if isinstance(crew, DaskCluster) and todo:
            stack.enter_context(crew.joined())
            errand = replace(errand, terms=crew.terms)
        workers = 1 if crew is None else crew.workers
        pace = Pace({p.key: prices[p.key] for p in todo}, workers)
        for outcome in outcomes_of(tasks_of(todo, prices, workers), errand, crew, watch):
            finished += 1
            notices.update(outcome.notices)
            pace.add(outcome.key, outcome.seconds)
            if outcome.status == "failed":
                failed.append(outcome)
            if progress:
                progress(outcome, finished, len(open_runs), pace.left())
    _tidy(results)
    messages = tuple(dict.fromkeys(o.message for o in failed))
    return Tally(
        len(open_runs) - len(failed),
        reused,
        len(planned) - len(open_runs),
        len(failed),
        messages,
        tuple(notices.most_common()),
    )


def _prices(planned: list[Planned], sizes: dict[str, tuple[int, int]], paths: tuple[str, ...]) -> dict[str, Price]:
    """What each run is expected to cost, by key; folds of a configuration cost the same."""
    registry = registry_of(paths)
    each = {p.config: price_of(registry, p.run, *sizes[place(p.run)]) for p in planned if not p.reason}
    return {p.key: each[p.config] for p in planned if not p.reason}


def _keep(results: Results, planned: list[Planned], grid: Grid, paths: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Keep screens, splits and the plan; rows and genes of each screen by `place`."""
    _check_samples(results, grid)
    kinds, marks, sizes = {}, {}, {}
    for where, run in {place(p.run): p.run for p in planned}.items():
        data = screen(run.dataset, run.genes, paths)
        sizes[where] = data.effects.shape
        results.add_screen(data)
        split = split_of(run.dataset, run.split, run.genes, run.seed, paths)
        marks[where] = [data.meta["digest"], results.add_split(split)]
        kinds[f"{run.dataset}|{run.split}"] = split.kind
    registry, told = registry_of(paths), {}
    for p in planned:
        if p.config not in told:
            data = screen(p.run.dataset, p.run.genes, paths)
            told[p.config] = facts_of(registry, p.run) | {"flags": "; ".join(flags_of(registry, data, p.run, p.role))}
    facts = {"kinds": kinds, "marks": marks, "grid": grid.model_dump(), "told": told}
    facts |= {"scored": metric_names(registry, grid.metrics, grid.target), "registry": [Path(p).name for p in paths]}
    results.add_plan(planned, facts, {"versions": versions(), "command": _command()})
    return sizes


def _tidy(results: Results) -> None:
    """Drop what dead writers left, and the checkpoints of runs that are done or that no plan holds any more (their code
    has changed since).
    """
    sweep(results.folder)
    known = {planned["key"] for body in results.plans() for planned in body["runs"]}
    tidy(results.folder, lambda key: key in known and not results.done(key))


def _command() -> str:
    """The line that started this process; workers and cluster never change a number and are left out."""
    if Path(sys.argv[0]).name != "embbench":
        return "embbench.run_grid(...) in Python"
    words = list(sys.argv[1:])
    for option in ("--workers", "--cluster"):
        if option in words[:-1]:
            at = words.index(option)
            del words[at : at + 2]
    return shlex.join(["embbench", *words])


def _check_samples(results: Results, grid: Grid) -> None:
    """Populations are not comparable with those of another size, nor their sampled means with predicted ones."""
    kept = {p["facts"]["grid"]["samples"] for p in results.any_plans() if p["facts"]["grid"]["target"] == "population"}
    others = {p["facts"]["grid"]["target"] for p in results.any_plans()} - {"labels"}
    if grid.target != "labels" and others - {grid.target}:
        raise UserError(
            f"{results.folder} holds runs of target {', '.join(sorted(others))}, this grid predicts {grid.target}; one "
            "table must not mix them, so name another folder with --out"
        )
    if grid.target == "population" and kept - {grid.samples}:
        raise UserError(
            f"{results.folder} holds populations of {', '.join(map(str, sorted(kept)))} cells per condition, this grid "
            f"samples {grid.samples}; scores depend on the number, so name another folder with --out"
        )
