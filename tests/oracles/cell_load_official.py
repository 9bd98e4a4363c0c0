"""What cell-load trains, validates and tests on, given the TOML files that embbench exports.

cell-load 0.10.4 (MIT). From the root of the repository: ``make oracles/cell_load``, or

    python3.11 -m venv .oracle && .oracle/bin/pip install -c constraints/cpu.txt cell-load==0.10.4
    PYTHONPATH=tests .oracle/bin/python -W ignore -m oracles.cell_load_official

The perturbed cells of every set are read back as (label, context) pairs; the small data file is made here. The stored
text is what was read, so that a test sees whether today's export still is that text.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from cell_load.data_modules import PerturbationDataModule
from oracles._arc_cases import CONTROL, folds, screen

from embbench.core import PerturbationDataset
from embbench.exchange._arc import write
from embbench.exchange._roles import Options, Roles, labels_of

EXPECTED = Path(__file__).resolve().parent / "expected" / "cell_load_official.json"


def cells(path: Path, data: PerturbationDataset, labels: list[str]) -> None:
    """Two cells per condition and four controls per context, as cell-load reads them."""
    pairs = [(label, c) for label, c in zip(labels, data.context, strict=True) for _ in range(2)]
    pairs += [(CONTROL, c) for c in data.contexts for _ in range(4)]
    obs = pd.DataFrame(pairs, columns=["gene", "cell_type"], dtype="category").assign(gem_group="1")
    obs.index = [f"cell{i}" for i in range(len(obs))]
    obs = obs.astype("category")
    adata = anndata.AnnData(np.ones((len(obs), 3), np.float32), obs=obs)
    adata.obsm["X_hvg"] = np.ones((len(obs), 3), np.float32)
    adata.write_h5ad(path)


def parts(toml: Path) -> dict[str, list[str]]:
    """Conditions of each set as ``label|context``."""
    module = PerturbationDataModule(str(toml), num_workers=0, embed_key="X_hvg", control_pert=CONTROL)
    module.setup()
    found = {}
    for name in ("train", "val", "test"):
        pairs = set()
        for subset in getattr(module, f"{name}_datasets"):
            obs = anndata.read_h5ad(subset.dataset.h5_path, backed="r").obs.iloc[np.asarray(subset.indices)]
            pairs |= {f"{g}|{c}" for g, c in zip(obs.gene, obs.cell_type, strict=True) if g != CONTROL}
        found[name] = sorted(pairs)
    return found


def main() -> None:
    """Write the expected file."""
    data, found = screen(), {}
    with tempfile.TemporaryDirectory() as folder:
        for case, (fold, labels, unused) in folds().items():
            path = Path(folder) / f"{case}.toml"
            options = Options(labels=labels, unused=unused, data="small.h5ad")
            text = write(data, Roles.of(fold, len(data)), options)[0][".toml"].decode()
            own = path.with_suffix(".h5ad")  # cell-load remembers the labels of a file by its path
            cells(own, data, labels_of(data, options))
            path.write_text(text.replace('"small.h5ad"', json.dumps(str(own))), encoding="utf-8")
            found[case] = {"text": text, "parts": parts(path)}
    versions = {name: version(name) for name in ("cell-load", "toml", "anndata")}
    EXPECTED.write_text(
        json.dumps({"versions": versions, "cases": found}, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )


if __name__ == "__main__":
    main()
