"""Artefacts are whole or found damaged, keys name what the bytes depend on, and processes do not disturb each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import sparse

from embbench import registry as registries
from embbench.cache import keys, maintain
from embbench.cache.home import home
from embbench.cache.screens import dataset_digest, load_screen, save_screen, with_digest
from embbench.cache.store import (
    DamagedFileError,
    content_hash,
    lock,
    map_h5,
    read_h5,
    read_record,
    read_whole,
    replacing,
    set_aside,
    sweep,
    write_h5,
)
from embbench.core import PerturbationDataset, UserError
from embbench.grid.config import Grid
from embbench.grid.frames import read_frames
from embbench.grid.plan import plan
from embbench.grid.results import Results
from embbench.grid.schedule import run_grid
from embbench.grid.vectors import compute_embedding
from embbench.registry import Registry

METRICS = ["l2_notarget", "pearson_notarget"]


def arrays() -> dict[str, np.ndarray]:
    """One array of each sort that artefacts hold."""
    weights = sparse.random(5, 7, density=0.4, random_state=np.random.default_rng(1), format="csr")
    return {
        "names": np.array(["TP53", "", "β-actin", "A+B"], dtype=object),
        "matrix": np.arange(12, dtype=np.float32).reshape(4, 3) / 7,
        "half": np.array([[1.5, -0.25]], dtype=np.float16),
        "weights|data": weights.data,
        "weights|indices": weights.indices.astype(np.int32),
        "weights|indptr": weights.indptr.astype(np.int64),
        "mask": np.array([True, False]),
        "labels": np.array([[-1, 0, 1]], dtype=np.int8),
        "empty": np.zeros((0, 3), dtype=np.float64),
        "nobody": np.array([], dtype=object),
        "one": np.array(2.5),
    }


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(
        a.dtype == (b := right[name]).dtype and a.shape == b.shape and a.tolist() == b.tolist()
        for name, a in left.items()
    )


def screen(seed: int = 0, n: int = 12, g: int = 6) -> PerturbationDataset:
    draw = np.random.default_rng(seed)
    genes = np.array([f"G{i}" for i in range(g)], dtype=object)
    data = PerturbationDataset(
        "small",
        draw.normal(size=(n, g)).astype(np.float32),
        "delta",
        genes,
        tuple((f"P{i:02d}",) for i in range(n)),
        np.array(["c1", "c2"], dtype=object)[np.arange(n) % 2],
    )
    return with_digest(data)


# files


def test_arrays_attributes_and_records_come_back(tmp_path: Path) -> None:
    path, facts = tmp_path / "sub" / "a.h5", {"key": ["x", {"b": 1.5, "a": None}], "words": "naïve"}
    sha = write_h5(path, "thing", arrays(), facts, {"cpu_seconds": 1.25})
    found, attributes = read_h5(path, "thing")
    assert same(arrays(), found)
    assert attributes == facts
    assert read_record(path) == {"cpu_seconds": 1.25}
    assert sha == content_hash(found, attributes)
    with h5py.File(path, "r") as file:  # a plain HDF5 file: contiguous, uncompressed, readable by any tool
        assert file.attrs["sha256"] == sha
        assert file.attrs["complete"]
        assert file["matrix"].chunks is None
        assert file["matrix"].compression is None
    assert [p.name for p in path.parent.iterdir()] == ["a.h5"]


def test_names_may_hold_a_slash(tmp_path: Path) -> None:
    """Contexts such as ``T/2`` name folds, columns such as ``dose (mg/ml)`` covariates."""
    names = ["T/2|train", "dose (mg/ml)", "a/b/c", "%2F", "plain"]
    for size in (2, 3_000_000):  # written in memory, and through the library
        write_h5(tmp_path / "a.h5", "split", {name: np.arange(size) for name in names}, {})
        for read in (read_h5, map_h5):
            assert sorted(read(tmp_path / "a.h5", "split")[0]) == sorted(names)


def test_the_content_hash_leaves_records_out_and_nothing_else(tmp_path: Path) -> None:
    def sha(record: dict | None = None, facts: dict | None = None, **changed: np.ndarray) -> str:
        return write_h5(tmp_path / "a.h5", "thing", {**arrays(), **changed}, facts or {"k": 1}, record)

    first = sha()
    assert sha({"cpu_seconds": 2.0}) == first
    assert sha(facts={"k": 2}) != first
    assert sha(one=np.array(2.5, dtype=np.float32)) != first
    assert sha(empty=np.zeros((3, 0))) != first
    assert sha(names=np.array(["TP53", "", "β-actin", "A+C"], dtype=object)) != first


def test_flipped_bytes_are_found_or_harmless(tmp_path: Path) -> None:
    path, hurt = tmp_path / "a.h5", tmp_path / "hurt.h5"
    write_h5(path, "thing", arrays(), {"key": 1})
    content, draw = path.read_bytes(), np.random.default_rng(0)
    places = np.unique(np.concatenate([np.arange(0, 700, 13), draw.integers(len(content), size=160)]))
    found = 0
    for place in places.tolist():
        mask = int(draw.integers(1, 256))
        hurt.write_bytes(content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])
        try:
            back, facts = read_h5(hurt, "thing")
        except DamagedFileError as error:
            assert str(hurt) in str(error)  # noqa: PT017
            found += 1
        else:
            assert same(arrays(), back), f"byte {place} ^ {mask}"
            assert facts == {"key": 1}
    assert found > 0.7 * len(places)  # the rest is padding of the first block


def test_truncated_and_extended_files_are_found(tmp_path: Path) -> None:
    path, hurt = tmp_path / "a.h5", tmp_path / "hurt.h5"
    write_h5(path, "thing", arrays(), {"key": 1})
    content = path.read_bytes()
    for length in [*range(0, len(content), max(1, len(content) // 60)), len(content) - 1]:
        hurt.write_bytes(content[:length])
        with pytest.raises(DamagedFileError, match=r"hurt\.h5"):
            read_h5(hurt, "thing")
    hurt.write_bytes(content + b"\0")
    with pytest.raises(DamagedFileError, match="bytes after the seal"):
        read_h5(hurt, "thing")


def test_files_of_another_kind_or_without_a_seal_are_refused(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", "thing", arrays(), {})
    with pytest.raises(DamagedFileError, match="expected a prediction file"):
        read_h5(tmp_path / "a.h5", "prediction")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file.create_dataset("matrix", data=np.ones(3))
    (tmp_path / "text.h5").write_text("not HDF5 at all\n" * 100)
    (tmp_path / "empty.h5").write_bytes(b"")
    for name in ("foreign.h5", "text.h5", "empty.h5"):
        with pytest.raises(DamagedFileError, match="incomplete file, or not one of embbench"):
            read_h5(tmp_path / name, "thing")
    with pytest.raises(FileNotFoundError):
        read_h5(tmp_path / "absent.h5", "thing")


def test_a_file_changed_by_another_program_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_h5(path, "thing", arrays(), {})
    with h5py.File(path, "r+") as file:
        file["matrix"][0, 0] = 9
    with pytest.raises(DamagedFileError, match="was changed"):
        read_h5(path, "thing")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_h5(path, "thing", arrays(), {})
    path.chmod(0)
    with pytest.raises(UserError, match="permissions") as caught:
        read_whole(path, "thing")
    assert not isinstance(caught.value, DamagedFileError)
    assert path.exists()


def test_a_folder_in_the_way_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a.h5").mkdir()
    with pytest.raises(UserError, match="cannot be read") as caught:
        read_whole(tmp_path / "a.h5", "thing")
    assert not isinstance(caught.value, DamagedFileError)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        write_h5(tmp_path / "file" / "a.h5", "thing", arrays(), {})


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_h5(path, "thing", arrays(), {"version": 1})

    def burn() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        burn()
    assert read_h5(path, "thing")[1] == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_set_aside_keeps_the_damaged_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"damaged")
    assert set_aside(path) == tmp_path / "a.h5.damaged"
    assert (tmp_path / "a.h5.damaged").read_bytes() == b"damaged"
    assert not path.exists()
    assert set_aside(path) == tmp_path / "a.h5.damaged"  # somebody else was first


def test_a_whole_file_is_not_set_aside_for_the_damaged_one_it_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "a.h5", tmp_path / "whole.h5"
    write_h5(whole, "thing", arrays(), {})
    path.write_bytes(b"damaged")
    real = read_h5

    def slow(where: Path, kind: str) -> object:
        try:
            return real(where, kind)
        finally:
            shutil.copy(whole, path)  # another process repairs it while this one is still looking at the damage

    monkeypatch.setattr("embbench.cache.store.read_h5", slow)
    found = read_whole(path, "thing")
    assert found is not None
    assert same(arrays(), found[0])
    assert not list(tmp_path.glob("*.damaged"))


def test_sweep_removes_only_temporaries_of_dead_writers(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from embbench.cache.store import replacing
        with replacing(Path(sys.argv[1])) as temporary:
            print(temporary, flush=True)
            time.sleep(60)
    """
    kept = tmp_path / "deep" / "kept.h5"
    command = [sys.executable, "-c", textwrap.dedent(script)]
    alive = subprocess.Popen([*command, str(kept)], stdout=subprocess.PIPE, text=True)
    dead = subprocess.Popen([*command, str(tmp_path / "gone.h5")], stdout=subprocess.PIPE, text=True)
    try:
        living, orphan = (Path(p.stdout.readline().strip()) for p in (alive, dead))
        dead.kill()
        dead.wait()
        host, pid, started = living.name.split(".")[-3].split("-")
        reused = tmp_path / f".a.h5.{host}-{pid}-{int(started) + 5}.abcdefgh.tmp"  # that process id, another process
        remote = tmp_path / f".a.h5.{'0' * 6}-{pid}-{started}.abcdefgh.tmp"
        old = tmp_path / f".b.h5.{'0' * 6}-{pid}-{started}.abcdefgh.tmp"
        foreign = [tmp_path / name for name in (".notes.tmp", ".a.b.c.d.tmp", "a.tmp", ".x.1-2.y.tmp", "a.h5")]
        for path in (reused, remote, old, *foreign):
            path.touch()
        week_ago = time.time() - 7 * 86_400
        for path in (old, *foreign):
            os.utime(path, (week_ago, week_ago))
        assert set(sweep(tmp_path)) == {orphan, reused, old}
        assert all(p.exists() for p in (living, remote, *foreign))
    finally:
        for process in (alive, dead):
            process.kill()
            process.wait()
            process.stdout.close()
    assert sweep(tmp_path) == [living]
    assert sweep(tmp_path / "nowhere") == []


def test_lock_keeps_others_out_and_works_without_a_writable_folder(tmp_path: Path) -> None:
    order: list[str] = []

    def other() -> None:
        with lock(tmp_path / "a.h5"):
            order.append("other")

    with lock(tmp_path / "a.h5"):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
    (tmp_path / "file").write_text("")
    with lock(tmp_path / "file" / "a.h5"):
        order.append("unlocked")
    assert order[-1] == "unlocked"


def test_a_screen_comes_back_with_its_digest(tmp_path: Path) -> None:
    data = replace(screen(), covariates={"dose": np.arange(12.0)}, truth=screen(1).effects)
    data = replace(data, meta={**data.meta, "digest": dataset_digest(data)})
    save_screen(tmp_path / "s.h5", data)
    back = load_screen(tmp_path / "s.h5")
    assert dataset_digest(back) == data.meta["digest"] == back.meta["digest"]
    assert back.entities == data.entities


# keys


def test_digests_and_streams_are_pinned() -> None:
    """A change here moves every key and every random stream of every user: raise `REVISION` when it is meant."""
    assert keys.digest({"b": [1, 2.5, None], "a": "ü"}) == "703dceec79c30480"
    assert keys.array_digest(np.arange(3, dtype=np.int32), None, ["a", "b"]) == "91ed4b9ff06948b0"
    assert [keys.stream("a", 0), keys.stream("a", "0"), keys.stream("a", 1)] == [1297108921, 1297108921, 2359652007]


def test_array_digest_sees_type_shape_and_order() -> None:
    base = np.arange(6, dtype=np.float32)
    others = [
        base.reshape(2, 3),
        base.reshape(3, 2),
        base.astype(np.float64),
        base[::-1],
        np.zeros(0, np.float32),
        np.zeros((0, 2), np.float32),
        None,
        np.array([["a", "b"]], dtype=object),
        np.array([["a"], ["b"]], dtype=object),
        np.array(["a", "b"]),
    ]
    found = [keys.array_digest(base), *map(keys.array_digest, others)]
    assert len(set(found)) == len(found)
    assert keys.array_digest(base, None) != keys.array_digest(base)
    assert keys.array_digest(np.asfortranarray(base.reshape(2, 3))) == keys.array_digest(base.reshape(2, 3))


def test_digest_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        keys.digest({"a": float("nan")})


WIDGET = '''
"""A module."""

import numpy as np

from embbench.core import Embedding, ExtractorDefaults
from {package}._scale import scale


class Widget(ExtractorDefaults):
    """A class."""

    entity = "any"
    needs_names = True

    def __init__(self, factor=1.0):
        self.factor = factor

    def compute(self, names, train):
        """A method."""
        matrix = np.arange(2.0 * len(names), dtype=np.float32).reshape(-1, 2)
        return Embedding(np.array(names, dtype=object), scale(matrix * np.float32(self.factor)))
'''
HELPER = "def scale(matrix):\n    return matrix * 2\n"


class Package:
    """A user's package with one extractor, and the registry that names it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.root = name, folder / name
        self.root.mkdir()
        self.write("__init__", "")
        self.write("widget", WIDGET.format(package=name))
        self.write("_scale", HELPER)
        self.write("gadget", "VALUE = 1\n")
        self.path = folder / f"{name}.yaml"
        self.path.write_text(f'embeddings:\n  widget: {{impl: "{name}.widget:Widget", argument: factor}}\n')

    def write(self, module: str, text: str) -> None:
        (self.root / f"{module}.py").write_text(text)

    def edit(self, module: str, old: str, new: str) -> None:
        path = self.root / f"{module}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def code(self, module: str = "widget") -> str:
        keys.code_of.cache_clear()
        return keys.code_of(f"{self.name}.{module}")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"package_{tmp_path.name.replace('-', '_')}"
    yield Package(tmp_path, name)
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]
    keys.code_of.cache_clear()


def test_words_about_code_do_not_move_a_key(package: Package) -> None:
    before = package.code()
    package.edit("widget", '"""A class."""', '"""Another word.\n\n    And a second line.\n    """')
    package.edit("widget", '        """A method."""\n', "")
    package.edit("widget", '"""A module."""', "# a comment instead\n")
    package.edit("widget", "self.factor = factor", "self.factor    =   factor  # how much")
    package.edit("_scale", "def scale", "\n\n# scales\ndef scale")
    package.edit("gadget", "1", "2")  # another component of the same folder
    assert package.code() == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [("widget", "2.0 *", "3.0 *"), ("widget", "factor=1.0", "factor=2.0"), ("_scale", "* 2", "* 3")],
)
def test_code_moves_a_key(package: Package, module: str, old: str, new: str) -> None:
    before = package.code()
    package.edit(module, old, new)
    assert package.code() != before
    package.edit(module, new, old)
    assert package.code() == before


def cached(name: str) -> set[str]:
    return {p.stem for p in home("cache", name).glob("*.h5")}


def key_of(spec: str, data: PerturbationDataset, *paths: Path, rows: np.ndarray | None = None) -> str:
    """The key that a spec is cached under: the one file more (or the only one) after it was computed."""
    known = Registry(*registries.default().paths, *paths)
    folder = home("cache")
    shutil.rmtree(folder, ignore_errors=True)
    compute_embedding(known, spec, data, np.arange(len(data)) if rows is None else rows)
    (key,) = {p.stem for p in folder.glob("*/*.h5")}
    return key


@pytest.mark.usefixtures("fresh_home")
def test_parameters_data_and_rows_move_embedding_keys(package: Package) -> None:
    data, other = screen(), screen(1)
    assert key_of("widget:2.0", data, package.path) == key_of("widget:factor=2.0", data, package.path)
    assert key_of("widget:2.0", data, package.path) != key_of("widget:3.0", data, package.path)
    assert key_of("random:dim=3", data) == key_of("random:dim=3", other)  # a static embedding knows names only
    assert key_of("random:dim=3", data) != key_of("random:dim=3", data.rows(np.arange(9)))
    fitted = key_of("effect_pca:2", data)
    assert fitted == key_of("effect_pca:2", screen())
    assert fitted != key_of("effect_pca:2", other)
    assert fitted != key_of("effect_pca:2", data, rows=np.arange(10))
    nudged = data.effects.copy()
    nudged[3, 2] = np.nextafter(nudged[3, 2], np.float32(9))
    assert fitted != key_of("effect_pca:2", with_digest(replace(data, effects=nudged, meta={})))


@pytest.mark.usefixtures("fresh_home")
def test_file_content_moves_a_key_and_its_name_and_time_do_not(tmp_path: Path) -> None:
    data, first, second = screen(), tmp_path / "a.csv", tmp_path / "other name.csv"
    rows = [f"P{i:02d},{i},{i * i}" for i in range(12)]
    first.write_text("\n".join(["name,x,y", *rows]) + "\n")
    shutil.copy(first, second)
    os.utime(second, (1e9, 1e9))
    before = key_of(f"table:{first}", data)
    assert key_of(f"table:{second}", data) == before
    first.write_text("\n".join(["name,x,y", *rows[:-1], "P11,11,120"]) + "\n")
    assert key_of(f"table:{first}", data) != before


def test_a_new_parameter_value_moves_no_other_run(session_home: Path) -> None:
    def keys_of(**changed: object) -> dict[str, str]:
        base = {"dataset": "sim_small", "emb": "random:4", "head": "knn", "baselines": False}
        grid = Grid(**{**base, "permutations": {}, **changed})
        return {f"{p.run.embedding}|{p.run.head}|{p.run.fold}|{p.run.seed}": p.key for p in plan(grid)}

    small, large = keys_of(), keys_of(emb="random:4,random:5", head="knn,ridge", seed=[0, 1])
    assert len(large) == 8 * len(small)
    assert small.items() <= large.items()
    assert len(set(large.values())) == len(large)
    for changed in (
        {"genes": "hvg:50"},
        {"select": "mse_all"},
        {"features": "raw"},
        {"split": "unseen_perturbation:4"},
    ):
        assert not set(keys_of(**changed).values()) & set(small.values()), changed


# the embedding cache


def flip(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_cached_embedding_is_named_set_aside_and_computed_again(fresh_home: Path, damage: str) -> None:
    known, data = registries.default(), screen()
    first = compute_embedding(known, "random:8", data, np.arange(12))
    (path,) = fresh_home.glob("cache/random/*.h5")
    content = path.read_bytes()
    if damage == "flip":
        flip(path)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
    assert [i.problem for i in maintain.verify()] != [""]
    with pytest.warns(UserWarning, match=rf"{path.name}: .*set aside as {path.name}\.damaged and computed again"):
        again = compute_embedding(known, "random:8", data, np.arange(12))
    assert again.matrix.tobytes() == first.matrix.tobytes()
    assert path.read_bytes() == content
    assert path.with_name(f"{path.name}.damaged").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compute_embedding(known, "random:8", data, np.arange(12))
    assert [i.problem for i in maintain.verify()] == ["", "set aside as damaged"]
    maintain.prune("no such embedding")
    assert [i.path for i in maintain.items()] == [path]


SLOW = """
import os
import time
from pathlib import Path

import numpy as np

from embbench.core import Embedding, ExtractorDefaults


class Slow(ExtractorDefaults):
    entity = "any"
    needs_names = True

    def compute(self, names, train):
        (Path(os.environ["SLOW_LOG"]) / str(os.getpid())).touch()
        time.sleep(0.3)
        rng = np.random.default_rng(7)
        return Embedding(np.array(names, dtype=object), rng.normal(size=(len(names), 500)).astype(np.float32))
"""
RACER = """
import sys, warnings
from pathlib import Path
import numpy as np
from embbench import registry as registries
from embbench.cache.store import write_h5
from embbench.cache.screens import load_screen
from embbench.grid.vectors import compute_embedding
from embbench.registry import Registry

warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
data = load_screen(folder / "screen.h5")
known = Registry(*registries.default().paths, folder / "slow.yaml")
print("ready", flush=True)
sys.stdin.readline()
table = compute_embedding(known, "slow", data, np.arange(len(data)))
print(table.matrix.shape, float(table.matrix.astype(np.float64).sum()), flush=True)
"""


def race(folder: Path, processes: int) -> set[str]:
    """What processes print that ask for one embedding at the same moment."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "SLOW_LOG": str(folder / "log")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    racers = [subprocess.Popen([sys.executable, "-c", RACER, str(folder)], **pipes) for _ in range(processes)]
    try:
        assert [r.stdout.readline().strip() for r in racers] == ["ready"] * processes
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        answers = [r.communicate(timeout=60)[0].strip() for r in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert [r.returncode for r in racers] == [0] * processes
    return set(answers)


@pytest.mark.parametrize("damaged", [False, True])
def test_eight_processes_at_once_make_one_correct_file(fresh_home: Path, tmp_path: Path, damaged: bool) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "slow_package.py").write_text(SLOW)
    (tmp_path / "slow.yaml").write_text('embeddings:\n  slow: {impl: "slow_package:Slow"}\n')
    save_screen(tmp_path / "screen.h5", screen())
    matrix = np.random.default_rng(7).normal(size=(12, 500)).astype(np.float32)
    expected = {f"(12, 500) {float(matrix.astype(np.float64).sum())}"}
    if damaged:
        assert race(tmp_path, 1) == expected
        (path,) = fresh_home.glob("cache/slow/*.h5")
        flip(path)
        for mark in (tmp_path / "log").iterdir():
            mark.unlink()
    assert race(tmp_path, 4 if damaged else 8) == expected
    (path,) = fresh_home.glob("cache/slow/*.h5")
    assert read_h5(path, "embedding")[0]["matrix"].tobytes() == matrix.tobytes()
    assert len(list((tmp_path / "log").iterdir())) == 1  # the others waited for the first and read its file
    assert not list(fresh_home.rglob("*.tmp"))


# the results folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, session_home: Path) -> tuple[Path, Grid]:
    folder = tmp_path_factory.mktemp("finished") / "results"
    grid = Grid(
        dataset="sim_small",
        split="unseen_perturbation:2",
        emb="random:4",
        head="knn:k=3,ridge:alpha=1.0",
        baselines=False,
        permutations={},
        metrics=METRICS,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBBENCH_HOME", str(session_home))
        assert run_grid(grid, folder).done == 4
    read_frames(Results(folder), registries.default(), METRICS)
    return folder, grid


@pytest.fixture
def results(finished: tuple[Path, Grid], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def hashes(folder: Path) -> dict[str, str]:
    out = {}
    for path in folder.rglob("*.h5"):
        with h5py.File(path, "r") as file:
            out[str(path.relative_to(folder))] = str(file.attrs["sha256"])
    return out


def test_a_damaged_prediction_is_computed_again_and_nothing_else(finished: tuple[Path, Grid], results: Path) -> None:
    before, times = hashes(results), {p: p.stat().st_mtime_ns for p in results.rglob("*.h5")}
    hurt, cut, *_ = sorted((results / "predictions").glob("*.h5"))
    flip(hurt)
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="set aside as") as said:
        tally = run_grid(finished[1], results)
    assert (tally.done, tally.reused, tally.failed) == (4, 2, 0)
    assert {hurt.name, cut.name} <= {name for w in said for name in (hurt.name, cut.name) if name in str(w.message)}
    assert hashes(results) == before
    assert hurt.with_name(f"{hurt.name}.damaged").exists()
    moved = {p for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert moved == {hurt, cut}


@pytest.mark.parametrize("kind", ["datasets", "splits", "plans"])
def test_other_damaged_artefacts_are_made_again(finished: tuple[Path, Grid], results: Path, kind: str) -> None:
    before = {p.name: p.read_bytes() for p in (results / kind).iterdir()}
    (hurt,) = (results / kind).iterdir()
    flip(hurt)
    with pytest.warns(UserWarning, match="set aside as"):
        tally = run_grid(finished[1], results)
    assert tally.reused == 4
    assert {p.name: p.read_bytes() for p in (results / kind).iterdir() if p.suffix != ".damaged"} == before


def test_damaged_scores_are_computed_again(finished: tuple[Path, Grid], results: Path) -> None:
    before = hashes(results)
    flip(sorted((results / "scores").glob("*.h5"))[0])
    with pytest.warns(UserWarning, match="set aside as"):
        read_frames(Results(results), registries.default(), METRICS)
    assert hashes(results) == before


@pytest.mark.parametrize("place", [600, 900, None])
def test_a_report_never_reads_a_damaged_prediction(results: Path, place: int | None) -> None:
    hurt = sorted((results / "predictions").glob("*.h5"))[0]
    flip(hurt, place)
    with pytest.raises(DamagedFileError, match=rf"{hurt.name}.*embbench grid --out"):
        read_frames(Results(results), registries.default(), METRICS)


def test_a_moved_results_folder_still_reports(
    finished: tuple[Path, Grid], results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_frames(Results(finished[0]), registries.default(), METRICS)
    monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / "elsewhere"))  # the report needs the folder and nothing else
    moved = shutil.move(results, tmp_path / "new place" / "deeper")
    shutil.rmtree(Path(moved) / "scores")
    found = read_frames(Results(Path(moved)), registries.default(), METRICS)
    assert found.scores.equals(expected.scores)
    assert found.runs.equals(expected.runs)
    assert found.facts == expected.facts
    assert not (tmp_path / "elsewhere").exists()


def test_missing_parts_are_said(results: Path) -> None:
    next((results / "datasets").glob("*.h5")).unlink()
    with pytest.raises(UserError, match=r"is gone; run embbench grid --out"):
        read_frames(Results(results), registries.default(), METRICS)
    with pytest.raises(UserError, match="holds no results"):
        Results(results / "nothing").plans()
