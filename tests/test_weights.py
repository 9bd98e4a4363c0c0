"""Checkpoints: where they lie, fetched once and whole from a hub, an address, an archive or a mirror, or one message.

Everything is served by a loopback server; the hub part runs the real huggingface_hub against it.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _server import Site, serving

from embbench.cache import download, fetched, weights
from embbench.cache.home import home
from embbench.core import UserError

COMMIT, NEXT = "a" * 40, "b" * 40
REPO = "lab/model"
HUB = f"hf:{REPO}@v1"
BODY = bytes(range(256)) * 20_000  # 5 MB: several blocks of the downloader
FREE = {"name": "model", "licence": "MIT"}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def _surroundings(fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "EMBBENCH_MIRROR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(download, "PAUSE", 0.0)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    files = {"config.json": b'{"layers": 2}', "model.safetensors": BODY, "sub/vocab.txt": b"TP53\nMYC\n"}
    content = Site({"/w/model.pt": BODY}, {f"{REPO}@v1": files}, {f"{REPO}@v1": COMMIT})
    with serving(content):
        monkeypatch.setenv("HF_ENDPOINT", content.url)
        yield content


def leftovers() -> list[str]:
    """Files below the home that are neither weights in place nor locks."""
    return [p.name for p in home().rglob("*") if p.is_file() and p.suffix in (".part", ".tmp")] + [
        p.name for p in home().rglob(".*.incoming")
    ]


def snapshot(tmp_path: Path, files: dict[str, bytes], revision: str = "v1") -> Path:
    """A hub cache as huggingface_hub lays it out: blobs named by hash, links in the snapshot, a ref."""
    repo = tmp_path / "hf" / "hub" / f"models--{REPO.replace('/', '--')}"
    folder = repo / "snapshots" / COMMIT
    for name, data in files.items():
        blob = repo / "blobs" / sha(data)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / revision).write_text(COMMIT)
    return folder


# where things lie


def test_local_folder(fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "model.pt").write_bytes(b"x")
    hub = fresh_home / "weights" / "hf" / "lab--model"
    one, other = "https://a.org/x/model.pt?download=1", "https://b.org/y/model.pt"
    assert weights.local_folder("~/own") == tmp_path / "own"
    assert weights.local_folder("~/own/model.pt") == tmp_path / "own"
    assert weights.local_file("~/own/model.pt") == tmp_path / "own" / "model.pt"
    assert weights.local_folder(HUB) == hub / "v1"
    assert weights.local_folder(f"hf:{REPO}") == hub / "main"
    assert weights.local_folder(HUB + "/a/b") == hub / "v1" / "a" / "b"
    assert weights.local_folder(one).parent == fresh_home / "weights" / "url"
    assert weights.local_folder(one).name.startswith("model.pt-")
    assert weights.local_folder(one) != weights.local_folder(other)
    assert weights.local_file(one).name == "model.pt"
    assert list(fresh_home.iterdir()) == [], "asking created something"
    assert [weights.is_remote(c) for c in ("~/own", HUB, one)] == [False, True, True]


@pytest.mark.parametrize(
    "text",
    ["hf:model", "hf:lab/model@", "hf:../x@main", "hf:lab/model@v1/../../x", "hf:lab/model@..", "https://a.org/", ""],
)
def test_texts_that_are_no_checkpoint(text: str) -> None:
    with pytest.raises(UserError, match=r"checkpoint|refused"):
        weights.local_folder(text)


def test_local_checkpoints_are_checked_for_completeness(tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text("{}")
    assert weights.fetch(str(tmp_path), ["args.json"], **FREE) == tmp_path
    assert weights.status(str(tmp_path), ["args.json", "best_model.pt"]) == "missing: best_model.pt (1 of 2 files)"
    with pytest.raises(UserError, match=r"model: checkpoint .*missing: best_model.pt \(1 of 2"):
        weights.fetch(str(tmp_path), ["args.json", "best_model.pt"], **FREE)
    with pytest.raises(UserError, match="there is no"):
        weights.fetch(str(tmp_path / "absent"), ["a"], **FREE)


# addresses


def test_an_address_is_fetched_once(site: Site) -> None:
    url, said = f"{site.url}/w/model.pt", []
    assert weights.status(url, []) == "missing: model.pt (1 of 1 files)"
    folder = weights.fetch(url, [], **FREE, say=said.append)
    assert (folder / "model.pt").read_bytes() == BODY
    assert "MIT" in said[0]
    assert "5.1 MB" in said[1]
    record = json.loads((folder / "fetched.json").read_text())
    assert record["files"]["model.pt"]["sha256"] == sha(BODY)
    asked = len(site.asked)
    assert weights.fetch(url, [], **FREE) == folder
    assert len(site.asked) == asked, "it was asked for again"
    assert weights.status(url, []) == "ready"
    assert weights.verify(url) == []
    assert not leftovers()


def test_an_address_without_a_telling_name_is_stored_under_the_name_wanted(site: Site) -> None:
    site.files["/files/4711"] = b"weights"
    folder = weights.fetch(f"{site.url}/files/4711", ["4layer.torch"], **FREE)
    assert (folder / "4layer.torch").read_bytes() == b"weights"
    with pytest.raises(ValueError, match="address of one file, got 2"):
        weights.fetch(f"{site.url}/files/4711", ["a", "b"], **FREE)


def test_a_broken_transfer_is_continued_within_a_call(site: Site) -> None:
    site.cuts["/w/model.pt"] = [3_000_000, 2_000_000]  # the third answer is whole
    folder = weights.fetch(f"{site.url}/w/model.pt", [], **FREE)
    assert (folder / "model.pt").read_bytes() == BODY
    assert [r for r in site.gets() if r][-1].startswith("bytes=")


@pytest.mark.parametrize(("tagless", "ranges"), [(False, True), (False, False), (True, True)])
def test_a_broken_transfer_is_continued_by_the_next_call(
    site: Site, monkeypatch: pytest.MonkeyPatch, tagless: bool, ranges: bool
) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    site.tagless, site.ranges = tagless, ranges
    site.cuts["/w/model.pt"] = [3_000_000]
    url = f"{site.url}/w/model.pt"
    with pytest.raises(UserError, match=r"broke off .*of 5120000 bytes.* run the command again"):
        weights.fetch(url, [], **FREE)
    assert not weights.local_file(url).exists()
    assert bool(leftovers()) is not tagless, "kept although the next version could not be told from it"
    folder = weights.fetch(url, [], **FREE)
    assert (folder / "model.pt").read_bytes() == BODY
    assert site.gets()[-1] == ("" if tagless else "bytes=3000000-")
    assert not leftovers()


def test_a_part_of_another_version_is_not_continued(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    site.cuts["/w/model.pt"] = [3_000_000]
    with pytest.raises(UserError, match="broke off"):
        weights.fetch(f"{site.url}/w/model.pt", [], **FREE)
    site.files["/w/model.pt"] = BODY[::-1]
    folder = weights.fetch(f"{site.url}/w/model.pt", [], **FREE)
    assert (folder / "model.pt").read_bytes() == BODY[::-1]


def test_a_version_that_changes_while_it_is_continued(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    site.cuts["/w/model.pt"] = [3_000_000]
    with pytest.raises(UserError, match="broke off"):
        weights.fetch(f"{site.url}/w/model.pt", [], **FREE)
    real = download._open

    def published_meanwhile(url: str, headers: Any, secret: Any) -> Any:
        if headers:  # between the answer that gave the tag and the request for the rest
            site.files["/w/model.pt"] = BODY[::-1]
        return real(url, headers, secret)

    monkeypatch.setattr(download, "_open", published_meanwhile)
    folder = weights.fetch(f"{site.url}/w/model.pt", [], **FREE)
    assert (folder / "model.pt").read_bytes() == BODY[::-1]


def test_secrets_do_not_follow_a_redirect(site: Site, tmp_path: Path) -> None:
    with serving(Site({"/blob": b"weights"})) as storage:
        site.moved["/w/model.pt"] = f"{storage.url}/blob"
        path = download.download(f"{site.url}/w/model.pt", tmp_path, "model.pt", print, {"Authorization": "Bearer x"})
    assert path.read_bytes() == b"weights"
    assert [a for *_, a in site.asked + storage.asked] == ["Bearer x", ""]


def page(site: Site) -> None:
    site.kinds["/w/model.pt"] = "text/html; charset=utf-8"


def status(code: int) -> Callable[[Site], None]:
    return lambda site: site.errors.update({"/w/model.pt": (code, "")})


REFUSALS: dict[str, tuple[Callable[[Site], None], str]] = {
    "moved": (status(404), "no such file: it was moved or withdrawn.*HTTP 404.*--mirror"),
    "login": (status(403), "wants a login.*HTTP 403"),
    "busy": (status(503), "cannot answer now .HTTP 503., 3 times; try again later"),
    "teapot": (status(418), "refused .HTTP 418"),
    "portal": (page, "expected the file model.pt, found a web page"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_of_an_address(case: str, site: Site) -> None:
    spoil, message = REFUSALS[case]
    spoil(site)
    with pytest.raises(UserError, match=message) as caught:
        weights.fetch(f"{site.url}/w/model.pt", [], **FREE)
    assert len(str(caught.value).splitlines()) == 1
    assert not leftovers()
    assert not weights.local_folder(f"{site.url}/w/model.pt").exists()


def test_a_server_that_is_down_or_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UserError, match=r"no answer within 0.2 s"):
            weights.fetch(f"http://127.0.0.1:{port}/model.pt", [], **FREE)
    with pytest.raises(UserError, match=r"cannot be reached .*refused.*; check the address"):
        weights.fetch(f"http://127.0.0.1:{port}/model.pt", [], **FREE)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(UserError, match=r"lab/model@v1: config.json cannot be fetched .*--checkpoint"):
        weights.fetch(HUB, ["config.json"], **FREE)
    assert not leftovers()


def test_a_full_disk_is_named_before_and_leaves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{site.url}/w/model.pt"
    usage = fetched.shutil.disk_usage(home())
    with monkeypatch.context() as patch:
        patch.setattr(fetched.shutil, "disk_usage", lambda _: usage._replace(free=1000))
        for checkpoint, files in ((url, []), (HUB, ["model.safetensors"])):
            with pytest.raises(UserError, match=r"needs 5.1 MB, .* has 1.0 kB free.*EMBBENCH_HOME"):
                weights.fetch(checkpoint, files, **FREE)
    assert not leftovers()


class Full(io.RawIOBase):
    """A file on a disk that fills up after a megabyte."""

    def __init__(self, path: Path) -> None:
        self.file, self.left = path.open("wb"), 1_500_000

    def write(self, data: Any) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(data)

    def tell(self) -> int:
        return self.file.tell()


def test_an_interrupted_write_leaves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda p, mode="r", *a, **k: Full(p) if mode == "wb" else real(p, mode, *a, **k))
        patch.setattr(Full, "__init__", lambda s, p: vars(s).update(file=real(p, "wb"), left=1_500_000))
        with pytest.raises(UserError, match=r"cannot write .*No space left on device; make space"):
            weights.fetch(f"{site.url}/w/model.pt", [], **FREE)
    assert not leftovers()
    assert not weights.local_folder(f"{site.url}/w/model.pt").exists()


KILLED = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background
from embbench.cache import download, weights
real, count = download._read, [0]
def read(answer):
    count[0] += 1
    if count[0] == 4:
        os.kill(os.getpid(), signal.{signal})
    return real(answer)
download._read = read
weights.fetch(sys.argv[1], [], name="model", licence="MIT")
"""


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGINT"])
def test_a_killed_download_is_continued(site: Site, signal: str) -> None:
    url = f"{site.url}/w/model.pt"
    done = subprocess.run([sys.executable, "-c", KILLED.format(signal=signal), url], capture_output=True, check=False)
    assert done.returncode != 0
    assert not weights.local_file(url).exists()
    folder = weights.fetch(url, [], **FREE)
    assert (folder / "model.pt").read_bytes() == BODY
    assert site.gets()[-1] in ("bytes=2097152-", "bytes=3145728-")  # the last block may not have reached the file
    assert not leftovers()


# verification


@pytest.mark.parametrize("checkpoint", ["url", "hub"])
def test_a_wrong_hash_keeps_nothing(checkpoint: str, site: Site) -> None:
    where, file = (f"{site.url}/w/model.pt", "model.pt") if checkpoint == "url" else (HUB, "model.safetensors")
    with pytest.raises(UserError, match=f"expected sha256 {'0' * 64}, found {sha(BODY)}; nothing was kept"):
        weights.fetch(where, [file], **FREE, hashes={file: "0" * 64})
    assert not weights.local_folder(where).exists()
    assert not leftovers()
    folder = weights.fetch(where, [file], **FREE, hashes={file: sha(BODY).upper()})
    assert (folder / file).read_bytes() == BODY
    with pytest.raises(UserError, match=f"expected sha256 {'1' * 64}, found {sha(BODY)}"):
        weights.fetch(where, [file], **FREE, hashes={file: "1" * 64})


def test_a_source_that_changed_is_refused(site: Site) -> None:
    url = f"{site.url}/w/model.pt"
    folder = weights.fetch(url, [], **FREE)
    (folder / "model.pt").unlink()
    site.files["/w/model.pt"] = b"other"
    with pytest.raises(UserError, match=rf"has changed: first fetched with sha256 {sha(BODY)}, now {sha(b'other')}"):
        weights.fetch(url, [], **FREE)
    assert not (folder / "model.pt").exists()
    assert weights.verify(url) == [f"{folder / 'model.pt'}: is gone"]


def test_a_file_that_changed_on_disk_is_named_and_kept(site: Site) -> None:
    url = f"{site.url}/w/model.pt"
    path = weights.fetch(url, [], **FREE) / "model.pt"
    path.write_bytes(b"mine")
    with pytest.raises(
        UserError, match=f"changed since it was fetched: recorded sha256 {sha(BODY)}, found {sha(b'mine')}"
    ):
        weights.fetch(url, [], **FREE)
    assert path.read_bytes() == b"mine"
    assert weights.verify(url) == [f"{path}: expected sha256 {sha(BODY)}, found {sha(b'mine')}"]


def test_files_placed_by_hand_are_recorded_and_checked(site: Site) -> None:
    folder = weights.local_folder(HUB)
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"config.json: expected sha256"):
        weights.fetch(HUB, ["config.json"], **FREE, hashes={"config.json": "0" * 64})
    assert weights.fetch(HUB, ["config.json"], **FREE) == folder
    assert site.asked == []
    assert json.loads((folder / "fetched.json").read_text())["files"]["config.json"]["from"] == "found in place"


def test_a_damaged_record_is_named(site: Site) -> None:
    folder = weights.fetch(HUB, ["config.json"], **FREE)
    (folder / "fetched.json").write_text("{")
    with pytest.raises(UserError, match=r"fetched.json: not a readable record"):
        weights.fetch(HUB, ["config.json"], **FREE)


# the hub


def test_a_hub_revision(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    folder = weights.fetch(HUB, ["config.json", "model.safetensors"], **FREE, say=said.append)
    assert folder == weights.local_folder(HUB)
    assert (folder / "model.safetensors").read_bytes() == BODY
    assert "2 file(s), 5.1 MB, of lab/model at aaaaaaaaaaaa" in said[1]
    assert {a for *_, a in site.asked} == {"Bearer hf_secret"}
    assert json.loads((folder / "fetched.json").read_text())["commit"] == COMMIT
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "fetched.json", "model.safetensors"]
    sub = weights.fetch(f"{HUB}/sub", ["vocab.txt"], **FREE, hashes={"vocab.txt": sha(b"TP53\nMYC\n")})
    assert (sub / "vocab.txt").read_bytes() == b"TP53\nMYC\n"
    assert sub == folder / "sub"
    assert weights.verify(HUB) == []
    assert not leftovers()


def test_a_revision_that_moved_stays_at_its_first_commit(site: Site) -> None:
    weights.fetch(HUB, ["config.json"], **FREE)
    old = site.hub[f"{REPO}@v1"]
    site.hub |= {f"{REPO}@old": old, f"{REPO}@v1": {k: v + b"!" for k, v in old.items()}}
    site.commits = {f"{REPO}@old": COMMIT, f"{REPO}@v1": NEXT}
    folder = weights.fetch(HUB, ["config.json", "sub/vocab.txt"], **FREE)
    assert (folder / "sub" / "vocab.txt").read_bytes() == b"TP53\nMYC\n"
    (folder / "config.json").unlink()
    old["config.json"] = b"rewritten history"
    with pytest.raises(UserError, match=r"config.json from lab/model@a+ has changed: first fetched with sha256"):
        weights.fetch(HUB, ["config.json"], **FREE)


def test_a_broken_hub_transfer_is_continued(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    site.cuts[f"/{REPO}/resolve/{COMMIT}/model.safetensors"] = [3_000_000]
    with pytest.raises(UserError, match=r"broke off .* run the command again to continue"):
        weights.fetch(HUB, ["config.json", "model.safetensors"], **FREE)
    assert weights.status(HUB, ["config.json", "model.safetensors"]) == "missing: model.safetensors (1 of 2 files)"
    folder = weights.fetch(HUB, ["config.json", "model.safetensors"], **FREE)
    assert (folder / "model.safetensors").read_bytes() == BODY
    assert site.gets()[-1] == "bytes=3000000-"
    assert len(site.gets("config.json")) == 1
    assert not leftovers()


def test_the_token_stays_with_the_hub(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(Site({"/blob": BODY})) as storage:
        site.moved[f"/{REPO}/resolve/{COMMIT}/model.safetensors"] = f"{storage.url}/blob?signature=s3cret"
        said: list[str] = []
        weights.fetch(HUB, ["model.safetensors"], **FREE, say=said.append)
        assert {a for *_, a in site.asked} == {"Bearer hf_secret"}
        assert {a for *_, a in storage.asked} == {""}
        assert "s3cret" not in " ".join(said)


def lying(site: Site) -> None:
    site.lies[f"/{REPO}/resolve/{COMMIT}/config.json"] = f'"{"9" * 64}"'


def portal(site: Site) -> None:
    site.files["/login"] = b"<html>"
    site.hub.clear()
    site.find = lambda path: (b"<html>log in</html>", "", "")  # type: ignore[method-assign]
    site.tagless = True


def answer(code: int, word: str) -> Callable[[Site], None]:
    return lambda site: site.errors.update({f"/{REPO}/resolve/v1/config.json": (code, word)})


HUB_REFUSALS: dict[str, tuple[Callable[[Site], None], str, str]] = {
    "file": (lambda s: None, "hf:lab/model@v1/other", "has no file other/config.json"),
    "revision": (lambda s: None, "hf:lab/model@v9", "lab/model@v9: the repository has no such revision"),
    "repository": (lambda s: None, "hf:lab/mode@v1", "lab/mode@v1: no such repository"),
    "gated": (answer(403, "GatedRepo"), HUB, "access on request only.*HF_TOKEN"),
    "broken": (answer(500, ""), HUB, "cannot be fetched"),
    "portal": (portal, HUB, "config.json.*(without commit|cannot be fetched)"),
    "lying": (lying, HUB, f"the hub describes sha256 {'9' * 64}"),
}


@pytest.mark.parametrize("case", HUB_REFUSALS)
def test_refusals_of_the_hub(case: str, site: Site) -> None:
    spoil, checkpoint, message = HUB_REFUSALS[case]
    spoil(site)
    with pytest.raises(UserError, match=message) as caught:
        weights.fetch(checkpoint, ["config.json"], **FREE)
    assert len(str(caught.value).splitlines()) == 1
    assert not weights.local_folder(checkpoint).exists()
    assert not leftovers()


def test_without_the_hub_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'embbench\[models\]'"):
        weights.fetch(HUB, ["config.json"], **FREE)


def test_the_hub_switched_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.fetch(HUB, ["config.json"], **FREE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    site.asked.clear()
    assert weights.fetch(HUB, ["config.json"], **FREE) == weights.local_folder(HUB)
    with pytest.raises(UserError, match=r"model.safetensors not on this machine, and HF_HUB_OFFLINE forbids"):
        weights.fetch(HUB, ["config.json", "model.safetensors"], **FREE)
    assert site.asked == []


def test_the_users_hub_cache_is_used_and_left_alone(site: Site, tmp_path: Path) -> None:
    folder = snapshot(tmp_path, {"config.json": b'{"layers": 2}', "sub/vocab.txt": b"TP53\nMYC\n"})
    before = sorted(p.relative_to(tmp_path / "hf") for p in (tmp_path / "hf").rglob("*"))
    assert weights.local_folder(HUB) == folder
    assert weights.status(HUB, ["config.json"]) == "ready"
    assert weights.fetch(HUB, ["config.json"], **FREE) == folder
    assert weights.fetch(f"{HUB}/sub", ["vocab.txt"], **FREE) == folder / "sub"
    assert weights.local_folder(f"hf:{REPO}@{COMMIT}") == folder
    assert weights.verify(HUB) == []
    assert site.asked == []
    with pytest.raises(UserError, match=f"expected sha256 {'0' * 64}"):
        weights.fetch(HUB, ["config.json"], **FREE, hashes={"config.json": "0" * 64})
    ours = weights.fetch(HUB, ["config.json", "model.safetensors"], **FREE)  # incomplete there: all of it goes to ours
    assert ours == weights.local_folder(HUB) == home("weights", "hf", "lab--model", "v1")
    assert site.gets("config.json") == [], "what the cache has is copied from it"
    assert sorted(p.relative_to(tmp_path / "hf") for p in (tmp_path / "hf").rglob("*")) == before


def test_a_damaged_hub_cache_is_named(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, {"config.json": b"{}"})
    (folder / "config.json").resolve().write_bytes(b"[]")
    with pytest.raises(UserError, match=r"config.json: the hub's cache names it"):
        weights.fetch(HUB, ["config.json"], **FREE)
    assert len(weights.verify(HUB)) == 1


# mirrors


@pytest.mark.parametrize("kind", ["folder", "url", "variable"])
def test_a_mirror_replaces_hub_and_addresses(
    kind: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {f"{REPO}/v1/config.json": b"{}", f"{REPO}/v1/sub/vocab.txt": b"A\n", "far.pt": b"far"}
    for name, data in held.items():
        site.files[f"/mirror/{name}"] = data
        (tmp_path / "mirror" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mirror" / name).write_bytes(data)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    mirror = f"{site.url}/mirror/" if kind == "url" else str(tmp_path / "mirror")
    if kind == "variable":
        monkeypatch.setenv("EMBBENCH_MIRROR", mirror)
        mirror = ""
    folder = weights.fetch(HUB, ["config.json", "sub/vocab.txt"], **FREE, mirror=mirror)
    assert (folder / "sub" / "vocab.txt").read_bytes() == b"A\n"
    far = weights.fetch("https://unreachable.invalid/x/far.pt", [], **FREE, mirror=mirror)
    assert (far / "far.pt").read_bytes() == b"far"
    with pytest.raises(UserError, match=r"mirror .*expected lab/model/v1/model.safetensors|mirror.*HTTP 404"):
        weights.fetch(HUB, ["config.json", "model.safetensors"], **FREE, mirror=mirror)
    assert not leftovers()


# archives


def tar(members: list[tuple[str, bytes, bytes]], mode: str = "w:gz") -> bytes:
    """A tar archive of (name, type, body)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, kind, body in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(body) if kind == tarfile.REGTYPE else 0
            info.linkname = "/etc/hostname" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            file.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def zipped(members: dict[str, bytes], attr: int = 0, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, body in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = attr, kind
            file.writestr(info, body)
    return buffer.getvalue()


REG = tarfile.REGTYPE
GOOD = [("./", tarfile.DIRTYPE, b""), ("./m/a.pt", REG, BODY), ("m/b.json", REG, b"{}"), ("m/huge.bin", REG, b"1")]


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar", "x.zip"])
def test_wanted_members_of_an_archive(name: str, site: Site) -> None:
    bodies = {
        "x.tar.gz": tar(GOOD),
        "x.tar": tar(GOOD, "w"),
        "x.zip": zipped({"m/a.pt": BODY, "m/b.json": b"{}", "c": b""}),
    }
    site.files[f"/{name}"] = bodies[name]
    url = f"{site.url}/{name}"
    folder = weights.fetch(url, ["m/a.pt", "m/b.json"], **FREE, hashes={"m/a.pt": sha(BODY)})
    assert (folder / "m" / "a.pt").read_bytes() == BODY
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["a.pt", "b.json", "fetched.json"]
    assert weights.status(url, ["m/a.pt", "m/b.json"]) == "ready"
    assert not leftovers()
    packed = weights.fetch(url, [name], **FREE)  # wanted as it is: not unpacked
    assert (packed / name).read_bytes() == bodies[name]


def flipped(data: bytes) -> bytes:
    return data[:-6] + bytes([data[-6] ^ 1]) + data[-5:]


ARCHIVES: dict[str, tuple[str, bytes, str]] = {
    "slip": ("x.tar.gz", tar([("../../evil", REG, b"x"), *GOOD]), "'../../evil' is refused"),
    "absolute": ("x.tar.gz", tar([("/tmp/evil", REG, b"x"), *GOOD]), "'/tmp/evil' is refused"),
    "symbolic link": ("x.tar.gz", tar([("m/a.pt", tarfile.SYMTYPE, b"")]), "m/a.pt is refused.*found a link"),
    "hard link": ("x.tar.gz", tar([("m/a.pt", tarfile.LNKTYPE, b"")]), "m/a.pt is refused.*found a link"),
    "device": ("x.tar.gz", tar([("m/a.pt", tarfile.CHRTYPE, b"")]), "m/a.pt is refused.*or a device"),
    "pipe": ("x.tar.gz", tar([("m/a.pt", tarfile.FIFOTYPE, b"")]), "m/a.pt is refused"),
    "zip slip": ("x.zip", zipped({"../evil": b"x", "m/a.pt": b""}), "'../evil' is refused"),
    "zip truncated": ("x.zip", zipped({"m/a.pt": BODY})[:-90], "expected a whole"),
    "zip link": ("x.zip", zipped({"m/a.pt": b"/etc/hostname"}, 0o120777 << 16), "m/a.pt is refused"),
    "absent": ("x.zip", zipped({"n/a.pt": b"x"}), "expected m/a.pt in the archive, it holds n/a.pt"),
    "truncated": ("x.tar.gz", tar(GOOD)[:-2000], "expected a whole .tar.gz or .zip archive"),
    "checksum": ("x.tar.gz", flipped(tar(GOOD)), "expected a whole .*CRC"),
    "zip checksum": (
        "x.zip",
        zipped({"m/a.pt": bytes(9)}, kind=zipfile.ZIP_STORED).replace(bytes(9), bytes(8) + b"x"),
        "expected a whole .*CRC",
    ),
    "no archive": ("x.tar.gz", b"weights", "expected a whole .tar.gz or .zip archive, found 7 bytes"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_that_are_refused(case: str, site: Site, tmp_path: Path) -> None:
    name, body, message = ARCHIVES[case]
    site.files[f"/{name}"] = body
    before = sorted(tmp_path.rglob("evil"))
    with pytest.raises(UserError, match=message):
        weights.fetch(f"{site.url}/{name}", ["m/a.pt"], **FREE)
    assert sorted(tmp_path.rglob("evil")) == before == []
    assert not weights.local_folder(f"{site.url}/{name}").exists()
    assert not leftovers()
    site.files[f"/{name}"] = {"x.zip": zipped({"m/a.pt": b"x"}), "x.tar.gz": tar(GOOD)}[name]
    weights.fetch(f"{site.url}/{name}", ["m/a.pt"], **FREE)  # a whole one is fetched anew


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "a/../../x", ""])
def test_wanted_names_stay_in_the_folder(file: str, site: Site) -> None:
    with pytest.raises(UserError, match="is refused"):
        weights.fetch(HUB, [file], **FREE)
    assert site.asked == []


# licences


def test_a_restricted_licence_is_accepted_once(site: Site) -> None:
    terms: dict[str, Any] = {"name": "model", "licence": "CC BY-NC 4.0", "restricted": "no commercial use"}
    with pytest.raises(UserError, match=r"(?s)CC BY-NC 4.0.*no commercial use.*nothing was fetched.*--accept-licence"):
        weights.fetch(HUB, ["config.json"], **terms)
    assert site.asked == []
    assert not weights.accepted("model", "CC BY-NC 4.0")
    weights.fetch(HUB, ["config.json"], **terms, accept=True)
    assert weights.accepted("model", "CC BY-NC 4.0")
    assert not weights.accepted("other", "CC BY-NC 4.0")
    weights.fetch(HUB, ["config.json"], **terms)
    for changed in ({"licence": "CC BY-NC 5.0"}, {"restricted": "no use at all"}):
        with pytest.raises(UserError, match="has changed since it was accepted"):
            weights.fetch(HUB, ["config.json"], **terms | changed)
    weights.fetch(HUB, ["config.json"], **terms | {"licence": "CC BY-NC 5.0"}, accept=True)
    assert json.loads(home("licences.json").read_text()) == {
        "model": {"licence": "CC BY-NC 5.0", "restricted": "no commercial use"}
    }
    home("licences.json").write_text("[")
    with pytest.raises(UserError, match=r"licences.json: not a readable list"):
        weights.fetch(HUB, ["config.json"], **terms)


# two processes


def _fetch(url: str, start: Any) -> None:
    start.wait(30)
    weights.fetch(url, [], **FREE)


def test_two_processes_fetch_once(site: Site) -> None:
    url = f"{site.url}/w/model.pt"
    site.pause = 0.3  # seconds until the first byte: the second process arrives meanwhile
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    both = [context.Process(target=_fetch, args=(url, start)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(site.gets()) == 1
    assert weights.verify(url) == []
