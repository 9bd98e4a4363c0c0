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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embbench.cache.fetched import megabytes, need_space
from embbench.cache.verified import BLOCK, PAGES, is_page
from embbench.core import UserError

TIMEOUT = 30.0  # seconds without a byte
TRIES = 3  # a transfer that breaks off is resumed at once, this often in all
PAUSE = 1.0  # seconds before it is
LONGEST = 60.0  # seconds that a server may ask to wait for (Retry-After)
SLOWEST, WINDOW = 1000.0, 60.0  # bytes per second over so many seconds, below which a transfer counts as broken off
HELP = "or get the file another way and name it with --checkpoint, or a copy of it with --mirror"
MEANING = {
    **dict.fromkeys((404, 410), "no such file: it was moved or withdrawn; look for its new address"),
    **dict.fromkeys((401, 403, 407), "the server wants a login; fetch it in a browser"),
}
ASKED = {"User-Agent": "embbench", "Accept-Encoding": "identity"}
BUSY = (429, 500, 502, 503, 504)
Progress = Callable[[str, int, int | None], None]


class UnfinishedError(UserError):
    """The network or the server failed, not the file: what arrived is kept, and the next call continues."""


class NoFileError(UserError):
    """The server knows of no such file (404, 410)."""


class _AgainError(UserError):
    """The transfer failed in a way that another try may mend: what happened, what to do at last, seconds to wait."""

    def __init__(self, what: str, step: str = "run the command again to continue", wait: float = 0.0) -> None:
        super().__init__(what)
        self.step, self.wait = step, wait


@dataclass(frozen=True)
class _Order:
    """What is asked for."""

    url: str
    folder: Path
    name: str
    say: Callable[[str], None]
    secret: Mapping[str, str]
    progress: Progress
    size: int
    help: str

    @property
    def shown(self) -> str:
        return shown(self.url)

    @property
    def hint(self) -> str:
        return f", {self.help}" if self.help else ""


def _unseen(name: str, done: int, total: int | None) -> None:
    """Draw nothing."""


def download(
    url: str,
    folder: Path,
    name: str,
    say: Callable[[str], None],
    secret: Mapping[str, str] | None = None,
    *,
    progress: Progress = _unseen,
    size: int = 0,
    help: str = HELP,
) -> Path:
    """Transfer an address into ``folder/.<name>.<digest>.part`` and return that path once it is whole.

    The digest is that of the server's validator (strong ETag, else Last-Modified) and the length, so that a transfer
    is only ever continued with bytes of the same version (RFC 9110, sections 13.1.5 and 14). What arrived is kept for
    the next call where the server gives a validator and a length, and removed otherwise. ``secret`` headers go to this
    host only, not where it redirects to.

    Parameters
    ----------
    progress : is told the name, the bytes that are there and those that the file has (None: not known), per block.
    size : bytes that the file must have; 0 for any.
    help : what a person can do instead, for messages.

    Raises
    ------
    UnfinishedError
        The server cannot be reached; it cannot answer, breaks off or is slower than `SLOWEST`, `TRIES` times.
    NoFileError
        There is no such file.
    UserError
        The server refuses, answers with a web page, packs the file or announces another size; no free space.
    """
    order, attempt = _Order(url, folder, name, say, secret or {}, progress, size, help), 0
    while True:
        attempt += 1
        try:
            return _transfer(order)
        except _AgainError as error:
            if attempt >= TRIES:
                raise UnfinishedError(f"{order.shown}: {error}, {TRIES} times; {error.step}{order.hint}") from error
            say(f"{name}: {error}; trying again")
            time.sleep(max(PAUSE * attempt, error.wait))


def _transfer(order: _Order) -> Path:
    folder, name = order.folder, order.name
    with _open(order.url, {}, order) as answer:
        if answer.status != 200:  # figshare: 202 and nothing, to what it takes for a robot
            raise _AgainError(f"the server gives no file yet (HTTP {answer.status})", "open the address in a browser")
        if answer.headers.get_content_type() == "text/html" and not name.endswith(PAGES):
            raise _page(order)
        _refuse_coding(answer, order)
        total, tag = _length(answer), _validator(answer)
        if order.size and total not in (None, order.size):
            step = "it was changed or moved: look for the published one"
            found = f"expected {order.size} bytes, the server announces {total}"
            raise UserError(f"{order.shown}: {found}; {step}{order.hint}")
        part = folder / f".{name}.{hashlib.sha256(f'{tag} {total}'.encode()).hexdigest()[:12]}.part"
        start = part.stat().st_size if tag and total is not None and part.exists() else 0
        need_space(folder, (total or 0) - start, f"{name} from {order.shown}")
        size = "unknown size" if total is None else megabytes(total)
        after = f", continuing after {megabytes(start)}" if start else ""
        order.say(f"fetching {name} ({size}) from {order.shown}{after}")
        if not start:
            return _pour(answer, part, "wb", total, order, keep=bool(tag) and total is not None)
    if start == total:
        return part
    with _open(order.url, {"Range": f"bytes={start}-", "If-Range": tag}, order) as rest:
        _refuse_coding(rest, order)
        goes_on = rest.status == 206 and rest.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        return _pour(rest, part, "ab" if goes_on else "wb", total, order, keep=goes_on)


def _page(order: _Order) -> UserError:
    found = "found a web page (of a network login or a licence?); open the address in a browser"
    return UserError(f"{order.shown}: expected the file {order.name}, {found}{order.hint}")


def _refuse_coding(answer: Any, order: _Order) -> None:
    """`UserError` for bytes that are not those of the file, but packed for the way."""
    coding = (answer.headers.get("Content-Encoding") or "identity").strip().lower()
    # Servers label a file that is a .gz so as well, and send it as it lies there.
    if coding == "identity" or (coding in ("gzip", "x-gzip") and order.name.endswith((".gz", ".tgz"))):
        return
    found = f"expected the file as it is, the server sends it packed (Content-Encoding: {coding})"
    raise UserError(f"{order.shown}: {found}; fetch it with a browser{order.hint}")


def _open(url: str, headers: Mapping[str, str], order: _Order) -> Any:
    try:
        request = urllib.request.Request(url, headers={**ASKED, **headers})
        for key, value in order.secret.items():
            request.add_unredirected_header(key, value)
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code in BUSY:
            wait = str(error.headers.get("Retry-After", ""))
            seconds = min(float(wait), LONGEST) if wait.isdigit() else 0.0
            what = f"the server cannot answer now (HTTP {error.code})"
            raise _AgainError(what, "try again later", seconds) from error
        kind = NoFileError if error.code in (404, 410) else UserError
        meaning = f"{MEANING.get(error.code, 'refused')} (HTTP {error.code})"
        raise kind(f"{order.shown}: {meaning}{order.hint}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            reason = f"no answer within {TIMEOUT:g} s"
        raise UnfinishedError(
            f"{order.shown}: cannot be reached ({reason}); check the address and the network{order.hint}"
        ) from error


def _validator(answer: Any) -> str:
    tag = answer.headers.get("ETag", "")
    return tag if re.fullmatch(r'"[^"]+"', tag) else answer.headers.get("Last-Modified", "")


def _pour(answer: Any, part: Path, mode: str, total: int | None, order: _Order, *, keep: bool) -> Path:
    whole = False
    try:
        with part.open(mode) as file:
            since, mark = time.monotonic(), file.tell()
            while block := _read(answer):
                if not file.tell() and is_page(block, order.name):
                    keep = False
                    raise _page(order)
                file.write(block)
                order.progress(order.name, file.tell(), total)
                if (seconds := time.monotonic() - since) >= WINDOW:
                    if file.tell() - mark < SLOWEST * seconds:
                        raise _AgainError(f"gave {file.tell() - mark} bytes in {seconds:.0f} s")
                    since, mark = time.monotonic(), file.tell()
            size = max(order.size, file.tell()) if total is None else total  # without a length, too much is seen later
            if file.tell() != size:
                raise _AgainError(f"broke off after {file.tell()} of {size} bytes")
            whole = True
    except OSError as error:
        keep = False  # a disk that failed may have kept anything
        raise UserError(f"cannot write {part.parent}: {error.strerror or error}; make space and run again") from error
    finally:
        if not (whole or keep):
            part.unlink(missing_ok=True)
    return part


def _read(answer: Any) -> bytes:
    """The next block; what came within a second, so that a slow transfer is seen to be one. Empty at the end."""
    pieces, size, until = [], 0, time.monotonic() + min(1.0, WINDOW)
    try:
        while size < BLOCK and (piece := answer.read1(BLOCK - size)):
            pieces.append(piece)
            size += len(piece)
            if time.monotonic() >= until:
                break
    except (OSError, http.client.HTTPException) as error:
        raise _AgainError(f"broke off ({error or type(error).__name__})") from error
    return b"".join(pieces)


def _length(answer: Any) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def shown(url: str) -> str:
    """An address without what may be secret: its query, where signatures and keys stand, and a password.

    Examples
    --------
    >>> shown("https://me:word@a.org/x.h5ad?signature=s3cret")
    'https://a.org/x.h5ad'
    """
    return re.sub("//[^/@]*@", "//", url.partition("?")[0])
