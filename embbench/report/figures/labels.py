"""What entries are called and how they are marked: names, modalities, colours with markers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.boards import OTHER

if TYPE_CHECKING:
    import pandas as pd

# Okabe and Ito (2008), without black and with a darker yellow: told apart with any colour vision
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#9a8f00", "#444b54")
MARKERS = ("o", "s", "^", "D", "P", "X", "v", "_")
NOT_SAID = "not said"
LENGTH = 40  # characters of a label in a figure


def vectors(frame: pd.DataFrame) -> np.ndarray:
    """Names of the vectors of each row, shape (n,): embedding, context embedding, and what else varies.

    Examples
    --------
    >>> import pandas as pd
    >>> vectors(pd.DataFrame({"embedding": ["go", "none"], "context_embedding": ["none", "none"]})).tolist()
    ['go', 'no embedding']
    """
    more = [c for c in OTHER if c in frame and frame[c].nunique() > 1]
    out = []
    for row in frame.to_dict("records"):
        names = [row[c] for c in ("embedding", "context_embedding") if row.get(c, "none") not in ("none", "")]
        rest = [str(row[c]) for c in more if str(row[c]) not in ("none", "")]
        out.append(" · ".join([" / ".join(names) or "no embedding", *rest]))
    return np.array(out, dtype=object)


def entries(frame: pd.DataFrame) -> np.ndarray:
    """Vectors and head of each row, shape (n,)."""
    pairs = zip(vectors(frame), frame["head"], strict=True)
    return np.array([h if v == "no embedding" else f"{v} × {h}" for v, h in pairs], dtype=object)


def modalities(frame: pd.DataFrame, bundle: Mapping[str, Any]) -> np.ndarray:
    """Modality of the vectors of each row, shape (n,); ``not said`` where nobody said."""
    known = bundle.get("embeddings", {})
    out = []
    for row in frame.to_dict("records"):
        names = [row[c] for c in ("embedding", "context_embedding") if row.get(c, "none") not in ("none", "")]
        out.append((known.get(names[0], {}).get("modality") or NOT_SAID) if names else "none")
    return np.array(out, dtype=object)


def shortened(names: Iterable[str]) -> list[str]:
    """Names that leave room for the figure.

    Examples
    --------
    >>> shortened(["ppi", "x" * 60])
    ['ppi', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…']
    """
    return [name if len(name) <= LENGTH else f"{name[: LENGTH - 1]}…" for name in names]


def modality_palette(bundle: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Modality -> colour and marker, the same in all figures of a report."""
    told = {facts.get("modality") or NOT_SAID for facts in bundle.get("embeddings", {}).values()}
    return palette([*told, NOT_SAID, "none"])


def palette(labels: Any) -> dict[str, tuple[str, str]]:
    """Label -> colour and marker, in sorted order."""
    names = sorted(set(labels))
    return {
        name: (COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
        for i, name in enumerate(names)
    }
