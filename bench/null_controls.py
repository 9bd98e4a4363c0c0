"""A screen with no effects at all: real control cells cut at random into fake perturbations and controls.

Usage: ``python bench/null_controls.py FILE.h5ad --perturbation-key KEY --control LABEL [--batch-key KEY] [--draws N]``.
Each draw cuts the control cells of every batch into equal parts, ten of which become fake perturbations and one the
controls; the file is imported with control halves and with shared controls, and the mean training effect
(``context_mean``, 5 folds of unseen perturbations) is scored. Without effects the Pearson correlation has to be 0; with
shared controls their noise is part of every effect, of training and test alike, and is "predicted".
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FAKES = 10
METRIC = "pearson_all"


def write_null(source: Path, out: Path, key: str, control: str, batch_key: str | None, seed: int) -> int:
    """Write the control cells with random labels ``fake0`` ... ``fake9`` and ``control``; returns their number."""
    import anndata

    cells = anndata.read_h5ad(source)
    cells = cells[cells.obs[key].astype(str) == control].copy()
    batch = cells.obs[batch_key].astype(str).to_numpy() if batch_key else np.zeros(cells.n_obs)
    rng = np.random.default_rng(seed)
    part = np.empty(cells.n_obs, dtype=np.int64)
    for each in np.unique(batch):
        rows = np.flatnonzero(batch == each)
        part[rows] = rng.permutation(len(rows)) % (FAKES + 1)
    names = np.array([*(f"fake{i}" for i in range(FAKES)), "control"])
    cells.obs = cells.obs[[batch_key]] if batch_key else cells.obs[[]]
    cells.obs["fake"] = names[part]
    cells.write_h5ad(out)
    return cells.n_obs


def train_mean_pearson(path: Path, name: str, controls: str, batch_key: str | None) -> float:
    """Mean over the fake perturbations of the Pearson correlation between the training mean and the held-out effect."""
    import embbench

    options = {"batch_key": batch_key, "controls": controls, "entity_type": "compound", "etest": False, "cells": "none"}
    embbench.import_h5ad(path, name, "fake", "control", **options)
    grid = embbench.Grid(
        dataset=[name], split=["unseen_perturbation"], head=["context_mean"], baselines=False, metrics=[METRIC]
    )
    out = path.parent / name
    embbench.run_grid(grid, out)
    scores = embbench.results(out, [METRIC]).scores
    values = scores.loc[scores["metric"] == METRIC, "value"].to_numpy(dtype=np.float64)
    if len(values) != FAKES or not np.isfinite(values).all():
        raise SystemExit(f"{name}: expected {FAKES} finite scores, found {values.tolist()}")
    return float(values.mean())


def draws(
    source: Path, key: str, control: str, batch_key: str | None, number: int, folder: Path
) -> Iterator[tuple[int, float, float]]:
    """For each random cut: number of cells, the mean Pearson with control halves, the same with shared controls."""
    for seed in range(number):
        path = folder / f"null{seed}.h5ad"
        cells = write_null(source, path, key, control, batch_key, seed)
        halves, shared = (
            train_mean_pearson(path, f"{controls}{seed}", controls, batch_key) for controls in ("halves", "shared")
        )
        path.unlink()
        yield cells, halves, shared


def main() -> None:
    """Cut, import twice, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--perturbation-key", default="perturbation")
    parser.add_argument("--control", default="non-targeting")
    parser.add_argument("--batch-key", default=None)
    parser.add_argument("--draws", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EMBBENCH_HOME"] = str(Path(folder) / "home")
        print(f"{'draw':>4}  {'cells':>6}  {'halves':>7}  {'shared':>7}")
        found = []
        for i, (cells, halves, shared) in enumerate(
            draws(args.file, args.perturbation_key, args.control, args.batch_key, args.draws, Path(folder))
        ):
            print(f"{i:>4}  {cells:>6}  {halves:>+7.3f}  {shared:>+7.3f}", flush=True)
            found.append((halves, shared))
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0, ddof=1 if len(found) > 1 else 0)
    print(f"mean Pearson of the train mean over {len(found)} cuts (standard deviation of one cut):")
    print(f"  control halves   {mean[0]:+.3f} ({spread[0]:.3f})")
    print(f"  shared controls  {mean[1]:+.3f} ({spread[1]:.3f})")


if __name__ == "__main__":
    main()
