"""A tiny TranscriptFormer checkpoint in the published format: ``config.json``, ``model_weights.pt``, ``vocabs/``.

Names and shapes follow ``transcriptformer.model.model.Transcriptformer`` (PyPI 0.6.1, MIT); needs numpy, torch, h5py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from oracles import _recipe
from oracles._genes import ENSEMBL

SPECIAL = ("unknown", "[START]", "[END]", "[RD]", "[CELL]", "[PAD]", "[MASK]")
ASSAYS = {"unknown": 0, "10x 3' v3": 1, "Drop-seq": 2}
GENES = ENSEMBL[10:120]  # the vocabulary, in the order of the file
FOREIGN = (*ENSEMBL[120:125], "ENSG00000000000")


@dataclass(frozen=True)
class Shape:
    """Sizes and switches of a case; ``aux``: is there an assay token."""

    width: int
    heads: int
    hidden: int
    layers: int
    protein: int
    length: int
    block: int
    seed: int
    aux: bool = True
    clip: int = 30
    softcap: int = 10


SMALL = Shape(width=40, heads=5, hidden=72, layers=3, protein=20, length=63, block=64, seed=31)
PLAIN = Shape(32, 2, 48, 2, protein=12, length=256, block=128, seed=32, aux=False, clip=9, softcap=6)


def parameters(seed: int, shape: Shape) -> dict[str, np.ndarray]:
    """The state dict, float32; the protein table in it is what counts, the vocabulary file differs."""
    draw, d, rows = _recipe.Draw(seed), shape.width, len(SPECIAL) + len(GENES)
    out = {"gene_embeddings.embedding.weight": draw.uniform(rows, shape.protein)}
    out |= _mlp(draw, "gene_embeddings.mlp", shape.protein, d, d)
    if shape.aux:
        out["aux_embeddings.assay.weight"] = draw.uniform(len(ASSAYS), d)
    for i in range(shape.layers):
        at = f"transformer_encoder.encoder_layers.{i}"
        out |= draw.linear(f"{at}.linear1", shape.hidden, d, bias=False)
        out |= draw.linear(f"{at}.linear2", d, shape.hidden, bias=False)
        for j in range(4):  # queries, keys, values, output
            out |= draw.linear(f"{at}.self_attn.linears.{j}", d, d, bias=False)
        out |= draw.norm(f"{at}.norm1", d) | draw.norm(f"{at}.norm2", d)
    out |= {"mu.gene_embedding.weight": draw.uniform(rows, 1)} | _mlp(draw, "mu.mlp", 2 * d, d // 2, 1)
    return out | _mlp(draw, "gene_id_head", d, 16, rows)


def _mlp(draw: _recipe.Draw, key: str, inputs: int, hidden: int, outputs: int) -> dict[str, np.ndarray]:
    """Linear, ReLU, LayerNorm, (dropout), Linear."""
    out = draw.linear(f"{key}.layers.0", hidden, inputs) | draw.norm(f"{key}.layers.2", hidden)
    return out | draw.linear(f"{key}.layers.4", outputs, hidden)


def config(shape: Shape) -> dict[str, Any]:
    """``config.json``: the three sections that the published files have, and the inference defaults."""
    at = "transcriptformer.data.dataclasses."
    data = {
        "_target_": f"{at}DataConfig",
        "aux_vocab_path": None,
        "pin_memory": True,
        "aux_cols": "assay" if shape.aux else None,
        "gene_col_name": "ensembl_id",
        "clip_counts": shape.clip,
        "filter_to_vocabs": True,
        "filter_outliers": 0.0,
        "pad_zeros": True,
        "normalize_to_scale": 0,
        "n_data_workers": 0,
        "sort_genes": False,
        "randomize_genes": False,
        "min_expressed_genes": 0,
        "gene_pad_token": "[PAD]",
        "aux_pad_token": "unknown",
        "special_tokens": list(SPECIAL),
        "esm2_mappings": ["homo_sapiens_gene.h5"],
        "esm2_mappings_path": None,
        "use_raw": None,
        "remove_duplicate_genes": False,
    }
    model = {
        "_target_": f"{at}ModelConfig",
        "log_counts_eps": 1e-6,
        "num_heads": shape.heads,
        "num_layers": shape.layers,
        "model_dim": shape.hidden,
        "embed_dim": shape.width,
        "dropout": 0.1,
        "activation": "gelu",
        "attn_bias": False,
        "fw_bias": False,
        "mu_link_fn": "softmax",
        "softcap": shape.softcap,
        "seq_len": shape.length,
        "aux_len": int(shape.aux),
        "block_len": shape.block,
        "gene_head_hidden_dim": 16,
        "compile_block_mask": False,
    }
    inference = {"_target_": f"{at}InferenceConfig", "batch_size": 8, "output_keys": ["embeddings"]}
    inference |= {"obs_keys": ["all"], "emb_type": "cell", "load_checkpoint": None, "pretrained_embedding": None}
    return {
        "model": {
            "_target_": "transcriptformer.model.model.Transcriptformer",
            "model_type": "transcriptformer",
            "data_config": data,
            "model_config": model,
            "loss_config": {"_target_": f"{at}LossConfig", "gene_id_loss_weight": 1.0, "softplus_approx": True},
            "inference_config": inference,
        }
    }


def write_checkpoint(folder: Path, seed: int = SMALL.seed, *, shape: Shape = SMALL) -> str:
    """Write the folder; returns the digest of the parameters."""
    import h5py
    import torch

    (folder / "vocabs").mkdir(parents=True, exist_ok=True)
    state = parameters(seed, shape)
    torch.save({key: torch.from_numpy(value) for key, value in state.items()}, folder / "model_weights.pt")
    (folder / "config.json").write_text(json.dumps(config(shape), indent=1), encoding="utf-8")
    if shape.aux:
        (folder / "vocabs" / "assay_vocab.json").write_text(json.dumps(ASSAYS), encoding="utf-8")
    proteins = _recipe.Draw(seed + 1000).uniform(len(GENES), shape.protein)
    with h5py.File(folder / "vocabs" / "homo_sapiens_gene.h5", "w") as file:
        file.create_dataset("keys", data=np.array(GENES, dtype="S"))
        arrays = file.create_group("arrays")
        for gene, vector in zip(GENES, proteins, strict=True):
            arrays.create_dataset(gene, data=vector)
    return _recipe.digest(state)


def counts(shape: Shape = SMALL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw counts (8 cells, the last one empty), Ensembl identifiers and the assay of each cell.

    104 known genes, so that ``seq_len`` 63 of case SMALL cuts deep cells (in the order of the data's genes); counts
    above the clip; one assay that the vocabulary does not know.
    """
    matrix, names = _recipe.counts(shape.seed, GENES[3:107], 8, foreign=FOREIGN, empty=True)
    matrix[3] = np.where(matrix[3] == 0, 1, matrix[3])  # more expressed genes than the sequence holds
    assays = np.array(["10x 3' v3", "Drop-seq", "10x 3' v3", "Smart-seq2"])[np.arange(8) % 4]
    return matrix, names, assays
