"""ESM-2 by the authors' own code (fair-esm): the oracle of tests/test_language.py for proteins.

Written with fair-esm 2.0.0, torch 2.13.0, numpy 2.4.6. To run it again, from the root of the repository:

    python3.11 -m venv .oracle
    .oracle/bin/pip install -c constraints/cpu.txt torch fair-esm==2.0.0 safetensors -e .
    .oracle/bin/python tests/oracles/esm2.py

The tiny checkpoint of tests/tiny, in the layout of facebook/esm2_t6_8M_UR50D, is given to ``esm.model.esm2.ESM2`` under
its own names (the inverse of the published conversion). It writes tests/oracles/expected/esm2.npz: ``sequences``, and
for one sequence at a time ``mean0``, ``mean1``, ``mean2`` (mean over residues of the layers' representations, the
input embeddings first) and ``bos2``.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from esm.data import Alphabet
from esm.model.esm2 import ESM2
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from tiny.language import ESM_VOCABULARY, HEADS, LAYERS, WIDTH, esm2  # noqa: E402

VERSION = "2.0.0"
NAMES = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.self.rotary_embeddings": "self_attn.rot_emb",
    "attention.output.dense": "self_attn.out_proj",
    "attention.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "LayerNorm": "final_layer_norm",
}
SEQUENCES = (
    "MKTAYIAKQR",
    "M",
    "MXBUZOX",
    "ACDEFGHIKLMNPQRSTVWY",
    "MEEPQSDPSVEPPLSQETFSDLWKLLPENNVLSPLPSQAMDDLMLSPDDIEQ",
)


def official(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the names of fair-esm; the position table, which ESM-2 never uses, goes."""
    out = {}
    for key, value in state.items():
        name = key.removeprefix("esm.")
        if name.startswith("encoder.layer."):
            _, _, number, rest = name.split(".", 3)
            old = max((known for known in NAMES if rest.startswith(known)), key=len)
            name = f"layers.{number}.{NAMES[old]}{rest.removeprefix(old)}"
        name = name.replace("encoder.emb_layer_norm_after", "emb_layer_norm_after")
        name = name.replace("embeddings.word_embeddings", "embed_tokens")
        if "position_embeddings" not in name:
            out[name] = value
    return {**out, "lm_head.weight": out["embed_tokens.weight"]}


def main() -> None:
    """Run and write."""
    if version("fair-esm") != VERSION:
        sys.exit(f"expected fair-esm {VERSION}, found {version('fair-esm')}")
    alphabet = Alphabet.from_architecture("ESM-1b")
    if alphabet.all_toks != ESM_VOCABULARY:
        sys.exit(f"expected the vocabulary of fair-esm {alphabet.all_toks}, found {ESM_VOCABULARY}")
    model = ESM2(
        num_layers=LAYERS, embed_dim=WIDTH, attention_heads=HEADS, alphabet=alphabet, token_dropout=True
    ).eval()
    with tempfile.TemporaryDirectory() as scratch:
        model.load_state_dict(official(load_file(esm2(Path(scratch) / "esm2") / "model.safetensors")), strict=True)
    convert = alphabet.get_batch_converter()
    found: dict[str, list[np.ndarray]] = {"mean0": [], "mean1": [], "mean2": [], "bos2": []}
    for sequence in SEQUENCES:
        _, _, tokens = convert([("one", sequence)])
        with torch.no_grad():
            layers = model(tokens, repr_layers=[0, 1, 2])["representations"]
        for i in range(3):
            found[f"mean{i}"].append(layers[i][0, 1 : len(sequence) + 1].mean(0).numpy())
        found["bos2"].append(layers[2][0, 0].numpy())
    vectors = {name: np.stack(rows) for name, rows in found.items()}
    np.savez_compressed(ROOT / "tests/oracles/expected/esm2.npz", sequences=np.array(SEQUENCES), **vectors)


if __name__ == "__main__":
    main()
