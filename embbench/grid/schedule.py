"""Run a plan over a local process pool: resumable, with progress, failures kept apart from results."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embbench.cache.home import home
from embbench.cache.store import sweep, versions
from embbench.core import Run, UserError
from embbench.grid.fit import fold_of, job_of, predict
from embbench.grid.honesty import audit, facts_of, flags_of, foreign
from embbench.grid.metrics import metric_names
from embbench.grid.monitor import PAUSE, Watcher, in_flight, seconds, tidy
from embbench.grid.names import registry_of
from embbench.grid.plan import Planned, plan
from embbench.grid.results import Results, place
from embbench.grid.score import metrics_of, score_run
from embbench.grid.screens import screen, split_of
from embbench.grid.threads import THREADS, one_thread

if TYPE_CHECKING:
    from embbench.grid.config import Grid


@dataclass(frozen=True)
class Outcome:
    """How one run ended: ``done`` or ``failed`` with the message, what it warned of, and its wall seconds."""

    key: str
    status: str
    message: str = ""
    seconds: float = 0.0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Errand:
    """What all runs of a grid share: the results folder, the user's registry files, the metrics to score, and whether
    somebody wants to see how far long fits are.
    """

    out: str
    paths: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    watched: bool = False


Watch = Callable[[list[str]], None]  # takes one line for every run in flight that has something to tell


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
    paths: tuple[str, ...] = (),
    progress: Callable[[Outcome | None, int, int], None] | None = None,
    watch: Watch | None = None,
) -> Tally:
    """Run what is not there yet; what exists is read, never refitted.

    Parameters
    ----------
    grid : axes and options.
    out : results folder; start the same grid again after a kill and it goes on where it was.
    workers : processes; the number never changes a result (one thread each).
    paths : further registry files.
    progress : called with (outcome, finished, total) after every run, and with None once at the start.
    watch : called about once a second with a line for every run in flight that reports progress.

    Raises
    ------
    UserError
        Bad names or options; nothing is written then.
    """
    if workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")
    results = Results(out)
    seconds()  # a bad setting is told before anything is computed
    with one_thread():  # also while planning, which loads screens and extracts embeddings
        try:
            return _run(plan(grid, paths), grid, results, workers, paths, progress, watch)
        finally:
            sweep(Path(out))  # workers that were killed just now leave theirs behind


def _run(
    planned: list[Planned],
    grid: Grid,
    results: Results,
    workers: int,
    paths: tuple[str, ...],
    progress: Callable[[Outcome | None, int, int], None] | None,
    watch: Watch | None,
) -> Tally:
    if all(p.reason for p in planned):
        raise UserError(f"no run of this grid is possible: {planned[0].reason}")
    _keep(results, planned, grid, paths)
    _tidy(results)
    sweep(home())
    open_runs = [p for p in planned if not p.reason]
    todo = [p for p in open_runs if not results.done(p.key)]
    reused = len(open_runs) - len(todo)
    failed: list[Outcome] = []
    notices: Counter[str] = Counter()
    finished = reused
    metrics = tuple(metric_names(registry_of(paths), grid.metrics, grid.target))
    errand = Errand(str(results.folder.resolve()), paths, metrics, watch is not None)
    if progress:
        progress(None, finished, len(open_runs))
    for outcome in _outcomes(_tasks(todo), errand, workers, watch):
        finished += 1
        notices.update(outcome.notices)
        if outcome.status == "failed":
            failed.append(outcome)
        if progress:
            progress(outcome, finished, len(open_runs))
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


def _keep(results: Results, planned: list[Planned], grid: Grid, paths: tuple[str, ...]) -> None:
    _check_samples(results, grid)
    kinds, marks = {}, {}
    for where, run in {place(p.run): p.run for p in planned}.items():
        data = screen(run.dataset, run.genes, paths)
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


def _tidy(results: Results) -> None:
    """Drop what dead writers left, and the checkpoints of runs that are done or that no plan holds any more (their code
    has changed since).
    """
    sweep(results.folder)
    known = {planned["key"] for body in results.plans() for planned in body["runs"]}
    tidy(results.folder, lambda key: key in known and not results.done(key))


def _command() -> str:
    """The line that started this process; the number of workers never changes a number and is left out."""
    if Path(sys.argv[0]).name != "embbench":
        return "embbench.run_grid(...) in Python"
    words = list(sys.argv[1:])
    if "--workers" in words[:-1]:
        at = words.index("--workers")
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


def _tasks(todo: list[Planned]) -> list[list[Planned]]:
    """Runs that share vectors go to one worker, in chunks small enough to keep progress honest."""
    groups: dict[tuple[Any, ...], list[Planned]] = {}
    for p in todo:
        groups.setdefault((p.run.dataset, p.run.split, p.run.embedding.partition(":draw=")[0]), []).append(p)
    return [group[i : i + 8] for group in groups.values() for i in range(0, len(group), 8)]


def _outcomes(tasks: list[list[Planned]], errand: Errand, workers: int, watch: Watch | None) -> Iterator[Outcome]:
    if workers > 1 and len(tasks) > 1:
        yield from _pooled(tasks, errand, workers, watch)
        return
    for planned in (p for task in tasks for p in task):
        yield run_one(planned, errand, None if watch is None else lambda line: watch([line]))
        if watch is not None:
            watch([])


def _pooled(tasks: list[list[Planned]], errand: Errand, workers: int, watch: Watch | None) -> Iterator[Outcome]:
    """Tasks over a pool; where a worker dies, those in flight are run again alone and the others in a new pool."""
    queue = deque(tasks)
    while queue:
        flying: dict[Future, list[Planned]] = {}
        with pool_of(workers) as pool, contextlib.suppress(BrokenProcessPool):
            while queue or flying:
                while queue and len(flying) <= workers:
                    future = pool.submit(run_task, queue[0], errand)
                    flying[future] = queue.popleft()
                for future in _landed(flying, errand, watch):
                    yield from future.result()
                    del flying[future]
        yield from _alone([p for task in flying.values() for p in task], errand, watch)


def _landed(flying: Mapping[Future, list[Planned]], errand: Errand, watch: Watch | None) -> set[Future]:
    """The tasks that have ended, at least one; meanwhile ``watch`` is told how far the others are."""
    while not (done := wait(flying, timeout=watch and PAUSE, return_when=FIRST_COMPLETED).done):
        if watch is not None:
            watch(in_flight(Path(errand.out), [p.key for task in flying.values() for p in task]))
    return done


def _alone(suspects: list[Planned], errand: Errand, watch: Watch | None) -> Iterator[Outcome]:
    """Runs whose worker died, one at a time: the one that ends its worker again fails, the others are done."""
    results, queue = Results(Path(errand.out)), deque(suspects)
    while queue:
        with pool_of(1) as pool:
            try:
                while queue:
                    if results.done(queue[0].key):
                        yield Outcome(queue[0].key, "done")
                    else:
                        future = pool.submit(run_one, queue[0], errand)
                        _landed({future: [queue[0]]}, errand, watch)
                        yield future.result()
                    queue.popleft()
            except BrokenProcessPool as error:
                dead = queue.popleft()
                message = _message(dead.run, f"its worker died twice ({type(error).__name__}); out of memory?")
                results.add_failure(dead.key, message)
                yield Outcome(dead.key, "failed", message)


@contextlib.contextmanager
def pool_of(workers: int) -> Iterator[Executor]:
    """A process pool with one thread per worker; on an error or interrupt its workers are killed, not waited for."""
    from loky import ProcessPoolExecutor

    environment = dict.fromkeys(THREADS, "1") | {"EMBBENCH_HOME": str(home())}
    pool = ProcessPoolExecutor(workers, env=environment, initializer=_follow, initargs=(os.getpid(),))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, kill_workers=True)
        raise
    pool.shutdown(wait=True)


def _follow(parent: int) -> None:
    """End this worker soon after its parent: a killed grid must not leave processes that wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_task(task: list[Planned], errand: Errand) -> list[Outcome]:
    """All runs of one task, in a worker."""
    with one_thread():
        return [run_one(planned, errand) for planned in task]


def run_one(planned: Planned, errand: Errand, tell: Callable[[str], None] | None = None) -> Outcome:
    """Fit, predict, store and score one run; a failure is recorded and reported, it does not stop the grid.

    ``tell`` takes lines about how far it is; without it they go to a file that the parent process reads.
    """
    results, run, began, message = Results(Path(errand.out)), planned.run, time.perf_counter(), ""
    watcher = Watcher(results.folder, planned.key, run, tell=tell, watched=errand.watched)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            job = job_of(run, errand.paths, planned.config)
            split = split_of(run.dataset, run.split, run.genes, run.seed, errand.paths)
            made, fold = predict(job, watcher), fold_of(split, run.fold)
            # one fold is enough to show a leak, and our own components are tested for them
            asked = planned.role == "method" and fold.name == split.folds[0].name and foreign(job)
            results.add_prediction(planned, job.data, fold, made, audit(job, made, fold.test) if asked else "")
            score_run(results, planned.key, job.data, metrics_of(job.registry, errand.metrics), {})
        except Exception as error:
            # the one broad except of the package: a grid of thousands of runs must go on
            if os.environ.get("EMBBENCH_DEBUG"):
                raise
            message = _message(run, f"{type(error).__name__}: {error}")
            results.add_failure(planned.key, message)
    watcher.close(done=not message)
    notices = tuple(dict.fromkeys(f"{run.head}: {w.message}" for w in caught if issubclass(w.category, UserWarning)))
    return Outcome(planned.key, "failed" if message else "done", message, time.perf_counter() - began, notices)


def _message(run: Run, why: str) -> str:
    return f"{run.embedding} x {run.head} on {run.dataset} {run.fold}: {why}"
