"""A tiny table of folds: two folds over the toy screen's perturbations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embbench.checks import toy_screen


def params(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the entry that reads such a table."""
    screen = toy_screen()
    fold = {name: i % 3 for i, name in enumerate(screen.entity_names)}
    parts = [max(fold[e] for e in row) for row in screen.entities]
    roles = [("test" if part == 0 else "train", {1: "test", 2: "val"}.get(part, "train")) for part in parts]
    doses = [] if screen.dose is None else screen.dose.tolist()
    lines = [
        "\t".join(["+".join(entities[::-1]), context, str(dose), *told])
        for entities, context, dose, told in zip(screen.entities, screen.context, doses, roles, strict=True)
    ]
    head = "condition\tcontext\tdose\tfold:a\tfold:b"
    (folder / "folds.tsv").write_bytes("\r\n".join([head, *lines]).encode())
    return {"splits/file": {"path": str(folder / "folds.tsv")}}
