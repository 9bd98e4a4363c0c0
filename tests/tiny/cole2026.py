"""Tiny files of the frozen-embedding collection of Cole et al. 2026: effects, labels, gene and drug tables."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from _published import Files, placed
from scipy import sparse

from embbench.checks import toy_screen
from embbench.checks._toy import COMPOUNDS, KNOWN, MEASURED
from embbench.genes import harmonise
from embbench.registry import default

LINES = ("K-562", "Jurkat", "Hep-G2")
FOLDS = 5


def ensembl(names: Sequence[str]) -> list[str]:
    """Identifiers as the files have them."""
    return list(harmonise(names, "ensembl").names)


def write(path: Path, X: Any, obs: pd.DataFrame, genes: Sequence[str], **more: Any) -> None:
    """AnnData as the collection has it: text columns are categories, row names are numbers unless given."""
    for name in obs.columns:
        if not pd.api.types.is_numeric_dtype(obs[name]):
            obs[name] = obs[name].astype("category")
    path.parent.mkdir(parents=True, exist_ok=True)
    anndata.AnnData(X, obs=obs.set_axis(obs.index.astype(str)), var=pd.DataFrame(index=list(genes)), **more).write_h5ad(
        path
    )


def conditions(perturbed: Sequence[str], lines: Sequence[str] = LINES) -> pd.DataFrame:
    """One row per line and perturbation with its fold, the same in all lines."""
    rows = [(line, name, i % FOLDS) for line in lines for i, name in enumerate(perturbed)]
    return pd.DataFrame(rows, columns=["cell_line", "gene_id", "test_split"])


def effects(path: Path, perturbed: Sequence[str], genes: Sequence[str], seed: int = 0, *, line: bool = True) -> None:
    """Essential (or, without lines, Norman): ``gene_id``, ``symbol``, ``cell_line``, ``test_split``."""
    obs = conditions(perturbed, LINES if line else LINES[:1])
    X = np.random.default_rng(seed).normal(0.1, 1, (len(obs), len(genes))).astype(np.float32)
    obs["symbol"] = obs["gene_id"]
    obs["test_split"] = obs["test_split"].astype(str)
    write(path, X, obs if line else obs.drop(columns="cell_line"), genes)


def labels(path: Path, perturbed: Sequence[str], genes: Sequence[str]) -> None:
    """Essential labels: int8, ``pert_id``."""
    obs = conditions(perturbed).rename(columns={"gene_id": "pert_id"})
    X = np.random.default_rng(1).integers(-1, 2, (len(obs), len(genes))).astype(np.int8)
    write(path, X, obs, genes)


def drugs(path: Path, key: str, names: Sequence[Any], genes: Sequence[str], *, of_labels: bool = False) -> None:
    """Sci-Plex (``drug``, ``dose``) or Tahoe (``pubchem_cid``): folds as one column each that says train or test; the
    sixth name says train in all of them.
    """
    obs = conditions(names, ("A549", "MCF7")).rename(columns={"gene_id": key}).drop(columns="test_split")
    for fold in range(FOLDS):
        at = np.arange(len(obs)) % len(names)
        tested = (at % FOLDS == fold) & (at != FOLDS)
        obs[f"fold_{fold}"] = np.where(tested, "test", "train")
    if key == "drug":
        obs["dose"] = 10000.0
    rng = np.random.default_rng(2)
    X = rng.integers(-1, 2, (len(obs), len(genes))) if of_labels else rng.normal(size=(len(obs), len(genes)))
    write(path, X.astype(np.int8 if of_labels else np.float32), obs, genes)


def gene_table(path: Path, names: Sequence[str], matrix: np.ndarray) -> None:
    """``gene_embeddings/NAME.h5ad``: identifiers as row names, X sparse."""
    obs = pd.DataFrame(index=list(names))
    write(path, sparse.csr_matrix(matrix.astype(np.float32)), obs, [f"{i}" for i in range(matrix.shape[1])])


def drug_table(path: Path, names: Sequence[str], tables: dict[str, np.ndarray]) -> None:
    """All drug vectors in one file: a key of obsm each."""
    write(path, np.zeros((len(names), 1), np.float32), pd.DataFrame(index=list(names)), ["none"], obsm=tables)


PERTURBED, GENES = ensembl(KNOWN), ensembl([*KNOWN[:8], *MEASURED[:8]])
CIDS = [2244.0 + i for i in range(10)]
DRUGS = [*COMPOUNDS, *(f"drug {i}" for i in range(10 - len(COMPOUNDS)))]
WRITERS: dict[str, Callable[[Path], None]] = {
    "essential_lfc": lambda path: effects(path, PERTURBED, GENES),
    "essential_lfc_subset": lambda path: effects(path, PERTURBED, GENES, 3),
    "essential_deg": lambda path: labels(path, PERTURBED, GENES),
    "norman_lfc": lambda path: effects(path, PERTURBED, GENES, line=False),
    "sciplex_lfc": lambda path: drugs(path, "drug", DRUGS, GENES),
    "sciplex_deg": lambda path: drugs(path, "drug", DRUGS, GENES, of_labels=True),
    "tahoe_lfc": lambda path: drugs(path, "pubchem_cid", CIDS, GENES),
    "tahoe_deg": lambda path: drugs(path, "pubchem_cid", CIDS, GENES, of_labels=True),
}


def served(name: str) -> Files:
    """The one file of an entry as it is served."""
    file = default().get("datasets", name).params["files"][0]["name"]
    with tempfile.TemporaryDirectory() as folder:
        WRITERS[name](path := Path(folder) / "made.h5ad")
        return {file: path.read_bytes()}


MINIS = {name: functools.partial(served, name) for name in WRITERS}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Writes every table; parameters by entry."""
    rng = np.random.default_rng(4)
    gene_table(folder / "STRING_network_(D=4).h5ad", PERTURBED, rng.normal(size=(len(PERTURBED), 4)))
    known = list(dict.fromkeys([*toy_screen(0, "compound").entity_names, *DRUGS]))
    drug_table(folder / "tahoe_drug_embeddings.h5ad", known, {"ecfp:2": rng.normal(size=(len(known), 6))})
    drug_table(folder / "sciplex_drug_embeddings.h5ad", known, {"maccs": rng.normal(size=(len(known), 5))})
    root = {"root": str(folder)}
    return {
        **placed(folder, MINIS),
        "embeddings/cole2026": {**root, "table": "STRING_network_(D=4)"},
        "embeddings/cole2026-tahoe": {**root, "table": "ecfp:2"},
        "embeddings/cole2026-sciplex": {**root, "table": "maccs"},
    }
