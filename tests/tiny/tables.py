"""Tiny tables in exactly the layouts in which gene vectors are published."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embbench.checks._toy import KNOWN, MEASURED, UNKNOWN
from embbench.genes import harmonise

GENES = [*KNOWN, *UNKNOWN[:1], *MEASURED[:4]]
REAL = [gene for gene in GENES if gene not in UNKNOWN]


def vectors(width: int, count: int = len(GENES), seed: int = 0) -> np.ndarray:
    """Random vectors of shape (count, width), float32, none zero."""
    return np.random.default_rng([seed, width]).normal(size=(count, width)).astype(np.float32)


def identifiers(kind: str) -> list[str]:
    """Ensembl or Entrez identifiers of `REAL`."""
    return list(harmonise(REAL, kind).names)


def gene2vec(path: Path) -> None:
    """Symbol, tab, 200 numbers with a space after each; no header."""
    lines = ["\t".join([g, "".join(f"{v} " for v in row)]) for g, row in zip(GENES, vectors(200), strict=True)]
    path.write_text("\n".join(lines) + "\n")


def genept(path: Path, width: int = 1536) -> None:
    """Pickled dict: symbol -> list of floats."""
    path.write_bytes(pickle.dumps({g: row.tolist() for g, row in zip(GENES, vectors(width), strict=True)}))


def scgenept(path: Path) -> None:
    """Pickled dict: symbol -> float64 array."""
    rows = vectors(1536).astype(np.float64)
    path.write_bytes(pickle.dumps(dict(zip(GENES, rows, strict=True)), protocol=4))


def depmap(path: Path, lines: int = 30) -> None:
    """CRISPRGeneEffect.csv: an unnamed first header, a row per ModelID, columns ``SYMBOL (ENTREZ)``, gaps empty."""
    effects = vectors(lines, len(REAL)).T
    gaps = np.random.default_rng(1).random(effects.shape) < 0.05
    head = ",".join(["", *(f"{g} ({e})" for g, e in zip(REAL, identifiers("entrez"), strict=True))])
    rows = [
        ",".join([f"ACH-{i + 1:06d}", *("" if gap else f"{v:.15g}" for v, gap in zip(row, gap_row, strict=True))])
        for i, (row, gap_row) in enumerate(zip(effects.astype(float), gaps, strict=True))
    ]
    path.write_text("\n".join([head, *rows]) + "\n")


def string_proteins(count: int = len(REAL)) -> list[str]:
    """STRING's names of proteins."""
    return [f"9606.ENSP{i:011d}" for i in range(233, 233 + count)]


def string_info(path: Path) -> None:
    """``9606.protein.info``: the first header starts with #; identifier, preferred name, size, annotation."""
    rows = [
        f"{p}\t{g}\t{300 + i}\tsome text; more" for i, (p, g) in enumerate(zip(string_proteins(), REAL, strict=True))
    ]
    path.write_text("\n".join(["#string_protein_id\tpreferred_name\tprotein_size\tannotation", *rows]) + "\n")


def string_h5(path: Path, width: int = 512, group: str = "") -> None:
    """``embeddings`` and ``proteins`` (bytes), facts as attributes of ``metadata``; all species: a group each."""
    with h5py.File(path, "w") as file:
        file.create_group("metadata").attrs["embedding_dim"] = width
        for taxon in ["9606", "4932"] if group else [""]:
            where = file.create_group(f"{group}/{taxon}") if group else file
            names = [name.replace("9606.", f"{taxon or '9606'}.") for name in string_proteins()]
            where.create_dataset("embeddings", data=vectors(width, len(REAL), int(taxon == "4932")).astype(np.float16))
            where.create_dataset("proteins", data=np.array(names, dtype="S"))


def gtex_gct(path: Path) -> None:
    """GCT 1.2 of median TPM per tissue: Ensembl identifiers with version, symbols, tissues."""
    tpm = np.expm1(np.abs(vectors(5, len(REAL))))
    rows = [
        "\t".join([f"{e}.{i % 9 + 1}", g, *(f"{v:.6g}" for v in row)])
        for i, (e, g, row) in enumerate(zip(identifiers("ensembl"), REAL, tpm, strict=True))
    ]
    tissues = ["Adipose - Subcutaneous", "Brain - Cortex", "Liver", "Lung", "Whole Blood"]
    head = ["#1.2", f"{len(rows)}\t{len(tissues)}", "\t".join(["Name", "Description", *tissues])]
    path.write_text("\n".join([*head, *rows]) + "\n")


def genbio(path: Path) -> None:
    """h5ad with Ensembl obs names and sparse X; a gene without a vector has an empty row."""
    import anndata
    import pandas as pd
    from scipy import sparse

    X = vectors(8, len(REAL) + 1)
    X[-1] = 0
    index = [*identifiers("ensembl"), "ENSG00000000003"]
    anndata.AnnData(sparse.csr_matrix(X), obs=pd.DataFrame(index=index)).write_h5ad(path)


def pie(folder: Path, layout: str = "dense", width: int = 8) -> None:
    """``meta.json``, ``embeddings.npy``, ``aliases.yaml`` and, for token layout, ``offsets.npy``."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = np.ones(len(REAL), dtype=np.int64) if layout == "dense" else np.arange(1, len(REAL) + 1)
    dtype = "float32" if layout == "dense" else "float16"
    np.save(folder / "embeddings.npy", vectors(width, int(sizes.sum())).astype(dtype))
    if layout == "token":
        np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    facts = {"format_version": 1, "name": "esm2", "layout": layout, "index": "pert", "keys": REAL, "dim": width}
    (folder / "meta.json").write_text(json.dumps({**facts, "dtype": dtype, "provenance": {"tool": "esm2"}}))
    (folder / "aliases.yaml").write_text("H1-0: TP53\nMYC: MAX\nNOT-THERE: NOBODY\n")


def genevector(path: Path) -> None:
    """npz of genevector: ``genes`` and ``emb``."""
    np.savez(path, genes=np.array(GENES), emb=vectors(100))


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Writes every table into ``folder``; constructor parameters by entry."""
    gene2vec(folder / "gene2vec_dim_200_iter_9.txt")
    genept(folder / "GenePT_gene_embedding_ada_text.pickle")
    scgenept(folder / "NCBI_gene_embeddings-gpt3.5-ada.pickle")
    depmap(folder / "CRISPRGeneEffect.csv")
    string_info(folder / "9606.protein.info.v12.0.txt")
    string_h5(folder / "9606.protein.network.embeddings.v12.0.h5")
    string_h5(folder / "protein.sequence.embeddings.v12.0.h5", 1024, "species")
    gtex_gct(folder / "gene_median_tpm.gct")
    genbio(folder / "ESM2_(D=8).h5ad")
    pie(folder / "esm2")
    genevector(folder / "genevector.npz")
    info = {"rename": str(folder / "9606.protein.info.v12.0.txt")}
    files: dict[str, dict[str, Any]] = {
        "gene2vec": {"path": "gene2vec_dim_200_iter_9.txt"},
        "genept": {"path": "GenePT_gene_embedding_ada_text.pickle"},
        "scgenept": {"path": "NCBI_gene_embeddings-gpt3.5-ada.pickle"},
        "depmap": {"path": "CRISPRGeneEffect.csv", "pca": 8},
        "string-network": {"path": "9606.protein.network.embeddings.v12.0.h5", **info},
        "string-sequence": {"path": "protein.sequence.embeddings.v12.0.h5", **info},
        "gtex": {"path": "gene_median_tpm.gct"},
        "genbio-table": {"path": "ESM2_(D=8).h5ad"},
        "pie": {"path": "esm2"},
        "genevector": {"path": "genevector.npz"},
    }
    return {f"embeddings/{name}": {**p, "path": str(folder / p["path"])} for name, p in files.items()}
