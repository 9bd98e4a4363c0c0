"""Wilcoxon tests of a whole screen against its controls, beside scipy gene by gene, measured side by side.

Usage: ``python bench/de_speed.py [--perturbations N] [--genes N] [--cells N] [--subset N] [--repeats N]``. Cells are
negative binomial counts, scaled to 1e4 and logged, one cell in ten a control. Ours tests every perturbation in every
gene; scipy's ``mannwhitneyu(method="asymptotic")`` is called once per gene for the first perturbation on ``--subset``
genes and scaled up. The two take turns; medians of CPU time on one thread. Ends with an error when p values differ.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402

from embbench.numerics.de import SortedControls  # noqa: E402


def simulate(cells: int, genes: int, perturbations: int, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Controls of shape (k, g) and, per perturbation, cells (m, g): float32, log1p of counts scaled to 1e4."""
    rng = np.random.default_rng(seed)
    share = rng.lognormal(-1.0, 1.5, genes)
    share /= share.sum()

    def draw(m: int) -> np.ndarray:
        depth = rng.lognormal(np.log(0.6 * genes), 0.4, m)
        counts = rng.poisson(depth[:, None] * share * rng.gamma(2.0, 0.5, (m, genes)))
        return np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).astype(np.float32)

    controls = cells // 10
    return draw(controls), [draw((cells - controls) // perturbations) for _ in range(perturbations)]


def ours(control: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    """P values of shape (perturbations, genes)."""
    prepared = SortedControls(control)
    return np.stack([prepared.test(cells).p for cells in groups])


def peer(control: np.ndarray, cells: np.ndarray, subset: int) -> np.ndarray:
    """P values (subset,) of one perturbation, a call per gene; in float64, because scipy keeps the type it is given."""
    columns = ((cells[:, j].astype(np.float64), control[:, j].astype(np.float64)) for j in range(subset))
    return np.array([stats.mannwhitneyu(x, y, method="asymptotic").pvalue for x, y in columns])


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """CPU seconds and the result."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("perturbations", 200), ("genes", 2000), ("cells", 50_000), ("subset", 200), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    control, groups = simulate(args.cells, args.genes, args.perturbations, args.seed)
    subset, mine, theirs = min(args.subset, args.genes), [], []
    for _ in range(args.repeats):
        seconds, p = timed(lambda: ours(control, groups))
        mine.append(seconds)
        seconds, expected = timed(lambda: peer(control, groups[0], subset))
        theirs.append(seconds * args.perturbations * args.genes / subset)
    worst = float(np.abs(p[0, :subset] - expected).max())
    if worst > 1e-12:
        raise SystemExit(f"p values differ from scipy's by {worst:.3g}")
    a, b = float(np.median(mine)), float(np.median(theirs))
    filled = np.mean([np.count_nonzero(cells) / cells.size for cells in groups])
    print(f"{args.perturbations} perturbations x {args.genes} genes x {args.cells} cells, {filled:.0%} not zero")
    print(f"ours: {a:.2f} CPU s; scipy gene by gene: {b:.0f} CPU s (from {subset} genes); ratio {b / a:.0f}x")
    print(f"largest difference of p: {worst:.2g}; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
