"""Checkpoint files as they should be, and as they are when a download went wrong or somebody means harm."""

from __future__ import annotations

import argparse
import collections
import enum
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from embbench.cache.inert import Placeholder
from embbench.cache.pickles import read_pickle
from embbench.core import UserError
from embbench.embeddings.models._checkpoint import Tensors, find_file, present, read_json, read_lightning, read_state
from embbench.embeddings.models._lightning import read_parts

pytestmark = [
    pytest.mark.filterwarnings("ignore:Detected pickle protocol"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]
SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([0.5, -1.0])}


class Bomb:
    """Leaves a file in the working folder when it is unpickled as pickles are."""

    def __init__(self, function: Callable[..., Any] = os.system, *args: Any) -> None:
        self.call = function, args or ("echo > ran.txt",)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Activation(enum.Enum):
    """A class that checkpoints of others might hold."""

    RELU = 1


class Options(dict):
    """As Lightning's AttributeDict."""


class Settings:
    """An instance whose ``__setstate__`` must not be called."""

    def __init__(self) -> None:
        self.width = 7

    def __setstate__(self, state: object) -> None:
        Path("ran.txt").write_text("setstate")


def saved(content: object, *, zipped: bool = True) -> Callable[[Path], None]:
    """torch.save of it, in the format of today or of before 1.6."""
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=zipped)


def written(content: bytes | str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def cut(make: Callable[[Path], object], keep: float) -> Callable[[Path], None]:
    """The first part of a file, as after a broken download."""

    def write(path: Path) -> None:
        make(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])

    return write


def safe(tensors: dict[str, torch.Tensor]) -> Callable[[Path], None]:
    return lambda path: save_file(tensors, path)


def archive(data: bytes, method: int = zipfile.ZIP_STORED, **members: bytes) -> Callable[[Path], None]:
    """A zip file as torch writes it, with that pickle in it."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as file:
            for name, content in {"data.pkl": data, "version": b"3\n", "byteorder": b"little", **members}.items():
                file.writestr(f"x/{name}", content)

    return write


def pickled(content: object) -> bytes:
    return pickle.dumps(content, protocol=2)


def storage(count: int, size: tuple[int, ...], stride: tuple[int, ...], kind: str = "FloatStorage") -> bytes:
    """A pickle of ``{"state_dict": {"w": tensor}}`` whose storage says to have that many numbers."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            return ("storage", getattr(torch, kind), "0", "cpu", count) if thing == "here" else None

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, ("here", 0, size, stride, False, collections.OrderedDict())

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump({"state_dict": {"w": Tensor()}, "hyper_parameters": {"x": Settings()}})
    return stream.getvalue()


def header(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b\nsize 12345\n"
)
PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
EVERYWHERE: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "found a folder"),
    "empty": (written(b""), "empty"),
    "pointer": (written(POINTER), "git lfs pull"),
    "page": (written(PAGE), "web page"),
    "text": (written("just a note\n"), "expected (a|JSON)"),
    "noise": (written(bytes(range(250, 100, -1)) * 20), "expected (a|JSON)"),
}
MEMO = b"\x80\x02}r\xff\xff\xff\x7f."  # one dict, to be remembered in slot 2**31 - 1
DEEP = b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s."  # a dict with a key that nothing can hash
SHARING = b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s."  # (t, t) of (t, t) ...: 2**60 steps to hash it
ENDLESS = b"]" + b"q\x010](h\x01h\x01e" * 60  # [t, t] of [t, t] ...: 2**60 words to show it
LISTS = b"\x80\x02}X\x0a\x00\x00\x00state_dict" + b"]" * 20_000 + b"a" * 19_999 + b"s."
TORCH: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (cut(saved(WEIGHTS), 0.6), "cut short"),
    "cut old": (cut(saved(WEIGHTS, zipped=False), 0.3), "unreadable"),
    "cut old in numbers": (cut(saved({"w": torch.ones(99)}, zipped=False), 0.8), "unreadable"),
    "list": (saved([torch.ones(2)]), "found a list of 1"),
    "tensor": (saved(torch.ones(2)), "found a Tensor"),
    "no tensors": (saved({}), "found an empty dict"),
    "nested": (saved({"model": WEIGHTS, "epoch": 3}), "'model'"),
    "numbers": (saved({"weight": 3.5}), "3.5"),
    "huge number": (saved({10**5000: 3.5}), "found int: 3.5|unreadable"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "unreadable"),
    "zip of another kind": (lambda path: np.savez(path.open("wb"), a=np.ones(2)), "0 data.pkl"),
    "program": (lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path), "TorchScript"),
    "compressed": (archive(pickled({"a": 1}), zipfile.ZIP_DEFLATED, big=bytes(10**7)), "compressed"),
    "memo": (archive(MEMO), "memo slot 2147483647"),
    "memo, old": (written(MEMO), "memo slot 2147483647"),
    "long bytes": (archive(b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00."), "unreadable"),
    "deep key": (archive(DEEP), "nested"),
    "deep key, old": (written(DEEP), "nested"),
    "shared key": (archive(SHARING), "nested 61 deep|entries"),
    "extension": (archive(b"\x80\x02\x82\x01."), "x82"),
    "no mark": (archive(b"\x80\x02}u."), "unreadable"),
    "no stack": (archive(b"\x80\x02u."), "unreadable"),
    "big-endian": (archive(pickled({}), byteorder=b"big"), "big-endian"),
}
BOMBS: dict[str, object] = {
    "system": Bomb(),
    "exec": Bomb(exec, "open('ran.txt', 'w')"),
    "eval": Bomb(eval, "open('ran.txt', 'w')"),
    "open": Bomb(open, "ran.txt", "w"),
}
SAFE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (cut(safe(WEIGHTS), 0.8), "unreadable"),
    "cut in its header": (cut(safe(WEIGHTS), 0.1), "unreadable"),
    "huge header": (written(struct.pack("<Q", 2**62) + b"{}"), "unreadable"),
    "torch file": (saved(WEIGHTS), "unreadable"),
    "huge shape": (
        written(header('{"w": {"dtype": "F32", "shape": [4294967296, 1024], "data_offsets": [0, 8]}}') + bytes(8)),
        "unreadable",
    ),
    "overlap": (
        written(header('{"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}') + bytes(8)),
        "unreadable",
    ),
    "empty dict": (written(header("{}")), "empty dict"),
}


def refused(call: Callable[[], object], path: Path, says: str) -> str:
    """The message of the UserError, which must be short, name the file and leave nothing behind."""
    with pytest.raises(UserError, match=f"(?s).*({says})") as caught:
        call()
    message = str(caught.value)
    assert str(path) in message
    assert len(message.replace(str(path), "")) < 400, message
    assert "\n" not in message
    assert "weights_only" not in message
    assert not Path("ran.txt").exists()
    return message


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.ckpt", "w.torch", "w.safetensors", "w.json"])
@pytest.mark.parametrize("case", EVERYWHERE)
def test_no_checkpoint_at_all(case: str, name: str, tmp_path: Path) -> None:
    make, says = EVERYWHERE[case]
    make(tmp_path / name)
    refused(lambda: (read_json if name == "w.json" else read_state)(tmp_path / name), tmp_path / name, says)
    if name == "w.ckpt":
        refused(lambda: read_lightning(tmp_path / name), tmp_path / name, says)


@pytest.mark.parametrize("case", TORCH)
def test_torch_files_that_are_none(case: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    make, says = TORCH[case]
    make(path)
    refused(lambda: read_state(path), path, says)
    refused(lambda: read_lightning(path), path, "")


def test_lists_nested_deeper_than_python_recurses(tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    archive(LISTS)(path)
    refused(lambda: read_state(path), path, "found 'state_dict': a list")
    refused(lambda: read_parts(path, ["state_dict"]), path, "recursion")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", BOMBS)
def test_bombs_do_not_go_off(case: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    for content in (BOMBS[case], {**WEIGHTS, "b": BOMBS[case]}, {"state_dict": WEIGHTS, "callbacks": BOMBS[case]}):
        saved(content, zipped=zipped)(path)
        refused(lambda: read_state(path), path, "expected tensors alone, found")
        refused(lambda: read_lightning(path), path, "runs code" if zipped else "before 1.6")
        path.with_suffix(".pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=r"w\.pkl.*data never needs"):
            read_pickle(path.with_suffix(".pkl"))
    assert not Path("ran.txt").exists()


@pytest.mark.parametrize(
    ("function", "args"),
    [(bytearray, (2**40,)), (np.ndarray, ((2**40,),)), (torch.Size, (["a"],)), (np.dtype, ("no such type",))],
)
def test_harmless_names_with_harmful_arguments(function: Any, args: tuple[Any, ...], tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    saved({"state_dict": WEIGHTS, "hyper_parameters": {"s": Settings(), "b": Bomb(function, *args)}})(path)
    if function is np.ndarray:
        message = refused(lambda: read_lightning(path), path, "not callable")
    else:
        message = refused(lambda: read_lightning(path), path, "refused or unreadable")
    assert "w.ckpt" in message


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (storage(2**50, (2,), (1,)), "1125899906842624 torch.float32 in 8 bytes"),
        (storage(1, (2,), (1,)), "1 torch.float32 in 8 bytes"),
        (storage(2, (3,), (1,)), "out of bounds"),
        (storage(2, (-1,), (1,)), "unreadable"),
        (storage(2, (2,), (1,), "ComplexFloatStorage"), "unknown storage"),
        (b"\x80\x02" + ENDLESS + b"Q.", "found a list in the place of a storage"),
        (b"\x80\x02(U\x07storage" + ENDLESS + b"U\x010U\x03cpuK\x01tQ.", "a storage named by"),
    ],
)
def test_storages_are_compared_with_the_archive(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    archive(data, zipfile.ZIP_STORED, **{"data/0": struct.pack("<ff", 1.5, 2.5)})(path)
    refused(lambda: read_lightning(path), path, says)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    saved({"state_dict": {"w": torch.full((8,), 1.25)}, "hyper_parameters": {"s": Settings()}})(path)
    number = struct.pack("<f", 1.25)
    assert path.read_bytes().count(number * 8) == 1
    path.write_bytes(path.read_bytes().replace(number * 8, number * 7 + struct.pack("<f", 1.5)))
    refused(lambda: read_lightning(path), path, "CRC")


def test_tensors_that_say_to_be_larger_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    saved({"w": torch.ones(1).expand(2**40)})(path)
    refused(lambda: Tensors("tiny", path, read_state(path)).take("w", None), path, "fewer numbers in the file")


@pytest.mark.parametrize("case", SAFE)
def test_safetensors_files_that_are_none(case: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    make, says = SAFE[case]
    make(path)
    refused(lambda: read_state(path), path, says)


def test_safetensors_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    safe(WEIGHTS)(path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    refused(lambda: read_state(path), path, "pip install safetensors")


@pytest.mark.parametrize("name", ["w.h5", "w", "w.json"])
def test_unknown_suffixes(name: str, tmp_path: Path) -> None:
    saved(WEIGHTS)(tmp_path / name)
    refused(lambda: read_state(tmp_path / name), tmp_path / name, "expected a checkpoint")


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.ckpt", "w.torch", "w.PT", "w.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_come_back(name: str, zipped: bool, tmp_path: Path) -> None:
    content = {**WEIGHTS, "half": torch.tensor([1.5], dtype=torch.bfloat16), "steps": torch.tensor(3)}
    (safe(content) if name.endswith("safetensors") else saved(content, zipped=zipped))(tmp_path / name)
    found = read_state(tmp_path / name)
    assert found.keys() == content.keys()
    for key, tensor in content.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor)


def test_modules_come_back_as_torch_saves_them(tmp_path: Path) -> None:
    """OrderedDict with version numbers, parameters, shared and sliced storages, nothing in a buffer."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = module.state_dict(keep_vars=True)
    whole = torch.arange(12.0).reshape(3, 4)
    state |= {"slice": whole[1:, ::2], "turned": whole.T, "again": whole, "none": torch.empty(0, 3)}
    torch.save({"state_dict": state, "hyper_parameters": {"x": Settings()}}, tmp_path / "w.ckpt")
    found, _ = read_lightning(tmp_path / "w.ckpt")
    expected = torch.load(tmp_path / "w.ckpt", weights_only=False, pickle_module=pickle)["state_dict"]
    Path("ran.txt").unlink()  # the proof that torch did call __setstate__
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor)
        assert found[key].dtype == tensor.dtype
    assert found["again"].data_ptr() == found["turned"].data_ptr()


HYPER: dict[str, Any] = {
    "genes": ["KLF1", "GATA1"],
    "classes": {"cell": 3, ("a", 1): {"x", "y"}},
    "array": np.arange(6, dtype=np.int32).reshape(2, 3),
    "names": np.array(["a", "b"], dtype=object),
    "scalar": np.float64(0.1),
    "words": np.array([["KLF1", "É"], ["", "z"]]),
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "swapped": np.arange(3, dtype=">i2"),
    "objects": np.array([[1, "a"], [None, [2]]], dtype=object),
    "lists": np.array([[1, 2], [3], None], dtype=object)[:2],
    "no numbers": np.empty((0, 2), dtype=np.float32),
    "table": torch.arange(3.0),
    "raw": bytearray(b"abc"),
    "none": None,
    "complex": 1j,
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_hyper_parameters_come_back_and_classes_stay_inert(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    options = Options(width=4, inner=argparse.Namespace(depth=2))
    odd: dict[str, Any] = {"e": Activation.RELU, "s": Settings(), "o": options, "c": Settings, "p": Path("a") / "b"}
    odd["f"] = collections.defaultdict(list, {"k": [1]})
    odd["self"] = [1]
    odd["self"].append(odd["self"])
    content = {"state_dict": WEIGHTS, "optimizer_states": [{"m": Settings()}], "hyper_parameters": {**HYPER, **odd}}
    torch.save(content, path, pickle_protocol=protocol)
    state, found = read_lightning(path)
    assert all(torch.equal(state[key], WEIGHTS[key]) for key in WEIGHTS)
    for key in [key for key, value in HYPER.items() if isinstance(value, np.ndarray)]:
        np.testing.assert_array_equal(
            found.pop(key), HYPER[key].astype(HYPER[key].dtype.newbyteorder("=")), strict=True
        )
    assert torch.equal(found.pop("table"), HYPER["table"])
    assert {key: found[key] for key in HYPER if key in found} == {key: HYPER[key] for key in HYPER if key in found}
    assert found["o"] == {"width": 4, "inner": {"depth": 2}}
    assert type(found["o"]) is dict
    assert found["f"] == {"k": [1]}
    assert isinstance(found["s"], Placeholder)
    assert found["s"].state == {"width": 7}
    assert found["s"].name == found["c"].name == f"{__name__}.Settings"
    assert found["e"].args == (1,)
    assert found["self"][1] is found["self"]
    assert not Path("ran.txt").exists()


@pytest.mark.parametrize(
    "given", [Options(width=4), argparse.Namespace(width=4), collections.OrderedDict(width=4), {"width": 4}]
)
def test_hyper_parameters_of_every_kind(given: object, tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "hyper_parameters": given}, tmp_path / "w.ckpt")
    assert read_lightning(tmp_path / "w.ckpt")[1] == {"width": 4}


def test_hyper_parameters_may_be_absent_but_not_odd(tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    saved({"state_dict": WEIGHTS})(path)
    assert read_lightning(path)[1] == {}
    for odd in ([1], Settings()):
        saved({"state_dict": WEIGHTS, "hyper_parameters": odd})(path)
        refused(lambda: read_lightning(path), path, "expected hyper_parameters as a dict")
    saved(WEIGHTS)(path)
    refused(lambda: read_lightning(path), path, "with 'state_dict', found a dict of 'a.weight'")
    for state in (Settings(), {"w": Settings()}, {"w": Settings}, None):
        saved({"state_dict": state, "x": Settings()})(path)
        refused(lambda: read_lightning(path), path, "expected a flat dict of tensors")


class Shadowed(collections.OrderedDict):
    """Pickled as the OrderedDict of its items, given the attributes ``items``, ``keys`` and ``get``."""

    def __reduce__(self) -> tuple[Any, ...]:
        names = {"items": 3, "keys": 3, "get": 3}
        return collections.OrderedDict, (), names, None, iter(list(dict.items(self)))


@pytest.mark.parametrize("extra", [{}, {"x": Settings()}])
def test_a_dict_cannot_shadow_its_methods(extra: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    inner = {"state_dict": Shadowed(WEIGHTS), "hyper_parameters": Shadowed(width=1)}
    saved(Shadowed(inner, **extra))(path)
    state, given = read_lightning(path)
    assert list(state) == list(WEIGHTS)
    assert given == {"width": 1}
    saved(Shadowed(WEIGHTS))(path)
    assert list(read_state(path)) == list(WEIGHTS)


@pytest.mark.shared
def test_the_scprint_fixture(tmp_path: Path) -> None:
    path = SHARED / "oracles" / "scprint" / "checkpoint" / "tiny-v1.ckpt"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the shared data")
    official = torch.load(path, weights_only=True)
    state, given = read_lightning(path)
    inert = read_parts(path, ["state_dict", "hyper_parameters"])
    assert given == inert["hyper_parameters"] == official["hyper_parameters"]
    assert len(given["genes"]) == 180
    assert state.keys() == inert["state_dict"].keys() == official["state_dict"].keys()
    for key, tensor in official["state_dict"].items():
        assert torch.equal(state[key], tensor)
        assert torch.equal(inert["state_dict"][key], tensor)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "expected JSON"),
        ("[1]", "found a list of 1"),
        ("3", "found 3"),
        (b"\xff\xfe\x00", "expected JSON"),
        ("[" * 9**5, ""),
    ],
)
def test_json_files(content: bytes | str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    written(content)(path)
    refused(lambda: read_json(path), path, says)
    written('{"width": 3}')(path)
    assert read_json(path) == {"width": 3}


def shards(folder: Path, places: object = None, tensors: tuple[str, ...] = ("a.weight", "a.bias")) -> Path:
    """A checkpoint in two files and its index."""
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for key, name in zip(tensors, names, strict=False):
        save_file({key: WEIGHTS[key]}, folder / name)
    index = folder / "model.safetensors.index.json"
    places = dict(zip(WEIGHTS, names, strict=True)) if places is None else places
    index.write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": places}))
    return index


def test_sharded_checkpoints(tmp_path: Path) -> None:
    index = shards(tmp_path)
    found = read_state(index)
    assert all(torch.equal(found[key], WEIGHTS[key]) for key in WEIGHTS)
    files = present(tmp_path, ["config.json", "model.safetensors", index.name])
    assert [path.name[:11] for path in files] == ["model.safet", "model-00001", "model-00002"]


@pytest.mark.parametrize(
    ("places", "tensors", "says"),
    [
        (None, ("a.weight",), "1 of 2 files are missing: 'model-00002"),
        ({"a.weight": "../secret.safetensors"}, (), "names of files beside it"),
        ({"a.weight": "model.safetensors.index.json"}, (), "names of files beside it"),
        ({"a.weight": 3}, (), "expected weight_map"),
        ([], (), "expected weight_map"),
        ({"a.weight": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}, None, "'b'"),
        ({"b": "model-00001-of-00002.safetensors"}, None, "does not place 'a.weight'"),
    ],
)
def test_sharded_checkpoints_that_are_incomplete(
    places: object, tensors: tuple[str, ...] | None, says: str, tmp_path: Path
) -> None:
    index = shards(tmp_path, places, ("a.weight",) if tensors is None else tensors)
    refused(lambda: read_state(index), tmp_path, says)
    assert index in present(tmp_path, [index.name])


def test_files_are_found_in_order(tmp_path: Path) -> None:
    names = ["model.safetensors", "pytorch_model.bin"]
    refused(
        lambda: find_file(tmp_path, names, "Tiny"), tmp_path, "none of model.safetensors.*holds nothing.*is it Tiny"
    )
    refused(lambda: find_file(tmp_path / "no", names, "Tiny"), tmp_path / "no", "Tiny: expected the model's folder")
    (tmp_path / "README.md").write_text("x")
    refused(lambda: find_file(tmp_path, names, "Tiny"), tmp_path, "README.md")
    refused(lambda: find_file(tmp_path / "README.md", names, "Tiny"), tmp_path, "found a file")
    (tmp_path / names[1]).write_text("x")
    assert find_file(tmp_path, names, "Tiny").name == names[1]
    assert present(tmp_path, names) == (tmp_path / names[1],)
    (tmp_path / names[0]).mkdir()
    assert find_file(tmp_path, names, "Tiny").name == names[1]
    assert present(tmp_path, ["a", "b"]) == (tmp_path / "a", tmp_path / "b")


def tensors(**changes: torch.Tensor | None) -> Tensors:
    """A view of WEIGHTS; None removes, ``_`` in names stands for a dot."""
    content: dict[str, torch.Tensor] = dict(WEIGHTS)
    for name, tensor in changes.items():
        key = name.replace("_", ".")
        content.pop(key, None)
        if tensor is not None:
            content[key] = tensor
    return Tensors("Tiny", Path("folder/w.pt"), content)


def read_tiny(weights: Tensors) -> None:
    """As an extractor reads its model."""
    weights.take("a.weight", 2, 3)
    weights.take("a.bias", 2)
    weights.finish()


NAN, INF = float("nan"), float("inf")
OTHER = {"embeddings.word_embeddings.weight": torch.ones(2), "pooler.weight": torch.ones(2)}
WRONG: dict[str, tuple[Callable[[], Tensors], str]] = {
    "missing": (lambda: tensors(a_bias=None), "no tensor 'a.bias' among 1, found 'a.weight'"),
    "renamed": (lambda: tensors(a_bias=None, a_biases=torch.ones(2)), "no tensor 'a.bias' among 2, near 'a.biases'"),
    "extra": (lambda: tensors(b=torch.ones(2)), "1 of 3 tensors are none of this model or version: 'b'"),
    "many extra": (lambda: tensors(**{f"b_{i}": torch.ones(1) for i in range(9)}), "'b.3' and 5 more"),
    "other model": (
        lambda: Tensors("Tiny", Path("folder/w.pt"), OTHER),
        "no tensor 'a.weight' among 2, near 'pooler.weight'",
    ),
    "transposed": (lambda: tensors(a_weight=torch.ones(3, 2)), r"'a.weight' of shape \(2, 3\), found \(3, 2\)"),
    "fewer axes": (lambda: tensors(a_weight=torch.ones(6)), r"of shape \(2, 3\), found \(6,\)"),
    "nan": (lambda: tensors(a_bias=torch.tensor([NAN, 1])), "found 1 NaN or infinite of 2"),
    "infinite": (lambda: tensors(a_bias=torch.tensor([INF, -INF])), "found 2 NaN"),
    "overflow": (lambda: tensors(a_bias=torch.tensor([1e300, 1.0]).double()), "expected|found 1 NaN"),
    "integers": (lambda: tensors(a_bias=torch.tensor([1, 2])), "floating-point numbers, found torch.int64"),
    "booleans": (lambda: tensors(a_bias=torch.tensor([True, False])), "found torch.bool"),
    "complex": (lambda: tensors(a_bias=torch.ones(2, dtype=torch.complex64)), "found torch.complex64"),
    "eight bits": (lambda: tensors(a_bias=torch.ones(2).to(torch.float8_e4m3fn)), "found torch.float8"),
    "quantized": (
        lambda: tensors(a_bias=torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)),
        "expected 'a.bias' as a plain tensor",
    ),
    "sparse": (lambda: tensors(a_weight=WEIGHTS["a.weight"].to_sparse()), "as a plain tensor"),
    "meta": (lambda: tensors(a_bias=torch.ones(2, device="meta")), "as a plain tensor"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch announces the end of its quantized tensors
@pytest.mark.parametrize("case", WRONG)
def test_wrong_tensors(case: str) -> None:
    make, says = WRONG[case]
    message = refused(lambda: read_tiny(make()), Path("folder/w.pt"), says)
    assert message.endswith("is it Tiny? download the folder again")


def test_right_tensors() -> None:
    read_tiny(tensors())
    weights = tensors(c=torch.tensor(2.0))
    assert (weights.has("c"), weights.has("d"), weights.shape("a.weight")) == (True, False, (2, 3))
    assert weights.take("c") == 2
    assert weights.take("a.weight", None, 3) is not None
    refused(lambda: weights.take("a.bias", None, None), Path("w.pt"), r"\(any, any\), found \(2,\)")
    refused(lambda: tensors(a_bias=torch.ones(0)).take("a.bias", None), Path("w.pt"), r"\(any\), found \(0,\)")
    refused(weights.finish, Path("w.pt"), "'a.bias'")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float32])
def test_numbers_become_float32(dtype: torch.dtype) -> None:
    stored = torch.nn.Parameter(torch.tensor([[0.5, -3.0, 1.25], [2.0, 8.0, 0.0]], dtype=dtype).T)
    found = tensors(a_weight=stored).take("a.weight", 3, 2)
    assert (found.dtype, found.is_contiguous(), found.requires_grad) == (torch.float32, True, False)
    assert found.tolist() == [[0.5, 2.0], [-3.0, 8.0], [1.25, 0.0]]
    assert tensors().take("a.bias", 2).data_ptr() == WEIGHTS["a.bias"].data_ptr()


def test_integers_when_asked_for() -> None:
    weights = tensors(ids=torch.tensor([3, 4]), mask=torch.tensor([True]))
    assert weights.take("ids", 2, dtype="any").dtype == torch.int64
    assert weights.take("mask", None, dtype="any").dtype == torch.bool
    assert weights.take("a.bias", 2, dtype="any").dtype == torch.float32


def test_prefixes() -> None:
    heads = {"cls.bias": torch.ones(1), "cls.weight": torch.ones(2)}
    inside = {f"module.bert.{key}": tensor for key, tensor in WEIGHTS.items()}
    read_tiny(Tensors("Tiny", Path("w.pt"), inside).strip("module.", "bert.", "model."))
    mixed = Tensors("Tiny", Path("w.pt"), {f"bert.{key}": tensor for key, tensor in WEIGHTS.items()} | heads)
    assert mixed.strip("bert.").has("bert.a.bias"), "the heads do not carry it"
    read_tiny(mixed.ignore("cls.").strip("bert."))
    old = Tensors("Tiny", Path("w.pt"), {"old.weight": WEIGHTS["a.weight"], "a.bias": WEIGHTS["a.bias"]})
    read_tiny(old.rename("old.", "a.").rename("nothing.", "a."))
    refused(lambda: tensors(b_bias=torch.ones(1)).rename("b.", "a."), Path("w.pt"), "two tensors.*'a.bias'")
    taken = tensors(b=torch.ones(1))
    taken.take("b", 1)
    read_tiny(taken.rename("b", "c"))


@pytest.mark.parametrize(
    ("numbers", "says"),
    [([0, 1, 2], ""), ([0], ""), ([], "expected layers blocks.0., blocks.1."), ([0, 2], "no 1"), ([1, 2], "no 0")],
)
def test_layers_are_counted(numbers: list[int], says: str) -> None:
    content = {f"blocks.{i}.weight": torch.ones(1) for i in numbers} | {"xblocks.7.weight": torch.ones(1)}
    content |= {"blocks.01.weight": torch.ones(1), "blocks.x.weight": torch.ones(1), "blocksy8.w": torch.ones(1)}
    weights = Tensors("Tiny", Path("w.pt"), content)
    if says:
        refused(lambda: weights.count("blocks.{}."), Path("w.pt"), says)
    else:
        assert weights.count("blocks.{}.") == len(numbers)
    for pattern in ("blocks.", "{}.{}"):
        with pytest.raises(ValueError, match=r"one \{\}"):
            weights.count(pattern)
