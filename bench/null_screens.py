"""False declarations: many small simulated screens, embeddings that know nothing, and what the report says of them.

Usage: ``python bench/null_screens.py [--screens 200] [--planted] [--first 0] [--perturbations 60] [--genes 150]``.
Each screen is drawn by the simulator (control halves and their noise shared within a context, near-null effects). Four
random embeddings that cover 100, 100, 80 and 50 % of the perturbations, each with ten permutations, and the entry
``random`` go through the grid's kNN (k = 10) and ridge (alpha = 30) on standardised vectors, per context, with the
context mean as fallback, in five folds of unseen perturbations; no selection, no files, so that a screen takes seconds.
With ``--planted`` the first embedding is half informative: half of its variance is
the ten leading components of the noise-free effects. Printed: screens with any false "yes" or any pair declared
between uninformative embeddings, and how often the planted embedding is found.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from embbench.core import Embedding, Inputs, PerturbationDataset
from embbench.datasets.simulator import Simulator
from embbench.embeddings.permuted import Permuted
from embbench.grid.score import row_facts, truth_of
from embbench.heads.knn import KNN
from embbench.heads.ridge import Ridge
from embbench.registry import default
from embbench.report import tables
from embbench.splits.unseen_perturbation import UnseenPerturbation

METRICS = ("l2_all", "pearson_all", "rank_l2_by_truth_all")
HEADS = {"knn:k=10": KNN(k=10), "ridge:alpha=30": Ridge(alpha=30.0)}
COVERAGES = {"full_a": 1.0, "full_b": 1.0, "most": 0.8, "half": 0.5}
DRAWS, DIM, FOLDS = 10, 16, 5
COLUMNS = {"combine": "sum", "context_embedding": "none", "features": "pca:100", "scope": "auto", "target": "effects"}
COLUMNS |= {"graph": "none", "select": "l2_all", "genes": "all", "samples": 100, "strict_context": False, "seed": 0}
COLUMNS |= {"protocol": "default", "dataset": "simulated", "split": "unseen_perturbation", "status": "done"}
COLUMNS |= {"reason": "", "fallback": "context mean", "dim": DIM, "chosen": "", "trials": 1, "cpu_seconds": 0.0}


@dataclass
class Frames:
    """Score and run frames, ceilings and facts, as the grid hands them to the report."""

    scores: pd.DataFrame
    runs: pd.DataFrame
    ceilings: pd.DataFrame
    metrics: dict[str, dict[str, Any]]


def embeddings(data: PerturbationDataset, seed: int, *, planted: bool) -> dict[str, Embedding]:
    """Normal vectors for random subsets of the perturbations; ``full_a`` half informative when ``planted``."""
    rng = np.random.default_rng([seed, 77])
    names = np.array(data.entity_names)
    out = {}
    for name, share in COVERAGES.items():
        kept = np.sort(rng.permutation(len(names))[: round(share * len(names))])
        matrix = rng.normal(size=(len(kept), DIM))
        if planted and name == "full_a":
            matrix = np.sqrt(0.5) * matrix + np.sqrt(0.5) * _signal(data, names[kept])
        out[name] = Embedding(names[kept], matrix.astype(np.float32))
    return out


def _signal(data: PerturbationDataset, names: np.ndarray) -> np.ndarray:
    first = data.context == data.contexts[0]
    where = {row[0]: i for i, row in enumerate(data.entities) if first[i]}
    effects = np.asarray(data.noise_free, dtype=np.float64)[[where[n] for n in names.tolist()]]
    left, size, _ = np.linalg.svd(effects - effects.mean(axis=0), full_matrices=False)
    scores = (left * size)[:, :DIM]
    return scores / np.sqrt((scores**2).sum() / scores.size)


def configurations(vectors: dict[str, Embedding]) -> Iterator[tuple[str, str, str, Embedding | None]]:
    """Head, embedding name, role and vectors of every configuration."""
    for head in ("context_mean", "no_change"):
        yield head, "none", "baseline", None
    some = next(iter(vectors.values()))
    noise = np.random.default_rng(5).normal(size=(len(some.names), DIM)).astype(np.float32)
    for head in HEADS:
        yield head, "random", "random", Embedding(some.names, noise)
        for name, table in vectors.items():
            yield head, name, "method", table
            for draw in range(DRAWS):
                label = f"permuted:{name}" + (f":draw={draw}" if draw else "")
                yield head, label, "permuted", Permuted(table, draw).compute(None, None)


def predictions(data: PerturbationDataset, head: str, table: Embedding | None) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold predictions (n, g) of every row, and which rows (n,) are covered."""
    values = np.zeros(data.effects.shape)
    X, found = (None, np.zeros(len(data), bool)) if table is None else table.lookup([e[0] for e in data.entities])
    if head in ("context_mean", "no_change"):
        found = np.ones(len(data), bool)
    for fold in UnseenPerturbation(folds=FOLDS).split(data).folds:
        for context in data.contexts:
            train = fold.train[data.context[fold.train] == context]
            test = fold.test[data.context[fold.test] == context]
            if head != "no_change":
                values[test] = data.effects[train].mean(axis=0, dtype=np.float64)
            fit, ask = train[found[train]], test[found[test]]
            if X is None or not len(fit) or not len(ask):
                continue
            scale = X[fit].std(axis=0)
            known, asked = ((X[rows] - X[fit].mean(axis=0)) / scale for rows in (fit, ask))
            weights = HEADS[head].weights(_inputs(known), _inputs(asked))
            values[ask] = weights @ data.effects[fit].astype(np.float64)
    return values.astype(np.float32), found


def _inputs(X: np.ndarray) -> Inputs:
    n = len(X)
    return Inputs(X.astype(np.float32), np.zeros(n, np.int64), sparse.csr_matrix((n, 1)), ((0,),) * n)


def screen_frames(seed: int, *, planted: bool, perturbations: int, genes: int) -> Frames:
    """Everything of one screen that the report reads."""
    data = Simulator(n_perturbations=perturbations, n_genes=genes, rho=0.0, seed=seed).load()
    made = {name: default().get("metrics", name).make() for name in METRICS}
    folds = UnseenPerturbation(folds=FOLDS).split(data).folds
    truths = [truth_of(data, fold.test, fold.train) for fold in folds]
    tested = np.concatenate([fold.test for fold in folds])
    facts = {k: v[tested] for k, v in row_facts(data, "perturbation").items()} | {"row": tested, "group": ""}

    def score(values: np.ndarray, metric: Any) -> np.ndarray:
        return np.concatenate([metric(values[f.test], t) for f, t in zip(folds, truths, strict=True)])

    runs, parts = [], []
    for head, name, role, table in configurations(embeddings(data, seed, planted=planted)):
        values, covered = predictions(data, head, table)
        key = np.concatenate([np.repeat(f"{head}|{name}|{f.name}", len(f.test)) for f in folds])
        for fold in folds:
            where = {"head": head, "embedding": name, "fold": fold.name, "role": role}
            where |= {"key": f"{head}|{name}|{fold.name}", "n_train": len(fold.train), "n_test": len(fold.test)}
            runs.append(COLUMNS | where)
        for metric, fn in made.items():
            line = {"covered": covered[tested], "metric": metric, "value": score(values, fn), "key": key}
            parts.append(pd.DataFrame(facts | line))
    best = [
        pd.DataFrame(
            {"dataset": "simulated", "genes": "all", "row": tested, "metric": metric, "note": "simulated truth"}
        ).assign(value=score(np.asarray(data.noise_free), fn))
        for metric, fn in made.items()
    ]
    about = {n: {"best": m.best, "lower": m.lower, "upper": m.upper, "level": m.level} for n, m in made.items()}
    return Frames(pd.concat(parts, ignore_index=True), pd.DataFrame(runs), pd.concat(best, ignore_index=True), about)


def declared(frames: Frames, metric: str, informative: str = "") -> dict[str, int]:
    """How often each kind of declaration occurs: false ones, pairs before the gate, true ones of ``informative``."""
    part = frames.scores[frames.scores["metric"] == metric]
    board, pairs = tables.leaderboard_and_pairs(part, frames.runs, frames.ceilings, frames.metrics, metric=metric)
    false = board[board["embedding"] != informative]
    between = pairs[
        (pairs["kind"] == "embeddings") & (pairs["first"] != informative) & (pairs["second"] != informative)
    ]
    own = board[(board["embedding"] == informative) & (board["role"] == "method")]
    return {
        "permuted": int((false["beats_permuted"] == "yes").sum()),
        "context_mean": int((false["beats_context_mean"] == "yes").sum()),
        "pairs": int((between["better"] != "–").sum()),
        "ungated": int((between["p_holm"] <= 0.05).sum()),
        "found": int((own["beats_permuted"] == "yes").sum()),
        "found_mean": int((own["beats_context_mean"] == "yes").sum()),
        "found_pairs": int((pairs["better"] == informative).sum()) if informative else 0,
    }


def main() -> None:
    """Draw, fit, judge, print a line per metric and ten screens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screens", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--perturbations", type=int, default=60)
    parser.add_argument("--genes", type=int, default=150)
    parser.add_argument("--planted", action="store_true")
    args = parser.parse_args()
    lines = []
    for seed in range(args.first, args.first + args.screens):
        size = {"perturbations": args.perturbations, "genes": args.genes}
        frames = screen_frames(seed, planted=args.planted, **size)
        lines += [{"metric": m} | declared(frames, m, "full_a" if args.planted else "") for m in METRICS]
        if (seed + 1 - args.first) % 10 == 0 or seed + 1 == args.first + args.screens:
            table = pd.DataFrame(lines)
            false = table[["permuted", "context_mean", "pairs"]].sum(axis=1) > 0
            shown = (table.drop(columns="metric") > 0).assign(any_false=false).groupby(table["metric"]).sum()
            print(f"after {seed + 1 - args.first} screens, number with at least one:\n{shown.to_string()}", flush=True)


if __name__ == "__main__":
    main()
