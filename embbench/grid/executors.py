"""Tasks through an executor: a local process pool, or what `embbench.grid.cluster` opens; dead workers are survived."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from embbench.cache.home import home
from embbench.core import UserError
from embbench.grid.monitor import PAUSE, in_flight
from embbench.grid.order import Task
from embbench.grid.plan import Planned
from embbench.grid.results import Results
from embbench.grid.threads import THREADS
from embbench.grid.work import Errand, Outcome, Terms, message_of, run_one, run_task

GIVEN_UP = (
    "the cluster gave up the runs in flight (its scheduler ended or was restarted); give the same command again, "
    "what is done is kept"
)
# loky restarts workers that have grown by 300 MB, where psutil is there; what ours keep (screens, vectors) is bounded
NO_LEAK = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}
Watch = Callable[[list[str]], None]  # takes one line for every run in flight that has something to tell


class Crew(Protocol):
    """Workers that a grid can send tasks to.

    ``lost`` is what a future raises whose worker died, ``room`` the number of tasks in flight, ``workers`` that of
    workers at the start, ``task`` what they call, ``terms`` what they must share with this process.
    """

    lost: tuple[type[Exception], ...]
    room: float
    workers: int
    task: Callable[[Sequence[Planned], Errand], list[Outcome]]
    terms: Terms | None

    def alive(self) -> bool:
        """Whether futures can still land."""
        ...

    def open(self, workers: int) -> AbstractContextManager[Callable[[bool], Executor]]:
        """Executors while the context lasts, for tasks that ask for a GPU and for those that do not; ``workers`` bounds
        what a pool of one's own starts.
        """
        ...


class LocalPool:
    """Processes of this machine, one thread each."""

    def __init__(self, workers: int) -> None:
        self.workers, self.room = workers, float(workers + 1)
        self.lost: tuple[type[Exception], ...] = (BrokenProcessPool,)
        self.task: Callable[[Sequence[Planned], Errand], list[Outcome]] = run_settled
        self.terms: Terms | None = None

    def alive(self) -> bool:
        """A pool that broke says so by its futures."""
        return True

    @contextlib.contextmanager
    def open(self, workers: int) -> Iterator[Callable[[bool], Executor]]:
        """A process pool; on an error or interrupt its workers are killed, not waited for."""
        from loky import ProcessPoolExecutor

        environment = dict.fromkeys(THREADS, "1") | {"EMBBENCH_HOME": str(home()), **NO_LEAK}
        pool = ProcessPoolExecutor(workers, env=environment, initializer=_follow, initargs=(os.getpid(),))
        try:
            yield lambda gpu: pool
        except BaseException:
            pool.shutdown(wait=True, kill_workers=True)
            raise
        pool.shutdown(wait=True)


def run_settled(runs: Sequence[Planned], errand: Errand) -> list[Outcome]:
    """`embbench.grid.work.run_task` in a process of the pool."""
    done = run_task(runs, errand)
    _settle()
    return done


@functools.cache
def _settle() -> None:
    """Take what libraries have made so far, 70 ms a walk, out of the collections that loky asks for every second."""
    gc.collect()
    gc.freeze()


def _follow(parent: int) -> None:
    """End this worker soon after its parent: a killed grid must not leave processes that wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def outcomes_of(tasks: Sequence[Task], errand: Errand, crew: Crew | None, watch: Watch | None) -> Iterator[Outcome]:
    """Every run's outcome, in the order in which they end; without a crew, in this process."""
    if crew is not None and (len(tasks) > 1 or crew.terms is not None):
        yield from _sent(tasks, errand, crew, watch)
        return
    for planned in (p for task in tasks for p in task.runs):
        yield run_one(planned, errand, None if watch is None else lambda line: watch([line]))
        if watch is not None:
            watch([])


def _sent(tasks: Sequence[Task], errand: Errand, crew: Crew, watch: Watch | None) -> Iterator[Outcome]:
    """Tasks to the crew; where a worker dies, those in flight are done again alone, the others by a new pool."""
    queue = deque(tasks)
    while queue:
        suspects: list[Task] = []
        with crew.open(crew.workers) as executor:
            yield from _flown(queue, suspects, errand, crew, executor, watch)
        if suspects:
            yield from _alone(suspects, errand, crew, watch)


def _flown(
    queue: deque[Task],
    suspects: list[Task],
    errand: Errand,
    crew: Crew,
    executor: Callable[[bool], Executor],
    watch: Watch | None,
) -> Iterator[Outcome]:
    """Outcomes of the queue as far as the executor lasts; runs whose worker died are added to ``suspects``."""
    flying: dict[Future, Task] = {}
    broken = False
    while flying or (queue and not broken):
        while queue and len(flying) < crew.room and not broken:
            try:
                future = executor(queue[0].gpu).submit(crew.task, queue[0].runs, errand)
            except BrokenProcessPool:
                broken = True
            else:
                flying[future] = queue.popleft()
        for future in _landed(flying, errand, crew, watch) if flying else ():
            task = flying.pop(future)
            try:
                yield from _result(future)
            except crew.lost:
                suspects += [Task((planned,), task.cost, task.gpu) for planned in task.runs]


def _result(future: Future) -> list[Outcome]:
    """What a task gave; `UserError` when the scheduler of the cluster gave it up."""
    try:
        return future.result()
    except CancelledError as error:
        raise UserError(GIVEN_UP) from error


def _landed(flying: Mapping[Future, Task], errand: Errand, crew: Crew, watch: Watch | None) -> set[Future]:
    """The tasks that have ended, at least one; meanwhile ``watch`` is told how far the others are.

    Raises
    ------
    UserError
        The cluster is gone.
    """
    while not (done := wait(flying, timeout=PAUSE, return_when=FIRST_COMPLETED).done):
        if not crew.alive():
            raise UserError(GIVEN_UP)
        if watch is not None:
            watch(in_flight(Path(errand.out), [p.key for task in flying.values() for p in task.runs]))
    return done


def _alone(suspects: list[Task], errand: Errand, crew: Crew, watch: Watch | None) -> Iterator[Outcome]:
    """Runs whose worker died, one at a time: the one that ends its worker again fails, the others are done."""
    results, queue = Results(Path(errand.out)), deque(suspects)
    while queue:
        with crew.open(1) as executor:
            died = False
            while queue and not died:
                task = queue.popleft()
                future = executor(task.gpu).submit(crew.task, task.runs, errand)
                _landed({future: task}, errand, crew, watch)
                try:
                    yield from _result(future)
                except crew.lost as error:
                    died = True
                    yield _dead(task.runs[0], results, type(error).__name__)


def _dead(planned: Planned, results: Results, error: str) -> Outcome:
    message = message_of(planned.run, f"its worker died twice ({error}); out of memory?")
    results.add_failure(planned.key, message)
    return Outcome(planned.key, "failed", message)
