"""What entries are called and how they are marked: names, modalities, colours with markers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embbench.report.boards import OTHER
from embbench.report.page.names import cut

if TYPE_CHECKING:
    import pandas as pd

# Okabe and Ito (2008), without black and with a darker yellow: told apart with any colour vision
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#9a8f00", "#444b54")
MARKERS = ("o", "s", "^", "D", "P", "X", "v", "_")
NOT_SAID = "not said"
BARE = "no embedding"
OF_VECTORS = ("combine", "features", "scope", "graph")  # say nothing of an entry without vectors
LENGTH = 40  # characters of a label in a figure


def varying(bundle: Mapping[str, Any]) -> list[str]:
    """Coordinates besides names that tell entries of this report apart."""
    columns = bundle["tables"].get("leaderboard", {}).get("columns", {})
    return [c for c in OTHER if len(columns.get(c, {}).get("levels", ())) > 1]


def vectors(frame: pd.DataFrame, bundle: Mapping[str, Any]) -> np.ndarray:
    """Names of the vectors of each row, shape (n,): embedding, context embedding, and what else varies.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"embedding": ["go", "none"], "context_embedding": ["none", "none"]})
    >>> vectors(frame, {"tables": {}}).tolist()
    ['go', 'no embedding']
    """
    short = bundle.get("labels", {}).get("embeddings", {})
    more = varying(bundle)
    out = []
    for row in frame.to_dict("records"):
        names = [row[c] for c in ("embedding", "context_embedding") if row.get(c, "none") not in ("none", "")]
        rest = [(c, str(row.get(c, ""))) for c in more if names or c not in OF_VECTORS]
        said = [value if c == "features" else f"{c}={value}" for c, value in rest if value not in ("none", "")]
        out.append(" · ".join([" / ".join(short.get(n, n) for n in names) or BARE, *said]))
    return np.array(out, dtype=object)


def entries(frame: pd.DataFrame, bundle: Mapping[str, Any]) -> np.ndarray:
    """Vectors and head of each row, shape (n,)."""
    pairs = zip(vectors(frame, bundle), frame["head"], strict=True)
    return np.array([h + v[len(BARE) :] if v.startswith(BARE) else f"{v} × {h}" for v, h in pairs], dtype=object)


def daggers(board: pd.DataFrame, bundle: Mapping[str, Any]) -> dict[str, str]:
    """Entry of a leaderboard -> why it is not ranked: † incomplete, ‡ too few conditions of its own, else empty."""
    blank = np.ones(len(board))
    whole, enough = (board.get(c, blank) for c in ("complete", "enough_coverage"))
    marks = ["†" if w == 0 else "‡" if e == 0 else "" for w, e in zip(whole, enough, strict=True)]
    return dict(zip(entries(board, bundle).tolist(), marks, strict=True))


def title(facts: Mapping[str, str], bundle: Mapping[str, Any]) -> str:
    """Dataset, split and gene set of a board."""
    short = bundle.get("labels", {}).get("datasets", {})
    genes = "" if facts["genes"] == "all" else f" · genes {facts['genes']}"
    return f"{short.get(facts['dataset'], facts['dataset'])} · {facts['split']}{genes}"


def relabelled(text: str, bundle: Mapping[str, Any]) -> str:
    """A text with the short labels of the long names that stand in it."""
    known = {name: label for labels in bundle.get("labels", {}).values() for name, label in labels.items()}
    for name in sorted(known, key=len, reverse=True):
        text = text.replace(name, known[name])
    return text


def modalities(frame: pd.DataFrame, bundle: Mapping[str, Any]) -> np.ndarray:
    """Modality of the vectors of each row, shape (n,); ``not said`` where nobody said."""
    known = bundle.get("embeddings", {})
    out = []
    for row in frame.to_dict("records"):
        names = [row[c] for c in ("embedding", "context_embedding") if row.get(c, "none") not in ("none", "")]
        out.append((known.get(names[0], {}).get("modality") or NOT_SAID) if names else "none")
    return np.array(out, dtype=object)


def shortened(names: Iterable[str]) -> list[str]:
    """Names that leave room for the figure, cut in the middle of the vectors (heads stay whole), all different.

    Examples
    --------
    >>> shortened(["ppi", "x" * 60 + " × ridge"])
    ['ppi', 'xxxxxxxxxxxxxxx…xxxxxxxxxxxxxxxx × ridge']
    """
    whole = list(names)
    out: dict[str, str] = {}
    for name in whole:
        front, times, head = name.rpartition(" × ") if " × " in name else (name, "", "")
        short = name if len(name) <= LENGTH else cut(front, max(8, LENGTH - len(times + head))) + times + head
        number = 2
        while any(other == short for known, other in out.items() if known != name):
            short = f"{number}: {short.removeprefix(f'{number - 1}: ')}"
            number += 1
        out[name] = short
    return [out[name] for name in whole]


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
