"""A grid on a Dask cluster: the same bits, dead workers survived, nothing computed twice, and misfits told at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest
from _grid import write_registry

from embbench.core import UserError
from embbench.grid.cluster import DaskCluster, inspect_worker
from embbench.grid.config import Grid
from embbench.grid.names import registry_of
from embbench.grid.schedule import run_grid
from embbench.grid.work import Errand, Terms, differs, identity, unmet_terms

HEADS = '''
import contextlib
import os
import signal
from pathlib import Path

import numpy as np

from embbench.core import HeadDefaults


class Marked(HeadDefaults):
    """Predicts the mean and says where it ran; wants a GPU."""

    def __init__(self, device="auto"):
        self.device = device

    def fit(self, inputs, Y, observed=None):
        if folder := os.environ.get("TAGGED"):
            (Path(folder) / str(os.getpid())).touch()
        self.mean_ = Y.mean(axis=0)
        return self

    def predict(self, inputs):
        return np.tile(self.mean_, (len(inputs), 1))


class Deadly(Marked):
    """Ends its worker as often as there are bullets, always in the fold in which it did so first."""

    def __init__(self, seed=0):
        super().__init__("cpu")

    def fit(self, inputs, Y, observed=None):
        folder, mine = Path(os.environ.get("TAGGED", "/nowhere")), repr(Y.sum())
        for bullet in sorted(folder.glob("*.bullet")):
            with contextlib.suppress(FileExistsError), (folder / "victim").open("x") as file:
                file.write(mine)
            if (folder / "victim").read_text() == mine:
                bullet.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(inputs, Y, observed)
'''
SECTIONS = {
    "datasets": {
        "tiny": {
            "impl": "embbench.datasets.simulator:Simulator",
            "params": {"n_perturbations": 24, "n_genes": 40, "n_contexts": 1},
        }
    },
    "heads": {"marked": {"impl": "cluster_heads:Marked"}, "deadly": {"impl": "cluster_heads:Deadly"}},
}
AXES = {
    "dataset": "tiny",
    "split": "unseen_perturbation:3",
    "emb": "random:4,random:6",
    "head": "ridge:alpha=1.0,marked",
    "baselines": False,
    "permutations": {},
    "metrics": "l2_notarget,pearson_notarget",
}
START = "import sys; from distributed.cli.{0} import main; sys.argv[0] = '{0}'; main()"


class Dask:
    """A scheduler and its workers, as processes of this machine."""

    def __init__(self, folder: Path, modules: Path) -> None:
        self.folder, self.file, self.tagged = folder, folder / "scheduler.json", folder / "tagged"
        self.tagged.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.gpu: subprocess.Popen[bytes]
        self.environment = {
            **os.environ,
            "TAGGED": str(self.tagged),
            "PYTHONPATH": os.pathsep.join([str(modules), os.environ.get("PYTHONPATH", "")]),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        }
        self.environment.pop("EMBBENCH_HOME", None)  # workers take that of the grid
        self.start("dask_scheduler", "--port", "0", "--no-dashboard")
        self.wait(self.file.exists)

    def start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        """One more process, on this machine's loopback."""
        command = [sys.executable, "-c", START.format(what), "--scheduler-file", str(self.file), "--host", "127.0.0.1"]
        with (self.folder / "log").open("ab") as log:
            started = subprocess.Popen(
                [*command, *options], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        self.processes.append(started)
        return started

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        """One more worker."""
        return self.start("dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", *options)

    def wait(self, ready: Callable[[], bool]) -> None:
        """Until ``ready``; at most a minute."""
        limit = time.monotonic() + 60
        while not ready():
            told = (self.folder / "log").read_text(encoding="utf-8")[-2000:]
            assert time.monotonic() < limit, told
            assert all(p.poll() in (None, -9) for p in self.processes), told
            time.sleep(0.05)

    def wait_workers(self, number: int) -> None:
        """Until so many workers have joined."""
        from distributed import Client

        with Client(scheduler_file=str(self.file), set_as_default=False) as client:
            client.wait_for_workers(number, timeout=60)

    def close(self) -> None:
        """End what is still running."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, tuple[str, ...]]]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "cluster_heads.py").write_text(HEADS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder, write_registry(folder, **SECTIONS)
    sys.modules.pop("cluster_heads", None)


@pytest.fixture(scope="module")
def dask(modules: tuple[Path, tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    pytest.importorskip("distributed", reason="needs embbench[cluster]: dask and distributed")
    cluster = Dask(tmp_path_factory.mktemp("dask"), modules[0])
    try:
        cluster.worker()
        cluster.worker()
        cluster.gpu = cluster.worker("--resources", "GPU=1")
        cluster.wait_workers(3)
        yield cluster
    finally:
        cluster.close()


def contents(out: Path) -> dict[str, str]:
    """Content hash of every prediction and score."""
    found = {}
    for path in sorted([*out.glob("predictions/*.h5"), *out.glob("scores/*.h5")]):
        with h5py.File(path, "r") as file:
            found[str(path.relative_to(out))] = str(file.attrs["sha256"])
    return found


def test_two_workers_give_the_same_bits_and_a_second_run_computes_nothing(
    dask: Dask, modules: tuple[Path, tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, paths = str(dask.file), modules[1]
    here, there = tmp_path / "here", tmp_path / "there"
    alone, told = run_grid(Grid(**AXES), here, paths=paths), []
    spread = run_grid(Grid(**AXES), there, cluster=where, paths=paths, progress=lambda *facts: told.append(facts))
    assert (spread.done, spread.failed) == (alone.done, 0)
    assert contents(there) == contents(here)
    assert len(contents(here)) == 2 * alone.done == 2 * 12
    assert told[0] == (None, 0, alone.done, None)
    assert told[-1][1:] == (alone.done, alone.done, 0.0)
    assert {int(p.name) for p in dask.tagged.iterdir()} == {dask.gpu.pid}  # what asks for a GPU ran where there is one
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".tmp", ".damaged") or p.name == "workers"]
    moved = tmp_path / "elsewhere" / "results"
    shutil.copytree(there, moved)
    before = {p: p.stat().st_mtime_ns for p in moved.rglob("*.h5")}
    monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / "another_home"))
    again = run_grid(Grid(**AXES), moved, cluster=where, paths=paths)
    assert (again.done, again.reused) == (alone.done, alone.done)
    assert {p: p.stat().st_mtime_ns for p in moved.rglob("*.h5")} == before


def test_workers_that_do_not_fit_are_told(
    dask: Dask, modules: tuple[Path, tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = modules[1]
    monkeypatch.setattr("embbench.grid.cluster.identity", lambda paths: identity(paths) | {"numpy": "0.1"})
    with pytest.raises(UserError, match=r"worker tcp://127.0.0.1:\d+ cannot do this grid: it has numpy .*expected 0.1"):
        run_grid(Grid(**AXES), tmp_path / "out", cluster=str(dask.file), paths=paths)
    assert not contents(tmp_path / "out")


def test_a_killed_worker_is_survived_and_a_run_that_kills_two_fails(
    dask: Dask, modules: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    for number in range(2):
        (dask.tagged / f"{number}.bullet").touch()
    grid = Grid(**AXES | {"head": "ridge:alpha=1.0,deadly", "emb": "random:4"})
    tally = run_grid(grid, tmp_path / "out", cluster=str(dask.file), paths=modules[1])
    assert (tally.done, tally.failed) == (5, 1)
    assert "x deadly on tiny" in tally.messages[0]
    assert "its worker died twice (KilledWorker)" in tally.messages[0]
    dask.wait(lambda: sum(p.poll() == -9 for p in dask.processes) == 2)
    assert len(contents(tmp_path / "out")) == 10
    again = run_grid(grid, tmp_path / "out", cluster=str(dask.file), paths=modules[1])
    assert (again.done, again.reused, again.failed) == (6, 5, 0)  # one worker is left, and enough


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs embbench[cluster]: dask and distributed")
    with pytest.raises(UserError, match="expected tcp://HOST:PORT or a scheduler file, found neither"):
        DaskCluster(str(tmp_path / "nowhere.json"), tmp_path, ())
    (tmp_path / "broken.json").write_text("no JSON")
    broken = DaskCluster(str(tmp_path / "broken.json"), tmp_path, ())
    with pytest.raises(UserError, match="expected a scheduler file of Dask with its address"), broken.joined():
        pass


def test_without_dask_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install 'embbench\[cluster\]'"):
        run_grid(Grid(**AXES), tmp_path / "out", cluster="tcp://127.0.0.1:8786")
    with pytest.raises(UserError, match="name one"):
        run_grid(Grid(**AXES), tmp_path / "out", cluster="tcp://127.0.0.1:8786", workers=2)
    assert not (tmp_path / "out").exists()


def test_workers_must_share_folders_code_and_versions(
    modules: tuple[Path, tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = modules[1]
    (tmp_path / "mark").touch()
    mine = identity(paths)

    def errand(folder: str = str(tmp_path), seen: str = "mark", **other: str) -> Errand:
        return Errand("out", paths, terms=Terms(folder, (), tuple((mine | other).items()), (str(tmp_path / seen),)))

    assert unmet_terms(errand()) == ""
    assert "does not see the current folder /nowhere" in unmet_terms(errand(folder="/nowhere"))
    assert f"does not see {tmp_path}, or another one of that name" in unmet_terms(errand(seen="gone"))
    assert unmet_terms(errand(numpy="0.1")) == f"it has numpy {mine['numpy']}, expected 0.1"
    assert "older than an edit" in unmet_terms(errand(code="other"))
    assert differs({"torch": "2"}, {"torch": "2", "faiss-cpu": "1"}) == "it has faiss-cpu 1, expected none"
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=1, total_resources={"GPU": 2.0}))
    assert inspect_worker(errand(), worker) == {"problem": "", "gpu": True}
    worker.state.nthreads = 2
    assert inspect_worker(errand(), worker)["problem"] == "it has 2 threads, expected 1 (--nthreads 1)"
    missing = write_registry(tmp_path, heads={"lost": {"impl": "no_such_module:Lost"}})
    with pytest.raises(UserError, match=r"cannot import no_such_module.*PYTHONPATH"):
        identity(missing)
    identity.cache_clear()
    source = modules[0] / "cluster_heads.py"
    monkeypatch.setattr("embbench.grid.work.code_of", lambda module: source.read_text())
    before = identity(paths)["code"]
    identity.cache_clear()
    monkeypatch.setattr("embbench.grid.work.code_of", lambda module: source.read_text() + "# edited")
    assert identity(paths)["code"] != before
    identity.cache_clear()
    registry_of.cache_clear()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("tcp://localhost", "expected an address such as tcp://HOST:8786"),
        ("foo://x:1", "expected an address such as .* found foo"),
        ("tcp://127.0.0.1:1", "no scheduler answers"),
    ],
)
def test_a_bad_address_is_told_before_anything_is_written(tmp_path, where, message):
    pytest.importorskip("distributed")
    with pytest.raises(UserError, match=message):
        run_grid(Grid(dataset=["sim_small"], emb=["random:4"], head=["ridge"]), tmp_path / "out", cluster=where)
    assert not (tmp_path / "out").exists()
