"""Long names of the user (paths of tables, parameters) -> short labels that stay different."""

from __future__ import annotations

import re
from collections.abc import Iterable

LENGTH = 40  # characters of a label
_PATH = re.compile(r"(?:\btable:)?\b(?:path|file|folder)=((?:[^:+]*[/\\])?)([^:/\\+]+)")
_OPTIONS = re.compile(_PATH.pattern + r"(?::\w+=[^:+]*)*")
_NAMED = re.compile(r"^([\w.]+):name=([^:+]+).*$")
_LEVELS = 12  # of detail that are tried before the whole name


def short_names(names: Iterable[str], length: int = LENGTH) -> dict[str, str]:
    """A label of at most ``length`` characters (a number may follow) for each name, all different; in sorted order.

    A table is called by its file, a dataset by its ``name=``; what tells two of them apart is added: options, then
    parent folders. What is still too long is cut in the middle, because names differ at their ends.

    Examples
    --------
    >>> list(short_names(["ppi", "table:path=/a/vectors.csv:information=unknown"]).values())
    ['ppi', 'vectors.csv']
    >>> list(short_names(["table:path=/a/b/v.csv", "table:path=/a/c/v.csv"]).values())
    ['b/v.csv', 'c/v.csv']
    """
    whole = sorted(set(names))
    left, made = dict.fromkeys(whole, ""), dict[str, str]()
    for level in range(_LEVELS + 1):
        tried = {name: cut(_at(name, level), length) for name in left}
        texts = [*tried.values(), *made.values()]
        found = {name: text for name, text in tried.items() if texts.count(text) == 1}
        made |= found
        left = {name: "" for name in left if name not in found}
    for name in left:
        made[name] = _numbered(cut(_at(name, 1), length), set(made.values()))
    return {name: made[name] for name in whole}


def _at(name: str, level: int) -> str:
    """The name at a level of detail: 0 without the options of a file, then parent folders, at last whole."""
    if level == _LEVELS:
        return name
    text = _NAMED.sub(r"\1:\2", name) if level == 0 else name
    parents = max(0, level - 1)

    def base(found: re.Match[str]) -> str:
        folders = [part for part in re.split(r"[/\\]", found[1]) if part]
        return "/".join([*folders[len(folders) - parents if parents else len(folders) :], found[2]])

    return (_PATH if level else _OPTIONS).sub(base, text)


def _numbered(text: str, taken: set[str]) -> str:
    number = 2
    while f"{text} ({number})" in taken:
        number += 1
    return text if text not in taken else f"{text} ({number})"


def cut(text: str, length: int) -> str:
    """A text cut in its middle.

    Examples
    --------
    >>> cut("abcdefghij", 5)
    'ab…ij'
    """
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    tail = length - 1 - head
    return f"{text[:head]}…{text[len(text) - tail :]}"
