"""The registry of a command: the packaged one and the user's own files."""

from __future__ import annotations

import functools
from pathlib import Path

from embbench import registry as registries
from embbench.registry import Registry


@functools.lru_cache(maxsize=8)
def registry_of(paths: tuple[str, ...]) -> Registry:
    """The packaged registry and the user's own files, in order."""
    return Registry(*registries.default().paths, *map(Path, paths)) if paths else registries.default()
