"""Files of a Hugging Face repository: huggingface_hub finds them (tokens, ``HF_ENDPOINT``, commits, reasons).

The bytes come through our own `download`: `hf_hub_download` (2.4) throws away what arrived when it gives up or is
stopped, so a transfer of gigabytes would start over with every call.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from embbench.cache.download import download
from embbench.cache.fetched import Arrival, listing, megabytes, need_space, sha256
from embbench.cache.sources import Source, hub_snapshot
from embbench.core import UserError

HELP = "a folder with the files can be named with --checkpoint, a copy of the repository with --mirror"


def from_hub(
    source: Source, names: Sequence[str], stage: Path, commit: str, say: Callable[[str], None]
) -> Iterator[Arrival]:
    """Fetch files of one commit of a repository into ``stage``, one by one.

    Parameters
    ----------
    source : the repository and revision.
    names : files wanted, relative to the repository.
    stage : folder for the files and for interrupted transfers.
    commit : the commit that earlier files came from; '' resolves the revision now.
    say : is told number, size and origin before the first transfer.

    Raises
    ------
    UserError
        huggingface_hub is absent, switched off or cannot reach the hub; no such repository, revision or file; access
        must be asked for; a file is not the one the hub describes.
    """
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise UserError(
            f"{source.text}: fetching from the hub needs the package huggingface_hub, which is not installed; "
            f"pip install 'embbench[models]', or {HELP}"
        ) from error
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise UserError(
            f"{source.text}: {listing(list(names))} not on this machine, and HF_HUB_OFFLINE forbids fetching; unset "
            f"it, or {HELP}"
        )
    endpoint = os.environ.get("HF_ENDPOINT") or None
    commit = commit or _asked(hub, source, names[0], source.revision, endpoint).commit_hash
    found = [_asked(hub, source, name, commit, endpoint) for name in names]  # all of one commit, whatever moves
    held = [_held(source, commit, name) for name in names]
    total = sum(f.size or 0 for f, path in zip(found, held, strict=True) if path is None)
    need_space(stage, total, source.text)
    say(f"fetching {len(names)} file(s), {megabytes(total)}, of {source.repo} at {commit[:12]} from the hub")
    for name, facts, mine in zip(names, found, held, strict=True):
        if mine is not None:
            path = Path(shutil.copyfile(mine, stage / "copy"))
        else:
            path = download(facts.location, stage, name.rpartition("/")[2], say, _secret(hub, facts.location, endpoint))
        tag = facts.etag.strip('"')
        if len(tag) == 64 and (sha := sha256(path)) != tag:  # large files: the hub's tag is their sha256
            path.unlink()
            raise UserError(
                f"{name} of {source.repo}: the hub describes sha256 {tag}, what arrived has {sha}; try again"
            )
        yield Arrival(name, path, f"{source.repo}@{commit}", commit)


def _held(source: Source, commit: str, name: str) -> Path | None:
    """The same file of the same commit in the user's own hub cache."""
    snapshot = hub_snapshot(replace(source, revision=commit))
    return snapshot / name if snapshot is not None and (snapshot / name).is_file() else None


def _secret(hub: Any, location: str, endpoint: str | None) -> dict[str, str]:
    """The user's token for the hub's own host, nothing for the storage hosts that it sends us to."""
    own = urlsplit(endpoint or hub.constants.ENDPOINT).netloc
    token = hub.utils.build_hf_headers().get("authorization", "")
    return {"Authorization": token} if token and urlsplit(location).netloc == own else {}


def _asked(hub: Any, source: Source, name: str, revision: str, endpoint: str | None) -> Any:
    """The hub's description of a file: commit, tag, size, address. What its library raises becomes one line."""
    from huggingface_hub import errors

    # the first base of HfHubHTTPError is the root of its HTTP library's errors, whichever that library is
    others: tuple[type[BaseException], ...] = (errors.HfHubHTTPError.__bases__[0], OSError, ValueError, RuntimeError)
    url = hub.hf_hub_url(source.repo, name, revision=revision, endpoint=endpoint)
    where = f"{source.repo}@{revision}"
    try:
        facts = hub.get_hf_file_metadata(url, endpoint=endpoint)
    except errors.GatedRepoError as error:
        why = "its owners give access on request only; ask on the model's page, then set HF_TOKEN"
        raise UserError(f"{where}: {why}; {HELP}") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{where}: no such repository on the hub, or a private one (set HF_TOKEN); {HELP}") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{where}: the repository has no such revision; see its page for those it has") from error
    except errors.EntryNotFoundError as error:
        raise UserError(
            f"{where}: the repository has no file {name}; it was moved or is of another revision"
        ) from error
    except others as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(
            f"{where}: {name} cannot be fetched ({type(error).__name__}: {text}); try again, {HELP}"
        ) from error
    if not facts.commit_hash or not facts.etag:
        raise UserError(
            f"{url}: expected the hub's description of a file, found an answer without commit and tag (a network "
            f"login, or an HF_ENDPOINT that is no hub); {HELP}"
        )
    return facts
