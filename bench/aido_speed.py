"""Seconds per cell of AIDO.Cell at published sizes and 19,266 tokens, random weights, on the CPU (no official peer).

The official code is on no package index in a form that is right without a GPU (docs/embeddings.md), so this prints the
cost of ours alone: what a user of a laptop has to expect, and why pseudobulk (``metacells=all``) exists.

    python bench/aido_speed.py [--cells 2] [--sizes 3m 10m]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import sparse

from embbench.core import Counts
from embbench.embeddings.models.aido_cell import AidoCell

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"3m": (128, 6, 4, 320), "10m": (256, 8, 8, 640), "100m": (640, 18, 20, 1664)}  # d, layers, heads, inner
GENES = 19_264


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))  # the writer of checkpoints in published format
    from tiny.aido_cell import write

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", default=["3m", "10m"], choices=sorted(SIZES))
    given = parser.parse_args()
    genes = [f"GENE{i}" for i in range(GENES)]
    values = sparse.random(given.cells, GENES, 0.15, format="csr", random_state=0, dtype=np.float32)
    values.data = np.ceil(values.data * 5)
    counts = Counts(values, np.array(genes, dtype=object), np.asarray(values.sum(axis=1), dtype=np.float64).ravel())
    print("| model | precision | s per cell |\n|---|---|---|")
    for size in given.sizes:
        width, layers, heads, inner = SIZES[size]
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "aido"
            write(folder, genes=genes, width=width, layers=layers, heads=heads, inner=inner)
            for precision in ("float32", "bfloat16"):
                model = AidoCell(str(folder), "gene", precision=precision, device="cpu")
                model.network()
                began = time.perf_counter()
                model.means(counts.rows, given.cells, keep=False)
                print(f"| {size} | {precision} | {(time.perf_counter() - began) / given.cells:.1f} |", flush=True)


if __name__ == "__main__":
    main()
