"""A loopback server for tests: plain files with Range and ETag, and what huggingface_hub asks of a hub."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, what went wrong on purpose, and what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)  # path -> body
    hub: dict[str, dict[str, bytes]] = field(default_factory=dict)  # org/name@revision -> file -> body
    commits: dict[str, str] = field(default_factory=dict)  # org/name@revision -> commit
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)  # path -> status, X-Error-Code
    kinds: dict[str, str] = field(default_factory=dict)  # path -> content type
    cuts: dict[str, list[int]] = field(default_factory=dict)  # path -> bytes after which answers break off, in turn
    busy: dict[str, list[int]] = field(default_factory=dict)  # path -> statuses of the first answers, in turn
    drips: dict[str, int] = field(default_factory=dict)  # path -> number of answers that come a few bytes at a time
    codings: dict[str, str] = field(default_factory=dict)  # path -> Content-Encoding, whatever the bytes are
    lengthless: dict[str, str] = field(default_factory=dict)  # path -> "close" or "chunked": no Content-Length
    pause: float = 0.0  # seconds before an answer
    tagless: bool = False
    ranges: bool = True
    lies: dict[str, str] = field(default_factory=dict)  # path -> ETag that is not the sha256
    moved: dict[str, str] = field(default_factory=dict)  # path -> address that the hub sends to for the bytes
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)  # method, path, Range, Authorization
    url: str = ""

    def gets(self, part: str = "") -> list[str]:
        """Range headers of all GET requests whose path contains ``part``."""
        return [r for method, path, r, _ in self.asked if method == "GET" and part in path]

    def find(self, path: str) -> tuple[bytes | None, str, str]:
        """Body, commit and error code of a path."""
        if "/resolve/" not in path:
            return self.files.get(path), "", ""
        repo, _, rest = path.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        by_commit = {f"{key.partition('@')[0]}@{commit}": key for key, commit in self.commits.items()}
        key = by_commit.get(f"{repo}@{revision}", f"{repo}@{revision}")
        if key in self.hub:
            commit = self.commits[key]
            return self.hub[key].get(file), commit, "EntryNotFound"
        known = any(k.partition("@")[0] == repo for k in self.hub)
        return None, "", "RevisionNotFound" if known else "RepoNotFound"


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        site, path = self.site, self.path.partition("?")[0]
        wanted = self.headers.get("Range", "")
        site.asked.append((self.command, path, wanted, self.headers.get("Authorization", "")))
        time.sleep(site.pause)
        data, commit, code = site.find(path)
        status, code = site.errors.get(path, (200 if data is not None else 404, code))
        if site.busy.get(path):
            status = site.busy[path].pop(0)
        if status >= 400 or status == 202 or data is None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag = site.lies.get(path) or f'"{hashlib.sha256(data).hexdigest()}"'
        if path in site.moved:
            self.send_response(302)
            facts = {"Location": site.moved[path], "X-Linked-Etag": tag, "X-Linked-Size": str(len(data))}
            for key, value in {**facts, "X-Repo-Commit": commit, "Content-Length": "0"}.items():
                self.send_header(key, value)
            self.end_headers()
            return
        start = 0
        if wanted and site.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        rest = data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if not site.tagless:
            self.send_header("ETag", tag)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", site.kinds.get(path, "application/octet-stream"))
        if path in site.codings:
            self.send_header("Content-Encoding", site.codings[path])
        framing = site.lengthless.get(path, "")
        if framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif framing:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if not body:
            return
        if framing == "chunked":
            rest = b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest), rest)
        cut = site.cuts.get(path, [])
        if cut:
            rest = rest[: cut.pop(0)]
            self.close_connection = True
        if site.drips.get(path):
            site.drips[path] -= 1
            self._drip(rest)
        else:
            self.wfile.write(rest)

    def _drip(self, rest: bytes) -> None:
        self.close_connection = True
        try:
            for start in range(0, len(rest), 10):
                self.wfile.write(rest[start : start + 10])
                time.sleep(0.02)
        except OSError:  # nobody waits for the rest
            return


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site on a free port of this machine; ``site.url`` is its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
