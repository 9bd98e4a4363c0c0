"""The contracts as plain functions: the tests run them on every registry entry, ``embbench check`` on one of yours.

A check takes ``make``: a function that returns a fresh component, with parameters replaced by those given. It raises
`ContractError` when the component breaks the contract, and returns None otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embbench.checks import abilities, composites, datasets, embeddings, features, heads, metrics, populations, splits
from embbench.checks._contract import ContractError, Make
from embbench.checks._toy import toy_inputs, toy_screen, toy_truth, toy_vectors
from embbench.core import Embedding, UserError
from embbench.registry import KINDS, Entry

__all__ = ["KINDS", "ContractError", "checks_for", "failures", "run_check", "toy_inputs", "toy_screen", "toy_truth"]

_MODULES = (heads, abilities, populations, embeddings, splits, metrics, composites, datasets, features)
_CRASHES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError)
_CRASHES += (TypeError, ValueError, UserError)

Check = Callable[[Make], None]


def checks_for(kind: str) -> list[Check]:
    """Every contract of a kind (``heads``, ``embeddings`` ...), found by the prefix of its name (``head_`` ...).

    Raises
    ------
    UserError
        Unknown kind.

    Examples
    --------
    >>> [check.__name__ for check in checks_for("graphs")]
    ['graph_is_symmetric', 'graph_is_deterministic']
    """
    if kind not in KINDS:
        raise UserError(f"no contracts for {kind!r}, expected one of {', '.join(KINDS)}")
    prefix = f"{kind[:-1]}_"
    return [
        thing
        for module in _MODULES
        for name, thing in vars(module).items()
        if name.startswith(prefix) and thing.__module__ == module.__name__
    ]


def maker(entry: Entry) -> Make:
    """``make(**overrides)`` of a registry entry, with its small test parameters; ``of`` becomes a toy table."""
    given = dict(entry.test)
    if entry.kind == "embeddings" and entry.argument == "of":
        vectors = toy_vectors(embeddings.toy_names("gene"))
        given["of"] = Embedding(np.array(list(vectors)), np.stack(list(vectors.values())).astype(np.float32), "gene")
    if entry.kind == "datasets" and entry.argument == "of":
        given["of"] = toy_screen()
    return lambda **overrides: entry.make(**{**given, **overrides})


def outcome(check: Check, make: Make) -> str:
    """What a component breaks of one contract, "" where it holds; a crash counts as broken.

    Examples
    --------
    >>> outcome(lambda make: make(), lambda: 1 / 0)
    'ZeroDivisionError: division by zero'
    """
    try:
        check(make)
    except ContractError as error:
        return str(error)
    except _CRASHES as error:
        return f"{type(error).__name__}: {error}"
    return ""


def run_check(check: Check, entry: Entry) -> str:
    """`outcome` of one contract on a registry entry."""
    return outcome(check, maker(entry))


def failures(kind: str, make: Make) -> dict[str, str]:
    """Run all contracts of a kind on one component.

    Returns
    -------
    Name of each broken contract -> what was expected and found; empty when all hold.
    """
    said = {check.__name__: outcome(check, make) for check in checks_for(kind)}
    return {name: text for name, text in said.items() if text}
