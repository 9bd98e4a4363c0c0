"""Bring files of a checkpoint into its folder: from the hub, an address, an archive or a mirror of these."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from embbench.cache.download import download
from embbench.cache.fetched import Arrival, Fetched, megabytes, need_space
from embbench.cache.hub import from_hub
from embbench.cache.sources import Source
from embbench.cache.unpack import unpack
from embbench.core import UserError


def bring(source: Source, record: Fetched, wanted: Mapping[str, str], mirror: str, say: Callable[[str], None]) -> None:
    """Fetch into a folder beside the final one, check, move; interrupted transfers stay there to be continued.

    Parameters
    ----------
    source, record : the checkpoint, and what is recorded of its folder; updated with every file.
    wanted : files to bring, relative to the folder -> expected sha256 ('' where none is known).
    mirror : folder or URL to take them from instead; '' for none.
    say : is told what is transferred, before it is.

    Raises
    ------
    UserError
        A file cannot be had, or is not the expected one; the folder cannot be written.
    """
    stage = source.root.with_name(f".{source.root.name}.incoming")
    finished = False
    try:
        stage.mkdir(parents=True, exist_ok=True)
        for arrival in _arrivals(source, record, list(wanted), stage, mirror, say):
            finished = True  # from here on a failure is one of content, which no continuation would mend
            record.settle(arrival, wanted[arrival.name])
            finished = False
        finished = True
    except OSError as error:
        raise UserError(
            f"cannot write {stage}: {error.strerror or error}; point EMBBENCH_HOME to a folder to write to"
        ) from error
    finally:
        begun = [p for p in (stage.iterdir() if stage.is_dir() else ()) if p.suffix == ".part" and p.stat().st_size]
        if finished or not begun:
            shutil.rmtree(stage, ignore_errors=True)


def _arrivals(
    source: Source, record: Fetched, missing: Sequence[str], stage: Path, mirror: str, say: Callable[[str], None]
) -> Iterator[Arrival]:
    if source.kind == "hub" and not mirror:
        yield from from_hub(source, missing, stage, record.commit, say)
        return
    if source.kind == "hub":
        for file in missing:
            path, origin = _one(f"{source.repo}/{source.revision}/{file}", mirror, "", stage, say)
            yield Arrival(file, path, origin)
        return
    path, origin = _one(source.file, mirror, source.text, stage, say)
    if not source.archive or list(missing) == [source.file]:
        yield Arrival(missing[0], path, origin)
        return
    try:
        members = unpack(path, origin, missing, stage)
    finally:
        path.unlink(missing_ok=True)  # a damaged archive is not one to continue
    for file, member in members.items():
        yield Arrival(file, member, origin)


def _one(name: str, mirror: str, address: str, stage: Path, say: Callable[[str], None]) -> tuple[Path, str]:
    """One file from the mirror where there is one, else from its address: where it is staged, where it came from."""
    last = name.rpartition("/")[2]
    if mirror.startswith(("http://", "https://")):
        address = f"{mirror.rstrip('/')}/{quote(name)}"
    elif mirror:
        held = Path(mirror).expanduser() / name
        if not held.is_file():
            raise UserError(f"mirror {mirror}: expected {name} in it, found none; put it there, or drop --mirror")
        size = held.stat().st_size
        need_space(stage, size, str(held))
        say(f"copying {last} ({megabytes(size)}) from {held}")
        return Path(shutil.copyfile(held, stage / "copy")), str(held)
    return download(address, stage, last, say), address
