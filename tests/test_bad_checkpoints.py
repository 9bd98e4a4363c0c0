"""Bad checkpoints, as they come: one message that names the file, exit code 2, nothing run, nothing cached.

Every cell model of the packaged registry and every kind of encoder, through the command line, on tiny checkpoints of
the published format (tests/tiny), each of which is read well before it is spoilt.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _cli import Said, embbench
from _tiny_models import FAMILIES, MODELS, good, module_of, tiny_folder, write_toy_registry

from embbench import registry
from embbench.registry import Entry

WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".torch", ".bin")
OPTIONS = ("checkpoint", "level", "device", "source", "encoder")  # of the command line; other parameters go in the spec
NEEDED = re.compile(r"(layers?|blocks|encoder)\.1\..*weight$")  # of the second layer; heads lie elsewhere
HEADS = ("nheads", "nhead", "heads", "num_heads", "num_attention_heads")
FIVE = 5  # divides none of the tiny widths


def settings_of(family: str) -> list[str]:
    """Names of the JSON files that a cell model reads, or of the one that every encoder has."""
    if family not in MODELS:
        return ["config.json"]
    files = FAMILIES[family].make(checkpoint="nowhere").files()
    return [path.relative_to("nowhere").as_posix() for path in files if path.suffix == ".json"]


# ---- tiny checkpoints ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the good checkpoints lie, one folder per module of tests/tiny, and the registry file of the screen."""
    folder = tmp_path_factory.mktemp("good")
    write_toy_registry(folder / "toy.yaml")
    return folder


@dataclass
class Case:
    """A copy of a checkpoint, to be spoilt.

    Parameters
    ----------
    family : key of `FAMILIES`.
    base, home : of the good checkpoints, and of this test.
    given : parameters of the entry, on the copy.
    """

    family: str
    base: Path
    home: Path
    given: dict[str, Any]

    @property
    def entry(self) -> Entry:
        """The entry."""
        return FAMILIES[self.family]

    @property
    def folder(self) -> Path:
        """The copy of the checkpoint."""
        return Path(self.given.get("checkpoint") or self.given["encoder"])

    @property
    def weights(self) -> Path:
        """Its file of weights."""
        return next(path for path in self.files() if path.suffix in WEIGHTS)

    @property
    def sentinel(self) -> Path:
        """What exists once code of a file was run."""
        return self.home / "ran"

    def files(self) -> list[Path]:
        """All files that the vectors depend on."""
        return list(self.entry.make(**self.given).files())

    def settings(self) -> Path:
        """The configuration that says the number of heads."""
        return next(path for path in self.files() if path.name in ("config.json", "args.json"))

    def extract(self, **more: Any) -> Said:
        """``embbench extract`` with the copy."""
        given = {**self.given, **more}
        own = "".join(f":{key}={value}" for key, value in given.items() if key not in OPTIONS)
        options = {key: str(given[key]) for key in OPTIONS if key in given}
        options |= {"registry": str(self.base / "toy.yaml"), "dataset": "toy"}
        if self.family in MODELS and given["level"] != "static":
            options["cells"] = "5"
        elif self.entry.modality == "chemistry":
            options["dataset"] = "toy:compound"
        words = " ".join(f"--{key} {shlex.quote(value)}" for key, value in options.items())
        return embbench(self.home, f"extract --model {shlex.quote(self.entry.name + own)} {words}")

    def cached(self) -> list[Path]:
        """Files in the cache of the entry; advisory locks, which hold nothing, apart."""
        found = (self.home / "home" / "cache" / self.entry.name).rglob("*")
        return [path for path in found if path.is_file() and path.parent.name != ".locks"]


def case_of(family: str, base: Path, home: Path) -> Case:
    """A fresh copy of the family's good checkpoint."""
    given, folder = good(base, family), str(tiny_folder(base, family))
    shutil.copytree(folder, home / "copy")
    moved = {k: v.replace(folder, str(home / "copy")) if isinstance(v, str) else v for k, v in given.items()}
    return Case(family, base, home, moved)


def refused(case: Case, said: Said, *names: str) -> None:
    """One message that says one of the names, on standard error alone; nothing was run and nothing kept."""
    assert said.code == 2, said
    assert said.err.startswith("embbench: "), said.err
    assert said.err.count("embbench: ") == 1, said.err
    assert len(said.err.strip().splitlines()) <= 2, said.err
    assert len(said.err) < 1200, said.err
    assert any(name in said.err for name in names), (names, said.err)
    assert "Traceback" not in said.err
    assert "internal error" not in said.err
    assert said.out == ""
    assert case.cached() == []
    assert not case.sentinel.exists(), "code of the file was run"


# ---- what happens to files ----------------------------------------------------------------------------------------
class Bomb:
    """A pickle that leaves a file behind when it is loaded as pickles are."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {shlex.quote(str(self.sentinel))}",)


def replaced(content: bytes) -> Callable[[Case], None]:
    """Other bytes in place of the weights."""

    def spoil(case: Case) -> None:
        case.weights.write_bytes(content)

    return spoil


def cut(case: Case, size: int) -> None:
    case.weights.write_bytes(case.weights.read_bytes()[:size])


def truncated(case: Case) -> None:
    cut(case, case.weights.stat().st_size // 2)


def short(case: Case) -> None:
    cut(case, case.weights.stat().st_size - 64)


def as_folder(case: Case) -> None:
    path = case.weights
    path.unlink()
    path.mkdir()


def bomb(case: Case) -> None:
    case.weights.write_bytes(pickle.dumps(Bomb(case.sentinel)))


def torch_bomb(case: Case) -> None:
    """As torch.save writes it, whatever the name says."""
    import torch

    torch.save({"state_dict": {"a": torch.ones(1), "b": Bomb(case.sentinel)}}, case.weights)


def hidden_bomb(case: Case) -> None:
    """Beside all that the model needs."""
    import torch

    torch.save({**read(case.weights), "callbacks": [Bomb(case.sentinel)]}, case.weights)


def read(path: Path) -> Any:
    """What a file of weights holds (our own files, so pickles may run)."""
    import torch
    from safetensors.torch import load

    # not load_file: its tensors would be pages of the very file that is then written
    return load(path.read_bytes()) if path.suffix == ".safetensors" else torch.load(path, weights_only=False)


def write(path: Path, content: Any) -> None:
    import torch
    from safetensors.torch import save_file

    if path.suffix == ".safetensors":
        save_file(content, path, metadata={"format": "pt"})
    else:
        torch.save(content, path)


def dicts(content: Any) -> Iterator[dict[Any, Any]]:
    """All dicts in nested dicts."""
    if isinstance(content, dict):
        yield content
        for value in content.values():
            yield from dicts(value)


def tensors(change: Callable[[dict[str, Any], str], object]) -> Callable[[Case], None]:
    """Every state dict of the file changed; ``change`` gets it and the name of a tensor that the model needs."""

    def spoil(case: Case) -> None:
        import torch

        content = read(case.weights)
        states = [d for d in dicts(content) if d and all(isinstance(v, torch.Tensor) for v in d.values())]
        assert states
        for state in states:
            change(state, next(key for key in state if NEEDED.search(key)))
        write(case.weights, content)

    return spoil


def lose(state: dict[str, Any], key: str) -> None:
    del state[key]


def rename(state: dict[str, Any], key: str) -> None:
    state[key.replace("weight", "kernel")] = state.pop(key)


def reshape(state: dict[str, Any], key: str) -> None:
    import torch

    state[key] = torch.cat([state[key], state[key][:1]])


def flatten(state: dict[str, Any], key: str) -> None:
    state[key] = state[key].reshape(-1, 1).clone()


def add(state: dict[str, Any], key: str) -> None:
    state[key.removesuffix("weight") + "gate"] = state[key].clone()


def poison(state: dict[str, Any], key: str) -> None:
    state[key].view(-1)[0] = float("nan")


def integers(state: dict[str, Any], key: str) -> None:
    import torch

    state[key] = (state[key] * 100).to(torch.int8)


def kind(path: Path) -> bool:
    """Whether a file is safetensors."""
    return path.suffix == ".safetensors"


def weights_of(case: Case, *, same: bool) -> Path:
    """The weights of another family in the same container, or in the other one."""
    order = list(FAMILIES)
    at = order.index(case.family)
    for other in order[at + 1 :] + order[:at]:
        files = FAMILIES[other].make(**good(case.base, other)).files()
        path = next(p for p in files if p.suffix in WEIGHTS)
        if (kind(path) == kind(case.weights)) == same:
            return path
    raise AssertionError("no other family")


def other_weights(case: Case) -> None:
    shutil.copyfile(weights_of(case, same=True), case.weights)


def other_container(case: Case) -> None:
    shutil.copyfile(weights_of(case, same=False), case.weights)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 41234567\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>quota exceeded</body></html>\n"
SPOILT: dict[str, Callable[[Case], None]] = {
    "truncated": truncated,
    "last bytes lost": short,
    "empty": replaced(b""),
    "text": replaced(b"weights, as promised\n"),
    "zeros": replaced(bytes(4096)),
    "web page": replaced(PAGE),
    "git-lfs pointer": replaced(LFS),
    "absent": lambda case: case.weights.unlink(),
    "a folder": as_folder,
    "key removed": tensors(lose),
    "key renamed": tensors(rename),
    "key added": tensors(add),
    "wrong shape": tensors(reshape),
    "wrong rank": tensors(flatten),
    "NaN": tensors(poison),
    "integers": tensors(integers),
    "another model's weights": other_weights,
    "another container": other_container,
    "pickle bomb": bomb,
    "torch bomb": torch_bomb,
    "hidden bomb": hidden_bomb,
}


# ---- tests --------------------------------------------------------------------------------------------------------
def test_every_model_is_here() -> None:
    """A cell model of the registry has a tiny checkpoint; otherwise this file would pass it over."""
    cell_models = {module_of(e) for e in registry.default().entries("embeddings") if e.modality == "cell model"}
    assert cell_models == set(MODELS)
    assert {"scgpt", "geneformer", "uce"} <= cell_models
    assert {"text", "protein", "smiles"} <= set(FAMILIES)


LEVELS = [
    (family, level) for family in FAMILIES for level in (("gene", "static", "cell") if family in MODELS else ("",))
]


@pytest.mark.parametrize(("family", "level"), LEVELS)
def test_the_good_checkpoint_is_read(family: str, level: str, base: Path, tmp_path: Path) -> None:
    """Without this the others would prove nothing."""
    case = case_of(family, base, tmp_path)
    said = case.extract(**({"level": level} if level else {}))
    assert said.code == 0, said
    assert "extracted" in said.out
    assert any(path.suffix == ".h5" for path in case.cached())


# transformers casts whole numbers to floats; Tensors refuses them
CASES = [(family, how) for family in FAMILIES for how in SPOILT if family in MODELS or how != "integers"]


@pytest.mark.parametrize(("family", "how"), CASES)
def test_spoilt_weights(family: str, how: str, base: Path, tmp_path: Path) -> None:
    case = case_of(family, base, tmp_path)
    names = (case.weights.name,) if family in MODELS else (case.weights.name, str(case.folder))
    SPOILT[how](case)
    refused(case, case.extract(), *names)


@pytest.mark.parametrize("how", ["truncated", "key removed", "another model's weights", "torch bomb"])
@pytest.mark.parametrize("family", MODELS)
def test_static_vectors_refuse_the_same(family: str, how: str, base: Path, tmp_path: Path) -> None:
    """Static vectors need the tables of genes alone, and the whole file is checked all the same."""
    case = case_of(family, base, tmp_path)
    name = case.weights.name
    SPOILT[how](case)
    refused(case, case.extract(level="static"), name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bomb_in_any_other_file(family: str, base: Path, tmp_path: Path) -> None:
    """Dictionaries, vocabularies, tables: whatever the suffix, no pickle of it runs."""
    case = case_of(family, base, tmp_path)
    content = pickle.dumps(Bomb(case.sentinel))
    for path in set(case.files()) - {case.weights}:
        whole = path.read_bytes()
        path.write_bytes(content)
        said = case.extract()
        if said.code == 0:  # special tokens of a tokenizer are known without their file
            assert family not in MODELS, (path, said)
            shutil.rmtree(case.home / "home" / "cache")
        else:
            refused(case, said, path.name, str(case.folder))
        assert not case.sentinel.exists(), path
        path.write_bytes(whole)


@pytest.mark.parametrize("family", MODELS)
def test_the_folder_of_another_model(family: str, base: Path, tmp_path: Path) -> None:
    case = case_of(family, base, tmp_path)
    other = MODELS[MODELS.index(family) - 1]
    folder = good(base, other)["checkpoint"]
    refused(case, case.extract(checkpoint=folder), folder)


@pytest.mark.parametrize("family", MODELS)
def test_no_folder_at_all(family: str, base: Path, tmp_path: Path) -> None:
    case = case_of(family, base, tmp_path)
    refused(case, case.extract(checkpoint=str(tmp_path / "nowhere")), str(tmp_path / "nowhere"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mended_checkpoint_is_read(family: str, base: Path, tmp_path: Path) -> None:
    """Nothing of the failure stays behind."""
    case = case_of(family, base, tmp_path)
    whole = case.weights.read_bytes()
    truncated(case)
    assert case.extract().code == 2
    case.weights.write_bytes(whole)
    assert case.extract().code == 0
    assert case.cached()


JSON = [(family, name) for family in FAMILIES for name in settings_of(family)]


@pytest.mark.parametrize("how", ["broken", "absent", "a list", "empty object", "web page"])
@pytest.mark.parametrize(("family", "name"), JSON)
def test_bad_settings(family: str, name: str, how: str, base: Path, tmp_path: Path) -> None:
    case = case_of(family, base, tmp_path)
    path = next(file for file in case.files() if file.as_posix().endswith(f"/{name}"))
    if how == "absent":
        path.unlink()
    else:
        whole = path.read_text(encoding="utf-8")
        texts = {
            "broken": whole[: len(whole) // 2],
            "a list": "[1, 2]",
            "empty object": "{}",
            "web page": PAGE.decode(),
        }
        path.write_text(texts[how], encoding="utf-8")
    refused(case, case.extract(), path.name)


HEADS_SAID = [(family, number) for family in FAMILIES for number in (FIVE, 0, -2, "4", None)]
HEADS_SAID = [(family, number) for family, number in HEADS_SAID if family != "uce" or number == FIVE]


@pytest.mark.parametrize(("family", "number"), HEADS_SAID)
def test_heads_that_do_not_divide_the_width(family: str, number: Any, base: Path, tmp_path: Path) -> None:
    """In the configuration, in the settings within the checkpoint, or as the user says."""
    case = case_of(family, base, tmp_path)
    if "heads" in case.given:  # UCE's files do not say
        refused(case, case.extract(heads=FIVE), case.weights.name)
        return
    inside = case.weights.suffix == ".ckpt"
    path = case.weights if inside else case.settings()
    content = read(path) if inside else json.loads(path.read_text(encoding="utf-8"))
    found = [(part, key) for part in dicts(content) for key in HEADS if key in part]
    assert found
    for part, key in found:
        part[key] = number
    if inside:
        write(path, content)
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    refused(case, case.extract(), path.name, str(case.folder))
