"""Folders of a machine in what a grid has recorded: found in specs and commands, and taken out of exported files."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from embbench.cache.home import home

# an absolute path in a spec or command line: in quotes, or up to the next mark of the syntax; `https://` is none
PATH = re.compile(
    r"""(?P<quote>["'])(?P<quoted>(?:~?/(?!/)|[A-Za-z]:\\)(?:(?!(?P=quote)).)+)(?P=quote)"""
    r"""|(?:^|(?<=[\s:=,+\[(]))(?P<plain>~?/(?!/)[^\s:,'"\]\[+()]+|[A-Za-z]:\\[^\s:,'"\]\[+()]+)"""
)


def machine_paths(texts: Iterable[str]) -> list[str]:
    r"""Absolute paths in specs and command lines, as they are written there, each once.

    Examples
    --------
    >>> machine_paths(["table:/data/x/v.csv:names=keep", "go", 'table:"/data/a b.csv"', "minilm:source=https://h/f"])
    ['/data/x/v.csv', '/data/a b.csv']
    """
    found = (match["quoted"] or match["plain"] for text in texts for match in PATH.finditer(text))
    return list(dict.fromkeys(found))


def strings(value: Any) -> Iterator[str]:
    """Every text in nested lists and mappings, keys among them.

    Examples
    --------
    >>> list(strings({"a": ["b", {"c": 1}]}))
    ['a', 'b', 'c']
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from strings(name)
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)


class Scrubber:
    """Shortens folders of this machine, and paths that a grid was given, to the names of their last parts.

    Parameters
    ----------
    texts : specs, command lines and messages in which absolute paths are looked for.
    folders : further folders; the user's home, the current one and that of embbench are always among them.
    """

    def __init__(self, texts: Iterable[str], folders: Iterable[Path] = ()) -> None:
        named = {path: re.split(r"[/\\]", path.rstrip("/\\"))[-1] for path in machine_paths(texts)}
        table: dict[str, str] = {}
        for folder in (*folders, Path.cwd(), home(), Path.home()):
            for each in dict.fromkeys((str(folder.absolute()), str(folder.resolve()))):
                if len(Path(each).parts) > 1:  # the root of the file system tells nothing, and is everywhere
                    table |= {f"{each}/": "", each: Path(each).name if folder != Path.home() else "~"}
        table |= named
        escaped = {json.dumps(old)[1:-1]: new for old, new in table.items()}  # as JSON spells what is not ASCII
        self.table = dict(sorted({**escaped, **table}.items(), key=lambda item: -len(item[0])))

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        # a folder ends where its name does: /data/a is not in /data/ab
        return re.compile("|".join(re.escape(old) + ("" if old.endswith("/") else r"(?![\w-])") for old in self.table))

    @functools.cached_property
    def _bytes(self) -> re.Pattern[bytes]:
        return re.compile(self._pattern.pattern.encode().replace(rb"(?![\w-])", b""))

    def text(self, text: str) -> str:
        """The text without them."""
        return self._pattern.sub(lambda match: self.table[match[0]], text)

    def value(self, value: Any) -> Any:
        """Nested lists and mappings with every text shortened, keys too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(name): self.value(inner) for name, inner in value.items()}
        return [self.value(inner) for inner in value] if isinstance(value, list | tuple) else value

    def names(self, content: bytes) -> bool:
        """Whether bytes hold one of them."""
        return self._bytes.search(content) is not None

    @property
    def longest(self) -> int:
        """Bytes of the longest one: what pieces of a file must overlap by."""
        return max(len(old.encode()) for old in self.table)
