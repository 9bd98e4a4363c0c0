"""A killed grid goes on where it was and ends as if nothing had happened; failures and skips are told, not lost."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from embbench.cache.keys import code_of
from embbench.cli.main import app
from embbench.grid.config import Grid
from embbench.grid.frames import read_frames
from embbench.grid.names import registry_of
from embbench.grid.plan import _component
from embbench.grid.results import Results
from embbench.grid.schedule import run_grid
from embbench.grid.screens import _screen, split_of

GRID = """\
dataset: kill_tiny
split: unseen_perturbation:2
emb: [ppi]
head: [knn, lasso]
permutations: {smoother: 1, trained: 1}
metrics: [l2_notarget]
"""
HEADS = '''
import os
import signal

import numpy as np

from embbench.core import HeadDefaults


class Fragile(HeadDefaults):
    """Fails when the environment says so."""

    targets = ("effects",)

    def __init__(self, mood="error"):
        self.mood = mood

    def fit(self, inputs, Y, observed=None):
        if os.environ.get("FRAGILE") and self.mood == "error":
            raise ArithmeticError("the matrix is on strike")
        if os.environ.get("FRAGILE") and self.mood == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self.mean_ = Y.mean(axis=0)
        return self

    def predict(self, inputs):
        return np.tile(self.mean_, (len(inputs), 1))
'''
REGISTRY = """\
datasets:
  tiny: {impl: "embbench.datasets.simulator:Simulator", params: {n_perturbations: 24, n_genes: 40, n_contexts: 1}}
heads:
  fragile: {impl: "fragile_heads:Fragile", argument: mood}
"""
BASE = {
    "dataset": "tiny",
    "split": "unseen_perturbation:2",
    "emb": "random:4",
    "baselines": False,
    "permutations": {},
    "metrics": ["l2_notarget"],
}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """``bench/kill_resume.py``, the long version of this test."""
    path = Path(__file__).resolve().parents[1] / "bench" / "kill_resume.py"
    spec = importlib.util.spec_from_file_location("kill_resume", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_resume"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    (tmp_path / "fragile_heads.py").write_text(HEADS)
    (tmp_path / "user.yaml").write_text(REGISTRY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    yield (str(tmp_path / "user.yaml"),)
    sys.modules.pop("fragile_heads", None)


def times(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (folder / "predictions").glob("*.h5")}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes of a group through /proc")
def test_killed_three_times_the_grid_ends_as_if_undisturbed(bench: ModuleType, tmp_path: Path) -> None:
    calm, hurt = bench.Place(tmp_path / "calm"), bench.Place(tmp_path / "hurt")
    for place in (calm, hurt):
        (place.folder / "grid.yaml").write_text(GRID)
    assert calm.grid(workers=1).wait(timeout=300) == 0, calm.tail()
    runs, draw = calm.predictions(), random.Random(5)
    assert runs == 16
    for kind in ("group", "parent", "worker"):
        for path in sorted((hurt.results / "predictions").glob("*.h5"))[6:]:
            path.unlink()  # workers without a parent may have come to the end in their last half second
        process, wanted = hurt.grid(workers=2), hurt.predictions() + 2
        while hurt.predictions() < wanted or not bench.workers_of(process.pid):
            assert process.poll() is None, hurt.tail()
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.02))
        if kind == "worker":  # the grid notices, runs again what that worker had, and comes to its end
            os.kill(bench.workers_of(process.pid)[0], signal.SIGKILL)
            assert process.wait(timeout=300) == 0, hurt.tail()
        elif kind == "parent":
            process.kill()
            process.wait()
            assert bench.wait_gone(process.pid) is not None, "workers outlive their parent"
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert hurt.predictions() < runs
    assert bench.hashes(hurt) == bench.hashes(calm)  # one worker against two, undisturbed against killed
    assert not [p for p in hurt.folder.rglob("*") if p.suffix in (".tmp", ".damaged")]
    assert hurt.start("cache", "verify").wait(timeout=300) == 0, hurt.tail()


THREADS = """
import sys
from embbench.grid.threads import one_thread
with one_thread():
    assert "torch" not in sys.modules
    import faiss, torch
    from threadpoolctl import threadpool_info
    print(torch.get_num_threads(), faiss.omp_get_max_threads(), {p["num_threads"] for p in threadpool_info()})
"""


def test_libraries_that_are_loaded_late_get_one_thread_too() -> None:
    pytest.importorskip("faiss")
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "{1}"]


def test_a_new_axis_value_computes_nothing_again(paths: tuple[str, ...], tmp_path: Path, bench: ModuleType) -> None:
    out = tmp_path / "results"
    first = run_grid(Grid(**BASE, head="knn:k=3"), out, paths=paths)
    assert (first.done, first.reused) == (2, 0)
    before = times(out)
    for grid, done in (
        (Grid(**BASE, head="knn:k=3"), 2),
        (Grid(**BASE, head="knn:k=3,ridge:alpha=1.0"), 4),
        (Grid(**{**BASE, "emb": "random:4,random:3"}, head="knn:k=3,ridge:alpha=1.0", seed=[0, 1]), 16),
    ):
        tally = run_grid(grid, out, paths=paths)
        assert (tally.done, tally.reused) == (done, len(before))
        assert before.items() <= times(out).items()
        before = times(out)
        assert len(before) == done


def test_a_table_never_mixes_old_and_new_code_or_data(paths: tuple[str, ...], tmp_path: Path) -> None:
    out, user = tmp_path / "results", Path(paths[0])

    def keys_of(head: str) -> dict[str, set[str]]:
        run_grid(Grid(**BASE, head=head), out, paths=paths)
        runs = read_frames(Results(out), registry_of(paths), ["l2_notarget"]).runs
        assert set(runs.status) == {"done"}
        return runs.groupby("head").key.agg(set).to_dict()

    def edit(path: Path, old: str, new: str) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        for cached in (code_of, registry_of, _screen, split_of, _component):
            cached.cache_clear()  # as in the next process

    first = keys_of("fragile,knn:k=3")
    edit(tmp_path / "fragile_heads.py", "Y.mean(axis=0)", "2 * Y.mean(axis=0)")
    second = keys_of("fragile")  # the head of the user has changed, the other result stays
    assert second["knn:k=3"] == first["knn:k=3"]
    assert not second["fragile"] & first["fragile"]
    edit(tmp_path / "fragile_heads.py", "2 * Y.mean(axis=0)", "Y.mean(axis=0)")
    assert keys_of("fragile") == first  # changed back: found again, nothing fitted
    assert len(times(out)) == 6
    edit(user, "n_perturbations: 24", "n_perturbations: 26")
    third = keys_of("fragile")  # another screen under the same name: what was made on the old one is out
    assert set(third) == {"fragile"}
    assert not third["fragile"] & (first["fragile"] | second["fragile"])


def test_a_failed_run_is_told_and_tried_again(
    paths: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results"
    command = ["grid", "--registry", *paths, "--dataset", "tiny", "--split", "unseen_perturbation:2", "--out", str(out)]
    command += ["--emb", "random:4", "--head", "ridge:alpha=1.0,fragile", "--permutations", "0", "--no-baselines"]
    command += ["--metrics", "l2_notarget"]
    monkeypatch.setenv("FRAGILE", "1")
    broken = CliRunner().invoke(app, command)
    assert broken.exit_code == 1
    assert "random:4 x fragile on tiny" in broken.output
    assert "ArithmeticError: the matrix is on strike" in broken.output
    kept = [json.loads(p.read_text())["message"] for p in (out / "failures").glob("*.json")]
    assert len(kept) == 2
    assert all("the matrix is on strike" in message for message in kept)
    runs = read_frames(Results(out), registry_of(paths), ["l2_notarget"]).runs
    assert runs.groupby("head").status.unique().map(list).to_dict() == {
        "fragile": ["failed"],
        "ridge:alpha=1.0": ["done"],
    }
    assert runs.loc[runs.status == "failed", "reason"].str.contains("on strike").all()
    before = times(out)
    monkeypatch.delenv("FRAGILE")
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert "4 runs done (2 were there already), 0 skipped, 0 failed" in again.output
    assert before.items() <= times(out).items()
    assert not list((out / "failures").glob("*"))


def test_a_head_that_kills_its_worker_fails_alone(
    paths: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results"
    monkeypatch.setenv("FRAGILE", "1")
    grid = Grid(**{**BASE, "emb": "random:4,random:3"}, head="ridge:alpha=1.0,fragile:kill,knn:k=3", combine="sum")
    tally = run_grid(grid, out, workers=2, paths=paths)
    assert (tally.done, tally.failed) == (8, 4)
    assert all("x fragile:kill on tiny" in m and "its worker died twice" in m for m in tally.messages)
    runs = read_frames(Results(out), registry_of(paths), ["l2_notarget"]).runs
    assert set(runs.loc[runs.status == "failed", "head"]) == {"fragile:kill"}
    assert set(runs.loc[runs.status == "done", "head"]) == {"ridge:alpha=1.0", "knn:k=3"}


def test_a_pair_that_cannot_run_is_skipped_with_its_reason(paths: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "results"
    grid = Grid(**{**BASE, "emb": "random:4,pca"}, head="ridge:alpha=1.0,nearest_context")
    tally = run_grid(grid, out, paths=paths)
    assert tally.done == 2
    assert tally.skipped > 0
    runs = read_frames(Results(out), registry_of(paths), ["l2_notarget"]).runs
    skipped = runs[runs.status == "skipped"]
    assert len(skipped) == tally.skipped
    reasons = {(r.embedding, r.head): r.reason for r in skipped.itertuples()}
    assert "pca" in reasons["pca", "ridge:alpha=1.0"]
    assert "cells" in reasons["pca", "ridge:alpha=1.0"]
    assert any("needs a context embedding" in why for (_, head), why in reasons.items() if head == "nearest_context")
