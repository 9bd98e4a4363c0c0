"""Grids in tests: a registry file of one's own, a run without extras, and what it stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from embbench.core import PerturbationDataset
from embbench.grid.config import Grid
from embbench.grid.plan import Planned, plan
from embbench.grid.results import Results, Stored
from embbench.grid.schedule import run_grid
from embbench.grid.screens import screen

PLAIN = {"baselines": False, "permutations": {}, "features": ["raw"]}
FULL = "components.full_screen:FullScreen"


def write_registry(folder: Path, **sections: dict[str, Any]) -> tuple[str, ...]:
    """A user's registry file with these sections."""
    path = folder / "user.yaml"
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return (str(path),)


def write_vectors(path: Path, names: Sequence[str], matrix: np.ndarray) -> str:
    """A CSV table of vectors; returns its embedding spec."""
    rows = [",".join(["name", *(f"v{i}" for i in range(matrix.shape[1]))])]
    rows += [",".join([name, *map(repr, row)]) for name, row in zip(names, matrix.tolist(), strict=True)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return f"table:{path}"


def vectors(names: Sequence[str], dim: int, seed: int = 0) -> np.ndarray:
    """Normal vectors (n, dim) on the float32 grid."""
    return np.random.default_rng(seed).normal(size=(len(names), dim)).astype(np.float32).astype(np.float64)


def run(out: Path, paths: tuple[str, ...], **axes: Any) -> tuple[Results, list[Planned]]:
    """A grid without baselines, permutations and features unless asked for; every run must end well."""
    grid = Grid(**{**PLAIN, **axes})
    planned = plan(grid, paths)
    tally = run_grid(grid, out, paths=paths)
    assert not tally.failed, tally.messages
    return Results(out), planned


def stored(results: Results, planned: Planned, paths: tuple[str, ...]) -> tuple[Stored, PerturbationDataset]:
    """What a run predicted, and its screen with cells."""
    data = screen(planned.run.dataset, planned.run.genes, paths)
    return results.prediction(planned.key, data), data


def row_sums(data: PerturbationDataset, names: Sequence[str], matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the members' vectors per row (float64), and whether all members have one."""
    where = {name: i for i, name in enumerate(names)}
    has = np.array([all(e in where for e in row) for row in data.entities])
    sums = [sum(matrix[where[e]] for e in row if e in where) + np.zeros(matrix.shape[1]) for row in data.entities]
    return np.array(sums), has
