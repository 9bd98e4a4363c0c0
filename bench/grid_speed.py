"""A whole grid from the command line: 30 embeddings x (kNN, ridge) x 4 contexts x 5 folds, six metrics.

``python -m bench.grid_speed [--perturbations 2000] [--genes 6640] [--workers 2] [--folder FOLDER]`` writes a simulated
screen (every perturbation in each of four contexts, so rows = 4 x perturbations) and ten embeddings each of 128, 512
and 1,536 dimensions to a scratch folder, and runs ``embbench grid`` on it: features (standardise, PCA 100) refitted in
every inner fold, metrics l2, mse, mae, cosine, pearson and spearman, no permutations, no baselines. It tells wall and
CPU seconds of the command with its workers, and the largest resident memory of one process and of all together.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from bench._peer import ONE

DIMS, EACH, CONTEXTS = (128, 512, 1536), 10, ("A549", "HepG2", "Jurkat", "K562")
METRICS = "l2_all,mse_all,mae_all,cosine_all,pearson_all,spearman_all"
REGISTRY = """datasets:
  speed: {{impl: "embbench.datasets.table:ConditionTable", params: {{path: {folder}/screen.h5ad, unit: delta,
    context_key: cell_line, entity_type: gene, names: keep, default_split: unseen_perturbation}}}}
"""


def write_screen(folder: Path, perturbations: int, genes: int, factors: int = 30) -> np.ndarray:
    """A screen in which effects follow latent factors, half of the variance shared by contexts; returns the factors."""
    import anndata
    import pandas as pd

    rng = np.random.default_rng(0)
    latent = rng.normal(size=(perturbations, factors))
    names, blocks = [f"P{i:05d}" for i in range(perturbations)], []
    shared = rng.normal(size=(factors, genes))
    for _ in CONTEXTS:
        loadings = (shared + rng.normal(size=(factors, genes))) * 0.03
        blocks.append((latent @ loadings + 0.1 * rng.normal(size=(perturbations, genes))).astype(np.float32))
    obs = {"perturbation": names * len(CONTEXTS), "cell_line": np.repeat(CONTEXTS, perturbations)}
    index = [f"row{i}" for i in range(perturbations * len(CONTEXTS))]
    var = pd.DataFrame(index=[f"X{i:05d}" for i in range(genes)])
    anndata.AnnData(np.vstack(blocks), pd.DataFrame(obs, index=index), var).write_h5ad(folder / "screen.h5ad")
    for dim in DIMS:
        for number in range(EACH):
            rng = np.random.default_rng([dim, number])
            noise = (1 + number) * rng.normal(size=(perturbations, dim))
            matrix = latent @ rng.normal(size=(factors, dim)) + noise
            np.savez(folder / f"e{dim}_{number}.npz", names=np.array(names), matrix=matrix.astype(np.float32))
    return latent


class Watch(threading.Thread):
    """Largest resident memory of a process and its children, in MB, looked at every 0.2 s."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.largest, self.together, self.ended = pid, 0.0, 0.0, False

    def run(self) -> None:
        """Look until told that it has ended."""
        while not self.ended:
            sizes = [resident(pid) for pid in (self.pid, *children(self.pid))]
            self.largest, self.together = max(self.largest, *sizes), max(self.together, sum(sizes))
            time.sleep(0.2)


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    try:
        own = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return own + [below for child in own for below in children(child)]


def resident(pid: int) -> float:
    """Resident memory in MB that is not a mapped file."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) / 1024


def main() -> None:
    """Write, run, tell."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--perturbations", type=int, default=2000)
    asked.add_argument("--genes", type=int, default=6640)
    asked.add_argument("--workers", type=int, default=2)
    asked.add_argument("--embeddings", type=int, default=EACH, help="of each width")
    asked.add_argument("--folder", type=Path, default=None)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "screen.h5ad").exists():
            write_screen(folder, given.perturbations, given.genes)
        (folder / "registry.yaml").write_text(REGISTRY.format(folder=folder))
        specs = [f"table:{folder}/e{dim}_{i}.npz" for dim in DIMS for i in range(given.embeddings)]
        command = [sys.executable, "-c", "from embbench.cli.main import main; main()", "grid", "--dataset", "speed"]
        command += ["--registry", str(folder / "registry.yaml"), "--emb", ",".join(specs), "--head", "knn,ridge"]
        command += ["--metrics", METRICS, "--permutations", "0", "--no-baselines", "--workers", str(given.workers)]
        command += ["--out", str(folder / "results")]
        environment = {**os.environ, **ONE, "EMBBENCH_HOME": str(folder / "home")}
        began, before = time.perf_counter(), os.times()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        watch = Watch(process.pid)
        watch.start()
        code = process.wait()
        watch.ended = True
        wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    runs = len(specs) * 2 * 5
    print(f"load {os.getloadavg()[0]:.1f}, exit code {code}, {runs} runs ({runs * len(CONTEXTS)} with contexts)")
    print("| rows x genes | embeddings | workers | wall, s | CPU, s | CPU a run, s | largest process | together |")
    print("|---|---|---|---|---|---|---|---|")
    size = f"{given.perturbations} x {len(CONTEXTS)} x {given.genes}"
    memory = f"{watch.largest:.0f} MB | {watch.together:.0f} MB"
    print(f"| {size} | {len(specs)} | {given.workers} | {wall:.0f} | {cpu:.0f} | {cpu / runs:.2f} | {memory} |")


if __name__ == "__main__":
    main()
