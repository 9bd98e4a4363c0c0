"""What the contracts carry also runs through the grid: planned, fitted, stored, read back and scored."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from _grid import FULL, row_sums, run, stored, vectors, write_registry, write_vectors
from scipy.spatial.distance import cdist
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from embbench import registry as registries
from embbench.core import share_of
from embbench.grid.frames import read_frames
from embbench.grid.names import registry_of
from embbench.grid.plan import plan
from embbench.grid.screens import screen
from embbench.metrics._cells import choose
from embbench.registry import Registry

COMPONENTS = Path(__file__).resolve().parent / "components" / "registry.yaml"
DATASETS = {
    "full": {"impl": FULL},
    "dosed": {"impl": FULL, "params": {"level": "condition", "doses": True}},
    "four": {"impl": FULL, "params": {"level": "condition", "contexts": 4}},
}
SPLIT = "unseen_perturbation:3"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reach")
    heads = {"embedded_cells": {"impl": "components.full_screen:EmbeddedCells"}}
    return (*write_registry(folder, datasets=DATASETS, heads=heads), str(COMPONENTS))


@pytest.fixture
def half(tmp_path, paths):
    """Spec, names and vectors of a table that covers two thirds of the perturbed genes."""
    names = [n for i, n in enumerate(screen("full", "all", paths).entity_names) if i % 3]
    matrix = vectors(names, 3)
    return write_vectors(tmp_path / "half.csv", names, matrix), names, matrix


def frames_of(results, paths, metric):
    frames = read_frames(results, registry_of(paths), [metric])
    assert set(frames.runs.status) == {"done"}
    assert set(frames.scores["metric"]) == {metric}
    assert np.isfinite(frames.scores["value"]).any()
    return frames


def test_every_component_of_the_folder_is_tried_here():
    here = Path(__file__).resolve()
    files = (here.name, "test_populations_store.py", "test_monitor.py")
    tried = "".join((here.parent / name).read_text(encoding="utf-8") for name in files)
    assert all(f'"{e.name}' in tried for e in Registry(COMPONENTS).entries())


def shares_of_tested(data, rows):
    """Shares (g, 3) of down, unchanged, up among the tested entries of some rows."""
    seen, labels = data.labels_tested[rows], data.labels[rows]
    return np.stack([((labels == c) & seen).sum(axis=0) for c in (-1, 0, 1)], axis=1) / seen.sum(axis=0)[:, None]


def test_labels(paths, half, tmp_path):
    spec, names, matrix = half
    results, planned = run(
        tmp_path / "out",
        paths,
        dataset="full",
        split=SPLIT,
        emb=spec,
        head="label_frequency:width=2.0",
        target="labels",
    )
    assert {p.run.select for p in planned} == {"auroc_condition_all"}
    made, data = stored(results, planned[0], paths)
    X, has = row_sums(data, names, matrix)
    assert np.array_equal(made.covered, has[made.rows])
    assert 0 < made.covered.sum() < len(made.rows)
    for row, proba, covered in zip(made.rows, made.values, made.covered, strict=True):
        same = made.train[data.context[made.train] == data.context[row]]
        if not covered:
            np.testing.assert_allclose(proba, shares_of_tested(data, same), atol=1e-6)
            continue
        fit = same[has[same]]
        weight = np.exp(-np.square(X[fit] - X[row]).sum(axis=1) / 2.0)
        seen = data.labels_tested[fit]
        counts = [1 + weight @ ((data.labels[fit] == c) & seen) for c in (-1, 0, 1)]
        np.testing.assert_allclose(proba, np.stack(counts, axis=1) / sum(counts)[:, None], atol=1e-5)
    scores = frames_of(results, paths, "auroc_condition_all").scores
    checked = 0
    for row, proba in zip(made.rows, made.values, strict=True):
        seen = data.labels_tested[row]
        if len(set(data.labels[row][seen].tolist())) == 3:
            want = roc_auc_score(data.labels[row][seen], proba[seen].astype(np.float64), multi_class="ovr")
            np.testing.assert_allclose(scores.loc[scores["row"] == row, "value"], want, atol=1e-9)
            checked += 1
    assert checked > 3


def test_label_selection_uses_a_label_metric(paths, tmp_path):
    axes = {"dataset": "full", "split": SPLIT, "emb": "random:4", "head": "label_frequency", "target": "labels"}
    results, _ = run(tmp_path / "out", paths, **axes)
    runs = frames_of(results, paths, "auroc_condition_all").runs
    assert (runs.trials == 2).all()
    assert "width" in runs.chosen.iloc[0]


def edistance(x, y):
    return 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()


def test_populations(paths, tmp_path):
    axes = {"dataset": "full", "split": SPLIT, "head": ["shifted_cells"], "target": "population", "samples": 20}
    results, planned = run(tmp_path / "out", paths, **axes)
    assert {p.run.select for p in planned} == {"edistance_euclidean_v_all"}
    made, data = stored(results, planned[0], paths)
    assert made.values.shape == (len(made.rows), 20, len(data.genes))
    for row in made.rows[:3]:
        same = made.train[data.context[made.train] == data.context[row]]
        centre = data.baseline[data.context_codes[row]] + data.effects[same].astype(np.float64).mean(axis=0)
        residuals = np.concatenate([(c := data.cells.perturbed(i)) - c.mean(axis=0) for i in same])
        away = made.values[list(made.rows).index(row)] - centre
        assert cdist(away, residuals).min(axis=1).max() < 1e-4  # every cell is a training residual around the centre
    scores = frames_of(results, paths, "edistance_euclidean_v_all").scores
    for row, cells in zip(made.rows[:5], made.values, strict=False):
        seen = data.cells.perturbed(row)
        seen = seen[share_of(len(seen), row, "observed")]
        k = min(len(cells), len(seen))
        want = edistance(*(choose(c, k).astype(np.float64) for c in (cells, seen)))
        np.testing.assert_allclose(scores.loc[scores["row"] == row, "value"], want, rtol=1e-6)


def test_populations_of_a_screen_that_is_gone_say_so(paths, tmp_path):
    axes = {"dataset": "full", "split": SPLIT, "head": "shifted_cells", "target": "population", "samples": 5}
    results, _ = run(tmp_path / "out", paths, **axes)
    names = ["edistance_euclidean_v_all", "l2_all"]
    assert len(read_frames(results, registries.default(), names).scores)  # scored when it was made
    shutil.rmtree(results.folder / "scores")
    frames = read_frames(results, registries.default(), names)
    assert set(frames.scores["metric"]) == {"l2_all"}  # of the mean of the stored cells
    assert frames.facts["full"]["undefined"] == {"edistance_euclidean_v_all": "no cells"}


def test_populations_without_vectors_are_shifted_controls(paths, half, tmp_path):
    spec, names, _ = half
    axes = {"dataset": "full", "split": SPLIT, "emb": spec, "target": "population", "samples": 8}
    results, planned = run(tmp_path / "out", paths, head="embedded_cells", **axes)
    made, data = stored(results, planned[0], paths)
    lacking = [i for i, row in enumerate(made.rows) if not set(data.entities[row]) <= set(names)]
    assert np.array_equal(np.flatnonzero(~made.covered), lacking)
    for i in lacking[:4]:
        code = data.context_codes[made.rows[i]]
        mean = data.effects[made.train[data.context_codes[made.train] == code]].astype(np.float64).mean(axis=0)
        gap = cdist(made.values[i] - mean, data.cells.controls(int(code), "A"))
        assert gap.min(axis=1).max() < 1e-4
    assert np.isfinite(frames_of(results, paths, "edistance_euclidean_v_all").scores["value"]).all()


def test_several_embeddings_with_one_missing(paths, half, tmp_path):
    spec, names, matrix = half
    data = screen("full", "all", paths)
    others = [n for i, n in enumerate(data.entity_names) if i % 4]
    wide = 50 * vectors(others, 4, seed=1)
    both = f"{spec}+{write_vectors(tmp_path / 'others.csv', others, wide)}"
    axes = {"dataset": "full", "split": SPLIT, "emb": both, "scope": "joint"}
    results, planned = run(tmp_path / "out", paths, head=["block_vote:alpha=1.0", "knn:k=3"], **axes)
    vote = next(p for p in planned if p.run.head.startswith("block_vote"))
    made, _ = stored(results, vote, paths)
    (A, a), (B, b) = row_sums(data, names, matrix), row_sums(data, others, wide)
    assert np.array_equal(made.covered, (a | b)[made.rows])
    fit = made.train[(a | b)[made.train]]
    Y = data.effects.astype(np.float64)
    total, mean = np.zeros((len(made.rows), Y.shape[1])), Y[fit].mean(axis=0)
    for X, has in ((A, a), (B, b)):
        X = X / np.sqrt(np.square(X[fit[has[fit]]]).sum(axis=1).mean())  # blocks of one size, however wide
        ridge = Ridge(alpha=1.0, fit_intercept=False).fit(X[fit[has[fit]]], Y[fit[has[fit]]] - mean)
        total += has[made.rows, None] * ridge.predict(X[made.rows])
    want = mean + total / np.maximum(a.astype(int) + b, 1)[made.rows, None]
    np.testing.assert_allclose(made.values[made.covered], want[made.covered], atol=1e-5)
    knn, _ = stored(results, next(p for p in planned if p.run.head.startswith("knn")), paths)
    assert np.array_equal(knn.covered, (a & b)[knn.rows])
    assert 0 < knn.covered.sum() < made.covered.sum() < len(made.rows)
    frames_of(results, paths, "l2_all")


def test_graphs(paths, tmp_path):
    axes = {"dataset": "full", "split": SPLIT, "scope": "joint"}
    skipped = plan_reasons(paths, head="graph_step", **axes)
    assert skipped == {"head graph_step needs a graph (--graph)"}
    results, planned = run(tmp_path / "out", paths, head="graph_step", graph="ppi", **axes)
    made, data = stored(results, planned[0], paths)
    names, edges = registries.default().get("graphs", "ppi").make().load()
    known = [n for n in data.entity_names if n in set(names.tolist())]
    index = [names.tolist().index(n) for n in known]
    table, where = edges[index][:, index].toarray(), {n: i for i, n in enumerate(known)}
    reached = 0
    for row, value in zip(made.rows, made.values, strict=True):
        weight = np.zeros(len(made.train))
        for j, other in enumerate(made.train):
            pairs = [
                (where[x], where[y]) for x in data.entities[row] for y in data.entities[other] if {x, y} <= set(where)
            ]
            weight[j] = sum(table[pair] for pair in pairs)
        reached += weight.any()
        weight = weight if weight.any() else np.ones(len(made.train))
        want = weight @ data.effects[made.train].astype(np.float64) / weight.sum()
        np.testing.assert_allclose(value, want, atol=1e-5)
    assert reached > 1
    frames_of(results, paths, "l2_all")


def plan_reasons(paths, **axes):
    from _grid import PLAIN

    from embbench.grid.config import Grid

    return {p.reason for p in plan(Grid(**{**PLAIN, **axes}), paths)}


def test_doses(paths, tmp_path):
    results, planned = run(tmp_path / "out", paths, dataset="dosed", split=SPLIT, head="dose_slope", scope="joint")
    made, data = stored(results, planned[0], paths)
    dose = data.dose[made.train][:, None]
    slope = np.linalg.lstsq(dose, data.effects[made.train].astype(np.float64), rcond=None)[0][0]
    np.testing.assert_allclose(made.values, np.outer(data.dose[made.rows], slope), atol=1e-5)
    conditions = set(frames_of(results, paths, "pearson_all").scores["condition"])
    assert all(c.rpartition("@")[2] in {"0.5", "1", "2"} for c in conditions)


def test_joint_over_contexts(paths, tmp_path):
    data = screen("four", "all", paths)
    names = list(data.entity_names)
    matrix = vectors(names, 3)
    spec = write_vectors(tmp_path / "v.csv", names, matrix)
    axes = {"dataset": "four", "split": "unseen_context", "emb": spec}
    assert plan_reasons(paths, head="context_ridge", **axes) == {
        "head context_ridge needs a context embedding (--context-emb)"
    }
    results, planned = run(tmp_path / "out", paths, head="context_ridge:alpha=2.0", context_emb="control_mean", **axes)
    made, _ = stored(results, planned[1], paths)
    X, _ = row_sums(data, names, matrix)
    own = data.baseline[data.context_codes].astype(np.float64)
    blocks = [b / np.sqrt(np.square(b[made.train]).sum(axis=1).mean()) for b in (X, own)]
    Z = np.hstack([np.ones((len(data), 1)), *blocks, own])
    ridge = Ridge(alpha=2.0, fit_intercept=False).fit(Z[made.train], data.effects[made.train].astype(np.float64))
    np.testing.assert_allclose(made.values, ridge.predict(Z[made.rows]), atol=1e-4)
    assert set(data.context[made.rows]) == {data.contexts[1]}
    frames_of(results, paths, "pearson_all")


def test_embeddings_fitted_per_fold(paths, tmp_path):
    axes = {"dataset": "full", "split": SPLIT, "emb": "response_loadings:4", "head": "knn:k=1", "scope": "joint"}
    results, planned = run(tmp_path / "out", paths, **axes)
    for p in planned:
        made, data = stored(results, p, paths)
        Y = data.effects[made.train].astype(np.float64)
        _, sizes, loadings = np.linalg.svd(Y - Y.mean(axis=0), full_matrices=False)
        genes = data.genes.tolist()
        X, has = row_sums(data, genes, (loadings.T * sizes)[:, :4])
        assert np.array_equal(made.covered, has[made.rows])
        assert made.covered.any()
        fit = made.train[has[made.train]]
        near = fit[cdist(X[made.rows[made.covered]], X[fit]).round(5).argmin(axis=1)]
        np.testing.assert_array_equal(made.values[made.covered], data.effects[near])
    frames_of(results, paths, "l2_notarget")
