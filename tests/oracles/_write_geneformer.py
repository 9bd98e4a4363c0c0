"""Tiny Geneformer checkpoints in the published format: a Hugging Face folder and the tokeniser's dictionaries.

Names and shapes follow ``transformers.BertForMaskedLM``; needs numpy, torch and safetensors. The layout is that of the
shared fixtures: ``checkpoint/`` (config.json, model.safetensors) and the pickled dictionaries beside it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from oracles import _recipe
from oracles._genes import ENSEMBL

GENES = ENSEMBL[:130]
FOREIGN = (*ENSEMBL[130:134], "ENSG00000000000")
ALIASES = {
    "ENSG00000900001": GENES[20],
    "ENSG00000900002": GENES[21],
    "ENSG00000900003": GENES[21],
    "SYMBOL1": GENES[22],
}
FILES = {  # published names of token ids, medians and aliases
    "v1": ("token_dictionary.pkl", "gene_median_dictionary.pkl", ""),
    "v2": ("token_dictionary_gc95M.pkl", "gene_median_dictionary_gc95M.pkl", "ensembl_mapping_dict_gc95M.pkl"),
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a case; version v1 has no special tokens in its sentences, v2 has ``<cls>`` and ``<eos>``."""

    version: str
    width: int
    heads: int
    hidden: int
    layers: int
    positions: int
    seed: int


V1 = Shape("v1", width=40, heads=5, hidden=72, layers=2, positions=2048, seed=41)
V2 = Shape("v2", width=32, heads=2, hidden=56, layers=3, positions=50, seed=42)  # 48 genes and two special tokens
REAL_V1 = Shape("v1", width=16, heads=2, hidden=24, layers=2, positions=2048, seed=43)
REAL_V2 = Shape("v2", width=16, heads=4, hidden=24, layers=2, positions=4096, seed=44)


@dataclass(frozen=True)
class Dictionaries:
    """Token ids, medians of non-zero expression, and (v2) aliases -> Ensembl identifiers of the tokens."""

    tokens: Mapping[str, int]
    medians: Mapping[str, float]
    aliases: Mapping[str, str]


def dictionaries(shape: Shape) -> Dictionaries:
    """Small dictionaries of 130 genes; v1 medians repeat, so that values tie; v2 medians do not."""
    special = ("<pad>", "<mask>") if shape.version == "v1" else ("<pad>", "<mask>", "<cls>", "<eos>")
    order = np.argsort(np.random.default_rng([shape.seed, 2]).random(len(GENES)), kind="stable")
    tokens = {token: i for i, token in enumerate((*special, *(GENES[i] for i in order)))}
    draws = np.random.default_rng([shape.seed, 3]).random(len(GENES))
    steps = np.round(draws * 4) / 4 if shape.version == "v1" else draws
    medians = dict(zip(GENES, (0.5 + 3.0 * steps).tolist(), strict=True))
    return Dictionaries(tokens, medians, {gene: gene for gene in GENES} | ALIASES if shape.version == "v2" else {})


def read_dictionaries(folder: Path, version: str) -> Dictionaries:
    """The published dictionaries, from the folder of real vocabularies (names as stored there)."""
    names = [f"geneformer_v1_{n}" if version == "v1" else f"geneformer_{n}" for n in FILES[version] if n]
    loaded = [pickle.loads((folder / name).read_bytes()) for name in names]
    return Dictionaries(*loaded, *([{}] if version == "v1" else []))


def read_folder(folder: Path, version: str) -> Dictionaries:
    """The dictionaries that `write_checkpoint` wrote."""
    loaded = [pickle.loads((folder / name).read_bytes()) for name in FILES[version] if name]
    return Dictionaries(*loaded, *([{}] if version == "v1" else []))


def parameters(seed: int, shape: Shape, rows: int) -> dict[str, np.ndarray]:
    """The state dict, float32, as ``save_pretrained`` writes it (the tied decoder matrix is left out)."""
    draw, d = _recipe.Draw(seed), shape.width
    out = {"bert.embeddings.word_embeddings.weight": draw.uniform(rows, d)}
    out["bert.embeddings.position_embeddings.weight"] = draw.uniform(shape.positions, d, width=0.7)
    out["bert.embeddings.token_type_embeddings.weight"] = draw.uniform(2, d, width=0.5)
    out |= draw.norm("bert.embeddings.LayerNorm", d)
    for i in range(shape.layers):
        at = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            out |= draw.linear(f"{at}.attention.self.{name}", d, d)
        out |= draw.linear(f"{at}.attention.output.dense", d, d) | draw.norm(f"{at}.attention.output.LayerNorm", d)
        out |= draw.linear(f"{at}.intermediate.dense", shape.hidden, d)
        out |= draw.linear(f"{at}.output.dense", d, shape.hidden) | draw.norm(f"{at}.output.LayerNorm", d)
    out["cls.predictions.bias"] = draw.uniform(rows)
    at = "cls.predictions.transform"
    return out | draw.linear(f"{at}.dense", d, d) | draw.norm(f"{at}.LayerNorm", d)


def config(shape: Shape, rows: int) -> dict[str, Any]:
    """``config.json``."""
    return {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "attention_probs_dropout_prob": 0.02,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.02,
        "hidden_size": shape.width,
        "initializer_range": 0.02,
        "intermediate_size": shape.hidden,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": shape.positions,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": rows,
        "dtype": "float32",
        "transformers_version": "4.57.6",
    }


def write_checkpoint(
    folder: Path, seed: int = V1.seed, *, shape: Shape = V1, words: Dictionaries | None = None, binary: bool = False
) -> str:
    """Write ``folder/checkpoint`` and the dictionaries; returns the digest of the parameters.

    Parameters
    ----------
    folder : made if absent.
    seed : of the weights.
    shape : sizes and version.
    words : dictionaries; None are the small ones.
    binary : write ``pytorch_model.bin`` (with the old ``position_ids`` buffer) instead of ``model.safetensors``.
    """
    import torch
    from safetensors.torch import save_file

    words = dictionaries(shape) if words is None else words
    (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
    rows = len(words.tokens)
    state = parameters(seed, shape, rows)
    tensors = {key: torch.from_numpy(value) for key, value in state.items()}
    if binary:
        tensors["bert.embeddings.position_ids"] = torch.arange(shape.positions)[None]
        torch.save(tensors, folder / "checkpoint" / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "checkpoint" / "model.safetensors", metadata={"format": "pt"})
    (folder / "checkpoint" / "config.json").write_text(json.dumps(config(shape, rows), indent=1), encoding="utf-8")
    parts = (words.tokens, words.medians, words.aliases)
    for name, content in zip(FILES[shape.version], parts, strict=True):
        if name:
            (folder / name).write_bytes(pickle.dumps(dict(content), protocol=4))
    return _recipe.digest(state)


def counts(shape: Shape = V1) -> tuple[np.ndarray, np.ndarray]:
    """Raw counts (8 cells) and Ensembl identifiers of a small case: 110 known genes, unknown ones, v2: aliases.

    Two aliases of case v2 mean one gene that is there under its own name too: their counts are summed.
    """
    extra = tuple(ALIASES) if shape.version == "v2" else ()
    return _recipe.counts(shape.seed, (*GENES[8:118], *extra), 8, foreign=FOREIGN)


def real_counts(shape: Shape, words: Dictionaries) -> tuple[np.ndarray, np.ndarray]:
    """Raw counts (4 cells) for the published dictionaries: 200 genes, v2: 12 published aliases of them."""
    genes = sorted(set(words.tokens) & set(words.medians))
    known = [*ENSEMBL[:100], *genes[:: len(genes) // 100][:100]]
    known = list(dict.fromkeys(known))
    wanted = set(known)
    aliases = sorted(name for name, gene in words.aliases.items() if gene in wanted and name != gene)
    return _recipe.counts(shape.seed, (*known, *aliases[:12]), 4, foreign=("NOTAGENE1",))
