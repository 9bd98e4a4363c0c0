"""What a user asked for, checked before anything is computed or written: names, parameters, files, screens, splits."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from embbench.cache.weights import is_remote
from embbench.core import PerturbationDataset, UserError
from embbench.grid.screens import screen, split_of
from embbench.registry import Registry

if TYPE_CHECKING:
    from embbench.grid.config import Grid

COMBINE = ("sum", "mean", "concat")


def check_grid(grid: Grid, registry: Registry, paths: tuple[str, ...]) -> None:
    """Refuse a grid that names what does not exist, gives a parameter out of range or a split that does not fit.

    Raises
    ------
    UserError
        The first mistake; nothing has been extracted then.
    """
    if bad := sorted(set(grid.combine) - set(COMBINE)):
        raise UserError(f"combine {bad[0]!r}: expected one of {', '.join(COMBINE)}")
    axes = {
        "embeddings": [part for text in grid.emb for part in text.split("+")],
        "heads": grid.head,
        "features": grid.features,
        "graphs": grid.graph,
    }
    axes["embeddings"] += [text for text in grid.context_emb if text != "default"]
    axes["embeddings"] += [cell_spec(registry, text) for text in grid.cell_emb]
    for kind, texts in axes.items():
        for text in dict.fromkeys(texts):
            if text != "none" or kind in ("heads", "features"):
                check_spec(registry, kind, text)
    for name, split, seed in product(grid.dataset, grid.split, grid.seed):
        split_of(name, split_spec(screen(name, grid.genes, paths), split), grid.genes, seed, paths)


def preset_heads(grid: Grid, registry: Registry) -> Grid:
    """The grid with its preset written into the heads that have it and do not name one themselves.

    Raises
    ------
    UserError
        An unknown head, or a preset that no head of the grid has.
    """
    if grid.preset == "default":
        return grid
    specs = [registry.parse("heads", text) for text in grid.head]
    if not any(grid.preset in spec.entry.presets for spec in specs):
        known = {spec.entry.name: ", ".join(["default", *spec.entry.presets]) for spec in specs}
        told = "; ".join(f"{name}: {presets}" for name, presets in known.items())
        raise UserError(f"preset {grid.preset!r}: no head of this grid has it; they have {told}")
    chosen = [
        f"{spec.text}:preset={grid.preset}" if grid.preset in spec.entry.presets and not spec.preset else spec.text
        for spec in specs
    ]
    return grid.model_copy(update={"head": chosen})


def cell_spec(registry: Registry, text: str) -> str:
    """A cell representation as the context embedding that it gives: ``scgpt`` is ``scgpt:level=cell``.

    Raises
    ------
    UserError
        Not a model of cells, nor an embedding of contexts.
    """
    spec = registry.parse("embeddings", text)
    made = spec.alone()
    if made.entity == "context":
        return text
    if not hasattr(made, "level") or "level" in spec.overrides:
        raise UserError(
            f"cell embedding {text!r}: expected a model of cells (scgpt ...), a table of cell vectors "
            f"(cell_table:FILE) or an embedding of contexts, found one of {made.entity}s; see embbench list embeddings"
        )
    return f"{text}:level=cell"


def split_spec(data: PerturbationDataset, text: str) -> str:
    """The split as written; ``default`` is the dataset's own."""
    return str(data.meta.get("default_split", "unseen_perturbation")) if text == "default" else text


def check_spec(registry: Registry, kind: str, text: str) -> None:
    """Make a component once, so that a bad parameter is told before anything is written.

    Raises
    ------
    UserError
        Unknown name, parameters that do not fit, or a file that ``text`` names and that is not there. Weights and
        modules that are missing without the user having named them are no mistake: such runs are skipped.
    """
    spec = registry.parse(kind, text)
    inner = spec.overrides.get("of")
    if isinstance(inner, str):
        check_spec(registry, kind, inner)
    if not spec.entry.missing() and (inner is None or hasattr(spec.entry.load(), "files")):
        made = spec.alone()
        files: tuple[Path, ...] = tuple(made.files()) if spec.overrides and hasattr(made, "files") else ()
        if hasattr(made, "fetched") and any(is_remote(where) for where, _ in made.fetched()):
            files = ()  # `embbench extract` fetches them; a run without them is skipped and says so
        if absent := [path for path in files if not path.is_file()]:
            found = "a folder" if absent[0].is_dir() else "nothing"
            raise UserError(
                f"{kind} {text!r}: {absent[0]}: expected a file, found {found}; "
                "relative paths start at the current folder"
            )
