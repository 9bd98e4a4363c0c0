"""Tiny scFoundation checkpoints for the contracts and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from oracles._recipe import Draw

from tiny.aido_cell import GENES, write_genes

ENCODER = {"hidden_dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "module_type": "transformer", "norm_first": False}
DECODER = {"hidden_dim": 12, "depth": 2, "heads": 3, "dim_head": 4, "module_type": "performer", "norm_first": False}
FEATURES = 6


def parameters(
    seed: int, genes: int, encoder: dict[str, Any] = ENCODER, decoder: dict[str, Any] = DECODER
) -> dict[str, np.ndarray]:
    """The state dict of MaeAutobin, float32, without the ``model.`` of the published file."""
    draw, d, e, bins = Draw(seed), encoder["hidden_dim"], decoder["hidden_dim"], 100
    across = decoder["heads"] * decoder["dim_head"]
    out = draw.linear("token_emb.mlp", bins, 1) | draw.linear("token_emb.mlp2", bins, bins)
    out |= {"token_emb.emb.weight": draw.uniform(bins, d), "pos_emb.weight": draw.uniform(genes + 3, d)}
    out |= {f"token_emb.emb_{kind}.weight": draw.uniform(1, d) for kind in ("mask", "pad")}
    out |= draw.linear("decoder_embed", e, d) | draw.norm("norm", e) | draw.linear("to_final", 1, e)
    for i in range(encoder["depth"]):
        at = f"encoder.transformer_encoder.{i}"
        out |= draw.linear(f"{at}.self_attn.in_proj", 3 * d, d, dot="_") | draw.linear(f"{at}.self_attn.out_proj", d, d)
        out |= draw.linear(f"{at}.linear1", 4 * d, d) | draw.linear(f"{at}.linear2", d, 4 * d)
        out |= draw.norm(f"{at}.norm1", d) | draw.norm(f"{at}.norm2", d)
    out |= draw.norm("encoder.norm", d) | draw.norm("decoder.norm", e)
    for i in range(decoder["depth"]):
        attend, feed = (f"decoder.performer.net.layers.{i}.{part}" for part in (0, 1))
        for part in "qkv":
            out |= draw.linear(f"{attend}.fn.to_{part}", across, e)
        out |= draw.linear(f"{attend}.fn.to_out", e, across) | draw.norm(f"{attend}.norm", e)
        out |= {f"{attend}.fn.fast_attention.projection_matrix": draw.uniform(FEATURES, decoder["dim_head"], width=2.0)}
        out |= draw.linear(f"{feed}.fn.fn.w1", 4 * e, e) | draw.linear(f"{feed}.fn.fn.w2", e, 4 * e)
        out |= draw.norm(f"{feed}.norm", e)
    return out


def write(
    folder: Path,
    seed: int = 0,
    *,
    genes: Sequence[str] = GENES,
    change: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Write ``models.ckpt`` and the gene list; returns the parameters of its three models.

    Parameters
    ----------
    folder : made if absent.
    seed : of the weights.
    genes : the list.
    change : is given the content before it is written.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    write_genes(folder, genes)
    long = len(genes) + 2
    made = {name: parameters(seed * 10 + i, len(genes)) for i, name in enumerate(("cell", "gene", "rde"))}
    content: dict[str, Any] = {}
    for name, state in made.items():
        inner = {"encoder": {**ENCODER, "seq_len": long}, "decoder": {**DECODER, "seq_len": long}}
        inner |= {"mask_gene_name": False, "gene_num": long, "seq_len": long, "n_class": 104, "pad_token_id": 103}
        inner |= {"mask_token_id": 102, "bin_num": 100, "bin_alpha": 1.0, "model": "mae_autobin"}
        tensors = {f"model.{key}": torch.from_numpy(value) for key, value in state.items()}
        tensors["model.decoder.performer.calls_since_last_redraw"] = torch.tensor(17)
        config = {"model": "mae_autobin", "model_config": {"mae_autobin": inner}}
        content[name] = {"config": {**config, "dataset_config": {"rnaseq": {"rawcount": True}}}, "state_dict": tensors}
    if change is not None:
        change(content)
    torch.save(content, folder / "models.ckpt")
    return made


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the entry that reads such a file."""
    write(folder, 3)
    return {"embeddings/scfoundation": {"checkpoint": str(folder), "level": "gene", "device": "cpu"}}
