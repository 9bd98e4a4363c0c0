"""Import of `.h5ad`: every storage gives what numpy gives, blocks and chunks do not matter, mistakes are named."""

import functools
import json
import pickle
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from embbench.cache import store
from embbench.cache.cells import H5Cells, cells_writer, open_cells
from embbench.cache.screens import imported, load_imported
from embbench.core import UserError
from embbench.datasets import _compute, _import
from embbench.datasets._import import import_h5ad
from embbench.datasets.anndata_file import AnnDataFile

GENES = ["KLF1", "TP53", "MYC", "GATA1", "SPI1", "BRCA1", "RP11-34P13.7", "H1F0"]
KEYS = {"perturbation_key": "gene", "control": "non-targeting"}
FULL = {**KEYS, "context_keys": ["line"], "batch_key": "batch", "min_cells": 5}


def screen(seed=0, m=600):
    """Counts of cells in two lines and three batches; line B has no controls in batch b2."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "gene": rng.choice(["non-targeting", "KLF1", "MYC", "KLF1+MYC", "H1F0"], m, p=[0.3, 0.2, 0.2, 0.15, 0.15]),
            "line": rng.choice(["A", "B"], m),
            "batch": rng.choice(["b0", "b1", "b2"], m),
        },
        index=[f"cell{i}" for i in range(m)],
    )
    bare = (obs["gene"] == "non-targeting") & (obs["line"] == "B") & (obs["batch"] == "b2")
    obs.loc[bare, "batch"] = "b1"
    counts = rng.poisson(rng.gamma(1, 2, (m, len(GENES)))).astype(np.float32)
    counts[:, 6] += 1
    obs["total"] = counts.sum(axis=1) * 7
    for column in ("gene", "line", "batch"):
        obs[column] = pd.Categorical(obs[column])
    return anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=GENES))


def write(path, data, kind=None):
    if kind is not None:
        dense = np.asarray(data.X.todense())
        data = data.copy()
        data.X = dense if kind == "dense" else getattr(sparse, f"{kind}_matrix")(dense)
    data.write_h5ad(path)
    return path


@pytest.fixture
def path(tmp_path, fresh_home):
    return write(tmp_path / "s.h5ad", screen())


def log_cells(data, depth="total"):
    counts = np.asarray(data.X.todense(), dtype=np.float64)
    total = counts.sum(axis=1) if depth is None else data.obs[depth].to_numpy(np.float64)
    return np.log1p(1e4 * counts / total[:, None])


def stored(got):
    """The half and row of each stored cell, in file order."""
    return got.cells.columns()


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_storages_and_chunks_agree(tmp_path, monkeypatch, kind):
    digests = set()
    for i, values in enumerate((1 << 22, 50)):
        monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / f"home{i}"))
        monkeypatch.setattr(_compute, "open_matrix", functools.partial(_compute.open_matrix, chunk_values=values))
        got = import_h5ad(write(tmp_path / "s.h5ad", screen(), kind), "s", **FULL, dose_key=None)
        digests.add((got.meta["digest"], got.meta["cells_digest"], got.effects.tobytes()))
        assert [p.name for p in (tmp_path / f"home{i}" / "data").glob(".import*")] == []
    assert len(digests) == 1
    assert next(iter(digests))[0] == reference_digest(tmp_path, monkeypatch)


def reference_digest(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / "reference"))
    return import_h5ad(write(tmp_path / "r.h5ad", screen()), "r", **FULL).meta["digest"]


def expected(data, got, matching, shared):
    """Effects, truth and variance by pandas loops, with the halves that were drawn."""
    x, obs = log_cells(data), data.obs.reset_index(drop=True)
    half = np.full(len(obs), -1)
    batch_of = np.zeros(len(obs), int) if matching == "pooled" else obs["batch"].cat.codes.to_numpy()
    bare = (obs["line"] == "B") & (obs["batch"] == "b2") if matching != "pooled" else np.zeros(len(obs), bool)
    columns = stored(got)
    half[np.flatnonzero(~bare)] = columns["half"]
    out = []
    for entities, line in zip(got.entities, got.context, strict=True):
        label = "+".join(entities).replace("H1-0", "H1F0")
        parts, weights = [], []
        for b in np.unique(batch_of):
            here = (obs["line"] == line).to_numpy() & (batch_of == b) & ~bare
            p = x[here & (obs["gene"] == label).to_numpy()]
            a, c = (x[here & (half == 2)],) * 2 if shared else (x[here & (half == 0)], x[here & (half == 1)])
            if len(p) == 0 or len(a) == 0 or len(c) == 0:
                continue
            n = len(a) if shared else (len(a) + len(c)) / 2
            weights.append(1.0 if matching == "equal-batch" else len(p) * n / (len(p) + n))
            noise = p.var(axis=0, ddof=1) / len(p) + c.var(axis=0, ddof=1) / len(c)
            parts.append((p.mean(axis=0) - a.mean(axis=0), p.mean(axis=0) - c.mean(axis=0), noise))
        w = np.array(weights) / sum(weights)
        out.append(
            (sum(v * q[0] for v, q in zip(w, parts, strict=True)),
             sum(v * q[1] for v, q in zip(w, parts, strict=True)),
             sum(v**2 * q[2] for v, q in zip(w, parts, strict=True)))
        )  # fmt: skip
    return [np.array(v) for v in zip(*out, strict=True)]


@pytest.mark.parametrize("controls", ["halves", "shared"])
@pytest.mark.parametrize("matching", ["batch", "equal-batch", "pooled"])
def test_effects_are_those_of_numpy(path, matching, controls):
    got = import_h5ad(path, "s", **FULL, size_factor="total", matching=matching, controls=controls)
    effects, truth, variance = expected(screen(), got, matching, controls == "shared")
    np.testing.assert_allclose(got.effects, effects, atol=1e-6)
    np.testing.assert_allclose(got.truth, truth, atol=1e-6)
    np.testing.assert_allclose(got.truth_variance, variance, rtol=1e-5)
    assert got.entities[:4] == (("GATA1",),) * 0 + (("H1-0",), ("KLF1",), ("KLF1", "MYC"), ("MYC",))
    assert got.contexts == ("A", "B")
    assert (got.effects == got.truth).all() == (controls == "shared")
    assert got.meta["import_counts"]["batches_without_controls"] == int(matching != "pooled")


def test_baselines_and_cells(path):
    got = import_h5ad(path, "s", **FULL, size_factor="total")
    for c in range(2):
        a, b = (got.cells.controls(c, h).astype(np.float64) for h in "AB")
        assert abs(len(a) - len(b)) <= 1
        np.testing.assert_allclose(got.baseline[c], a.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(got.baseline_truth[c], b.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(got.baseline_variance[c], a.var(axis=0, ddof=1), rtol=1e-5)
        assert len(got.cells.controls(c, "all")) == len(a) + len(b)
    data = screen()
    x, obs = log_cells(data).astype(np.float32), data.obs
    keep = ~((obs["line"] == "B") & (obs["batch"] == "b2"))
    for i in (0, 5):
        label = "+".join(got.entities[i]).replace("H1-0", "H1F0")
        mine = x[(keep & (obs["gene"] == label) & (obs["line"] == got.context[i])).to_numpy()]
        np.testing.assert_array_equal(got.cells.perturbed(i), mine)
        assert got.n_cells[i] == len(mine)
    again = pickle.loads(pickle.dumps(got.cells))
    np.testing.assert_array_equal(again.perturbed(3), got.cells.perturbed(3))
    with pytest.raises(ValueError, match="half must be one of A, B, all, got 'C'"):
        again.controls(0, "C")


def test_halves_depend_on_the_seed_alone(path, tmp_path, monkeypatch):
    halves = []
    for i, seed in enumerate((0, 0, 1)):
        monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / f"h{i}"))
        got = import_h5ad(path, "s", **FULL, seed=seed)
        halves.append(got.cells.columns())
    assert (halves[0]["half"] == halves[1]["half"]).all()
    assert (halves[0]["half"] != halves[2]["half"]).any()
    control = halves[0]["row"] == -1
    counts = pd.DataFrame({k: v[control] for k, v in halves[0].items()}).groupby(["context", "batch"])["half"].mean()
    assert counts.between(0.4, 0.6).all()


def test_blocks_of_groups_do_not_move_a_bit(path, tmp_path, monkeypatch):
    whole = import_h5ad(path, "s", **FULL)
    monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(_compute, "blocks", functools.partial(_compute.blocks, budget=1))
    assert import_h5ad(path, "s", **FULL).meta["digest"] == whole.meta["digest"]


def test_same_file_is_not_computed_again(path, fresh_home, monkeypatch):
    first = import_h5ad(path, "one", **FULL)
    monkeypatch.setattr(_import, "compute", lambda *_: pytest.fail("computed again"))
    second = import_h5ad(path, "two", **FULL)
    assert second.name == "two"
    assert second.meta["digest"] == first.meta["digest"] == load_imported("one").meta["digest"]
    assert len([p for p in (fresh_home / "data").iterdir() if p.is_dir() and not p.name.startswith(".")]) == 1
    assert set(imported()) == {"one", "two"}
    component = AnnDataFile(
        str(path), KEYS["perturbation_key"], KEYS["control"], **{k: FULL[k] for k in FULL if k not in KEYS}
    )
    np.testing.assert_array_equal(component.load().effects, first.effects)


@pytest.mark.parametrize("stage", ["reading cells", "E-test"])
def test_an_interrupted_import_leaves_nothing(path, tmp_path, monkeypatch, stage):
    monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / "new" / "home"))

    def interrupt(at, done, total):
        if at == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_h5ad(path, "s", **FULL, progress=interrupt)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("file", ["screen.h5", "cells.h5"])
def test_damage_is_set_aside_and_computed_again(path, fresh_home, file):
    first = import_h5ad(path, "s", **FULL)
    damaged = fresh_home / "data" / first.meta["digest"] / file
    damaged.write_bytes(damaged.read_bytes()[:1000])
    again = import_h5ad(path, "s", **FULL)
    np.testing.assert_array_equal(again.cells.perturbed(0), first.cells.perturbed(0))
    assert damaged.with_name(f"{file}.damaged").exists()


def test_cells_file_is_an_artefact_of_the_store(path, fresh_home):
    got = import_h5ad(path, "s", **FULL)
    file = fresh_home / "data" / got.meta["digest"] / "cells.h5"
    open_cells(file).close()
    arrays, _ = store.read_h5(file, "cells")
    assert arrays["data"].dtype == np.float32
    flipped = bytearray(file.read_bytes())
    with h5py.File(file) as opened:
        place = flipped.find(opened["data"][:64].tobytes())
    flipped[place] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(store.DamagedFileError, match="a bit was changed"):
        H5Cells(file).controls(0)
    with pytest.raises(UserError, match="are gone"):
        H5Cells(fresh_home / "none.h5").controls(0)
    with pytest.raises(RuntimeError), cells_writer(fresh_home / "w.h5", 3):
        raise RuntimeError
    assert not list(fresh_home.glob("*w.h5*"))


@pytest.mark.parametrize(("cells", "kept"), [("controls", 0), ("none", None)])
def test_cells_can_be_left_out(path, cells, kept):
    got = import_h5ad(path, "s", **FULL, cells=cells)
    assert (got.cells is None) == (kept is None)
    if kept is not None:
        assert len(got.cells.perturbed(0)) == 0
        assert len(got.cells.controls(0)) > 10


def test_select_covariates_doses_and_labels(tmp_path, fresh_home):
    data = screen()
    data.obs["dose"] = np.where(data.obs["gene"] == "non-targeting", np.nan, np.arange(600) % 2 + 0.5)
    data.obs["split"] = data.obs["gene"].map({"KLF1": "test"}).astype(object).fillna("train")
    data.obs["number"] = data.obs["gene"].cat.codes.astype(float)
    data.obs["gene"] = data.obs["gene"].astype(str)
    data.obs.loc["cell0", "gene"] = np.nan
    got = import_h5ad(
        write(tmp_path / "s.h5ad", data),
        "s",
        **{**FULL, "context_keys": ["line", "batch"], "batch_key": None},
        dose_key="dose",
        covariates=["split", "number"],
        select={"line": "A"},
    )
    assert got.contexts == ("A|b0", "A|b1", "A|b2")
    assert sorted(set(got.dose.tolist())) == [0.5, 1.5]
    assert got.covariates["split"].tolist() == ["test" if e == ("KLF1",) else "train" for e in got.entities]
    assert got.covariates["number"].dtype == np.float64
    counts = got.meta["import_counts"]
    assert counts["cells_not_selected"] == int((data.obs["line"] != "A").sum())
    assert counts["cells_read"] == 600


def test_empty_cells_small_conditions_and_lonely_contexts_are_counted(tmp_path, fresh_home):
    data = screen()
    counts = data.X.tolil()
    counts[np.flatnonzero((data.obs["gene"] == "KLF1") & (data.obs["line"] == "A"))[-3:]] = 0
    data.X = counts.tocsr()
    line, gene = data.obs["line"].astype(str).to_numpy(), data.obs["gene"].astype(str).to_numpy()
    line[:40], gene[:40] = "C", "MYC"
    line[40:80], gene[40:80] = "D", "non-targeting"
    gene[np.flatnonzero((gene == "H1F0") & (line == "A"))[2:]] = "KLF1"
    data.obs["gene"] = pd.Categorical(gene)
    data.obs["line"] = pd.Categorical(line)
    report = import_h5ad(write(tmp_path / "s.h5ad", data), "s", **FULL).meta
    assert report["import_counts"]["cells_without_counts"] == 3
    assert report["import_names"]["contexts_without_controls"] == ["C"]
    assert report["import_counts"]["cells_in_contexts_without_controls"] == 40
    assert report["import_names"]["contexts_without_conditions"] == ["D"]
    assert report["import_names"]["conditions_small"] == ["H1-0 in A"]
    assert any("contexts without two controls, dropped: 1 (C)" in line for line in report["import_report"])
    json.dumps(report)


def test_knock_down_is_measured_and_filtered(tmp_path, fresh_home):
    data = screen()
    counts = data.X.toarray()
    counts[(data.obs["gene"] == "KLF1").to_numpy(), 0] *= 0
    data.X = sparse.csr_matrix(counts)
    data.obs["total"] = 100.0
    path = write(tmp_path / "s.h5ad", data)
    got = import_h5ad(path, "s", **{**FULL, "matching": "pooled"}, size_factor="total")
    for i, (entities, line) in enumerate(zip(got.entities, got.context, strict=True)):
        here = data.obs["line"] == line
        label = "+".join(entities).replace("H1-0", "H1F0")
        mine, theirs = (
            counts[(here & (data.obs["gene"] == g)).to_numpy()].mean(axis=0) for g in (label, "non-targeting")
        )
        columns = [GENES.index(e.replace("H1-0", "H1F0")) for e in entities]
        share = max(mine[c] / theirs[c] for c in columns)
        assert got.covariates["target_residual"][i] == pytest.approx(share, rel=1e-4, abs=1e-7)
    strict = import_h5ad(path, "s", **{**FULL, "matching": "pooled"}, size_factor="total", max_residual=0.3)
    assert set(strict.entities) == {("KLF1",)}
    assert strict.meta["import_counts"]["conditions_not_knocked_down"] == 6
    np.testing.assert_array_equal(strict.cells.perturbed(1), got.cells.perturbed(5))


def test_scale_is_detected(tmp_path, fresh_home):
    data = screen()
    logged = data.copy()
    logged.X = sparse.csr_matrix(log_cells(data).astype(np.float32))
    logged.layers["counts"] = data.X
    path = write(tmp_path / "l.h5ad", logged)
    from_logs, from_counts = (import_h5ad(path, "s", **FULL, size_factor="total", layer=x) for x in (None, "counts"))
    assert (from_logs.meta["scale"], from_counts.meta["scale"]) == ("lognorm", "counts")
    np.testing.assert_array_equal(from_logs.effects, from_counts.effects)
    assert from_counts.meta["size_factor"] == "total"
    assert any("not used" in line for line in from_logs.meta["import_report"])
    assert import_h5ad(path, "s", **FULL, layer="counts").meta["size_factor"] == "panel"


def test_odd_columns_are_read(tmp_path, fresh_home):
    """Nullable integers, plain text, booleans, AnnData 0.7 categories, float16 dense, a gene column."""
    data = screen()
    data.obs["gene"] = data.obs["gene"].astype(str).replace({"non-targeting": "ctrl"})
    data.obs["batch"] = pd.array(data.obs["batch"].cat.codes.astype(int), dtype="Int64")
    data.obs["line"] = data.obs["line"] == "A"
    data.var["symbol"] = GENES
    data.var_names = [f"g{i}" for i in range(len(GENES))]
    data.X = data.X.toarray().astype(np.float16)
    path = write(tmp_path / "s.h5ad", data)
    labels = data.obs["gene"].astype(str).tolist()
    with h5py.File(path, "a") as file:
        del file["obs/gene"]
        file["obs/gene"] = labels
    got = import_h5ad(path, "s", **{**FULL, "control": ()}, gene_key="symbol")
    assert got.contexts == ("False", "True")
    assert got.genes.tolist()[:2] == ["KLF1", "TP53"]
    plain = import_h5ad(write(tmp_path / "p.h5ad", screen()), "p", **FULL)
    np.testing.assert_array_equal(np.sort(got.n_cells), np.sort(plain.n_cells))
    with h5py.File(path, "a") as file:
        levels = sorted(set(labels))
        del file["obs/gene"]
        file["obs/__categories/gene"] = np.array(levels, dtype=object)
        file["obs/gene"] = np.array([levels.index(v) for v in labels], dtype=np.int8)
        file["obs/gene"].attrs["categories"] = file["obs/__categories/gene"].ref
    np.testing.assert_array_equal(
        import_h5ad(path, "s", **FULL | {"control": ()}, gene_key="symbol").effects, got.effects
    )


def test_scanpy_aggregate_is_our_pooled_pseudobulk(session_home):
    oracle = np.load(Path(__file__).parent / "oracles" / "expected" / "scanpy_aggregate.npz")
    got = AnnDataFile(
        "package:kang18.h5ad",
        "perturbation",
        "control",
        context_keys=["celltype"],
        size_factor="n_counts",
        matching="pooled",
        controls="shared",
    ).load()
    means = {(c, p): m for c, p, m in zip(oracle["context"], oracle["perturbation"], oracle["means"], strict=True)}
    for i, cell_type in enumerate(got.contexts):
        np.testing.assert_allclose(got.baseline[i], means[cell_type, "control"], atol=1e-6, rtol=0)
        effect = means[cell_type, "IFNB1"].astype(np.float64) - means[cell_type, "control"]
        np.testing.assert_allclose(got.effects[got.context == cell_type][0], effect, atol=1e-6, rtol=0)
    assert got.n_cells.tolist() == oracle["cells"][oracle["perturbation"] == "IFNB1"].tolist()


def null_correlation(path, cells, tmp_path, controls, draws):
    """Mean Pearson of the leave-one-out train mean with the truth, 10 fake perturbations cut out of controls."""
    scores = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        fake = cells.copy()
        fake.obs["gene"] = pd.Categorical.from_codes(
            rng.permutation(len(cells)) % 11, ["control", *(f"fake{i}" for i in range(10))]
        )
        got = import_h5ad(
            write(tmp_path / f"{path}{seed}.h5ad", fake), path, "gene", "control", entity_type="compound",
            batch_key="bio_rep", controls=controls, cells="none", etest=False, seed=seed,
        )  # fmt: skip
        assert len(got) == 10
        mean = (got.effects.sum(axis=0) - got.effects) / 9
        scores += [np.corrcoef(m, t)[0, 1] for m, t in zip(mean, got.truth, strict=True)]
    return float(np.mean(scores))


@pytest.mark.shared
def test_nothing_is_predicted_in_a_null_screen(tmp_path, fresh_home, shared_data):
    cells = anndata.read_h5ad(shared_data / "expression" / "papalexi2021_eccite_lowmoi_299genes.h5ad")
    cells = cells[cells.obs["perturbation"] == "non-targeting"].copy()
    halves = null_correlation("halves", cells, tmp_path, "halves", 12)
    shared = null_correlation("shared", cells, tmp_path, "shared", 3)
    assert abs(halves) < 0.05
    assert shared > 0.3


def edit(path, change):
    """Apply ``change`` to the open file."""
    with h5py.File(path, "a") as file:
        change(file)


def h5(change):
    return lambda path: edit(path, change)


def remade(values):
    return h5(lambda file: (file.pop("X"), file.create_dataset("X", data=values)))


def put(name, values, **attributes):
    def change(file):
        attrs = dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update({**attrs, **attributes})

    return lambda path: edit(path, change)


def obs(column, value, rows=slice(0, 3)):
    def change(path):
        data = anndata.read_h5ad(path)
        if data.obs[column].dtype == "category":
            data.obs[column] = data.obs[column].astype(object)
        data.obs.loc[data.obs_names[rows], column] = value
        data.write_h5ad(path)

    return change


def value(new, at=30):
    return lambda path: edit(path, lambda file: file["X/data"].__setitem__(at, new))


def matrix(make):
    def change(path):
        data = anndata.read_h5ad(path)
        data.X = make(data)
        data.write_h5ad(path)

    return change


def genes(names):
    return put("var/_index", names)


def scaled(data):
    dense = data.X.toarray()
    return (dense - dense.mean(axis=0)) / dense.std(axis=0)


MISTAKES = {
    "no such file": (lambda p: p.unlink(), {}, "no such file"),
    "text": (lambda p: p.write_text("gene,cell\n1,2\n"), {}, "HDF5.*not HDF5"),
    "empty file": (lambda p: p.write_bytes(b""), {}, "0 bytes"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), {}, "truncated.*copy it again"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), {}, "is a folder, expected an .h5ad"),
    "other hdf5": (h5(lambda f: f.move("obs", "o")), {}, "group 'obs'.*found only"),
    "perturbation key": (None, {"perturbation_key": "gen"}, "--perturbation-key 'gen'.*did you mean gene.*batch, gene"),
    "context key": (None, {"context_keys": ["lines"]}, "--context-key 'lines'.*did you mean line"),
    "batch key": (None, {"batch_key": "gem"}, "--batch-key 'gem' is not a column"),
    "size factor key": (None, {"size_factor": "totl"}, "--size-factor 'totl'.*did you mean total"),
    "size factor text": (None, {"size_factor": "line"}, "--size-factor 'line' must be numeric, found 'A'"),
    "size factor zero": (obs("total", 0.0), {"size_factor": "total"}, "positive and finite, found 0 in cell"),
    "size factor nan": (obs("total", np.nan), {"size_factor": "total"}, "positive and finite, found nan in cell"),
    "dose text": (None, {"dose_key": "batch"}, "--dose-key 'batch' must be numeric, found 'b0'"),
    "gene key": (None, {"gene_key": "symbol"}, "--gene-key 'symbol' is not a column of var"),
    "layer": (None, {"layer": "counts"}, "there is no layers/counts"),
    "covariate key": (None, {"covariates": ["splt"]}, "--covariate 'splt' is not a column"),
    "covariate varies": (None, {"covariates": ["total"]}, "'total' must be constant within a condition"),
    "select key": (None, {"select": {"lane": "1"}}, "--select 'lane' is not a column"),
    "select value": (None, {"select": {"line": "a"}}, "line=a is not among its values.*A, B"),
    "select nothing": (obs("line", "C", [0]), {"select": {"line": "C", "batch": "b9"}}, "batch=b9 is not among"),
    "control": (None, {"control": "non-target"}, "--control 'non-target' is not.*did you mean non-targeting"),
    "no control": (obs("gene", "TP53", slice(None)), {"control": ()}, "no control cells.*TP53.*--control"),
    "only controls": (obs("gene", "non-targeting", slice(None)), {}, "no condition is left"),
    "all too small": (None, {"min_cells": 1000}, "no condition is left.*conditions below 1000 cells, dropped: 8"),
    "knock-down": (None, {"max_residual": 1e-9}, "no condition is left.*keeps more than"),
    "key twice": (None, {"context_keys": ["line", "line"]}, "line is used twice"),
    "key is perturbation": (None, {"context_keys": ["gene"]}, "gene is used twice"),
    "nan": (value(np.nan), {}, r"not finite: nan in cell \d+ .*gene '\w"),
    "infinite": (value(np.inf), {}, "not finite: inf in cell"),
    "negative": (value(-2.0), {}, "holds negative values .down to -2"),
    "fraction": (value(0.5), {}, "fractions up to"),
    "small fraction": (matrix(lambda d: d.X.minimum(9) - (d.X > 2) * 0.5), {}, "mixes fractions with whole"),
    "z-scored": (matrix(scaled), {}, "negative values.*z-scored"),
    "cpm": (matrix(lambda d: d.X * 1234.567), {}, "too large for logarithms"),
    "log of counts": (matrix(lambda d: d.X.log1p()), {}, "log1p of whole numbers"),
    "too large": (matrix(lambda d: d.X * 7.3), {"scale": "lognorm"}, "above 15 among logarithms"),
    "all zero": (matrix(lambda d: d.X * 0), {}, "no expression"),
    "bool": (remade(np.ones((600, 8), bool)), {}, "holds bool, expected numbers"),
    "text matrix": (remade(np.full((600, 8), "a", "S1")),
                    {}, "expected numbers"),
    "one dimension": (remade(np.ones(5)), {}, "has shape"),
    "wrong shape": (remade(np.ones((600, 5))),
                    {}, "shape .600, 5., expected 600 cells x 8 genes"),
    "indptr": (h5(lambda f: f["X/indptr"].__setitem__(600, 1)), {}, "X/indptr does not describe 600 rows"),
    "indices": (h5(lambda f: f["X/indices"].__setitem__(5, 99)), {}, "X/indices run from 0 to 99"),
    "no data": (h5(lambda f: f.pop("X/data")), {}, "X cannot be read"),
    "storage": (h5(lambda f: f["X"].attrs.__setitem__("encoding-type", "coo")), {}, "stored as coo"),
    "no matrix": (h5(lambda f: f.pop("X")), {}, "there is no X.*--layer"),
    "duplicate genes": (genes([*GENES[:-1], "TP53"]), {}, r"gene names must be unique.*TP53.*--gene-key"),
    "category codes": (h5(lambda f: f["obs/gene/codes"].__setitem__(0, 77)), {}, "obs/gene cannot be read"),
    "scale": (None, {"scale": "log2"}, "scale must be one of auto, counts, lognorm, got 'log2'"),
    "matching": (None, {"matching": "none"}, "matching must be one of"),
    "cells": (None, {"cells": "some"}, "cells must be one of"),
    "min cells": (None, {"min_cells": 0}, "min_cells must be at least 1, got 0"),
    "min knock-down": (None, {"max_residual": -1.0}, "max_residual is a share"),
    "option": (None, {"contxt_keys": ["line"]}, "contxt_keys.*options are"),
    "name": (None, {"name": "a/b"}, "a dataset name has letters.*'a/b'"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named_and_leave_nothing(case, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / "home"))
    spoil, options, message = MISTAKES[case]
    path = write(tmp_path / "s.h5ad", screen())
    if spoil is not None:
        spoil(path)
    with pytest.raises(UserError, match=f"(?s){message}"):
        import_h5ad(path, **{"name": "s", **FULL, **options})
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_written_is_named(path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="is not a folder"):
        import_h5ad(path, "s", **FULL)
    monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match="EMBBENCH_HOME"):
        import_h5ad(path, "s", **FULL)
