"""Where embbench keeps artefacts: ``$EMBBENCH_HOME``, else the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from embbench.core import UserError


def home(*parts: str) -> Path:
    """The folder of embeddings, imported data and weights, or a path below it; created on first write only.

    `UserError`: ``$EMBBENCH_HOME`` names a file.

    Examples
    --------
    >>> home("data", "index.json").name
    'index.json'
    """
    from platformdirs import user_cache_path

    root = Path(os.environ.get("EMBBENCH_HOME") or user_cache_path("embbench"))
    if root.exists() and not root.is_dir():
        raise UserError(f"EMBBENCH_HOME={root} is not a folder; point it to a folder with free space")
    return root.joinpath(*parts)
