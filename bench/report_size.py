"""Size of the report page and seconds to make it, for a synthetic result of a whole grid.

Usage: ``python bench/report_size.py [--embeddings 10] [--heads 8] [--folds 5] [--datasets 4] [--metrics 6] [--out F]``.
Every embedding is also permuted (``--draws`` times); scores are random, tables are those of the report.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from embbench.report import tables
from embbench.report.boards import OTHER, SUBSETS
from embbench.report.critical import rank_boxes
from embbench.report.findings import by_information, decomposition
from embbench.report.page.bundle import make_bundle
from embbench.report.page.write import write_page

CONTEXTS = ("k562", "rpe1", "hepg2", "jurkat")
MODALITIES = ("network", "gene set", "cell model", "text", "protein")


def grid(size: argparse.Namespace) -> pd.DataFrame:
    """Runs of all embeddings x heads, their permutations and two baselines, on all datasets and folds."""
    names = [f"embedding_{i}" for i in range(size.embeddings)]
    heads = [f"head_{i}:alpha={i}" for i in range(size.heads)]
    pairs = [(h, "none", "baseline") for h in ("context_mean", "no_change")]
    pairs += [(h, e, "method") for h, e in itertools.product(heads, names)]
    pairs += [(h, f"permuted:{e}:draw={d}", "permuted") for h, e, _ in pairs[2:] for d in range(size.draws)]
    lines = []
    for number, (dataset, (head, embedding, role), fold) in enumerate(
        itertools.product(range(size.datasets), pairs, range(size.folds))
    ):
        about = MODALITIES[int(embedding.split("_")[1][0]) % len(MODALITIES)] if "_" in embedding else ""
        lines.append(
            {"dataset": f"screen_{dataset}", "split": "unseen_perturbation", "genes": "all", "fold": f"fold{fold}"}
            | {"head": head, "embedding": embedding, "context_embedding": "none", "role": role, "key": f"r{number}"}
            | dict.fromkeys(OTHER, "") | {"seed": 0, "status": "done", "reason": "", "fallback": "context mean"}
            | {"n_train": 400, "n_test": 100, "coverage": 0.9, "dim": 100, "query_controls": "", "trials": 20}
            | {"chosen": '{"all": {"k": 20}}', "cpu_seconds": 1.5, "config": f"c{number // size.folds}"}
            | {"information": "prior knowledge" if about else "", "modality": about, "dated": "", "flags": ""}
            | {"complexity": "simple", "inner_score": 1.0}
        )  # fmt: skip
    return pd.DataFrame(lines)


def scored(runs: pd.DataFrame, metrics: list[str], units: int) -> pd.DataFrame:
    """Random scores of every run on its test rows: ``units`` perturbations in every context."""
    rng = np.random.default_rng(0)
    fold = runs["fold"].str.removeprefix("fold").astype(int).to_numpy()
    n, of = fold.max() + 1, np.arange(units * len(CONTEXTS))
    parts = [of[of // len(CONTEXTS) % n == f] for f in range(n)]
    length = [len(parts[f]) for f in fold]
    row, run = np.concatenate([parts[f] for f in fold]), np.repeat(np.arange(len(runs)), length)
    names = np.array([f"gene{u}" for u in range(units)], dtype=object)
    base = pd.DataFrame({"row": row, "covered": row % 10 > 0, "group": "", "detectable": row % 3 > 0})
    base["condition"] = base["unit"] = pd.Categorical(names[row // len(CONTEXTS)])
    base["context"] = pd.Categorical(np.array(CONTEXTS, dtype=object)[row % len(CONTEXTS)])
    for column in ("key", "dataset", "split", "genes", "head", "embedding", "context_embedding", "role", "fold"):
        codes, levels = pd.factorize(runs[column])
        base[column] = pd.Categorical.from_codes(codes[run], categories=levels)
    level = rng.normal(1.0, 0.2, len(runs))[run]
    made = [base.assign(metric=m, value=level + rng.normal(0, 0.5, len(row))) for m in metrics]
    out = pd.concat(made, ignore_index=True)
    return out.assign(metric=out["metric"].astype("category"))


def details_of(runs: pd.DataFrame, units: int) -> dict[str, Any]:
    """Six single predictions of 120 genes and two populations per dataset."""
    rng, genes = np.random.default_rng(1), [f"GENE{i}" for i in range(120)]
    out: dict[str, Any] = {"conditions": {}, "examples": [], "populations": []}
    n = units * len(CONTEXTS)
    for dataset in runs["dataset"].unique():
        facts = {"row": np.arange(n), "effect_norm": rng.lognormal(1, 0.5, n), "n_cells": rng.integers(20, 500, n)}
        out["conditions"][dataset] = facts
        where = {"dataset": dataset, "split": "unseen_perturbation", "genes": "all", "embedding": "embedding_0"}
        where |= {"head": "head_0:alpha=0", "fold": "fold0", "context": CONTEXTS[0]}
        for i in range(6):
            values = {"names": genes, "true": rng.normal(size=120), "predicted": rng.normal(size=120)}
            near = [[f"gene{j}", float(w)] for j, w in enumerate(np.sort(rng.random(20))[::-1])]
            out["examples"].append({**where, "condition": f"gene{i}", **values, "neighbours": near})
        for i in range(2):
            cells = {name: rng.normal(size=(150, 2)) for name in ("real", "predicted", "control")}
            of_genes = ("mean_true", "mean_predicted", "variance_true", "variance_predicted")
            stats = {name: rng.lognormal(size=120) for name in of_genes}
            out["populations"].append({**where, "condition": f"gene{i}", **cells, "names": genes, **stats})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = {"embeddings": 10, "heads": 8, "folds": 5, "datasets": 4, "metrics": 6, "draws": 3, "units": 100}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "report_size.html")
    size = parser.parse_args()
    names = [f"metric_{i}_all" for i in range(size.metrics)]
    runs = grid(size)
    scores = scored(runs, names, size.units)
    ceilings = scores[["dataset", "genes", "row", "condition", "context", "metric"]].drop_duplicates()
    ceilings = ceilings.assign(value=0.3, note="simulated", variant="noise_free", bias=0.01)
    about = {n: {"best": "low", "lower": 0.0, "upper": np.inf, "level": "condition", "source": "random"} for n in names}
    facts = {d: {"controls": "halves", "simulated": True} for d in runs["dataset"].unique()}
    start = time.perf_counter()
    made: dict[str, list[pd.DataFrame]] = {"leaderboard": [], "by_context": [], "decomposition": [], "rank_boxes": []}
    for name, subset in itertools.product(names, SUBSETS):
        part = scores[(scores["metric"] == name).to_numpy()]
        for table, make in (("leaderboard", tables.leaderboard), ("by_context", tables.by_context)):
            made[table].append(make(part, runs, ceilings, about, metric=name, subset=subset, bootstrap=100))
        made["decomposition"].append(decomposition(part, runs, about, metric=name, subset=subset, bootstrap=100))
        if subset == "all":
            made["rank_boxes"].append(rank_boxes(part, runs, about, metric=name))
    shown = {name: pd.concat(parts, ignore_index=True) for name, parts in made.items()}
    shown |= {"problems": tables.problems(runs), "timings": tables.timings(runs), "chosen": tables.chosen(runs)}
    shown |= {"by_information": by_information(shown["leaderboard"], about)}
    tabled = time.perf_counter()
    frames = SimpleNamespace(runs=runs, scores=scores, ceilings=ceilings, metrics=about, facts=facts)
    bundle = make_bundle(frames, shown, details_of(runs, size.units), {"seeds": [0]})
    bundled = time.perf_counter()
    page = write_page(size.out, bundle)
    written = time.perf_counter()
    print(f"{len(runs)} runs, {len(scores)} scores, {len(shown['leaderboard'])} lines of leaderboard")
    print(f"tables {tabled - start:.1f} s, bundle {bundled - tabled:.1f} s, page {written - bundled:.1f} s")
    print(f"{page}: {page.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
