"""Tiny AIDO.Cell folders for the contracts and tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from oracles._recipe import Draw

from embbench.checks._toy import KNOWN, MEASURED

GENES = (*KNOWN, *MEASURED)
GENE_LIST = "OS_scRNA_gene_index.19264.tsv"
ENTRIES = tuple(f"embeddings/aido-cell-{size}" for size in ("3m", "10m", "100m", "650m"))


def write_genes(folder: Path, genes: Sequence[str] = GENES) -> Path:
    """The gene list in the published format."""
    lines = ["gene_name\tindex", *(f"{name}\t{i}" for i, name in enumerate(genes))]
    (folder / GENE_LIST).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / GENE_LIST


def parameters(
    seed: int, genes: int, width: int, layers: int, inner: int, *, bins: int = 100, bias: bool = True, rms: bool = False
) -> dict[str, np.ndarray]:
    """The state dict of CellFoundationModel, float32, all of it random."""
    draw = Draw(seed)

    def normed(key: str) -> dict[str, np.ndarray]:
        made = draw.norm(key, width)
        return {f"{key}.weight": made[f"{key}.weight"]} if rms else made

    out = draw.linear("gene_embedding.linear1", bins, 1) | draw.linear("gene_embedding.linear2", bins, bins)
    out |= {f"gene_embedding.{kind}_embedding.weight": draw.uniform(1, width) for kind in ("mask", "pad")}
    out |= {"gene_embedding.lookup_table.weight": draw.uniform(bins, width)}
    out |= {"position_embedding.weight": draw.uniform(genes + 2, width)} | normed("encoder.ln")
    for i in range(layers):
        at = f"encoder.layer.{i}"
        for key in ("self.query", "self.key", "self.value", "output.dense"):
            out |= draw.linear(f"{at}.attention.{key}", width, width, bias=bias)
        out |= draw.linear(f"{at}.mlp.up_proj", inner, width, bias=bias)
        out |= draw.linear(f"{at}.mlp.gate_proj", inner, width, bias=bias)
        out |= draw.linear(f"{at}.mlp.down_proj", width, inner, bias=bias)
        out |= normed(f"{at}.attention.ln") | normed(f"{at}.ln")
    return out


def write(
    folder: Path,
    seed: int = 0,
    *,
    genes: Sequence[str] = GENES,
    width: int = 16,
    layers: int = 2,
    heads: int = 2,
    inner: int = 20,
    bias: bool = True,
    rms: bool = False,
    prefix: str = "",
    binary: bool = False,
    **config: Any,
) -> dict[str, np.ndarray]:
    """Write ``config.json``, the weights and the gene list; returns the parameters, keys without ``prefix``.

    ``binary``: ``pytorch_model.bin`` instead of ``model.safetensors``; ``config``: entries to add or replace.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    write_genes(folder, genes)
    made = parameters(seed, len(genes), width, layers, inner, bias=bias, rms=rms)
    state = {prefix + key: torch.from_numpy(value) for key, value in made.items()}
    if prefix:  # the pretraining class: a head beside the model
        state["cls.predictions.bias"] = torch.ones(1)
    if binary:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {"model_type": "cellfoundation", "hidden_act": "swiglu", "position_embedding_type": "absolute"}
    settings |= {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    settings |= {"intermediate_size": inner, "max_position_embeddings": len(genes), "vocab_size": 16}
    settings |= {"bin_num": 100, "bin_alpha": 1.0, "mask_token_id": -1, "pad_token_id": -2, "layer_norm_eps": 1e-5}
    settings |= {"add_linear_bias": bias, "normalization_type": "RMSNorm" if rms else "LayerNorm"}
    (folder / "config.json").write_text(json.dumps(settings | config), encoding="utf-8")
    return made


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the entries that read such a folder; one of them has the second form of everything."""
    write(folder / "plain", 5)
    write(folder / "other", 6, bias=False, rms=True, prefix="bert.", binary=True)
    made = {name: {"checkpoint": str(folder / "plain"), "level": "gene", "device": "cpu"} for name in ENTRIES}
    made[ENTRIES[1]] |= {"checkpoint": str(folder / "other"), "average": "expressed"}
    made[ENTRIES[2]] |= {"level": "cell"}
    made[ENTRIES[3]] |= {"level": "static"}
    return made
