"""AIDO.Cell and scFoundation alike: the gene list, what is averaged, and what must not matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _models import counts_of, run_model
from scipy import sparse
from tiny import aido_cell, scfoundation
from tiny.aido_cell import GENE_LIST, GENES, write_genes

from embbench.cache.weights import local_file
from embbench.core import Counts, UserError
from embbench.embeddings.models._depth import GENE_LIST_URL, read_genes
from embbench.embeddings.models.aido_cell import AidoCell
from embbench.embeddings.models.scfoundation import ScFoundation

TOLERANCE = 1e-5
WRITERS: dict[type, Callable[..., Any]] = {AidoCell: aido_cell.write, ScFoundation: scfoundation.write}
MODELS = list(WRITERS)
MEASURED = (*GENES[3:20], "NOTAGENE1", "NOTAGENE2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[type, str]:
    out = {}
    for model, write in WRITERS.items():
        folder = tmp_path_factory.mktemp(model.__name__)
        write(folder, 7)
        out[model] = str(folder)
    return out


@pytest.fixture(scope="module")
def cells() -> Counts:
    """Cells of different depth and number of genes, shuffled columns; the last three: one gene, one count, none."""
    rng = np.random.default_rng(8)
    matrix = rng.poisson(3.0, (9, len(MEASURED))) * (rng.random((9, len(MEASURED))) < rng.random((9, 1)))
    matrix[-3:] = 0
    matrix[-3, 4], matrix[-2, 5] = 30, 1
    order = rng.permutation(len(MEASURED))
    return counts_of(matrix[:, order], np.array(MEASURED)[order])


@pytest.mark.parametrize("level", ["gene", "cell"])
@pytest.mark.parametrize("model", MODELS)
def test_batches_order_and_other_cells_do_not_matter(
    folders: dict[type, str], cells: Counts, model: type, level: str
) -> None:
    whole = run_model(model(folders[model], level, batch=32), cells)
    assert np.isfinite(whole.cells).all()
    assert np.isfinite(whole.mean).all()
    order = np.random.default_rng(1).permutation(len(cells))
    single = run_model(model(folders[model], level, batch=1), cells.rows(order))
    assert np.abs(whole.cells[order] - single.cells).max() < TOLERANCE
    assert np.abs(whole.mean - single.mean).max() < TOLERANCE
    alone = run_model(model(folders[model], level), cells.rows(np.array([2])))
    assert np.abs(alone.cells - whole.cells[2]).max() < TOLERANCE


@pytest.mark.parametrize("model", MODELS)
def test_columns_and_unknown_genes_do_not_matter(folders: dict[type, str], cells: Counts, model: type) -> None:
    one = run_model(model(folders[model], "gene"), cells)
    order = np.argsort(cells.genes)
    order = order[[not str(name).startswith("NOTAGENE") for name in cells.genes[order]]]
    two = run_model(model(folders[model], "gene"), counts_of(cells.values[:, order], cells.genes[order]))
    assert np.abs(one.cells - two.cells).max() < TOLERANCE
    assert np.abs(one.mean - two.mean).max() < TOLERANCE


@pytest.mark.parametrize("model", MODELS)
def test_what_is_averaged(folders: dict[type, str], cells: Counts, model: type) -> None:
    kinds = ("all", "data", "expressed")
    got = {kind: run_model(model(folders[model], "gene", average=kind), cells) for kind in kinds}
    measured = set(MEASURED) & set(GENES)
    assert set(got["all"].names) == set(GENES)
    assert set(got["data"].names) == measured
    assert (got["all"].count == len(cells)).all()
    for name, count in zip(got["expressed"].names, got["expressed"].count, strict=True):
        assert count == (cells.values[:, [cells.genes.tolist().index(name)]].toarray() > 0).sum()
    rows = [got["all"].names.tolist().index(name) for name in got["data"].names]
    assert np.array_equal(got["all"].mean[rows], got["data"].mean)
    single = [run_model(model(folders[model], "gene"), cells.rows(np.array([i]))).mean for i in range(len(cells))]
    name = got["expressed"].names[0]
    having = (cells.values[:, [cells.genes.tolist().index(name)]].toarray() > 0)[:, 0]
    mean = np.stack(single)[having, got["all"].names.tolist().index(name)].mean(0)
    assert np.abs(got["expressed"].mean[0] - mean).max() < TOLERANCE


@pytest.mark.parametrize("level", ["gene", "cell"])
@pytest.mark.parametrize("model", MODELS)
def test_the_total_of_a_panel(folders: dict[type, str], cells: Counts, model: type, level: str) -> None:
    """``whole``: a cell of which the screen holds a part is fed as in the whole screen, genes beyond the list aside."""
    kept = cells.rows(np.arange(6))
    rest = counts_of(np.full((6, 1), 500.0), ["NOTAGENE3"])
    panel = Counts(kept.values, kept.genes, kept.total + 500)
    genes = np.array([*kept.genes, "NOTAGENE3"], dtype=object)
    full = Counts(sparse.hstack([kept.values, rest.values]).tocsr().astype(np.float32), genes, kept.total + 500)
    by_whole = [run_model(model(folders[model], level, total="whole"), data).cells for data in (panel, full)]
    assert np.abs(by_whole[0] - by_whole[1]).max() < TOLERANCE
    aligned = run_model(model(folders[model], level), panel).cells
    assert np.abs(by_whole[0] - aligned).max() > 1e-3


@pytest.mark.parametrize("level", ["gene", "cell"])
@pytest.mark.parametrize("model", MODELS)
def test_half_precision_is_close(folders: dict[type, str], cells: Counts, model: type, level: str) -> None:
    full, half = (run_model(model(folders[model], level, precision=p), cells) for p in ("float32", "bfloat16"))
    scale = np.abs(full.cells).max()
    assert 0 < np.abs(full.cells - half.cells).max() < 0.05 * scale
    assert np.abs(full.mean - half.mean).max() < 0.05 * np.abs(full.mean).max()


@pytest.mark.parametrize("model", MODELS)
def test_what_cells_cannot_be_fed(folders: dict[type, str], cells: Counts, model: type) -> None:
    made = model(folders[model], "gene")
    with pytest.raises(UserError, match=r"reads raw counts.*logarithms"):
        run_model(made, Counts(cells.values, cells.genes, np.full(len(cells), np.nan)))
    with pytest.raises(UserError, match="none among 2"):
        run_model(made, counts_of(np.ones((2, 2)), ["NOTAGENE1", "NOTAGENE2"]))
    with pytest.raises(UserError, match="layer 3 does not exist, expected 0 to 2"):
        run_model(model(folders[model], "gene", layer=3), cells)


@pytest.mark.parametrize("model", MODELS)
def test_static_vectors_are_positions(folders: dict[type, str], model: type) -> None:
    table = model(folders[model]).compute(["JAK1", "TP53", "NOTAGENE1"], None)
    network = model(folders[model]).network()
    assert table.names.tolist() == ["JAK1", "TP53"]
    assert np.array_equal(table.matrix, network.positions.numpy()[[GENES.index("JAK1"), GENES.index("TP53")]])


@pytest.mark.parametrize("model", MODELS)
def test_where_the_gene_list_is_looked_for(tmp_path: Path, fresh_home: Path, model: type) -> None:
    folder = tmp_path / "weights"
    WRITERS[model](folder, 7)
    beside = folder / GENE_LIST
    assert model(str(folder)).gene_list() == beside
    assert GENE_LIST_URL not in dict(model(str(folder)).fetched())
    moved = beside.rename(tmp_path / "list.tsv")
    absent = model(str(folder))
    assert (GENE_LIST_URL, ()) in absent.fetched()
    with pytest.raises(UserError, match=f"no gene list.*{GENE_LIST_URL}.*extract --model {absent.title}.*genes=FILE"):
        absent.compute(None, None)
    given = model(str(folder), genes=str(moved))
    assert given.files()[-1] == moved
    assert given.compute(["TP53"], None).names.tolist() == ["TP53"]
    for place in (local_file(GENE_LIST_URL), fresh_home / "weights" / GENE_LIST):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(moved.read_bytes())
        assert model(str(folder)).gene_list() == place
        assert len(model(str(folder)).compute(None, None).names) == len(GENES)
    assert model(str(folder), genes="https://example.org/list.tsv").fetched()[-1] == (
        "https://example.org/list.tsv",
        (),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "an empty file"),
        ("gene\tindex\nTP53\t0\n", "columns gene_name and index.*'gene"),
        ("gene_name\tindex\n", "columns"),
        ("gene_name\tindex\nTP53\t0\nMYC\t2\n", "number 1 in line 3, found .'MYC', '2'"),
        ("gene_name\tindex\nTP53\nMYC\t1\n", "number 0 in line 2"),
        ("gene_name\tindex\nTP53\t0\nTP53\t1\n", "every gene once, found 'TP53'"),
    ],
)
def test_files_that_are_no_gene_list(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "list.tsv").write_text(text)
    with pytest.raises(UserError, match=says):
        read_genes(tmp_path / "list.tsv")


def test_another_list_than_the_model_was_trained_with(folders: dict[type, str], tmp_path: Path) -> None:
    short = str(write_genes(tmp_path, GENES[:20]))
    for model in MODELS:
        with pytest.raises(UserError, match=f"{len(GENES)} genes and . others; the gene list has 20 genes"):
            model(folders[model], genes=short).compute(None, None)


@pytest.mark.shared
def test_the_published_gene_list(shared_data: Path) -> None:
    names = read_genes(shared_data / "vocab" / GENE_LIST)
    assert (len(names), names[0], names[-1]) == (19264, "A1BG", "ZZZ3")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("wrong", [{"average": "some"}, {"total": "mean"}, {"level": "tissue"}, {"layer": 2}])
def test_parameters_out_of_range(model: type, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=model.__name__):
        model(**wrong)
