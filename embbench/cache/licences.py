"""Licences of weights and data that restrict their use: shown before anything is fetched, accepted once, remembered."""

from __future__ import annotations

import json
from typing import Any

from embbench.cache.home import home
from embbench.cache.store import lock, replacing
from embbench.core import UserError

FILE = "licences.json"


def accepted(name: str, licence: str, restricted: str | None = None) -> bool:
    """Whether this very licence text (and restriction, where given) of an entry was accepted by this user before."""
    facts = _read().get(name, {})
    return facts.get("licence") == licence and restricted in (None, facts.get("restricted"))


def require(name: str, licence: str, restricted: str, *, accept: bool, what: str = "weights") -> None:
    """Let pass what is not restricted or was accepted; record an acceptance (``accept``) once.

    ``what`` is licensed: the word for messages.

    Raises
    ------
    UserError
        Restricted and not accepted yet, or accepted with another text: shows the licence and what it restricts.
    """
    if not restricted or accepted(name, licence, restricted):
        return
    if not accept:
        before = "; its licence has changed since it was accepted" if name in _read() else ""
        raise UserError(
            f"{name}: the licence of its {what} restricts their use{before}\n"
            f"  licence:   {licence}\n  restricts: {restricted}\n"
            "nothing was fetched; to accept it, run the command again with --accept-licence"
        )
    path = home(FILE)
    with lock(path):
        text = json.dumps({**_read(), name: {"licence": licence, "restricted": restricted}}, indent=1, sort_keys=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _read() -> dict[str, Any]:
    path = home(FILE)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable list of accepted licences ({error}); remove it") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected accepted licences by name, found {type(found).__name__}; remove it")
    return found
