"""A tiny table of cell vectors, one per control cell of the toy screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from embbench.checks import toy_screen


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the entry that reads such a table."""
    cells = toy_screen().cells
    names = np.concatenate([cells.names(code, half) for code in range(3) for half in "AB"])
    vectors = np.random.default_rng(3).normal(size=(len(names), 4))
    np.savez(folder / "cells.npz", names=names, matrix=vectors)
    return {"embeddings/cell_table": {"path": str(folder / "cells.npz")}}
