"""A tiny TranscriptFormer folder for the contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from oracles._genes import ENSEMBL
from oracles._write_transcriptformer import GENES, Shape, write_checkpoint

TINY = Shape(width=16, heads=2, hidden=24, layers=2, protein=12, length=31, block=32, seed=35)


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the entries that read such a folder."""
    write_checkpoint(folder, TINY.seed, shape=TINY)
    with h5py.File(folder / "vocabs" / "homo_sapiens_gene.h5", "r+") as file:
        file["keys"][:] = np.array(ENSEMBL[: len(GENES)], dtype="S")  # the oracle's vocabulary lacks the first ten
        for old, new in zip(GENES, ENSEMBL[: len(GENES)], strict=True):
            file.move(f"arrays/{old}", f"arrays/new_{new}")
        for new in ENSEMBL[: len(GENES)]:
            file.move(f"arrays/new_{new}", f"arrays/{new}")
    given = {"checkpoint": str(folder), "level": "gene", "device": "cpu"}
    return {f"embeddings/transcriptformer-{name}": given for name in ("sapiens", "exemplar", "metazoa")}
