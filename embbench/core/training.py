"""What a long fit may tell and keep while it runs: progress, and a state to go on from after a kill."""

from __future__ import annotations

from typing import Protocol


class Monitor(Protocol):
    """Where a trained head reports progress and keeps its state; the grid puts one on ``head.monitor`` before ``fit``.

    What a monitor does never changes a number: a fit that goes on from a saved state ends with the bits of one that
    was not disturbed.
    """

    def load(self) -> bytes | None:
        """The state saved last by the same fit, or None."""
        ...

    def due(self) -> bool:
        """Whether it is time to save again: a head asks between steps, and saves only then."""
        ...

    def save(self, state: bytes) -> None:
        """Keep ``state`` in place of an earlier one."""
        ...

    def report(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Say how far ``stage`` (training, sampling) is."""
        ...


class Silent:
    """The monitor of a head that nobody watches.

    Examples
    --------
    >>> Silent().load() is None, Silent().due()
    (True, False)
    """

    def load(self) -> bytes | None:
        """None."""
        return None

    def due(self) -> bool:
        """False."""
        return False

    def save(self, state: bytes) -> None:
        """Nothing."""

    def report(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Nothing."""
