"""embbench: any frozen embedding x any head for single-cell perturbation prediction.

The public names load on first use, so that ``import embbench`` costs nothing:

``load_dataset``, ``import_h5ad``, ``extract``, ``run_grid``, ``Grid``, ``results``, ``predict``, ``check``,
``PerturbationDataset``, ``Embedding``, ``UserError``.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "load_dataset": "embbench.api",
    "extract": "embbench.api",
    "results": "embbench.api",
    "predict": "embbench.api",
    "check": "embbench.api",
    "Grid": "embbench.grid.config",
    "run_grid": "embbench.grid.schedule",
    "import_h5ad": "embbench.datasets._import",
    "PerturbationDataset": "embbench.core",
    "Embedding": "embbench.core",
    "UserError": "embbench.core",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'embbench' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
