"""Tiny triple tables for the entries that need a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from embbench.checks._toy import KNOWN, UNKNOWN

RELATIONS = ("binds", "regulates", "takes part in")


def triples(n: int = 120) -> list[tuple[str, str, str]]:
    """Random triples between known genes, names that nobody knows, and two pathways; every node occurs."""
    rng = np.random.default_rng(3)
    nodes = [*KNOWN, *UNKNOWN, "pathway one", "pathway two"]
    heads, tails = rng.permutation(np.arange(n) % len(nodes)), rng.integers(0, len(nodes), n)
    return [(nodes[h], RELATIONS[(h + t) % 3], nodes[t]) for h, t in zip(heads, tails, strict=True) if h != t]


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Constructor parameters of each entry, with its file written into ``folder``."""
    path = folder / "triples.tsv"
    path.write_text("\n".join("\t".join(triple) for triple in triples()) + "\n", encoding="utf-8")
    common = {"path": str(path), "dim": 4, "epochs": 2, "batch_size": 64, "negatives": 2}
    return {"embeddings/transe": common, "embeddings/rotate": common}
