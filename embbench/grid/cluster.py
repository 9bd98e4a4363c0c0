"""An existing Dask cluster as the place where runs are computed: found, asked whether it fits, and handed tasks."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embbench.cache.home import home
from embbench.cache.store import replacing
from embbench.core import UserError
from embbench.grid.monitor import VARIABLE
from embbench.grid.plan import Planned
from embbench.grid.work import Errand, Outcome, Terms, identity, run_task, unmet_terms

if TYPE_CHECKING:
    from distributed import Client

CONNECT = 20.0  # seconds in which the scheduler must answer
SCHEMES = ("tcp", "tls", "ucx", "ws", "wss")  # of addresses of schedulers
GPU = "GPU"  # the resource that workers with a GPU are started with


class DaskCluster:
    """The workers of a running Dask scheduler.

    Parameters
    ----------
    where : ``tcp://HOST:PORT`` (or another address of a scheduler), or the path of a scheduler file.
    out, paths : results folder, and the user's registry files, which workers must see.

    Raises
    ------
    UserError
        Dask is not installed, or ``where`` is neither.
    """

    def __init__(self, where: str, out: Path, paths: tuple[str, ...]) -> None:
        try:
            from distributed import KilledWorker
        except ImportError as error:
            raise UserError(
                f"--cluster needs dask and distributed ({error}): pip install 'embbench[cluster]'"
            ) from error
        if "://" not in where and not Path(where).is_file():
            raise UserError(
                f"--cluster {where}: expected tcp://HOST:PORT or a scheduler file, found neither; see docs/cluster.md"
            )
        self.where, self.out, self.paths = where, Path(out), paths
        self.lost: tuple[type[Exception], ...] = (KilledWorker,)
        self.room = math.inf  # an adaptive cluster grows by what waits for it
        self.workers = 1
        self.task: Callable[[Sequence[Planned], Errand], list[Outcome]] = run_on_worker
        self.terms: Terms | None = None

    @contextlib.contextmanager
    def joined(self) -> Iterator[DaskCluster]:
        """Connected, with the terms that workers are told; those that are there are asked whether they meet them.

        Raises
        ------
        UserError
            The scheduler does not answer, or a worker does not see the same folders, has other code or versions, or
            more than one thread.
        """
        with contextlib.ExitStack() as stack:
            self._client = stack.enter_context(contextlib.closing(self._connected()))
            seen = tuple(stack.enter_context(_mark(folder)) for folder in (self.out, home()))
            environment = [(n, v) for n in (VARIABLE, "EMBBENCH_DEBUG") if (v := os.environ.get(n)) is not None]
            environment.append(("EMBBENCH_HOME", str(home().resolve())))
            told = identity(self.paths)
            self.terms = Terms(str(Path.cwd()), tuple(environment), tuple(told.items()), seen)
            found = self._ask(Errand(str(self.out), self.paths, terms=self.terms))
            self.workers, self._gpu = max(1, len(found)), any(facts["gpu"] for facts in found)
            yield self

    def check(self) -> None:
        """Whether somebody listens at the address, before anything is written.

        Raises
        ------
        UserError
            It is no address of a scheduler, or nobody answers.
        """
        from distributed.comm.addressing import parse_address, parse_host_port

        address = self._address()
        try:
            scheme, place = parse_address(address, strict=True)
            host, port = parse_host_port(place)
            if scheme not in SCHEMES:
                raise ValueError(f"found {scheme}")
        except ValueError as error:
            raise UserError(f"--cluster {self.where}: expected an address such as tcp://HOST:8786: {error}") from error
        try:
            socket.create_connection((host, port), timeout=CONNECT).close()
        except OSError as error:
            raise UserError(f"--cluster {self.where}: no scheduler answers: {error}; is it running?") from error

    def alive(self) -> bool:
        """Whether the scheduler is still connected."""
        return self._client.status == "running"

    @contextlib.contextmanager
    def open(self, workers: int) -> Iterator[Callable[[bool], Executor]]:
        """Executors over all workers, and over those with a GPU; what still waits is cancelled in the end."""
        plain = self._client.get_executor(pure=False)
        tagged = self._client.get_executor(pure=False, resources={GPU: 1}) if self._gpu else plain
        try:
            yield lambda gpu: tagged if gpu else plain
        finally:
            for executor in (plain, tagged):
                executor.shutdown(wait=False)

    def _connected(self) -> Client:
        from distributed import Client

        try:
            return Client(self._address(), timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"--cluster {self.where}: no scheduler answers: {error}; is it running?") from error

    def _address(self) -> str:
        """The address as given, or that in a scheduler file."""
        if "://" in self.where:
            return self.where
        try:
            return str(json.loads(Path(self.where).read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"--cluster {self.where}: expected a scheduler file of Dask with its address: {error}"
            ) from error

    def _ask(self, errand: Errand) -> list[dict[str, Any]]:
        """Facts of every worker that is there; one that comes later is asked with its first task."""
        answers = self._client.run(inspect_worker, errand, on_error="return")
        for address, facts in sorted(answers.items()):
            if problem := str(facts) if isinstance(facts, Exception) else facts["problem"]:
                raise UserError(f"--cluster {self.where}: worker {address} cannot do this grid: {problem}")
        return list(answers.values())


def inspect_worker(errand: Errand, dask_worker: Any = None) -> dict[str, Any]:
    """What a worker says of itself: why it cannot do the errand (empty when it can), and whether it has a GPU tag."""
    state = dask_worker.state
    problem = f"it has {state.nthreads} threads, expected 1 (--nthreads 1)" if state.nthreads != 1 else ""
    return {"problem": problem or unmet_terms(errand), "gpu": state.total_resources.get(GPU, 0) >= 1}


def run_on_worker(runs: Sequence[Planned], errand: Errand) -> list[Outcome]:
    """`embbench.grid.work.run_task` on a worker that may have come after the start of the grid.

    Raises
    ------
    UserError
        The worker cannot do the errand.
    """
    from distributed import get_worker

    worker = get_worker()
    if problem := inspect_worker(errand, worker)["problem"]:
        raise UserError(f"worker {worker.address} cannot do this grid: {problem}")
    return run_task(runs, errand)


@contextlib.contextmanager
def _mark(folder: Path) -> Iterator[str]:
    """A file in ``folder`` while the context lasts; the next start sweeps that of a killed process."""
    final = folder.resolve() / "workers"
    with replacing(final) as temporary:
        yield str(temporary)
    final.unlink(missing_ok=True)
