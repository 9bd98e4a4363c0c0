"""Folders that an export writes: new or empty, whole or not there at all."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from embbench.core import UserError


@dataclass(frozen=True)
class Written:
    """What an export wrote: its folder, and lines on what it left out or changed."""

    folder: Path
    notes: tuple[str, ...] = ()


def new_folder(out: Path | None, source: Path, kind: str) -> Path:
    """The folder to write, ``<source>-<kind>`` where none is named.

    Raises
    ------
    UserError
        It is a file, holds something, or lies in the results folder.
    """
    target = Path(out) if out is not None else source.absolute().with_name(f"{source.absolute().name}-{kind}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        found = "a folder that holds files" if target.is_dir() else "a file"
        raise UserError(f"{target} is {found}, expected a new or empty folder; name another one with --out")
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise UserError(f"{target} lies in the results folder {source}; name another one with --out")
    return target


class Staged:
    """Context of a new folder that appears whole or not at all: filled under another name, then renamed."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> Path:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self.stage = Path(tempfile.mkdtemp(prefix=f".{self.target.name}.", dir=self.target.parent))
        except OSError as error:
            raise UserError(f"cannot write to {self.target.parent}: {error.strerror}; name another --out") from error
        self.stage.chmod(0o755)
        return self.stage

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stage.replace(self.target)  # an empty folder gives way
        else:
            shutil.rmtree(self.stage, ignore_errors=True)
