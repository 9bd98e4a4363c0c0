"""Contextual embeddings in a grid: counts of control cells, one tensor per context, pooling, closed contexts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _cli import embbench
from _grid import PLAIN, run
from oracles import _write_scgpt
from scipy import sparse

from embbench import registry
from embbench.cache.home import home
from embbench.core import CellView, PerturbationDataset, UserError
from embbench.datasets._import import import_h5ad
from embbench.datasets.simulator import Simulator
from embbench.embeddings.models._panel import columns_of, metacells
from embbench.embeddings.models._run import chunks
from embbench.embeddings.models.scgpt import ScGPT
from embbench.grid.plan import plan
from embbench.grid.results import Results
from embbench.grid.screens import screen
from embbench.grid.vectors import compute_embedding

SMALL = "sim_cells:n_perturbations=12:n_genes=40:controls_per_context=80:cells_per_perturbation=12:combos=0"
SHAPE = _write_scgpt.Shape(width=16, heads=2, hidden=24, layers=2, pad_value=-2, seed=5)


@pytest.fixture(scope="module")
def data() -> PerturbationDataset:
    return screen(SMALL, "all", ())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, data: PerturbationDataset) -> str:
    """A tiny scGPT whose vocabulary covers the simulated genes, as a spec without level."""
    folder = tmp_path_factory.mktemp("weights") / "scgpt"
    names = sorted({*data.genes.tolist(), *data.entity_names})
    _write_scgpt.write_checkpoint(folder, tokens=[*names, "<pad>", "<cls>", "<eoc>"], shape=SHAPE)
    return f"scgpt:checkpoint={folder}"


def embed(spec: str, data: PerturbationDataset, rows: np.ndarray | None = None, **options: Any) -> Any:
    rows = np.arange(len(data)) if rows is None else rows
    return compute_embedding(registry.default(), spec, data, rows, **options)


# ---- counts -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, PerturbationDataset]:
    """The simulated cells as an `.h5ad`, and the screen imported from it with whole-cell totals."""
    cells = Simulator(
        name="s", level="cells", n_perturbations=8, n_genes=30, n_contexts=2, controls_per_context=80
    ).load()
    assert isinstance(cells.cells, CellView) or cells.cells is not None
    source = cells.cells.as_anndata()
    path = tmp_path_factory.mktemp("h5ad") / "s.h5ad"
    source.write_h5ad(path)
    data = import_h5ad(
        path, "s", "perturbation", "control", context_keys=["context"], batch_key="batch", size_factor="total_counts"
    )
    return source, data


def test_imported_cells_give_their_counts_back(imported: tuple[Any, PerturbationDataset]) -> None:
    source, data = imported
    for code, context in enumerate(data.contexts):
        names, counts = data.cells.names(code, "all"), data.cells.counts(code, "all")
        own = source[(source.obs["perturbation"] == "control") & (source.obs["context"] == context)]
        assert sorted(names) == sorted(own.obs_names)
        own = own[names]
        genes = [list(own.var_names).index(g) for g in counts.genes]
        assert np.array_equal(counts.values.toarray(), own.X.toarray()[:, genes])
        assert np.array_equal(counts.total, own.obs["total_counts"].to_numpy())
        halves = [data.cells.counts(code, h) for h in "AB"]
        assert sum(len(h) for h in halves) == len(own)
        part = data.cells.counts(code, "A", np.array([1, 3]))
        assert np.array_equal(part.values.toarray(), halves[0].values.toarray()[[1, 3]])
        assert data.cells.n_controls(code, "A") == len(halves[0])


def test_logarithms_have_no_depth(imported: tuple[Any, PerturbationDataset], tmp_path: Path) -> None:
    source, _ = imported
    logs = source.copy()
    scaled = sparse.csr_matrix(logs.X).multiply(1e4 / logs.obs["total_counts"].to_numpy()[:, None]).tocsr()
    logs.X = np.log1p(scaled).astype(np.float32)
    logs.write_h5ad(tmp_path / "logs.h5ad")
    data = import_h5ad(
        tmp_path / "logs.h5ad", "l", "perturbation", "control", context_keys=["context"], scale="lognorm"
    )
    counts = data.cells.counts(0)
    assert not counts.known
    first = scaled[[list(source.obs_names).index(n) for n in data.cells.names(0)]].toarray()
    genes = [list(source.var_names).index(g) for g in counts.genes]
    np.testing.assert_allclose(counts.values.toarray(), first[:, genes], rtol=1e-4)


# ---- pooling ------------------------------------------------------------------------------------------------------
def test_pooled_vectors_are_the_mean_over_training_cells(data: PerturbationDataset, model: str) -> None:
    code = data.context_codes
    both, first = embed(f"{model}:level=gene", data), embed(f"{model}:level=gene", data, np.flatnonzero(code == 0))
    network = ScGPT(model.partition("=")[2], "gene")
    view = data.training(np.arange(len(data)))
    alone = [network.one_context(view, c) for c in (0, 1)]
    where = [{n: i for i, n in enumerate(t.names.tolist())} for t in alone]
    for row, name in enumerate(both.names.tolist()):
        parts = [(t.matrix[w[name]], t.count[w[name]]) for t, w in zip(alone, where, strict=True) if name in w]
        want = sum(v.astype(np.float64) * n for v, n in parts) / sum(n for _, n in parts)
        np.testing.assert_allclose(both.matrix[row], want, atol=1e-6)
    np.testing.assert_allclose(first.lookup(first.names)[0], alone[0].lookup(first.names)[0], atol=1e-6)
    assert first.provenance["contexts"] == [data.contexts[0]]


def test_each_context_is_fed_once_whatever_the_fold(
    data: PerturbationDataset, model: str, fresh_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fed = []
    original = ScGPT.one_context
    monkeypatch.setattr(ScGPT, "one_context", lambda self, t, c: fed.append(c) or original(self, t, c))
    specs = [f"{model}:level=gene", f"{model}:level=gene:mode=per_context", f"{model}:level=gene:batch=3:device=cpu"]
    for split in ("unseen_perturbation:folds=2", "unseen_context"):
        run(tmp_path, (), dataset=[SMALL], split=[split], emb=specs, head=["ridge:alpha=1.0"], **PLAIN)
    assert sorted(fed) == [0, 1]
    assert len(list(home("cache", "scgpt").glob("*.h5"))) == 2


def test_per_context_vectors_differ_and_are_marked(data: PerturbationDataset, model: str) -> None:
    table = embed(f"{model}:level=gene:mode=per_context", data, np.flatnonzero(data.context_codes == 0))
    assert set(table.contexts.tolist()) == set(data.contexts)
    assert table.provenance["uses_query_controls"]
    name = table.names[0]
    one, two = (table.lookup([name], [c])[0] for c in data.contexts)
    assert np.abs(one - two).max() > 1e-3


def test_closed_contexts_are_never_read(data: PerturbationDataset, model: str, fresh_home: Path) -> None:
    rows = np.flatnonzero(data.context_codes == 0)
    table = embed(f"{model}:level=gene:mode=per_context", data, rows, strict=True)
    assert set(table.contexts.tolist()) == {data.contexts[0]}


def test_a_layer_or_another_sample_is_another_tensor(data: PerturbationDataset, model: str, fresh_home: Path) -> None:
    for choice in ("", ":layer=1", ":cells=20", ":cells=20:seed=1", ":metacells=4", ":metacells=all", ":ties=low"):
        embed(f"{model}:level=gene{choice}", data)
    assert len(list(home("cache", "scgpt").glob("*.h5"))) == 14


def test_cell_vectors_describe_contexts(data: PerturbationDataset, model: str, tmp_path: Path) -> None:
    table = embed(f"{model}:level=cell", data)
    assert table.entity == "context"
    assert table.names.tolist() == list(data.contexts)
    line = f"grid --dataset {SMALL} --split unseen_context --head nearest_context,ridge --emb random --out r"
    said = embbench(tmp_path, f"{line} --cell-emb {model} --permutations 0")
    assert said.code == 0, said
    used = {r["run"].get("context_embedding") for plan in Results(tmp_path / "r").plans() for r in plan["runs"]}
    assert f"{model}:level=cell" in used


def test_a_gene_embedding_is_no_cell_embedding(data: PerturbationDataset) -> None:
    from embbench.grid.config import Grid

    with pytest.raises(UserError, match=r"cell embedding 'go'.*found one of genes"):
        plan(Grid(dataset=[SMALL], emb=["go"], cell_emb=["go"]))


def test_condition_level_screens_are_told_what_to_use(model: str) -> None:
    flat = screen("sim_small", "all", ())
    with pytest.raises(UserError, match="needs control cells"):
        embed(f"{model}:level=gene", flat)


# ---- pieces -------------------------------------------------------------------------------------------------------
def test_old_symbols_and_identifiers_find_the_vocabulary() -> None:
    columns, index = columns_of(["H1F0", "ENSG00000141510", "nothing", "TP53", "MYC"], ("MYC", "TP53", "H1-0"))
    assert dict(zip(columns.tolist(), index.tolist(), strict=True)) == {0: 2, 3: 1, 4: 0}


def test_metacells_sum_their_cells(data: PerturbationDataset) -> None:
    counts = data.training(np.arange(len(data))).cells.counts(0)
    for size in (5, "all"):
        sums = metacells(counts, size, 0)
        assert len(sums) == (1 if size == "all" else max(1, len(counts) // size))
        assert np.array_equal(sums.values.sum(axis=0), counts.values.sum(axis=0))
        assert sums.total.sum() == pytest.approx(counts.total.sum())


def test_chunks_cover_every_cell_once() -> None:
    for cells in (0, 1, 64, 65, 5000):
        found = chunks(cells)
        assert np.array_equal(np.concatenate([np.zeros(0, int), *found]), np.arange(cells))
