"""TranscriptFormer against the official package (transcriptformer 0.6.1), and what its loader refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from _models import Got, counts_of, official, run_model
from oracles import _recipe
from oracles import _write_transcriptformer as writer

from embbench.core import Counts, UserError
from embbench.embeddings.models import _transcriptformer
from embbench.embeddings.models.transcriptformer import TranscriptFormer

TOLERANCE = 1e-5
OFFICIAL = {"shift": "official", "readout": "official", "order": "data"}
SHAPES = {"": writer.SMALL, "_plain": writer.PLAIN}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("transcriptformer")
    writer.write_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def cells() -> Counts:
    matrix, genes, _ = writer.counts()
    return counts_of(matrix, genes)


def by_assay(folder: Path, data: Counts, assays: np.ndarray, known: set[str]) -> Got:
    """All cells with the official switches; an extractor knows one assay, so assay by assay."""
    sums: dict[str, Any] = {}
    seen: dict[str, float] = {}
    vectors = [np.empty(0)] * len(data)
    for assay in np.unique(assays):
        rows = np.flatnonzero(assays == assay)
        model = TranscriptFormer(str(folder), "gene", assay=assay if assay in known else "unknown", **OFFICIAL)
        got = run_model(model, data.rows(rows))
        for name, mean, count in zip(got.names, got.mean, got.count, strict=True):
            sums[name] = sums.get(name, 0) + mean * count
            seen[name] = seen.get(name, 0) + count
        for row, vector in zip(rows, got.cells, strict=True):
            vectors[row] = vector
    mean = np.stack([sums[name] / seen[name] for name in sums])
    return Got(np.array(list(sums), dtype=object), mean, np.array(list(seen.values())), np.stack(vectors))


def place(network: Any) -> dict[str, int]:
    """Row of each gene in the static vectors."""
    return {network.vocabulary[i]: row for row, i in enumerate(network.genes.tolist())}


@pytest.mark.parametrize("case", SHAPES)
def test_cells_and_genes_equal_the_official_package(tmp_path: Path, case: str) -> None:
    expected, shape = official(f"transcriptformer_official{case}"), SHAPES[case]
    assert writer.write_checkpoint(tmp_path, shape.seed, shape=shape) == str(expected["digest"])
    matrix, genes, assays = writer.counts(shape)
    got = by_assay(tmp_path, counts_of(matrix, genes), assays, set(writer.ASSAYS) if shape.aux else set())
    assert np.abs(got.cells - expected["cell"]).max() < TOLERANCE
    got.near(expected["gene_names"], expected["gene_mean"], expected["gene_count"], TOLERANCE)
    network = TranscriptFormer(str(tmp_path)).network()
    rows = [place(network)[name] for name in expected["static_names"]]
    assert np.abs(network.static().numpy()[rows] - expected["static"]).max() < TOLERANCE
    assert len(network.genes) == len(writer.GENES)


@pytest.mark.parametrize("case", SHAPES)
def test_a_fed_row_is_the_official_row_of_the_next_gene(tmp_path: Path, case: str) -> None:
    expected, shape = official(f"transcriptformer_official{case}"), SHAPES[case]
    writer.write_checkpoint(tmp_path, shape.seed, shape=shape)
    matrix, genes, assays = writer.counts(shape)
    assay = str(assays[0]) if shape.aux else "unknown"
    one = counts_of(matrix[:1], genes)
    has = np.isfinite(expected["gene_first"][:, 0])
    names, rows = expected["gene_names"][has], expected["gene_first"][has]
    label = run_model(TranscriptFormer(str(tmp_path), "gene", assay=assay, **OFFICIAL), one)
    label.near(names, rows, None, TOLERANCE)
    fed = run_model(TranscriptFormer(str(tmp_path), "gene", order="data", assay=assay), one)
    at = dict(zip(fed.names, fed.mean, strict=True))
    assert set(at) == set(names)
    assert np.abs(np.stack([at[name] for name in names[:-1]]) - rows[1:]).max() < TOLERANCE
    whole = (at[names[-1]] + rows.sum(axis=0)) / (len(names) + 1)  # with the row of the last gene fed
    assert np.abs(fed.cells[0] - whole).max() < TOLERANCE


@pytest.mark.shared
def test_the_shared_fixture(shared_data: Path) -> None:
    import anndata
    from _models import read_counts

    source = shared_data / "oracles" / "transcriptformer"
    assays = anndata.read_h5ad(source / "counts.h5ad").obs["assay"].to_numpy().astype(str)
    known = set(json.loads((source / "checkpoint" / "vocabs" / "assay_vocab.json").read_text()))
    with np.load(source / "expected.npz") as archive:
        expected = dict(archive)
    data = read_counts(source / "counts.h5ad", "ensembl_id")
    got = by_assay(source / "checkpoint", data, assays, known)
    assert np.abs(got.cells - expected["cell"]).max() < TOLERANCE
    got.near(expected["gene_names"], expected["gene_mean"], expected["gene_count"], TOLERANCE)
    single = by_assay(source / "checkpoint", data.rows(slice(2, 3)), assays[2:3], known)
    vectors = expected["gene_vectors"][2]
    seen = np.isfinite(vectors[:, 0])
    single.near(expected["gene_names"][seen], vectors[seen], None, TOLERANCE)
    network = TranscriptFormer(str(source / "checkpoint")).network()
    assert [network.vocabulary[i] for i in network.genes] == expected["gene_names"].tolist()
    assert np.abs(network.static().numpy() - expected["static"]).max() < TOLERANCE


def test_layer_0_is_what_is_fed(folder: Path, cells: Counts) -> None:
    expected = official("transcriptformer_official")
    got = run_model(TranscriptFormer(str(folder), "gene", layer=0), cells)
    static = dict(zip(expected["static_names"], expected["static"], strict=True))
    assert np.abs(got.mean - np.stack([static[name] for name in got.names])).max() < TOLERANCE


def test_layers_follow_the_equations(folder: Path, cells: Counts) -> None:
    """One cell against the formulas in float64 numpy, at every layer."""
    w = {k: v.astype(np.float64) for k, v in writer.parameters(writer.SMALL.seed, writer.SMALL).items()}
    one = cells.rows(slice(1, 2))
    model = TranscriptFormer(str(folder), "gene", order="vocabulary")
    token, count = (torch.from_numpy(f) for f in model.network().cell(_panel(one, model), 0).fields)
    h = model.network().table[token].numpy().astype(np.float64)
    bias = np.log1p(count.numpy().astype(np.float64) + 1e-6)
    n, heads, width = len(h), writer.SMALL.heads, writer.SMALL.width // writer.SMALL.heads

    def norm(x: np.ndarray, key: str) -> np.ndarray:
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        return x * w[f"{key}.weight"] + w[f"{key}.bias"]

    for i in range(writer.SMALL.layers):
        at = f"transformer_encoder.encoder_layers.{i}."
        x = norm(h, f"{at}norm1")
        q, k, v = ((x @ w[f"{at}self_attn.linears.{j}.weight"].T).reshape(n, heads, width) for j in range(3))
        logits = 10 * np.tanh((np.einsum("ihd,jhd->hij", q, k) / np.sqrt(width) + bias) / 10)
        p = np.exp(np.where(np.tri(n, dtype=bool), logits, -np.inf))
        seen = np.einsum("hij,jhd->ihd", p / p.sum(-1, keepdims=True), v).reshape(n, -1)
        x = norm(seen @ w[f"{at}self_attn.linears.3.weight"].T + x, f"{at}norm2")
        up = torch.nn.functional.gelu(torch.from_numpy(x @ w[f"{at}linear1.weight"].T)).numpy()
        h = up @ w[f"{at}linear2.weight"].T + x
        got = run_model(TranscriptFormer(str(folder), "gene", order="vocabulary", layer=i + 1), one)
        assert np.abs(got.cells[0] - h.mean(axis=0)).max() < TOLERANCE
        rows = {model.network().vocabulary[t]: row for t, row in zip(token.tolist()[1:], h[1:], strict=True)}
        assert np.abs(got.mean - np.stack([rows[name] for name in got.names])).max() < TOLERANCE


def _panel(data: Counts, model: TranscriptFormer) -> Any:
    from embbench.embeddings.models._panel import columns_of, panel_of

    return panel_of(data, *columns_of(data.genes.tolist(), model.network().vocabulary))


def test_queries_in_blocks_give_the_same(folder: Path, cells: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TranscriptFormer(str(folder), "gene", device="cpu")
    whole = run_model(model, cells)
    monkeypatch.setitem(_transcriptformer.SCORES, "cpu", 5 * 9 * 63)  # five heads of nine queries at a time
    monkeypatch.setattr(_transcriptformer, "QUERIES", 9)
    blocks = run_model(model, cells)
    assert np.abs(whole.mean - blocks.mean).max() < TOLERANCE
    assert np.abs(whole.cells - blocks.cells).max() < TOLERANCE


@pytest.mark.parametrize("order", ["random", "count", "vocabulary", "data"])
@pytest.mark.parametrize("max_length", [None, 20, 300])
def test_vectors_depend_on_the_order_of_the_data_only_where_asked(
    folder: Path, cells: Counts, order: str, max_length: int | None
) -> None:
    model = TranscriptFormer(str(folder), "gene", order=order, max_length=max_length)
    turned = Counts(cells.values[:, ::-1].tocsr()[::-1], cells.genes[::-1], cells.total[::-1])
    one, two = run_model(model, cells), run_model(model, turned)
    expressed = (cells.values.toarray()[:, np.isin(cells.genes, writer.GENES)] > 0).sum(axis=1)
    fed = np.minimum(expressed, (max_length or writer.SMALL.length) - 1)
    assert one.count.sum() == two.count.sum() == fed.sum()
    same = bool(np.array_equal(one.names, two.names) and np.abs(one.cells - two.cells[::-1]).max() < TOLERANCE)
    assert same == (order != "data")
    if same:
        assert np.abs(one.mean - two.mean).max() < TOLERANCE


def test_the_cut_follows_its_rule(folder: Path) -> None:
    kept = {
        order: TranscriptFormer(str(folder), order=order, max_length=30).network() for order in ("count", "vocabulary")
    }
    gene = np.random.default_rng(0).permutation(np.arange(10, 90))
    value = gene.astype(np.float64) // 2
    top = gene[kept["count"].ordered(gene, value)]
    assert top.tolist() == sorted(gene.tolist(), key=lambda g: (-(g // 2), g))[:30]
    some = gene[kept["vocabulary"].ordered(gene, value)]
    assert (np.diff(some) > 0).all()
    assert len(some) == 30
    assert some.max() > 60  # not the first of the vocabulary
    seeds = [TranscriptFormer(str(folder), seed=s).network().ordered(gene, value).tolist() for s in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("how", [{}, OFFICIAL], ids=["default", "official"])
def test_batches_other_cells_and_empty_cells_do_not_matter(tmp_path: Path, case: str, how: dict[str, str]) -> None:
    writer.write_checkpoint(tmp_path, SHAPES[case].seed, shape=SHAPES[case])
    matrix, genes, _ = writer.counts(SHAPES[case])
    matrix = np.concatenate([matrix, np.eye(1, matrix.shape[1], 4, dtype=matrix.dtype)])
    data = counts_of(matrix, genes)
    assert (np.asarray(data.values.sum(axis=1)) == 0).any()
    models = {b: TranscriptFormer(str(tmp_path), "gene", batch=b, **how) for b in (1, 3, 32)}
    alone, many = run_model(models[1], data), run_model(models[32], data)
    turned = run_model(models[3], data.rows(np.arange(len(data))[::-1]))
    assert np.isfinite(alone.cells).all()
    for other, vectors in ((many, many.cells), (turned, turned.cells[::-1])):
        assert np.array_equal(alone.count, other.count)
        assert np.abs(alone.mean - other.mean).max() < TOLERANCE
        assert np.abs(alone.cells - vectors).max() < TOLERANCE


def test_the_mean_does_not_grow_with_genes_and_the_official_sum_does(folder: Path, cells: Counts) -> None:
    mean, total = (
        run_model(TranscriptFormer(str(folder), "cell", readout=r), cells).cells for r in ("mean", "official")
    )
    expressed = (cells.values.toarray()[:, np.isin(cells.genes, writer.GENES)] > 0).sum(axis=1)
    rows = np.minimum(expressed + 1, writer.SMALL.length)
    assert np.abs(mean * (rows / writer.SMALL.length)[:, None] - total).max() < TOLERANCE


def test_half_precision_is_close(folder: Path, cells: Counts) -> None:
    full, half = (
        run_model(TranscriptFormer(str(folder), "gene", precision=p, device="cpu"), cells)
        for p in ("float32", "bfloat16")
    )
    assert 0 < np.abs(full.cells - half.cells).max() < 0.1


def test_counts_are_needed_and_clipped(folder: Path) -> None:
    matrix, genes, _ = writer.counts()
    with pytest.raises(UserError, match="raw counts"):
        run_model(TranscriptFormer(str(folder), "gene"), counts_of(matrix, genes, np.full(len(matrix), np.nan)))
    model = TranscriptFormer(str(folder), "cell", order="vocabulary", max_length=300)  # no cut, which content decides
    one, two = (run_model(model, counts_of(np.minimum(matrix, top), genes)) for top in (30, 10**6))
    assert matrix.max() > 30
    assert np.array_equal(one.cells, two.cells)
    with pytest.raises(UserError, match="found none among"):
        run_model(TranscriptFormer(str(folder), "gene"), counts_of(matrix[:, :2], ["NOTAGENE1", "NOTAGENE2"]))
    with pytest.raises(UserError, match="layer 4 does not exist, expected 0 to 3"):
        run_model(TranscriptFormer(str(folder), "gene", layer=4), counts_of(matrix, genes))


def two_species(folder: Path) -> list[str]:
    """A folder with a second species before human, one gene in both, the published order of special tokens."""
    mouse = [*(f"ENSMUSG{i:011d}" for i in range(30)), writer.GENES[5]]
    writer.write_checkpoint(folder)
    with h5py.File(folder / "vocabs" / "mus_musculus_gene.h5", "w") as file:
        file.create_dataset("keys", data=np.array(mouse, dtype="S"))
    special = ["unknown", "[PAD]", "[START]", "[END]", "[RD]", "[CELL]", "[MASK]"]
    mappings = ["mus_musculus_gene.h5", "homo_sapiens_gene.h5"]
    _config("data_config", special_tokens=special, esm2_mappings=mappings, clip_counts=None)(folder)
    rows = len(special) + len(mouse) + len(writer.GENES) - 1
    _state(gene_embeddings__embedding__weight=torch.from_numpy(_recipe.Draw(5).uniform(rows, 20)))(folder)
    return [*special, *mouse, *(g for g in writer.GENES if g != writer.GENES[5])]


def test_one_of_several_species(tmp_path: Path) -> None:
    """Rows are numbered over all files in the order of config.json; a gene in two files has its first row."""
    names = two_species(tmp_path)
    model = TranscriptFormer(str(tmp_path))
    assert [path.name for path in model.files()][-2:] == ["mus_musculus_gene.h5", "homo_sapiens_gene.h5"]
    network = model.network()
    assert [network.vocabulary[i] for i in network.genes] == list(writer.GENES)
    assert network.clip == 30  # config.json of the published models leaves it open
    state = torch.load(tmp_path / "model_weights.pt", weights_only=True)
    table = state["gene_embeddings.embedding.weight"][[names.index(g) for g in writer.GENES]]
    m = {k.rpartition("mlp.layers.")[2]: v for k, v in state.items() if k.startswith("gene_embeddings.mlp")}
    h = torch.nn.functional.layer_norm(
        (table @ m["0.weight"].T + m["0.bias"]).relu(), (40,), m["2.weight"], m["2.bias"]
    )
    assert torch.allclose(network.static(), h @ m["4.weight"].T + m["4.bias"], atol=TOLERANCE)
    mouse = TranscriptFormer(str(tmp_path), species="mus_musculus").network()
    assert [mouse.vocabulary[i] for i in mouse.genes] == names[7:38]
    with pytest.raises(UserError, match=r"species danio_rerio, found .*mus_musculus_gene\.h5"):
        TranscriptFormer(str(tmp_path), species="danio_rerio").network()


def test_other_switches_of_the_configuration(tmp_path: Path, cells: Counts) -> None:
    """Biases and no cap: zero biases and a huge cap give the same vectors as none."""
    shape = replace(writer.SMALL, softcap=0)
    writer.write_checkpoint(tmp_path, shape.seed, shape=shape)
    plain = run_model(TranscriptFormer(str(tmp_path), "gene"), cells)
    biases = {
        f"transformer_encoder.encoder_layers.{i}.{name}.bias": torch.zeros(72 if name == "linear1" else 40)
        for i in range(3)
        for name in ("linear1", "linear2", *(f"self_attn.linears.{j}" for j in range(4)))
    }
    _state(**biases)(tmp_path)
    _config("model_config", attn_bias=True, fw_bias=True, softcap=100000)(tmp_path)
    assert np.abs(run_model(TranscriptFormer(str(tmp_path), "gene"), cells).mean - plain.mean).max() < 1e-3


def test_what_is_fetched_of_a_published_archive() -> None:
    address = "https://czi-transcriptformer.s3.amazonaws.com/weights/tf_sapiens.tar.gz"
    model = TranscriptFormer(address)
    files = ("model_weights.pt", "config.json", "vocabs/assay_vocab.json", "vocabs/homo_sapiens_gene.h5")
    assert model.fetched() == ((address, tuple(f"tf_sapiens/{name}" for name in files)),)
    assert model.title == "transcriptformer-sapiens"
    assert model.folder().name == "tf_sapiens"
    assert len(TranscriptFormer(address.replace("sapiens", "metazoa")).fetched()[0][1]) == 15
    with pytest.raises(UserError, match=r"transcriptformer-sapiens: no model_weights\.pt.*Fetch it once"):
        model.compute(None, None)


def test_an_archive_is_fetched_from_a_mirror_and_read(tmp_path: Path, fresh_home: Path) -> None:
    import tarfile

    from embbench.cache.weights import fetch

    writer.write_checkpoint(tmp_path / "tf_sapiens")
    with tarfile.open(tmp_path / "tf_sapiens.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "tf_sapiens", "./tf_sapiens")
    address = "https://example.org/weights/tf_sapiens.tar.gz"
    for where, names in TranscriptFormer(address).fetched():
        fetch(where, names, name="transcriptformer-sapiens", licence="MIT", mirror=str(tmp_path))
    assert TranscriptFormer(address).folder().is_relative_to(fresh_home)
    got, own = (TranscriptFormer(c).compute(None, None).matrix for c in (address, str(tmp_path / "tf_sapiens")))
    assert np.array_equal(got, own)


def _config(section: str, **changes: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["model"][section].update(changes)
        (folder / "config.json").write_text(json.dumps(config))

    return change


def _state(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        state = torch.load(folder / "model_weights.pt", weights_only=True)
        for key, value in changes.items():
            key = key.replace("__", ".")
            if value is None:
                del state[key]
            else:
                state[key] = value
        torch.save(state, folder / "model_weights.pt")

    return change


def _text(name: str, content: str) -> Any:
    return lambda folder: (folder / name).write_text(content)


REFUSED = [
    (_config("model_config", num_heads=7), "sizes that fit"),
    (_config("model_config", num_heads=None), "sizes that fit.*num_heads"),
    (_config("model_config", num_layers=9), "9 layers, found 3"),
    (_config("model_config", embed_dim=45), r"of shape \(45, 40\), found"),
    (_config("model_config", model_dim=70), r"linear1.weight.*\(70, 40\)"),
    (_config("model_config", attn_bias=True), "self_attn.linears.0.bias"),
    (_config("model_config", activation="tanh"), "activation"),
    (_config("data_config", aux_cols="tissue"), "aux_cols assay or null, found 'tissue'"),
    (_config("data_config", aux_cols=None), "aux_embeddings"),
    (_config("data_config", esm2_mappings=["../a.h5"]), "names of files in vocabs"),
    (_config("data_config", esm2_mappings=[]), "names of files in vocabs"),
    (_config("data_config", special_tokens=["unknown", "[PAD]"]), "START"),
    (_config("data_config", special_tokens=["unknown", "[START]"]), r"of shape \(112, any\), found \(117, 20\)"),
    (_config("data_config", normalize_to_scale=1e4), "normalize_to_scale.*not supported"),
    (_text("config.json", '{"model_type": "esm"}'), "expected model.data_config, found model_type"),
    (_text("config.json", "{"), "expected JSON"),
    (_text("vocabs/assay_vocab.json", '{"unknown": 0, "a": 5}'), "numbered names"),
    (_text("vocabs/homo_sapiens_gene.h5", "text"), "expected HDF5 with gene names"),
    (_text("model_weights.pt", "text"), "torch file"),
    (_state(gene_embeddings__mlp__layers__2__bias=None), "gene_embeddings.mlp.layers.2.bias"),
    (_state(transformer_encoder__encoder_layers__1__norm2__weight=torch.ones(3)), r"norm2.weight.*found \(3,\)"),
    (_state(transformer_encoder__norm__weight=torch.ones(40)), "none of this model"),
    (_state(aux_embeddings__assay__weight=torch.full((3, 40), float("nan"))), "NaN"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_folders_that_do_not_fit_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    writer.write_checkpoint(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=says):
        TranscriptFormer(str(tmp_path)).compute(None, None)


def test_assays_are_those_of_the_model(tmp_path: Path, folder: Path, cells: Counts) -> None:
    with pytest.raises(UserError, match=r"expected assay 'Smart-seq2' among .*Drop-seq"):
        TranscriptFormer(str(folder), assay="Smart-seq2").network()
    one, two = (run_model(TranscriptFormer(str(folder), "cell", assay=a), cells).cells for a in ("unknown", "Drop-seq"))
    assert np.abs(one - two).max() > 1e-3
    writer.write_checkpoint(tmp_path, shape=writer.PLAIN)
    with pytest.raises(UserError, match=r"expected assay 'Drop-seq' among .*found unknown"):
        TranscriptFormer(str(tmp_path), assay="Drop-seq").network()


def test_without_weights_it_says_what_to_do(fresh_home: Path) -> None:
    with pytest.raises(UserError, match=r"no model_weights\.pt.*tf_sapiens\.tar\.gz.*MIT.*--checkpoint"):
        TranscriptFormer().compute(None, None)


@pytest.mark.parametrize("wrong", [{"shift": "no"}, {"readout": "sum"}, {"order": "gene"}, {"max_length": 1}])
def test_parameters_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="TranscriptFormer"):
        TranscriptFormer(**wrong)
