"""A tiny scPRINT v1 checkpoint in the published format: one Lightning ``.ckpt`` (state dict and hyper-parameters).

Names and shapes follow ``scprint.scPrint`` (PyPI 2.3.8); needs numpy and torch only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from oracles import _recipe
from oracles._genes import ENSEMBL

CLASSES = {"disease_ontology_term_id": 3, "cell_type_ontology_term_id": 5, "assay_ontology_term_id": 2}
PREDICTED = ("cell_type_ontology_term_id", "disease_ontology_term_id")  # not in the order of CLASSES
GENES = tuple(sorted(ENSEMBL[:120]))  # the vocabulary
FOREIGN = (*ENSEMBL[120:126], "ENSG00000000000")
SUBSET = GENES[5:95:2]  # in the order of the model, as the official collator returns it


@dataclass(frozen=True)
class Shape:
    """Sizes and switches of a case."""

    width: int
    heads: int
    layers: int
    seed: int
    kv_heads: int | None = None
    normalization: str = "sum"
    depth_at_input: bool = True
    encoder_layers: int = 2


SMALL = Shape(width=48, heads=6, layers=3, seed=21)
LOG = Shape(width=32, heads=2, layers=2, seed=22, normalization="log", depth_at_input=False, encoder_layers=3)
GROUPED = Shape(width=32, heads=4, layers=2, seed=23, kv_heads=2)


def parameters(seed: int, shape: Shape) -> dict[str, np.ndarray]:
    """The state dict, float32, with the names of scprint 2.3.8."""
    draw, d = _recipe.Draw(seed), shape.width
    out = {"gene_encoder.embeddings.weight": draw.uniform(len(GENES), d)}
    out |= _value_encoder(draw, "expr_encoder", d, shape.encoder_layers)
    out["pos_encoder.pe"] = draw.uniform(len(GENES), 1, d)  # the file counts, not the formula
    out["class_encoder.embedding.weight"] = draw.uniform(len(CLASSES) + 1, d)
    if shape.depth_at_input:
        out |= _value_encoder(draw, "depth_encoder", d, shape.encoder_layers)
    rows = d // shape.heads * (shape.heads + 2 * (shape.kv_heads or shape.heads))
    for i in range(shape.layers):
        at = f"transformer.blocks.{i}"
        out |= draw.linear(f"{at}.mixer.Wqkv", rows, d) | draw.linear(f"{at}.mixer.out_proj", d, d)
        out |= draw.norm(f"{at}.norm1", d) | draw.norm(f"{at}.norm2", d)
        out |= draw.linear(f"{at}.mlp.fc1", 4 * d, d) | draw.linear(f"{at}.mlp.fc2", d, 4 * d)
    return out | draw.norm("transformer.norm", d) | _heads(draw, d, depth=not shape.depth_at_input)


def _value_encoder(draw: _recipe.Draw, key: str, d: int, layers: int) -> dict[str, np.ndarray]:
    out = draw.linear(f"{key}.encoder.0", d, 1)
    for i in range(layers - 1):
        out |= draw.norm(f"{key}.encoder.{4 * i + 1}", d) | draw.linear(f"{key}.encoder.{4 * i + 4}", d, d)
    return out


def _heads(draw: _recipe.Draw, d: int, *, depth: bool) -> dict[str, np.ndarray]:
    """Decoders: published files hold them, embeddings do not use them, the official loader asks for them."""
    out = draw.linear("expr_decoder.fc.0", d, d + depth) | draw.norm("expr_decoder.fc.1", d)
    out |= draw.linear("expr_decoder.fc.4", d, d) | draw.norm("expr_decoder.fc.5", d)
    out |= draw.linear("expr_decoder.pred_var_zero", 3, d)
    for name, n in CLASSES.items():
        at = f"cls_decoders.{name}"
        out |= draw.linear(f"{at}.decoder.0", 24, d) | draw.norm(f"{at}.decoder.1", 24)
        out |= draw.linear(f"{at}.out_layer", n, 24)
    at = "grad_reverse_discriminator_loss"
    for i in (0, 3):
        out |= draw.linear(f"{at}.decoder.{i}", d, d) | draw.norm(f"{at}.decoder.{i + 1}", d)
    return out | draw.linear(f"{at}.out_layer", 4, d)


def hyper_parameters(shape: Shape) -> dict[str, Any]:
    """What Lightning stores beside the weights: plain lists, dicts, numbers and strings."""
    positions = [1 + (7 * i) % len(GENES) for i in range(len(GENES))]
    decoders = {name: {i: f"{name}:{i}" for i in range(n)} for name, n in CLASSES.items()}
    return {
        "genes": list(GENES),
        "organisms": ["NCBITaxon:9606"],
        "d_model": shape.width,
        "nhead": shape.heads,
        "nlayers": shape.layers,
        "num_heads_kv": shape.kv_heads,
        "gene_pos_enc": positions,
        "normalization": shape.normalization,
        "attn_bias": "none",
        "expr_encoder_layers": shape.encoder_layers,
        "expr_emb_style": "continuous",
        "transformer": "flash",
        "num_batch_labels": 4,
        "mvc_decoder": "None",
        "layers_cls": [24],
        "classes": dict(CLASSES),
        "label_counts": dict(CLASSES),
        "labels_hierarchy": {},
        "label_decoders": decoders,
        "pred_embedding": list(PREDICTED),
        "cell_emb_style": "cls",
        "cell_specific_blocks": False,
        "depth_atinput": shape.depth_at_input,
        "use_metacell_token": False,
        "freeze_embeddings": True,
        "zinb": True,
        "dropout": 0.1,
        "residual_in_fp32": True,
        "checkpointing": False,
        "fused_dropout_add_ln": False,
        "precpt_gene_emb": None,
    }


def rename(state: dict[str, np.ndarray], names: str) -> dict[str, np.ndarray]:
    """The same numbers under older names.

    ``new`` is 2.3.8; ``old`` has ``gene_encoder.embedding.weight``; ``older`` has ``gene_encoder.0.embedding.weight``
    and a position table of shape (genes, d), which the official 2.3.8 no longer loads.
    """
    out, table = dict(state), "gene_encoder.embeddings.weight"
    if names != "new":
        key = "gene_encoder.embedding.weight" if names == "old" else "gene_encoder.0.embedding.weight"
        out = {key if name == table else name: value for name, value in out.items()}
    if names == "older":
        out["pos_encoder.pe"] = out["pos_encoder.pe"][:, 0]
    return out


def write_checkpoint(folder: Path, seed: int = SMALL.seed, *, shape: Shape = SMALL, names: str = "new") -> str:
    """Write ``folder/tiny.ckpt``; returns the digest of the parameters (under the names of 2.3.8)."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    state = parameters(seed, shape)
    content = {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {key: torch.from_numpy(np.ascontiguousarray(v)) for key, v in rename(state, names).items()},
        "loops": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": hyper_parameters(shape),
    }
    torch.save(content, folder / "tiny.ckpt")
    return _recipe.digest(state)


def counts(shape: Shape = SMALL) -> tuple[np.ndarray, np.ndarray]:
    """Raw counts (8 cells) and Ensembl identifiers: 105 of the 120 known genes, 7 unknown ones.

    Under normalization ``log`` the last cell is empty; under ``sum`` the official code divides zero by zero there.
    """
    known = GENES[3:108]
    return _recipe.counts(shape.seed, known, 8, foreign=FOREIGN, empty=shape.normalization == "log")
