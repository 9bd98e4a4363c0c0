"""What a grid costs beyond its arithmetic: CPU seconds and peak memory per cell, workers and size of the grid.

Usage: ``python -m bench.scaling [--workers 1,2,4] [--cells 100,1000,10000] [--folder DIR] [--profile]``. A cell is one
run: one embedding (or a permutation of it) under one head on one fold. The grids are of tiny runs (60 perturbations by
80 genes, kNN and ridge with fixed parameters, two metrics), so that nearly all of what is measured is overhead:
planning, looking vectors up, writing and sealing two files a run, reading back, scheduling. Each line of the table is
a fresh process that has done a small grid before (imports, screen). CPU is that of the process and its children.
Arithmetic is the CPU that the runs say they spent on fitting and predicting, without the dearest three runs of each
worker (the first ones import libraries); scores count as overhead. What workers need to start (imports) is measured
with a grid of twenty runs and told apart. One thread each. Linux only: memory is read in /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

REGISTRY = """\
datasets:
  tiny_scale:
    impl: "embbench.datasets.simulator:Simulator"
    params: {n_perturbations: 60, n_genes: 80, n_contexts: 1}
"""
DRAWS = 100  # embeddings of a large grid: one and its permutations; more cells take more seeds
PER_DRAW = 10  # two heads, five folds


def grid_of(cells: int) -> Any:
    """About ``cells`` tiny runs."""
    from embbench.grid.config import Grid

    draws = max(1, min(DRAWS, cells // PER_DRAW))
    return Grid(
        dataset="tiny_scale",
        split="unseen_perturbation:5",
        emb="hallmark:8",
        head="knn:k=5,ridge:alpha=1",
        features="pca:5",
        baselines=False,
        permutations={"smoother": draws - 1, "trained": 0},
        seed=list(range(max(1, cells // (PER_DRAW * draws)))),
        metrics="l2_notarget,pearson_notarget",
    )


def cpu() -> tuple[float, float]:
    """CPU seconds of this process and of its children that have ended."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, others.ru_utime + others.ru_stime


class Peak(threading.Thread):
    """The largest resident set of any child of this process, in MB, looked at twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.ended = 0.0, threading.Event()

    def run(self) -> None:
        """Look until ``ended``."""
        while not self.ended.wait(0.5):
            for task in Path("/proc/self/task").iterdir():
                for pid in (task / "children").read_text(encoding="utf-8").split():
                    with contextlib.suppress(OSError, StopIteration):
                        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
                        self.most = max(self.most, next(int(s.split()[1]) for s in status if "VmHWM" in s) / 1024)


def measure(workers: int, cells: int, folder: Path, *, profile: bool) -> dict[str, float]:
    """One grid in this process and its workers."""
    from embbench.grid.results import Results
    from embbench.grid.schedule import run_grid

    paths = (str(folder / "registry.yaml"),)
    run_grid(grid_of(PER_DRAW), folder / "warm", paths=paths)
    own, others = cpu()
    peak = Peak()
    peak.start()
    began, clock = time.perf_counter(), None
    if profile:
        import cProfile

        clock = cProfile.Profile(time.process_time)
        clock.enable()
    tally = run_grid(grid_of(cells), folder / "out", workers=workers, paths=paths)
    if clock is not None:
        import pstats

        clock.disable()
        pstats.Stats(clock, stream=sys.stderr).sort_stats("cumulative").print_stats("embbench/", 45)
    wall = time.perf_counter() - began
    peak.ended.set()
    own, others = cpu()[0] - own, cpu()[1] - others
    results = Results(folder / "out")
    spent = [results.facts(path.stem)["cpu_seconds"] for path in (folder / "out" / "predictions").glob("*.h5")]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out = {"cells": tally.done, "failed": tally.failed, "wall": wall, "own": own, "others": others}
    usual = sorted(spent)[: max(1, len(spent) - 3 * workers)]
    return out | {
        "arithmetic": len(spent) * sum(usual) / len(usual),
        "rss": rss,
        "rss_worker": rss if workers == 1 else peak.most,
    }


def fresh(workers: int, cells: int, folder: Path, *, profile: bool = False) -> dict[str, float]:
    """`measure` in a process of its own."""
    place = Path(tempfile.mkdtemp(prefix="scaling_", dir=folder))
    (place / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "bench.scaling", "--one", f"{workers},{cells}", "--folder", str(place)]
    command += ["--profile"] if profile else []
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **threads, "EMBBENCH_HOME": str(place / "home")},
            stdout=-1,
            text=True,
            check=True,
        )
    finally:
        shutil.rmtree(place)
    return json.loads(done.stdout.splitlines()[-1])


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4])
    parser.add_argument("--cells", type=numbers, default=[100, 1000, 10_000])
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: a temporary folder")
    parser.add_argument("--profile", action="store_true", help="also print the functions that take most (one worker)")
    parser.add_argument("--one", type=numbers, default=None, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(*asked.one, asked.folder, profile=asked.profile)))
        return 0
    from embbench.cache.store import versions

    root = Path(tempfile.mkdtemp(prefix="scaling_", dir=asked.folder))
    print(f"{versions()}, load {os.getloadavg()}")
    print(
        "| workers | cells | wall s | CPU ms/cell | start of workers, CPU s | arithmetic ms/cell | overhead ms/cell | ",
        end="",
    )
    print("peak MB of a worker | peak MB of the parent |")
    print("|---|---|---|---|---|---|---|---|---|")
    bad = 0
    for workers in asked.workers:
        start = 0.0 if workers == 1 else fresh(workers, PER_DRAW * 2, root)["others"]
        for cells in asked.cells:
            found = fresh(workers, cells, root, profile=asked.profile and workers == 1)
            total, n = found["own"] + found["others"], found["cells"]
            over = 1000 * (total - start - found["arithmetic"]) / n
            bad += found["failed"] > 0
            print(
                f"| {workers} | {n} | {found['wall']:.0f} | {1000 * total / n:.1f} | {start:.1f} | "
                f"{1000 * found['arithmetic'] / n:.1f} | {over:.1f} | {found['rss_worker']:.0f} | {found['rss']:.0f} |",
                flush=True,
            )
    shutil.rmtree(root)
    print(f"load {os.getloadavg()}")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
