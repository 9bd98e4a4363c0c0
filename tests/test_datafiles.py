"""Files of published datasets: fetched once and whole from addresses or a mirror, or one message and nothing left."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import multiprocessing
import resource
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from _server import Site, serving

from embbench.cache import datafiles, download, fetched, fetching, licences, verified
from embbench.cache import unpack as unpacking
from embbench.cache.datafiles import (
    DataFile,
    announced,
    bring,
    chosen,
    digests,
    folder_of,
    records,
    require,
    state,
    withdraw,
)
from embbench.core import UserError

BODY = bytes(range(256)) * 9_000  # 2.3 MB: several blocks
NOISE = np.random.default_rng(0).bytes(100_000)
SMALL = b"ENSG00000000003\tTSPAN6\r\n"
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(64)
PAGE = b"\xef\xbb\xbf \n<!DOCTYPE HTML><html>Please log in</html>"


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar(*members: tuple[str, bytes, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive of (name, type, body)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, kind, body in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(body) if kind == tarfile.REGTYPE else 0
            info.linkname = "" if kind == tarfile.REGTYPE else "/etc/hostname"
            file.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def zipped(members: dict[str, bytes], attributes: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, body in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = attributes, zipfile.ZIP_DEFLATED
            file.writestr(info, body)
    return buffer.getvalue()


def spoilt_zip() -> bytes:
    """A zip archive whose LZMA stream is damaged in its middle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("m/a.h5ad", BODY)
    packed = bytearray(buffer.getvalue())
    packed[100:140] = b"!" * 40
    return bytes(packed)


REG, LINK, DEVICE = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE


@dataclass
class World:
    """A loopback server, a mirror folder and what was said."""

    site: Site
    mirror: Path
    said: list[str] = field(default_factory=list)
    steps: list[tuple[str, int, int | None]] = field(default_factory=list)
    arrived: list[str] = field(default_factory=list)

    def publish(self, name: str, body: bytes) -> None:
        """The same bytes at an address, in a mirror with and in a folder mirror."""
        self.site.files[f"/d/{name}"] = self.site.files[f"/m/ds/{name}"] = body
        (self.mirror / "ds" / name).parent.mkdir(parents=True, exist_ok=True)
        (self.mirror / "ds" / name).write_bytes(body)

    def file(self, name: str, **facts: Any) -> DataFile:
        return DataFile(name, (f"{self.site.url}/d/{name}?download=1",), **facts)

    def bring(self, *files: DataFile, via: str = "address", into: str = "ds", **more: Any) -> Path:
        mirror = {"address": None, "mirror address": f"{self.site.url}/m/", "mirror": str(self.mirror)}[via]
        told: dict[str, Any] = {"licence": "CC BY 4.0", "mirror": mirror, "say": self.said.append, **more}
        draw = {"progress": lambda *step: self.steps.append(step)}
        self.arrived = bring(into, folder_of(into), files, **told, **draw)
        return folder_of(into)


@pytest.fixture
def world(fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("EMBBENCH_MIRROR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    (tmp_path / "mirror").mkdir()
    with serving(Site()) as site:
        yield World(site, tmp_path / "mirror")


def lying() -> list[str]:
    """Every file below the folder of published data, hidden ones too; locks are none."""
    root = folder_of("ds").parent
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and ".locks" not in p.parts)


# what arrives whole


@pytest.mark.parametrize("via", ["address", "mirror address", "mirror"])
def test_files_arrive_as_they_are_stored(via: str, world: World) -> None:
    packed = zipped({"n/perturb_processed.h5ad": HDF5, "n/x.csv": SMALL, "n/not wanted": BODY})
    bodies = {
        "plain.h5ad": BODY,
        "sub/(D=512).h5ad": HDF5,
        "genes.tsv.gz": gzip.compress(SMALL[:9]) + gzip.compress(SMALL[9:]),  # two members, as bgzip writes them
        "n.zip": packed,
        "go.tar.gz": tar(("./go/", tarfile.DIRTYPE, b""), ("./go/go.csv", REG, SMALL)),
    }
    for name, body in bodies.items():
        world.publish(name, body)
        world.site.files[f"/d/{name}".replace("(", "%28").replace(")", "%29").replace("=", "%3D")] = body
        world.site.files[f"/m/ds/{name}".replace("(", "%28").replace(")", "%29").replace("=", "%3D")] = body
    files = (
        world.file("plain.h5ad", bytes=len(BODY), md5=md5(BODY).upper(), hashes="published"),
        world.file("sub/(D=512).h5ad"),
        world.file("genes.tsv.gz", unpack="gzip"),
        world.file("n.zip", unpack=("n/perturb_processed.h5ad -> norman.h5ad", "n/x.csv"), bytes=len(packed)),
        world.file("go.tar.gz", unpack=("go/go.csv",)),
    )
    assert state(folder_of("ds"), files) == "not fetched"
    folder = world.bring(*files, via=via)
    stored = {"plain.h5ad": BODY, "sub/(D=512).h5ad": HDF5, "genes.tsv": SMALL, "norman.h5ad": HDF5, "x.csv": SMALL}
    stored["go.csv"] = SMALL
    assert {name: (folder / name).read_bytes() for name in stored} == stored
    assert lying() == sorted([f"ds/{name}" for name in stored] + ["ds/fetched.json"])
    assert state(folder, files) == "ready"
    assert digests(folder, files) == {name: sha(body) for name, body in stored.items()}
    assert "CC BY 4.0" in world.said[0]
    assert "5 file(s) to fetch" in world.said[1]
    assert "and 3 of unknown size; 3 to be unpacked" in world.said[1]
    if via != "mirror":
        assert world.steps[0][0] == "plain.h5ad"
    assert ("plain.h5ad", len(BODY), len(BODY)) in world.steps
    note = json.loads((folder / "fetched.json").read_text())
    assert note["dataset"] == "ds"
    assert note["files"]["norman.h5ad"]["packed"]["sha256"] == sha(packed)
    asked = len(world.site.asked)
    world.bring(*files, via=via)
    assert len(world.site.asked) == asked, "asked for again"


def test_a_zip_that_is_the_file_itself(world: World) -> None:
    """datasets.md 1.2: one catalogue lists a GEARS zip as if it were the h5ad."""
    world.publish("n.zip", HDF5)
    for via in ("address", "mirror"):
        folder = world.bring(world.file("n.zip", unpack=(f"n/{via.split()[0]}.h5ad",)), via=via)
        assert (folder / f"{via}.h5ad").read_bytes() == HDF5
    assert any("expected an archive, found an HDF5 file; taken as its member" in text for text in world.said)
    assert (world.mirror / "ds" / "n.zip").exists()


def test_redirects_are_followed_and_signed_addresses_forgotten(world: World) -> None:
    with serving(Site({"/blob": BODY})) as storage:
        world.publish("x.h5ad", BODY)
        world.site.moved["/d/x.h5ad"] = f"{storage.url}/blob?X-Amz-Signature=s3cret"
        folder = world.bring(world.file("x.h5ad", md5=md5(BODY), hashes="published"))
    assert (folder / "x.h5ad").read_bytes() == BODY
    assert "s3cret" not in " ".join(world.said) + (folder / "fetched.json").read_text()


def test_500_then_success_and_a_drip_that_is_continued(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WINDOW", 0.1)
    monkeypatch.setattr(download, "SLOWEST", 1e5)
    world.publish("x.h5ad", BODY)
    world.site.busy["/d/x.h5ad"] = [500, 429]
    folder = world.bring(world.file("x.h5ad"))
    assert (folder / "x.h5ad").read_bytes() == BODY
    world.publish("y.h5ad", BODY)
    world.site.drips["/d/y.h5ad"] = 2
    world.bring(world.file("y.h5ad"))
    assert (folder / "y.h5ad").read_bytes() == BODY
    assert next(r for r in world.site.gets("y.h5ad") if r) not in ("", "bytes=0-"), "not continued"


def test_the_next_source_is_tried(world: World) -> None:
    world.publish("x.h5ad", BODY)
    world.site.files |= {"/old/x.h5ad": BODY[:-1], "/portal/x.h5ad": PAGE}
    bad = [f"{world.site.url}/{place}/x.h5ad" for place in ("gone", "old", "portal")]
    file = world.file("x.h5ad", md5=md5(BODY), hashes="published")
    folder = world.bring(replace(file, urls=(*bad, *file.urls)))
    assert (folder / "x.h5ad").read_bytes() == BODY
    told = "\n".join(world.said)
    for why in ("gone/x.h5ad: no such file", "old/x.h5ad: expected md5", "portal/x.h5ad: expected the file x.h5ad"):
        assert why in told
    (folder / "x.h5ad").unlink()
    with pytest.raises(
        UserError, match=r"(?s)ds: x.h5ad cannot be had from 3 sources.*1. .*gone.*2. .*old.*3. .*portal"
    ):
        world.bring(replace(file, urls=tuple(bad)))
    assert lying() == ["ds/fetched.json"]


def test_a_hash_of_a_third_party_is_a_warning(world: World) -> None:
    world.publish("x.h5ad", BODY)
    file = world.file("x.h5ad", sha256="0" * 64, hashes="third_party")
    folder = world.bring(file)
    assert [text for text in world.said if f"sha256 {sha(BODY)} is not {'0' * 64}, which a third party" in text]
    assert digests(folder, [file]) == {"x.h5ad": sha(BODY)}
    assert json.loads((folder / "fetched.json").read_text())["files"]["x.h5ad"]["differs"] == {"sha256": "0" * 64}
    said = len(world.said)
    world.bring(file)
    assert len(world.said) == said


def test_what_is_recorded_holds_ever_after(world: World) -> None:
    world.publish("x.h5ad", BODY)
    file = world.file("x.h5ad")
    path = world.bring(file) / "x.h5ad"
    path.unlink()
    world.publish("x.h5ad", BODY[::-1])
    for via in ("address", "mirror", "mirror address"):
        with pytest.raises(UserError, match=rf"has changed: first fetched with sha256 {sha(BODY)}, now"):
            world.bring(file, via=via)
        assert lying() == ["ds/fetched.json"]
    path.write_bytes(BODY[1:])
    for act in (lambda: world.bring(file), lambda: digests(path.parent, [file])):
        with pytest.raises(UserError, match=f"changed since it was fetched: recorded sha256 {sha(BODY)}"):
            act()
    path.write_bytes(BODY)  # only its time is another
    world.bring(file)
    assert json.loads((path.parent / "fetched.json").read_text())["files"]["x.h5ad"]["from"].startswith("http")


# the fault table


@dataclass(frozen=True)
class Fault:
    """What goes wrong, what the message names, and what helps."""

    message: str
    body: bytes = BODY
    name: str = "x.h5ad"
    facts: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[World, pytest.MonkeyPatch], None] | None = None
    good: bytes = BODY
    via: tuple[str, ...] = ("address", "mirror address", "mirror")
    kept: bool = False  # an interrupted transfer may stay, outside of the folder


def answers(*codes: int) -> Callable[[World, pytest.MonkeyPatch], None]:
    return lambda world, _: world.site.busy.update({"/d/x.h5ad": list(codes), "/m/ds/x.h5ad": list(codes)})


def coded(world: World, _: pytest.MonkeyPatch) -> None:
    world.site.codings |= {"/d/x.h5ad": "br", "/m/ds/x.h5ad": "GZIP"}


def endless(kind: str, *sizes: int) -> Callable[[World, pytest.MonkeyPatch], None]:
    """Answers that do not say how long they are, and are closed after so many bytes."""

    def spoil(world: World, _: pytest.MonkeyPatch) -> None:
        world.site.lengthless["/d/x.h5ad"] = kind
        world.site.cuts["/d/x.h5ad"] = list(sizes)

    return spoil


def cut(world: World, _: pytest.MonkeyPatch) -> None:
    world.site.cuts["/d/x.h5ad"] = [1_500_000, *[200_000] * 4]


def slow(world: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(download, "WINDOW", 0.1)
    patch.setattr(download, "SLOWEST", 1e5)
    world.site.drips["/d/x.h5ad"] = 5


def full(world: World, patch: pytest.MonkeyPatch) -> None:
    usage = fetched.shutil.disk_usage("/")._replace(free=1000)
    patch.setattr(fetched.shutil, "disk_usage", lambda _: usage)


def portal(world: World, _: pytest.MonkeyPatch) -> None:
    world.site.kinds |= {"/d/x.h5ad": "text/html", "/m/ds/x.h5ad": "text/html"}


def unplugged(world: World, patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(101, "Network is unreachable")

    patch.setattr(download.urllib.request, "urlopen", refuse)


ZIP: dict[str, Any] = {"name": "x.zip", "facts": {"unpack": ("m/a.h5ad",)}, "good": zipped({"m/a.h5ad": BODY})}
TAR: dict[str, Any] = {"name": "x.tar.gz", "facts": {"unpack": ("m/a.h5ad",)}, "good": tar(("m/a.h5ad", REG, BODY))}
XZ: dict[str, Any] = TAR | {
    "name": "x.tar.xz",
    "good": tar(("noise", REG, NOISE), ("m/a.h5ad", REG, BODY), mode="w:xz"),
}
GZIP: dict[str, Any] = {"name": "x.mtx.gz", "facts": {"unpack": "gzip"}, "good": gzip.compress(BODY)}
WIRE: dict[str, Any] = {"via": ("address", "mirror address")}
FLIPPED = gzip.compress(BODY)[:-8] + bytes(4) + gzip.compress(BODY)[-4:]  # the CRC
FAULTS = {
    "truncated": Fault("expected 2304000 bytes, .*2303999", BODY[:-1], facts={"bytes": len(BODY)}),
    "wrong size": Fault("expected 2304000 bytes, .*2304001", BODY + b"!", facts={"bytes": len(BODY)}),
    "wrong md5": Fault(
        f"x.h5ad from .*expected md5 {md5(BODY)} as published, found {md5(SMALL)}; nothing was kept",
        SMALL,
        facts={"md5": md5(BODY), "hashes": "published"},
    ),
    "wrong sha256": Fault(
        f"expected sha256 {sha(BODY)} as published, found", SMALL, facts={"sha256": sha(BODY), "hashes": "published"}
    ),
    "wrong hash of an archive": Fault(
        "x.zip.*expected md5 .* as published",
        zipped({"m/a.h5ad": SMALL}),
        **ZIP | {"facts": {**ZIP["facts"], "md5": md5(ZIP["good"]), "hashes": "published"}},
    ),
    "404": Fault("(no such file: .*HTTP 404|expected ds/x.h5ad or x.h5ad in it)", spoil=answers(404), **WIRE),
    "410": Fault("(moved or withdrawn.*HTTP 410|in it, found neither)", spoil=answers(410), **WIRE),
    "403": Fault("wants a login.*HTTP 403", spoil=answers(403), via=("address",)),
    "500 for ever": Fault("HTTP 500., 3 times; try again later", spoil=answers(500, 500, 500), via=("address",)),
    "202 for ever": Fault("no file yet .HTTP 202., 3 times; open", spoil=answers(202, 202, 202), via=("address",)),
    "empty": Fault("expected a file, found 0 bytes; nothing was kept", b""),
    "503 for ever": Fault("HTTP 503., 3 times; try again later", spoil=answers(503, 503, 503), via=("address",)),
    "breaks off": Fault("broke off after .* of 2304000 bytes, 3 times; run", spoil=cut, via=("address",), kept=True),
    "packed on its way": Fault("sends it packed .Content-Encoding: (br|gzip).; fetch it with", spoil=coded, **WIRE),
    "closed half way, size known": Fault(
        "broke off after 1500000 of 2304000 bytes, 3 times",
        facts={"bytes": len(BODY)},
        spoil=endless("close", *[1_500_000] * 3),
        via=("address",),
    ),
    "closed half way, in chunks": Fault(
        "broke off .*, 3 times", spoil=endless("chunked", *[1_500_000] * 3), via=("address",)
    ),
    "slow drip": Fault("gave .* bytes in .* s, 3 times; run the comm", spoil=slow, via=("address",), kept=True),
    "no network": Fault("cannot be reached .*Network is unreachable", spoil=unplugged, via=("address",)),
    "disk too small": Fault("needs 2.3 MB, .* has 1.0 kB free", facts={"bytes": len(BODY)}, spoil=full),
    "disk too small, size unknown": Fault("needs 2.3 MB, .* has 1.0 kB free.*EMBBENCH_HOME", spoil=full),
    "archive larger than the disk": Fault("unpacking .*needs 2.3 MB|needs .* kB", ZIP["good"], spoil=full, **ZIP),
    "portal by its type": Fault("expected the file x.h5ad, found a web page", PAGE, spoil=portal, **WIRE),
    "portal by its bytes": Fault("expected the file.*found a web page", PAGE),
    "zip slip": Fault("'../evil' is refused", zipped({"../evil": b"x", "m/a.h5ad": BODY}), **ZIP),
    "zip link": Fault("m/a.h5ad is refused", zipped({"m/a.h5ad": b"/etc/hostname"}, 0o120777 << 16), **ZIP),
    "zip truncated": Fault("expected a whole .* archive, found", ZIP["good"][:-40], **ZIP),
    "zip without the member": Fault("expected m/a.h5ad in the archive, it holds b", zipped({"b": b""}), **ZIP),
    "tar slip": Fault("'../../evil' is refused", tar(("../../evil", REG, b"x"), ("m/a.h5ad", REG, BODY)), **TAR),
    "tar absolute": Fault("'/evil' is refused", tar(("/evil", REG, b"x"), ("m/a.h5ad", REG, BODY)), **TAR),
    "tar slip at the end": Fault("'../evil' is refused", tar(("m/a.h5ad", REG, BODY), ("../evil", REG, b"x")), **TAR),
    "tar link": Fault("m/a.h5ad is refused: .*found a link", tar(("m/a.h5ad", LINK, b"")), **TAR),
    "tar device": Fault("m/a.h5ad is refused: .*or a device", tar(("m/a.h5ad", DEVICE, b"")), **TAR),
    "HDF5, two members": Fault(
        "expected an archive of a, b, found one HDF5 file",
        HDF5,
        "x.zip",
        {"unpack": ("a", "b")},
        good=zipped({"a": b"", "b": b""}),
    ),
    "gzip damaged": Fault("expected a whole gzip file, found .*CRC", FLIPPED, **GZIP),
    "gzip truncated": Fault("expected a whole gzip file", GZIP["good"][:-9], **GZIP),
    "xz damaged": Fault(
        "expected a whole .* archive, found .*LZMAError", XZ["good"][:60_000] + b"!" * 40 + XZ["good"][60_040:], **XZ
    ),
    "zip of xz damaged": Fault("expected a whole .* archive, found .*LZMA", spoilt_zip(), **ZIP),
    "no gzip": Fault("expected a whole gzip file, found 24 bytes", SMALL, **GZIP),
}


@pytest.mark.parametrize(("case", "via"), [(case, via) for case, fault in FAULTS.items() for via in fault.via])
def test_faults(case: str, via: str, world: World, tmp_path: Path) -> None:
    fault = FAULTS[case]
    file = world.file(fault.name, **fault.facts)
    world.publish(fault.name, fault.body)
    with pytest.MonkeyPatch.context() as patch:
        if fault.spoil:
            fault.spoil(world, patch)
        with pytest.raises(UserError, match=f"^ds.*(?:{fault.message})") as caught:
            world.bring(file, via=via)
    assert len(str(caught.value).splitlines()) == 1
    assert "--mirror" in str(caught.value) or "free" in str(caught.value)
    assert not folder_of("ds").exists()
    left = lying()
    assert all(name.startswith(".ds.incoming/.x.h5ad.") and name.endswith(".part") for name in left)
    assert bool(left) is fault.kept
    assert not list(tmp_path.rglob("evil"))
    assert state(folder_of("ds"), [file]) == "not fetched"
    for spoilt in ("busy", "drips", "cuts", "kinds", "codings", "lengthless"):
        getattr(world.site, spoilt).clear()
    world.publish(fault.name, fault.good)  # repaired: it is fetched as if nothing had been
    world.site.asked.clear()
    folder = world.bring(file, via=via)
    assert any(world.site.gets()) is fault.kept, "continued, or begun anew"
    assert lying() == sorted(["ds/fetched.json", *(f"ds/{name}" for name in file.stored)])
    if len(file.stored) == 1:
        assert (folder / file.stored[0]).read_bytes() == BODY


@pytest.fixture
def small_files() -> Iterator[Callable[[], None]]:
    """The kernel refuses files beyond a megabyte, in the middle of a write, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("via", ["address", "mirror"])
@pytest.mark.parametrize("kind", ["plain", "zip", "tar", "gzip"])
def test_a_disk_that_fills_up(kind: str, via: str, world: World, request: pytest.FixtureRequest) -> None:
    how: dict[str, Any] = {"plain": {"good": BODY}, "zip": ZIP, "tar": TAR, "gzip": GZIP}[kind]
    file = world.file(how.get("name", "x.h5ad"), **how.get("facts", {}))
    world.publish(file.name, how["good"])
    limit = request.getfixturevalue("small_files")
    with pytest.raises(UserError, match=r"cannot (write|unpack) .*(File too large|No space left).*; make space"):
        world.bring(file, via=via)
    left = lying()
    if kind == "plain" or via == "mirror":
        assert left == []
        return
    assert [name.endswith(".part") for name in left] == [True], "the transfer that was whole is lost"
    limit()
    world.site.asked.clear()
    folder = world.bring(file, via=via)
    assert world.site.asked == [], "transferred again"
    assert (folder / file.stored[0]).read_bytes() == BODY
    assert lying() == sorted(["ds/fetched.json", f"ds/{file.stored[0]}"])
    assert json.loads((folder / "fetched.json").read_text())["files"][file.stored[0]]["from"].startswith("http")


def test_too_little_space_is_seen_before_unpacking(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = fetched.shutil.disk_usage("/")._replace(free=2_000_000)
    for how, said in ((GZIP, "2.3 MB"), (ZIP, "2.3 MB")):
        file = world.file(how["name"], **how["facts"])
        world.publish(file.name, how["good"])
        with monkeypatch.context() as patch:
            patch.setattr(fetched.shutil, "disk_usage", lambda _: usage)
            with pytest.raises(UserError, match=rf"unpacking http.* needs {said}, .* has 2.0 MB free"):
                world.bring(file)
        assert any(f"unpacking {file.name} into at least {said}" in text for text in world.said)
        world.site.asked.clear()
        assert (world.bring(file) / file.stored[0]).read_bytes() == BODY
        assert world.site.asked == [], "transferred again"


@pytest.mark.parametrize(("lines", "least"), [((BODY,), 2_304_000), ((BODY, b""), 0), ((b"!", BODY), 2_304_000)])
def test_room_that_a_gzip_file_asks_for(lines: tuple[bytes, ...], least: int, tmp_path: Path) -> None:
    """The last four bytes (RFC 1952) are those of the last member; no estimate is above the truth."""
    path = tmp_path / "x.gz"
    path.write_bytes(b"".join(map(gzip.compress, lines)))
    assert least <= unpacking.room(path) <= sum(map(len, lines))
    path.write_bytes(path.read_bytes()[:-4] + b"\xff" * 4)  # damaged: nothing is refused for 4 GB that cannot be
    assert unpacking.room(path) <= 1032 * path.stat().st_size
    path.write_bytes(SMALL)
    assert unpacking.room(path) == 0


def test_a_person_must_fetch_it(world: World) -> None:
    how = "log in at https://portal.example.org and download h1.zip"
    file = DataFile("h1.zip", manual=how, unpack=("h1/train.h5ad",))
    with pytest.raises(UserError, match=rf"ds: h1.zip cannot be fetched by a script; {how}; put it into .*--mirror"):
        world.bring(file)
    with pytest.raises(UserError, match=rf"ds: mirror .*expected ds/h1.zip or h1.zip in it, found neither.*{how}"):
        world.bring(file, via="mirror")
    assert lying() == []
    folder = folder_of("ds")
    folder.mkdir(parents=True)
    (folder / "h1.zip").write_bytes(zipped({"h1/train.h5ad": HDF5}))
    world.bring(file)
    assert (folder / "train.h5ad").read_bytes() == HDF5
    assert lying() == ["ds/fetched.json", "ds/h1.zip", "ds/train.h5ad"]


@pytest.mark.parametrize("via", ["mirror", "mirror address"])
def test_a_mirror_replaces_the_network(via: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish("x.h5ad", BODY)
    (world.mirror / "flat.h5ad").write_bytes(SMALL)
    world.site.files["/m/flat.h5ad"] = SMALL
    files = [DataFile(name, ("http://127.0.0.1:9/x",)) for name in ("x.h5ad", "flat.h5ad")]
    monkeypatch.setenv("EMBBENCH_MIRROR", str(world.mirror) if via == "mirror" else f"{world.site.url}/m")
    folder = world.bring(*files)
    assert (folder / "flat.h5ad").read_bytes() == SMALL
    with pytest.raises(UserError, match=r"ds: mirror .*: expected ds/y.h5ad or y.h5ad in it, found neither"):
        world.bring(*files, DataFile("y.h5ad", ("http://127.0.0.1:9/x",)))
    assert state(folder, [*files, DataFile("y.h5ad")]) == "incomplete: lacks y.h5ad (1 of 3 files)"
    assert lying() == ["ds/fetched.json", "ds/flat.h5ad", "ds/x.h5ad"]


def test_a_licence_is_accepted_once(world: World) -> None:
    world.publish("x.h5ad", BODY)
    terms = {"restricted": "no commercial use"}
    with pytest.raises(UserError, match=r"(?s)licence of its data.*no commercial use.*nothing was fetched.*--accept-l"):
        world.bring(world.file("x.h5ad"), **terms)
    assert world.site.asked == []
    assert lying() == []
    world.bring(world.file("x.h5ad"), **terms, accept=True)
    world.bring(world.file("x.h5ad"), **terms)
    assert licences.accepted("ds", "CC BY 4.0", "no commercial use")


def test_files_placed_by_hand(world: World) -> None:
    file = world.file("x.h5ad", md5=md5(BODY), hashes="published")
    folder = folder_of("ds")
    folder.mkdir(parents=True)
    (folder / "x.h5ad").write_bytes(SMALL)
    with pytest.raises(UserError, match=f"x.h5ad: expected md5 {md5(BODY)} as published, found .*; remove"):
        world.bring(file)
    assert (folder / "x.h5ad").read_bytes() == SMALL, "somebody's own file was touched"
    (folder / "x.h5ad").write_bytes(BODY)
    world.bring(file)
    assert world.site.asked == []
    assert digests(folder, [file]) == {"x.h5ad": sha(BODY)}


@pytest.mark.parametrize("known", [{"md5": md5(BODY)}, {"sha256": sha(BODY)}, {"bytes": len(BODY), "hashes": "record"}])
def test_files_placed_by_hand_are_compared_at_the_first_load(known: dict[str, Any], world: World) -> None:
    file = world.file("x.h5ad", **{"hashes": "published", **known})
    path = folder_of("ds") / "x.h5ad"
    path.parent.mkdir(parents=True)
    path.write_bytes(SMALL)
    with pytest.raises(UserError, match=r"x.h5ad: expected .*, found .*; remove it, then embbench data fetch ds"):
        digests(path.parent, [file])
    assert lying() == ["ds/x.h5ad"], "recorded although it is another"
    path.write_bytes(BODY)
    assert digests(path.parent, [file]) == {"x.h5ad": sha(BODY)}
    world.bring(file)
    assert (world.arrived, world.site.asked) == ([], [])


def test_files_recorded_in_place_are_compared_once_more_is_known(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of("ds")
    folder.mkdir(parents=True)
    (folder / "x.h5ad").write_bytes(SMALL)
    plain, third = world.file("x.h5ad"), world.file("x.h5ad", md5="0" * 32, hashes="third_party")
    assert digests(folder, [plain]) == {"x.h5ad": sha(SMALL)}
    with pytest.raises(UserError, match=f"x.h5ad: expected md5 {md5(BODY)} as published, found {md5(SMALL)}; remove"):
        world.bring(world.file("x.h5ad", md5=md5(BODY), hashes="published"))
    with pytest.warns(UserWarning, match="which a third party noted; kept"):
        digests(folder, [third])
    monkeypatch.setattr(verified, "verified", None)  # compared once; not read again
    assert digests(folder, [third]) == {"x.h5ad": sha(SMALL)}
    packed = world.file("y.zip", unpack=("m/y.h5ad",), sha256=sha(BODY), hashes="published")
    (folder / "y.h5ad").write_bytes(BODY[1:])  # unpacked by hand: nothing to compare with
    assert digests(folder, [packed]) == {"y.h5ad": sha(BODY[1:])}


def test_readers_do_not_load_the_network(tmp_path: Path) -> None:
    (tmp_path / "x.h5ad").write_bytes(SMALL)
    code = (
        "import sys; from pathlib import Path; from embbench.cache.datafiles import DataFile, digests; "
        f"print(digests(Path({str(tmp_path)!r}), [DataFile('x.h5ad')])); assert 'urllib.request' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert sha(SMALL) in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr


# files that end early, and taking back what arrived


def real_hdf5(folder: Path, version: str) -> bytes:
    """A file as the HDF5 library writes it, with its superblock 0, 2 or 3."""
    with h5py.File(folder / "made.h5", "w", libver=(version, version) if version != "earliest" else "earliest") as file:
        file["x"] = np.arange(5000)
    return (folder / "made.h5").read_bytes()


def in_zip(body: bytes) -> bytes:
    return zipped({"a": body})


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("x.h5ad", lambda folder: real_hdf5(folder, "earliest"), r"HDF5 of \d+ bytes by its superblock"),
        ("x.h5ad", lambda folder: real_hdf5(folder, "v108"), "HDF5 of"),
        ("x.h5ad", lambda folder: real_hdf5(folder, "v110"), "HDF5 of"),
        ("x.parquet", lambda _: b"PAR1" + BODY[:5000] + b"PAR1", "Parquet without the mark"),
        ("x.npz", lambda _: in_zip(BODY[:5000]), "a zip archive without the directory"),
        ("x.mtx.gz", lambda _: gzip.compress(BODY[:5000]), ""),
    ],
)
def test_files_that_end_early(name: str, make: Callable[[Path], bytes], why: str, world: World, tmp_path: Path) -> None:
    whole = make(tmp_path)
    world.publish(name, whole)
    world.site.lengthless[f"/d/{name}"] = "close"  # neither the server nor the catalogue says how long it is
    for size in (len(whole) - 1, len(whole) // 2 + 1):
        world.site.cuts[f"/d/{name}"] = [size]
        told = (
            rf"expected a whole file, found {size} bytes that end early \({why}" if why else "a whole gzip file, found"
        )
        with pytest.raises(UserError, match=told):
            world.bring(world.file(name))
        assert lying() == []
    assert (world.bring(world.file(name)) / name).read_bytes() == whole
    (folder_of("by hand")).mkdir()
    (folder_of("by hand") / name).write_bytes(whole[:-1])
    if not why:
        return  # the reader reads it to its end
    with pytest.raises(UserError, match="that end early"):
        digests(folder_of("by hand"), [world.file(name)])


def test_a_gz_that_is_labelled_as_packed_is_taken_as_it_is(world: World) -> None:
    world.publish("x.mtx.gz", gzip.compress(SMALL))
    world.site.codings["/d/x.mtx.gz"] = "x-gzip"
    assert (world.bring(world.file("x.mtx.gz", unpack="gzip")) / "x.mtx").read_bytes() == SMALL


def test_what_a_reader_refuses_is_taken_back(world: World) -> None:
    files = (
        world.file("cut.csv"),
        world.file("sub/cut.csv"),
        world.file("good.h5ad", md5=md5(BODY), hashes="published"),
        world.file("noted.h5ad", md5=md5(BODY), hashes="third_party"),
        world.file("other.h5ad", md5=md5(SMALL), hashes="third_party"),
    )
    for file in files:
        world.publish(file.name, BODY)
    folder = world.bring(files[0])
    assert world.arrived == ["cut.csv"]
    assert withdraw("ds", folder, world.arrived) == ["cut.csv"]
    assert lying() == []
    assert not folder.exists()
    world.bring(*files)
    assert world.arrived == sorted(file.name for file in files)
    assert withdraw("ds", folder, world.arrived) == ["cut.csv", "other.h5ad", "sub/cut.csv"]
    assert lying() == ["ds/fetched.json", "ds/good.h5ad", "ds/noted.h5ad"]
    assert not (folder / "sub").exists()
    world.publish("cut.csv", SMALL)  # the source is mended: nothing remembers the file that was refused
    assert (world.bring(*files) / "cut.csv").read_bytes() == SMALL
    assert world.arrived == ["cut.csv", "other.h5ad", "sub/cut.csv"]


# the same file in two datasets


@pytest.mark.parametrize(
    ("first", "second", "linked"),
    [
        ({}, {"md5": md5(BODY), "hashes": "published"}, True),
        ({}, {"sha256": sha(BODY), "hashes": "third_party", "bytes": len(BODY)}, True),
        ({}, {}, True),  # the same address
        ({}, {"urls": ("http://127.0.0.1:9/d/x.h5ad",)}, False),
        ({}, {"md5": md5(SMALL), "hashes": "published", "urls": ("http://127.0.0.1:9/x",)}, False),
        ({}, {"md5": md5(SMALL), "hashes": "third_party", "urls": ("http://127.0.0.1:9/x",)}, False),
        ({}, {"bytes": 7, "urls": ("http://127.0.0.1:9/x",)}, False),
        (
            {"unpack": ("m/x.h5ad",)},
            {"md5": md5(BODY), "hashes": "published", "urls": ("http://127.0.0.1:9/x",)},
            False,
        ),
    ],
)
def test_a_file_of_another_dataset_is_linked(
    first: dict[str, Any], second: dict[str, Any], linked: bool, world: World
) -> None:
    name = "x.zip" if first else "x.h5ad"
    world.publish(name, ZIP["good"].replace(b"m/a.h5ad", b"m/x.h5ad") if first else BODY)
    one = world.bring(world.file(name, **first), into="one") / "x.h5ad"
    (folder_of("broken")).mkdir()
    (folder_of("broken") / "fetched.json").write_text("{")
    world.site.asked.clear()
    file = replace(world.file("x.h5ad"), **second)
    if not linked:
        with pytest.raises(UserError, match="cannot be reached"):
            world.bring(file)
        assert [each for each in lying() if each.startswith(("ds", ".ds"))] == []
        return
    two = world.bring(file) / "x.h5ad"
    assert world.site.asked == []
    assert two.samefile(one)
    assert any("x.h5ad lies in" in text and "linked, not fetched" in text for text in world.said)
    assert world.arrived == ["x.h5ad"]
    one.unlink()
    assert digests(two.parent, [file]) == {"x.h5ad": sha(BODY)}


def test_a_file_of_another_dataset_that_changed_or_cannot_be_linked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    world.publish("x.h5ad", BODY)
    one = world.bring(world.file("x.h5ad"), into="one") / "x.h5ad"
    one.write_bytes(BODY[::-1])
    world.site.asked.clear()
    assert (world.bring(world.file("x.h5ad"), into="two") / "x.h5ad").read_bytes() == BODY
    assert len(world.site.gets()) == 1, "taken from a folder whose file changed"
    monkeypatch.setattr(fetching.os, "link", refuse)
    three = world.bring(world.file("x.h5ad", md5=md5(BODY), hashes="published"), into="three") / "x.h5ad"
    assert three.read_bytes() == BODY
    assert not three.samefile(folder_of("two") / "x.h5ad")
    assert len(world.site.gets()) == 1, "fetched although it was there to copy"
    world.bring(world.file("x.h5ad"), into="four", mirror=str(world.mirror / "ds"))
    assert any("copying x.h5ad" in text and str(world.mirror) in text for text in world.said), (
        "a mirror replaces addresses: where a file came from says nothing"
    )


def _fetch(url: str, start: Any) -> None:
    start.wait(30)
    datafiles.bring("ds", folder_of("ds"), [DataFile("x.h5ad", (url,))], licence="", say=print, progress=print)


def test_two_processes_fetch_once(world: World) -> None:
    world.publish("x.h5ad", BODY)
    world.site.pause = 0.3  # the second process arrives meanwhile
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    both = [context.Process(target=_fetch, args=(f"{world.site.url}/d/x.h5ad", start)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(world.site.gets()) == 1


# what a registry says


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": "a", "size": 3}, "'a': unknown field size; known: name, urls"),
        ({"urls": ["https://a.org/x"]}, "every file needs a name"),
        ({"name": "../a"}, "refused"),
        ({"name": "./a"}, "must be plain"),
        ({"name": "fetched.json"}, "must be plain.*not fetched.json"),
        ({"name": "a", "md5": "12"}, "md5 must be 32 hex digits, got '12'"),
        ({"name": "a", "md5": 10**31, "hashes": "published"}, "md5 must be text, got 10+: put it in quotes"),
        ({"name": "a", "sha256": int("1" * 64), "hashes": "third_party"}, "sha256 must be text, got 1+: put"),
        ({"name": "a", "md5": "0" * 32}, "hashes must be published or third_party with .*got 'record'"),
        ({"name": "a", "hashes": "published"}, "hashes must be"),
        ({"name": "a", "hashes": "host"}, "got 'host'"),
        ({"name": "a", "bytes": -1}, "bytes must be a whole number"),
        ({"name": "a", "bytes": "3 GB"}, "bytes must be a whole number"),
        ({"name": "a", "unpack": "zip"}, "unpack must be gzip or names of members, got 'zip'"),
        ({"name": "a", "unpack": "gzip"}, "the name must end in .gz"),
        ({"name": "a", "unpack": ["../x"]}, "refused"),
        ({"name": "a", "unpack": {"x": "../y"}}, "refused"),
        ({"name": "a", "urls": ["ftp://a.org/x"]}, "must begin with http"),
        ({"name": "a", "unpack": ["b/x", "c/x"]}, "x would be stored more than once"),
    ],
)
def test_records_that_are_none(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        records([raw])


@pytest.mark.parametrize("raw", ["a", {"name": "a"}, ["a.h5ad"], [{"name": "a"}, 3], None, 7])
def test_records_that_are_no_list(raw: Any) -> None:
    with pytest.raises(ValueError, match="files: expected a list of records, each with a name, found "):
        records(raw)


def test_parts_sizes_and_states(fresh_home: Path) -> None:
    raw = [{"name": f"{line}.h5ad", "part": line, "bytes": 5, "urls": "https://a.org/x"} for line in ("k562", "rpe1")]
    files = records([*raw, {"name": "genes.tsv"}])
    assert files[0].urls == ("https://a.org/x",)
    assert announced(files) == (10, 1)
    assert [f.name for f in chosen(files, "rpe1")] == ["rpe1.h5ad", "genes.tsv"]
    assert chosen(files, None) == files
    with pytest.raises(UserError, match="no part 'hepg2'; known: k562, rpe1"):
        chosen(files, "hepg2")
    with pytest.raises(UserError, match="it has no parts"):
        chosen(files[2:], "k562")
    folder = folder_of("ds")
    with pytest.raises(UserError, match=r"ds is not fetched .*: embbench data fetch ds$"):
        require("ds", folder, files)
    with pytest.raises(UserError, match=r"embbench data fetch ds --only k562$"):
        digests(folder, chosen(files, "k562"))
    assert list(fresh_home.iterdir()) == [], "asking created something"
    folder.mkdir(parents=True)
    (folder / "genes.tsv").write_bytes(SMALL)
    with pytest.raises(UserError, match=r"ds is incomplete: lacks k562.h5ad, rpe1.h5ad \(2 of 3 files\)"):
        require("ds", folder, files)
    require("ds", folder, files[2:])
    assert digests(folder, files[2:]) == {"genes.tsv": sha(SMALL)}
