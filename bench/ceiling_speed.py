"""Seconds for every variant of the ceiling of a fold, and the resampling against a named peer's, side by side.

Usage: ``python bench/ceiling_speed.py [--cells 50000] [--genes 2000] [--perturbations 200] [--batches 4]
[--resamples 10] [--share 0.1]``. Cells are drawn at random and kept in memory. Peers, written anew from what they do: a
data frame of cells, resampled and averaged by group for each resample (pandas ``take`` and ``groupby.mean``; two
resamples, scaled up), and the experimental error of GenBio's foundation-models-perturbation (cells of the inner
resamples gathered, then averaged; perturbed cells of a share of the perturbations, scaled up). Ratios are of CPU
seconds; run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass

import numpy as np

from embbench import registry as registries
from embbench.core import Counts, PerturbationDataset, Truth
from embbench.grid.ceiling import ceilings
from embbench.grid.resample import Resampler
from embbench.grid.score import truth_of

METRICS = (
    *("l2_notarget", "pearson_notarget", "cosine_notarget", "mae_notarget", "r2_effect_all", "pearson_top20"),
    *("rank_l2_by_truth_notarget", "rank_pearson_by_prediction_notarget"),
)


@dataclass(frozen=True)
class Drawn:
    """Cells in memory: ``all_cells`` (m, g), controls first (half A, then half B), batches in turn within a group."""

    all_cells: np.ndarray
    n_controls_half: int
    per_row: int
    n_batches: int

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """Control cells of a half."""
        h = self.n_controls_half
        return self.all_cells[{"A": slice(0, h), "B": slice(h, 2 * h), "all": slice(0, 2 * h)}[half]]

    def perturbed(self, row: int) -> np.ndarray:
        """Cells of a row."""
        start = 2 * self.n_controls_half + row * self.per_row
        return self.all_cells[start : start + self.per_row]

    def n_controls(self, context: int, half: str = "A") -> int:
        """Number of control cells."""
        return len(self.controls(context, half))

    def counts(self, context: int, half: str = "A", index: np.ndarray | None = None) -> Counts:
        """Not needed here."""
        raise NotImplementedError(f"ceiling_speed: counts of context {context} are not drawn")

    def names(self, context: int, half: str = "A") -> np.ndarray:
        """Names of the control cells."""
        return np.arange(self.n_controls(context, half)).astype(str)

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        """Batches of the control cells."""
        return np.arange(self.n_controls(context, half)) % self.n_batches

    def perturbed_batches(self, row: int) -> np.ndarray:
        """Batches of the cells of a row."""
        return np.arange(self.per_row) % self.n_batches


def draw(cells: int, genes: int, perturbations: int, batches: int) -> PerturbationDataset:
    """A screen of Gaussian cells around sparse effects, a tenth of the cells controls."""
    rng = np.random.default_rng(0)
    half, per_row = cells // 20, (cells - 2 * (cells // 20)) // perturbations
    effects = rng.normal(0, 0.3, (perturbations, genes)) * (rng.random((perturbations, genes)) < 0.1)
    values = rng.standard_normal((2 * half + per_row * perturbations, genes), dtype=np.float32)
    values += rng.gamma(1.0, 1.0, genes).astype(np.float32)
    for i in range(perturbations):
        values[2 * half + i * per_row : 2 * half + (i + 1) * per_row] += effects[i].astype(np.float32)
    source = Drawn(values, half, per_row, batches)
    base = {h: source.controls(0, h).mean(axis=0, dtype=np.float64).astype(np.float32) for h in "AB"}
    means = np.stack([source.perturbed(i).mean(axis=0) for i in range(perturbations)])
    return PerturbationDataset(
        name="drawn",
        effects=means - base["A"],
        truth=means - base["B"],
        unit="delta",
        genes=np.array([f"GENE{i}" for i in range(genes)]),
        entities=tuple((f"GENE{i}",) for i in range(perturbations)),
        context=np.full(perturbations, "one"),
        baseline=base["A"][None],
        baseline_truth=base["B"][None],
        cells=source,
        meta={"controls": "halves", "matching": "batch", "digest": "drawn"},
    )


def by_gather(data: PerturbationDataset, rows: np.ndarray, outer: int, inner: int) -> float:
    """CPU seconds of the peer's way: for each batch drawn, all resampled cells are gathered and averaged."""
    started, rng = time.process_time(), np.random.default_rng(0)
    for row in rows.tolist():
        cells, batch = data.cells.perturbed(row), data.cells.perturbed_batches(row)
        parts = [cells[batch == b] for b in np.unique(batch)]
        for _ in range(outer):
            drawn = [parts[b] for b in rng.integers(len(parts), size=len(parts))]
            np.mean([part[rng.integers(len(part), size=(inner, len(part)))].mean(axis=1) for part in drawn], axis=0)
    return time.process_time() - started


def by_groupby(data: PerturbationDataset, resamples: int, run: int = 2) -> float:
    """CPU seconds of a data frame's way: cells drawn with replacement within (row, batch), averaged by group."""
    import pandas as pd

    source, rng = data.cells, np.random.default_rng(0)
    n, h = len(source.all_cells), source.n_controls_half
    row = np.concatenate([np.full(2 * h, -1), np.repeat(np.arange(len(data)), source.per_row)])[:n]
    batch = np.concatenate(
        [source.batches(0, "A"), source.batches(0, "B"), *map(source.perturbed_batches, range(len(data)))]
    )
    frame, key = pd.DataFrame(source.all_cells), row * 1000 + batch
    order = np.argsort(key, kind="stable")
    _, start, size = np.unique(key[order], return_index=True, return_counts=True)
    started = time.process_time()
    for _ in range(run):
        drawn = order[np.repeat(start, size) + (rng.random(n) * np.repeat(size, size)).astype(int)]
        frame.take(drawn).groupby(key[drawn]).mean()
    return (time.process_time() - started) * resamples / run


def ours(data: PerturbationDataset, truth: Truth, outer: int, inner: int) -> float:
    """CPU seconds of the same number of resampled effects (controls and their batches included)."""
    started = time.process_time()
    source = Resampler(data, truth, np.arange(len(data)))
    columns = [("plain", (o, i)) for o in range(outer) for i in range(inner)]
    for start in range(0, len(columns), source.at_once):
        source.deviations(columns[start : start + source.at_once])
    return time.process_time() - started


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, value in {"cells": 50_000, "genes": 2_000, "perturbations": 200, "batches": 4, "resamples": 10}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--share", type=float, default=0.1, help="of the perturbations that the peer is run on")
    args = parser.parse_args()
    data = draw(args.cells, args.genes, args.perturbations, args.batches)
    rows, n = np.arange(len(data)), args.resamples
    truth = truth_of(data, rows, rows)
    metrics = {name: registries.default().parse("metrics", name).make() for name in METRICS}
    some = rows[: max(1, int(args.share * len(rows)))]
    own = ours(data, truth, n, n)
    started, cpu = time.perf_counter(), time.process_time()
    ceilings(data, truth, rows, rows, metrics, outer=n, inner=n)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - data.cells.all_cells.nbytes / 2**20
    started = time.perf_counter()
    ceilings(data, truth, rows, rows, metrics, outer=n, inner=n, variants=("noise_free",))
    alone = time.perf_counter() - started
    print(
        f"{len(data.cells.all_cells):,} cells x {args.genes:,} genes, {len(rows)} perturbations, {args.batches} batches"
    )
    peer = by_gather(data, some, n, n) * len(rows) / len(some)
    frame = by_groupby(data, n * n)
    what = f"{n} x {n} resampled effects"
    print(f"{what}, data frame by group: {frame:8.1f} CPU s, {frame / own:6.1f} x ours")
    print(f"{what}, gather and mean:     {peer:8.1f} CPU s, {peer / own:6.1f} x ours (perturbed cells only)")
    print(f"{what}, ours:                {own:8.1f} CPU s")
    print(
        f"all variants of {len(metrics)} metrics: {wall:.1f} s wall, {cpu:.1f} CPU s, {peak:,.0f} MiB beside the cells"
    )
    print(f"noise_free alone: {alone:.1f} s wall")


if __name__ == "__main__":
    main()
