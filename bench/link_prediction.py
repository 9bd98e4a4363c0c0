"""Held-out edges of a network: how well node vectors tell them from pairs that are no edge.

Usage: ``python bench/link_prediction.py [EDGES] [--only NAME ...] [--registry FILE] [--dim N]``. EDGES is by default
the STRING network of the shared test data. Of its largest component 10 % of the edges are held out, drawn from those
outside a random spanning tree, so that the training graph stays connected and every node has a vector. Each method
reads a file of the training edges only, in a process and on one thread of its own, through the registry. A held-out
edge counts against a pair that is no edge of the whole network, in which nodes are as frequent as among the held-out
edges: the product of degrees scores about 0.5. A check of the methods, not evidence about perturbations.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

STRING = Path("shared", "data", "knowledge", "string_v12_entrez_ntm_700_400_k3.tsv.gz")
SHARE = 0.1
COLUMNS = ("vectors", "dim", "AUC", "AUC, cosine", "validation AUC", "epochs", "CPU s", "s", "peak MB", "covered")
METHODS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {  # label -> names of the entry, parameters
    "GNN, GCN": (("string-gnn",), {"layer": "gcn", "threshold": None}),
    "GNN, GIN": (("string-gnn",), {"layer": "gin", "threshold": None}),
    "GNN, GCN, random start": (("string-gnn",), {"layer": "gcn", "start": "random", "threshold": None}),
    "spectral": (("edge_spectral",), {}),
    "diffusion": (("edge_diffusion",), {}),
    "wavelet": (("edge_wavelet", "string-wavelet"), {}),
    "node2vec, factorised": (("edge_node2vec", "string-node2vec"), {"method": "factorise"}),
    "node2vec, walks": (("edge_node2vec", "string-node2vec"), {"method": "walks"}),
}


def default_edges() -> Path:
    """The shared STRING file, beside one of the folders above this file."""
    for folder in Path(__file__).resolve().parents:
        if (folder / STRING).is_file():
            return folder / STRING
    raise SystemExit(f"expected {STRING} beside a folder above {Path(__file__).name}, found none; give an edge table")


def cut(edges: Path, folder: Path, seed: int) -> Path:
    """Write ``train.tsv`` and ``test.npz`` (names, held-out pairs, negatives, training degrees) into ``folder``."""
    from embbench.embeddings._graph import GraphParameters
    from embbench.embeddings._links import edge_pairs, hold_out, matched_negatives

    names, adjacency, _ = GraphParameters(str(edges)).component()
    (pairs, weights), rng = edge_pairs(adjacency), np.random.default_rng(seed)
    held = hold_out(pairs, len(names), SHARE, rng)
    kept = zip(pairs[~held].tolist(), weights[~held].tolist(), strict=True)
    lines = [f"{names[i]}\t{names[j]}\t{weight}" for (i, j), weight in kept]
    (folder / "train.tsv").write_text("\n".join(["gene1\tgene2\tweight", *lines]), encoding="utf-8")
    wrong = matched_negatives(pairs[held], pairs, len(names), rng)
    degree = np.bincount(pairs[~held].ravel(), minlength=len(names))
    np.savez(folder / "test.npz", names=names, held=pairs[held], wrong=wrong, degree=degree)
    print(f"{edges.name}: {len(names)} nodes, {len(pairs)} edges, {held.sum()} held out, {len(wrong)} negatives\n")
    return folder / "train.tsv"


def scores(names: np.ndarray, matrix: np.ndarray, folder: Path) -> dict[str, float]:
    """AUC of inner product and of cosine, and the share of test pairs whose two ends have vectors."""
    from embbench.core import Embedding
    from embbench.embeddings._links import pair_auc

    test = np.load(folder / "test.npz")
    vectors, found = Embedding(names, matrix).lookup(test["names"].tolist())
    held, wrong = (test[kind][found[test[kind]].all(axis=1)] for kind in ("held", "wrong"))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    covered = (len(held) + len(wrong)) / (len(test["held"]) + len(test["wrong"]))
    return {"inner": pair_auc(vectors, held, wrong), "cosine": pair_auc(unit, held, wrong), "covered": covered}


def one(task: dict[str, Any], folder: Path) -> None:
    """Compute one method's vectors in this process and print its row as JSON."""
    from embbench.registry import Registry

    extractor = Registry(*map(Path, task["registries"])).get("embeddings", task["entry"]).make(**task["given"])
    began, cpu = time.perf_counter(), time.process_time()
    table = extractor.compute(None, None)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = {key: table.provenance.get(key) for key in ("validation_auc", "best_epoch", "epochs")}
    row = {"seconds": seconds, "cpu": cpu, "peak": peak / 2**10, "dim": table.matrix.shape[1], **facts}
    print(json.dumps({**row, **scores(table.names, table.matrix, folder)}))


def registered(names: tuple[str, ...], registries: list[Path]) -> str | None:
    """The first of the entry names that is registered."""
    from embbench.registry import Registry

    known = {entry.name for entry in Registry(*registries).entries("embeddings")}
    return next((name for name in names if name in known), None)


def line(label: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    auc = row.get("validation_auc")
    epochs = "" if auc is None else f"{row['best_epoch']} of {row['epochs']}"
    numbers = f"{row['inner']:.4f} | {row['cosine']:.4f} | {'' if auc is None else f'{auc:.4f}'} | {epochs}"
    costs = f"{row['cpu']:.0f} | {row['seconds']:.0f} | {row['peak']:.0f}"
    return f"| {label} | {row['dim']} | {numbers} | {costs} | {row['covered']:.3f} |"


def main() -> None:
    """Cut, train each method in a process of its own, print the table."""
    import embbench.registry

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edges", type=Path, nargs="?")
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--registry", type=Path, action="append", default=[], help="a further registry file")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=600, help="seconds a method may take")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        one(json.loads(given.task), given.folder)
        return
    registries = [*embbench.registry.default().paths, *given.registry]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        train = cut(given.edges or default_edges(), folder, given.seed)
        print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
        print(degree_line(folder), flush=True)
        for label in given.only:
            names, more = METHODS[label]
            entry = registered(names, registries)
            if entry is None:
                print(
                    f"| {label} | skipped: none of {', '.join(names)} is registered {'| ' * (len(COLUMNS) - 1)}",
                    flush=True,
                )
                continue
            params = {"graph": str(train), "dim": given.dim, **more}
            task = {"entry": entry, "given": params, "registries": list(map(str, registries))}
            row = run(task, folder, given.limit)
            blank = "| " * (len(COLUMNS) - 1)
            print(f"| {label} | over {given.limit:g} s {blank}" if row is None else line(label, row), flush=True)


def degree_line(folder: Path) -> str:
    """What training degrees alone reach: about 0.5, or the negatives are not matched."""
    test = np.load(folder / "test.npz")
    row = scores(test["names"], test["degree"][:, None].astype(np.float32), folder)
    return line("degree alone", {**row, "dim": 1, "cpu": 0, "seconds": 0, "peak": 0})


def run(task: dict[str, Any], folder: Path, limit: float) -> dict[str, Any] | None:
    """One method in a fresh process on one thread; its row, None after ``limit`` seconds."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--folder", str(folder), "--task", json.dumps(task)]
    try:
        done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise SystemExit(f"{task['entry']}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
