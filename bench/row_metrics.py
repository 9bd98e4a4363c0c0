"""Six row metrics on 400 x 6,640 float32 effects against loops over rows with scipy.stats, scikit-learn and numpy.

``python -m bench.row_metrics`` prints CPU seconds of the registered metrics (checks and masks included) and of the
loops, in this environment at one thread, medians of five alternating turns, after checking that values agree to 1e-6.
A seventh of the predicted and a fifth of the true effects are zero, so that ranks are tied as in real screens.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
import scipy
import sklearn
from scipy import spatial, stats
from sklearn import metrics as sk

from bench._peer import ratio, side_by_side
from embbench.core import Truth
from embbench.registry import default

LOOPS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "l2": lambda p, t: float(np.linalg.norm(p - t)),
    "mse": lambda p, t: float(sk.mean_squared_error(t, p)),
    "mae": lambda p, t: float(sk.mean_absolute_error(t, p)),
    "cosine": lambda p, t: float(1 - spatial.distance.cosine(p, t)),
    "pearson": lambda p, t: float(stats.pearsonr(p, t)[0]),
    "spearman": lambda p, t: float(stats.spearmanr(p, t)[0]),
}


def example(n: int = 400, g: int = 6640, seed: int = 0) -> tuple[np.ndarray, Truth]:
    """Effects, predictions of half their size with errors, and a gene of its own for each row."""
    rng = np.random.default_rng(seed)
    effects = rng.standard_normal((n, g), dtype=np.float32)
    effects[:, ::5] = 0
    pred = effects / 2 + rng.standard_normal((n, g), dtype=np.float32)
    pred[:, ::7] = 0
    targets = tuple(np.array([column]) for column in rng.choice(g, n, replace=False))
    return pred, Truth(effects, "delta", np.zeros(n, dtype=np.int64), targets)


def looped(name: str, pred: np.ndarray, truth: Truth, mask: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """The metric of every row by its loop, in float64, and the seconds it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    rows = zip(pred.astype(np.float64), truth.effects.astype(np.float64), mask, strict=True)
    values = np.array([LOOPS[name](p[keep], t[keep]) for p, t, keep in rows])
    return values, {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def compare(genes: str) -> None:
    """Rows of the table for one gene set; ends the script when values differ."""
    pred, truth = example()
    mask, sums = truth.mask(genes), np.zeros(2)
    for name in LOOPS:
        metric: Any = default().parse("metrics", f"{name}_{genes}").make()
        found, ours, theirs, their = side_by_side(
            partial(metric, pred, truth), partial(looped, name, pred, truth, mask)
        )
        apart = float(np.max(np.abs(found - theirs) / np.maximum(np.abs(theirs), 1)))
        if not apart <= 1e-6:
            raise SystemExit(f"{name}_{genes}: values differ by {apart:.3g}")
        sums += np.median(ours.cpu), np.median(their.cpu)
        print(f"| {name}_{genes} | {their} | {ours} | **{ratio(ours, their):.0f}x** | {apart:.0e} |", flush=True)
    print(f"| all six, {genes} | {sums[1]:.3g} CPU s | {sums[0]:.3g} CPU s | **{sums[1] / sums[0]:.0f}x** | |")


def main() -> None:
    """Print the table."""
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"numpy {np.__version__}, scipy {scipy.__version__}, scikit-learn {sklearn.__version__}, ", end="")
    print(f"Python {platform.python_version()}; load {load}\n")
    print("| metric | loop over rows | embbench | less CPU | largest difference |\n|---|---|---|---|---|")
    for genes in ("all", "notarget"):
        compare(genes)


if __name__ == "__main__":
    main()
