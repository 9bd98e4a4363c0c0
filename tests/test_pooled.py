"""Populations pooled from training cells: draws, moves between contexts and to ridge, against oracles."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge as SklearnRidge

from embbench.core import CellView, Inputs
from embbench.datasets.simulator import Simulator
from embbench.heads._leave_out import left_out, unit_blocks
from embbench.heads._pooling import draw_cells, systematic
from embbench.heads._ridge import ridge_path
from embbench.heads.context_mean import ContextMean
from embbench.heads.knn import KNN
from embbench.heads.perturbation_mean import PerturbationMean
from embbench.heads.pooled_cells import PENALTIES, PooledCells, best_penalty
from embbench.heads.pooled_perturbation import PooledPerturbation
from embbench.heads.pooled_training_cells import PooledTrainingCells
from embbench.numerics.distances import edistance_euclidean_u
from embbench.numerics.linalg import pca

GENES = 3


@dataclass
class Listed:
    """Cells that are told apart by their values; counts how often a row is read."""

    rows: list[np.ndarray]
    control: list[np.ndarray]
    batch: list[np.ndarray] | None = None
    read: list[int] = field(default_factory=list)

    def perturbed(self, row):
        self.read.append(row)
        return self.rows[row]

    def perturbed_batches(self, row):
        return np.zeros(len(self.rows[row]), dtype=int) if self.batch is None else self.batch[row]

    def controls(self, context, half="A"):
        assert half == "A"
        return self.control[context]

    def n_controls(self, context, half="A"):
        return len(self.control[context])


def problem(sizes, context, codes=None, genes=GENES, seed=0):
    """Training inputs whose row i holds ``sizes[i]`` random cells, their effects, and the same rows as queries."""
    rng = np.random.default_rng(seed)
    context = np.asarray(context)
    n, codes = len(sizes), np.arange(len(sizes)) if codes is None else np.asarray(codes)
    control = [rng.normal(5 * c, 1, (30, genes)).astype(np.float32) for c in range(3)]
    baseline = np.stack([c.mean(axis=0) for c in control])
    rows = [
        (rng.normal(2, 1, (m, genes)) + baseline[c]).astype(np.float32) for m, c in zip(sizes, context, strict=True)
    ]
    Y = np.stack(
        [r.mean(axis=0) - baseline[c] if len(r) else np.ones(genes) for r, c in zip(rows, context, strict=True)]
    )
    inputs = Inputs(
        X=rng.normal(size=(n, 2)).astype(np.float32),
        context=context,
        entities=sparse.csr_matrix((np.ones(n), (np.arange(n), codes)), shape=(n, codes.max() + 1)),
        units=tuple((int(c),) for c in codes),
        baseline=baseline.astype(np.float32),
        cells=CellView(Listed(rows, control), np.arange(n)),
    )
    return inputs, Y.astype(np.float32), as_query(inputs)


def as_query(inputs):
    return replace(inputs, cells=replace(inputs.cells, rows=np.array([], dtype=int)))


def origin(cells, inputs):
    """Training row and cell number of each of ``cells`` (m, g), which must be raw training cells."""
    owners = {c.tobytes(): (i, j) for i, row in enumerate(inputs.cells.source.rows) for j, c in enumerate(row)}
    return [owners[c.tobytes()] for c in cells]


def test_cells_are_those_of_the_neighbours_as_they_are_without_repeats():
    inputs, Y, query = problem([40] * 6, [0] * 6)
    head = PooledCells(k=3).fit(inputs, Y)
    out = head.sample(query, 60)
    assert out.shape == (6, 60, GENES)
    assert out.dtype == np.float32
    distance = np.linalg.norm(inputs.X[:, None] - inputs.X[None], axis=2)
    for i, cells in enumerate(out):
        found = origin(cells, inputs)
        assert len(set(found)) == 60
        rows, counts = np.unique([row for row, _ in found], return_counts=True)
        assert set(rows) == set(np.argsort(distance[i])[:3])
        assert (counts == 20).all()
    np.testing.assert_array_equal(head.predict(query), KNN(k=3).fit(inputs, Y).predict(query))


def test_a_small_row_repeats_its_cells_equally_often():
    inputs, Y, query = problem([4], [0])
    found = origin(PooledCells(k=1).fit(inputs, Y).sample(query, 10)[0], inputs)
    _, counts = np.unique([j for _, j in found], return_counts=True)
    assert sorted(counts) == [2, 2, 3, 3]
    assert sorted(draw_cells(3, 2, np.random.default_rng(0)).tolist()) in ([0, 1], [0, 2], [1, 2])


def test_draws_are_proportional_to_weights_on_average():
    share = np.array([0.07, 0.5, 0.0, 0.13, 0.3])
    counts = np.array([systematic(share, 7, np.random.default_rng(s)) for s in range(4000)])
    assert (counts.sum(axis=1) == 7).all()
    assert (np.abs(counts - 7 * share) < 1).all()
    np.testing.assert_allclose(counts.mean(axis=0), 7 * share, atol=0.04)  # 5 standard errors of a Bernoulli


def test_softmax_weights_reach_the_draw():
    inputs, Y, query = problem([300] * 5, [0] * 5)
    weights = KNN(k=5, weights="softmax", temperature=0.5).weights(inputs, query).toarray()
    out = PooledCells(k=5, weights="softmax", temperature=0.5).fit(inputs, Y).sample(query, 200)
    for cells, share in zip(out, weights, strict=True):
        counts = np.bincount([row for row, _ in origin(cells, inputs)], minlength=5)
        assert (np.abs(counts - 200 * share) < 1).all()


def test_cells_of_another_context_move_by_the_difference_of_control_means():
    inputs, Y, query = problem([50, 50, 50], [0, 0, 1], codes=[0, 1, 0])
    asked = replace(query.rows(np.array([0])), context=np.array([2]))
    head = PooledPerturbation().fit(inputs, Y)
    out = head.sample(asked, 100)[0]
    moved = [inputs.cells.source.rows[i] + (query.baseline[2] - query.baseline[inputs.context[i]]) for i in (0, 2)]
    want = np.concatenate(moved).astype(np.float32)
    np.testing.assert_allclose(np.sort(out, axis=0), np.sort(want, axis=0), atol=1e-5)
    np.testing.assert_array_equal(head.predict(asked), PerturbationMean().fit(inputs, Y).predict(asked))
    # all cells of both rows were drawn: the mean is exact
    np.testing.assert_allclose(out.mean(axis=0), query.baseline[2] + head.predict(asked)[0], atol=1e-5)
    assert head.covers(inputs, asked).tolist() == [True]


def test_cells_stay_as_they_are_where_controls_are_closed():
    inputs, Y, query = problem([50, 50], [0, 1], codes=[0, 0])
    closed = inputs.baseline.copy()
    closed[2] = np.nan
    asked = replace(query.rows(np.array([0])), context=np.array([2]), baseline=closed)
    found = origin(PooledPerturbation().fit(inputs, Y).sample(asked, 100)[0], inputs)
    assert len(set(found)) == 100
    with pytest.raises(ValueError, match="expected control means to move cells from context"):
        PooledPerturbation().fit(inputs, Y).sample(replace(asked, baseline=None), 3)


def test_training_cells_are_those_of_the_own_context():
    inputs, Y, query = problem([20, 30, 10, 15], [0, 0, 1, 1])
    head = PooledTrainingCells().fit(inputs, Y)
    out = head.sample(query, 20)
    for i, cells in enumerate(out):
        rows = [row for row, _ in origin(cells, inputs)]
        assert (np.bincount(rows, minlength=4)[inputs.context == inputs.context[i]] == 10).all()
    np.testing.assert_array_equal(head.predict(query), ContextMean().fit(inputs, Y).predict(query))
    new = replace(query.rows(np.array([0])), context=np.array([2]))
    np.testing.assert_allclose(
        head.sample(new, 4000)[0].mean(axis=0), new.baseline[2] + head.predict(new)[0], atol=5 * 1.1 / np.sqrt(60)
    )


def test_moved_cells_have_the_mean_effect_of_ridge():
    inputs, Y, query = problem([25] * 12, [0] * 12)
    alpha = 0.7
    moved, still = (PooledCells(k=4, move=m, alpha=alpha).fit(inputs, Y) for m in ("ridge", "none"))
    oracle = SklearnRidge(alpha=alpha).fit(inputs.X.astype(float), Y.astype(float)).predict(query.X.astype(float))
    np.testing.assert_allclose(moved.predict(query), oracle, atol=1e-5)
    # 100 cells of 4 rows of 25: all cells of the pool, whose mean is exact
    a, b = moved.sample(query, 100), still.sample(query, 100)
    np.testing.assert_allclose(a.mean(axis=1), query.baseline[0] + oracle, atol=1e-4)
    np.testing.assert_allclose(a - b, np.broadcast_to((a - b)[:, :1], a.shape), atol=1e-5)


def test_errors_of_units_left_out_are_those_of_refits():
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    units = ((0,), (0,), (1,), (2,), (0, 1), (3,), (3,), (4,), (2, 4))
    errors = left_out(next(ridge_path(X, X, [0.5])), Y, unit_blocks(units))
    for i, own in enumerate(units):
        rest = [j for j, other in enumerate(units) if not set(own) & set(other)]
        fit = SklearnRidge(alpha=0.5).fit(X[rest], Y[rest])
        np.testing.assert_allclose(errors[i], Y[i] - fit.predict(X[i : i + 1])[0], atol=1e-9)
    alone = left_out(np.full((2, 2), 0.5), Y[:2], unit_blocks(((0,), (0,))))
    assert np.isnan(alone).all()


def test_the_penalty_is_the_best_of_refits_without_the_unit():
    rng = np.random.default_rng(2)
    for noise in (0.0, 3.0, 30.0):
        inputs, _, _ = problem([1] * 14, [0] * 14, codes=np.arange(14) // 2)
        Y = (inputs.X @ rng.normal(size=(2, 5)) + noise * rng.normal(size=(14, 5))).astype(np.float32)
        code, errors = np.arange(14) // 2, []
        for alpha in PENALTIES:
            out = 0.0
            for unit in range(7):
                fit = SklearnRidge(alpha=alpha).fit(inputs.X[code != unit].astype(float), Y[code != unit].astype(float))
                out += np.square(fit.predict(inputs.X[code == unit].astype(float)) - Y[code == unit]).sum()
            errors.append(out)
        assert best_penalty(inputs, Y) == PENALTIES[int(np.argmin(errors))]
    rows = tuple((i,) for i in range(14))
    one_unit = replace(inputs, units=((0,),) * 14)
    assert best_penalty(one_unit, Y) == best_penalty(replace(inputs, units=rows), Y)
    assert best_penalty(inputs.rows(np.array([0])), Y[:1]) == PENALTIES[-1]
    assert best_penalty(inputs, np.ones_like(Y)) == PENALTIES[-1]


def test_unbalanced_batches_leave_the_difference_that_is_documented():
    """Perturbed cells lie in batch 1 alone, whose controls are 1 above the others': cells as they are keep that."""
    inputs, _, query = problem([400], [0])
    listed = inputs.cells.source
    listed.batch = [np.ones(400, dtype=int)]
    effect = listed.rows[0].mean(axis=0) - (inputs.baseline[0] + 1.0)
    head = PooledCells(k=1).fit(inputs, effect[None].astype(np.float32))
    gap = head.sample(query, 400)[0].mean(axis=0) - query.baseline[0] - head.predict(query)[0]
    np.testing.assert_allclose(gap, 1.0, atol=1e-4)


def test_rows_without_cells_leave_their_weight_to_the_others():
    inputs, Y, query = problem([0, 30, 30, 0], [0, 0, 1, 1])
    inputs.X[:] = query.X[:] = np.arange(4)[:, None]
    out = PooledCells(k=2).fit(inputs, Y).sample(query.rows(np.array([0])), 20)
    assert {row for row, _ in origin(out[0], inputs)} == {1}
    out = PooledCells(k=1).fit(inputs, Y).sample(query.rows(np.array([0, 3])), 20)  # the neighbours have no cells
    assert {row for row, _ in origin(out[0], inputs)} == {1}
    assert {row for row, _ in origin(out[1], inputs)} == {2}
    with pytest.raises(ValueError, match="none of the 1 training rows has cells"):
        PooledCells().fit(inputs.rows(np.array([0])), Y[:1])
    with pytest.raises(ValueError, match="expected single cells of 4 training rows, found none"):
        PooledCells().fit(replace(inputs, cells=None), Y)


@pytest.mark.parametrize("head", [PooledCells(k=4), PooledCells(k=4, move="ridge"), PooledTrainingCells()])
def test_rows_are_independent_and_draws_are_repeatable(head):
    inputs, Y, query = problem([9] * 8, [0, 1] * 4)
    head.fit(inputs, Y)
    inputs.cells.source.read.clear()
    whole = head.sample(query, 13)
    assert len(inputs.cells.source.read) == len(set(inputs.cells.source.read)), "a training row was read twice"
    order = np.array([6, 1, 3])
    np.testing.assert_allclose(head.sample(query.rows(order), 13), whole[order], atol=1e-5)
    np.testing.assert_array_equal(head.sample(query, 13), whole)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(head)).sample(query, 13), whole)
    assert head.sample(query.rows(np.array([], dtype=int)), 13).shape == (0, 13, GENES)


def test_the_seed_changes_the_draw_and_other_rows_draw_otherwise():
    inputs, Y, query = problem([200] * 3, [0] * 3)
    a, b = (PooledTrainingCells(seed=s).fit(inputs, Y).sample(query, 9) for s in (0, 1))
    assert not np.array_equal(a, b)
    assert not np.array_equal(a[0], a[1])  # the same pool, another draw


def test_one_gene_one_row_and_constant_features():
    inputs, Y, query = problem([5], [0], genes=1)
    inputs.X[:] = query.X[:] = 1.0
    for move in ("none", "ridge"):
        head = PooledCells(move=move).fit(inputs, Y)
        np.testing.assert_allclose(head.predict(query), Y, atol=1e-6)
        np.testing.assert_allclose(head.sample(query, 5)[0].mean(), inputs.cells.source.rows[0].mean(), atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "k must be a whole number >= 1, got 0"),
        ({"metric": "l1"}, "metric must be one of .*, got 'l1'"),
        ({"weights": "even"}, "weights must be one of .*, got 'even'"),
        ({"weights": "distance", "metric": "inner_product"}, "need a distance"),
        ({"alpha": 0.0}, "alpha must be > 0, got 0.0"),
        ({"temperature": -1.0}, "temperature must be > 0, got -1.0"),
        ({"seed": 0.5}, "seed must be a whole number >= 0, got 0.5"),
    ],
)
def test_bad_parameters_are_named(given, message):
    with pytest.raises(ValueError, match=f"PooledCells: .*{message}|PooledCells: {message}"):
        PooledCells(**given)


def test_sampling_needs_a_fit_and_a_cell():
    inputs, Y, query = problem([5], [0])
    with pytest.raises(RuntimeError, match="sample called before fit"):
        PooledCells().sample(query, 3)
    with pytest.raises(ValueError, match="n_cells must be a whole number >= 1, got 0"):
        PooledCells().fit(inputs, Y).sample(query, 0)


def test_neighbours_cells_beat_the_training_cells_only_where_vectors_inform():
    screen = Simulator(
        n_perturbations=60, n_genes=60, n_contexts=1, level="cells", cells_per_perturbation=60, near_null=0.0,
        controls_per_context=200, effect_size=0.6, escape=0.0, programme_share=0.2, seed=3,
    ).load()  # fmt: skip
    rng = np.random.default_rng(0)
    scores = pca(screen.noise_free, 5)[1]
    n, held = len(screen), rng.permutation(len(screen))[:15]
    train = np.setdiff1d(np.arange(n), held)
    informative = ((screen.noise_free - screen.noise_free.mean(axis=0)) @ scores).astype(np.float32)
    distance = {}
    for label, X in (("informative", informative), ("permuted", informative[rng.permutation(n)])):
        rows = Inputs(
            X, screen.context_codes, sparse.identity(n, format="csr"), tuple((i,) for i in range(n)),
            baseline=screen.baseline, cells=CellView(screen.cells, np.arange(n)),
        )  # fmt: skip
        query = as_query(rows).rows(held)
        for head in (PooledTrainingCells(), PooledCells(k=5), PooledCells(k=5, move="ridge")):
            out = head.fit(rows.rows(train), screen.effects[train]).sample(query, 60)
            name = f"{type(head).__name__} {getattr(head, 'shift', '')}"
            distance[label, name] = np.array(
                [edistance_euclidean_u(o, screen.cells.perturbed(int(i))) for o, i in zip(out, held, strict=True)]
            )
    for name in ("PooledCells none", "PooledCells ridge"):
        good, bad = (
            distance[label, name] - distance[label, "PooledTrainingCells "] for label in ("informative", "permuted")
        )
        assert good.mean() < -3 * good.std() / np.sqrt(15)
        assert bad.mean() > -2 * bad.std() / np.sqrt(15)
