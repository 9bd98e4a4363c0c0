"""Compiled loops: by numba where it is installed; every caller has a numpy form that gives the same numbers."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any


@functools.cache
def has_numba() -> bool:
    """Whether loops are compiled: numba is installed, and ``EMBBENCH_NUMBA=0`` does not say otherwise."""
    return os.environ.get("EMBBENCH_NUMBA") != "0" and importlib.util.find_spec("numba") is not None


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """``loop`` compiled at its first call (numba takes a second to import, and the code is kept on disk).

    Sums stay in the order in which they are written (no fast-math), on one thread, without the interpreter's lock.
    Callers ask `has_numba` first.
    """
    made: list[Callable[..., Any]] = []

    @functools.wraps(loop)
    def call(*arguments: Any) -> Any:
        if not made:
            from numba import njit

            made.append(njit(nogil=True, cache=True, error_model="numpy")(loop))
        return made[0](*arguments)

    return call
