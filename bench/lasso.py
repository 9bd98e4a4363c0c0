"""The Lasso at many targets: the published pipeline, and the Lasso alone on correlated features.

Usage: ``python -m bench.lasso [--sizes 1000x2000 2000x6640] [--d 128] [--folds 5] [--repeats 5] [--correlated]``.

Pipeline: standardise, PCA(100), Lasso with alpha in {1e-3, 1e-2, 1e-1, 1} chosen on mean L2 by inner
``KFold(5, shuffle=True, random_state=42)``, five outer folds. The peer is scikit-learn's ``Pipeline`` in
``GridSearchCV`` with ``svd_solver="full"`` (environment ``.oracles/sklearn_scipy``), in float32 as published and in
float64; ours is the same loop with `embbench.features.pca.PCA`, `Lasso.held_errors` and `Lasso.fit`. Screens are
simulated: 30 latent factors, seen with noise by the vectors, drive genes with lognormal strength, plus noise.

Checked before a ratio is printed: the chosen penalties are the same, mean L2 (inner and outer) within 1e-5 of its
value; and on the last fold our mean L2 and coefficients (in the basis of the standardised features) are no further from
scikit-learn's at tol 1e-8 in float64 than the peer's own, or than 1e-5 of the largest. ``--folds 1`` measures both
sides on one outer fold.

Correlated features (``--correlated``): four penalties on standardised vectors without PCA, peer one `Lasso` per penalty
in float64 at tol 1e-4 (its default) and 1e-10 (for the check), once, on the first ``--genes`` and multiplied up.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from scipy import sparse  # noqa: E402

from bench._peer import Peer, ratio, side_by_side  # noqa: E402
from embbench.core import Inputs  # noqa: E402
from embbench.features.pca import PCA  # noqa: E402
from embbench.heads.lasso import Lasso  # noqa: E402

ALPHAS = [1e-3, 1e-2, 1e-1, 1.0]
HEADER = (
    *("rows x genes", "d", "peer's precision", "outer folds", "peer", "embbench", "ratio", "L2 apart"),
    *("L2, ours and theirs from tol 1e-8", "coefficients, likewise"),
)


def screen(n: int, g: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, d) and effects (n, g), float32; root mean square effect about 0.1."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 30)) * np.geomspace(1.0, 0.3, 30)
    X = latent @ rng.normal(size=(30, d)) + rng.normal(size=(n, d))
    strength = rng.lognormal(-3.0, 1.0, size=g)
    Y = (np.tanh(latent) @ rng.normal(size=(30, g))) * strength / 2.5 + 0.06 * rng.normal(size=(n, g))
    return X.astype(np.float32), Y.astype(np.float32)


def folds_of(n: int, seed: int) -> np.ndarray:
    """Training rows of five shuffled folds, (5, n) bool, as scikit-learn's ``KFold(5, shuffle=True)`` draws them."""
    order, train = np.random.RandomState(seed).permutation(n), np.ones((5, n), dtype=bool)
    for row, held in zip(train, np.array_split(order, 5), strict=True):
        row[held] = False
    return train


def inputs_of(X: np.ndarray) -> Inputs:
    """Rows that are one context and hold their own unit each."""
    return Inputs(X, np.zeros(len(X), np.int64), sparse.csr_matrix((len(X), 1)), tuple((i,) for i in range(len(X))))


def loop(X: np.ndarray, Y: np.ndarray, train: np.ndarray, folds: list[int]) -> dict[str, np.ndarray]:
    """What ``bench/peers/lasso.py:loop`` computes."""
    chosen, inner, outer = [], [], []
    for fold in folds:
        x, y = X[train[fold]], Y[train[fold]]
        inner_folds = [(np.flatnonzero(fit), np.flatnonzero(~fit)) for fit in folds_of(len(x), 42)]
        parts = [(inputs_of(PCA(100).fit(x[fit]).transform(x)), fit, held) for fit, held in inner_folds]
        errors = Lasso.held_errors([Lasso(a) for a in ALPHAS], parts, y)
        scores = np.mean([np.sqrt(e).mean(axis=1) for e in errors], axis=0)
        best = ALPHAS[int(scores.argmin())]
        made = PCA(100).fit(x)
        head = Lasso(best).fit(inputs_of(made.transform(x)), y)
        pred = head.predict(inputs_of(made.transform(X[~train[fold]])))
        chosen.append(best)
        inner.append(scores)
        outer.append(np.linalg.norm(pred - Y[~train[fold]], axis=1).mean())
    coef = made.components_ @ head.coef_
    return {"chosen": np.array(chosen), "inner": np.array(inner), "outer": np.array(outer), "coef": coef}


def check(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tight: dict[str, np.ndarray]) -> list[str]:
    """Differences, as cells of the table; SystemExit where results are not equal. ``tight`` has the last fold alone."""
    l2 = max(np.abs(ours[k] / theirs[k] - 1).max() for k in ("inner", "outer"))
    cells, far = [f"{l2:.1e}"], l2 > 1e-5 or bool((ours["chosen"] != theirs["chosen"]).any())
    for kind in ("l2", "coef"):
        off = []
        for made in (ours, theirs):
            pairs = (
                [(made["coef"], tight["coef"])]
                if kind == "coef"
                else [(made[k][-1:], tight[k]) for k in ("inner", "outer")]
            )
            off.append(max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs))
        far |= off[0] > max(off[1], 1e-5)
        cells.append(f"{off[0]:.1e}, {off[1]:.1e}")
    if far:
        raise SystemExit(f"not equal: chosen {ours['chosen']} and {theirs['chosen']}; differences {cells}")
    return cells


def pipelines(sizes: list[tuple[int, int]], d: int, count: int, repeats: int) -> list[str]:
    """Rows of the table: the pipeline in float32 and float64."""
    rows, folds = [], list(range(count))
    with Peer("sklearn_scipy", "lasso") as peer:
        for n, g in sizes:
            X, Y = screen(n, g, d)
            given = {"X": X, "Y": Y, "train": folds_of(n, 0)}
            last: dict[str, Any] = {"alphas": ALPHAS, "dtype": "float64", "tol": 1e-8, "folds": folds[-1:]}
            tight = peer.call("loop", given, **last)[0]
            for dtype in ("float32", "float64"):
                mine, own, theirs, other = side_by_side(
                    lambda given=given: loop(given["X"], given["Y"], given["train"], folds),
                    lambda given=given, dtype=dtype: peer.call("loop", given, alphas=ALPHAS, dtype=dtype, folds=folds),
                    repeats,
                )
                cells = [f"{n:,} x {g:,}", d, dtype, count, other, own, f"**{ratio(own, other):.0f}**"]
                rows.append("| " + " | ".join(str(c) for c in [*cells, *check(mine, theirs, tight)]) + " |")
                print(rows[-1], flush=True)
    return rows


def correlated(n: int, g: int, d: int, some: int, repeats: int) -> str:
    """A row of the second table: four penalties on standardised correlated features, the peer on ``some`` genes."""
    X, Y = screen(n, g, d)
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    given, inputs = {"X": X.astype(np.float64), "Y": Y[:, :some].astype(np.float64)}, inputs_of(X)
    seconds: dict[str, float] = {}
    with Peer("sklearn_scipy", "lasso") as peer:
        for tol in (1e-4, 1e-10):
            took = [peer.call("fit", given, alpha=alpha, tol=tol) for alpha in ALPHAS]
            seconds[f"{tol:g}"] = sum(told["cpu"] for _, told in took) * g / some
    times = []
    for turn in range(repeats + 1):
        began = time.process_time()
        heads = list(Lasso.fit_path([Lasso(a) for a in ALPHAS], inputs, Y))
        times += [time.process_time() - began] * (turn > 0)
    off = max(
        np.abs(head.coef_[:, :some] - want["coef"]).max() / max(np.abs(want["coef"]).max(), 1e-12)
        for head, (want, _) in zip(heads, took, strict=True)
    )
    if off > 1e-3:
        raise SystemExit(f"not equal: coefficients {off}")
    own, gap = statistics.median(times), max(head.gap_ for head in heads)
    cells = [f"{n:,} x {g:,}", d, f"{own:.3g}"]
    cells += [f"{value:.3g} (**{value / own:.0f}**)" for value in seconds.values()]
    return "| " + " | ".join(str(c) for c in [*cells, f"{off:.1e}", f"{gap:.1e}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1000x2000", "2000x6640"])
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--correlated", action="store_true")
    parser.add_argument("--genes", type=int, default=20, help="genes the peer solves with --correlated")
    asked = parser.parse_args()
    print(f"numpy {np.__version__}, load {os.getloadavg()[0]:.1f}")
    sizes = [tuple(int(v) for v in s.split("x")) for s in asked.sizes]
    if asked.correlated:
        columns = ("rows x genes", "d", "embbench, CPU s", "peer, tol 1e-4", "peer, tol 1e-10", "coefficients", "gap")
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for n, g in sizes:
            print(correlated(n, g, asked.d, asked.genes, asked.repeats))
        return
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pipelines(sizes, asked.d, asked.folds, asked.repeats)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
