"""Pickles that would crash, exhaust or fool an unpickler: refused in words, in a process of their own."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import time
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embbench.cache.opcodes import scan
from embbench.cache.pickles import read_pickle, read_torch
from embbench.core import UserError

VOCABULARIES = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "vocab"
DEEP = 1_000_000
ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"  # an array before its state
KEY: dict[str, bytes] = {  # )t: ever deeper tuples, as the key of a dict
    "tuple": b"\x85" * DEEP,
    "remembered": b"q\x010h\x01\x85" * DEEP,
    "built": b"\x85Nb" * DEEP,
    "appended": b"\x85(e" * DEEP,
    "added": b"\x85(\x90" * DEEP,
    "set": b"\x85(u" * DEEP,
    "shared": b"2\x86" * 60,
}
CASES: dict[str, tuple[bytes, str]] = {
    **{f"key {name}": (b"\x80\x02})" + steps + b"K\x01s.", "nested|entries") for name, steps in KEY.items()},
    "memo": (b"\x80\x02}r\xff\xff\xff\x7f.", "memo slot 2147483647"),
    "memo in words": (b"}p99999999999999\n.", "memo slot 99999999999999"),
    "zeros": (b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85R.", "1099511627776"),
    "long bytes": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "cut short"),
    "long text": (b"\x80\x02T\xff\xff\xff\xff.", "cut short"),
    "long frame": (b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.", "cut short"),
    "no end": (b"\x80\x02N", "found the end after 2"),
    "empty": (b"\x80\x02.", "unreadable"),
    "no mark": (b"\x80\x02u.", "unreadable"),
    "extension": (b"\x80\x02\x82\x01.", "x82"),
    "storage": (b"\x80\x02K\x01Q.", "outside the file"),
    "dtype": (
        b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR(K\x03NNNNJ\xff\xff\xff\x7fJ\xff\xff\xff\x7fK?tb.",
        "",
    ),
    "void": (b"\x80\x02cnumpy\ndtype\n(X\x03\x00\x00\x00V16K\x00K\x01tR.", "numpy type 'V16'"),
    "array without state": (b"\x80\x02" + ARRAY + b".", "unreadable"),
    "array of nothing": (b"\x80\x02" + ARRAY + b"(K\x01K\x05\x85N\x89C\x00tb.", "unreadable"),
    "long name": (b"\x80\x02c" + b"a" * 10**6 + b"\nb\n.", "data never needs|aaaa"),
}
READ = """
import sys
from pathlib import Path
from embbench.core import UserError
from embbench.cache.pickles import read_pickle
for path in sorted(Path(sys.argv[1]).glob("*.pkl")):
    try:
        read_pickle(path)
        print(path.name, "read")
    except UserError as error:
        print(str(error))
"""


def outcomes(folder: Path) -> list[str]:
    """One line for each ``.pkl`` of the folder, read in another process, which must survive them all."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-300:], done.stderr[-2000:])
    return done.stdout.splitlines()


def test_no_pickle_takes_the_process_down(tmp_path: Path) -> None:
    for i, (content, _) in enumerate(CASES.values()):
        (tmp_path / f"{i:02d}.pkl").write_bytes(content)
    lines = dict(zip(CASES, outcomes(tmp_path), strict=True))
    for i, (name, (_, says)) in enumerate(CASES.items()):
        line = lines[name].replace(str(tmp_path), "")
        if name == "dtype":  # no array is made of it: numpy's own __setstate__ never sees the made-up state
            continue
        assert f"{i:02d}.pkl: expected a pickle" in line, (name, line)
        assert any(word in line for word in says.split("|")), (name, line)
        assert len(line) < 500, name


def arrays() -> dict[str, Any]:
    return {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.eye(3, dtype=np.int16)),
        "names": np.array(["TP53", "MYC"]),
        "objects": np.array(["u", None, (1, 2)], dtype=object),
        np.str_("key"): (np.float32(1.5), np.int16(3), np.bool_(True)),
        "set": {np.int64(1), "x"},
        "raw": [b"x" * 300, bytearray(b"abc"), b"", bytearray()],
        "zero": np.zeros((0, 4), dtype=">f4"),
        "one": np.array(2.5),
    }


def test_changed_bytes_in_pickles_of_arrays(tmp_path: Path) -> None:
    """Fuzzed as numpy's own rebuilding does not survive (it crashes on made-up states of dtypes and arrays)."""
    rng = np.random.default_rng(0)
    for i in range(1500):
        content = bytearray(pickle.dumps(arrays(), protocol=int(rng.integers(0, 6))))
        for at in rng.integers(0, len(content), size=int(rng.integers(1, 4))):
            content[at] = rng.integers(0, 256)
        (tmp_path / f"{i:04d}.pkl").write_bytes(content)
    lines = outcomes(tmp_path)
    assert len(lines) == 1500
    assert 100 < sum(line.endswith(" read") for line in lines) < 1400


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_as_they_were(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(arrays(), protocol=protocol))
    found, expected = read_pickle(path), arrays()
    assert list(found) == list(expected)
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[key], value)
            assert found[key].dtype == value.dtype.newbyteorder("=")
        else:
            assert found[key] == value
            assert set(map(type, found[key])) == set(map(type, value))
    assert {type(key) for key in found} == {str, np.str_}


def test_dict_subclasses_cycles_and_what_follows_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    ring: list[Any] = [1.5]
    ring.append(ring)
    path.write_bytes(pickle.dumps({"o": OrderedDict(a=1), "ring": ring, "pair": [ring, ring]}) + b"more")
    found = read_pickle(path)
    assert found["o"] == {"a": 1}
    assert found["ring"][1] is found["ring"] is found["pair"][0] is found["pair"][1]
    path.write_bytes(pickle.dumps(defaultdict(list, a=1)))
    with pytest.raises(UserError, match=r"builtins\.list, which data never needs"):
        read_pickle(path)


def frame(body: bytes, length: int | None = None) -> bytes:
    return b"\x95" + struct.pack("<Q", len(body) if length is None else length) + body


@pytest.mark.parametrize(
    "data",
    [
        frame(b"N\x8c", 2) + b"\x01x.",  # text begun in one frame
        frame(b"X\x05\x00", 3) + b"\x00\x00.....N.",  # C reads the length anew behind the frame, Python goes on
        frame(b"N" + frame(b"0")) + b".",
        frame(b"G" * 10, 10) + b"G" * 20 + b".",
    ],
)
def test_frames_hold_whole_opcodes(data: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match="cut short"):
        scan(b"\x80\x04" + data)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_walk_ends_where_pickles_end(protocol: int) -> None:
    rng = np.random.default_rng(protocol)
    for size in (0, 1, 2, 1023, 1024, 1025, 9000):
        content = {"v": rng.normal(size=size).tolist(), "n": [2**i for i in range(0, 70, 7)], "t": "x" * size * 20}
        data = pickle.dumps([content, arrays()], protocol=protocol)
        assert scan(data) == len(data)
        assert scan(b"xyz" + data + b"junk", 3) == len(data) + 3
        for cut in rng.integers(0, len(data) - 1, size=5).tolist():
            with pytest.raises((pickle.UnpicklingError, LookupError, ValueError)):
                scan(data[:cut])


def test_torch_files_are_looked_at_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for data in (b"\x80\x02})" + b"\x85" * DEEP + b"K\x01s.", b"\x80\x02})" + b"\x85Nb" * DEEP + b"K\x01s."):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.pt: expected a torch file.*nested"):
            read_torch(path)
    torch.save({"TP53": Path("x")}, path)
    with pytest.raises(UserError, match=r"expected tensors alone, found pathlib\.\w*Path; nothing of it") as caught:
        read_torch(path)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_of_vectors_are_read_fast(tmp_path: Path) -> None:
    """2,000 vectors of 1,536 numbers as lists: 1/16 of GenePT; 15 s for all of it."""
    path = tmp_path / "a.pkl"
    content = {f"GENE{i}": [float(i)] * 768 + np.linspace(0, 1, 768).tolist() for i in range(2000)}
    path.write_bytes(pickle.dumps(content))
    start = time.process_time()
    assert read_pickle(path) == content
    assert time.process_time() - start < 4


@pytest.mark.shared
def test_geneformer_dictionaries() -> None:
    found = sorted(VOCABULARIES.glob("*.pkl"))
    if not found:
        pytest.skip("no Geneformer dictionaries in the shared data")
    for path in found:
        expected = pickle.loads(path.read_bytes())
        start = time.process_time()
        again = read_pickle(path)
        assert time.process_time() - start < 3, path.name  # 0.1 to 0.6 s on an idle core
        assert again == expected
        assert list(map(type, again.values())) == list(map(type, expected.values()))
