"""Tables of a few well-known drugs: name -> SMILES and name -> targets, as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# name -> (SMILES, molecular formula as in the drug's label)
DRUGS = {
    "(+)-JQ1": ("CC1=C(SC2=C1C(=N[C@@H](CC(=O)OC(C)(C)C)C1=NN=C(C)N12)C1=CC=C(Cl)C=C1)C", "C23H25ClN4O2S"),
    "imatinib": ("CC1=C(C=C(C=C1)NC(=O)C2=CC=C(C=C2)CN3CCN(CC3)C)NC4=NC=CC(=N4)C5=CN=CC=C5", "C29H31N7O"),
    "nilotinib": ("CC1=C(C=C(C=C1)C(=O)NC2=CC(=CC(=C2)C(F)(F)F)N3C=C(N=C3)C)NC4=NC=CC(=N4)C5=CN=CC=C5", "C28H22F3N7O"),
    "sorafenib": ("CNC(=O)C1=NC=CC(=C1)OC2=CC=C(C=C2)NC(=O)NC3=CC(=C(C=C3)Cl)C(F)(F)F", "C21H16ClF3N4O3"),
    "regorafenib": ("CNC(=O)C1=NC=CC(=C1)OC2=CC(=C(C=C2)NC(=O)NC3=CC(=C(C=C3)Cl)C(F)(F)F)F", "C21H15ClF4N4O3"),
    "trametinib": ("CC1=C2C(=C(N(C1=O)C)NC3=C(C=C(C=C3)I)F)C(=O)N(C(=O)N2C4=CC=CC(=C4)NC(=O)C)C5CC5", "C26H23FIN5O4"),
    "selumetinib": ("CN1C=NC2=C1C=C(C(=C2F)NC3=C(C=C(C=C3)Br)Cl)C(=O)NOCCO", "C17H15BrClFN4O3"),
    "binimetinib": ("CN1C=NC2=C1C=C(C(=C2F)NC3=C(C=C(C=C3)Br)F)C(=O)NOCCO", "C17H15BrF2N4O3"),
    "vorinostat": ("C1=CC=C(C=C1)NC(=O)CCCCCCC(=O)NO", "C14H20N2O3"),
    "belinostat": ("C1=CC=C(C=C1)NS(=O)(=O)C2=CC=CC(=C2)/C=C/C(=O)NO", "C15H14N2O4S"),
    "cytarabine": ("C1=CN(C(=O)N=C1N)[C@H]2[C@H]([C@@H]([C@H](O2)CO)O)O", "C9H13N3O5"),
    "gemcitabine": ("C1=CN(C(=O)N=C1N)[C@H]2C([C@@H]([C@H](O2)CO)O)(F)F", "C9H11F2N3O4"),
    "tofacitinib": ("C[C@@H]1CCN(C[C@@H]1N(C)C2=NC=NC3=C2C=CN3)C(=O)CC#N", "C16H20N6O"),
    "salicylic acid": ("C1=CC=C(C(=C1)C(=O)O)O", "C7H6O3"),
    "darinaparsin": ("C[As](C)SC[C@@H](C(=O)NCC(=O)O)NC(=O)CC[C@@H](C(=O)O)N", "C12H22AsN3O6S"),
}
# Their targets in the genes of the toy screen, and others that have no vector there (BRAF, ABL1 ...).
TARGETS = {
    "(+)-JQ1": "BRD4;EP300",
    "imatinib": "ABL1;KIT;JAK1",
    "sorafenib": "RAF1|BRAF",
    "trametinib": "MAP2K1, MAP2K2, KRAS",
    "vorinostat": "HDAC1;CDKN1A;TP53",
    "tofacitinib": "BRAF",
}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Constructor parameters of the entries that read these tables."""
    smiles, targets = folder / "drugs.tsv", folder / "targets.tsv"
    rows = [f"{name}\t{text}" for name, (text, _) in DRUGS.items()]
    smiles.write_text("\n".join(["compound\tsmiles", *rows, "broken\tC1CC(", "TL_HRAS26\t"]) + "\n", encoding="utf-8")
    rows = [f"{name}\t{genes}" for name, genes in TARGETS.items()]
    targets.write_text("\n".join(["compound\ttargets", *rows]) + "\n", encoding="utf-8")
    return {
        "embeddings/morgan": {"source": str(smiles), "bits": 64},
        "embeddings/maccs": {"source": str(smiles)},
        "embeddings/rdkit_descriptors": {"source": str(smiles)},
        "embeddings/compound_targets": {"source": str(targets)},
    }
