"""Tiny OP3 files: the single cells of the competition, and the tables of differential expression of openproblems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _published import GENES, Files, cells, h5ad, log_normalised, placed

CONTROL = "Dimethyl Sulfoxide"
DRUGS = (CONTROL, "Alvocidib", "R428", "Belinostat", "Dabrafenib", "Proscillaridin A;Proscillaridin-A", "IN1451")
TYPES = ("B cells", "Myeloid cells", "NK cells", "T cells")


def counts() -> Files:
    """Counts in a layer, something log-normalised in X."""
    values, labels = cells(DRUGS * len(TYPES), per_label=12)
    size = len(labels) // len(TYPES)
    obs = {
        "sm_name": labels,
        "cell_type": [TYPES[i // size] for i in range(len(labels))],
        "donor_id": [f"Donor {i % 3 + 1}" for i in range(len(labels))],
        "plate_name": [f"plate_{i % 2}" for i in range(len(labels))],
        "well": [f"A{i % 12 + 1}" for i in range(len(labels))],
        "dose_uM": np.array([14.1 if x == CONTROL else 1.0 for x in labels]),
        "timepoint_hr": np.full(len(labels), 24.0),
        "split": ["control" if x == CONTROL else "train" for x in labels],
    }
    data = h5ad(log_normalised(values), obs, {}, GENES, layers={"counts": values})
    return {"sc_counts_reannotated_with_counts.h5ad": data}


def table(seed: int, pairs: list[tuple[str, str]], split: str, genes: tuple[str, ...]) -> bytes:
    """A table of differential expression: limma's layers."""
    rng = np.random.default_rng(seed)
    change = rng.normal(size=(len(pairs), len(genes)))
    p = rng.random(change.shape) ** 3
    score = -np.log10(p) * np.sign(change)
    layers = {
        "logFC": change,
        "P.Value": p,
        "adj.P.Value": np.minimum(1, 2 * p),
        "t": 3 * change,
        "is_de": p < 0.05,
        "is_de_adj": 2 * p < 0.05,
        "sign_log10_pval": score,
        "clipped_sign_log10_pval": np.clip(score, -4, 4),
    }
    obs = {
        "sm_name": [drug for drug, _ in pairs],
        "cell_type": [kind for _, kind in pairs],
        "sm_lincs_id": [f"LSM-{len(drug)}" for drug, _ in pairs],
        "SMILES": ["CCO"] * len(pairs),
        "split": [split] * len(pairs),
        "control": [drug in ("Belinostat", "Dabrafenib") for drug, _ in pairs],
    }
    return h5ad(np.zeros(change.shape), obs, {}, genes, layers=layers)


def differential() -> Files:
    """Training: all compounds in two types, some in a third; test: the rest there. One gene is in one file only."""
    drugs = (*DRUGS[1:], "TL_HRAS26")
    train = [(drug, kind) for drug in drugs for kind in TYPES[2:]] + [(drug, TYPES[0]) for drug in drugs[:3]]
    test = [(drug, TYPES[0]) for drug in drugs[3:]]
    made = {
        "de_train.h5ad": table(1, train, "train", GENES),
        "de_test.h5ad": table(2, test, "private_test", GENES[:-1]),
    }
    return made | {
        "id_map.csv": "\n".join(["id,sm_name,cell_type", *(f"{i},{d},{c}" for i, (d, c) in enumerate(test))]).encode()
    }


MINIS = {"op3_counts": counts, "op3_de": differential}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters for the contracts."""
    return placed(folder, MINIS)
