"""Tiny sci-Plex 3 files as GEO holds them: triplets, a cell table with R's row names, gene annotations; packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _published import ENSEMBL, GENES, Files, cells, gzipped, placed

STEM = "GSM4150378_sciPlex3"
SCREEN = f"{STEM}_A549_MCF7_K562_screen"
DRUGS = (
    "Vehicle",
    "(+)-JQ1",
    "Trametinib (GSK1120212)",
    "Vorinostat (MK0683)",
    "Imatinib",
    "ENMD-2076 L-(+)-Tartaric acid",
)
LINES = ("A549", "K562", "MCF7")
DOSES = (10, 10000)


def table() -> tuple[np.ndarray, list[tuple[str, str, str, str]]]:
    """Counts (cells, genes), and of each cell its drug, dose, line ('NA': none) and plate."""
    labels = [f"{drug}@{dose}" for drug in DRUGS for dose in DOSES]
    counts, names = cells(labels * len(LINES), per_label=10)
    rows = []
    for i, name in enumerate(names):
        drug, _, dose = name.partition("@")
        line = LINES[i // (len(names) // len(LINES))]
        rows.append((drug, dose, "NA" if i == 3 else line, f"plate{i % 2}"))
    return counts, rows


def files(counts: np.ndarray, rows: list[tuple[str, str, str, str]], newline: str = "\n", shift: int = 0) -> Files:
    """The three files; ``shift`` moves the cell table against the matrix."""
    where = np.argwhere(counts)
    lines = [f"{g + 1}\t{c + 1}\t{int(counts[c, g])}" for c, g in where[np.argsort(where[:, 1], kind="stable")]]
    head = " ".join(
        f'"{name}"' for name in ("cell", "n.umi", "cell_type", "product_name", "dose", "plate_oligo", "vehicle")
    )
    obs = [head]
    total = np.roll(counts.sum(axis=1), shift)
    for i, (drug, dose, line, plate) in enumerate(rows):
        told = "NA" if line == "NA" else f'"{line}"'
        vehicle = str(drug == "Vehicle").upper()
        obs.append(
            f'"r{i}" "r{i}" {total[i]:.0f} {told} "{drug}" {0 if drug == "Vehicle" else dose} "{plate}" {vehicle}'
        )
    var = ["id gene_short_name", *(f"{e}.7 {g}" for e, g in zip(ENSEMBL, GENES, strict=True))]
    texts = {
        f"{SCREEN}_UMI.count.matrix.gz": lines,
        f"{STEM}_pData.txt.gz": obs,
        f"{SCREEN}_gene.annotations.txt.gz": var,
    }
    return {name: gzipped((newline.join(text) + newline).encode()) for name, text in texts.items()}


def sciplex3() -> Files:
    """As published."""
    return files(*table())


MINIS = {"sciplex3_geo": sciplex3}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters for the contracts."""
    return placed(folder, MINIS)
