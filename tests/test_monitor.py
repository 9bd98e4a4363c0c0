"""Long fits in a grid: their state survives a kill and changes no number, and their progress is told."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _grid import write_registry

from embbench.cli import _shared
from embbench.core import HeadDefaults, Run, Silent, UserError
from embbench.grid import monitor as monitors
from embbench.grid.config import Grid
from embbench.grid.fit import job_of, predict
from embbench.grid.honesty import audit
from embbench.grid.monitor import FitMonitor, Watcher, in_flight, seconds, tidy
from embbench.grid.names import registry_of
from embbench.grid.plan import Planned, plan
from embbench.grid.results import Results
from embbench.grid.schedule import run_grid
from embbench.grid.screens import screen

HERE = Path(__file__).resolve().parent
COMPONENTS = str(HERE / "components" / "registry.yaml")
TINY = {"n_perturbations": 24, "n_genes": 30, "n_contexts": 2, "level": "condition"}
AXES = {
    "dataset": "tiny",
    "split": "unseen_perturbation:2",
    "head": "counter",
    "emb": "random:4,random:3",
    "baselines": False,
    "permutations": {},
    "metrics": ["l2_all"],
}
ONE = Run("tiny", "unseen_perturbation:2", "fold0", "counter", embedding="random:4")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    datasets = {"tiny": {"impl": "embbench.datasets.simulator:Simulator", "params": TINY}}
    return (*write_registry(tmp_path_factory.mktemp("monitor"), datasets=datasets), COMPONENTS)


def fit_monitor(folder: Path, *, name: str = "key-all-stage", every: float = 0.0, lines: list[str] | None = None):
    return FitMonitor(folder, lambda: name, None if lines is None else lines.append, every)


def values(results: Results, planned: list[Planned], paths: tuple[str, ...]) -> dict[str, np.ndarray]:
    data = screen("tiny", "all", paths)
    return {p.key: results.prediction(p.key, data).values for p in planned}


# ---------------------------------------------------------------------------------------------------- one monitor


def test_a_state_comes_back_to_the_same_fit_only(tmp_path: Path) -> None:
    one = fit_monitor(tmp_path)
    assert one.load() is None
    assert not list(tmp_path.iterdir())
    for state in (b"", b"first\nline", bytes(range(256))):
        one.save(state)
        assert fit_monitor(tmp_path).load() == state
    (path,) = tmp_path.iterdir()
    assert path.name == "key-all-stage.state"
    path.rename(tmp_path / "key-all-other.state")
    with pytest.warns(UserWarning, match=r"key-all-other.state: a torn or foreign checkpoint is ignored"):
        assert fit_monitor(tmp_path, name="key-all-other").load() is None


@pytest.mark.filterwarnings("ignore:.*torn or foreign")
def test_every_torn_or_flipped_state_is_ignored(tmp_path: Path) -> None:
    one = fit_monitor(tmp_path)
    one.save(b"state of a fit")
    body = one.path.read_bytes()
    for cut in range(len(body)):
        one.path.write_bytes(body[:cut])
        assert fit_monitor(tmp_path).load() is None
        one.path.write_bytes(body[:cut] + bytes([body[cut] ^ 1]) + body[cut + 1 :])
        assert fit_monitor(tmp_path).load() is None
    one.path.write_bytes(body)
    assert fit_monitor(tmp_path).load() == b"state of a fit"


def test_due_by_wall_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(monitors.time, "monotonic", lambda: now[0])
    one = fit_monitor(tmp_path, every=30)
    assert not one.due()
    now[0] += 30
    assert one.due()
    one.save(b"x")
    assert not one.due()
    one.every = 0
    assert one.due()
    assert not fit_monitor(tmp_path, every=float("inf")).due()


def test_reports_come_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [5.0], []
    monkeypatch.setattr(monitors.time, "monotonic", lambda: now[0])
    one = fit_monitor(tmp_path, lines=lines)
    for step in range(30):
        one.report("training", step, 30, "held-out 0.83" if step else "")
        now[0] += 0.25
    assert lines[:2] == ["training 0 of 30", "training 4 of 30, held-out 0.83"]
    assert len(lines) == 8
    fit_monitor(tmp_path).report("training", 1, 2)  # nobody listens


def test_a_copied_or_pickled_monitor_is_silent(tmp_path: Path) -> None:
    one = fit_monitor(tmp_path)
    assert isinstance(pickle.loads(pickle.dumps(one)), Silent)
    assert isinstance(copy.deepcopy({"monitor": one})["monitor"], Silent)


def test_a_disk_that_takes_no_state_stops_no_fit(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one = fit_monitor(tmp_path / "file")
    with pytest.warns(UserWarning, match="no checkpoint could be written, a killed fit will start anew"):
        one.save(b"x")
    assert one.load() is None


@pytest.mark.parametrize(("text", "found"), [("", 30.0), ("0", 0.0), ("2.5", 2.5), ("inf", float("inf"))])
def test_the_environment_sets_the_seconds(monkeypatch: pytest.MonkeyPatch, text: str, found: float) -> None:
    monkeypatch.setenv("EMBBENCH_CHECKPOINT_SECONDS", text)
    assert seconds() == found


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_bad_seconds_are_told_before_anything_runs(
    paths: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("EMBBENCH_CHECKPOINT_SECONDS", text)
    with pytest.raises(UserError, match=f"EMBBENCH_CHECKPOINT_SECONDS='{text}': expected seconds"):
        run_grid(Grid(**AXES), tmp_path / "out", paths=paths)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------- in a grid


def test_a_killed_worker_goes_on_to_the_same_bits(
    paths: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, lines = Grid(**AXES), []
    calm = run_grid(grid, tmp_path / "calm", paths=paths)
    planned = plan(grid, paths)
    assert (calm.done, calm.failed) == (4, 0)
    monkeypatch.setenv("EMBBENCH_CHECKPOINT_SECONDS", "0")
    monkeypatch.setenv("COUNTER_DIES", str(tmp_path / "die"))
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    (tmp_path / "die").touch()
    hurt = run_grid(grid, tmp_path / "hurt", workers=2, paths=paths, watch=lines.extend)
    assert (hurt.done, hurt.failed) == (4, 0)
    assert not (tmp_path / "die").exists()
    first, second = (values(Results(tmp_path / name), planned, paths) for name in ("calm", "hurt"))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not (tmp_path / "hurt" / "checkpoints").exists()


KILLED = """
import sys
from embbench.grid.config import Grid
from embbench.grid.schedule import run_grid
import json
run_grid(Grid(**json.loads(sys.argv[1])), sys.argv[2], paths=tuple(sys.argv[3:]))
"""


def test_a_killed_process_goes_on_to_the_same_bits(paths: tuple[str, ...], tmp_path: Path) -> None:
    axes = {**AXES, "emb": "random:4"}
    grid, out = Grid(**axes), tmp_path / "hurt"
    run_grid(grid, tmp_path / "calm", paths=paths)
    environment = {**os.environ, "EMBBENCH_CHECKPOINT_SECONDS": "0", "PYTHONPATH": str(HERE)}
    environment["COUNTER_DIES"] = str(tmp_path / "die")
    (tmp_path / "die").touch()
    command = [sys.executable, "-c", KILLED, json.dumps(axes), str(out), *paths]
    assert subprocess.run(command, env=environment, check=False).returncode == 9
    (state,) = (out / "checkpoints").glob("*.state")
    assert b"[5, " in state.read_bytes()
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    planned = plan(grid, paths)
    first, second = (values(Results(p), planned, paths) for p in (tmp_path / "calm", out))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not (out / "checkpoints").exists()


def resumed_at(paths: tuple[str, ...], out: Path, **changed: object) -> int:
    """The step at which the head took over a state left behind by a fit that was stopped."""
    from components.counter import Counter

    found, fit = [], Counter.fit

    def noted(self, *args):
        out = fit(self, *args)
        found.append(self.resumed_)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Counter, "fit", noted)
        patch.setenv("EMBBENCH_CHECKPOINT_SECONDS", "0")
        job = job_of(Run(**{**ONE.coordinates(), **changed}), paths)
        predict(job, Watcher(out, "key", job.run))
    return found[0]


def test_a_state_is_of_one_fit(paths: tuple[str, ...], tmp_path: Path) -> None:
    """The key is the same here by force; still no fit takes the state of another one."""
    assert resumed_at(paths, tmp_path) == 0
    assert resumed_at(paths, tmp_path) == 10  # the last state that was saved
    assert resumed_at(paths, tmp_path, fold="fold1") == 0
    assert resumed_at(paths, tmp_path, head="counter:8") == 0
    assert resumed_at(paths, tmp_path, embedding="random:3") == 0
    assert len(list((tmp_path / "checkpoints").glob("key-all-*.state"))) == 4


def test_the_audit_and_the_finished_head_know_no_monitor(paths: tuple[str, ...], tmp_path: Path) -> None:
    from components.counter import Counter

    seen, fit = [], Counter.fit

    def noted(self, *args):
        seen.append(self)
        return fit(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Counter, "fit", noted)
        patch.setenv("EMBBENCH_CHECKPOINT_SECONDS", "0")
        job = job_of(ONE, paths)
        made = predict(job, Watcher(tmp_path, "key", job.run))
        before = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
        assert audit(job, made, np.flatnonzero(~np.isin(np.arange(len(job.data)), job.train))) == ""
    assert len(seen) == 2
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == before
    assert all("monitor" not in vars(head) and head.monitor is HeadDefaults.monitor for head in seen)
    assert pickle.loads(pickle.dumps(seen[0])).resumed_ == 0


def test_a_failed_run_drops_the_state_it_went_on_from(paths: tuple[str, ...], tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, "key", ONE)
    for label in ("all", "other context"):
        watcher(label, lambda: "stage").save(b"poison")
    again = Watcher(tmp_path, "key", ONE)
    assert again("all", lambda: "stage").load() == b"poison"
    again("other context", lambda: "stage")
    again.close(done=False)
    (left,) = (tmp_path / "checkpoints").iterdir()
    assert left.name.startswith("key-other_context-")
    Watcher(tmp_path, "key", ONE).close(done=True)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_states_of_old_code_are_tidied_away(paths: tuple[str, ...], tmp_path: Path) -> None:
    run_grid(Grid(**AXES), tmp_path, paths=paths)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("0123456789abcdef-all-x.state", "0123456789abcdef.progress"):
        (folder / name).write_text("old")
    run_grid(Grid(**AXES), tmp_path, paths=paths)
    assert not folder.exists()
    folder.mkdir()
    (folder / "kept-all-x.state").write_text("open")
    tidy(tmp_path, lambda key: key == "kept")
    assert [p.name for p in folder.iterdir()] == ["kept-all-x.state"]


# -------------------------------------------------------------------------------------------------------- progress


def test_progress_of_one_worker_is_told_at_once(
    paths: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(monitors, "PAUSE", 0.0)
    run_grid(Grid(**{**AXES, "emb": "random:4"}), tmp_path, paths=paths, watch=told.append)
    assert told[9][0].startswith("counter x random:4 fold0: training 10 of 10, value ")
    assert told[10] == []  # the run is over
    assert len(told) == 22
    assert not (tmp_path / "checkpoints").exists()


def test_progress_of_workers_comes_through_files(tmp_path: Path) -> None:
    first, second = (Watcher(tmp_path, key, ONE, watched=True) for key in ("aa", "bb"))
    assert in_flight(tmp_path, ["aa", "bb"]) == []
    first("all", lambda: "s").report("training", 4, 10, "held-out 0.83")
    second("K562", lambda: "s").report("sampling", 1, 3)
    lines = [
        "counter x random:4 fold0: training 4 of 10, held-out 0.83",
        "counter x random:4 fold0 K562: sampling 1 of 3",
    ]
    assert in_flight(tmp_path, ["aa", "bb", "cc"]) == lines
    assert in_flight(tmp_path, ["bb"]) == lines[1:]
    first.close(done=False)
    assert in_flight(tmp_path, ["aa", "bb"]) == lines[1:]
    Watcher(tmp_path, "cc", ONE)("all", lambda: "s").report("training", 1, 2)  # nobody watches: no file
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["bb.progress"]


SLOW = '''
import time

from components.counter import Counter


class Slow(Counter):
    """Takes a second and a half."""

    def fit(self, inputs, Y, observed=None):
        for step in range(15):
            self.monitor.report("training", step, 15)
            time.sleep(0.1)
        return super().fit(inputs, Y, observed)
'''


def test_a_parent_sees_what_its_workers_do(
    paths: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_heads.py").write_text(SLOW)
    extra = write_registry(tmp_path, heads={"slow": {"impl": "slow_heads:Slow"}})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(HERE)]))
    told = []
    tally = run_grid(
        Grid(**{**AXES, "head": "slow"}), tmp_path / "out", workers=2, paths=(*paths, *extra), watch=told.append
    )
    assert (tally.done, tally.failed) == (4, 0)
    assert any(line.startswith("slow x random:") and "training" in line for lines in told for line in lines)
    registry_of.cache_clear()


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(_shared.time, "monotonic", lambda: now[0])
    with _shared.progress_bar("runs") as (update, watch):
        update(None, 0, 4)
        for second in range(150):
            now[0] = float(second)
            watch([f"counter fold0: training {second} of 150"])
        watch([])
    said = capsys.readouterr().err.splitlines()
    assert said == ["counter fold0: training 60 of 150", "counter fold0: training 120 of 150"]
