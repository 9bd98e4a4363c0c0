"""Tiny regulons in the layouts of CollecTRI, DoRothEA and SCENIC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from embbench.checks._toy import KNOWN, MEASURED

REGULATORS = ("TP53", "STAT1", "IRF1", "MYC", "MAX", "RELA")
TARGETS = (*KNOWN, *MEASURED[:8])


def edges(seed: int = 0) -> list[tuple[str, str, int]]:
    """Distinct pairs with a sign, about half of all."""
    rng = np.random.default_rng(seed)
    pairs = [(r, t) for r in REGULATORS for t in TARGETS if r != t and rng.random() < 0.5]
    return [(r, t, int(rng.choice([-1, 1]))) for r, t in pairs]


def collectri(path: Path) -> None:
    """CSV: source, target, weight (-1 or 1), resources, references, sign_decision; complexes among the sources."""
    rows = [f"{r},{t},{w},ExTRI;HTRI,10022869;10037172,PMID" for r, t, w in edges()]
    rows += [f"{c},{t},1,ExTRI,10022869,default activation" for c in ("AP1", "NFKB") for t in ("MYC", "JUN")]
    path.write_text("\n".join(["source,target,weight,resources,references,sign_decision", *rows]) + "\n")


def dorothea(path: Path) -> None:
    """TSV: tf, confidence, target, mor."""
    rows = [f"{r}\t{'ABCDE'[i % 5]}\t{t}\t{w}" for i, (r, t, w) in enumerate(edges())]
    path.write_text("\n".join(["tf\tconfidence\ttarget\tmor", *rows]) + "\n")


def scenic(path: Path) -> None:
    """TSV of GRNBoost2: TF, target, importance (positive)."""
    strength = np.random.default_rng(1).gamma(2.0, 1.0, len(edges()))
    rows = [f"{r}\t{t}\t{s:.6f}" for (r, t, _), s in zip(edges(), strength, strict=True)]
    path.write_text("\n".join(["TF\ttarget\timportance", *rows]) + "\n")


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Writes the tables into ``folder``; constructor parameters by entry."""
    collectri(folder / "CollecTRI.csv")
    dorothea(folder / "dorothea_hs.tsv")
    return {
        "embeddings/collectri": {"path": str(folder / "CollecTRI.csv"), "dim": 4},
        "embeddings/regulons": {"path": str(folder / "dorothea_hs.tsv"), "dim": 4},
    }
