"""Tiny R objects' content as `embbench/data/convert_rds.R` writes it, beside a file that stands for the object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _published import ENSEMBL, GENES, Files, cells, gzipped, placed

PATHWAYS = ("IFNB", "IFNG", "INS", "TGFB", "TNFA")


def triple(stem: str, counts: np.ndarray, obs: Mapping[str, Sequence[str]], genes: Sequence[str]) -> Files:
    """Matrix (genes x cells), cell table and gene table of an object."""
    where = np.argwhere(counts)
    lines = ["%%MatrixMarket matrix coordinate integer general", f"{counts.shape[1]} {counts.shape[0]} {len(where)}"]
    lines += [f"{g + 1} {c + 1} {int(counts[c, g])}" for c, g in where]
    quoted = [",".join(f'"{name}"' for name in ("name", *obs))]
    quoted += [
        ",".join(f'"{v}"' for v in (f"{stem}_{i}", *row)) for i, row in enumerate(zip(*obs.values(), strict=True))
    ]
    var = ['"name"', *(f'"{name}"' for name in genes)]
    texts = {".matrix.mtx.gz": lines, ".obs.csv.gz": quoted, ".var.csv.gz": var}
    return {stem + kind: gzipped(("\n".join(text) + "\n").encode()) for kind, text in texts.items()}


def jiang() -> Files:
    """Five pathways, two lines, the control NT, one line mistyped in one object."""
    out = {}
    for i, pathway in enumerate(PATHWAYS):
        labels = ("NT", *GENES[:5])
        counts, names = cells(labels * 2, per_label=10, seed=i)
        half, line = len(names) // 2, "BXCP3" if pathway == "IFNG" else "BXPC3"  # the typo of the published object
        obs = {
            "gene": names,
            "guide": [f"{name}_g{j % 3 + 1}" for j, name in enumerate(names)],
            "cell_type": ["A549" if j < half else "BXPC3" for j in range(len(names))],
            "sample_ID": [f"{'A549' if j < half else line}_{pathway}_{j % 2}" for j in range(len(names))],
            "nCount_RNA": [f"{n:.0f}" for n in counts.sum(axis=1)],
        }
        stem = f"Seurat_object_{pathway}_Perturb_seq"
        out |= {f"{stem}.rds": b"RDX3", **triple(stem, counts, obs, GENES)}
    return out


def mcfaline(first: bool = False) -> Files:
    """Three lines of a list: labels with commas, three control labels, treatments, Ensembl ids with versions."""
    labels = ("NTC", "NA", "random", *GENES[:4], f"{GENES[4]},{GENES[5]}", f"{GENES[0]},NTC")
    stem = "GSM7056148_sciPlexGxE_1_preprocessed_cds" if first else "GSM7056149_sciPlexGxE_2_preprocessed_cds.list"
    out: dict[str, bytes] = {f"{stem}.rds.gz" if first else f"{stem}.RDS.gz": gzipped(b"RDX3")}
    for i, line in enumerate(("A172",) if first else ("A172", "T98G", "U87MG")):
        counts, names = cells(labels * 2, per_label=10, seed=i)
        half = len(names) // 2
        obs = {
            "gene_id": names,
            "treatment": ["vehicle" if j < half else "trametinib" for j in range(len(names))],
            "dose": ["0" if j < half else "10" for j in range(len(names))],
            "cell_type": [line] * len(names),
            "PCR_plate": [f"P{j % 2}" for j in range(len(names))],
            "gRNA_id": [f"{name}_1" for name in names],
        }
        genes = [f"{name}.{i + 3}" for i, name in enumerate(ENSEMBL)]
        out |= triple(stem if first else f"{stem}.{line}", counts, obs, genes)
    return out


MINIS = {"jiang24_rds": jiang, "mcfaline24_gxe2": mcfaline, "mcfaline24_gxe1": lambda: mcfaline(first=True)}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters for the contracts."""
    return placed(folder, MINIS)
