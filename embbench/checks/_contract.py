"""How a check says no."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]  # ``make(**overrides)`` returns a fresh component


class ContractError(AssertionError):
    """A component breaks its contract: what was promised and what was found."""


def require(kept: object, message: str) -> None:
    """Nothing when ``kept`` is true.

    Raises
    ------
    ContractError
        It is not; ``message`` says what was expected and found.

    Examples
    --------
    >>> require(1 + 1 == 2, "arithmetic")
    """
    if not kept:
        raise ContractError(message)


def name_of(component: object) -> str:
    """What to call a component in messages: its class name.

    Examples
    --------
    >>> name_of({})
    'dict'
    """
    return type(component).__name__
