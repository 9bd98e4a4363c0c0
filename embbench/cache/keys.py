"""Names for artefacts: a key is a hash of everything the bytes depend on, and nothing else."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np

REVISION = 1  # of the code that keys do not name (core, numerics, grid): raise it when a number can move


def digest(facts: object) -> str:
    """16 hex digits of the canonical JSON of ``facts`` (sorted keys, no NaN).

    Examples
    --------
    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def array_digest(*arrays: Any) -> str:
    """16 hex digits of the dtype, shape and bytes of arrays (None and nested string tuples are allowed).

    Examples
    --------
    >>> array_digest(np.zeros((1, 2)), None) == array_digest(np.zeros(2), None)
    False
    """
    sha = hashlib.sha256()
    for value in arrays:
        if value is None:
            sha.update(b"none;")
            continue
        array = np.asarray(value)
        if array.dtype.kind in "OUS":
            sha.update(f"str{array.shape}".encode() + json.dumps([str(v) for v in array.ravel()]).encode())
        else:
            sha.update(f"{array.dtype.str}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()[:16]


def stream(*coordinates: str | int) -> int:
    """A seed for the named coordinates: adding a run never moves another run's seed.

    Examples
    --------
    >>> stream("kang18", "fold0"), stream("kang18", "fold1")
    (3829167685, 253553604)
    """
    return int(digest([str(c) for c in coordinates]), 16) % 2**32


@functools.cache
def code_of(module: str) -> str:
    """Hash of a component's file and of its folder's ``_helper`` files, without docstrings and comments.

    Shared code (core, numerics, grid) is named by `REVISION` instead, so that an edit there is a decision.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin:
        raise ModuleNotFoundError(f"{module} has no source file to hash")
    origin = Path(spec.origin)
    files = [origin, *sorted(p for p in origin.parent.glob("_*.py") if p.name != "__init__.py")]
    return digest([_stripped(path) for path in dict.fromkeys(files)])


def _stripped(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
