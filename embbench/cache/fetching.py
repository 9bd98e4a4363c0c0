"""Data files from their addresses or a mirror: transferred beside their folder, checked, unpacked and moved there."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from urllib.parse import quote

from embbench.cache.datafiles import DataFile, Progress, announced
from embbench.cache.download import NoFileError, UnfinishedError, download, shown
from embbench.cache.fetched import Arrival, Fetched, SpaceError, listing, megabytes, need_space
from embbench.cache.unpack import gunzip, read_through, room, unpack
from embbench.cache.verified import BLOCK, HDF5, checked, twin, verified
from embbench.core import UserError

ADVICE = "or get the file another way, put it into a folder and name that with --mirror"


@dataclass(frozen=True)
class Fetching:
    """The files of one dataset on their way into the folder of ``record``; see `embbench.cache.datafiles.bring`."""

    name: str
    record: Fetched
    mirror: str
    say: Callable[[str], None]
    progress: Progress

    @property
    def folder(self) -> Path:
        """Where the files belong."""
        return self.record.root

    @property
    def stage(self) -> Path:
        """The hidden folder beside it, where files arrive."""
        return self.folder.with_name(f".{self.folder.name}.incoming")

    def run(self, files: Sequence[DataFile], licence: str) -> list[str]:
        """Check the files that are there, bring the others; returns the stored names of what was not there.

        Raises
        ------
        UserError
            A file changed, cannot be had or is not the published one; no space, no permission to write.
        """
        self._check_present(files)
        absent = {name for file in files for name in file.stored if not (self.folder / name).is_file()}
        missing = [file for file in files if absent & set(file.stored)]
        if not missing:
            return []
        self.say(f"{self.name}: data under {licence or 'an unknown licence'}")
        try:
            missing = [file for file in missing if not self._linked(file)]
            self._announce(missing)
            for file in missing:
                self._here(file).mkdir(parents=True, exist_ok=True)
                self._bring(file)
            return sorted(absent)
        except OSError as error:
            raise UserError(
                f"cannot write {self.stage}: {error.strerror or error}; make space, or point EMBBENCH_HOME to a folder "
                "to write to"
            ) from error
        finally:
            _tidy(self.stage)

    def _check_present(self, files: Sequence[DataFile]) -> None:
        """Files in place are as recorded; one that a person put there is checked as if it had just arrived."""
        there = [(file, name) for file in files for name in file.stored if (self.folder / name).is_file()]
        step = "remove it, then it is fetched"
        noted = [checked(self.record, file, name, step, self.say) for file, name in there]
        if any(noted) and os.access(self.folder, os.W_OK):  # a shared home may be read only
            self.record.write()

    def _announce(self, missing: Sequence[DataFile]) -> None:
        if not missing:
            return
        known, unknown = announced(missing)
        parts = [p for file in missing for p in _parts(self._here(file), file)]
        known = max(known - sum(p.stat().st_size for p in parts), 0)
        need_space(self.folder, known, f"{self.name} ({len(missing)} file(s))")
        sizes = [megabytes(known)] if known or not unknown else []
        size = " and ".join(sizes + ([f"{unknown} of unknown size"] if unknown else []))
        packed = sum(bool(file.unpack) for file in missing)
        more = f"; {packed} to be unpacked, which takes more space than that" if packed else ""
        self.say(f"{self.name}: {len(missing)} file(s) to fetch into {self.folder}, {size}{more}")

    def _bring(self, file: DataFile) -> None:
        """One file from the first source that gives it, its transfer kept where the network or the disk failed."""
        sources, failed = self._sources(file), list[UserError]()
        for i, source in enumerate(sources, 1):
            try:
                self._take(file, source)
            except UserError as error:
                if self.mirror and not isinstance(error, NoFileError):
                    failed = [error]  # of the two places in a mirror the file is in this one
                    break
                failed.append(error)
                if isinstance(error, SpaceError):
                    break  # another source needs no less
                if i < len(sources) and not self.mirror:
                    self.say(f"{error}; trying {shown(str(sources[i]))}")
            else:
                self._drop(file)
                return
        if not any(isinstance(error, UnfinishedError | SpaceError) for error in failed):
            self._drop(file)
        if self.mirror and failed and all(isinstance(error, NoFileError) for error in failed):
            raise _not_in_mirror(self.name, self.mirror, file)
        raise _refused(self.name, self.folder, file, failed)

    def _sources(self, file: DataFile) -> list[Path | str]:
        """Where a file can be had, in order: packed in its folder already (by hand), the mirror, its addresses.

        First of these the one that it came from before, where it could not be unpacked.
        """
        if file.unpack and (self.folder / file.name).is_file():
            return [self.folder / file.name]
        if not self.mirror:
            return sorted(file.urls, key=lambda url: not _whole(self._here(file), file, url).is_file())
        if self.mirror.startswith(("http://", "https://")):
            return [f"{self.mirror.rstrip('/')}/{quote(name)}" for name in _mirrored(self.name, file)]
        held = [Path(self.mirror).expanduser() / name for name in _mirrored(self.name, file)]
        if found := [path for path in held if path.is_file()]:
            return list(found[:1])
        raise _not_in_mirror(self.name, self.mirror, file)

    def _take(self, file: DataFile, source: Path | str) -> None:
        """One file from one source: transferred, checked, unpacked, moved to its place."""
        here, last = self._here(file), file.name.rpartition("/")[2]
        whole, origin, spared = _whole(here, file, source), shown(str(source)), False
        if whole.is_file():
            path = whole
            self.say(f"{file.name}: was transferred before, and not unpacked")
        elif isinstance(source, str):
            path = download(source, here, last, self.say, progress=self.progress, size=file.bytes, help="")
        elif not os.access(source, os.R_OK):
            raise UserError(f"{source}: cannot be read; check its permissions")
        elif file.unpack:
            path = source  # read where it is: an archive needs no copy
        else:
            path = self._copied(source, here / "copy", last)
        try:
            sha, facts = verified(path, file, f"{file.name} from {origin}", "nothing was kept", self.say)
            for name, member in self._unpacked(file, path, origin, here).items():
                if not (self.folder / name).is_file():  # what is there was checked, and stays
                    self.record.settle(Arrival(name, member, origin, sha256="" if file.unpack else sha), **facts)
        except (SpaceError, OSError):  # of the disk: nothing is wrong with the file
            if spared := isinstance(source, str) and path.is_file():
                path.replace(whole)
                self.say(f"{file.name}: what was transferred is kept for the next call")
            raise
        finally:
            if not spared and path.is_relative_to(self.stage):  # not what lies in a mirror
                path.unlink(missing_ok=True)

    def _copied(self, source: Path, target: Path, name: str) -> Path:
        size = source.stat().st_size
        need_space(target, size, str(source))
        self.say(f"copying {name} ({megabytes(size)}) from {source}")
        with source.open("rb") as file, target.open("wb") as out:
            while block := file.read(BLOCK):
                out.write(block)
                self.progress(name, out.tell(), size)
        return target

    def _unpacked(self, file: DataFile, path: Path, origin: str, here: Path) -> dict[str, Path]:
        """Stored name -> staged file."""
        if not file.unpack:
            if file.name.endswith(".gz") and not (file.bytes or file.md5 or file.sha256):
                read_through(path, origin)  # nothing else tells whether it is whole; readers do so at every load
            return {file.name: path}
        needed = room(path, tuple(file.members))
        self.say(f"unpacking {file.name}{f' into at least {megabytes(needed)}' if needed else ''}")
        need_space(here, needed, f"unpacking {origin}")
        if file.unpack == "gzip":
            gunzip(path, origin, here / "unpacked")
            return {file.stored[0]: here / "unpacked"}
        with path.open("rb") as opened:
            plain = opened.read(len(HDF5)) == HDF5
        if plain and len(file.stored) == 1:
            self.say(f"{origin}: expected an archive, found an HDF5 file; taken as its member {file.stored[0]}")
            return {file.stored[0]: self._copied(path, here / "member", file.stored[0])}
        if plain:
            raise UserError(f"{origin}: expected an archive of {listing(list(file.members))}, found one HDF5 file")
        written = unpack(path, origin, list(file.members), here)
        return {file.members[member]: staged for member, staged in written.items()}

    def _linked(self, file: DataFile) -> bool:
        """Whether the file lay in another dataset's folder, and now lies in this one as well."""
        if file.unpack or (found := twin(self.record, file, mirrored=bool(self.mirror), say=self.say)) is None:
            return False
        path, origin, sha, facts = found
        here = self._here(file)
        here.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), here / "linked")
            self.say(f"{self.name}: {file.name} lies in {path.parent}: linked, not fetched")
        except OSError:  # two disks, or one without hard links
            self._copied(path, here / "linked", file.name)
        self.record.settle(Arrival(file.name, here / "linked", origin, sha256=sha), **facts)
        return True

    def _here(self, file: DataFile) -> Path:
        """Where in the stage a file arrives."""
        return (self.stage / file.name).parent

    def _drop(self, file: DataFile) -> None:
        for part in _parts(self._here(file), file):
            part.unlink(missing_ok=True)


def _mirrored(name: str, file: DataFile) -> tuple[str, str]:
    return f"{name}/{file.name}", file.name


def _not_in_mirror(name: str, mirror: str, file: DataFile) -> UserError:
    places = " or ".join(_mirrored(name, file))
    manual = f"; {file.manual}" if file.manual else ""
    return UserError(
        f"{name}: mirror {shown(mirror)}: expected {places} in it, found neither; put the file there, or "
        f"drop the mirror (--mirror, EMBBENCH_MIRROR){manual}"
    )


def _refused(name: str, folder: Path, file: DataFile, failed: Sequence[UserError]) -> UserError:
    what, manual = f"{name}: {file.name}", f"; {file.manual}" if file.manual else ""
    if not failed:
        there = f"put it into {folder}, or into a folder that is named with --mirror"
        return UserError(f"{what} cannot be fetched by a script{manual}; {there}, and run the command again")
    if len(failed) == 1:
        return UserError(f"{what}: {failed[0]}; {ADVICE}{manual}")
    lines = "\n".join(f"  {i}. {error}" for i, error in enumerate(failed, 1))
    return UserError(f"{what} cannot be had from {len(failed)} sources\n{lines}\n{ADVICE}{manual}")


def _whole(here: Path, file: DataFile, source: Path | str) -> Path:
    """Where a transfer from ``source`` is kept that could not be unpacked; named as interrupted ones are."""
    digest = hashlib.sha256(f"whole {source}".encode()).hexdigest()[:12]
    return here / f".{file.name.rpartition('/')[2]}.{digest}.part"


def _parts(here: Path, file: DataFile) -> list[Path]:
    """Interrupted transfers of a file in the stage."""
    last = file.name.rpartition("/")[2]
    return sorted(here.glob(f".{escape(last)}.{'[0-9a-f]' * 12}.part"))


def _tidy(stage: Path) -> None:
    """Leave nothing in ``stage`` but interrupted transfers, and no stage without them."""
    paths = sorted(stage.rglob("*"), reverse=True)  # what lies in a folder before the folder
    for path in paths:
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path.suffix != ".part" or not path.stat().st_size:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        stage.rmdir()
