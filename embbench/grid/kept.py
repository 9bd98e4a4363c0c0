"""What several runs of one process share, kept up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The latest used values by key; what is oldest goes when they take more than ``limit`` bytes.

    Parameters
    ----------
    limit : bytes; a value that is larger by itself is not kept.
    size : bytes of a value.

    Examples
    --------
    >>> kept = Kept(10, len)
    >>> kept.get("a", lambda: b"12345678"), kept.get("b", lambda: b"1234"), kept.get("a", lambda: b"again")
    (b'12345678', b'1234', b'again')
    """

    def __init__(self, limit: int, size: Callable[[Value], int]) -> None:
        self.limit, self.size = limit, size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of ``key``, made where it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        if self.size(value) <= self.limit:
            self._values[key] = value
            self._bytes += self.size(value)
        while self._bytes > self.limit:
            self._bytes -= self.size(self._values.popitem(last=False)[1])
        return value
