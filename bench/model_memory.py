"""Memory of contextual extraction from 20,000 control cells, above the loaded model.

A screen of 20,000 control cells (20,000 genes, about 2,000 counted in each) is written as an import writes it; scGPT of
published width and vocabulary (random weights) is fed with all of them through the extractor. The number of layers and
tokens is a parameter, because only the activations of one batch depend on them: one layer keeps the run short, and a
second line with 12 layers and 1,200 tokens on few cells shows what a batch takes.

    python bench/model_memory.py [--cells 20000] [--genes 20000]
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import sparse

from embbench.cache.cells import CONTROL, A, H5Cells, cells_writer
from embbench.core import PerturbationDataset
from embbench.embeddings.models.scgpt import ScGPT

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = 60_694


def write_checkpoint(folder: Path, layers: int) -> None:
    """An scGPT folder of published width and vocabulary with random weights; the screen's genes come first."""
    from oracles import _write_scgpt as writer

    shape = writer.Shape(width=512, heads=8, hidden=512, layers=layers, pad_value=-2, seed=1)
    tokens = [*(f"GENE{i}" for i in range(VOCABULARY)), *writer.SPECIAL]
    writer.write_checkpoint(folder, 1, tokens=tokens, shape=shape, layout="Wqkv")


def write_cells(path: Path, cells: int, genes: int, counted: int) -> None:
    """Control cells with Poisson counts over about ``counted`` genes each, written in chunks."""
    rng = np.random.default_rng(0)
    with cells_writer(path, genes) as writer:
        for start in range(0, cells, 1000):
            m = min(1000, cells - start)
            block = sparse.random(m, genes, counted / genes, format="csr", random_state=rng, dtype=np.float32)
            block.data = rng.poisson(1.0, block.nnz).astype(np.float32) + 1
            total = np.asarray(block.sum(axis=1), dtype=np.float64).ravel()
            block.data = np.log1p(block.data * np.repeat(1e4 / total, np.diff(block.indptr))).astype(np.float32)
            code = {"row": np.full(m, CONTROL), "context": np.zeros(m, int), "half": np.full(m, A)}
            names = np.array([f"cell{i}" for i in range(start, start + m)], dtype=object)
            writer.append(block, names, total=total, batch=np.zeros(m, int), **code)
        writer.finish(np.zeros(1, np.int32), np.zeros(1, np.int32))


def peak() -> float:
    """Largest resident memory so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))  # the writer of checkpoints in published format
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--counted", type=int, default=2_000)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=256)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, path = Path(scratch) / "scgpt", Path(scratch) / "cells.h5"
        write_checkpoint(folder, given.layers)
        write_cells(path, given.cells, given.genes, given.counted)
        genes = np.array([f"GENE{i}" for i in range(given.genes)], dtype=object)
        one = np.zeros((1, given.genes), np.float32)
        screen = PerturbationDataset(
            "bench", one, "delta", genes, (("GENE1",),), np.array(["c"]), cells=H5Cells(path, genes)
        )
        model = ScGPT(str(folder), "gene", cells=None, max_length=given.max_length, device="cpu")
        model.network()
        view = screen.training(np.arange(1))
        before, began = peak(), time.perf_counter()
        table = model.one_context(view, 0)
        sys.stdout.write(
            f"{given.cells:,} cells, {given.layers} layers, {given.max_length} tokens: {len(table.names):,} vectors, "
            f"peak {peak():.2f} GB, {peak() - before:.2f} GB above the {before:.2f} GB before the first cell; "
            f"{time.perf_counter() - began:.0f} s\n"
        )


if __name__ == "__main__":
    main()
