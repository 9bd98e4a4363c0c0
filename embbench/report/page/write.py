"""The bundle -> one page that opens offline: styles, program and data in one file, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from embbench.cache.store import replacing

SCRIPTS = ("data.js", "draw.js", "leaderboard.js", "charts.js", "depend.js", "predictions.js", "page.js")
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def write_page(path: Path, bundle: Mapping[str, Any], *, title: str = "embbench report") -> Path:
    """Write the report as one HTML file; the same bundle gives the same bytes.

    Parameters
    ----------
    path : replaced atomically.
    bundle : from `embbench.report.page.bundle.make_bundle`.
    title : of the page; shown as text whatever it holds.

    Raises
    ------
    UserError
        The folder cannot be written to.
    """
    with replacing(Path(path)) as temporary:
        temporary.write_text(page(bundle, title=title), encoding="utf-8", newline="\n")
    return Path(path)


def page(bundle: Mapping[str, Any], *, title: str = "embbench report") -> str:
    """The HTML text of the page.

    Notes
    -----
    Names of embeddings, genes and files are the user's and not trusted. They stand in one JSON block, where ``<``,
    ``>`` and ``&`` are written as escapes, so that nothing in it can end the block; the program writes them into
    text nodes and attributes only. A content security policy allows the page's own program and style, by their hash,
    and nothing else: no network, no other script.
    """
    program = '"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS)
    style = _asset("page.css")
    policy = (
        f"default-src 'none'; script-src '{_hash(program)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    slots = {
        "title": html.escape(title.encode("utf-8", "replace").decode("utf-8")),
        "policy": policy,
        "style": style,
        "data": embedded(bundle),
        "program": program,
    }
    return _SLOT.sub(lambda found: slots[found.group(1)], _asset("page.html"))


def embedded(value: Any) -> str:
    r"""JSON that may stand inside a script element, whatever texts it holds.

    Examples
    --------
    >>> embedded({"name": "</script><b>&"})
    '{"name":"\\u003c/script\\u003e\\u003cb\\u003e\\u0026"}'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return resources.files("embbench.report.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
