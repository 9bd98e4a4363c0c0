"""The registry of a command: the packaged one and the user's own files."""

from __future__ import annotations

import functools
from pathlib import Path

from embbench import registry as registries
from embbench.registry import Entry, Registry


@functools.lru_cache(maxsize=8)
def registry_of(paths: tuple[str, ...]) -> Registry:
    """The packaged registry and the user's own files, in order."""
    return Registry(*registries.default().paths, *map(Path, paths)) if paths else registries.default()


def screens_behind(registry: Registry, text: str) -> list[Entry]:
    """Registered entries behind the spec of a screen, by name or further name: its own, then that of the screen which
    it is made of (``labelled:NAME``); none for an imported one.
    """
    known, specs = set(registry.names("datasets")), [text, innermost(registry, text)]
    return [registry.get("datasets", name) for s in dict.fromkeys(specs) if (name := s.partition(":")[0]) in known]


def innermost(registry: Registry, text: str) -> str:
    """The spec of the screen that another one is made of: NAME of ``labelled:NAME``; others are themselves."""
    known = set(registry.names("datasets"))
    while text.partition(":")[0] in known and "of" in (told := registry.parse("datasets", text).overrides):
        text = str(told["of"]).removeprefix("of=")
    return text
