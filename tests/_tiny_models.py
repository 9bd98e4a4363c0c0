"""Tiny checkpoints of every registered model, and the toy screen under a name, for tests of the command line."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import yaml

from embbench import registry
from embbench.checks import toy_screen
from embbench.core import PerturbationDataset
from embbench.registry import Entry

TINY = Path(__file__).resolve().parent / "tiny"
ENCODERS = "embbench.embeddings.language."


class ToyScreen:
    """`toy_screen` as a registered dataset: its genes and compounds are those that tiny checkpoints know."""

    def __init__(self, entity_type: str = "gene") -> None:
        self.entity_type = entity_type

    def load(self) -> PerturbationDataset:
        """The screen."""
        return toy_screen(entity_type=self.entity_type)


def write_toy_registry(path: Path) -> Path:
    """A user's registry file with the dataset ``toy``."""
    entry = {"impl": f"{__name__}:ToyScreen", "argument": "entity_type"}
    path.write_text(yaml.safe_dump({"datasets": {"toy": entry}}), encoding="utf-8")
    return path


def module_of(entry: Entry) -> str:
    """Last name of the module behind an entry."""
    return entry.module.rpartition(".")[2]


def families() -> dict[str, Entry]:
    """The first entry of every cell model that has a tiny checkpoint, and of every kind of encoder, by module."""
    found: dict[str, Entry] = {}
    for entry in registry.default().entries("embeddings"):
        tiny = (TINY / f"{module_of(entry)}.py").is_file()
        if (entry.modality == "cell model" and tiny) or entry.module.startswith(ENCODERS):
            found.setdefault(module_of(entry), entry)
    return found


FAMILIES = families()
MODELS = [name for name, entry in FAMILIES.items() if entry.modality == "cell model"]


@functools.cache
def _written(base: Path, module: str) -> dict[str, dict[str, Any]]:
    (base / module).mkdir()
    return importlib.import_module(f"tiny.{module}").params(base / module)


def tiny_folder(base: Path, family: str) -> Path:
    """Where the tiny checkpoint of a family lies, once `good` wrote it."""
    return base / (family if family in MODELS else "language")


def good(base: Path, family: str) -> dict[str, Any]:
    """Parameters of a family's entry on its tiny checkpoint, which is written below ``base`` once."""
    return _written(base, tiny_folder(base, family).name)[f"embeddings/{FAMILIES[family].name}"]
