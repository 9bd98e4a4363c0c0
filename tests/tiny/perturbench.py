"""Tiny PerturBench files for the contracts and tests: raw counts in a layer, gzip, splits by cell without header."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _published import GENES, Files, cells, gzipped, h5ad, log_normalised, placed

GENE_LABELS = ("control", "control", *GENES[:5])
PAIRS = (f"{GENES[1]}+{GENES[0]}", f"{GENES[2]}+{GENES[3]}")
DRUGS = ("control", "control", "JQ1", "ENMD-2076", "Tanespimycin (17-AAG)", "Trichostatin A", "Abexinostat (PCI-24781)")
ROLES = ("train", "train", "train", "val", "test")  # of the labels after the controls, from the second context on


def tarred(members: Mapping[str, bytes]) -> bytes:
    """A ``.tar.gz``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def curated(labels: Sequence[str], contexts: Sequence[Mapping[str, str]], key: str = "condition") -> bytes:
    """The `.h5ad`: cells of all contexts one after the other, twice as many controls as others."""
    counts, names = cells([label for _ in contexts for label in labels])
    each = len(names) // len(contexts)
    obs: dict[str, Any] = {key: names}
    for column in contexts[0]:
        obs[column] = [context[column] for context in contexts for _ in range(each)]
    obs["ncounts"] = counts.sum(axis=1) + 50.0  # genes that were not selected have counts too
    return h5ad(log_normalised(counts), obs, {"highly_variable": [True] * len(GENES)}, GENES, layers={"counts": counts})


def split(labels: Sequence[str], contexts: int, roles: Mapping[int, str] | None = None, per_label: int = 12) -> bytes:
    """A CSV of cells and roles: training in the first context, `ROLES` by label in others; controls have all roles."""
    lines, cell = [], 0
    for context in range(contexts):
        for place in range(len(labels)):
            for i in range(per_label):
                told = ("train", "train", "val", "test")[i % 4] if labels[place] == "control" else "train"
                if labels[place] != "control" and context:
                    told = (roles or {}).get(place, ROLES[(place - 2) % len(ROLES)])
                lines.append(f"cell{cell},{told}")
                cell += 1
    return ("\n".join(lines) + "\n").encode()


def dataset(stem: str, table: str, labels: Sequence[str], contexts: Sequence[Mapping[str, str]]) -> Files:
    """Cells and split under their published names."""
    return {f"{stem}.h5ad.gz": gzipped(curated(labels, contexts)), table: split(labels, len(contexts))}


def norman() -> Files:
    """One line: singles are trained on, pairs held out."""
    labels = (*GENE_LABELS, *PAIRS)
    roles = {7: "val", 8: "test"}
    lines = split(labels, 1).decode().splitlines()
    told = [f"{line.split(',')[0]},{roles[i // 12]}" if i // 12 in roles else line for i, line in enumerate(lines)]
    made = curated(labels, [{"cell_type": "K562"}])
    return {"norman19_processed.h5ad.gz": gzipped(made), "norman19_split.csv": ("\n".join(told) + "\n").encode()}


STATES = [{"cell_type": line, "treatment": drug} for line in ("a172", "u87mg") for drug in ("none", "trametinib")]


def mcfaline() -> Files:
    """Two lines under two treatments, labels that curation altered, three splits in an archive."""
    labels = (*GENE_LABELS, "Gcontrol13", "controlDK")
    full = split(labels, len(STATES))
    small = "\n".join(
        line if i < 2 * 12 * len(labels) else line.split(",")[0] + "," for i, line in enumerate(full.decode().split())
    )
    made = {"full": full, "medium": full, "small": (small + "\n").encode()}
    return {
        "mcfaline23_gxe_processed.h5ad.gz": gzipped(curated(labels, STATES)),
        "mcfaline23_gxe_splits.tar.gz": tarred(
            {f"mcfaline23_gxe_splits/{size}_covariate_split.csv": data for size, data in made.items()}
        ),
    }


def op3() -> Files:
    """Labels by compound name, DMSO as control, the official split in a column of its own, donors."""
    labels = ("Dimethyl Sulfoxide", "Dimethyl Sulfoxide", *DRUGS[2:])
    contexts = [{"cell_type": name, "split": "old"} for name in ("B cells", "NK cells", "T cells CD4+")]
    table = split(tuple("control" if "Dimethyl" in label else label for label in labels), len(contexts))
    return {"op3_processed.h5ad.gz": gzipped(curated(labels, contexts, "sm_name")), "op3_split.csv": table}


LINES = [{"cell_type": line} for line in ("a549", "k562", "mcf7")]
TREATED = [{"cell_type": "melanocyte", "treatment": name} for name in ("none", "co-culture", "IFNγ")]
CYTOKINES = [{"cell_type": line, "treatment": name} for line in ("bxpc3", "hap1") for name in ("IFNG", "TNFA")]
MINIS = {
    "norman19_perturbench": norman,
    "srivatsan20_perturbench": lambda: dataset("srivatsan20_processed", "srivatsan20_split.csv", DRUGS, LINES),
    "frangieh21_perturbench": lambda: dataset("frangieh21_processed", "frangieh21_split.csv", GENE_LABELS, TREATED),
    "mcfaline23_perturbench": mcfaline,
    "jiang24_perturbench": lambda: dataset("jiang24_processed", "jiang24_split.csv", GENE_LABELS, CYTOKINES),
    "op3_perturbench": op3,
}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters for the contracts."""
    return placed(folder, MINIS)
