"""What a long fit keeps and tells in a grid: checkpoints beside the results, and progress for whoever watches."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from embbench.cache.keys import digest
from embbench.cache.store import replacing, versions
from embbench.core import Run, Silent, UserError

VARIABLE = "EMBBENCH_CHECKPOINT_SECONDS"
SECONDS = 30.0  # between checkpoints, unless the environment says otherwise
PAUSE = 1.0  # seconds between two reports
MAGIC = b"embbench checkpoint "
FOLDER = "checkpoints"


def seconds() -> float:
    """Seconds of wall time between checkpoints: ``$EMBBENCH_CHECKPOINT_SECONDS``, else 30; 0 saves at every step.

    Raises
    ------
    UserError
        The environment holds no number >= 0.
    """
    text = os.environ.get(VARIABLE) or str(SECONDS)
    with contextlib.suppress(ValueError):
        if (value := float(text)) >= 0 and not math.isnan(value):
            return value
    raise UserError(f"{VARIABLE}={text!r}: expected seconds between checkpoints such as 30, inf for none")


class FitMonitor:
    """The monitor of one fit: its state in a file of its own, its progress told at most once a second.

    Pickled or copied (inside a head that another one keeps) it becomes a `Silent` one.

    Parameters
    ----------
    folder : for the state; made when there is something to save.
    name : gives the name of the state's file, which says everything that the fit depends on; asked once, when needed.
    tell : takes one line of progress; None: nobody listens.
    every : seconds between saves.
    """

    def __init__(self, folder: Path, name: Callable[[], str], tell: Callable[[str], None] | None, every: float) -> None:
        self.folder, self.every = folder, every
        self.resumed = False
        self._name, self._tell = name, tell
        self._saved, self._told = time.monotonic(), -math.inf

    @functools.cached_property
    def path(self) -> Path:
        """The file of the state."""
        return self.folder / f"{self._name()}.state"

    def load(self) -> bytes | None:
        """The state saved last by the same fit; None where there is none, or the file is torn or of another fit."""
        try:
            head, _, state = self.path.read_bytes().partition(b"\n")
        except OSError:
            return None
        if head == self._seal(state):
            self.resumed = True
            return state
        warnings.warn(f"{self.path}: a torn or foreign checkpoint is ignored; the fit starts anew", stacklevel=2)
        return None

    def due(self) -> bool:
        """Whether ``every`` seconds have passed since the last save."""
        return time.monotonic() - self._saved >= self.every

    def save(self, state: bytes) -> None:
        """Keep ``state``, atomically; where that is not possible the fit goes on without, and a warning says so."""
        try:
            with replacing(self.path) as temporary:
                temporary.write_bytes(self._seal(state) + b"\n" + state)
        except (OSError, UserError) as error:
            warnings.warn(f"no checkpoint could be written, a killed fit will start anew: {error}", stacklevel=2)
        self._saved = time.monotonic()

    def report(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Tell how far ``stage`` is, unless the last line is less than a second old."""
        if self._tell is not None and time.monotonic() - self._told >= PAUSE:
            self._told = time.monotonic()
            self._tell(f"{stage} {done} of {total}" + (f", {note}" if note else ""))

    def _seal(self, state: bytes) -> bytes:
        name = self.path.name.encode()
        return MAGIC + hashlib.sha256(name + b"\n" + state).hexdigest().encode()

    def __reduce__(self) -> tuple[Any, ...]:
        return Silent, ()


class Watcher:
    """Monitors for the fits of one run, and their files.

    Parameters
    ----------
    out : results folder.
    key, run : of the run.
    tell : takes lines of progress; None: they go to a file that the parent process reads, where ``watched``.
    watched : somebody wants to see progress.
    """

    def __init__(
        self, out: Path, key: str, run: Run, *, tell: Callable[[str], None] | None = None, watched: bool = False
    ) -> None:
        self.folder, self.key, self.every = Path(out) / FOLDER, key, seconds()
        self._title = (run.head if run.embedding == "none" else f"{run.head} x {run.embedding}") + f" {run.fold}"
        self._tell = tell if tell is not None else self._write if watched else None
        self._made: list[FitMonitor] = []

    def __call__(self, label: str, stage: Callable[[], str]) -> FitMonitor:
        """The monitor of the fit called ``label``; ``stage`` gives the digest of what it depends on beside the key."""
        title = self._title if label == "all" else f"{self._title} {label}"
        plain, tell = re.sub(r"\W+", "_", label)[:40], self._tell

        def say(line: str) -> None:
            if tell is not None:
                tell(f"{title}: {line}")

        def name() -> str:  # another version of a library would go on with other bits
            return f"{self.key}-{plain}-{digest([stage(), versions()])}"

        self._made.append(FitMonitor(self.folder, name, None if tell is None else say, self.every))
        return self._made[-1]

    def close(self, *, done: bool) -> None:
        """Remove the progress file, and the states once the prediction is stored.

        A run that failed loses the states that it went on from: if one of them was the reason, the next try is free.
        """
        stale = _states(self.folder, self.key) if done else (m.path for m in self._made if m.resumed)
        for path in (*stale, _progress(self.folder, self.key)):
            path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        """One line in place of the last one; a reader that comes between sees the old one or nothing."""
        with contextlib.suppress(OSError):  # progress is no reason to fail
            self.folder.mkdir(parents=True, exist_ok=True)
            _progress(self.folder, self.key).write_text(line, encoding="utf-8")


def _states(folder: Path, key: str) -> list[Path]:
    """States of one run; a folder that is not there holds none (every run asks: no pattern is compiled)."""
    there = list(folder.iterdir()) if folder.is_dir() else []
    return [path for path in there if path.name.startswith(f"{key}-") and path.suffix == ".state"]


def _progress(folder: Path, key: str) -> Path:
    return folder / f"{key}.progress"


def in_flight(out: Path, keys: Collection[str]) -> list[str]:
    """Lines of progress of some runs, of those that have said something; a file that is being written is left out."""
    folder, lines = Path(out) / FOLDER, []
    there = {path.name for path in folder.glob("*.progress")}  # one look: thousands may be asked for
    for path in (_progress(folder, key) for key in keys):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            lines += [line] if path.name in there and (line := path.read_text(encoding="utf-8")) else []
    return lines


def tidy(out: Path, wanted: Callable[[str], bool]) -> None:
    """Remove progress files, and the states of runs whose key is not ``wanted`` any more; then the folder, if empty."""
    folder = Path(out) / FOLDER
    for path in folder.glob("*.progress"):
        path.unlink(missing_ok=True)
    for path in folder.glob("*.state"):
        if not wanted(path.name.partition("-")[0]):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
