"""Pseudobulk of 200,000 cells x 8,000 genes straight from disk, beside scanpy's after it has loaded the file.

Usage: ``python -m bench.pseudobulk [--cells N] [--folder DIR]``. Ours reads, checks and sums in float64 (mean: sums and
counts; moments: sums of squares too); scanpy 1.11.5 aggregates what ``anndata.read_h5ad`` has put into memory. CPU
seconds and wall at one thread (ours reads ahead in a second one), medians of five after a first call, turns alternate.
Peaks are resident sets of processes that do only this. Then: read bandwidth against plain reads of the same file, cold
(after ``posix_fadvise``) and warm, and what compression and zarr cost. The files (some 1 GB) lie in a temporary folder.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench._peer import ONE, Peer, Times, ratio, side_by_side
from bench.import_million import generate, peak_mb

GENES, PERTURBATIONS = 8_000, 1_000
FEW = 50_000  # cells of the files that compare storages


def pseudobulk(path: Path, squares: bool) -> tuple[np.ndarray, ...]:
    """Names of the groups, counts, means of shape (groups, g), and variances or nothing."""
    from embbench.datasets._h5ad import column, length
    from embbench.datasets._matrix import open_matrix
    from embbench.datasets._open import open_anndata
    from embbench.numerics.moments import GroupMoments

    with open_anndata(path) as file:
        group = column(file, "obs", "perturbation", "--perturbation-key")
        matrix = open_matrix(file, None, (length(file, "obs"), length(file, "var")))
        moments = GroupMoments(len(group.levels), matrix.shape[1], squares=squares)
        for start, cells in matrix.chunks():
            moments.add(cells, group.codes[start : start + cells.shape[0]])
    last = (moments.variance(),) if squares else ()
    return np.array(group.levels), moments.count, moments.mean(), *last


def read(path: Path) -> int:
    """Values read in chunks, checked and not used."""
    from embbench.datasets._h5ad import length
    from embbench.datasets._matrix import open_matrix
    from embbench.datasets._open import open_anndata

    with open_anndata(path) as file:
        matrix = open_matrix(file, None, (length(file, "obs"), length(file, "var")))
        return sum(cells.nnz for _, cells in matrix.chunks())


def raw(path: Path) -> None:
    """All bytes of the file into one buffer."""
    buffer = memoryview(bytearray(1 << 23))
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def forget(path: Path) -> None:
    """Ask the kernel to drop the file from its page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rates(path: Path, work: Callable[[Path], object], cold: bool) -> str:
    """``MB/s (CPU s)`` of five turns, the medians."""
    wall, cpu = [], []
    for _ in range(5):
        if cold:
            forget(path)
        began = time.perf_counter(), time.process_time()
        work(path)
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    return f"{path.stat().st_size / 1e6 / statistics.median(wall):,.0f} MB/s ({statistics.median(cpu):.2f} CPU s)"


def peak(*arguments: str) -> float:
    """Peak resident set in MB of a process that does only this."""
    command = [sys.executable, "-m", "bench.pseudobulk", *arguments]
    done = subprocess.run(command, env={**os.environ, **ONE}, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["peak_mb"]


def compare(path: Path) -> None:
    """The table of ours beside scanpy's."""
    print("| what | ours, CPU s (wall; first) | scanpy | ratio | ours, peak MB | scanpy | share |\n" + "|---" * 7 + "|")
    for what, functions in (("mean", ["mean"]), ("moments", ["mean", "var"])):
        with Peer("scanpy", "pseudobulk") as peer:
            nothing: dict[str, np.ndarray] = {}
            loaded = peer.call("load", nothing, path=str(path))[1]
            mine, ours, theirs, scanpy = side_by_side(
                functools.partial(pseudobulk, path, what == "moments"),
                functools.partial(peer.call, "aggregate", nothing, functions=functions),
            )
        check(mine, theirs)
        own = peak("--child", str(path), "--what", what)
        print(
            f"| {what} | {shown(ours)} | {shown(scanpy)} (after loading in {loaded['cpu']:.2f} CPU s) | "
            f"{ratio(ours, scanpy):.2f}x | {own:,.0f} | {scanpy.peak_mb:,.0f} | {own / scanpy.peak_mb:.2f} |",
            flush=True,
        )


def shown(times: Times) -> str:
    """``0.71 (0.90; 1.3)``."""
    return f"{statistics.median(times.cpu):.2f} ({statistics.median(times.wall):.2f}; {times.first:.2f})"


def check(mine: tuple[np.ndarray, ...], theirs: dict[str, np.ndarray]) -> None:
    """Equal groups, means and variances, or no table."""
    order = np.argsort(theirs["names"])
    np.testing.assert_array_equal(mine[0], theirs["names"][order])
    np.testing.assert_allclose(mine[2], theirs["mean"][order], rtol=1e-6, atol=1e-9)
    if len(mine) > 3:
        np.testing.assert_allclose(mine[3], theirs["var"][order], rtol=1e-5, atol=1e-8)


def storages(path: Path, folder: Path) -> None:
    """CPU seconds that reading the first cells takes, by storage."""
    import anndata

    cells = anndata.read_h5ad(path, backed="r")[:FEW].to_memory()
    made: list[tuple[str, Path]] = []
    for name, how in (("h5ad", None), ("h5ad, lzf", "lzf"), ("h5ad, gzip", "gzip")):
        made.append((name, folder / f"{how}.h5ad"))
        cells.write_h5ad(made[-1][1], compression=how)
    for version in (2, 3):
        anndata.settings.zarr_write_format = version
        made.append((f"zarr {version}", folder / f"{version}.zarr"))
        cells.write_zarr(made[-1][1])
    del cells
    print(f"\n| storage of {FEW:,} cells | MB | CPU s | times h5ad |\n|---|---|---|---|")
    first = None
    for name, at in made:
        size = sum(p.stat().st_size for p in at.rglob("*") if p.is_file()) if at.is_dir() else at.stat().st_size
        cpu = []
        for _ in range(6):
            began = time.process_time()
            read(at)
            cpu.append(time.process_time() - began)
        took = statistics.median(cpu[1:])
        first = first or took
        print(f"| {name} | {size / 1e6:,.0f} | {took:.2f} | {took / first:.1f} |", flush=True)


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary folder is made")
    parser.add_argument("--child", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--what", default="mean", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        pseudobulk(args.child, args.what == "moments")
        print(json.dumps({"peak_mb": peak_mb()}))
        return
    os.environ.update(ONE)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "cells.h5ad"
        stored = generate(path, args.cells, GENES, 0.05, PERTURBATIONS, logs=True)
        print(f"{args.cells:,} x {GENES:,}, {stored:,} values, {path.stat().st_size / 2**20:.0f} MiB", end="; ")
        print(f"Python {platform.python_version()}, numpy {np.__version__}, load {os.getloadavg()[0]:.1f}\n")
        compare(path)
        print("\n| read of the whole file | cold | warm |\n|---|---|---|")
        for name, work in (("plain", raw), ("chunks, checked", read), ("moments", lambda at: pseudobulk(at, True))):
            print(f"| {name} | {rates(path, work, cold=True)} | {rates(path, work, cold=False)} |", flush=True)
        storages(path, Path(folder))
        print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
