"""What the checkpoint writers share: random numbers that are the same bits on every machine, counts, digests.

Only uniform draws, integers and what IEEE 754 rounds exactly: no logarithm or exponential, whose last bit may differ
between mathematical libraries.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

EXPECTED = Path(__file__).with_name("expected")
LEVELS = (1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 9, 14, 35)  # counts of expressed genes: many ties, a long tail


class Draw:
    """Random parameters, float32, in the order of the calls.

    Parameters
    ----------
    seed : another seed, other numbers.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def uniform(self, *shape: int, width: float = 1.0, centre: float = 0.0) -> np.ndarray:
        """Numbers of the given shape in [centre - width, centre + width)."""
        return (centre + width * (2.0 * self.rng.random(shape) - 1.0)).astype(np.float32)

    def linear(self, key: str, rows: int, columns: int, *, bias: bool = True, dot: str = ".") -> dict[str, np.ndarray]:
        """``key.weight`` (rows, columns) and ``key.bias``; the width keeps activations near 1 at these sizes."""
        out = {f"{key}{dot}weight": self.uniform(rows, columns, width=1.6 / math.sqrt(columns))}
        return out | {f"{key}{dot}bias": self.uniform(rows, width=0.3)} if bias else out

    def norm(self, key: str, size: int) -> dict[str, np.ndarray]:
        """A LayerNorm whose scale and shift are not 1 and 0, so that a forgotten one shows."""
        return {
            f"{key}.weight": self.uniform(size, width=0.3, centre=1.0),
            f"{key}.bias": self.uniform(size, width=0.3),
        }


def counts(
    seed: int, known: Sequence[str], cells: int, *, foreign: Sequence[str] = (), empty: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of shape (cells, genes), int64, and the gene names: known and foreign genes in mixed order.

    Cells differ in depth and in how many genes they express; many values tie.

    Parameters
    ----------
    seed : of the numbers and of the order of genes.
    known : genes of the model that the data hold.
    cells : number of cells.
    foreign : genes that the model does not know; they have counts as well.
    empty : the last cell has no count at all.
    """
    rng = np.random.default_rng([seed, 1])
    names = np.array([*known, *foreign])
    names = names[np.argsort(rng.random(len(names)), kind="stable")]
    shape = (cells, len(names))
    detected = rng.random(shape) < (0.25 + 0.6 * rng.random((cells, 1))) * (0.3 + 0.7 * rng.random((1, len(names))))
    depth = np.array((1, 2, 1, 5))[np.arange(cells) % 4][:, None]
    matrix = np.where(detected, np.array(LEVELS)[rng.integers(0, len(LEVELS), shape)] * depth, 0)
    matrix[:, 0] += matrix.sum(axis=1) == 0  # no empty cell by accident
    if empty:
        matrix[-1] = 0
    return matrix.astype(np.int64), names


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Sha256 of names, shapes and values: tells a changed checkpoint from a wrong result.

    The expected files store it; a test regenerates the checkpoint and compares before it looks at any vector.
    """
    out = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        out.update(f"{name}{value.shape}{value.dtype.str}".encode())
        out.update(value.tobytes())
    return out.hexdigest()


def mean_over_cells(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of shape (genes, d), float32, and count of vectors of shape (cells, genes, d), NaN where a cell lacks it.

    Summed in float64; the mean of a gene that no cell has is NaN.
    """
    present = np.isfinite(rows[..., 0])
    n = present.sum(axis=0)
    total = np.where(present[..., None], rows, 0.0).sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return (total / n[:, None]).astype(np.float32), n.astype(np.int64)


def say(text: object) -> None:
    """A line for whoever runs a script."""
    sys.stdout.write(f"{text}\n")


def save(name: str, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write ``expected/<name>.npz``, compressed, and refuse what is too large to commit."""
    path = EXPECTED / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)
    if path.stat().st_size >= 300_000:
        raise SystemExit(f"{path.name}: expected less than 300 kB, found {path.stat().st_size} bytes")
    return path
