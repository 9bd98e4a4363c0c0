"""Tiny author files of Replogle et al. 2022 and Nadig et al. 2025: raw cells, pseudobulk, the STATE merge."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _published import ENSEMBL, GENES, Files, cells, h5ad, placed

CONTROL = "non-targeting"
TARGETS = GENES[:6]
WHERE = dict(zip(GENES, ENSEMBL, strict=True))
ABSENT = {"K562": 3, "rpe1": 4, "hepg2": 5, "jurkat": 6}  # each line lacks a gene that the others have
FILES = {
    "K562": "K562_essential_raw_singlecell_01.h5ad",
    "rpe1": "rpe1_raw_singlecell_01.h5ad",
    "hepg2": "GSE264667_hepg2_raw_singlecell_01.h5ad",
    "jurkat": "GSE264667_jurkat_raw_singlecell_01.h5ad",
}


def table(line: str, per_label: int = 12) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Counts (cells, genes), obs and Ensembl ids of a line; three gem groups by turns."""
    seed = list(ABSENT).index(line)
    counts, labels = cells((CONTROL, *TARGETS), per_label, seed=seed)
    kept = [i for i in range(len(GENES)) if i != len(GENES) - ABSENT[line]]
    obs = {
        "gem_group": np.arange(len(labels)) % 3 + 1,
        "gene": labels,
        "gene_id": [WHERE.get(label, label) for label in labels],
        "transcript": [label if label == CONTROL else "P1P2" for label in labels],
        "sgID_AB": [f"{label}_+_1.23-P1P2|{label}_-_4.23-P1P2" for label in labels],
        "UMI_count": counts.sum(axis=1) + 50.0,  # of all genes, more than the file has
    }
    return counts[:, kept], obs, [ENSEMBL[i] for i in kept]


@functools.cache
def line_file(line: str) -> bytes:
    """Dense counts, genes by Ensembl id, symbols that repeat."""
    counts, obs, genes = table(line)
    return h5ad(counts, obs, {"gene_name": ["TBCE" if i < 2 else f"S{i}" for i in range(len(genes))]}, genes)


def alone(line: str, name: str = "") -> Files:
    """One line."""
    return {name or FILES[line]: line_file(line)}


def merged() -> Files:
    """All four lines."""
    return {name: line_file(line) for line, name in FILES.items()}


def bulk(name: str, scores: bool = False) -> Files:
    """Rows per promoter: two genes with two rows, four rows of control guides, one row that tells no gene."""
    import anndata
    import pandas as pd

    rng = np.random.default_rng(5)
    rows = [(gene, f"P{i + 1}") for gene in TARGETS for i in range(2 if gene in TARGETS[:2] else 1)]
    names = [f"{i}_{gene}_{place}_{WHERE[gene]}" for i, (gene, place) in enumerate(rows)]
    names += [f"{90 + i}_{CONTROL}_{CONTROL}_{CONTROL}" for i in range(4)] + ["99_nan_P1_nan"]
    level = rng.gamma(2.0, 3.0, len(GENES)) + 1
    values = level * rng.uniform(0.5, 2.0, (len(names), len(GENES)))
    if scores:
        values = rng.normal(size=values.shape)
        values[2, 3], values[4, 5] = np.inf, np.nan
        values[:, 7] = np.nan
    obs = pd.DataFrame(
        {
            "num_cells_filtered": 20.0 + np.arange(len(names)),
            "core_control": [CONTROL in name for name in names],
            "UMI_count_unfiltered": 12000.0,
        },
        index=pd.Index(names, name="gene_transcript"),
    )
    var = pd.DataFrame({"gene_name": list(GENES)}, index=pd.Index(ENSEMBL, name="gene_id"))
    with tempfile.TemporaryDirectory() as folder:
        anndata.AnnData(values.astype(np.float32), obs=obs, var=var).write_h5ad(Path(folder) / "x.h5ad")
        return {name: (Path(folder) / "x.h5ad").read_bytes()}


def state() -> Files:
    """Two lines log-normalised, as the recipe gives from counts."""
    made = [table(line) for line in ("hepg2", "jurkat")]
    shared = [gene for gene in ENSEMBL if all(gene in genes for _, _, genes in made)]
    counts = np.concatenate([x[:, [genes.index(gene) for gene in shared]] for x, _, genes in made])
    obs = {key: [value for _, each, _ in made for value in each[key]] for key in ("gene", "gem_group")}
    obs["cell_line"] = [line for line, (x, _, _) in zip(("hepg2", "jurkat"), made, strict=True) for _ in x]
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    symbols = [gene for gene in GENES if WHERE[gene] in shared]
    return {"replogle.h5ad": h5ad(values, obs, {}, symbols)}


MINIS = {
    "replogle22_k562_essential_raw": lambda: alone("K562"),
    "replogle22_rpe1_raw": lambda: alone("rpe1"),
    "replogle22_k562_gwps_raw": lambda: alone("K562", "K562_gwps_raw_singlecell_01.h5ad"),
    "nadig25_hepg2_raw": lambda: alone("hepg2"),
    "nadig25_jurkat_raw": lambda: alone("jurkat"),
    "essential_raw": merged,
    "replogle22_k562_essential_bulk_raw": lambda: bulk("K562_essential_raw_bulk_01.h5ad"),
    "replogle22_k562_essential_bulk": lambda: bulk("K562_essential_normalized_bulk_01.h5ad", scores=True),
    "replogle22_rpe1_bulk_raw": lambda: bulk("rpe1_raw_bulk_01.h5ad"),
    "replogle22_rpe1_bulk": lambda: bulk("rpe1_normalized_bulk_01.h5ad", scores=True),
    "replogle22_k562_gwps_bulk_raw": lambda: bulk("K562_gwps_raw_bulk_01.h5ad"),
    "replogle22_k562_gwps_bulk": lambda: bulk("K562_gwps_normalized_bulk_01.h5ad", scores=True),
    "replogle_nadig_state": state,
}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters for the contracts."""
    return placed(folder, MINIS)
