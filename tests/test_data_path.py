"""The data path: compiled and numpy sums, reading ahead, zarr stores, compression, sampling from the stored cells."""

import json
import shutil
import threading
import warnings
import zipfile
from contextlib import closing

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from embbench.cache.cells import CONTROL, TYPES, H5Cells, cells_writer
from embbench.core import UserError
from embbench.datasets import _matrix
from embbench.datasets._ahead import ahead
from embbench.datasets._import import import_h5ad
from embbench.numerics import moments
from embbench.numerics.jit import has_numba
from embbench.numerics.moments import GroupMoments, log_normalise

GENES = ["KLF1", "TP53", "MYC", "GATA1", "SPI1", "BRCA1"]
KEYS = {
    "perturbation_key": "gene",
    "control": "non-targeting",
    "context_keys": ["line"],
    "min_cells": 5,
    "etest": False,
}


def screen(kind="csr", m=240):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "gene": pd.Categorical(rng.choice(["non-targeting", "KLF1", "MYC"], m)),
            "line": rng.choice(["A", "B"], m),
            "lane": pd.array(rng.integers(0, 2, m), dtype="Int64"),
            "total": rng.uniform(50, 99, m),
        },
        index=[f"cell{i}" for i in range(m)],
    )
    counts = rng.poisson(rng.gamma(1, 2, (m, len(GENES)))).astype(np.float32)
    x = counts if kind == "dense" else getattr(sparse, f"{kind}_matrix")(counts)
    return anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=GENES))


def store(path, data, version, **how):
    before = anndata.settings.zarr_write_format
    anndata.settings.zarr_write_format = version
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr on strings in format 3
            data.write_zarr(path, **how)
    finally:
        anndata.settings.zarr_write_format = before
    return path


def sums(x, group, groups, form, monkeypatch):
    monkeypatch.setattr(moments, "has_numba", lambda: form == "compiled")
    monkeypatch.setattr(moments, "_WORTH", -1)
    made = GroupMoments(groups, x.shape[1])
    for lo in range(0, x.shape[0], 70):
        made.add(x[lo : lo + 70], group[lo : lo + 70])
    return made


@pytest.mark.skipif(not has_numba(), reason="numba is not installed")
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint16])
def test_compiled_sums_are_those_of_numpy_to_the_bit(kind, monkeypatch):
    rng = np.random.default_rng(0)
    x = sparse.random(200, 9, 0.3, "csr", random_state=0, data_rvs=lambda n: rng.gamma(2, 40, n)).astype(kind)
    group = rng.integers(-1, 5, 200)
    group[group == 3] = 1  # a group without cells
    fast, plain = (sums(x, group, 6, form, monkeypatch) for form in ("compiled", "numpy"))
    assert (fast.total == plain.total).all()
    assert (fast.squares == plain.squares).all()
    dense = pd.DataFrame(x.toarray().astype(np.float64)).groupby(group)
    present = sorted(set(group[group >= 0]))
    np.testing.assert_allclose(fast.mean()[present], dense.mean().loc[0:], rtol=1e-13)
    np.testing.assert_allclose(fast.variance()[present], dense.var().loc[0:], rtol=1e-9)
    assert not fast.mean()[3].any()
    none = GroupMoments(6, 9).add(x, np.full(200, -1))
    assert not none.count.any()
    assert not none.add(x[:0], group[:0]).total.any()


def test_normalising_in_pieces_moves_no_bit(monkeypatch):
    x = sparse.random(300, 40, 0.2, "csr", random_state=1, data_rvs=lambda n: np.arange(1, n + 1) % 50 + 1.0)
    x = sparse.vstack([x[:0], sparse.csr_matrix((5, 40)), x, sparse.csr_matrix((3, 40))], format="csr")
    depth = np.random.default_rng(0).uniform(1, 9, x.shape[0])
    whole = np.log1p(x.toarray() * (1e4 / depth)[:, None]).astype(np.float32)
    for piece in (1, 7, 1 << 15):
        monkeypatch.setattr(moments, "_PIECE", piece)
        np.testing.assert_array_equal(log_normalise(x, depth).toarray(), whole)
    assert log_normalise(x[:5], depth[:5]).nnz == 0
    assert log_normalise(x[:0], depth[:0]).shape == (0, 40)


def test_one_item_is_read_ahead_and_errors_keep_their_place():
    begun = []

    def items():
        for i in range(4):
            begun.append(i)
            if i == 3:
                raise UserError("item 3 is bad")
            yield i

    started, seen = ahead(items()), []
    for _ in range(3):
        seen.append(next(started))
        assert max(begun) <= seen[-1] + 2
    assert seen == [0, 1, 2]
    with pytest.raises(UserError, match="item 3"):
        next(started)
    begun.clear()
    with closing(ahead(items())) as started:
        assert next(started) == 0
    assert begun == [0, 1]  # the item that was under way is finished, no other is begun
    assert not [t for t in threading.enumerate() if t.name.startswith("ahead")]


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_store_gives_the_bits_of_the_h5ad(kind, version, tmp_path, fresh_home):
    data = screen(kind)
    data.layers["twice"] = data.X * 2
    data.write_h5ad(tmp_path / "s.h5ad")
    options = {**KEYS, "batch_key": "lane", "size_factor": "total", "layer": "twice" if kind == "csr" else None}
    plain = import_h5ad(tmp_path / "s.h5ad", "plain", **options)
    path = store(tmp_path / "s.zarr", data, version, **({} if kind == "csc" else {"chunks": (50, 3)}))
    got = import_h5ad(path, "store", **options)
    assert got.meta["digest"] == plain.meta["digest"]
    assert got.meta["cells_digest"] == plain.meta["cells_digest"]
    assert got.effects.tobytes() == plain.effects.tobytes()
    assert got.meta["import_report"] == plain.meta["import_report"]
    assert got.meta["source_sha256"] != plain.meta["source_sha256"]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        for part in sorted(p for p in path.rglob("*") if p.is_file()):
            file.write(part, part.relative_to(path))
    assert import_h5ad(tmp_path / "z.zip", "zip", **options).meta["digest"] == plain.meta["digest"]


def test_a_sharded_store_is_read(tmp_path, fresh_home):
    data = screen()
    data.write_h5ad(tmp_path / "s.h5ad")
    path = store(tmp_path / "s.zarr", data, 3)
    import zarr

    group = zarr.open_group(path, mode="a")
    for name in ("data", "indices"):
        values = group[f"X/{name}"][...]
        group["X"].create_array(name, data=values, chunks=(64,), shards=(256,), overwrite=True)
    got = import_h5ad(path, "store", **KEYS)
    assert got.meta["digest"] == import_h5ad(tmp_path / "s.h5ad", "plain", **KEYS).meta["digest"]


def chunks_of(path, name):
    """Files of the chunks of an array, of either format."""
    return sorted(p for p in (path / name).rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr.json")))


def cut(name):
    def spoil(path):
        chunk = chunks_of(path, name)[0]
        chunk.write_bytes(chunk.read_bytes()[:10])

    return spoil


DAMAGE = {
    "not zarr": (lambda p: [f.unlink() for f in (*p.glob(".zgroup"), *p.glob("zarr.json"))], "is a folder, expected"),
    "metadata": (lambda p: (p / "zarr.json").write_text("{"), "the top group cannot be read"),
    "no obs": (lambda p: shutil.rmtree(p / "obs"), "group 'obs' as AnnData .* found only .*X"),
    "no matrix": (lambda p: shutil.rmtree(p / "X"), "there is no X"),
    "chunk is cut": (cut("X/data"), "X/data cannot be read .*damaged"),
    "column is cut": (cut("obs/gene/codes"), "obs/gene/codes cannot be read"),
    "names are cut": (cut("var/_index"), "var/_index cannot be read"),
    "chunk is gone": (lambda p: chunks_of(p, "X/indices")[0].unlink(), "X/indices has 0 of its 1 chunks; .*copy it"),
    "no array": (lambda p: shutil.rmtree(p / "X" / "data"), "X cannot be read"),
    "array metadata": (lambda p: (p / "X" / "data" / "zarr.json").write_text("[]"), "X/data cannot be read"),
    "codec": (
        lambda p: (p / "X/data/zarr.json").write_text((p / "X/data/zarr.json").read_text().replace("zstd", "zsnd")),
        "X/data cannot be read",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_stores_are_named_and_leave_nothing(case, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / "home"))
    spoil, message = DAMAGE[case]
    path = store(tmp_path / "s.zarr", screen(), 3)
    spoil(path)
    with pytest.raises(UserError, match=f"(?s)s.zarr.*{message}") as caught:
        import_h5ad(path, "s", **KEYS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "home").exists()


def test_a_bad_zip_is_named(tmp_path, fresh_home):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
        file.writestr("s.zarr/zarr.json", "{}")
    with pytest.raises(UserError, match=r"s\.zip: the top group cannot be read"):
        import_h5ad(tmp_path / "s.zip", "s", **KEYS)


@pytest.mark.parametrize("how", [None, "gzip", "lzf"])
def test_compression_is_told_when_it_matters(how, tmp_path, fresh_home, monkeypatch):
    monkeypatch.setattr(_matrix, "DEAR", 100)
    screen().write_h5ad(tmp_path / "s.h5ad", compression=how)
    report = import_h5ad(tmp_path / "s.h5ad", "s", **KEYS).meta["import_report"]
    told = [line for line in report if "compressed (" in line]
    assert len(told) == (how is not None)
    assert all(f"X is compressed ({how}): unpacking its " in line for line in told)
    assert any(line.startswith("cells kept: ") and "uncompressed rows" in line for line in report)
    monkeypatch.setattr(_matrix, "DEAR", 1 << 30)
    assert not any(
        "compressed (" in line for line in import_h5ad(tmp_path / "s.h5ad", "t", seed=1, **KEYS).meta["import_report"]
    )


def test_a_filter_that_is_not_installed_is_named(tmp_path, fresh_home, monkeypatch):
    screen().write_h5ad(tmp_path / "s.h5ad", compression="gzip")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    with pytest.raises(UserError, match=r"X is compressed by HDF5 filter 1 \(gzip\), .*hdf5plugin"):
        import_h5ad(tmp_path / "s.h5ad", "s", **KEYS)


def test_sampling_cells_reads_little_more_than_the_cells(tmp_path):
    rng, genes, m = np.random.default_rng(0), 5000, 4000
    place = np.arange(0, 500 * m + 1, 500)
    columns = (np.tile(np.arange(0, genes, 10), m) + np.repeat(rng.integers(0, 10, m), 500)).astype(np.int32)
    cells = sparse.csr_matrix((rng.random(500 * m, dtype=np.float32) + 1, columns, place), (m, genes))
    facts = {name: np.zeros(m, kind) for name, kind in TYPES.items()} | {
        "row": np.full(m, CONTROL),
        "total": np.full(m, np.nan),
    }
    with cells_writer(tmp_path / "cells.h5", genes) as writer:
        writer.append(cells, np.array([f"c{i}" for i in range(m)]), **facts)
        assert "cells kept: 4,000 with 2,000,000 values, 16 MB" in writer.summary()
        writer.finish(np.zeros(1, np.int32), np.zeros(1, np.int32))
    opened = H5Cells(tmp_path / "cells.h5", np.array([f"g{i}" for i in range(genes)], dtype=object))
    assert opened.n_controls(0) == m
    some = np.sort(rng.choice(m, 20, replace=False))
    before = bytes_read()
    counts = opened.counts(0, index=some).values
    read = bytes_read() - before
    np.testing.assert_allclose(counts.toarray(), np.expm1(cells[some].toarray()), rtol=1e-6, atol=1e-3)
    assert read < 4 * 8 * counts.nnz or read == 0  # 0 where the system does not count


def bytes_read():
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            return json.loads(dict(line.split(": ") for line in file)["rchar"])
    except OSError:
        return 0
