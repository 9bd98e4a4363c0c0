"""What a ``checkpoint`` text means: a folder, a file, a revision of a hub repository, or an address."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from embbench.cache.home import home
from embbench.core import UserError

RECORD = "fetched.json"
MIRROR = "EMBBENCH_MIRROR"  # names a folder or address that replaces the network
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_HUB = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+)(?:/(?P<sub>.+))?)?")


@dataclass(frozen=True)
class Source:
    """One checkpoint: its text, kind (path, hub, url), and for remote ones the folder of ours and a part below it."""

    text: str
    kind: str
    root: Path
    sub: str = ""
    repo: str = ""
    revision: str = ""
    file: str = ""

    @property
    def archive(self) -> bool:
        """Whether the address is that of an archive, judged by its last name."""
        return self.kind == "url" and self.file.endswith(ARCHIVES)

    def name(self, file: str) -> str:
        """A wanted file relative to `root`, POSIX; `UserError`: it leaves the folder."""
        return f"{self.sub}/{safe(file, self.text)}" if self.sub else safe(file, self.text)


def parse(checkpoint: str) -> Source:
    """Read the text of a checkpoint; nothing is opened, nothing is fetched.

    Raises
    ------
    UserError
        An ``hf:`` text that is not ``hf:org/name@revision[/sub/folder]``, an address without a file name.

    Examples
    --------
    >>> parse("hf:facebook/esm2_t6_8M_UR50D@main/sub").root.parts[-3:]
    ('hf', 'facebook--esm2_t6_8M_UR50D', 'main')
    >>> parse("https://example.org/a/model.pt?download=1").file
    'model.pt'
    """
    if checkpoint.startswith("hf:"):
        return _hub(checkpoint)
    if checkpoint.startswith(("http://", "https://")):
        return _url(checkpoint)
    if not checkpoint.strip():
        raise UserError(f"checkpoint {checkpoint!r} is empty; expected a folder, a file, hf:org/name@revision or a URL")
    return Source(checkpoint, "path", Path(checkpoint).expanduser())


def _hub(text: str) -> Source:
    found = _HUB.fullmatch(text.rstrip("/"))
    if found is None or {".", ".."} & set(re.split("[/@]", found["repo"] + "/" + (found["revision"] or "main"))):
        raise UserError(f"checkpoint {text!r}: expected hf:org/name@revision or hf:org/name@revision/sub/folder")
    revision = found["revision"] or "main"
    root = home("weights", "hf", found["repo"].replace("/", "--"), revision)
    sub = safe(found["sub"], text) if found["sub"] else ""
    return Source(text, "hub", root, sub, found["repo"], revision)


def _url(text: str) -> Source:
    parts = urlsplit(text)
    file = re.sub(r"[^\w.+-]", "_", PurePosixPath(unquote(parts.path)).name).lstrip(".")
    if not file or not parts.hostname:
        raise UserError(f"checkpoint {text!r}: expected the address of one file or archive, found no file name in it")
    # two addresses may end in the same name (model.pt): the digest keeps them apart
    root = home("weights", "url", f"{file}-{hashlib.sha256(text.encode()).hexdigest()[:12]}")
    return Source(text, "url", root, file=file)


def safe(name: str, where: str) -> str:
    """A relative POSIX name without ``..``; `UserError` names it and ``where`` it came from otherwise.

    Examples
    --------
    >>> safe("./sub/model.pt", "an archive")
    'sub/model.pt'
    """
    path = PurePosixPath(name)
    odd = "\\" in name or "\0" in name or re.match("[A-Za-z]:", name)  # separators and drives of other systems
    if path.is_absolute() or ".." in path.parts or odd or not path.parts:
        raise UserError(f"{where}: file name {name!r} is refused: expected a relative name that stays in the folder")
    return path.as_posix()


def hub_snapshot(source: Source) -> Path | None:
    """The snapshot of a hub revision in the user's own hub cache, where there is one; it is only ever read."""
    repo = hub_cache() / f"models--{source.repo.replace('/', '--')}"
    try:
        commit = (repo / "refs" / source.revision).read_text(encoding="utf-8").strip()
    except OSError:
        commit = source.revision
    snapshot = repo / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def hub_cache() -> Path:
    """The hub's cache folder as huggingface_hub finds it (``HF_HUB_CACHE``, ``HF_HOME``, ``XDG_CACHE_HOME``)."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{user}/huggingface").expanduser() / "hub"
