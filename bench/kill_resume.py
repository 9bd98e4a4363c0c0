"""Kill a grid with ``kill -9`` at random moments, restart it, and compare the end with an undisturbed run, bit by bit.

Usage: ``python bench/kill_resume.py --kills 50 --workers 2``. Half of the kills hit the whole process group, a quarter
only the parent (its workers must end by themselves), a quarter one worker (the grid must go on and finish). Half of the
moments are random times, half follow the n-th prediction by a few milliseconds. Also compares 1, 2 and 4 workers. Exit
code 1 when anything differs, when a temporary file is left, or when the cache does not verify.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import h5py

REGISTRY = """\
datasets:
  kill_tiny:
    impl: "embbench.datasets.simulator:Simulator"
    params: {n_perturbations: 36, n_genes: 60, n_contexts: 2, rho: 0.9}
"""
GRID = """\
dataset: kill_tiny
split: unseen_perturbation:3
emb: [ppi, reactome]
head: [knn, ridge, "mlp:epochs=3:width=8"]
permutations: {smoother: 1, trained: 1}
metrics: [l2_notarget, pearson_notarget]
"""
ORPHAN_LIMIT = 15.0  # seconds after which a worker without a parent counts as left over


@dataclass
class Place:
    """A grid file, and one results folder and EMBBENCH_HOME for it."""

    folder: Path
    home: Path = field(init=False)
    results: Path = field(init=False)

    def __post_init__(self) -> None:
        self.home, self.results = self.folder / "home", self.folder / "results"
        self.home.mkdir(parents=True)
        (self.folder / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
        (self.folder / "grid.yaml").write_text(GRID, encoding="utf-8")

    def start(self, *verb: str) -> subprocess.Popen[bytes]:
        """``embbench verb`` in a process group of its own; what it prints goes to ``log``."""
        environment = {**os.environ, "EMBBENCH_HOME": str(self.home), "EMBBENCH_REGISTRY": "registry.yaml"}
        command = [sys.executable, "-c", "from embbench.cli.main import main; main()", *verb]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def grid(self, workers: int) -> subprocess.Popen[bytes]:
        """The whole grid, or what is missing of it."""
        return self.start("grid", "grid.yaml", "--workers", str(workers), "--out", "results")

    def tail(self) -> str:
        """The last that was printed."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-800:]

    def predictions(self) -> int:
        """Runs that are there."""
        return len(list(self.results.glob("predictions/*.h5")))


def hashes(place: Place) -> dict[str, str]:
    """Content hash of every artefact of the results and the cache, by path; the leaderboard as it is."""
    out = {}
    for root in (place.results, place.home / "cache"):
        for path in sorted(root.rglob("*.h5")):
            with h5py.File(path, "r") as file:
                out[str(path.relative_to(place.folder))] = str(file.attrs["sha256"])
    for name in ("leaderboard.csv", "by_context.csv", "chosen.csv"):
        out[name] = (place.results / name).read_text(encoding="utf-8")
    return out


def group(pgid: int) -> list[int]:
    """Living processes of a process group."""
    out = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, pgrp = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(pgrp) == pgid and state != "Z":
            out.append(int(entry.name))
    return out


def workers_of(pgid: int) -> list[int]:
    """Pool workers of a grid, without its parent and loky's resource tracker."""
    out = []
    for pid in group(pgid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if pid != pgid and b"popen_loky_posix" in command:
            out.append(pid)
    return out


def wait_gone(pgid: int, limit: float = ORPHAN_LIMIT) -> float | None:
    """Seconds until the last process of a group has ended; None when one outlives the limit."""
    began = time.monotonic()
    while group(pgid):
        if time.monotonic() - began > limit:
            return None
        time.sleep(0.05)
    return time.monotonic() - began


def wait_moment(process: subprocess.Popen[bytes], place: Place, draw: random.Random, seconds: float, runs: int) -> None:
    """Return at a random moment of the run: after a random time, or just after a random further prediction."""
    by_time, limit = draw.random() < 0.5, time.monotonic() + draw.uniform(0.05, seconds)
    wanted = draw.randint(min(place.predictions() + 1, runs), runs)
    while process.poll() is None and (time.monotonic() < limit if by_time else place.predictions() < wanted):
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.05))


@dataclass
class Tally:
    """What the kills did."""

    kills: dict[str, int] = field(default_factory=lambda: {"group": 0, "parent": 0, "worker": 0})
    orphan_seconds: list[float] = field(default_factory=list)
    stages: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def total(self) -> int:
        """Kills so far."""
        return sum(self.kills.values())


def kill_once(place: Place, workers: int, draw: random.Random, seconds: float, runs: int, tally: Tally) -> bool:
    """Start the grid and kill something of it; True when the grid came to its end all the same."""
    process = place.grid(workers)
    wait_moment(process, place, draw, seconds, runs)
    kind = draw.choice(["group", "group", "parent", "worker"])
    victims = workers_of(process.pid) if kind == "worker" else []
    if process.poll() is not None:
        tally.problems += [f"{place.folder}: exit code {process.returncode}"] * (process.returncode != 0)
        return True
    tally.stages.append(place.predictions())
    if victims:
        tally.kills["worker"] += 1
        _signal(draw.choice(victims))
        if process.wait() != 0:
            tally.problems.append(f"{place.folder}: exit code {process.returncode} after one worker was killed")
        return True
    if kind == "parent":
        tally.kills["parent"] += 1
        _signal(process.pid)
        process.wait()
        if draw.random() < 0.5:  # else the next start meets the orphans
            gone = wait_gone(process.pid)
            tally.orphan_seconds += [] if gone is None else [gone]
            tally.problems += [f"{place.folder}: workers outlive their parent by {ORPHAN_LIMIT:g} s"] * (gone is None)
        return False
    tally.kills["group"] += 1
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return False


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def finish(place: Place, workers: int, expected: dict[str, str], tally: Tally) -> None:
    """Run the grid to its end and compare everything with the undisturbed run."""
    time.sleep(1.5)  # orphans of the last kill end within a second; what they leave is swept by the last start
    process = place.grid(workers)
    if process.wait() != 0:
        tally.problems.append(f"{place.folder}: exit code {process.returncode} at the end: {place.tail()}")
    compare(place, expected, tally)


def compare(place: Place, expected: dict[str, str], tally: Tally) -> None:
    found = hashes(place)
    odd = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    left = [str(p.relative_to(place.folder)) for p in place.folder.rglob("*") if p.suffix in (".tmp", ".damaged")]
    if odd:
        tally.problems.append(f"{place.folder}: {len(odd)} artefacts differ, e.g. {odd[:3]}")
    if left:
        tally.problems.append(f"{place.folder}: files left behind: {left[:3]}")
    if place.start("cache", "verify").wait() != 0:
        tally.problems.append(f"{place.folder}: embbench cache verify failed: {place.tail()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the kinds and moments of the kills")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: a temporary folder")
    asked = parser.parse_args()
    root = asked.folder or Path(tempfile.mkdtemp(prefix="kill_resume_"))
    draw, tally, began = random.Random(asked.seed), Tally(), time.monotonic()
    calm = Place(root / "undisturbed")
    if calm.grid(asked.workers).wait() != 0:
        print(f"the undisturbed run failed: {calm.tail()}")
        return 1
    seconds, runs, expected = time.monotonic() - began, calm.predictions(), hashes(calm)
    print(
        f"undisturbed: {runs} runs, {len(expected)} artefacts, {seconds:.0f} s with {asked.workers} workers", flush=True
    )
    for workers in sorted({1, 4} - {asked.workers}):
        place = Place(root / f"workers{workers}")
        if place.grid(workers).wait() != 0:
            tally.problems.append(f"{workers} workers: {place.tail()}")
        compare(place, expected, tally)
        print(f"{workers} workers: compared, {len(tally.problems)} problems so far", flush=True)
    grids = 0
    while tally.total() < asked.kills:
        place, grids = Place(root / f"grid{grids:02d}"), grids + 1
        ended = False
        while not ended and tally.total() < asked.kills:
            ended = kill_once(place, asked.workers, draw, seconds, runs, tally)
        finish(place, asked.workers, expected, tally)
        print(f"grid {grids}: {tally.kills}, {len(tally.problems)} problems", flush=True)
    print(f"{tally.total()} kills {tally.kills} over {grids} grids of {runs} runs, {time.monotonic() - began:.0f} s")
    print(f"predictions there at the kill: {sorted(tally.stages)}")
    if tally.orphan_seconds:
        middle, most = statistics.median(tally.orphan_seconds), max(tally.orphan_seconds)
        print(f"workers without a parent ended after {middle:.1f} s (median), {most:.1f} s (longest)")
    for problem in tally.problems:
        print(f"PROBLEM {problem}")
    print("bit-identical, nothing left, cache verified" if not tally.problems else f"{len(tally.problems)} problems")
    return bool(tally.problems)


if __name__ == "__main__":
    raise SystemExit(main())
