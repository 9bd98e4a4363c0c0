"""The GEARS-style head against dense numpy, naive evaluation and closed forms, and on screens where it must do well."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse

from embbench.checks._toy import ToyCells, toy_problem
from embbench.core import CellView, Inputs
from embbench.heads._gears import Neighbourhood, correlated, gene_graph, propagation
from embbench.heads._gears_fit import Base, cell_targets, sparse_tensor
from embbench.heads._gears_net import GeneNet, Loss, Propagate, Readout
from embbench.heads.context_mean import ContextMean
from embbench.heads.gears_gnn import GearsGNN

TINY = {"hidden": 8, "steps": 20, "check_every": 5, "patience": 2, "batch_size": 16, "members": 2, "device": "cpu"}


def inputs(sets, X, context=None, cells=None, graph=None):
    """Rows of entity codes."""
    e = 1 + max(max(s) for s in sets)
    flat = [(i, code) for i, s in enumerate(sets) for code in s]
    table = sparse.csr_matrix((np.ones(len(flat), np.float32), tuple(zip(*flat, strict=True))), shape=(len(sets), e))
    context = np.zeros(len(sets), np.int64) if context is None else np.asarray(context)
    return Inputs(np.asarray(X, np.float32), context, table, tuple(sets), cells=cells, graph=graph)


def screen(n=120, d=5, g=30, seed=0, contexts=2):
    """Effects that the vectors explain nearly linearly, and the same rows' noise-free effects."""
    rng = np.random.default_rng(seed)
    X, context = rng.normal(size=(n, d)), rng.integers(0, contexts, n)
    truth = (
        np.tanh(X @ rng.normal(size=(d, d)) * 0.5) @ rng.normal(size=(d, g)) + rng.normal(size=(contexts, g))[context]
    )
    return inputs([(i,) for i in range(n)], X, context), truth, truth + 0.5 * rng.normal(size=(n, g))


# ---- graphs --------------------------------------------------------------------------------------------------------


def test_propagation_is_the_normalised_product():
    rng = np.random.default_rng(0)
    dense = np.triu(rng.random((7, 7)) * (rng.random((7, 7)) < 0.5), 1)
    dense += dense.T
    looped = dense + np.eye(7)
    root = np.diag(1 / np.sqrt(looped.sum(axis=1)))
    want = root @ looped @ root
    graph = propagation(sparse.csr_matrix(dense))
    np.testing.assert_allclose(graph.toarray(), want, rtol=1e-6)
    states = torch.randn(7, 3, requires_grad=True, generator=torch.Generator().manual_seed(0))
    out = Propagate.apply(sparse_tensor(graph, torch.device("cpu")), states)
    np.testing.assert_allclose(out.detach().numpy(), want @ states.detach().numpy(), rtol=1e-5, atol=1e-6)
    pull = torch.arange(21.0).reshape(7, 3)
    out.backward(pull)
    np.testing.assert_allclose(states.grad.numpy(), want.T @ pull.numpy(), rtol=1e-5)


def test_correlated_keeps_the_strongest_above_the_threshold():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 700)) + rng.normal(size=(40, 700))
    values[:, 5] = 2.5
    r = np.nan_to_num(np.abs(np.corrcoef(np.delete(values, 5, axis=1).T)))
    r = np.insert(np.insert(r, 5, 0, axis=0), 5, 0, axis=1)
    np.fill_diagonal(r, 0)
    chosen = np.zeros_like(r)
    top = np.argsort(-r, axis=1)[:, :4]
    np.put_along_axis(chosen, top, np.take_along_axis(r, top, axis=1), axis=1)
    want = np.maximum(np.where(chosen > 0.4, chosen, 0), np.where(chosen > 0.4, chosen, 0).T)
    got = correlated(values.astype(np.float32), 0.4, 4).toarray()
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert not got[5].any()


def test_the_gene_graph_comes_from_control_cells_within_contexts_or_from_effects():
    genes = np.zeros((2, 6))
    genes[1] = 5.0  # contexts differ in level only: no co-expression within them
    cells = CellView(ToyCells(genes, genes, n_control=400), np.arange(2))
    rows = inputs([(0,), (1,)], np.zeros((2, 1)), [0, 1], cells)
    np.testing.assert_array_equal(gene_graph(rows, np.zeros((2, 6)), 0.4, 3, 0).toarray(), np.eye(6))
    Y = np.array([[0.0, 0, 3], [1, 2, 0], [2, 4, 3]])
    linked = gene_graph(inputs([(0,), (1,), (2,)], np.zeros((3, 1))), Y, 0.4, 3, 0).toarray() > 0
    np.testing.assert_array_equal(linked, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_states_are_lent_over_a_graph_without_the_rows_own():
    ring = sparse.csr_matrix(np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]], np.float32))
    train = inputs([(0,), (1,), (3,)], np.zeros((3, 1)), graph=ring)
    query = inputs([(2,), (0,), (0, 1), (3,)], np.zeros((4, 1)), graph=ring)
    own, near = Neighbourhood.fitted(train, 5, 1).weights(query)
    np.testing.assert_allclose(own.toarray(), [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(near.toarray()[:2], [[0, 0.5, 0, 0.5], [0, 0.5, 0, 0.5]])
    np.testing.assert_allclose(near.toarray()[2], near.toarray()[1] + [1, 0, 0, 0])  # members' sum; 1 reaches 0 and 2
    np.testing.assert_allclose(near.toarray()[3], [1, 0, 0, 0])


def test_states_are_lent_by_nearest_sets_that_share_no_entity():
    train = inputs([(0,), (0,), (1,), (2,), (0, 1)], [[0.0], [0.2], [1.0], [9.0], [0.1]])
    hood = Neighbourhood.fitted(train, 2, 1)
    np.testing.assert_allclose(np.sort(hood.features[:, 0]), [0.1, 0.1, 1.0, 9.0])
    own, near = hood.weights(inputs([(0,), (3,)], [[0.1], [1.0]]).rows(np.array([0])).__class__(
        np.array([[0.1]], np.float32), np.zeros(1, np.int64), train.entities[:1], ((0,),)))  # fmt: skip
    assert own.toarray().tolist() == [[1, 0, 0]]
    assert near.toarray()[0, 0] == 0
    np.testing.assert_allclose(near.toarray().sum(), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="expected 3, got 4"):
        hood.weights(inputs([(3,)], [[0.1]]))


# ---- network and loss ----------------------------------------------------------------------------------------------


def test_readout_equals_the_naive_evaluation_and_its_gradients():
    torch.manual_seed(0)
    gene, row, weight = (torch.randn(n, 6, dtype=torch.float64, requires_grad=True) for n in (5000, 9, 5000))
    pull = torch.randn(9, 5000, dtype=torch.float64)
    out = Readout.apply(gene, row, weight)
    assert 5000 * 9 * 6 > 2**17  # several blocks
    naive = ((row[:, None] + gene).relu() * weight).sum(dim=2)
    torch.testing.assert_close(out, naive)
    got = torch.autograd.grad(out, (gene, row, weight), pull)
    torch.testing.assert_close(got, torch.autograd.grad(naive, (gene, row, weight), pull))


def test_the_linear_layer_commutes_with_the_sum_of_states():
    torch.manual_seed(0)
    net = GeneNet(4, 3, 11, 6, 0.0, 2).double().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    dense = propagation(correlated(np.random.default_rng(0).normal(size=(5, 11)), 0.2, 3)).astype(np.float64)
    graph = torch.from_numpy(dense.toarray())
    x, lent = torch.randn(7, 4, dtype=torch.float64), torch.rand(7, 3, dtype=torch.float64)
    genes = graph @ graph @ net.genes
    rows = net.inlet(x) + 2 * lent @ net.free
    rows = rows + net.fuse(rows)
    states = (genes[None] + rows[:, None]).reshape(-1, 6)  # (rows x genes, hidden), as published
    own = (net.joint(states).relu().reshape(7, 11, 6) * net.first).sum(dim=2)
    want = own + (net.cross(own)[:, None] * net.second).sum(dim=2) + net.level
    torch.testing.assert_close(net(graph.to_sparse(), x, lent)[0], want)


def test_loss_is_the_formula():
    rng = np.random.default_rng(0)
    p, y, b, s = rng.normal(size=(4, 3, 5))
    e = p - y
    want = (np.abs(e) ** 4 + 0.3 * (np.sign(y + b) - np.tanh(p + b)) ** 2).mean()
    tensors = [torch.from_numpy(a) for a in (p, y, b)]
    assert Loss(2.0, 0.3, 0.1)(*tensors, None).item() == pytest.approx(want)
    want += 0.1 / 2 * (np.exp(-s) * e**2 + s).mean()
    assert Loss(2.0, 0.3, 0.1)(*tensors, torch.from_numpy(s)).item() == pytest.approx(want)
    assert Loss(1.5, 0, 0)(*tensors, None).item() == pytest.approx((np.abs(e) ** 3.5).mean())
    cells = np.stack([y, y + 1], axis=1)
    want = (np.stack([e, e - 1]) ** 2).mean()
    assert Loss(0.0, 0, 0)(tensors[0], torch.from_numpy(cells), tensors[2], None).item() == pytest.approx(want)
    zero = torch.zeros(1, 1, requires_grad=True)
    for gamma in (0.0, 0.5, 2.0):
        assert torch.autograd.grad(Loss(gamma, 0, 0)(zero, torch.zeros(1, 1), zero.detach(), None), zero)[0].item() == 0


def test_the_uncertainty_term_is_least_at_the_mean_squared_error():
    error = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (500, 1)))
    s = torch.tensor([[float(error.square().mean().log())]], dtype=torch.float64, requires_grad=True)
    loss = Loss(0.0, 0.0, 1.0)(torch.zeros_like(error), error, torch.zeros_like(error), s.expand(500, 1))
    assert torch.autograd.grad(loss, s)[0].abs().item() < 1e-12


def test_base_is_the_context_mean_and_the_mean_over_contexts():
    Y = np.array([[0.0], [2.0], [5.0]])
    base = Base.fitted(np.array([3, 3, 7]), Y)
    assert base(np.array([3, 7, 5, 9])).ravel().tolist() == [1, 5, 3, 3]
    assert base.scale == pytest.approx(np.sqrt(2 / 3))
    assert Base.fitted(np.array([0, 0]), np.full((2, 3), 0.1)).scale == 0


def test_cell_targets_have_the_effect_as_mean():
    cells = CellView(ToyCells(np.zeros((1, 4)), np.ones((2, 4)), n_perturbed=12), np.arange(2))
    rows = inputs([(0,), (1,)], np.zeros((2, 1)), cells=cells)
    Y = np.array([[1.0, -2, 0, 3], [0, 0, 1, 1]], np.float32)
    out = cell_targets(rows, Y, 12, 0)
    np.testing.assert_allclose(out.mean(axis=1, dtype=np.float64), Y, atol=2e-3)
    assert cell_targets(rows, Y, 30, 0).shape == (2, 30, 4)


# ---- the head ------------------------------------------------------------------------------------------------------


def error(head, problem):
    rows, truth, Y = problem
    train, test = np.arange(90), np.arange(90, 120)
    head.fit(rows.rows(train), Y[train].astype(np.float32))
    return float(np.square(head.predict(rows.rows(test)) - truth[test]).mean())


def test_an_informative_embedding_explains_most():
    problem = screen()
    assert error(GearsGNN(hidden=16, steps=250, members=2), problem) < 0.2 * error(ContextMean(), problem)


def test_permuted_embeddings_leave_about_the_context_mean():
    harm = []
    for seed in range(4):
        rows, truth, Y = screen(seed=seed)
        X = np.random.default_rng(5 + seed).permutation(rows.X)
        shuffled = Inputs(X, rows.context, rows.entities, rows.units)
        head = GearsGNN(hidden=8, steps=100, members=2, patience=2)
        harm.append(error(head, (shuffled, truth, Y)) / error(ContextMean(), (shuffled, truth, Y)))
    assert np.mean(harm) < 1.05


def test_a_graph_alone_tells_of_unseen_perturbations():
    """Modules of a graph share effects; the vectors say nothing."""
    rng = np.random.default_rng(0)
    module = np.arange(120) % 10
    truth = rng.normal(size=(10, 20))[module]
    graph = sparse.csr_matrix((module[:, None] == module).astype(np.float32))
    rows = inputs([(i,) for i in range(120)], np.zeros((120, 1)), graph=graph)
    problem = rows, truth, truth + 0.3 * rng.normal(size=(120, 20))
    assert error(GearsGNN(hidden=16, steps=300, members=2), problem) < 0.3 * error(ContextMean(), problem)


def test_published_loss_cells_and_uncertainty_train_too():
    problem = toy_problem()
    head = GearsGNN(**TINY, gamma=2.0, direction=0.1, uncertainty=True, cells=4).fit(problem.train, problem.Y)
    assert np.isfinite(head.predict(problem.query)).all()
    spread = head.predict_log_variance(problem.query)
    assert spread.shape == (len(problem.query), problem.Y.shape[1])
    with pytest.raises(RuntimeError, match="uncertainty=True"):
        GearsGNN(**TINY).fit(problem.train, problem.Y).predict_log_variance(problem.query)


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_log_variance_of_cells_is_that_of_cells(slope):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3))
    mean = slope * X @ rng.normal(size=(3, 8))
    cells = ToyCells(np.zeros((1, 8)), mean, n_perturbed=24)  # standard deviation 0.3
    rows = inputs([(i,) for i in range(80)], X, cells=CellView(cells, np.arange(80)))
    Y = np.stack([cells.perturbed(i).mean(axis=0) for i in range(80)])
    head = GearsGNN(hidden=16, steps=300, members=1, uncertainty=True, reg=1.0, cells=16).fit(rows, Y)
    assert abs(np.exp(head.predict_log_variance(rows) / 2).mean() - 0.3) < (0.1 if slope else 0.02)


def test_populations_are_controls_moved_by_the_effect():
    problem = toy_problem()
    head, query = GearsGNN(**TINY).fit(problem.train, problem.Y), problem.query.rows(np.arange(3))
    cells, moved = head.sources(query, 7).cells(query.cells), head.sample(query, 7)
    np.testing.assert_allclose(moved - cells, np.repeat(head.predict(query)[:, None], 7, axis=1), atol=1e-5)
    bare = Inputs(
        query.X, query.context, query.entities, query.units, dose=query.dose, context_vector=query.context_vector
    )
    with pytest.raises(ValueError, match="no single cells"):
        head.sample(bare, 2)


@pytest.mark.parametrize(
    "case", ["one row", "one unit", "one gene", "constant", "no features", "equal rows", "no rows"]
)
def test_corners(case):
    rng = np.random.default_rng(0)
    rows, Y = (
        inputs([(i // 2,) for i in range(12)], rng.normal(size=(12, 3)), np.arange(12) % 2),
        rng.normal(size=(12, 5)),
    )
    if case == "one row":
        rows, Y = rows.rows(np.array([0])), Y[:1]
    elif case == "one unit":
        rows = Inputs(rows.X, rows.context, rows.entities, ((0,),) * 12)
    elif case == "one gene":
        Y = Y[:, :1]
    elif case == "constant":
        rows = Inputs(np.ones_like(rows.X), rows.context, rows.entities, rows.units)
    elif case == "no features":
        rows = Inputs(np.zeros((12, 0), np.float32), rows.context, rows.entities, rows.units)
    elif case == "equal rows":
        Y = np.repeat(Y[:1], 12, axis=0)
    head = GearsGNN(**TINY, uncertainty=True).fit(rows, Y.astype(np.float32))
    query = rows.rows(np.zeros(0, np.int64)) if case == "no rows" else rows
    assert head.predict(query).shape == head.predict_log_variance(query).shape == (len(query), Y.shape[1])
    assert np.isfinite(head.predict(query)).all()
    if case in ("equal rows", "one row"):
        np.testing.assert_allclose(head.predict(query), Y, rtol=1e-6)


class Killed(Exception):
    pass


class Keeper:
    """Saves every ``every`` steps and dies after ``lives`` saves."""

    def __init__(self, lives):
        self.state, self.lives, self.asked = None, lives, 0

    def load(self):
        return self.state

    def due(self):
        self.asked += 1
        return self.asked % 7 == 0

    def save(self, state):
        self.state = state
        self.lives -= 1
        if not self.lives:
            raise Killed

    def report(self, stage, done, total, note=""):
        pass


@pytest.mark.parametrize("lives", [1, 3, 5])
def test_a_killed_fit_goes_on_to_the_same_bits(lives):
    problem, head = toy_problem(), GearsGNN(**TINY)
    want = GearsGNN(**TINY).fit(problem.train, problem.Y).predict(problem.query)
    head.monitor = keeper = Keeper(lives)
    with pytest.raises(Killed):
        head.fit(problem.train, problem.Y)
    again = GearsGNN(**TINY)
    again.monitor = keeper
    assert np.array_equal(again.fit(problem.train, problem.Y).predict(problem.query), want)
    del again.monitor
    assert np.array_equal(pickle.loads(pickle.dumps(again)).predict(problem.query), want)


@pytest.mark.parametrize(
    ("bad", "said"),
    [({"hidden": 0}, "hidden"), ({"dropout": 1.0}, "dropout"), ({"lr": 0}, "lr"), ({"members": 6}, "members"),
     ({"cells": -1}, "cells"), ({"seed": -1}, "seed"), ({"device": "moon"}, "moon"), ({"threshold": 1.0}, "threshold")],
)  # fmt: skip
def test_parameters_are_checked(bad, said):
    with pytest.raises(ValueError, match=f"GearsGNN: .*{said}"):
        GearsGNN(**bad)
