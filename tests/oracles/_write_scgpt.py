"""A tiny scGPT checkpoint in the published format: ``args.json``, ``vocab.json``, ``best_model.pt``.

Keys and shapes follow the state dict of ``scgpt.model.TransformerModel`` (PyPI 0.2.4, MIT); needs numpy and torch only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from oracles import _recipe
from oracles._genes import SYMBOLS

SPECIAL = ("<pad>", "<cls>", "<eoc>")
ATTENTION = {"in_proj": "self_attn.in_proj_{}", "Wqkv": "self_attn.Wqkv.{}", "_impl": "self_attn._impl.Wqkv.{}"}
KNOWN = SYMBOLS[:112]  # the vocabulary of case small
FOREIGN = ("NOTAGENE1", "NOTAGENE2", "NOTAGENE3", *SYMBOLS[150:155])


@dataclass(frozen=True)
class Shape:
    """Sizes of a case and the numbers of its ``args.json``."""

    width: int
    heads: int
    hidden: int
    layers: int
    pad_value: int
    seed: int


SMALL = Shape(width=40, heads=5, hidden=56, layers=3, pad_value=-2, seed=11)
CENSUS = Shape(width=24, heads=3, hidden=40, layers=2, pad_value=-3, seed=12)  # a pad value that is not the usual one


def small_tokens() -> list[str]:
    """Genes, ``<pad>`` and ``<cls>`` in the middle; ``<eoc>`` is missing, as loaders append what is missing."""
    return [*KNOWN[:50], "<pad>", "<cls>", *KNOWN[50:]]


def census_tokens(vocabulary: Mapping[str, int]) -> list[str]:
    """The published list (60,694 genes) and the three special tokens: 60,697."""
    return [*sorted(vocabulary, key=lambda token: vocabulary[token]), *SPECIAL]


def parameters(seed: int, tokens: Sequence[str], shape: Shape, layout: str = "in_proj") -> dict[str, np.ndarray]:
    """The state dict, float32; ``layout`` only renames the attention (in_proj, Wqkv, _impl), the numbers are equal."""
    draw, d = _recipe.Draw(seed), shape.width
    rows = len(tokens) + sum(token not in tokens for token in SPECIAL)
    out = {"encoder.embedding.weight": draw.uniform(rows, d)} | draw.norm("encoder.enc_norm", d)
    out |= draw.linear("value_encoder.linear1", d, 1) | draw.linear("value_encoder.linear2", d, d)
    out |= draw.norm("value_encoder.norm", d)
    for i in range(shape.layers):
        at = f"transformer_encoder.layers.{i}"
        fused = draw.linear("x", 3 * d, d)
        out |= {f"{at}.{ATTENTION[layout].format(kind)}": fused[f"x.{kind}"] for kind in ("weight", "bias")}
        out |= draw.linear(f"{at}.self_attn.{'_impl.' if layout == '_impl' else ''}out_proj", d, d)
        out |= draw.linear(f"{at}.linear1", shape.hidden, d) | draw.linear(f"{at}.linear2", d, shape.hidden)
        out |= draw.norm(f"{at}.norm1", d) | draw.norm(f"{at}.norm2", d)
    return out | _heads(draw, d)


def _heads(draw: _recipe.Draw, d: int) -> dict[str, np.ndarray]:
    """Parameters that published files hold and embeddings do not use."""
    out = draw.linear("decoder.fc.0", d, d) | draw.linear("decoder.fc.2", d, d) | draw.linear("decoder.fc.4", 1, d)
    for i in (0, 3):
        out |= draw.linear(f"cls_decoder._decoder.{i}", d, d) | draw.norm(f"cls_decoder._decoder.{i + 2}", d)
    out |= draw.linear("cls_decoder.out_layer", 1, d)
    return out | draw.linear("mvc_decoder.gene2query", d, d) | draw.linear("mvc_decoder.W", d, d, bias=False)


def write_checkpoint(
    folder: Path,
    seed: int = SMALL.seed,
    *,
    tokens: Sequence[str] | None = None,
    shape: Shape = SMALL,
    layout: str = "in_proj",
) -> str:
    """Write the three files into ``folder``; returns the digest of the parameters (of layout in_proj).

    Parameters
    ----------
    folder : made if absent.
    seed : of the weights.
    tokens : the vocabulary in the order of its ids; None is `small_tokens`.
    shape : sizes.
    layout : names of the attention parameters: ``in_proj`` (plain torch), ``Wqkv`` (published), ``_impl`` (2026).
    """
    import torch

    tokens = small_tokens() if tokens is None else tokens
    folder.mkdir(parents=True, exist_ok=True)
    state = parameters(seed, tokens, shape, layout)
    torch.save({key: torch.from_numpy(value) for key, value in state.items()}, folder / "best_model.pt")
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    arguments = {"embsize": shape.width, "nheads": shape.heads, "d_hid": shape.hidden, "nlayers": shape.layers}
    arguments |= {"n_layers_cls": 3, "dropout": 0.2, "pad_token": "<pad>", "pad_value": shape.pad_value}
    arguments |= {"mask_value": -1, "n_bins": 51, "max_seq_len": 1200, "input_style": "binned"}
    (folder / "args.json").write_text(json.dumps(arguments | {"input_emb_style": "continuous"}), encoding="utf-8")
    return _recipe.digest(state if layout == "in_proj" else parameters(seed, tokens, shape))


def counts(seed: int = SMALL.seed) -> tuple[np.ndarray, np.ndarray]:
    """Raw counts (10 cells) and symbols of case small: 100 of the 112 known genes, 8 unknown ones; no empty cell."""
    return _recipe.counts(seed, KNOWN[6:106], 10, foreign=FOREIGN)


def census_counts(seed: int = CENSUS.seed) -> tuple[np.ndarray, np.ndarray]:
    """Raw counts (6 cells) and symbols of case census; the last cell expresses one gene."""
    matrix, names = _recipe.counts(seed, SYMBOLS, 6, foreign=FOREIGN[:3])
    matrix[-1] = 0
    matrix[-1, np.flatnonzero(names == SYMBOLS[3])] = 4
    return matrix, names
