"""A tiny scGPT folder for the contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oracles._write_scgpt import Shape, write_checkpoint

from embbench.checks._toy import KNOWN, MEASURED

TINY = Shape(width=16, heads=2, hidden=24, layers=2, pad_value=-2, seed=5)


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the entries that read such a folder."""
    write_checkpoint(folder, tokens=[*KNOWN, *MEASURED, "<pad>", "<cls>", "<eoc>"], shape=TINY, layout="Wqkv")
    return {"embeddings/scgpt": {"checkpoint": str(folder), "level": "gene", "device": "cpu"}}
