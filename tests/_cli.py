"""What the tests of the command line share: one call of ``embbench`` in a folder, a small screen, a small grid."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from embbench.cli.main import main
from embbench.grid.results import Results

GENES = ["KLF1", "TP53", "MYC", "GATA1", "SPI1", "BRCA1"]
IMPORT = "data import s.h5ad --name mine --perturbation-key gene --control non-targeting --context-key line"
GRID = (
    "grid --dataset sim_small --split unseen_perturbation:2 --emb hallmark:8,random:8 --head knn:k=3,ridge:alpha=10 "
    "--metrics l2_notarget,pearson_notarget --permutations 1 --out small"
)
GRID_FILE = """\
dataset: [sim_small]
split: [unseen_perturbation:2]
emb: [hallmark:8, random:8]
head: ["knn:k=3", "ridge:alpha=10"]
metrics: [l2_notarget, pearson_notarget]
permutations: {smoother: 1}
"""


@dataclass(frozen=True)
class Said:
    """How a call ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def embbench(folder: Path, line: str, **environment: str) -> Said:
    """One command in this process, as typed in ``folder`` with an EMBBENCH_HOME below it."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        for name, value in {"EMBBENCH_HOME": str(folder / "home"), "EMBBENCH_DEBUG": "", **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["embbench", *shlex.split(line)])
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "excepthook", sys.excepthook)
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


def embbench_process(folder: Path, line: str, **environment: str) -> Said:
    """The same in a process of its own."""
    command = [sys.executable, "-c", "from embbench.cli.main import main; main()", *shlex.split(line)]
    env = {**os.environ, "EMBBENCH_HOME": str(folder / "home"), **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


def screen(seed: int = 0, cells: int = 240) -> anndata.AnnData:
    """Counts of cells in two lines: four perturbations and controls."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "gene": rng.choice(["non-targeting", "KLF1", "MYC", "TP53", "KLF1+MYC"], cells),
            "line": rng.choice(["A", "B"], cells),
            "batch": rng.choice(["b0", "b1"], cells),
        },
        index=[f"cell{i}" for i in range(cells)],
    )
    counts = rng.poisson(rng.gamma(1, 3, (cells, len(GENES)))).astype(np.float32)
    counts[:, 0] += 1
    obs["total"] = counts.sum(axis=1) * 5
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame({"symbol": GENES}, index=GENES))


def small_grid(base: Path) -> Path:
    """A folder with the results of `GRID_FILE` in ``small``, made once per process; tests leave the results alone."""
    folder = base / "small-grid"
    if not folder.exists():
        folder.mkdir()
        (folder / "small.yaml").write_text(GRID_FILE, encoding="utf-8")
        said = embbench(folder, "grid small.yaml --out small")
        assert said.code == 0, said
    return folder


def run_id(results: Path, embedding: str, head: str) -> str:
    """Id of a configuration of a results folder."""
    runs = [planned for kept in Results(results).plans() for planned in kept["runs"]]
    return next(r["config"] for r in runs if r["run"].get("embedding") == embedding and r["run"]["head"] == head)
