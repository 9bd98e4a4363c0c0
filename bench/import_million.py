"""Import a generated 1,000,000-cell x 8,000-gene CSR `.h5ad` and report peak memory and time.

Usage: ``python -m bench.import_million [--cells N] [--genes N] [--density F] [--perturbations N] [--folder DIR]``.
The file and the import lie in a temporary folder (some 10 GB at full size) and are removed at the end. The import runs
in a process of its own, whose peak resident set is the figure that counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BATCHES = 4
CHUNK = 10_000


def generate(path: Path, cells: int, genes: int, density: float, perturbations: int, *, logs: bool = False) -> int:
    """Write counts, or ``log1p`` of them, chunk by chunk; returns the number of stored values.

    Gene indices of a cell are the sums of steps 1, 2, ... drawn uniformly, so rows are sorted; counts are geometric.
    """
    import anndata
    import h5py
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(0)
    names = np.array(["control", *(f"P{i}" for i in range(perturbations))], dtype=object)
    code = np.where(rng.random(cells) < 0.1, 0, rng.integers(1, perturbations + 1, cells))
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical.from_codes(code, names.tolist()),
            "batch": pd.Categorical.from_codes(rng.integers(0, BATCHES, cells), [f"b{i}" for i in range(BATCHES)]),
        },
        index=pd.RangeIndex(cells).astype(str),
    )
    var = pd.DataFrame(index=[f"G{i}" for i in range(genes)])
    anndata.AnnData(sparse.csr_matrix((cells, genes), dtype=np.float32), obs=obs, var=var).write_h5ad(path)
    steps, indptr = round(2 / density) - 1, [np.zeros(1, dtype=np.int64)]
    with h5py.File(path, "a") as file:
        group = file["X"]
        for name in ("data", "indices", "indptr"):
            del group[name]
        for name, kind in (("data", np.float32), ("indices", np.int32)):
            group.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(1 << 16,), dtype=kind)
        for start in range(0, cells, CHUNK):
            m = min(CHUNK, cells - start)
            walk = np.cumsum(rng.integers(1, steps + 1, (m, int(1.3 * genes * density)), dtype=np.int32), axis=1) - 1
            inside = walk < genes
            counts = rng.geometric(0.5, int(inside.sum())).astype(np.float32)
            counts = np.log1p(counts) if logs else counts
            for name, values in (("indices", walk[inside]), ("data", counts)):
                stored = group[name]
                stored.resize((len(stored) + len(values),))
                stored[len(stored) - len(values) :] = values
            indptr.append(indptr[-1][-1] + np.cumsum(inside.sum(axis=1)))
        group.create_dataset("indptr", data=np.concatenate(indptr))
        return len(group["data"])


def peak_mb() -> float:
    """Peak resident set of this process; ``ru_maxrss`` alone would count what the process that started it held."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(path: Path) -> None:
    """Import once and print the figures as JSON."""
    from embbench.datasets._import import import_h5ad

    stages: dict[str, float] = {}
    began = time.perf_counter()

    def progress(stage: str, done: int, total: int) -> None:
        stages[stage] = round(time.perf_counter() - began, 1)

    data = import_h5ad(path, "million", "perturbation", "control", batch_key="batch", progress=progress)
    peak = peak_mb() * 2**20
    facts = {"wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(time.process_time(), 1)}
    facts |= {"peak_rss_gb": round(peak / 1e9, 3), "conditions": len(data), "stage_end_s": stages}
    print(json.dumps({**facts, "digest": data.meta["digest"]}))


def main() -> None:
    """Generate, import in a child process, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--genes", type=int, default=8_000)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--perturbations", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary folder is made")
    parser.add_argument("--child", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "million.h5ad"
        began = time.perf_counter()
        stored = generate(path, args.cells, args.genes, args.density, args.perturbations)
        size, spent = path.stat().st_size / 1e9, time.perf_counter() - began
        print(f"{args.cells:,} x {args.genes:,}, {stored:,} values, {size:.2f} GB, made in {spent:.0f} s")
        env = {**os.environ, "EMBBENCH_HOME": str(Path(folder) / "home")}
        done = subprocess.run(
            [sys.executable, __file__, "--child", str(path)], env=env, check=True, capture_output=True, text=True
        )
        print(done.stdout.strip())


if __name__ == "__main__":
    main()
