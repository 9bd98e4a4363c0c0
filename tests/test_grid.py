"""The grid: what is planned, what a head is given, what is stored, and how good a score could have been."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from _grid import FULL, PLAIN, row_sums, run, stored, vectors, write_registry, write_vectors
from components.full_screen import FullScreen

from embbench import registry as registries
from embbench.core import Run, UserError
from embbench.datasets.simulator import Simulator
from embbench.embeddings.random import Random
from embbench.grid.apply import cross_validated, explain, find_run, refit
from embbench.grid.ceiling import ceiling
from embbench.grid.config import Grid
from embbench.grid.fit import job_of, predict, resolve_scope
from embbench.grid.frames import read_frames
from embbench.grid.gram import gram_of
from embbench.grid.inputs import Raw, assemble, query_part
from embbench.grid.names import registry_of
from embbench.grid.plan import plan
from embbench.grid.prediction import Prediction, product
from embbench.grid.results import Results
from embbench.grid.score import truth_of
from embbench.grid.screens import detectable, screen, split_of
from embbench.grid.select import Problem, choose
from embbench.grid.targets import target_values, training_truth
from embbench.grid.vectors import row_vectors

SPLIT = "unseen_perturbation:3"
FIXED = "knn:k=3:weights=uniform:temperature=1.0"  # one candidate: nothing is selected
SMALL_MLP = "mlp:width=8:depth=1:epochs=2:rank=4:device=cpu"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    datasets = {
        "full": {"impl": FULL},
        "four": {"impl": FULL, "params": {"level": "condition", "contexts": 4}},
        "gaps": {"impl": FULL, "params": {"level": "condition", "contexts": 3, "gaps": 0.3}},
        "dosed": {"impl": FULL, "params": {"level": "condition", "doses": True}},
    }
    heads = {
        "context_ridge": {"impl": "components.context_ridge:ContextRidge"},
        "graph_step": {"impl": "components.graph_step:GraphStep"},
        "shifted_cells": {"impl": "components.shifted_cells:ShiftedCells"},
    }
    return write_registry(tmp_path_factory.mktemp("grid"), datasets=datasets, heads=heads)


def planned_of(paths, **axes):
    return plan(Grid(**{**PLAIN, "dataset": "full", "split": SPLIT, **axes}), paths)


# ---------------------------------------------------------------------------------------------------------- plan


def roles(planned):
    """Role -> (embedding, head) pairs, folds left out."""
    out = {}
    for p in planned:
        out.setdefault(p.role, dict.fromkeys(()))[p.run.embedding, p.run.head] = None
    return {role: list(pairs) for role, pairs in out.items()}


def test_roles_and_permutations(paths):
    draws = {"smoother": 4, "trained": 2}
    planned = planned_of(
        paths, emb=["hallmark:4", "oracle_pca:3"], head=["knn", SMALL_MLP], permutations=draws, baselines=True
    )
    found = roles(planned)
    assert found["baseline"] == [("none", "no_change"), ("none", "context_mean"), ("none", "additive")]
    assert found["method"] == [("hallmark:4", "knn"), ("hallmark:4", SMALL_MLP)]
    assert found["random"] == [("random", "knn"), ("random", SMALL_MLP)]
    assert found["oracle"] == [("oracle_pca:3", "knn"), ("oracle_pca:3", SMALL_MLP)]
    tails = ["", ":draw=1", ":draw=2", ":draw=3"]
    want = [(f"permuted:hallmark:4{t}", "knn") for t in tails]
    assert found["permuted"] == want + [(f"permuted:hallmark:4{t}", SMALL_MLP) for t in tails[:2]]
    assert len(planned) == 3 * sum(map(len, found.values()))


def test_a_random_embedding_of_another_width_is_random(paths):
    found = roles(planned_of(paths, emb=["random:8", "permuted:hallmark:4"], permutations={"smoother": 2}))
    assert found == {"random": [("random:8", "knn")], "permuted": [("permuted:hallmark:4", "knn")]}


def test_blocks_and_contexts_are_permuted_too(paths):
    both = planned_of(paths, emb="hallmark:4+random:3", permutations={"smoother": 1})
    assert {p.run.embedding for p in both if p.role == "permuted"} == {"permuted:hallmark:4+permuted:random:3"}
    axes = {"dataset": "four", "split": "unseen_context", "context_emb": "control_mean", "baselines": True}
    planned = planned_of(paths, head="knn", permutations={"smoother": 1}, **axes)
    assert {p.run.context_embedding for p in planned if p.role == "permuted"} == {"permuted:control_mean"}
    assert ("none", "perturbation_mean") in roles(planned)["baseline"]


@pytest.mark.parametrize(
    ("axes", "why"),
    [
        ({"head": "graph_step"}, "needs a graph"),
        ({"head": "context_ridge", "emb": "random:4"}, "needs a context embedding"),
        ({"head": "shifted_cells", "dataset": "four"}, "needs single cells"),
        (
            {"head": "shifted_cells", "split": "unseen_context", "strict_context": True},
            "control means of every context",
        ),
        ({"head": "shifted_cells", "strict_context": True}, ""),
        ({"head": "knn", "emb": "pca", "dataset": "four"}, "needs control cells; four has none"),
        ({"head": "knn", "emb": "context_onehot"}, "the dataset perturbs genes"),
        ({"head": "knn", "context_emb": "hallmark:4"}, "holds gene vectors, not contexts"),
        ({"head": "knn", "context_emb": "control_context_pca", "split": "unseen_context"}, "at least 2 training"),
        ({"head": "knn", "emb": "random:4", "target": "labels"}, "predicts effects, not labels"),
        ({"head": "knn", "emb": "random:4", "select": "r2_pearson_expression_all", "dataset": "gaps"}, ""),
    ],
)
def test_what_cannot_run_is_skipped_with_its_reason(paths, axes, why):
    reasons = {p.reason for p in planned_of(paths, **axes)}
    assert len(reasons) == 1
    assert why in (found := reasons.pop()), found
    assert bool(found) == bool(why)


def test_selection_must_score_the_target(paths):
    with pytest.raises(UserError, match="auroc_condition_all' does not score effects; choose one of l2_all"):
        planned_of(paths, head="context_mean", select="auroc_condition_all")
    axes = {"dataset": "dosed", "emb": "random:4", "head": "knn", "select": "r2_pearson_expression_all"}
    assert {p.reason for p in planned_of(paths, **axes)} == {""}


def test_order_is_fixed_and_repeats_are_dropped(paths):
    axes = {"emb": ["random:4", "hallmark:4"], "head": ["knn", "ridge"], "baselines": True}
    once = planned_of(paths, **axes)
    again = planned_of(paths, **{**axes, "head": ["knn", "ridge", "knn"], "emb": [*axes["emb"], "random:4"]})
    assert [p.key for p in once] == [p.key for p in again]
    assert [p.role for p in once[:3]] == ["baseline"] * 3
    assert [p.run.fold for p in once[:3]] == ["fold0", "fold1", "fold2"]
    graphs = planned_of(paths, emb="random:4", head=["knn", "context_mean", "graph_step"], graph=["none", "ppi"])
    assert sorted((p.run.head, p.run.graph) for p in graphs if p.run.fold == "fold0") == [
        ("context_mean", "none"),
        ("graph_step", "none"),
        ("graph_step", "ppi"),
        ("knn", "none"),
    ]


def test_keys_are_unique_and_an_added_value_moves_none(paths):
    axes = {"emb": ["random:4"], "head": ["knn"], "features": ["raw"], "seed": [0]}
    small = {p.key: p.run for p in planned_of(paths, **axes)}
    larger = planned_of(
        paths,
        emb=["hallmark:4", "random:4"],
        head=["ridge", "knn", "knn:k=5"],
        features=["raw", "pca:3"],
        seed=[1, 0],
        combine=["mean", "sum"],
        baselines=True,
    )
    assert len({p.key for p in larger}) == len({p.run for p in larger}) == len(larger)
    assert small == {p.key: p.run for p in larger if p.key in small}
    keys = [{p.key for p in planned_of(paths, **axes, **more)} for more in CHANGES]
    assert len(set().union(*keys, small)) == 3 * (len(CHANGES) + 1)


CHANGES = (
    {"select": "pearson_all"},
    {"genes": "hvg:20"},
    {"scope": "joint"},
    {"strict_context": True},
    {"split": "unseen_combination:3"},
    {"dataset": "dosed"},
)


def test_a_bad_name_is_refused(paths):
    for axes in ({"emb": "hallmrak"}, {"head": "knnn"}, {"combine": "product"}, {"metrics": ["r2_effect"]}):
        with pytest.raises(UserError):
            planned_of(paths, **{"emb": "random:4", **axes})


# ------------------------------------------------------------------------------------------- coverage and fallback


@pytest.fixture
def some(paths, tmp_path):
    """A table that covers three of four perturbed genes: spec, names, vectors."""
    names = [n for i, n in enumerate(screen("full", "all", paths).entity_names) if i % 4]
    matrix = vectors(names, 3)
    return write_vectors(tmp_path / "some.csv", names, matrix), names, matrix


def context_mean(data, train, context, target="effects"):
    rows = train[data.context[train] == context]
    if len(rows):
        return getattr(data, target)[rows].mean(axis=0, dtype=np.float64)
    return np.mean([context_mean(data, train, c) for c in sorted(set(data.context[train]))], axis=0)


@pytest.mark.parametrize("scope", ["per_context", "joint"])
def test_rows_without_vectors_take_the_context_mean(paths, some, tmp_path, scope):
    spec, names, _ = some
    axes = {"dataset": "full", "split": SPLIT, "emb": spec, "scope": scope}
    results, planned = run(tmp_path / "out", paths, head=[FIXED, "ridge", SMALL_MLP, "context_mean"], **axes)
    baseline = {p.run.fold: stored(results, p, paths)[0].values for p in planned if p.run.head == "context_mean"}
    for p in (p for p in planned if p.run.head != "context_mean"):
        made, data = stored(results, p, paths)
        has = np.array([set(data.entities[row]) <= set(names) for row in made.rows])
        assert np.array_equal(made.covered, has)
        assert 0 < has.sum() < len(has)
        want = np.array([context_mean(data, made.train, data.context[row]) for row in made.rows])
        np.testing.assert_allclose(made.values[~has], want[~has], atol=1e-7)
        assert np.array_equal(made.values[~has], baseline[p.run.fold][~has])
        assert np.abs(made.values[has] - want[has]).max() > 1e-3
    frames = read_frames(results, registry_of(paths), ["l2_all"])
    runs = frames.runs.set_index("key")
    for p in planned:
        share = np.mean(stored(results, p, paths)[0].covered)
        assert runs.loc[p.key, "coverage"] == pytest.approx(share)
        assert runs.loc[p.key, "fallback"] == "context mean"
    covered = frames.scores.groupby("key", observed=True)["covered"].mean()
    assert all(covered[p.key] == pytest.approx(runs.loc[p.key, "coverage"]) for p in planned)


def test_an_unseen_context_falls_back_to_contexts_equally(paths, some, tmp_path):
    axes = {"dataset": "four", "split": "unseen_context", "emb": some[0], "head": FIXED}
    results, planned = run(tmp_path / "out", paths, **axes)
    made, data = stored(results, planned[0], paths)
    assert 0 < made.covered.sum() < len(made.rows)
    want = np.mean([context_mean(data, made.train, c) for c in data.contexts[1:]], axis=0)
    np.testing.assert_allclose(made.values[~made.covered], np.tile(want, ((~made.covered).sum(), 1)), atol=1e-6)


def test_an_embedding_without_a_known_test_row_is_all_fallback(paths, tmp_path):
    data = screen("full", "all", paths)
    one = next(data.entities[i][0] for i in split_of("full", SPLIT, "all", 0, paths).folds[0].test)
    spec = write_vectors(tmp_path / "one.csv", [one], np.ones((1, 2)))
    results, planned = run(tmp_path / "out", paths, dataset="full", split=SPLIT, emb=spec, head="knn")
    for p in planned:  # in its own fold nothing can be fitted, in the others nothing can be asked
        made, _ = stored(results, p, paths)
        assert not made.covered.any()
        np.testing.assert_allclose(
            made.values[0], context_mean(data, made.train, data.context[made.rows[0]]), atol=1e-6
        )


# ------------------------------------------------------------------------------------------------- scope, blocks


def nearest_means(X, Y, fit, rows, k):
    distance = np.square(X[rows][:, None] - X[fit][None]).sum(axis=2)
    near = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return Y[fit[near]].mean(axis=1, dtype=np.float64)


@pytest.mark.parametrize("scope", ["auto", "per_context", "joint"])
def test_scope(paths, tmp_path, scope):
    data = screen("full", "all", paths)
    names = list(data.entity_names)
    matrix = vectors(names, 3)
    spec = write_vectors(tmp_path / "all.csv", names, matrix)
    results, planned = run(tmp_path / "out", paths, dataset="full", split=SPLIT, emb=spec, head=FIXED, scope=scope)
    made, _ = stored(results, planned[0], paths)
    X = row_sums(data, names, matrix)[0].astype(np.float32).astype(np.float64)
    for context in data.contexts:
        at = np.flatnonzero(data.context[made.rows] == context)
        fit = made.train if scope == "joint" else made.train[data.context[made.train] == context]
        want = nearest_means(X, data.effects, fit, made.rows[at], 3)
        np.testing.assert_allclose(made.values[at], want, atol=1e-6)
    labels = {"all"} if scope == "joint" else set(data.contexts)
    assert set(results.facts(planned[0].key)["chosen"]) == labels


@pytest.mark.parametrize(
    ("run_of", "want"),
    [
        ({"head": "knn"}, "per_context"),
        ({"head": "context_mean"}, "joint"),
        ({"head": "knn", "split": "unseen_context", "fold": "context01"}, "joint"),
        ({"head": "knn", "split": "unseen_context:few_shot=3", "fold": "context01"}, "joint"),
        ({"head": "knn", "split": "covariate_transfer:2"}, "joint"),
        ({"head": "knn", "context_embedding": "control_mean"}, "joint"),
        ({"head": "knn", "split": "unseen_context", "fold": "context01", "scope": "per_context"}, "per_context"),
    ],
)
def test_automatic_scope(paths, run_of, want):
    run = Run(**{"dataset": "full", "split": SPLIT, "fold": "fold0", "embedding": "random:4", **run_of})
    assert resolve_scope(job_of(run, paths)) == want


@pytest.mark.parametrize("combine", ["sum", "mean", "concat"])
def test_sets_combine_without_order(paths, tmp_path, combine):
    data = screen("full", "all", paths)
    names = list(data.entity_names)
    matrix = vectors(names, 3)
    table = Random(3).compute(names, None)
    pairs = [("A", "B"), tuple(names[:2]), tuple(names[2:4])]
    one, found = row_vectors(table, pairs[1:], ["x", "x"], combine)
    two, _ = row_vectors(table, [p[::-1] for p in pairs[1:]], ["x", "x"], combine)
    assert np.array_equal(one, two)
    assert found.all()
    assert not row_vectors(table, pairs[:1], ["x"], combine)[1].any()
    spec = write_vectors(tmp_path / "all.csv", names, matrix)
    axes = {"dataset": "full", "split": SPLIT, "emb": spec, "head": FIXED, "scope": "joint"}
    results, planned = run(tmp_path / "out", paths, combine=combine, **axes)
    made, _ = stored(results, planned[0], paths)
    where = {n: i for i, n in enumerate(names)}
    sets = [matrix[[where[e] for e in row]] for row in data.entities]
    ways = {
        "sum": lambda v: v.sum(axis=0),
        "mean": lambda v: v.mean(axis=0),
        "concat": lambda v: np.concatenate([v.max(axis=0), v.min(axis=0)]),
    }
    X = np.array([ways[combine](v) for v in sets]).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(made.values, nearest_means(X, data.effects, made.train, made.rows, 3), atol=1e-6)


def test_a_block_that_no_fitting_row_has_is_left_out(paths):
    job = job_of(Run("full", SPLIT, "fold0", "knn", embedding="random:4+random:3"), paths)
    raw, n = assemble(job.data, job.tables, job.train, job.query, job.units)
    found = raw.inputs.found.copy()
    found[:n, 0] = False
    out = Raw(replace(raw.inputs, found=found)).featured(registries.default().parse("features", "raw"), np.arange(n))
    assert [name for name, _ in out.blocks] == ["random:3"]
    assert out.found.shape == (len(raw.inputs), 1)
    assert out.X.shape[1] == 3


# ----------------------------------------------------------------------------------------- what a query may give


def test_strict_context_closes_query_controls(paths):
    run = Run("full", "unseen_context", "context01", "knn", context_embedding="control_mean")
    for strict in (False, True):
        job = job_of(replace(run, strict_context=strict), paths)
        raw, n = assemble(job.data, job.tables, job.train, job.query, job.units, strict=strict)
        query = query_part(raw.inputs, np.arange(n, len(raw.inputs)))
        closed = np.isnan(query.baseline).all(axis=1)
        assert closed.tolist() == [strict, False]
        assert np.isnan(query.context_vector).all(axis=1).tolist() == [strict, False]
        assert predict(job).covered.any() != strict
        assert query.cells.controls(1).shape[1] == len(job.data.genes)
        with pytest.raises(PermissionError, match="perturbed cells"):
            query.cells.perturbed(0)
        if strict:
            with pytest.raises(PermissionError, match="controls of context 0"):
                query.cells.controls(0)
        else:
            assert np.array_equal(query.cells.controls(0), job.data.cells.controls(0, "A"))


def test_strict_context_reaches_embeddings_of_control_cells(paths):
    run = Run("full", "unseen_context", "context01", FIXED, embedding="pca_per_context:3")
    loose = job_of(run, paths)
    strict = job_of(replace(run, strict_context=True), paths)
    (_, table), (_, closed) = loose.tables.blocks[0], strict.tables.blocks[0]
    assert set(table.contexts) == set(loose.data.contexts)
    assert set(closed.contexts) == {"context02"}
    assert predict(loose).covered.any()
    assert not predict(strict).covered.any()


def test_populations_under_strict_context_draw_from_open_controls(paths, tmp_path):
    registry = write_registry(tmp_path, heads={"embedded_cells": {"impl": "components.full_screen:EmbeddedCells"}})
    spec = write_vectors(tmp_path / "one.csv", ["NOBODY"], np.ones((1, 2)))
    run = Run("full", "unseen_context", "context01", "embedded_cells", embedding=spec, target="population")
    for strict in (False, True):
        made = predict(job_of(replace(run, strict_context=strict, samples=10), (*paths, *registry)))
        data = screen("full", "all", (*paths, *registry))
        train = np.flatnonzero(data.context == "context02")
        assert not made.covered.any()
        cells = made.values[0] - context_mean(data, train, "context02")
        pool = data.cells.controls(1 if strict else 0, "A")
        assert np.abs(cells[:, None] - pool[None]).max(axis=2).min(axis=1).max() < 1e-4


# ------------------------------------------------------------------------------------------------------- gaps


def filled_by_pandas(data, train):
    """Training effects with gaps filled by the gene's mean in the context, else over contexts."""
    frame = pd.DataFrame(np.where(data.observed, data.effects, np.nan)[train].astype(np.float64))
    context = pd.Series(data.context[train])
    within = frame.groupby(context).transform("mean")
    across = frame.groupby(context).mean().mean()
    return frame.fillna(within).fillna(across).fillna(0).to_numpy()


def test_gaps_are_filled_with_training_means(paths):
    data = screen("gaps", "all", paths)
    fold = split_of("gaps", SPLIT, "all", 0, paths).folds[0]
    Y, observed = target_values(data, fold.train, "effects", fold.train)
    np.testing.assert_allclose(Y, filled_by_pandas(data, fold.train), atol=1e-6)
    assert np.array_equal(observed, data.observed[fold.train])
    here = fold.train[data.context[fold.train] == data.contexts[0]]
    part, _ = target_values(data, here, "effects", fold.train)
    assert np.array_equal(part, Y[np.isin(fold.train, here)])
    noisy = replace(data, effects=np.where(data.observed, data.effects, np.float32(9e9)))
    assert np.array_equal(target_values(noisy, fold.train, "effects", fold.train)[0], Y)


def test_gaps_through_the_grid(paths, some, tmp_path):
    spec, _, _ = some
    axes = {"dataset": "gaps", "split": SPLIT, "emb": spec, "head": [FIXED, "ridge", "mlp:epochs=2", "context_mean"]}
    results, planned = run(tmp_path / "out", paths, **axes)
    by_head = {}
    for p in (p for p in planned if p.run.fold == "fold0"):
        by_head[p.run.head], data = stored(results, p, paths)
    want = filled_by_pandas(data, (made := by_head["context_mean"]).train)
    means = {c: want[data.context[made.train] == c].mean(axis=0) for c in data.contexts}
    np.testing.assert_allclose(made.values, [means[data.context[row]] for row in made.rows], atol=1e-6)
    for found in by_head.values():
        assert found.weights is None
        assert np.isfinite(found.values).all()
        lacking = ~found.covered
        assert np.array_equal(found.values[lacking], made.values[lacking])
    frames = read_frames(results, registry_of(paths), ["l2_all"])
    row = made.rows[0]
    seen = data.observed[row]
    score = frames.scores.query("head == 'context_mean' and row == @row")["value"]
    np.testing.assert_allclose(score, np.linalg.norm((made.values[0] - data.truth[row])[seen].astype(np.float64)))
    assert np.isfinite(truth_of(data, made.rows, made.train).centroid).all()


def test_rows_without_gaps_among_rows_with(paths, tmp_path):
    """The rows that are fitted are whole, those that only the fallback reads are not."""
    data = screen("gaps", "all", paths)
    whole = data.observed.copy()
    names = [n for i, n in enumerate(data.entity_names) if i % 2]
    inside = [i for i, row in enumerate(data.entities) if set(row) <= set(names)]
    whole[inside] = True
    effects = np.where(np.isfinite(data.effects), data.effects, np.float32(0))
    mixed = replace(data, effects=effects, truth=effects, observed=whole)
    spec = write_vectors(tmp_path / "some.csv", names, vectors(names, 3))
    job = replace(job_of(Run("gaps", SPLIT, "fold0", FIXED, embedding=spec), paths), data=mixed)
    made = predict(job)
    assert made.weights is None
    assert 0 < made.covered.sum() < len(made.covered)
    assert np.isfinite(made.values).all()
    want = filled_by_pandas(mixed, job.train)
    first = np.flatnonzero(~made.covered)[0]
    same = mixed.context[job.train] == job.query.context[first]
    np.testing.assert_allclose(made.values[first], want[same].mean(axis=0), atol=1e-6)


# ----------------------------------------------------------------------------------------- stores, selection


def test_weights_and_values_are_the_same_prediction(paths, tmp_path):
    axes = {"dataset": "full", "split": SPLIT, "emb": "random:8"}
    heads = [FIXED, "knn:k=20:weights=uniform:temperature=1.0"]
    results, planned = run(tmp_path / "out", paths, head=heads, **axes)
    few, many = planned[0], planned[3]
    assert stored(results, few, paths)[0].weights is not None
    assert stored(results, many, paths)[0].weights is None
    fold = split_of("full", SPLIT, "all", 0, paths).folds[0]
    for p in (few, many):
        made, data = stored(results, p, paths)
        fresh = predict(job_of(p.run, paths))
        codes = data.context_codes[fold.test]
        assert np.array_equal(product(fresh.weights, data.effects, fold.train, codes), made.values)
        other = Results(tmp_path / p.key)
        dense = Prediction(made.values, None, fresh.covered, fresh.choices)
        other.add_prediction(p, data, fold, dense)
        assert np.array_equal(other.prediction(p.key, data).values, made.values)
        assert not (fresh.weights.data == 0).any(), "stored zeros cost room"


def problem_of(paths, embedding="random:8", dataset="full"):
    job = job_of(Run(dataset, SPLIT, "fold0", "knn", embedding=embedding), paths)
    raw, n = assemble(job.data, job.tables, job.train, job.query, job.units)
    part = Raw(raw.inputs.rows(np.arange(n)))
    truth = lambda index: training_truth(job.data, job.train[index])  # noqa: E731
    Y, shared = job.data.effects[job.train], gram_of(job.data)
    products = lambda: (shared.among(job.train), shared.totals[job.train])  # noqa: E731
    features = job.registry.parse("features", "pca:5")
    return Problem(part, lambda: Y, None, Y.shape[1], truth, features, gram=products)


@pytest.mark.parametrize("head", ["knn", "ridge", "kernel_ridge"])
@pytest.mark.parametrize("metric", ["l2_all", "mse_all", "rmse_all", "cosine_all", "pearson_all"])
def test_selection_by_gram_equals_selection_by_predictions(paths, head, metric):
    problem, known = problem_of(paths), registries.default()
    spec, scorer = known.parse("heads", head), known.get("metrics", metric).make()
    fast = choose(spec, problem, metric, scorer, 5)
    slow = choose(spec, problem, "by predictions", scorer, 5)
    assert fast.params == slow.params
    assert fast.trials == slow.trials > 10
    assert fast.score == pytest.approx(slow.score, rel=1e-6)


def test_a_single_unit_leaves_the_defaults(paths):
    """Two contexts, one held out: there is nothing to hold out inside the training context."""
    made = predict(job_of(Run("full", "unseen_context", "context01", "ridge", embedding="random:4"), paths))
    assert (made.choices["all"].params, made.choices["all"].trials) == ({}, 0)
    fixed = predict(
        job_of(Run("full", "unseen_context", "context01", "ridge:alpha=100.0", embedding="random:4"), paths)
    )
    assert (made.weights != fixed.weights).nnz == 0


def test_selection_sees_the_training_rows_only(paths):
    job = job_of(Run("full", SPLIT, "fold0", "knn", embedding="random:8", select="pearson_all"), paths)
    truth, effects = job.data.truth.copy(), job.data.effects.copy()
    truth[:], effects[np.setdiff1d(np.arange(len(effects)), job.train)] = 7.0, 7.0
    other = predict(replace(job, data=replace(job.data, effects=effects, truth=truth)))
    assert predict(job).choices == other.choices


# ---------------------------------------------------------------------------------------- ceilings, detectable


CEILINGS = [
    {"n_perturbations": 120, "n_genes": 300},
    {"n_perturbations": 60, "n_genes": 80, "combos": 12, "controls_per_context": 400},
    {"n_perturbations": 24, "n_genes": 120, "level": "cells", "seed": 2},
]


@pytest.mark.parametrize("params", CEILINGS, ids=["genes300", "small", "cells"])
def test_ceilings_from_cells_meet_the_known_ones(params):
    data, known = Simulator(**params).load(), registries.default()
    rows = np.arange(len(data))
    truth, seen = truth_of(data, rows, rows), detectable(data)
    for name in ("l2_all", "l2_notarget", "pearson_all", "pearson_notarget"):
        metric = known.get("metrics", name).make()
        exact, note = ceiling(data, truth, rows, name, metric)
        assert note == "simulated truth"
        np.testing.assert_array_equal(exact, metric(data.noise_free, truth))
        estimated, note = ceiling(replace(data, noise_free=None), truth, rows, name, metric)
        assert note == "from variance"
        assert estimated.mean() == pytest.approx(exact.mean(), rel=0.05)
        assert estimated[seen].mean() == pytest.approx(exact[seen].mean(), rel=0.025)


def test_no_ceiling_without_variance_or_formula(paths):
    data, known = screen("full", "all", paths), registries.default()
    rows, bare = np.arange(6), replace(data, noise_free=None)
    truth = truth_of(bare, rows, rows)
    for name, at in (("l2_top20", truth), ("spearman_all", truth), ("l2_all", replace(truth, variance=None))):
        values, note = ceiling(bare, at, rows, name, known.get("metrics", name).make())
        assert note == "not available"
        assert np.isnan(values).all()


def test_ceilings_come_with_the_frames(paths, tmp_path):
    axes = {"dataset": "full", "split": SPLIT, "head": "context_mean", "seed": [0, 1]}
    results, _ = run(tmp_path / "out", paths, **axes)
    run(tmp_path / "out", paths, **{**axes, "genes": "hvg:10"})
    frames = read_frames(results, registry_of(paths), ["l2_all"])
    for genes in ("all", "hvg:10"):
        data = screen("full", genes, paths)
        part = (
            frames.ceilings.query("genes == @genes and variant == 'noise_free'").set_index("row")["value"].sort_index()
        )
        assert part.index.tolist() == list(range(len(data)))
        want = np.linalg.norm((data.noise_free - data.truth).astype(np.float64), axis=1)
        np.testing.assert_allclose(part, want, rtol=1e-6)


def test_detectable_reads_the_truth_only(paths):
    data = screen("full", "all", paths)
    found = detectable(data)
    assert 0 < found.sum() < len(found)
    assert np.array_equal(detectable(replace(data, effects=data.effects * 50)), found)
    assert not detectable(replace(data, truth=data.truth * 0)).any()
    variance = data.truth_variance.astype(np.float64)
    limit = variance.sum(axis=1) + 2 * np.sqrt(2 * np.square(variance).sum(axis=1))
    assert np.array_equal(found, np.square(data.truth.astype(np.float64)).sum(axis=1) > limit)
    tested = replace(data, covariates={"etest_p": np.where(np.arange(len(data)) % 2, 0.5, 0.01)})
    assert np.array_equal(detectable(tested), np.arange(len(data)) % 2 == 0)
    null = np.random.default_rng(0).normal(size=(2000, 40)).astype(np.float32)
    fake = SimpleScreen(null, np.ones_like(null))
    assert detectable(fake).mean() < 0.06  # a one-sided test at two standard deviations


class SimpleScreen:
    """What `detectable` reads."""

    covariates: dict = {}  # noqa: RUF012

    def __init__(self, truth, variance):
        self.truth, self.truth_variance = truth, variance

    def __len__(self):
        return len(self.truth)


# ---------------------------------------------------------------------------------- explain, predict, folder


def test_explain_never_uses_the_explained(paths):
    data = screen("full", "all", paths)
    run = Run("full", SPLIT, "any", FIXED, embedding="random:8")
    for name in data.entity_names[:6]:
        shares, how = explain(run, name, paths)
        assert how == "held-out prediction"
        assert set(shares) <= set(data.contexts)
        for context, parts in shares.items():
            assert len(parts) == 3
            assert sum(s.weight for s in parts) == pytest.approx(1.0)
            assert all(name not in s.condition.split("+") and s.context == context for s in parts)


def test_explained_weights_make_up_the_prediction(paths, tmp_path):
    results, planned = run(tmp_path / "out", paths, dataset="full", split=SPLIT, emb="random:8", head="ridge")
    made, data = stored(results, planned[0], paths)
    row = made.rows[0]
    where = {(c, x): i for i, (c, x) in enumerate(zip(data.conditions, data.context.tolist(), strict=True))}
    found, config = find_run(results, planned[0].config[:6])
    assert config == planned[0].config
    shares, _ = explain(found, data.conditions[row], paths)
    parts = shares[data.context[row]]
    assert [abs(s.weight) for s in parts] == sorted((abs(s.weight) for s in parts), reverse=True)
    total = sum(s.weight * data.effects[where[s.condition, s.context]].astype(np.float64) for s in parts)
    np.testing.assert_allclose(total, made.values[0], atol=1e-5)


def test_explain_says_why_not(paths, some):
    spec, names, _ = some
    data = screen("full", "all", paths)
    lacking = next(n for n in data.entity_names if n not in names)
    run = Run("full", SPLIT, "any", FIXED, embedding=spec)
    with pytest.raises(UserError, match="no vector in this embedding"):
        explain(run, lacking, paths)
    with pytest.raises(UserError, match="not a linear smoother"):
        explain(replace(run, head="mlp"), names[0], paths)
    with pytest.raises(UserError, match="in no test fold"):
        explain(replace(run, split="unseen_combination:2"), names[0], paths)
    with pytest.raises(UserError, match="gaps has unobserved entries"):
        explain(replace(run, dataset="gaps"), names[0], paths)


def test_doses_are_explained_apart(paths, tmp_path):
    data = screen("dosed", "all", paths)
    shares, _ = explain(Run("dosed", SPLIT, "any", FIXED, embedding="random:4"), data.entity_names[0], paths)
    rows = [i for i, row in enumerate(data.entities) if row == (data.entity_names[0],)]
    assert set(shares) == {f"{data.context[i]} @{data.dose[i]:g}" for i in rows}


def test_predicting_new_genes_and_sets(paths):
    data = screen("full", "all", paths)
    one, two = data.entity_names[:2]
    asked = ["NEWGENE1", f"{one}+NEWGENE2", f"{two}+{one}"]
    run = Run("full", SPLIT, "any", FIXED, embedding="random:6", features="raw")
    applied = refit(run, asked, [], paths)
    assert applied.query.entities[::2] == (("NEWGENE1",), (one, "NEWGENE2"), (one, two))
    assert applied.covered.all()
    names = [*data.entity_names, "NEWGENE1", "NEWGENE2"]
    where = dict(zip(names, Random(6).compute(names, None).matrix.astype(np.float64), strict=True))
    X = np.array([sum(where[e] for e in row) for row in (*data.entities, *applied.query.entities)])
    X = X.astype(np.float32).astype(np.float64)
    for i, context in enumerate(applied.query.context):
        fit = np.flatnonzero(data.context == context)
        want = nearest_means(X, data.effects, fit, np.array([len(data) + i]), 3)[0]
        np.testing.assert_allclose(applied.effects[i], want, atol=1e-6)
    shares, how = explain(run, "NEWGENE1", paths)
    assert how == "refit on all"
    assert set(shares) == set(data.contexts)
    with pytest.raises(UserError, match="context99"):
        refit(run, asked, ["context99"], paths)
    with pytest.raises(UserError, match="predicts labels"):
        refit(replace(run, target="labels"), asked, [], paths)


def test_a_refit_keeps_the_scope_of_the_benchmark(paths):
    run = Run("four", "unseen_context", "any", "knn", embedding="random:6")
    applied = refit(run, ["NEWGENE1"], ["context01"], paths)
    assert set(applied.prediction.choices) == {"all"}
    assert applied.prediction.choices["all"].trials > 1


def test_cross_validated_scores_are_those_of_the_frames(paths, tmp_path):
    results, planned = run(tmp_path / "out", paths, dataset="full", split=SPLIT, emb="random:8", head=FIXED)
    found = cross_validated(results, planned[0].config, registry_of(paths), ["l2_notarget"])["l2_notarget"]
    scores = read_frames(results, registry_of(paths), ["l2_notarget"]).scores
    assert found.mean == pytest.approx(scores.groupby("context", observed=True)["value"].mean().mean())
    assert found.conditions == len(scores) == len(screen("full", "all", paths))
    assert found.folds == found.planned == 3


def test_a_moved_folder_is_read_as_before(paths, tmp_path):
    axes = {"dataset": "full", "split": SPLIT, "emb": "random:8", "head": ["knn", SMALL_MLP], "baselines": True}
    results, planned = run(tmp_path / "first", paths, **axes)
    names = ["l2_notarget", "pearson_all"]
    before = read_frames(results, registry_of(paths), names)
    shutil.rmtree(tmp_path / "first" / "scores")
    shutil.move(tmp_path / "first", tmp_path / "elsewhere")
    after = read_frames(Results(tmp_path / "elsewhere"), registries.default(), names)  # without the user's registry
    for part in ("runs", "scores", "ceilings"):
        pd.testing.assert_frame_equal(getattr(before, part), getattr(after, part))
    again = read_frames(Results(tmp_path / "elsewhere"), registries.default(), [*names, "mae_all"])
    assert len(again.scores) == len(before.scores) * 3 // 2
    assert set(again.scores["key"]) == {p.key for p in planned}


def test_metrics_of_another_target_leave_a_run_alone(paths, tmp_path):
    axes = {"dataset": "full", "split": SPLIT, "head": "context_mean"}
    results, _ = run(tmp_path / "out", paths, **axes)
    frames = read_frames(results, registry_of(paths), ["l2_all", "auroc_condition_all", "edistance_euclidean_v_all"])
    assert set(frames.scores["metric"]) == {"l2_all"}
    assert frames.facts["full"]["undefined"] == {}


# ------------------------------------------------------------------------------------------- genes, seeds, splits


@pytest.mark.parametrize("genes", ["hvg:12", "expressed"])
def test_gene_choices(paths, tmp_path, genes):
    axes = {"dataset": "full", "split": SPLIT, "emb": ["random:4", "pca:3"], "head": FIXED, "genes": genes}
    results, planned = run(tmp_path / "out", paths, **axes)
    whole, part = screen("full", "all", paths), screen("full", genes, paths)
    columns = [whole.genes.tolist().index(g) for g in part.genes]
    assert len(columns) == 12 if genes == "hvg:12" else len(columns) <= len(whole.genes)
    assert np.array_equal(part.effects, whole.effects[:, columns])
    assert np.array_equal(part.cells.controls(0), whole.cells.controls(0)[:, columns])
    made, data = stored(results, planned[0], paths)
    assert made.values.shape[1] == len(columns)
    assert data.meta["digest"] != whole.meta["digest"] or genes == "expressed"
    frames = read_frames(results, registry_of(paths), ["l2_all"])
    assert set(frames.runs.genes) == {genes}
    assert frames.facts["full"]["genes"] == len(columns)


def test_seeds_move_folds_and_streams(paths, tmp_path):
    axes = {"dataset": "full", "split": SPLIT, "emb": "random:4", "head": SMALL_MLP}
    results, planned = run(tmp_path / "both", paths, seed=[0, 1], **axes)
    alone, only = run(tmp_path / "alone", paths, seed=[1], **axes)
    assert [p.key for p in only] == [p.key for p in planned if p.run.seed == 1]
    for p in only:
        one, two = (r.prediction(p.key, screen("full", "all", paths)) for r in (results, alone))
        assert np.array_equal(one.values, two.values)
    rows = {p.run.seed: stored(results, p, paths)[0].rows for p in planned if p.run.fold == "fold0"}
    assert not np.array_equal(rows[0], rows[1])
    scores = read_frames(results, registry_of(paths), ["l2_all"]).scores
    assert (scores.groupby(["seed", "row"], observed=True).size() == 1).all()
    assert scores.groupby("seed", observed=True)["row"].nunique().tolist() == [len(screen("full", "all", paths))] * 2


def test_few_shot_support_is_trained_and_never_scored(paths, tmp_path):
    data = screen("four", "all", paths)
    sizes, gains = {}, {}
    for few in (0, 6):
        split = f"unseen_context:few_shot={few}" if few else "unseen_context"
        axes = {"dataset": "four", "split": split, "emb": "random:8", "baselines": True}
        results, planned = run(tmp_path / str(few), paths, head=[FIXED, "perturbation_mean"], **axes)
        made, _ = stored(results, next(p for p in planned if p.run.head == FIXED), paths)
        support = made.train[data.context[made.train] == data.contexts[0]]
        assert not set(support) & set(made.rows)
        assert len({data.entities[i] for i in support}) == few
        assert set(data.context[made.rows]) == {data.contexts[0]}
        sizes[few] = len(made.rows)
        assert set(results.facts(planned[0].key)["chosen"]) == {"all"}
        frames = read_frames(results, registry_of(paths), ["l2_all"])
        assert set(frames.scores["unit"]) == set(data.contexts)
        gains[few] = frames.scores.query("head == 'context_mean'")["value"].mean()
    assert sizes[0] - sizes[6] == 6
    assert gains[0] != gains[6]


def test_unseen_combinations_are_grouped(paths, tmp_path):
    axes = {"dataset": "full", "split": "unseen_combination:2", "head": ["additive"], "baselines": True}
    results, planned = run(tmp_path / "out", paths, **axes)
    scores = read_frames(results, registry_of(paths), ["l2_all"]).scores
    assert set(scores["group"]) == {"2 of 2 singles seen"}
    assert all("+" in c for c in set(scores["condition"]))
    p = next(p for p in planned if p.run.head == "additive")
    made, data = stored(results, p, paths)
    index = {(row, c): i for i, (row, c) in enumerate(zip(data.entities, data.context.tolist(), strict=True))}
    for row, value in zip(made.rows, made.values, strict=True):
        parts = [data.effects[index[(e,), data.context[row]]].astype(np.float64) for e in data.entities[row]]
        np.testing.assert_allclose(value, sum(parts), atol=1e-5)


def test_covariate_transfer_keeps_the_perturbation(paths, tmp_path):
    axes = {"dataset": "four", "split": "covariate_transfer:2", "emb": "random:8", "baselines": True}
    results, planned = run(tmp_path / "out", paths, head=FIXED, **axes)
    p = next(p for p in planned if p.run.head == "perturbation_mean")
    made, data = stored(results, p, paths)
    trained = {data.entities[i] for i in made.train}
    assert all(data.entities[i] in trained for i in made.rows)
    row = made.rows[0]
    same = [i for i in made.train if data.entities[i] == data.entities[row]]
    np.testing.assert_allclose(made.values[0], data.effects[same].mean(axis=0, dtype=np.float64), atol=1e-6)
    assert data.context[row] not in data.context[same]


def test_a_published_split_is_followed(paths, tmp_path):
    axes = {"dataset": "full", "split": "given:published", "emb": "random:8", "head": "knn"}
    results, planned = run(tmp_path / "out", paths, **axes)
    assert [p.run.fold for p in planned] == ["published"]
    made, data = stored(results, planned[0], paths)
    assert made.rows.tolist() == [i for i in range(len(data)) if i % 4 == 0]
    assert made.train.tolist() == [i for i in range(len(data)) if i % 4]
    assert np.isfinite(read_frames(results, registry_of(paths), ["l2_all"]).scores["value"]).all()


def test_the_screen_is_loaded_the_same_twice():
    one, two = (FullScreen().load() for _ in range(2))
    assert np.array_equal(one.effects, two.effects)
    assert np.array_equal(one.labels_tested, two.labels_tested)
    assert np.array_equal(one.truth, two.truth)
