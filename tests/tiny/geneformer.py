"""Tiny Geneformer repositories for the contracts: model folders beside the folder ``geneformer``, as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from oracles._write_geneformer import FILES, Dictionaries, Shape, write_checkpoint

from embbench.checks._toy import KNOWN, MEASURED
from embbench.genes import harmonise

GENES = harmonise([*KNOWN, *MEASURED], "ensembl").names
MODELS = {  # entry -> folder, release of the dictionaries, version, name of the weights
    "geneformer-v1-10m": ("Geneformer-V1-10M", "gc30M", "v1", "model.safetensors"),
    "geneformer-v1-30m": ("gf-12L-30M-i2048", "gc30M", "v1", "pytorch_model.bin"),
    "geneformer-v1-95m": ("gf-12L-95M-i4096", "gc95M", "v2", "model.safetensors"),
    "geneformer-v2-104m": ("Geneformer-V2-104M", "gc104M", "v2", "model.safetensors"),
    "geneformer-v2-316m": ("Geneformer-V2-316M", "gc104M", "v2", "model.safetensors"),
}


def write(folder: Path, name: str, seed: int = 0) -> Path:
    """The model of an entry in ``folder``, and its dictionaries; gives the model's folder."""
    model, corpus, version, weights = MODELS[name]
    special = ("<pad>", "<mask>", "<cls>", "<eos>")[: 2 if version == "v1" else 4]
    tokens = {token: i for i, token in enumerate((*special, *GENES))}
    medians = dict(zip(GENES, (0.5 + np.random.default_rng(seed).random(len(GENES))).tolist(), strict=True))
    words = Dictionaries(tokens, medians, {gene: gene for gene in GENES} | {"ENSG00000900001": GENES[0]})
    shape = Shape(version, width=16, heads=2, hidden=24, layers=2, positions=64, seed=seed)
    write_checkpoint(folder / model, seed, shape=shape, words=words, binary=weights.endswith(".bin"))
    place = folder / "geneformer" / ("gene_dictionaries_30m" if corpus == "gc30M" else "")
    place.mkdir(parents=True, exist_ok=True)
    for old, stem in zip(
        FILES["v2"], ("token_dictionary", "gene_median_dictionary", "ensembl_mapping_dict"), strict=True
    ):
        written = folder / model / (old if version == "v2" else f"{stem}.pkl")
        if written.is_file():
            written.replace(place / f"{stem}_{corpus}.pkl")
    if version == "v1":  # the writer's V1 is the first release, which had no aliases
        import pickle

        (place / f"ensembl_mapping_dict_{corpus}.pkl").write_bytes(pickle.dumps(dict(words.aliases), protocol=4))
    for file in (folder / model / "checkpoint").iterdir():
        file.replace(folder / model / file.name)
    (folder / model / "checkpoint").rmdir()
    return folder / model


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the entries that read such folders."""
    written = {name: write(folder, name, seed) for seed, name in enumerate(MODELS)}
    return {
        f"embeddings/{name}": {"checkpoint": str(path), "level": "gene", "device": "cpu"}
        for name, path in written.items()
    }
