"""What PerturBench's released splitter answers, for tests of `embbench.splits.perturbench_transfer`.

PerturBench is not on a package index, so the released file is fetched by hand and named on the command line; it needs
numpy, pandas and scikit-learn alone once the import of omegaconf (for a type annotation) is satisfied:

    pip install pandas==2.3.3 scikit-learn==1.9.1 omegaconf
    PYTHONPATH=tests python -m oracles.perturbench_split_official FOLDER/datasplitter.py

where ``datasplitter.py`` is ``src/perturbench/data/datasplitter.py`` of altoslabs/perturbench, commit 4dd6a03. The
stored file was made with that file's text cut to the class's constructor, ``split_covariates`` and what it calls.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DEVEL = HERE.parents[2] / "shared" / "data" / "expression" / "perturbench_norman19_mcfaline23_devel.h5ad"
EXPECTED = HERE / "expected" / "perturbench_split_official.json"
FIELDS = {
    "seed": "seed",
    "max_held": "max_heldout_covariates",
    "min_train": "min_train_covariates",
    "fraction": "max_heldout_fraction_per_covariate",
    "most": "max_heldout_perturbations_per_covariate",
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"mcfaline_{seed}": ("mcfaline", {"seed": seed, "max_held": 1}) for seed in (42, 54, 57)},
    "mcfaline_two": ("mcfaline", {"seed": 7, "max_held": 2, "fraction": 0.5}),
    "devel": ("devel", {"seed": 42, "max_held": 1}),
    "devel_three": ("devel", {"seed": 3, "max_held": 3, "min_train": 2}),
    **{f"drawn_{seed}": ("drawn", {"seed": seed, "max_held": 1}) for seed in (0, 42)},
    "drawn_many": ("drawn", {"seed": 54, "max_held": 4, "fraction": 0.4, "most": 9}),
    "drawn_keep": ("drawn", {"seed": 11, "max_held": 6, "min_train": 4, "fraction": 0.2}),
    "drawn_few": ("drawn", {"seed": 5, "max_held": 1, "fraction": 0.031}),
}


def cells(name: str) -> list[tuple[str, str]]:
    """Perturbation and context of every cell of a case, in file order."""
    if name == "drawn":
        draw = random.Random(20)
        contexts = ["A", "A B", "B-7", "a549", "K562", "T/2"]
        names = [f"P{i}" for i in range(37)] + ["P1+P2", "P10+P3", "control"]
        pairs = [(p, c) for p in names for c in contexts if p == "control" or draw.random() < 0.8]
        return draw.sample(pairs, len(pairs)) + draw.sample(pairs, len(pairs))
    import anndata

    obs = anndata.read_h5ad(DEVEL, backed="r").obs
    obs = obs[obs.dataset == "mcfaline23"] if name == "mcfaline" else obs
    return list(zip(obs.condition.astype(str), obs.cell_type.astype(str), strict=True))


def official(splitter: Any, name: str, options: dict[str, Any]) -> dict[str, str | None]:
    """Part of every pair, as the released code labels its cells."""
    import pandas as pd

    rows = cells(name)
    obs = pd.DataFrame(rows, columns=["condition", "cell_type"], index=[f"cell{i}" for i in range(len(rows))])
    made = splitter.PerturbationDataSplitter(obs, "condition", "control", ["cell_type"])
    parts = made.split_covariates(print_split=False, **{FIELDS[k]: v for k, v in options.items()})
    return {f"{p}|{c}": part for (p, c), part in zip(rows, parts, strict=True) if p != "control"}


def main() -> None:
    """Write the expected file with the versions it was made with."""
    import pandas as pd
    import sklearn

    spec = importlib.util.spec_from_file_location("datasplitter", sys.argv[1])
    splitter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(splitter)
    versions = {"pandas": pd.__version__, "sklearn": sklearn.__version__, "python": sys.version.split()[0]}
    versions["perturbench"] = "datasplitter.py at 4dd6a03, split_covariates and what it calls"
    found = {case: official(splitter, *asked) for case, asked in CASES.items()}
    EXPECTED.write_text(json.dumps({"versions": versions, "parts": found}, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
