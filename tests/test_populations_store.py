"""Predicted cells on disk: AnnData reads them, they name the controls they were made of, and damage is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from _grid import FULL, run, stored, vectors, write_registry, write_vectors
from scipy.sparse import csr_matrix

from embbench.cache.populations import read_population, write_population
from embbench.cache.store import DamagedFileError
from embbench.core import CellView, Inputs, PerturbationDataset, Run, Sources, UserError, draw_sources
from embbench.grid.config import Grid
from embbench.grid.fit import job_of, predict
from embbench.grid.results import Results, Stored
from embbench.grid.schedule import run_grid
from embbench.grid.screens import screen

COMPONENTS = Path(__file__).resolve().parent / "components" / "registry.yaml"
SPLIT, SAMPLES = "unseen_perturbation:3", 9
AXES = {"dataset": "full", "split": SPLIT, "target": "population", "samples": SAMPLES, "metrics": ["l2_all"]}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("store")
    heads = {"pooling": {"impl": "components.full_screen:EmbeddedCells"}}
    return (*write_registry(folder, datasets={"full": {"impl": FULL}}, heads=heads), str(COMPONENTS))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, paths: tuple[str, ...]) -> str:
    """A table that covers two thirds of the perturbed genes."""
    names = [n for i, n in enumerate(screen("full", "all", paths).entity_names) if i % 3]
    return write_vectors(tmp_path_factory.mktemp("half") / "half.csv", names, vectors(names, 3))


def opened(results: Results, key: str) -> anndata.AnnData:
    return anndata.read_h5ad(results.population_path(key))


def control_cells(data: PerturbationDataset, made: anndata.AnnData) -> np.ndarray:
    """The control cell behind each predicted cell, found by context and name."""
    pools = {c: (data.cells.names(i, "A").tolist(), data.cells.controls(i, "A")) for i, c in enumerate(data.contexts)}
    pairs = zip(made.obs["control_context"].astype(str), made.obs["control"].astype(str), strict=True)
    return np.stack([pools[c][1][pools[c][0].index(name)] for c, name in pairs])


def named_cells(kept: Stored, data: PerturbationDataset) -> np.ndarray:
    """The control cells that the record names by position."""
    return kept.sources.cells(CellView(data.cells, np.array([], dtype=np.int64)))


def test_anndata_opens_a_population(paths: tuple[str, ...], half: str, tmp_path: Path) -> None:
    results, planned = run(tmp_path / "out", paths, head="moved_controls", **AXES)
    kept, data = stored(results, planned[0], paths)
    made = opened(results, planned[0].key)
    m = len(kept.rows)
    assert made.shape == (m * SAMPLES, len(data.genes))
    assert made.X.dtype == np.float32
    assert np.array_equal(made.X.reshape(kept.values.shape), kept.values)
    assert made.var_names.tolist() == data.genes.tolist()
    assert made.obs_names.is_unique
    assert list(made.obs) == ["condition", "context", "row", "covered", "control", "control_context"]
    assert made.obs["row"].to_numpy().tolist() == np.repeat(kept.rows, SAMPLES).tolist()
    assert made.obs["condition"].astype(str).tolist() == [data.conditions[r] for r in np.repeat(kept.rows, SAMPLES)]
    assert made.obs["context"].astype(str).tolist() == data.context[np.repeat(kept.rows, SAMPLES)].tolist()
    assert made.obs["covered"].dtype == bool
    assert made.uns["unit"] == "log1p of counts scaled to 1e4"
    assert (made.uns["dataset"], made.uns["dataset_digest"]) == (data.name, data.meta["digest"])
    told = made.uns["embbench"]
    where = planned[0].run
    assert (told["head"], told["split"], told["fold"], told["seed"]) == ("moved_controls", SPLIT, where.fold, 0)
    assert (told["embedding"], told["controls"], told["key"]) == ("none", "half A", planned[0].key)
    made.write_h5ad(tmp_path / "again.h5ad")  # what was read can be written by anndata itself
    assert np.array_equal(anndata.read_h5ad(tmp_path / "again.h5ad").X, made.X)
    assert anndata.read_h5ad(results.population_path(planned[0].key), backed="r").shape == made.shape


def test_a_mean_head_moves_the_controls_that_are_named(paths: tuple[str, ...], half: str, tmp_path: Path) -> None:
    results, planned = run(tmp_path / "out", paths, emb=half, head="ridge:alpha=10.0", **AXES)
    effects, others = run(tmp_path / "effects", paths, emb=half, head="ridge:alpha=10.0", dataset="full", split=SPLIT)
    for one, other in zip(planned, others, strict=True):
        kept, data = stored(results, one, paths)
        moved, _ = stored(effects, other, paths)  # the same fit, asked for its mean effects; uncovered: the fallback
        made = opened(results, one.key)
        away = made.X - np.repeat(moved.values, SAMPLES, axis=0)
        np.testing.assert_allclose(away, control_cells(data, made), atol=1e-5)
        assert (made.obs["control_context"].astype(str) == made.obs["context"].astype(str)).all()
        assert np.array_equal(made.obs["covered"].to_numpy().reshape(-1, SAMPLES)[:, 0], kept.covered)
        assert 0 < kept.covered.sum() < len(kept.covered)
        np.testing.assert_allclose(away, named_cells(kept, data).reshape(away.shape), atol=1e-5)
        distinct = made.obs.groupby("row")["control"].nunique()
        assert (distinct == SAMPLES).all()  # drawn without repeats: the contexts have 40 controls a half


def test_cells_without_a_control_say_so_and_keep_the_fallbacks_ones(
    paths: tuple[str, ...], half: str, tmp_path: Path
) -> None:
    results, planned = run(tmp_path / "out", paths, emb=half, head="pooling", **AXES)
    kept, data = stored(results, planned[0], paths)
    made = opened(results, planned[0].key)
    lacking = ~made.obs["covered"].to_numpy()
    assert (made.obs["control"].astype(str) == "").to_numpy().tolist() == (~lacking).tolist()
    assert (made.obs["control_context"].astype(str) == "").to_numpy().tolist() == (~lacking).tolist()
    part = made[lacking]
    mean = np.stack(
        [
            data.effects[kept.train[data.context[kept.train] == c]].astype(np.float64).mean(axis=0)
            for c in part.obs["context"].astype(str)
        ]
    )
    np.testing.assert_allclose(part.X - mean, control_cells(data, part), atol=1e-5)
    assert np.array_equal(kept.sources.context[kept.covered], np.full((kept.covered.sum(), SAMPLES), -1))


def test_a_head_with_sources_is_taken_at_its_word(paths: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(Run("full", SPLIT, "fold0", "moved_controls", target="population", samples=SAMPLES), paths)
    made = predict(job)
    effect = predict(replace(job, run=replace(job.run, target="effects")))
    view = CellView(job.data.cells, np.array([], dtype=np.int64))
    away = made.values - made.sources.cells(view)
    np.testing.assert_allclose(away, np.repeat(effect.values[:, None], SAMPLES, axis=1), atol=1e-5)
    monkeypatch.setattr(job.head.entry.load(), "sources", lambda self, asked, n: Sources.nowhere(len(asked), n + 1))
    with pytest.raises(ValueError, match=r"MovedControls.sources gave shape .* expected"):
        predict(job)


def test_two_runs_give_the_same_bytes_but_for_the_versions(paths: tuple[str, ...], tmp_path: Path) -> None:
    (one, planned), (two, _) = (run(tmp_path / n, paths, head="moved_controls", **AXES) for n in "ab")
    for p in planned:
        assert one.population_path(p.key).read_bytes() == two.population_path(p.key).read_bytes()
        assert one.facts(p.key)["cells"] == two.facts(p.key)["cells"]


def spoil(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-40] ^= 4
    path.write_bytes(body)


def swap(path: Path) -> None:
    """Whole and sealed, but the cells of another prediction."""
    genes = np.array(["a", "b"], dtype=object)
    obs = {"_index": np.array(["0-0"], dtype=object)}
    write_population(path, np.zeros((1, 2), np.float32), obs, genes, {"unit": "none"})


@pytest.mark.parametrize("hurt", [Path.unlink, spoil, swap], ids=["gone", "flipped", "swapped"])
@pytest.mark.filterwarnings("ignore:.*set aside as")
def test_a_record_without_its_cells_is_not_done(paths: tuple[str, ...], tmp_path: Path, hurt) -> None:
    grid = Grid(**AXES, head="moved_controls", baselines=False, permutations={})
    results, planned = run(tmp_path / "out", paths, head="moved_controls", **AXES)
    before, (victim, *others) = {p.key: opened(results, p.key).X for p in planned}, [p.key for p in planned]
    assert all(results.done(p.key) for p in planned)
    hurt(results.population_path(victim))
    data = screen("full", "all", paths)
    with pytest.raises(UserError, match=rf"{victim}.*run embbench grid --out"):
        results.prediction(victim, data)
    assert not results.done(victim)
    tally = run_grid(grid, results.folder, paths=paths)
    assert (tally.done, tally.reused) == (len(planned), len(others))
    assert results.done(victim)
    assert np.array_equal(opened(results, victim).X, before[victim])
    results.path("predictions", victim).unlink()  # cells without their record are no prediction either
    assert not results.done(victim)


def test_the_record_does_not_hold_the_cells_twice(paths: tuple[str, ...], tmp_path: Path) -> None:
    results, planned = run(tmp_path / "out", paths, head="moved_controls", **AXES)
    with h5py.File(results.path("predictions", planned[0].key)) as file:
        assert sorted(file) == ["covered", "groups", "rows", "sources|context", "sources|position", "train"]


def test_any_column_and_any_mapping(tmp_path: Path) -> None:
    path, cells = tmp_path / "p.h5ad", np.arange(6, dtype=np.float32).reshape(3, 2)
    obs = {
        "_index": np.array(["x", "y", "z"], dtype=object),
        "n": np.array([1.5, 2, 3]),
        "t": np.array(["b", "a", "b"]),
    }
    sha = write_population(path, cells, obs, np.array(["g/1", "g2"]), {"deep": {"k": 1, "w": "µ"}, "x": 0.5})
    made = anndata.read_h5ad(path)
    assert made.var_names.tolist() == ["g/1", "g2"]
    assert made.obs["t"].astype(str).tolist() == ["b", "a", "b"]
    assert made.obs["n"].tolist() == [1.5, 2, 3]
    assert (made.uns["deep"]["k"], made.uns["deep"]["w"], made.uns["x"]) == (1, "µ", 0.5)
    assert read_population(path)[1]["sha256"] == sha
    bare = write_population(path, cells[:0], {"_index": np.array([], dtype=object)}, np.array(["g1", "g2"]), {})
    assert bare != sha
    assert anndata.read_h5ad(path).shape == (0, 2)
    with pytest.raises(DamagedFileError, match="expected a scores file, found population"):
        read_population(path, "scores")


class Pools:
    """Two contexts: two controls and none."""

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        return np.full((self.n_controls(context, half), 3), context, np.float32)

    def n_controls(self, context: int, half: str = "A") -> int:
        return [2, 0, 5][context]

    def names(self, context: int, half: str = "A") -> np.ndarray:
        return np.array([f"c{context}-{i}" for i in range(self.n_controls(context, half))], dtype=str)


def inputs(*context: int, contexts: frozenset[int] | None = None) -> Inputs:
    view = CellView(Pools(), np.array([], dtype=np.int64), contexts)  # type: ignore[arg-type]
    entities = csr_matrix(np.eye(4, dtype=np.float32)[: len(context)])
    return Inputs(
        np.zeros((len(context), 0)), np.array(context, dtype=np.int64), entities, ((),) * len(context), cells=view
    )


def test_drawn_sources() -> None:
    few = draw_sources(inputs(0), 7, 0)
    assert set(few.position[0].tolist()) == {0, 1}  # with repeats, where there are too few
    assert sorted(draw_sources(inputs(2), 5, 0).position[0].tolist()) == [0, 1, 2, 3, 4]
    both = draw_sources(inputs(0, 2), 4, 3)
    assert np.array_equal(draw_sources(inputs(0, 2).rows(np.array([1])), 4, 3).position[0], both.position[1])
    closed = draw_sources(inputs(1, contexts=frozenset({0, 2})), 7, 0)
    pairs = sorted(zip(closed.context[0].tolist(), closed.position[0].tolist(), strict=True))
    assert pairs == [(0, 0), (0, 1), *((2, i) for i in range(5))]
    with pytest.raises(ValueError, match=r"contexts \[1\] have no control cells of half A"):
        draw_sources(inputs(1), 2, 0)
    with pytest.raises(ValueError, match="n_cells must be >= 1, got 0"):
        draw_sources(inputs(0), 0, 0)
    with pytest.raises(ValueError, match="no single cells"):
        draw_sources(replace(inputs(0), cells=None), 1, 0)


def test_sources_without_control_cells() -> None:
    view = inputs(0).cells
    assert np.isnan(Sources.nowhere(2, 3).cells(view)).all()
    assert Sources.nowhere(0, 3).cells(view).shape == (0, 3, 3)
    mixed = Sources(np.array([[0, -1, 2]]), np.array([[1, -1, 4]]))
    assert mixed.names(view).tolist() == [["c0-1", "", "c2-4"]]
    assert np.array_equal(mixed.cells(view)[0, :, 0], [0, np.nan, 2], equal_nan=True)
    with pytest.raises(ValueError, match=r"share a shape \(n, m\), got \(1, 2\) and \(2, 1\)"):
        Sources(np.zeros((1, 2), int), np.zeros((2, 1), int))
