"""Short forms of what the tables must say of an entry: flags, and the information behind an embedding."""

from __future__ import annotations

import re

ABOVE, EXPLODED = "above ceiling", "exploded"  # the two flags that the scores themselves raise
FLAGS = {
    "oracle": "O",
    "reads test rows": "T",
    "fitted on test rows": "F",
    "information undeclared": "U",
    "controls shared": "C",
    "genes selected on test rows": "G",
    ABOVE: "A",
    EXPLODED: "X",
}
ABOUT = {EXPLODED: "exploded (worse than the floor by over ten times its distance to the ceiling)"}
INFORMATION = {
    "prior knowledge": "prior",
    "unperturbed expression": "unperturbed",
    "this screen's controls": "controls",
    "responses elsewhere": "elsewhere",
    "unknown": "unknown",
    "this screen's responses": "responses",
}


def short_flags(words: str) -> str:
    """Letters of the known flags, then the others in full.

    Examples
    --------
    >>> short_flags("above ceiling; oracle; dated later")
    'AO dated later'
    """
    found = [w for w in words.split("; ") if w]
    letters = "".join(sorted(FLAGS[w] for w in found if w in FLAGS))
    return " ".join(filter(None, [letters, *sorted(w for w in found if w not in FLAGS)]))


def kinds_of(words: str) -> list[str]:
    """Kinds of information in a text that joins them by ``+`` (and runs of one configuration by ``;``), in its order.

    Examples
    --------
    >>> kinds_of("prior knowledge + unknown; prior knowledge")
    ['prior knowledge', 'unknown']
    """
    return [w for w in dict.fromkeys(re.split(r"; | \+ ", words)) if w not in ("", "none")]


def short_information(words: str) -> str:
    """Short names of the kinds of information, joined by ``+``.

    Examples
    --------
    >>> short_information("prior knowledge + responses elsewhere")
    'prior+elsewhere'
    """
    return "+".join(INFORMATION.get(w, w) for w in kinds_of(words))
