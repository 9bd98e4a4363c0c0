"""Tiny files of the frozen-embedding collection of Cole et al. 2026: effects, labels, gene and drug tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from embbench.checks import toy_screen
from embbench.checks._toy import COMPOUNDS, KNOWN, MEASURED
from embbench.genes import harmonise

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
    """Sci-Plex (``drug``, ``dose``) or Tahoe (``pubchem_cid``): folds as one column each that says train or test."""
    obs = conditions(names, ("A549", "MCF7")).rename(columns={"gene_id": key}).drop(columns="test_split")
    for fold in range(FOLDS):
        tested = np.arange(len(obs)) % len(names) % FOLDS == fold
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


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Writes every table; parameters by entry."""
    perturbed, genes = ensembl(KNOWN), ensembl([*KNOWN[:8], *MEASURED[:8]])
    cids = [2244.0 + i for i in range(10)]
    names = [*COMPOUNDS, *(f"drug {i}" for i in range(10 - len(COMPOUNDS)))]
    effects(folder / "essential_pseudobulk_deltas_all_perts.h5ad", perturbed, genes)
    effects(folder / "pseudobulk_deltas.h5ad", perturbed, genes, 3)
    effects(folder / "norman_pseudobulk_deltas.h5ad", perturbed, genes, line=False)
    labels(folder / "essential_deg_with_split.h5ad", perturbed, genes)
    drugs(folder / "sciplex3_pseudobulk_filtered.h5ad", "drug", names, genes)
    drugs(folder / "sciplex3_deg_filtered.h5ad", "drug", names, genes, of_labels=True)
    drugs(folder / "tahoe_pseudobulk_pert_platematched_withsplits.h5ad", "pubchem_cid", cids, genes)
    drugs(folder / "tahoe_deg_filtered.h5ad", "pubchem_cid", cids, genes, of_labels=True)
    rng = np.random.default_rng(4)
    gene_table(folder / "STRING_network_(D=4).h5ad", perturbed, rng.normal(size=(len(perturbed), 4)))
    known = [*toy_screen(0, "compound").entity_names, *names]
    known = list(dict.fromkeys(known))
    drug_table(folder / "tahoe_drug_embeddings.h5ad", known, {"ecfp:2": rng.normal(size=(len(known), 6))})
    drug_table(folder / "sciplex_drug_embeddings.h5ad", known, {"maccs": rng.normal(size=(len(known), 5))})
    files = {
        "essential_lfc": "essential_pseudobulk_deltas_all_perts.h5ad",
        "essential_lfc_subset": "pseudobulk_deltas.h5ad",
        "essential_deg": "essential_deg_with_split.h5ad",
        "norman_lfc": "norman_pseudobulk_deltas.h5ad",
        "sciplex_lfc": "sciplex3_pseudobulk_filtered.h5ad",
        "sciplex_deg": "sciplex3_deg_filtered.h5ad",
        "tahoe_lfc": "tahoe_pseudobulk_pert_platematched_withsplits.h5ad",
        "tahoe_deg": "tahoe_deg_filtered.h5ad",
    }
    root = {"root": str(folder)}
    out: dict[str, dict[str, Any]] = {
        f"datasets/{name}": {**root, "files": [{"name": file}]} for name, file in files.items()
    }
    out["embeddings/cole2026"] = {**root, "table": "STRING_network_(D=4)"}
    out["embeddings/cole2026-tahoe"] = {**root, "table": "ecfp:2"}
    out["embeddings/cole2026-sciplex"] = {**root, "table": "maccs"}
    return out
