"""Tiny GEARS archives for the contracts and tests: log-normalised cells, labels with ``ctrl``, symbols in gene_name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _published import ENSEMBL, GENES, Files, cells, h5ad, log_normalised, placed, zipped

SINGLES = tuple(f"{gene}+ctrl" for gene in GENES[:5])
NORMAN = ("ctrl", *SINGLES, f"ctrl+{GENES[0]}", f"{GENES[1]}+{GENES[0]}", f"{GENES[2]}+{GENES[3]}", "RHOXF2BB+ctrl")
OTHER = ("ctrl", *SINGLES)
INNER = "scFoundation/GEARS/data/gse133344_k562gi_oe_pert227_84986_19264_withtotalcount.h5ad"


def processed(labels: tuple[str, ...], cell_type: str, *, counts_layer: bool = False, symbols: bool = False) -> bytes:
    """``perturb_processed.h5ad``: twice as many controls as other cells."""
    counts, names = cells((*labels, "ctrl"))
    obs = {
        "condition": names,
        "cell_type": [cell_type] * len(names),
        "dose_val": ["1" if name == "ctrl" else "1+1" for name in names],
        "control": np.array([int(name == "ctrl") for name in names]),
        "condition_name": [f"{cell_type}_{name}_1+1" for name in names],
    }
    more: dict[str, Any] = {"layers": {"counts": counts}} if counts_layer else {}
    # GEARS' lists of genes by condition, which nobody asked for here
    more["uns"] = {"top_non_dropout_de_20": {f"{cell_type}_{labels[1]}_1+1": np.array(ENSEMBL[:3], dtype=object)}}
    return h5ad(log_normalised(counts), obs, {"gene_name": GENES}, GENES if symbols else ENSEMBL, **more)


def archive(name: str, labels: tuple[str, ...], cell_type: str, *, counts_layer: bool = False) -> Files:
    """The zip, with a file beside the cells as some have it."""
    data = processed(labels, cell_type, counts_layer=counts_layer)
    return {f"{name}.zip": zipped({f"{name}/perturb_processed.h5ad": data, f"{name}/go.csv": b"source,target\n"})}


def scfoundation() -> Files:
    """The cut of Norman et al. on the genes of scFoundation: another name in the archive, symbols as index."""
    return {"norman19_scfoundation.zip": zipped({INNER: processed(NORMAN, "A549", symbols=True)})}


MINIS = {
    "norman19_gears": lambda: archive("norman", NORMAN, "A549", counts_layer=True),
    "adamson16_gears": lambda: archive("adamson", OTHER, "K562"),
    "dixit16_gears": lambda: archive("dixit", OTHER, "K562"),
    "replogle22_k562_gears": lambda: archive("replogle_k562_essential", OTHER, "K562"),
    "replogle22_rpe1_gears": lambda: archive("replogle_rpe1_essential", OTHER, "rpe1"),
    "norman19_scfoundation": scfoundation,
}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters for the contracts."""
    return placed(folder, MINIS)
