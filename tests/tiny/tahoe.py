"""Tiny Tahoe-100M files: plates in h5ad, and shards and tables in parquet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _published import ENSEMBL, GENES, Files, cells, h5ad, placed

DRUGS = (
    "DMSO_TF",
    "Trametinib (DMSO_TF solvate)",
    " Bestatin (hydrochloride)",
    "5'-Azacitidine",
    "Verteporfin",
    "Homoharringtonine",
)
LINES = ("CVCL_0023", "CVCL_1571")
PLATE = "plate{}_filt_Vevo_Tahoe100M_WServicesFrom_ParseGigalab.h5ad"


def told(drug: str, dose: float) -> str:
    """The text of a drug and its dose, as published."""
    return str([(drug.strip(), 0.0 if drug == "DMSO_TF" else dose, "uM")])


def rows(plate: int, dose: float) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Counts (cells, genes) and columns of a plate; every tenth cell did not pass the strict filter."""
    counts, labels = cells(DRUGS * len(LINES), per_label=14, seed=plate)
    size = len(labels) // len(LINES)
    return counts, {
        "drug": labels,
        "drugname_drugconc": [told(label, dose) for label in labels],
        "cell_line": [LINES[i // size] for i in range(len(labels))],
        "plate": [f"plate{plate}"] * len(labels),
        "sample": [f"smp_{plate}{DRUGS.index(label):02d}" for label in labels],
        "BARCODE_SUB_LIB_ID": [f"{plate}_{i}-lib" for i in range(len(labels))],
        "pass_filter": ["minimal" if i % 10 == 9 else "full" for i in range(len(labels))],
    }


def plates(numbers: Sequence[int] = range(1, 15)) -> Files:
    """Plates of one dose each: 0.05, 0.5 or 5 uM."""
    out = {}
    for plate in numbers:
        counts, obs = rows(plate, (0.05, 0.5, 5.0)[(plate - 1) % 3])
        kept = np.arange(len(counts)) if plate <= 3 else np.arange(0, len(counts), 7)  # few cells on most plates
        obs = {key: [values[i] for i in kept] for key, values in obs.items()}
        out[PLATE.format(plate)] = h5ad(counts[kept], obs, {"gene_name": GENES}, GENES)
    return out


def parquet(frame: dict[str, Any], group: int = 50) -> bytes:
    """A parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table(frame), out, row_group_size=group)
    return out.getvalue()


def shard(plate: int, dose: float) -> bytes:
    """Cells as lists of tokens and values, the first a marker."""
    counts, obs = rows(plate, dose)
    tokens = [[1, *(3 + 2 * np.flatnonzero(cell)).tolist()] for cell in counts]
    values = [[-2.0, *cell[np.flatnonzero(cell)].tolist()] for cell in counts]
    more = {
        "moa-fine": ["unclear"] * len(counts),
        "canonical_smiles": ["CCO"] * len(counts),
        "pubchem_cid": ["1"] * len(counts),
    }
    kept = {"drug", "sample", "BARCODE_SUB_LIB_ID", "plate"}
    own = {key: values for key, values in obs.items() if key in kept} | {"cell_line_id": obs["cell_line"]} | more
    return parquet({"genes": tokens, "expressions": values, **own})


def shards() -> Files:
    """The first shard, and the tables of genes, drugs and wells."""
    genes = {
        "gene_symbol": list(GENES),
        "ensembl_id": list(ENSEMBL),
        "token_id": [3 + 2 * i for i in range(len(GENES))],
    }
    wells = [
        (f"smp_{plate}{i:02d}", told(drug, dose))
        for plate, dose in ((3, 5.0), (1, 0.05))
        for i, drug in enumerate(DRUGS)
    ]
    return {
        "data/train-00000-of-03388.parquet": shard(3, 5.0),
        "metadata/gene_metadata.parquet": parquet(genes),
        "metadata/drug_metadata.parquet": parquet({"drug": list(DRUGS), "canonical_smiles": ["CCO"] * len(DRUGS)}),
        "metadata/sample_metadata.parquet": parquet(
            {"sample": [s for s, _ in wells], "drugname_drugconc": [t for _, t in wells]}
        ),
    }


MINIS = {"tahoe_plates": plates, "tahoe_hf": shards}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters for the contracts."""
    return placed(folder, MINIS)
