"""Tiny scPRINT checkpoints for the contracts, one file per published size."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from oracles._write_scprint import Shape, write_checkpoint

TINY = Shape(width=16, heads=2, layers=2, seed=25)
FILES = {"small": "small-v1.ckpt", "medium": "medium-v1.5.ckpt", "large": "large-v1.ckpt"}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the entries that read such a folder."""
    write_checkpoint(folder, TINY.seed, shape=TINY)
    for file in FILES.values():
        shutil.copyfile(folder / "tiny.ckpt", folder / file)
    given = {"checkpoint": str(folder), "level": "gene", "device": "cpu"}
    return {f"embeddings/scprint-{size}": given for size in FILES}
