"""`label_logistic` on all genes at once against one scikit-learn ``LogisticRegression`` per gene, in one process.

Usage: ``python bench/label_logistic.py [--genes 5000] [--peer-genes 50]``. Simulated labels (features with a spectrum
like principal components', signal in every gene, 5 to 30 % DE, 10 % untested). Both stop where no derivative of the
mean loss exceeds the same tolerance; ours also bounds that of the sum, so it never does less. Ours is timed on all
genes, scikit-learn on some of them and multiplied up: each line says so. CPU seconds of one thread, set before numpy
is imported; the median of three runs (ours) and the sum over genes (scikit-learn). The largest difference of
probabilities is against scikit-learn's ``newton-cholesky`` at tolerance 1e-10, for either side.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from scipy import sparse  # noqa: E402

from embbench.core import Inputs  # noqa: E402
from embbench.heads.label_logistic import LabelLogistic  # noqa: E402

TOL = 1e-6
CASES = [  # training rows, features, C, class weight
    (300, 50, 0.01, None),
    (300, 50, 1.0, None),
    (300, 50, 0.01, "balanced"),
    (500, 100, 0.01, None),
    (500, 100, 1.0, None),
    (1000, 100, 0.01, None),
]


def simulate(rows: int, features: int, genes: int, seed: int = 0) -> tuple[Inputs, np.ndarray, np.ndarray]:
    """Inputs (n, d), labels (n, g) in -1, 0, 1 and the tested mask (n, g)."""
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(rows, features)) * np.linspace(2, 0.1, features)).astype(np.float32)
    score = X @ rng.normal(size=(features, genes)) / np.sqrt(features) + rng.normal(size=(rows, genes))
    score /= score.std(axis=0)
    cut = rng.uniform(1.0, 2.0, size=genes)
    Y = (score > cut).astype(np.float32) - (score < -cut * rng.uniform(0.9, 1.3, size=genes))
    units = tuple((i,) for i in range(rows))
    inputs = Inputs(X, np.zeros(rows, np.int64), sparse.csr_matrix((rows, 1)), units)
    return inputs, Y, rng.random((rows, genes)) < 0.9


def one_by_one(inputs: Inputs, Y: np.ndarray, tested: np.ndarray, **options: Any) -> tuple[float, np.ndarray]:
    """CPU seconds of all fits, and probabilities (n, g, 3), by scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    out, seconds, X = np.zeros((*Y.shape, 3)), 0.0, inputs.X.astype(np.float64)
    for j in range(Y.shape[1]):
        keep = tested[:, j]
        x, y = X[keep], Y[keep, j].astype(int)
        if len(np.unique(y)) == 1:
            out[:, j, y[0] + 1] = 1.0
            continue
        start = time.process_time()
        model = LogisticRegression(max_iter=10000, **options).fit(x, y)
        seconds += time.process_time() - start
        out[:, j, model.classes_ + 1] = model.predict_proba(X)
    return seconds, out


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--genes", type=int, default=5000)
    parser.add_argument("--peer-genes", type=int, default=50)
    args = parser.parse_args()
    some = np.linspace(0, args.genes - 1, args.peer_genes).astype(int)
    print(f"ours: all {args.genes} genes; scikit-learn: {len(some)} genes x {args.genes / len(some):g}; tol {TOL:g}")
    print("rows features C class_weight | ours s | scikit-learn s (extrapolated) | ratio | off: ours, scikit-learn")
    for rows, features, C, weight in CASES:
        inputs, Y, tested = simulate(rows, features, args.genes)
        times = []
        for _ in range(3):
            start = time.process_time()
            head = LabelLogistic(C=C, class_weight=weight, tol=TOL).fit(inputs, Y, tested)
            times.append(time.process_time() - start)
        part = (inputs, Y[:, some], tested[:, some])
        seconds, peer = one_by_one(*part, C=C, class_weight=weight, tol=TOL)
        exact = one_by_one(*part, C=C, class_weight=weight, tol=1e-10, solver="newton-cholesky")[1]
        ours, peers = float(np.median(times)), seconds * args.genes / len(some)
        off = [np.abs(p - exact).max() for p in (head.predict_proba(inputs)[:, some], peer)]
        print(
            f"{rows} {features} {C:g} {weight} | {ours:.2f} | {peers:.1f} | {peers / ours:.1f}x | "
            f"{off[0]:.1e}, {off[1]:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
