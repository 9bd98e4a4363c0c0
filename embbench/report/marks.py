"""Short forms of what the tables must say of an entry: flags, and the information behind an embedding."""

from __future__ import annotations

FLAGS = {
    "oracle": "O",
    "shared controls": "C",
    "information undeclared": "U",
    "above ceiling": "A",
    "reads test rows": "T",
    "features fitted on test rows": "F",
    "genes selected on test rows": "G",
}
INFORMATION = {
    "prior knowledge": "prior",
    "unperturbed expression": "unperturbed",
    "responses elsewhere": "elsewhere",
    "this screen's controls": "controls",
    "this screen's responses": "responses",
    "unknown": "unknown",
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


def short_information(words: str) -> str:
    """Short names of the kinds of information, joined by ``+``.

    Examples
    --------
    >>> short_information("prior knowledge; responses elsewhere")
    'prior+elsewhere'
    """
    return "+".join(INFORMATION.get(w, w) for w in words.split("; ") if w not in ("", "none"))
