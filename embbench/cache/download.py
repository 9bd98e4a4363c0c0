"""One file from an address to the disk: resumed where the server allows it, refused where it is not the file.

Own code on urllib because pooch, the library for this, neither resumes a transfer nor tells a login page from a file.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embbench.cache.fetched import megabytes, need_space
from embbench.core import UserError

TIMEOUT = 30.0  # seconds without a byte
TRIES = 3  # a transfer that breaks off is resumed at once, this often in all
PAUSE = 1.0  # seconds before it is
BLOCK = 1 << 20
HELP = "or get the file another way and name it with --checkpoint, or a copy of it with --mirror"
MEANING = {
    **dict.fromkeys((404, 410), "no such file: it was moved or withdrawn; look for its new address"),
    **dict.fromkeys((401, 403, 407), "the server wants a login; fetch it in a browser"),
    **dict.fromkeys((429, 500, 502, 503, 504), "the server cannot answer now; try again later"),
}


class _BrokenOffError(UserError):
    """The transfer ended before the file did."""


def download(
    url: str, folder: Path, name: str, say: Callable[[str], None], secret: Mapping[str, str] | None = None
) -> Path:
    """Transfer an address into ``folder/.<name>.<digest>.part`` and return that path once it is whole.

    The digest is that of the server's validator (strong ETag, else Last-Modified) and the length, so that a transfer
    is only ever continued with bytes of the same version (RFC 9110, sections 13.1.5 and 14). What arrived is kept for
    the next call where the server gives a validator, and removed otherwise. ``secret`` headers go to this host only,
    not where it redirects to.

    Raises
    ------
    UserError
        The server cannot be reached, answers with an error or a web page, or breaks off `TRIES` times; no free space.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return _transfer(url, folder, name, say, secret or {})
        except _BrokenOffError as error:
            if attempt >= TRIES:
                raise UserError(
                    f"{_shown(url)}: {error}, {TRIES} times; run the command again to continue, {HELP}"
                ) from error
            say(f"{name}: {error}; trying again")
            time.sleep(PAUSE * attempt)


def _transfer(url: str, folder: Path, name: str, say: Callable[[str], None], secret: Mapping[str, str]) -> Path:
    with _open(url, {}, secret) as answer:
        if answer.headers.get_content_type() == "text/html" and not name.endswith((".html", ".htm")):
            found = "found a web page (of a network login or a licence?); open the address in a browser"
            raise UserError(f"{_shown(url)}: expected the file {name}, {found}, {HELP}")
        total, tag = _length(answer), _validator(answer)
        part = folder / f".{name}.{hashlib.sha256(f'{tag} {total}'.encode()).hexdigest()[:12]}.part"
        start = part.stat().st_size if tag and total is not None and part.exists() else 0
        need_space(folder, (total or 0) - start, f"{name} from {_shown(url)}")
        size = "unknown size" if total is None else megabytes(total)
        say(
            f"fetching {name} ({size}) from {_shown(url)}" + (f", continuing after {megabytes(start)}" if start else "")
        )
        if not start:
            return _pour(answer, part, "wb", total, keep=bool(tag))
    if start == total:
        return part
    with _open(url, {"Range": f"bytes={start}-", "If-Range": tag}, secret) as rest:
        goes_on = rest.status == 206 and rest.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        return _pour(rest, part, "ab" if goes_on else "wb", total, keep=goes_on)


def _open(url: str, headers: Mapping[str, str], secret: Mapping[str, str]) -> Any:
    shown = _shown(url)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "embbench", **headers})
        for key, value in secret.items():
            request.add_unredirected_header(key, value)
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        raise UserError(f"{shown}: {MEANING.get(error.code, 'refused')} (HTTP {error.code}); {HELP}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            reason = f"no answer within {TIMEOUT:g} s"
        raise UserError(f"{shown}: cannot be reached ({reason}); check the address and the network, {HELP}") from error


def _validator(answer: Any) -> str:
    tag = answer.headers.get("ETag", "")
    return tag if re.fullmatch(r'"[^"]+"', tag) else answer.headers.get("Last-Modified", "")


def _pour(answer: Any, part: Path, mode: str, total: int | None, *, keep: bool) -> Path:
    whole = False
    try:
        with part.open(mode) as file:
            while block := _read(answer):
                file.write(block)
            if total is not None and file.tell() != total:
                raise _BrokenOffError(f"broke off after {file.tell()} of {total} bytes")
            whole = True
    except OSError as error:
        keep = False  # a disk that failed may have kept anything
        raise UserError(f"cannot write {part.parent}: {error.strerror or error}; make space and run again") from error
    finally:
        if not (whole or keep):
            part.unlink(missing_ok=True)
    return part


def _read(answer: Any) -> bytes:
    try:
        return answer.read(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(f"broke off ({error or type(error).__name__})") from error


def _length(answer: Any) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _shown(url: str) -> str:
    """Without the query, where signatures and keys stand."""
    return url.partition("?")[0]
