"""Tiny files of counts as scPerturb, the Virtual Cell Challenge and pertpy's hosts release them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _published import ENSEMBL, GENES, Files, cells, h5ad, placed
from scipy import sparse

SINGLES = ("control", *GENES[:6])
PAIRS = (*SINGLES, f"{GENES[1]}_{GENES[0]}", f"{GENES[2]}_{GENES[3]}")
# as public code that opened the released files has them
PILOT = ("63(mod)_pBA580", "62(mod)_pBA581", "SNAI1_pDS266", "SPI1_pDS255", "BHLHE40_pDS258", "EP300_pDS268", "*")
EPISTASIS = (
    *("3x_neg_ctrl_pMJ144-1", "3x_neg_ctrl_pMJ144-2", "ATF6_only_pMJ145", "PERK_only_pMJ146", "IRE1_only_pMJ148"),
    *("PERK_IRE1_pMJ147", "ATF6_PERK_pMJ150", "ATF6_PERK_IRE1_pMJ152"),
)
UPR = ("63(mod)_pBA580", "Gal4-4(mod)_pBA582", "OST4_pDS353", "SEC61A1_pDS031", "DDOST_pDS098", "HSPA5_pDS017", "*")
GUIDES = ("control", "ATF2g1", "ATF2g2", "IFNGR2g2", "IFNGR1g1", "STAT1g1", "STAT1g3", "CUL3g1", "JAK2g4")
FILES = {  # as released
    "norman19_scperturb": "NormanWeissman2019_filtered.h5ad",
    "replogle22_k562_essential_scperturb": "ReplogleWeissman2022_K562_essential.h5ad",
    "replogle22_rpe1_scperturb": "ReplogleWeissman2022_rpe1.h5ad",
    "replogle22_k562_gwps_scperturb": "ReplogleWeissman2022_K562_gwps.h5ad",
    "nadig25_hepg2_scperturb": "NadigOConner2024_hepg2.h5ad",
    "nadig25_jurkat_scperturb": "NadigOConner2024_jurkat.h5ad",
    "sciplex3_scperturb": "SrivatsanTrapnell2020_sciplex3.h5ad",
    "frangieh21_scperturb": "FrangiehIzar2021_RNA.h5ad",
    "adamson16_pilot": "AdamsonWeissman2016_GSM2406675_10X001.h5ad",
    "adamson16_epistasis": "AdamsonWeissman2016_GSM2406677_10X005.h5ad",
    "adamson16_upr": "AdamsonWeissman2016_GSM2406681_10X010.h5ad",
    "dixit16_7d": "DixitRegev2016_K562_TFs_7_days.h5ad",
    "dixit16_13d": "DixitRegev2016_K562_TFs_13_days.h5ad",
    "dixit16_highmoi": "DixitRegev2016_K562_TFs_High_MOI.h5ad",
    "papalexi21_scperturb": "PapalexiSatija2021_eccite_RNA.h5ad",
    "kang18_exampledata": "kang_2018.h5ad",
    "vcc25_h1_train": "adata_Training.h5ad",
}
DRUGS = ("control", "(+)-JQ1", "ENMD-2076 L-(+)-Tartaric acid", "Belinostat", "Dasatinib", "SRT1720 HCl")


def released(
    entry: str,
    labels: Sequence[str],
    *,
    index: Sequence[str] = GENES,
    var: Mapping[str, Sequence[str]] | None = None,
    dense: bool = False,
    **more: Callable[[int, list[str]], Any],
) -> Files:
    """One file of counts: two batches by turns; ``more`` gives columns from the number and labels of all cells."""
    counts, names = cells(labels, genes=len(index))
    obs = {name: make(len(names), names) for name, make in more.items()}
    values = counts if dense else sparse.csr_matrix(counts)
    return {FILES[entry]: h5ad(values, obs, var or {}, index)}


def turns(*values: Any) -> Callable[[int, list[str]], list[Any]]:
    """Values by turns over the cells."""
    return lambda n, names: [values[i % len(values)] for i in range(n)]


def own(n: int, names: list[str]) -> list[str]:
    """The labels."""
    return names


def parts(n: int, names: list[str]) -> list[int]:
    """scPerturb's ``nperts``."""
    return [0 if name == "control" else 1 + name.count("_") for name in names]


def study(entry: str, labels: Sequence[str] = SINGLES, line: str = "K562", **more: Any) -> Callable[[], Files]:
    """A study with the columns that all have."""
    given = {"perturbation": own, "nperts": parts, "cell_line": turns(line), "batch": turns("1", "1", "2"), **more}
    return functools.partial(released, entry, labels, **{"var": {"ensembl_id": ENSEMBL}, **given})


def doses(n: int, names: list[str]) -> list[float]:
    """Two doses in nM, none for controls."""
    return [np.nan if name == "control" else (1000.0, 10000.0)[i // 2 % 2] for i, name in enumerate(names)]


def sciplex() -> Files:
    """Two lines, two doses, rows of ``var`` without an Ensembl id or with one twice."""
    index = [*GENES, "no id", "twice", "again"]
    ids = [*ENSEMBL, "", "ENSG00000999999", "ENSG00000999999"]
    columns = {"cell_line": turns("A549", "K562"), "dose_value": doses, "plate": turns("p1", "p1", "p2", "p2")}
    return released("sciplex3_scperturb", DRUGS * 4, index=index, var={"ensembl_id": ids}, perturbation=own, **columns)


def frangieh() -> Files:
    """Three conditions, each with controls of its own."""
    where = turns("Control", "Co-culture", "IFNγ")
    return released("frangieh21_scperturb", SINGLES * 3, perturbation=own, nperts=parts, perturbation_2=where)


def kang() -> Files:
    """Two labels only: stimulated and control, in several cell types."""
    kinds = turns("CD4 T cells", "B cells", "NK cells", "CD14+ Monocytes", "Dendritic cells")
    columns = {"cell_type": kinds, "replicate": turns(*["patient_1"] * 5, *["patient_2"] * 5)}
    return released("kang18_exampledata", ("ctrl", "stim") * 8, label=own, **columns)


def vcc() -> Files:
    """CSR float32 counts by symbol."""
    labels = ("non-targeting", *GENES[:6])
    columns = {"guide_id": own, "batch": turns("Flex_1_01", "Flex_1_02")}
    return released("vcc25_h1_train", labels, var={"gene_id": ENSEMBL}, target_gene=own, **columns)


NORMAN = {"var": {"ensemble_id": ENSEMBL}, "gemgroup": turns(1, 2)}
MINIS = {
    "norman19_scperturb": study("norman19_scperturb", PAIRS, **NORMAN),
    "replogle22_k562_essential_scperturb": study("replogle22_k562_essential_scperturb"),
    "replogle22_rpe1_scperturb": study("replogle22_rpe1_scperturb", line="RPE1"),
    "replogle22_k562_gwps_scperturb": study("replogle22_k562_gwps_scperturb", dense=True),
    "nadig25_hepg2_scperturb": study("nadig25_hepg2_scperturb", line="HepG2"),
    "nadig25_jurkat_scperturb": study("nadig25_jurkat_scperturb", line="Jurkat"),
    "sciplex3_scperturb": sciplex,
    "frangieh21_scperturb": frangieh,
    "adamson16_pilot": study("adamson16_pilot", PILOT),
    "adamson16_epistasis": study("adamson16_epistasis", EPISTASIS),
    "adamson16_upr": study("adamson16_upr", UPR),
    "dixit16_7d": study("dixit16_7d"),
    "dixit16_13d": study("dixit16_13d"),
    "dixit16_highmoi": study("dixit16_highmoi", PAIRS),
    "papalexi21_scperturb": study(
        "papalexi21_scperturb", GUIDES, line="THP-1", replicate=turns("rep1", "rep2", "rep3")
    ),
    "kang18_exampledata": kang,
    "vcc25_h1_train": vcc,
}


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters for the contracts."""
    return placed(folder, MINIS)
