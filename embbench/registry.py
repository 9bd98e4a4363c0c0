"""Registry files -> entry -> object. Names map to lazy ``module:object`` strings, so listing imports nothing heavy."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from embbench.core import UserError
from embbench.entries import FILES, INFORMATION, KINDS, MODALITIES, Entry, check_information, load_object, read_entries

__all__ = [
    "FILES",
    "INFORMATION",
    "KINDS",
    "MODALITIES",
    "Entry",
    "Registry",
    "Spec",
    "default",
    "load_object",
    "read_entries",
    "split_specs",
    "unknown_name",
]
FOLDER = Path(__file__).resolve().parent
PACKAGED = (FOLDER / "registry.yaml", FOLDER / "published.yaml")  # components; screens that others published
# a part of a spec: up to the next colon that is not quoted and does not belong to hf:... or https:...
PART = re.compile(r"""(?:'[^']*'|"[^"]*"|(?<=[=:])(?:hf|https?):|[^:])+""")
# one of several specs: up to the next comma that is not inside brackets or quotes
ITEM = re.compile(r"""(?:\[[^\]]*\]|'[^']*'|"[^"]*"|[^,])+""")
KEYED = re.compile(r"\w+=")


def split_specs(text: str) -> list[str]:
    """Comma-separated specs; commas inside brackets or quotes belong to a value.

    Examples
    --------
    >>> split_specs("go, edge_wavelet:graph=f:without=[textmining,coexpression]")
    ['go', 'edge_wavelet:graph=f:without=[textmining,coexpression]']
    """
    return [part for found in ITEM.findall(text) if (part := found.strip())]


@dataclass(frozen=True)
class Spec:
    """A component as users write it: an entry and the parameters given with the name, those of its preset among them.

    ``told`` is the kind of information that the user declared, ``preset`` the one that the text names, if any.
    """

    text: str
    entry: Entry
    overrides: dict[str, Any]
    told: str = ""
    preset: str = ""
    tried: tuple[dict[str, Any], ...] | None = None  # settings that selection tries, where a protocol says so

    @property
    def information(self) -> str:
        """What the embedding may know: as the user told (``table:FILE:information=prior knowledge``), or registered."""
        return self.told or self.entry.information

    def make(self, **more: Any) -> Any:
        """A fresh component with the spec's parameters."""
        return self.entry.make(**{**self.overrides, **more})

    def alone(self) -> Any:
        """A fresh component that knows its parameters and files; of an entry over another one, without that one."""
        return self.make(**({"of": None} if self.entry.argument == "of" else {}))


class Registry:
    """All entries of one or more YAML files; a later file adds names and may not redefine one."""

    def __init__(self, *paths: Path) -> None:
        self.paths = tuple(paths)
        self._entries: dict[tuple[str, str], Entry] = {}
        self._also: dict[tuple[str, str], Entry] = {}  # further names
        for path in paths:
            for entry in read_entries(path):
                self._add(entry, path)

    def _add(self, entry: Entry, path: Path) -> None:
        """A name of its own may be what is a further name of another entry, and then means the former."""
        taken = {entry.name: self._entries.get((entry.kind, entry.name))}
        taken |= {
            name: self._entries.get((entry.kind, name)) or self._also.get((entry.kind, name)) for name in entry.also
        }
        for name, other in taken.items():
            if other is not None:
                raise UserError(
                    f"{path}: {entry.kind}/{name} is already registered as {other.impl}; choose another name"
                )
        self._entries[entry.kind, entry.name] = entry
        self._also |= {(entry.kind, name): entry for name in entry.also}

    @property
    def users(self) -> tuple[str, ...]:
        """Files that are not the packaged ones."""
        return tuple(str(path) for path in self.paths if path not in PACKAGED)

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Entries of one kind, or all, in file order."""
        return [e for e in self._entries.values() if kind in (None, e.kind)]

    def get(self, kind: str, name: str) -> Entry:
        """The entry of that name, or of that further name; an unknown one is a `UserError` that lists near misses."""
        found = self._entries.get((kind, name)) or self._also.get((kind, name))
        if found is None:
            raise UserError(unknown_name(kind, name, self.names(kind)))
        return found

    def names(self, kind: str) -> list[str]:
        """Every name of a kind that `get` knows."""
        return [name for known in (self._entries, self._also) for of, name in known if of == kind]

    def parse(self, kind: str, text: str) -> Spec:
        """``name[:argument][:key=value...]`` -> spec, e.g. ``knn:k=20``, ``hvg:500``, ``permuted:go:draw=3``.

        Of heads ``preset=NAME`` stands for the parameters of that preset; parameters given beside it win.

        `UserError`: unknown name or preset, an argument that is not taken or lacks, or a value that is no YAML.

        Examples
        --------
        >>> default().parse("features", "pca:50").overrides
        {'dim': 50}
        """
        name, *parts = PART.findall(text) or [""]
        entry = self.get(kind, name)
        if entry.argument == "of":  # the rest is itself a spec: only this entry's own parameters are taken off it
            inner = [p for p in parts if p.partition("=")[0] not in entry.params]
            own = (p.partition("=") for p in parts if p not in inner)
            given = {key: _value(kind, text, value) for key, _, value in own}
            if not any(inner):
                raise UserError(f"{kind} {text!r}: expected one more name, {name}:NAME (embbench list {kind})")
            return Spec(text, entry, {**given, "of": ":".join(inner)})
        given = {k: _value(kind, text, v) for k, _, v in (p.partition("=") for p in parts if KEYED.match(p))}
        plain = [p for p in parts if not KEYED.match(p)]
        if plain and not entry.argument:
            raise UserError(f"{kind} {text!r}: {name} takes no ':{plain[0]}'; write parameters as {name}:key=value")
        if plain:
            given[entry.argument] = _value(kind, text, ":".join(plain))
        told = str(given.pop("information", "")) if kind == "embeddings" else ""
        if told:
            check_information(f"embeddings {text!r}", told)
        preset = str(given.pop("preset")) if kind == "heads" and "preset" in given else ""
        return Spec(text, entry, {**(entry.preset(preset) if preset else {}), **given}, told, preset)


def _value(kind: str, text: str, value: str) -> Any:
    """A parameter as YAML reads it: 20 is a number, l2 a word."""
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{kind} {text!r}: expected a YAML value such as 3, l2 or [a, b], found {value!r}") from error


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist, with near misses.

    Examples
    --------
    >>> unknown_name("heads", "rigde", ["ridge", "knn"])
    "no head named 'rigde'; did you mean ridge? (embbench list heads)"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(known)}"
    return f"no {kind.rstrip('s')} named {name!r}{hint} (embbench list {kind})"


@functools.cache
def default() -> Registry:
    """The packaged registry."""
    return Registry(*PACKAGED)
