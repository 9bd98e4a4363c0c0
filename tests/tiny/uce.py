"""Tiny UCE files in the published formats: state dict, protein vectors, chromosomes, offsets; every number random."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from embbench.checks._toy import KNOWN, MEASURED

GENES = (*KNOWN, *MEASURED)
CHROMOSOMES = ("1", "10", "2", "X", "MT")
MICE = 7  # genes of another species, which come first in the table of tokens
WIDTH, TOKEN, HIDDEN, OUT = 16, 10, 24, 12
BASE = 4 + MICE + len(GENES)  # first row of a chromosome
OWN = {"weights": "4layer_model.torch", "heads": 2, "chromosomes": BASE, "sample_size": 20, "pad_length": 40}


def state(seed: int = 0, layers: int = 2) -> dict[str, np.ndarray]:
    """The state dict, float32."""
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {"pos_encoder.pe": rng.normal(size=(64, 1, WIDTH))}

    def linear(key: str, rows: int, columns: int, dot: str = ".") -> None:
        out[f"{key}{dot}weight"] = rng.normal(size=(rows, columns)) / np.sqrt(columns)
        out[f"{key}{dot}bias"] = rng.normal(size=rows) * 0.2

    def norm(key: str, size: int) -> None:
        out[f"{key}.weight"], out[f"{key}.bias"] = 1 + 0.2 * rng.normal(size=size), 0.2 * rng.normal(size=size)

    for key in ("encoder", "gene_embedding_layer"):
        linear(f"{key}.0", WIDTH, TOKEN)
        norm(f"{key}.2", WIDTH)
    for i in range(layers):
        at = f"transformer_encoder.layers.{i}"
        linear(f"{at}.self_attn.in_proj", 3 * WIDTH, WIDTH, "_")
        linear(f"{at}.self_attn.out_proj", WIDTH, WIDTH)
        linear(f"{at}.linear1", HIDDEN, WIDTH)
        linear(f"{at}.linear2", WIDTH, HIDDEN)
        norm(f"{at}.norm1", WIDTH)
        norm(f"{at}.norm2", WIDTH)
    for i, (rows, columns) in enumerate(((20, WIDTH), (OUT, 20), (OUT, OUT))):
        linear(f"decoder.{i}.0", rows, columns)
        norm(f"decoder.{i}.1", rows)
    linear("decoder.3", OUT, OUT)
    linear("binary_decoder.3", 1, 128)
    out["pe_embedding.weight"] = rng.normal(size=(BASE + 2 * len(CHROMOSOMES), TOKEN))
    return {key: value.astype(np.float32) for key, value in out.items()}


def write(folder: Path, seed: int = 0, layers: int = 2, weights: str = OWN["weights"]) -> dict[str, np.ndarray]:
    """All files; gives the state dict."""
    import torch

    made = state(seed, layers)
    (folder / "protein_embeddings").mkdir(parents=True, exist_ok=True)
    torch.save({key: torch.from_numpy(value) for key, value in made.items()}, folder / weights)
    proteins = {gene: torch.from_numpy(made["pe_embedding.weight"][4 + MICE + i]) for i, gene in enumerate(GENES)}
    torch.save(proteins, folder / "protein_embeddings" / "Homo_sapiens.GRCh38.gene_symbol_to_embedding_ESM2.pt")
    rows = [f"mouse,Gm{i},{CHROMOSOMES[i % 5]},{i}" for i in range(MICE)]
    rows += [f"human,{gene},{CHROMOSOMES[i % 5]},{1000 - 7 * i}" for i, gene in enumerate(GENES)]
    text = "\n".join(["species,gene_symbol,chromosome,start", *rows])
    (folder / "species_chrom.csv").write_text(text, encoding="utf-8")
    (folder / "species_offsets.pkl").write_bytes(pickle.dumps({"mouse": 4, "human": 4 + MICE}))
    return made


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the entries that read such a folder."""
    own = {**OWN, "checkpoint": str(folder), "level": "gene", "device": "cpu"}
    out = {}
    for name, weights, layers in (("uce-4l", "4layer_model.torch", 2), ("uce-33l", "33l_8ep_1024t_1280.torch", 3)):
        write(folder, layers, layers, weights)
        out[f"embeddings/{name}"] = {**own, "weights": weights}
    return out
