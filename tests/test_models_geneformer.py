"""Geneformer against transformers' own BertForMaskedLM, its tokeniser's rules, and what its loader refuses."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _models import counts_of, official, read_counts, run_model
from oracles import _write_geneformer as writer
from safetensors.torch import load_file, save_file
from scipy import sparse
from tiny.geneformer import MODELS, write

from embbench import registry
from embbench.core import Counts, UserError
from embbench.embeddings.models._panel import AnyCase, columns_of, panel_of
from embbench.embeddings.models.geneformer import Geneformer

TOLERANCE = 1e-5
SHAPES = {"v1": writer.V1, "v2": writer.V2, "real_v1": writer.REAL_V1, "real_v2": writer.REAL_V2}


def read_words(case: str, shape: writer.Shape, request: pytest.FixtureRequest) -> writer.Dictionaries | None:
    """The published dictionaries for the real cases."""
    if not case.startswith("real"):
        return None
    return writer.read_dictionaries(request.getfixturevalue("shared_data") / "vocab", shape.version)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = {version: tmp_path_factory.mktemp(version) for version in ("v1", "v2")}
    for version, path in paths.items():
        writer.write_checkpoint(path, SHAPES[version].seed, shape=SHAPES[version])
    return paths


@pytest.fixture(scope="module")
def cells() -> dict[str, Counts]:
    return {version: counts_of(*writer.counts(SHAPES[version])) for version in ("v1", "v2")}


def gene(folder: Path, **parameters: Any) -> Geneformer:
    return Geneformer(str(folder), level="gene", device="cpu", **parameters)


@pytest.mark.parametrize(
    "case", [*("v1", "v2"), *(pytest.param(c, marks=pytest.mark.shared) for c in list(SHAPES)[2:])]
)
def test_cells_genes_layers_and_static_equal_transformers(
    tmp_path: Path, case: str, request: pytest.FixtureRequest
) -> None:
    shape, expected = SHAPES[case], official(f"geneformer_official_{case}")
    words = read_words(case, shape, request)
    assert writer.write_checkpoint(tmp_path, shape.seed, shape=shape, words=words) == str(expected["digest"])
    data = counts_of(expected["counts"], expected["data_genes"])
    model, first = gene(tmp_path), gene(tmp_path, readout="cls") if shape.version == "v2" else None
    for layer in range(shape.layers + 1):
        model.layer = layer  # the loaded network serves every layer
        got = run_model(model, data)
        assert np.abs(got.cells - expected["cell_layers"][layer]).max() < TOLERANCE
        got.near(expected["gene_names"], expected["gene_mean_layers"][layer], expected["gene_count"], TOLERANCE)
        if first is not None:
            first.layer = layer
            assert np.abs(run_model(first, data).cells - expected["cls_layers"][layer]).max() < TOLERANCE
    network = model.network()
    assert network.default_layer == shape.layers - 1
    place = {network.vocabulary[i]: row for row, i in enumerate(network.genes.tolist())}
    rows = [place[name] for name in expected["gene_names"].tolist()]
    assert np.array_equal(network.static().numpy()[rows], expected["static"])


@pytest.mark.shared
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_shared_fixture(shared_data: Path, version: str) -> None:
    source = shared_data / "oracles" / "geneformer" / version
    data = read_counts(source / "counts.h5ad", "ensembl_id", "n_counts")
    with np.load(source / "expected.npz") as expected:
        last = len(expected["cell_all_layers"]) - 1
        for layer, mean, cell in ((None, "gene_mean", "cell"), (last, "gene_mean_last", "cell_last")):
            got = run_model(gene(source / "checkpoint", layer=layer), data)
            got.near(expected["gene_names"], expected[mean], expected["gene_count"], TOLERANCE)
            assert np.abs(got.cells - expected[cell]).max() < TOLERANCE
        if version == "v2":
            got = run_model(gene(source / "checkpoint", readout="cls"), data)
            assert np.abs(got.cells - expected["cls"]).max() < TOLERANCE


def test_every_layout_of_weights_gives_the_same(tmp_path: Path, folders: dict[str, Path], cells: Any) -> None:
    writer.write_checkpoint(tmp_path, writer.V2.seed, shape=writer.V2, binary=True)
    wanted = run_model(gene(folders["v2"]), cells["v2"])
    assert np.array_equal(run_model(gene(tmp_path), cells["v2"]).mean, wanted.mean)
    state = load_file(folders["v2"] / "checkpoint" / "model.safetensors")
    bare = {key.removeprefix("bert."): value for key, value in state.items() if key.startswith("bert.")}
    (tmp_path / "checkpoint" / "pytorch_model.bin").unlink()
    save_file(bare, tmp_path / "checkpoint" / "model.safetensors")  # as BertModel.save_pretrained names them
    assert np.array_equal(run_model(gene(tmp_path / "checkpoint"), cells["v2"]).mean, wanted.mean)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_batches_order_and_neighbours_do_not_matter(folders: dict[str, Path], cells: Any, version: str) -> None:
    data = cells[version]
    one = run_model(gene(folders[version], batch=1), data)
    many = run_model(gene(folders[version], batch=32), data)
    order = np.arange(len(data))[::-1]
    turned = run_model(gene(folders[version]), data.rows(order))
    for got, vectors in ((many, many.cells), (turned, turned.cells[order])):
        assert np.abs(vectors - one.cells).max() < TOLERANCE
        assert np.abs(got.mean - one.mean).max() < TOLERANCE


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_empty_and_nearly_empty_cells(folders: dict[str, Path], cells: Any, version: str) -> None:
    data = cells[version]
    sparse_cells = sparse.lil_matrix((3, len(data.genes)), dtype=np.float32)
    sparse_cells[1, int(np.flatnonzero(data.genes == writer.GENES[30])[0])] = 2
    sparse_cells[2] = data.values[0]
    got = run_model(gene(folders[version]), counts_of(sparse_cells.tocsr(), data.genes))
    assert np.isfinite(got.cells).all()
    assert np.abs(got.cells[2] - run_model(gene(folders[version]), data.rows(np.arange(1))).cells[0]).max() < TOLERANCE
    row = got.mean[got.names.tolist().index(writer.GENES[30])]
    if data.values[0, int(np.flatnonzero(data.genes == writer.GENES[30])[0])] == 0:
        assert np.abs(row - got.cells[1]).max() < TOLERANCE  # the mean over one gene token is that token


def test_the_depth_is_not_needed(folders: dict[str, Path], cells: Any) -> None:
    wanted = run_model(gene(folders["v2"]), cells["v2"])
    unknown = replace(cells["v2"], values=cells["v2"].values * 0.25, total=np.full(len(cells["v2"]), np.nan))
    for got in (
        run_model(gene(folders["v2"]), unknown),
        run_model(gene(folders["v2"], depth="vocabulary"), cells["v2"]),
    ):
        assert np.array_equal(got.cells, wanted.cells)


def test_ties_by_token_do_not_depend_on_the_order_of_genes(folders: dict[str, Path], cells: Any) -> None:
    data = cells["v1"]
    order = np.random.default_rng(0).permutation(len(data.genes))
    turned = replace(data, values=data.values[:, order], genes=data.genes[order])
    by_token = [run_model(gene(folders["v1"], ties="token"), d).cells for d in (data, turned)]
    assert np.abs(by_token[0] - by_token[1]).max() < TOLERANCE
    stable = [run_model(gene(folders["v1"]), d).cells for d in (data, turned)]
    assert np.abs(stable[0] - stable[1]).max() > 1e-4
    assert np.isfinite(run_model(gene(folders["v1"], ties="quicksort"), data).cells).all()


def test_special_tokens_and_length_can_be_set(folders: dict[str, Path], cells: Any) -> None:
    network = gene(folders["v2"]).network()
    columns, index = columns_of(cells["v2"].genes.tolist(), network.vocabulary, network.aliases, collapse=True)
    panel = panel_of(cells["v2"], columns, index)
    official_ids = official("geneformer_official_v2")["token_ids"][0]
    assert np.array_equal(network.cell(panel, 0).fields[0], official_ids[official_ids > 0])
    plain = gene(folders["v2"], special=False, max_length=10).network().cell(panel, 0)
    assert np.array_equal(plain.fields[0], official_ids[1:11])
    assert (plain.label >= 0).all()


def test_half_precision_is_close(folders: dict[str, Path], cells: Any) -> None:
    whole, half = (run_model(gene(folders["v2"], precision=p), cells["v2"]) for p in ("float32", "bfloat16"))
    assert 0 < np.abs(whole.cells - half.cells).max() < 0.05


def test_columns_of_one_gene_are_added_up_only_when_asked() -> None:
    names, table = ["A2", "TP53", "X", "a1", "MYC"], AnyCase({"A1": "ENSG01", "A2": "ENSG01", "TP53": "ENSG02"})
    columns, index = columns_of(names, ("<pad>", "ENSG02", "ENSG01"), table)
    assert (columns.tolist(), index.tolist()) == ([0, 1], [2, 1])
    columns, index = columns_of(names, ("<pad>", "ENSG02", "ENSG01"), table, collapse=True)
    assert (columns.tolist(), index.tolist()) == ([0, 1, 3], [2, 1, 2])
    panel = panel_of(counts_of([[1, 2, 4, 8, 16], [0, 0, 1, 3, 0]], names), columns, index)
    assert panel.index.tolist() == [2, 1]
    assert panel.values.toarray().tolist() == [[9, 2], [3, 0]]
    assert panel.total.tolist() == [31, 4]  # of the whole cell
    current = columns_of(["P53", "TP53"], ("ENSG00000141510",), {"P53": "ENSG00000141510"}, collapse=True)
    assert current[0].tolist() == [0]  # the model's own table comes before current symbols


def test_the_published_repository(tmp_path: Path, fresh_home: Path) -> None:
    """Every entry of the registry reads the layout of its revision, once fetched."""
    named = os.environ.get("EMBBENCH_TEST_REGISTRY")
    known = registry.default() if named is None else registry.Registry(Path(named))
    entries = {entry.name: entry for entry in known.entries() if entry.name in MODELS}
    assert entries.keys() == MODELS.keys()
    for name, entry in entries.items():
        given = entry.params
        model = Geneformer(**given)
        (checkpoint, files), (dictionaries, tables) = model.fetched()
        assert checkpoint == given["checkpoint"]
        assert dictionaries.startswith(checkpoint.rpartition("/")[0] + "/geneformer")
        assert [table.rpartition("_")[0] for table in tables] == list(STEMS)
        with pytest.raises(UserError, match="embbench extract"):
            model.network()
        root = fresh_home / "weights" / "hf" / "ctheodoris--Geneformer" / checkpoint.split("@")[1].split("/")[0]
        write(root, name)
        assert sorted(path.name for path in Geneformer(**given).files()) == sorted([*files, *tables])
        assert len(Geneformer(**given).network().genes)


STEMS = ("token_dictionary", "gene_median_dictionary", "ensembl_mapping_dict")


def _config(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "checkpoint" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _state(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "checkpoint" / "model.safetensors"
        state = load_file(path)
        for key, value in changes.items():
            key = "bert." + key.replace("__", ".")
            state.pop(key, None)
            state |= {} if value is None else {key: value}
        save_file(state, path)

    return change


def _pickle(name: str, change: Any) -> Any:
    def apply(folder: Path) -> None:
        path = folder / f"{name}_gc95M.pkl"
        path.write_bytes(pickle.dumps(change(pickle.loads(path.read_bytes()))))

    return apply


def _without(name: str) -> Any:
    return lambda folder: next(folder.rglob(name)).unlink()


class Bomb:
    """Asks for a call when it is read."""

    def __reduce__(self) -> Any:
        return (print, ("read",))


REFUSED = [
    (_config(hidden_size=31), "sizes that fit"),
    (_config(num_attention_heads=None), "sizes that fit"),
    (_config(hidden_size=64), r"expected .* of shape .*found"),
    (_config(num_hidden_layers=7), "7 layers, found 3"),
    (_config(model_type="llama"), "model_type bert"),
    (_config(position_embedding_type="relative_key"), "absolute positions"),
    (_config(vocab_size=99), "vocab_size 134.*found 99.*corpus"),
    (_state(embeddings__LayerNorm__bias=None), "embeddings.LayerNorm.bias"),
    (_state(encoder__layer__1__output__dense__bias=torch.ones(3)), r"output.dense.bias.*found \(3,\)"),
    (_state(encoder__layer__0__extra=torch.ones(3)), "extra"),
    (_state(embeddings__LayerNorm__weight=torch.full((32,), float("nan"))), "NaN"),
    (_without("config.json"), "no config.json"),
    (_without("model.safetensors"), "no model.safetensors"),
    (_without("token_dictionary_gc95M.pkl"), "token_dictionary"),
    (_without("ensembl_mapping_dict_gc95M.pkl"), "ensembl_mapping_dict"),
    (_pickle("token_dictionary", lambda d: {k: v + 1 for k, v in d.items()}), "numbered 0 to 133"),
    (_pickle("token_dictionary", lambda d: {k: str(v) for k, v in d.items()}), "int values"),
    (_pickle("token_dictionary", lambda d: list(d)), "dictionary of names, found list"),
    (_pickle("gene_median_dictionary", lambda d: dict(list(d.items())[:-2])), "median > 0 .*for 2"),
    (_pickle("gene_median_dictionary", lambda d: dict.fromkeys(d, 0.0)), "median > 0"),
    (_pickle("ensembl_mapping_dict", lambda d: Bomb()), "refused"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_folders_that_do_not_fit_are_refused(tmp_path: Path, fresh_home: Path, change: Any, says: str) -> None:
    writer.write_checkpoint(tmp_path, writer.V2.seed, shape=writer.V2)
    change(tmp_path)
    with pytest.raises(UserError, match=says):
        Geneformer(str(tmp_path / "checkpoint")).compute(None, None)


@pytest.mark.parametrize(
    ("version", "parameters", "says"),
    [
        ("v1", {"special": True}, "special=true needs <cls>"),
        ("v1", {"readout": "cls"}, "readout=cls needs"),
        ("v2", {"max_length": 51}, "at most 50"),
        ("v2", {"layer": 4}, "layer 4 does not exist, expected 0 to 3"),
    ],
)
def test_what_a_model_cannot_do(
    folders: dict[str, Path], cells: Any, version: str, parameters: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        run_model(gene(folders[version], **parameters), cells[version])


@pytest.mark.parametrize(
    "wrong",
    [{"corpus": "gc1M"}, {"ties": "up"}, {"depth": "no"}, {"readout": "max"}, {"max_length": 2}, {"special": "yes"}],
)
def test_parameters_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Geneformer"):
        Geneformer(**wrong)
