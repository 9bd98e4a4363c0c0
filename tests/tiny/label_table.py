"""A tiny sparse label table: significant genes of the toy screen's perturbations, one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from embbench.checks import toy_screen


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the entry that reads such a table."""
    screen = toy_screen()
    rows, genes = np.nonzero(screen.labels)
    word = {-1: "down", 1: "up"}
    lines = [
        "\t".join(["+".join(screen.entities[i]), screen.genes[j], screen.context[i], word[int(screen.labels[i, j])]])
        for i, j in zip(rows, genes, strict=True)
        if screen.dose[i] == 1
    ]
    (folder / "labels.tsv").write_text("\n".join(["pert\tsymbol\tline\tdirection", *lines]) + "\n", encoding="utf-8")
    keys = {"perturbation_key": "pert", "gene_key": "symbol", "label_key": "direction", "context_key": "line"}
    return {"datasets/label_table": {"path": str(folder / "labels.tsv"), **keys}}
