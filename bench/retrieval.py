"""Rank metrics against cell-eval 0.8.2: the same scores, CPU seconds of both, and the time at 2,000 perturbations.

``python -m bench.retrieval`` runs cell-eval's own ``discrimination_score`` (target gene left out) on 400 perturbations
x 5,000 genes in its environment (``make .oracles/cell_eval/.ready``) and the registered ``discrimination_*_notarget``
metrics, checks and masks included, on the same float32 values; cell-eval gets them as float64, the type of its
pseudobulks. Two predictions: true effects with three times (the true condition is always nearest) and with thirty
times as much noise (it often is not, and distances lie close together).
"""

from __future__ import annotations

import os
import platform
import time
from functools import partial

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np

from bench._peer import Peer, ratio, side_by_side
from embbench.core import Truth
from embbench.registry import default

DISTANCES = ("l2", "cosine", "l1")
ASKED = {"l2": 60, "cosine": 60, "l1": 5}


def example(n: int, g: int, noise: float, seed: int = 0) -> tuple[np.ndarray, Truth]:
    """Standard normal effects, predictions with ``noise`` times as much error, and a gene of its own for each row."""
    rng = np.random.default_rng(seed)
    effects = rng.standard_normal((n, g), dtype=np.float32)
    pred = effects + np.float32(noise) * rng.standard_normal((n, g), dtype=np.float32)
    targets = tuple(np.array([column]) for column in rng.choice(g, n, replace=False))
    return pred, Truth(effects, "delta", np.zeros(n, dtype=np.int64), targets)


def against_cell_eval(peer: Peer, noise: float, repeats: int = 5) -> list[str]:
    """A table row for each distance; ends the script when a score differs."""
    pred, truth = example(400, 5000, noise)
    own = np.concatenate(truth.targets)
    given = {"real": truth.effects.astype(np.float64), "pred": pred.astype(np.float64), "target": own}
    rows = []
    for distance in DISTANCES:
        metric = default().parse("metrics", f"discrimination_{distance}_cell_eval_notarget").make()
        found, ours, theirs, their = side_by_side(
            partial(metric, pred, truth), partial(peer.call, "discrimination_score", given, distance=distance), repeats
        )
        apart = int((found != theirs["score"]).sum())
        if apart:
            raise SystemExit(f"{distance}, noise {noise}: {apart} of {len(found)} scores differ from cell-eval's")
        told = f"| {distance} | {noise:g} | {found.mean():.3f} | {their} | {ours} | **{ratio(ours, their):.0f}x** |"
        rows.append(f"{told} {ASKED[distance]}x | all {len(found)} |")
        print(rows[-1], flush=True)
    return rows


def large(n: int = 2000, g: int = 8000) -> None:
    """CPU and wall seconds of one call each."""
    print(f"\n| {n} x {g}, noise 30 | CPU s | wall s |\n|---|---|---|")
    pred, truth = example(n, g, 30.0)
    for distance in DISTANCES:
        metric = default().parse("metrics", f"discrimination_{distance}_cell_eval_notarget").make()
        cpu, wall = time.process_time(), time.perf_counter()
        metric(pred, truth)
        print(f"| {distance} | {time.process_time() - cpu:.2f} | {time.perf_counter() - wall:.2f} |", flush=True)


def main() -> None:
    """Print the tables."""
    with Peer("cell_eval", "retrieval") as peer:
        versions = f"numpy {np.__version__}, Python {platform.python_version()}, cell-eval 0.8.2"
        load = " ".join(f"{x:.1f}" for x in os.getloadavg())
        print(f"{versions}; load {load}; cell-eval imports in {peer.imports['cpu']:.1f} CPU s\n")
        print("| distance | noise | mean score | cell-eval | embbench | less CPU | asked | scores equal |")
        print("|---|---|---|---|---|---|---|---|")
        for noise in (3.0, 30.0):
            against_cell_eval(peer, noise)
    large()


if __name__ == "__main__":
    main()
