"""One run from its coordinates to its files: what every worker does, here, in a local pool or on a cluster."""

from __future__ import annotations

import contextlib
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embbench.cache.keys import code_of, digest
from embbench.cache.store import versions
from embbench.core import Run, Truth, UserError
from embbench.grid.fit import fold_of, job_of, predict
from embbench.grid.honesty import audit, foreign
from embbench.grid.kept import Kept
from embbench.grid.monitor import Watcher
from embbench.grid.names import registry_of
from embbench.grid.plan import Planned
from embbench.grid.results import Results
from embbench.grid.score import metrics_of, score_run
from embbench.grid.screens import forget, split_of
from embbench.grid.threads import one_thread
from embbench.registry import Registry, default


@dataclass(frozen=True)
class Outcome:
    """How one run ended: ``done`` or ``failed`` with the message, what it warned of, and its wall seconds (0: it was
    there already).
    """

    key: str
    status: str
    message: str = ""
    seconds: float = 0.0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Terms:
    """What a worker on another machine must share with whoever starts the grid.

    Parameters
    ----------
    folder : the current folder, which relative paths of tables start at.
    environment : variables of embbench, as pairs.
    identity : versions and code, as pairs; see `identity`.
    seen : files in the results folder and in ``$EMBBENCH_HOME`` that are there as long as the grid runs.
    """

    folder: str
    environment: tuple[tuple[str, str], ...]
    identity: tuple[tuple[str, str], ...]
    seen: tuple[str, ...]


@dataclass(frozen=True)
class Errand:
    """What all runs of a grid share: the results folder, the user's registry files, the metrics to score, whether
    somebody wants to see how far long fits are, and the terms for workers of other machines.
    """

    out: str
    paths: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    watched: bool = False
    terms: Terms | None = None


@functools.cache
def identity(paths: tuple[str, ...]) -> dict[str, str]:
    """Versions of embbench and of the libraries under it, and a digest of all its code and of the user's components.

    Read once per process: one that lives on while its code is edited still says what it has loaded.

    Raises
    ------
    UserError
        A registry file, or a module that it names, is not there.
    """
    root = Path(__file__).resolve().parents[1]
    code = {str(p.relative_to(root)): digest(p.read_text(encoding="utf-8")) for p in sorted(root.rglob("*.py"))}
    code |= {path.name: digest(path.read_text(encoding="utf-8")) for path in default().paths}
    packaged = {(entry.kind, entry.name) for entry in default().entries()}
    for entry in registry_of(paths).entries() if paths else ():
        if (entry.kind, entry.name) not in packaged:
            code[f"{entry.kind}/{entry.name}"] = digest([repr(entry), _code(entry.module)])
    return {**versions(), "code": digest(code)}


def _code(module: str) -> str:
    try:
        return code_of(module)
    except ModuleNotFoundError as error:
        raise UserError(f"cannot import {module}: {error}; put its folder on PYTHONPATH") from error


def run_task(runs: Sequence[Planned], errand: Errand) -> list[Outcome]:
    """All runs of one task, in a worker; what is there already (a worker died after it) is not done again."""
    results = Results(Path(errand.out))
    with contextlib.nullcontext() if errand.terms is None else _as_agreed(errand.terms), one_thread():
        return [Outcome(p.key, "done") if results.done(p.key) else run_one(p, errand) for p in runs]


@contextlib.contextmanager
def _as_agreed(terms: Terms) -> Iterator[None]:
    """The folder and environment of whoever started the grid, put back in the end: the worker is somebody else's."""
    here, before = Path.cwd(), {name: os.environ.get(name) for name, _ in terms.environment}
    os.chdir(terms.folder)
    os.environ.update(dict(terms.environment))
    try:
        yield
    finally:
        os.chdir(here)
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@functools.lru_cache(maxsize=1)
def unmet_terms(errand: Errand) -> str:
    """Why this process cannot work on an errand, empty when it can; asked once per grid.

    It may have worked on another grid before, so what it knows of registries and screens is forgotten.
    """
    registry_of.cache_clear()
    forget()
    if errand.terms is None:
        return ""
    if not Path(errand.terms.folder).is_dir():
        return f"it does not see the current folder {errand.terms.folder}"
    for path in errand.terms.seen:
        if not Path(path).exists():
            return f"it does not see {Path(path).parent}, or another one of that name; workers must share it"
        if not os.access(Path(path).parent, os.W_OK):
            return f"it cannot write to {Path(path).parent}"
    try:
        own = identity(errand.paths)
    except UserError as error:
        return str(error)
    return differs(dict(errand.terms.identity), own)


def differs(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What two identities disagree on, empty when on nothing.

    Examples
    --------
    >>> differs({"numpy": "2.4.0", "code": "a"}, {"numpy": "2.3.0", "code": "a"})
    'it has numpy 2.3.0, expected 2.4.0'
    """
    odd = [name for name in (*wanted, *found) if wanted.get(name) != found.get(name)]
    told = [f"{n} {found.get(n, 'none')}, expected {wanted.get(n, 'none')}" for n in dict.fromkeys(odd) if n != "code"]
    told += ["other code of embbench or of your components (restart workers that are older than an edit)"] * (
        "code" in odd
    )
    return f"it has {'; '.join(told)}" if told else ""


def run_one(planned: Planned, errand: Errand, tell: Callable[[str], None] | None = None) -> Outcome:
    """Fit, predict, store and score one run; a failure is recorded and reported, it does not stop the grid.

    ``tell`` takes lines about how far it is; without it they go to a file that the parent process reads.
    """
    results, run, began, message = Results(Path(errand.out)), planned.run, time.perf_counter(), ""
    watcher = Watcher(results.folder, planned.key, run, tell=tell, watched=errand.watched)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _compute(planned, errand, results, watcher)
        except Exception as error:
            # the one broad except of the package: a grid of thousands of runs must go on
            if os.environ.get("EMBBENCH_DEBUG"):
                raise
            message = message_of(run, f"{type(error).__name__}: {error}")
            results.add_failure(planned.key, message)
    watcher.close(done=not message)
    notices = tuple(dict.fromkeys(f"{run.head}: {w.message}" for w in caught if issubclass(w.category, UserWarning)))
    return Outcome(planned.key, "failed" if message else "done", message, time.perf_counter() - began, notices)


def _compute(planned: Planned, errand: Errand, results: Results, watcher: Watcher) -> None:
    run = planned.run
    job = job_of(run, errand.paths, planned.config)
    split = split_of(run.dataset, run.split, run.genes, run.seed, errand.paths)
    made, fold = predict(job, watcher), fold_of(split, run.fold)
    # one fold is enough to show a leak, and our own components are tested for them
    asked = planned.role == "method" and fold.name == split.folds[0].name and foreign(job)
    stored = results.add_prediction(planned, job.data, fold, made, audit(job, made, fold.test) if asked else "")
    place = (job.data.meta["digest"], run.split, run.seed, run.fold, run.target, errand.metrics)
    room = 12 * len(fold.test) * job.data.effects.shape[1]
    truths: dict[str, Truth] = _TRUTHS.get(place, lambda: Judged(room)).by_mark
    score_run(results, planned.key, job.data, _metrics(job.registry, errand.metrics), truths, stored)
    if run.target == "population":
        truths.clear()  # it holds the cells of the fold


class Judged:
    """What runs of one fold are judged against; ``room`` bytes: truth and centroids of its test rows."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.by_mark: dict[str, Truth] = {}


_TRUTHS: Kept[Judged] = Kept(1 << 29, lambda judged: judged.room)


@functools.lru_cache(maxsize=4)
def _metrics(registry: Registry, names: tuple[str, ...]) -> dict[str, Any]:
    return metrics_of(registry, names)


def message_of(run: Run, why: str) -> str:
    """A failure, with the run that it is of."""
    return f"{run.embedding} x {run.head} on {run.dataset} {run.fold}: {why}"
