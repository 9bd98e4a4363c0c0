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

REVISION = 2  # of the code that keys do not name (core, numerics, grid): raise it when a number can move


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
    """Hash of a component's file and of the ``_helper`` files that it imports, without docstrings and comments.

    Helpers are followed through their own imports. Shared code (core, numerics, grid) is named by `REVISION` instead,
    so that an edit there is a decision.
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            tree = ast.parse(_source(name).read_text(encoding="utf-8"))
            waiting += _helpers(tree, module.partition(".")[0])
            found[name] = _stripped(tree)
    return digest([found.pop(module), *(found[name] for name in sorted(found))])


def _source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin:
        raise ModuleNotFoundError(f"{module} has no source file to hash")
    return Path(spec.origin)


def _helpers(tree: ast.Module, package: str) -> list[str]:
    """Modules of ``package`` with a name that starts with ``_``, imported anywhere in a file."""
    named = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            named += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
    inside = [n for n in named if n.startswith(f"{package}.") and n.rpartition(".")[2].startswith("_")]
    return [n for n in inside if _is_module(n)]


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a private name of a module, not a module
        return False


def _stripped(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
