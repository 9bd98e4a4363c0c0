"""False declarations: many small simulated screens, embeddings that know nothing, and what the report says of them.

Usage: ``python bench/null_screens.py [--screens 200] [--planted] [--first 0] [--perturbations 60] [--genes 150]``.
Each screen is drawn by the simulator (control halves and their noise shared within a context, near-null effects). Four
random embeddings that cover 100, 100, 80 and 50 % of the perturbations, each with ten permutations, and the entry
``random`` go through kNN (k = 10) and ridge (inner selection) as the grid runs them: features, fallback, five folds of unseen
perturbations, without its files. With ``--planted`` the first embedding is half informative: half of its variance is
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

from embbench.core import Embedding, PerturbationDataset, Run
from embbench.datasets.simulator import Simulator
from embbench.embeddings.permuted import Permuted
from embbench.grid.fit import Job, predict, rows_of
from embbench.grid.inputs import Tables
from embbench.grid.score import row_facts, truth_of
from embbench.registry import default
from embbench.report import tables
from embbench.splits.unseen_perturbation import UnseenPerturbation

METRICS = ("l2_all", "pearson_all", "rank_l2_by_truth_all")
HEADS = ("knn:k=10", "ridge")
COVERAGES = {"full_a": 1.0, "full_b": 1.0, "most": 0.8, "half": 0.5}
DRAWS, DIM, FOLDS = 10, 16, 5
COLUMNS = {"combine": "sum", "context_embedding": "none", "features": "pca:100", "scope": "auto", "target": "effects"}
COLUMNS |= {"graph": "none", "select": "l2_all", "genes": "all", "strict_context": False, "seed": 0}
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


def screen_frames(seed: int, *, planted: bool, perturbations: int, genes: int) -> Frames:
    """Everything of one screen that the report reads."""
    data = Simulator(n_perturbations=perturbations, n_genes=genes, rho=0.0, seed=seed).load()
    registry = default()
    made = {name: registry.get("metrics", name).make() for name in METRICS}
    split = UnseenPerturbation(folds=FOLDS).split(data)
    facts = row_facts(data, "perturbation")
    truths = [truth_of(data, fold.test, fold.train) for fold in split.folds]
    runs, parts, ceilings = [], [], []
    for head, name, role, table in configurations(embeddings(data, seed, planted=planted)):
        blocks = () if table is None else (("e", table),)
        for fold, truth in zip(split.folds, truths, strict=True):
            run = Run("simulated", "unseen_perturbation", fold.name, head, embedding="none" if table is None else "e")
            specs = registry.parse("heads", head), registry.parse("features", run.features)
            asked, mark = rows_of(data, fold.test), f"{head}|{name}"
            rows = (run, data, fold.train, asked, split.kind, split.units, Tables(blocks))
            done = predict(Job(*rows, *specs, registry, mark))
            values = done.values if done.weights is None else (done.weights @ data.effects[fold.train])
            key = f"{head}|{name}|{fold.name}"
            where = {"head": head, "embedding": name, "fold": fold.name, "role": role, "key": key}
            runs.append(COLUMNS | where | {"n_train": len(fold.train), "n_test": len(fold.test)})
            base = {k: v[fold.test] for k, v in facts.items()} | {"row": fold.test, "group": ""}
            for metric, fn in made.items():
                scored = fn(np.asarray(values, dtype=np.float32), truth)
                parts.append(
                    pd.DataFrame(base | {"covered": done.covered, "metric": metric, "value": scored, "key": key})
                )
    for fold, truth in zip(split.folds, truths, strict=True):
        for metric, fn in made.items():
            best = fn(np.asarray(data.noise_free)[fold.test], truth)
            line = {"dataset": "simulated", "genes": "all", "row": fold.test, "metric": metric, "value": best}
            ceilings.append(pd.DataFrame(line | {"note": "simulated truth"}))
    about = {n: {"best": m.best, "lower": m.lower, "upper": m.upper, "level": m.level} for n, m in made.items()}
    return Frames(
        pd.concat(parts, ignore_index=True), pd.DataFrame(runs), pd.concat(ceilings, ignore_index=True), about
    )


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
