"""The published kNN protocol against embbench: StandardScaler, PCA(100), kNN with k by inner folds, five outer folds.

``python -m bench.protocol [--size 2000 6640] [--dims 128 512 1536] [--check]``. The peer is scikit-learn's
GridSearchCV in its own environment, in float32 with the solver that ``PCA(100)`` picks by itself (as published);
ours is `embbench.grid.fit.predict` under ``cole2026``, in float64 with exact PCA, and the predictions of the test rows
made from its weights. A turn is one outer fold of both, so five turns are one run; the Gram matrix of the screen is
timed apart (once per screen, whatever the embeddings) and added to the first embedding. Metrics are not in the clock.

``--check`` runs the peer with ``svd_solver="full"`` in float64 instead and compares the chosen k and the five metrics
of every fold (to 1e-5); it also runs the randomised solver on both sides with three seeds and tells the spread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from sklearn.model_selection import KFold

from bench._peer import ONE, Peer, Times

METRICS = ("l2_all", "mse_all", "mae_all", "spearman_all", "pearson_all")


def screen_of(rows: int, genes: int, dims: list[int], factors: int = 30) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Effects (rows, genes) that follow latent factors, and vectors that know the factors below much noise; float32."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(rows, factors))
    Y = 0.05 * (latent @ rng.normal(size=(factors, genes)) + rng.normal(size=(rows, genes)))
    vectors = {}
    for number, dim in enumerate(dims):
        made = np.random.default_rng([1, number])
        X = latent @ made.normal(size=(factors, dim)) + 4 * made.normal(size=(rows, dim))
        vectors[f"e{number}"] = X.astype(np.float32)
    return Y.astype(np.float32), vectors


class Ours:
    """One screen and its outer folds."""

    def __init__(self, Y: np.ndarray, fold: np.ndarray) -> None:
        from embbench.cache.screens import with_digest
        from embbench.core import PerturbationDataset
        from embbench.grid.names import registry_of

        names = [f"P{i:05d}" for i in range(len(Y))]
        genes = np.array([f"X{i:05d}" for i in range(Y.shape[1])])
        sets, context = tuple((name,) for name in names), np.full(len(Y), "K562")
        self.data = with_digest(PerturbationDataset("bench", Y, "delta", genes, sets, context))
        self.fold, self.registry = fold, registry_of(())

    def gram(self) -> float:
        """CPU seconds of the Gram matrix."""
        from embbench.grid.gram import Gram

        began = time.process_time()
        Gram(self.data)._compute(np.arange(len(self.data)), np.arange(len(self.data)), "effects")
        return time.process_time() - began

    def run(self, X: np.ndarray, outer: int, head: str = "knn", features: str = "pca:100") -> dict[str, Any]:
        """Chosen value and predictions of one outer fold."""
        from embbench.core import Embedding, Run
        from embbench.grid import fit
        from embbench.grid.inputs import Tables
        from embbench.grid.prediction import product

        train, test = np.flatnonzero(self.fold != outer), np.flatnonzero(self.fold == outer)
        names = np.array([row[0] for row in self.data.entities])
        tables = Tables((("e", Embedding(names, X, "gene")),))
        run = Run("bench", "given", f"fold{outer}", head, embedding="e", features=features, protocol="cole2026")
        units = tuple((i,) for i in range(len(self.data)))
        parts = (self.registry.parse("heads", head), self.registry.parse("features", features), self.registry)
        job = fit.Job(run, self.data, train, fit.rows_of(self.data, test), "given", units, tables, *parts, "bench")
        made = fit.predict(job)
        values = made.values if made.weights is None else product(made.weights, self.data.effects, train)
        return {"chosen": next(iter(next(iter(made.choices.values())).params.values())), "predicted": values}

    def scores(self, predicted: np.ndarray, outer: int) -> np.ndarray:
        """Means of the five metrics over the test rows of a fold."""
        from embbench.grid.score import truth_of

        test, train = np.flatnonzero(self.fold == outer), np.flatnonzero(self.fold != outer)
        truth = truth_of(self.data, test, train)
        made = (self.registry.parse("metrics", name).make() for name in METRICS)
        return np.array([float(np.mean(metric(predicted.astype(np.float32), truth))) for metric in made])


def peer_fold(peer: Peer, arrays: dict[str, np.ndarray], name: str, outer: int, **how: Any) -> tuple[dict, dict]:
    """The peer's outer fold, its fold numbers turned so that ``outer`` is its first."""
    return peer.call("run", arrays, X=name, head="knn", outer=outer, **how)


def timed(peer: Peer, ours: Ours, arrays: dict[str, np.ndarray], vectors: dict[str, np.ndarray], size: str) -> None:
    """Side by side, fold by fold."""
    ours.run(next(iter(vectors.values())), 0)  # compiles, and makes the Gram matrix
    gram = statistics.median(ours.gram() for _ in range(5))
    print(f"Gram matrix of {size}: {gram:.2f} CPU s\n")
    print("| size | d | embedding | scikit-learn, CPU s a fold | ours | ratio | five folds: theirs, ours | same k |")
    print("|---|---|---|---|---|---|---|---|")
    for number, (name, X) in enumerate(vectors.items()):
        left, right, same = Times(), Times(), 0
        for outer in range(5):
            theirs, told = peer_fold(peer, arrays, name, outer, dtype="float32", solver="auto", seed=0)
            cpu = time.process_time()
            mine = ours.run(X, outer)
            left.cpu.append(time.process_time() - cpu)
            right.cpu.append(told["cpu"])
            same += int(mine["chosen"] == theirs["chosen"][0])
        extra = gram if number == 0 else 0.0
        whole = sum(left.cpu) + extra
        one, other = whole / 5 if extra else statistics.median(left.cpu), statistics.median(right.cpu)
        which = "first, with the Gram matrix" if extra else "further"
        print(
            f"| {size} | {X.shape[1]} | {which} | {other:.2f} | {one:.3f} | {other / one:.1f} | "
            f"{sum(right.cpu):.1f}, {whole:.2f} | {same} of 5 |",
            flush=True,
        )


def checked(peer: Peer, ours: Ours, arrays: dict[str, np.ndarray], vectors: dict[str, np.ndarray], size: str) -> None:
    """Equality with the exact solver, and what the randomised one's seed moves."""
    for name, X in vectors.items():
        worst, chosen = 0.0, []
        for outer in range(5):
            theirs, _ = peer_fold(peer, arrays, name, outer, dtype="float64", solver="full", seed=0)
            mine = ours.run(X, outer)
            chosen.append((int(mine["chosen"]), int(theirs["chosen"][0])))
            gap = ours.scores(mine["predicted"], outer) - ours.scores(theirs["predicted"], outer)
            worst = max(worst, float(np.abs(gap).max()))
        if worst > 1e-5 or any(a != b for a, b in chosen):
            raise SystemExit(f"{size}, d = {X.shape[1]}: k {chosen}, metrics differ by {worst:.1e}")
        print(f"{size}, d = {X.shape[1]}: same k in all folds {[a for a, _ in chosen]}, metrics within {worst:.1e}")
        found = []
        for seed in range(3):
            theirs, _ = peer_fold(peer, arrays, name, 0, dtype="float64", solver="randomized", seed=seed)
            mine = ours.run(X, 0, features=f"pca:100:svd=randomized:seed={seed}")
            pair = [ours.scores(side["predicted"], 0)[0] for side in (mine, theirs)]
            found.append((pair[0], abs(pair[0] - pair[1]), int(mine["chosen"]), int(theirs["chosen"][0])))
        levels = [one[0] for one in found]
        print(
            f"  randomised, seeds 0 to 2, fold 0: mean L2 spreads over {max(levels) - min(levels):.1e}, differs from "
            f"scikit-learn's by {max(one[1] for one in found):.1e}; k {[one[2:] for one in found]}",
            flush=True,
        )


def main() -> None:
    """Measure or check."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--size", type=int, nargs=2, default=[2000, 6640])
    asked.add_argument("--dims", type=int, nargs="+", default=[128, 128, 512, 1536])
    asked.add_argument("--check", action="store_true")
    given = asked.parse_args()
    os.environ.update(ONE)
    with tempfile.TemporaryDirectory() as home:
        os.environ["EMBBENCH_HOME"] = home
        from embbench.grid.threads import one_thread

        Y, vectors = screen_of(*given.size, given.dims)
        fold = np.zeros(len(Y), dtype=np.int64)
        for number, (_, test) in enumerate(KFold(5, shuffle=True, random_state=0).split(Y)):
            fold[test] = number
        arrays = {"Y": Y, "fold": fold, **vectors}
        size = f"{given.size[0]:,} x {given.size[1]:,}"
        with one_thread(), Peer("sklearn_scipy", "cole") as peer:
            version = str(peer.call("version", arrays)[0]["version"])
            print(f"scikit-learn {version} (imports {peer.imports['cpu']:.1f} CPU s), load {os.getloadavg()[0]:.1f}")
            (checked if given.check else timed)(peer, Ours(Y, fold), arrays, vectors, size)


if __name__ == "__main__":
    main()
