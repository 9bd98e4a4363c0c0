"""scPRINT version 1 against the official package (scprint 2.3.8), and what its loader refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _models import Got, counts_of, official, run_model
from oracles import _write_scprint as writer

from embbench.core import Counts, UserError
from embbench.embeddings.models.scprint import ScPRINT

TOLERANCE = 1e-5
SHAPES = {"": writer.SMALL, "_log": writer.LOG, "_grouped": writer.GROUPED}
WHOLE: dict[str, Any] = {"sequence": "all", "max_length": None}


def checkpoint(folder: Path, shape: writer.Shape = writer.SMALL, **how: Any) -> str:
    writer.write_checkpoint(folder, shape.seed, shape=shape, **how)
    return str(folder / "tiny.ckpt")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("scprint"))


@pytest.fixture(scope="module")
def cells() -> Counts:
    return counts_of(*writer.counts())


def only(counts: Counts, genes: Any) -> Counts:
    """The genes in this order, absent ones with count 0; depths stay those of the whole cells."""
    where = {name: j for j, name in enumerate(counts.genes)}
    dense = counts.values.toarray()
    columns = [dense[:, where[g]] if g in where else np.zeros(len(dense)) for g in genes]
    return counts_of(np.stack(columns, axis=1), genes, counts.total)


def near(got: Got, expected: Any, prefix: str = "", mean: str = "gene_mean") -> None:
    names = expected[f"{prefix}gene_names"]
    every = np.full(len(names), len(got.cells))
    got.near(names, expected[prefix + mean], every, TOLERANCE)
    assert np.abs(got.cells - expected[f"{prefix}cell"]).max() < TOLERANCE


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("names", ["new", "old", "older"])
def test_cells_and_genes_equal_the_official_package(tmp_path: Path, case: str, names: str) -> None:
    expected, shape = official(f"scprint_official{case}"), SHAPES[case]
    assert writer.write_checkpoint(tmp_path, shape.seed, shape=shape, names=names) == str(expected["digest"])
    file, data = str(tmp_path / "tiny.ckpt"), counts_of(*writer.counts(shape))
    near(run_model(ScPRINT(file, "gene", **WHOLE), data), expected)
    classes = run_model(ScPRINT(file, "cell", readout="classes", **WHOLE), data)
    assert np.abs(classes.cells - expected["cell_all_classes"]).max() < TOLERANCE
    tokens = run_model(ScPRINT(file, "cell", readout="all", **WHOLE), data)
    assert np.abs(tokens.cells - expected["cell_embs"].mean(axis=1)).max() < TOLERANCE
    assert np.array_equal(ScPRINT(file).network().static().numpy(), expected["static"])


@pytest.mark.parametrize("case", SHAPES)
def test_a_panel_equals_the_official_subset(tmp_path: Path, case: str) -> None:
    expected, shape = official(f"scprint_official{case}"), SHAPES[case]
    data = only(counts_of(*writer.counts(shape)), writer.SUBSET)
    model = ScPRINT(checkpoint(tmp_path, shape), "gene", sequence="panel", max_length=None)
    if case == "_log":
        near(run_model(model, data), expected, "subset_")
    else:  # the official code divides zero by zero in a cell without any of the genes
        fed = np.asarray(data.values.sum(axis=1)).ravel() > 0
        assert fed.all()
        near(run_model(model, data), expected, "subset_")


def test_the_order_of_the_data_does_not_move_labels(path: str, cells: Counts) -> None:
    turned = only(cells, cells.genes[::-1])
    near(run_model(ScPRINT(path, "gene", **WHOLE), turned), official("scprint_official"))


def test_means_over_expressing_cells_and_class_tokens_by_name(path: str, cells: Counts) -> None:
    expected = official("scprint_official")
    model = ScPRINT(path, "gene", readout=list(writer.PREDICTED), **WHOLE)
    single = [run_model(model, cells.rows(slice(i, i + 1))) for i in range(len(cells))]
    assert np.abs(np.concatenate([s.cells for s in single]) - expected["cell"]).max() < TOLERANCE
    order = [single[0].names.tolist().index(name) for name in expected["gene_names"]]
    has = only(cells, expected["gene_names"]).values.toarray() > 0
    for g in np.flatnonzero(has.any(axis=0)):
        mean = np.mean([single[c].mean[order[g]] for c in np.flatnonzero(has[:, g])], axis=0)
        assert np.abs(mean - expected["gene_mean_expressed"][g]).max() < TOLERANCE
    assert np.array_equal(has.sum(axis=0), expected["gene_count"])


@pytest.mark.shared
def test_the_shared_fixture(shared_data: Path) -> None:
    from _models import read_counts

    source = shared_data / "oracles" / "scprint"
    file, data = str(source / "checkpoint" / "tiny-v1.ckpt"), read_counts(source / "counts.h5ad")
    with np.load(source / "expected.npz") as archive:
        expected = dict(archive)
    assert np.array_equal(data.total, expected["depth"])
    chosen = expected["pred_embedding"].tolist()
    model = ScPRINT(file, "gene", readout=chosen, **WHOLE)
    near(run_model(model, data), expected, mean="gene_mean_all_cells")
    part = only(data, expected["subset60_gene_names"])
    panel = ScPRINT(file, "gene", readout=chosen, sequence="panel", max_length=None)
    near(run_model(panel, part), expected, "subset60_", "gene_mean_all_cells")
    whole = run_model(ScPRINT(file, "cell", readout="all", **WHOLE), data)
    assert np.abs(whole.cells - expected["cell_emb"]).max() < TOLERANCE
    first = run_model(model, data.rows(slice(3, 4)))
    order = [first.names.tolist().index(name) for name in expected["gene_names"]]
    assert np.abs(first.mean[order] - expected["gene_vectors"][3]).max() < TOLERANCE
    assert np.array_equal(ScPRINT(file).network().static().numpy(), expected["static"])


def test_layer_0_is_the_sum_of_gene_value_and_position(path: str, cells: Counts) -> None:
    w = writer.parameters(writer.SMALL.seed, writer.SMALL)
    share = only(cells, writer.GENES).values.toarray().astype(np.float64)
    share /= share.sum(axis=1, keepdims=True)
    h = share[..., None] * w["expr_encoder.encoder.0.weight"][:, 0] + w["expr_encoder.encoder.0.bias"]
    scaled = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    h = np.maximum(scaled * w["expr_encoder.encoder.1.weight"] + w["expr_encoder.encoder.1.bias"], 0)
    h = h @ w["expr_encoder.encoder.4.weight"].T + w["expr_encoder.encoder.4.bias"]
    h += w["gene_encoder.embeddings.weight"] + w["pos_encoder.pe"][:, 0]
    got = run_model(ScPRINT(path, "gene", layer=0, **WHOLE), cells)
    got.near(np.array(writer.GENES), h.mean(axis=0), None, TOLERANCE)


def test_expressed_genes_are_the_panel_of_a_cell(path: str, cells: Counts) -> None:
    """With a panel of the genes that a cell expresses, all three sequences are that cell's expressed genes."""
    one = cells.rows(slice(2, 3))
    has = one.values.toarray()[0] > 0
    panel = run_model(ScPRINT(path, "gene", sequence="panel"), only(one, one.genes[has]))
    expressed = run_model(ScPRINT(path, "gene"), one)
    assert np.array_equal(panel.names, expressed.names)
    assert np.abs(panel.mean - expressed.mean).max() < TOLERANCE
    assert np.abs(panel.cells - expressed.cells).max() < TOLERANCE


@pytest.mark.parametrize("sequence", ["expressed", "panel", "all"])
@pytest.mark.parametrize("truncate", ["random", "top"])
def test_long_sequences_are_cut_by_a_rule(path: str, cells: Counts, sequence: str, truncate: str) -> None:
    room = 40
    model = ScPRINT(path, "gene", sequence=sequence, truncate=truncate, max_length=room)
    one, two = (run_model(model, part) for part in (cells, only(cells, cells.genes[::-1]).rows(np.arange(8)[::-1])))
    assert np.array_equal(one.names, two.names)
    assert np.abs(one.mean - two.mean).max() < TOLERANCE
    assert np.abs(one.cells - two.cells[::-1]).max() < TOLERANCE
    expressed = (only(cells, writer.GENES).values.toarray() > 0).sum(axis=1)
    assert (expressed > room).any()
    assert (expressed < room).any()
    fed = np.minimum(expressed, room) if sequence == "expressed" else np.full(len(cells), room)
    assert one.count.sum() == fed.sum()
    network = model.network()
    gene, value = np.arange(4, 100, 3), np.arange(32.0)
    chosen = network.chosen(gene, value, np.arange(3, 108))
    assert np.isin(gene, chosen).all()  # expressed genes come first
    top = ScPRINT(path, sequence=sequence, truncate="top", max_length=9).network().chosen(gene, value, gene)
    assert np.array_equal(top, gene[-9:])


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("sequence", ["expressed", "panel", "all"])
def test_batches_other_cells_and_empty_cells_do_not_matter(tmp_path: Path, case: str, sequence: str) -> None:
    matrix, genes = writer.counts(SHAPES[case])
    matrix = np.concatenate([matrix, 0 * matrix[:1], np.eye(1, matrix.shape[1], 4, dtype=matrix.dtype)])
    data, file = counts_of(matrix, genes), checkpoint(tmp_path, SHAPES[case])
    alone, many = (run_model(ScPRINT(file, "gene", sequence=sequence, batch=b), data) for b in (1, 32))
    turned = run_model(ScPRINT(file, "gene", sequence=sequence, batch=3), data.rows(np.arange(len(data))[::-1]))
    assert np.isfinite(alone.mean).all()
    assert np.isfinite(alone.cells).all()
    for other, vectors in ((many, many.cells), (turned, turned.cells[::-1])):
        assert np.array_equal(alone.count, other.count)
        assert np.abs(alone.mean - other.mean).max() < TOLERANCE
        assert np.abs(alone.cells - vectors).max() < TOLERANCE


def test_half_precision_is_close(path: str, cells: Counts) -> None:
    full, half = (run_model(ScPRINT(path, "gene", precision=p, device="cpu"), cells) for p in ("float32", "bfloat16"))
    assert 0 < np.abs(full.mean - half.mean).max() < 0.1
    assert np.abs(full.cells - half.cells).max() < 0.1


def test_counts_are_needed_for_depth_and_logarithms_only(tmp_path: Path, path: str) -> None:
    matrix, genes = writer.counts()
    unknown = counts_of(matrix, genes, np.full(len(matrix), np.nan))
    with pytest.raises(UserError, match="raw counts"):
        run_model(ScPRINT(path, "gene"), unknown)
    shares = writer.Shape(width=16, heads=2, layers=1, seed=3, depth_at_input=False)
    model = ScPRINT(checkpoint(tmp_path, shares), "gene")
    one, two = run_model(model, unknown), run_model(model, counts_of(3 * matrix, genes))
    assert np.abs(one.mean - two.mean).max() < TOLERANCE


def test_other_species_and_unknown_genes(tmp_path: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        genes = content["hyper_parameters"]["genes"]
        content["hyper_parameters"]["genes"] = [*genes[:60], *(g.replace("ENSG", "ENSMUSG") for g in genes[60:])]

    checkpoint(tmp_path)
    change(tmp_path, rename)
    human, mouse = (ScPRINT(str(tmp_path / "tiny.ckpt"), "gene", prefix=p, **WHOLE) for p in ("ENSG", "ENSMUSG"))
    data = counts_of(*writer.counts())
    got = run_model(human, data)
    assert got.names.tolist() == list(writer.GENES[:60])
    assert human.network().static().shape == (60, writer.SMALL.width)
    with pytest.raises(UserError, match="found none among"):
        run_model(mouse, data)


def test_sums_of_cells_have_their_own_token(tmp_path: Path) -> None:
    """A metacell token shifts the label tokens by one; the second row of its table marks sums of cells."""

    def add(content: dict[str, Any]) -> None:
        content["hyper_parameters"]["use_metacell_token"] = True
        d = writer.SMALL.width
        content["state_dict"]["metacell_encoder.embedding.weight"] = torch.stack([torch.zeros(d), torch.ones(d)])

    checkpoint(tmp_path)
    change(tmp_path, add)
    file = str(tmp_path / "tiny.ckpt")
    cell, whole = (ScPRINT(file, "cell", layer=0, readout="all", metacells=m) for m in (None, "all"))
    assert cell.network().pooled == tuple(range(6))
    data = counts_of(*writer.counts())
    apart = run_model(whole, data).cells - run_model(cell, data).cells
    assert np.abs(apart - 1 / 6).max() < TOLERANCE
    classes = (3, 4, 5)  # behind depth, metacell and base
    assert ScPRINT(file, readout="classes").network().pooled == classes
    assert ScPRINT(file).network().pooled == (classes[1], classes[0])  # in the order of pred_embedding


def test_a_file_or_its_folder(tmp_path: Path, cells: Counts) -> None:
    checkpoint(tmp_path)
    (tmp_path / "tiny.ckpt").rename(tmp_path / "medium-v1.5.ckpt")
    by_file = ScPRINT(str(tmp_path / "medium-v1.5.ckpt"), "cell")
    by_folder = ScPRINT(str(tmp_path), "cell", file="medium-v1.5.ckpt")
    assert by_file.files() == by_folder.files()
    assert by_file.title == by_folder.title == "scprint-medium"
    assert np.array_equal(run_model(by_file, cells).cells, run_model(by_folder, cells).cells)
    remote = ScPRINT("hf:jkobject/scPRINT@main", file="small-v1.ckpt")
    assert remote.fetched() == (("hf:jkobject/scPRINT@main", ("small-v1.ckpt",)),)


def change(folder: Path, how: Any) -> None:
    """Write the checkpoint again, changed."""
    content = torch.load(folder / "tiny.ckpt", weights_only=False)
    how(content)
    torch.save(content, folder / "tiny.ckpt")


def _given(**changes: Any) -> Any:
    return lambda content: content["hyper_parameters"].update(changes)


def _state(**changes: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        state = content["state_dict"]
        for key, value in changes.items():
            key = key.replace("__", ".")
            if value is None:
                del state[key]
            else:
                state[key] = value

    return change


REFUSED = [
    (_given(cell_specific_blocks=True), "scPRINT-2.*not supported"),
    (_state(cell_transformer__blocks__0__norm3__bias=torch.ones(3)), "scPRINT-2.*not supported"),
    (_given(genes={"NCBITaxon:9606": ["ENSG00000141510"]}), "scPRINT-2.*not supported"),
    (_given(genes=list(writer.GENES[:7])), r"gene_encoder.*of shape \(7, any\), found"),
    (_given(genes=["A"] * 120), "genes in hyper_parameters as unique names"),
    (_given(genes=[f"GENE{i}" for i in range(120)]), "named ENSG and a number"),
    (_given(nhead=None), "found nhead None"),
    (_given(nhead=7), "found nhead 7"),
    (_given(num_heads_kv=2), r"Wqkv.weight.*\(80, 48\)"),
    (_given(nlayers=9), "'nlayers': 3"),
    (_given(d_model=64), "'d_model': 48"),
    (_given(depth_atinput=False), "depth_atinput"),
    (_given(expr_encoder_layers=3), "expected 3 layers"),
    (_given(attn_bias="grn"), "attn_bias.*not supported"),
    (_given(normalization="both"), "normalization.*not supported"),
    (_given(classes={}, label_counts={}), "classes in hyper_parameters"),
    (_given(classes=["one"]), r"class_encoder.*\(2, 48\)"),
    (_given(pred_embedding=["no_such_class"]), "no_such_class"),
    (_state(pos_encoder__pe=None), "pos_encoder.pe"),
    (_state(transformer__norm__weight=None), "transformer.norm.weight"),
    (_state(transformer__blocks__1__norm2__weight=torch.ones(3)), r"norm2.weight.*found \(3,\)"),
    (_state(transformer__blocks__0__extra=torch.ones(3)), "extra"),
    (_state(gene_encoder__embedding__weight=torch.ones(3)), "two tensors would be called"),
    (_state(transformer__norm__bias=torch.full((48,), float("nan"))), "NaN"),
    (lambda content: content.pop("state_dict"), "state_dict"),
]


@pytest.mark.parametrize(("how", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_files_that_do_not_fit_are_refused(tmp_path: Path, how: Any, says: str) -> None:
    file = checkpoint(tmp_path)
    change(tmp_path, how)
    with pytest.raises(UserError, match=says):
        ScPRINT(file).compute(None, None)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, path: str, cells: Counts) -> None:
    (tmp_path / "large-v1.ckpt").write_text("text")
    with pytest.raises(UserError, match=r"large-v1\.ckpt"):
        ScPRINT(str(tmp_path)).compute(None, None)
    with pytest.raises(UserError, match="layer 9 does not exist, expected 0 to 3"):
        run_model(ScPRINT(path, "gene", layer=9), cells)
    with pytest.raises(UserError, match="found sex"):
        run_model(ScPRINT(path, "cell", readout=["sex"]), cells)


def test_without_weights_it_says_what_to_do(fresh_home: Path) -> None:
    with pytest.raises(UserError, match=r"scprint-large: no large-v1\.ckpt.*jkobject/scPRINT.*--checkpoint"):
        ScPRINT().compute(None, None)
    with pytest.raises(UserError, match=r"scprint-small: no small-v1\.ckpt.*Fetch it once"):
        ScPRINT("hf:jkobject/scPRINT@main", file="small-v1.ckpt").compute(None, None)


@pytest.mark.parametrize(
    "wrong",
    [{"sequence": "some"}, {"truncate": "last"}, {"readout": "cls"}, {"readout": []}, {"max_length": 0}, {"file": "a"}],
)
def test_parameters_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ScPRINT"):
        ScPRINT(**wrong)
