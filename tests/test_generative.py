"""Heads that generate cells, on screens whose truth is known: half of the perturbed cells move, the others do not."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import sparse

from embbench.core import CellView, Inputs
from embbench.heads._autoencoder import Autoencoder
from embbench.heads.context_mean import ContextMean
from embbench.heads.flow_matching import FlowMatching
from embbench.heads.latent_diffusion import LatentDiffusion
from embbench.heads.schrodinger_bridge import SchrodingerBridge
from embbench.numerics.distances import edistance_euclidean_u
from embbench.numerics.folds import inner_folds
from embbench.numerics.linalg import pca

HEADS = (FlowMatching, LatentDiffusion, SchrodingerBridge)
SMALL = {"steps": 150, "width": 32, "depth": 2, "latent_dim": 8, "batch_size": 128, "check_every": 25, "block": 16}
TINY = {"steps": 12, "width": 16, "depth": 1, "latent_dim": 4, "batch_size": 32, "check_every": 4, "block": 8}


@dataclass(frozen=True)
class Halves:
    """Normal cells; of a row's perturbed cells a random half moves by twice the row's mean effect."""

    base: np.ndarray
    delta: np.ndarray
    context: np.ndarray
    size: int = 80
    spread: float = 0.5
    pool: int = 150

    def controls(self, context, half="A"):
        rng = np.random.default_rng([1, context, "AB".index(half)])
        noise = rng.normal(0, 1, (self.pool, self.base.shape[1]))
        return (self.base[context] + self.spread * noise).astype(np.float32)

    def perturbed(self, row):
        rng = np.random.default_rng([2, row])
        moved = 2 * (rng.random((self.size, 1)) < 0.5) * self.delta[row]
        noise = self.spread * rng.normal(0, 1, (self.size, self.base.shape[1]))
        return (self.base[self.context[row]] + moved + noise).astype(np.float32)

    def n_controls(self, context, half="A"):
        return self.pool

    def batches(self, context, half="A"):
        return np.arange(self.pool) % 2

    def perturbed_batches(self, row):
        return np.arange(self.size) % 2


@dataclass
class Screen:
    """Effects that are linear in vectors, and cells around them."""

    X: np.ndarray
    delta: np.ndarray
    context: np.ndarray
    cells: Halves
    Y: np.ndarray

    def inputs(self, rows, *, query=False, cells=True, **more):
        rows, n = np.asarray(rows), len(self.X)
        table = sparse.csr_matrix((np.ones(len(rows), np.float32), (np.arange(len(rows)), rows)), shape=(len(rows), n))
        view = CellView(self.cells, np.zeros(0, int) if query else rows) if cells else None
        units = tuple((int(i),) for i in rows)
        return Inputs(self.X[rows].astype(np.float32), self.context[rows], table, units, cells=view, **more)


def screen(n=60, g=12, d=3, contexts=1, seed=0, **more):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    context = np.arange(n) % contexts
    delta = 0.6 * X @ rng.normal(size=(d, g)) + 0.4 * rng.normal(size=g) + 0.2 * rng.normal(size=(contexts, g))[context]
    cells = Halves(np.full((contexts, g), 3.0) + np.arange(contexts)[:, None], delta, context, **more)
    control = np.stack([cells.controls(c).mean(axis=0) for c in range(contexts)])
    mean = [cells.perturbed(i).mean(axis=0) if cells.size else np.zeros(g) for i in range(n)]
    return Screen(X, delta, context, cells, (np.stack(mean) - control[context]).astype(np.float32))


def l2(prediction, truth):
    return float(np.linalg.norm(prediction - truth, axis=1).mean())


def make(head, **more):
    return head(**{**TINY, "device": "cpu", **more})


# ---- what they are for ---------------------------------------------------------------------------------------------

TRAIN, TEST = np.arange(48), np.arange(48, 60)


@pytest.fixture(scope="module")
def bimodal():
    return screen()


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (FlowMatching, {}),
        (LatentDiffusion, {}),
        (LatentDiffusion, {"objective": "epsilon", "sampler": "ddpm"}),
        (LatentDiffusion, {"objective": "x0", "eta": 0.5}),
        (SchrodingerBridge, {}),
        (SchrodingerBridge, {"sampler": "ode"}),
        (FlowMatching, {"latent": "autoencoder", "solver": "euler", "coupling": "sinkhorn"}),
    ],
)
def test_beats_the_context_mean_and_moved_control_cells(bimodal, head, more):
    train, query, truth = bimodal.inputs(TRAIN), bimodal.inputs(TEST, query=True), bimodal.delta[TEST]
    made = make(head, **SMALL | more).fit(train, bimodal.Y[TRAIN])
    mean = ContextMean().fit(train, bimodal.Y[TRAIN]).predict(query)
    effect, cells = made.predict(query), made.sample(query, 80)
    assert effect.dtype == cells.dtype == np.float32
    assert l2(effect, truth) < 0.3 * l2(mean, truth)
    source = made.sources(query, 80).cells(query.cells)

    def distance(population):
        pairs = zip(population, TEST, strict=True)
        return np.mean([edistance_euclidean_u(p, bimodal.cells.perturbed(row)) for p, row in pairs])

    for move in (made.carrier_.moves(query), truth):
        assert distance(cells) < 0.5 * distance(source + move[:, None])
    # the mean of the sampled cells is the predicted one, up to the noise of 80 cells that are split in two
    gap = np.abs(cells.mean(axis=1) - source.mean(axis=1) - effect).mean()
    assert gap < 0.15


@pytest.mark.parametrize("head", HEADS)
def test_permuted_vectors_fall_back_to_the_context_mean(bimodal, head):
    order = np.random.default_rng(7).permutation(60)
    mixed = replace(bimodal, X=bimodal.X[order])
    train, query, truth = mixed.inputs(TRAIN), mixed.inputs(TEST, query=True), bimodal.delta[TEST]
    mean = ContextMean().fit(train, bimodal.Y[TRAIN]).predict(query)
    assert l2(make(head, **SMALL).fit(train, bimodal.Y[TRAIN]).predict(query), truth) < 1.1 * l2(mean, truth)


@pytest.mark.parametrize("head", HEADS)
def test_on_effects_only(bimodal, head):
    train, query = bimodal.inputs(TRAIN, cells=False), bimodal.inputs(TEST, cells=False)
    made = make(head, **SMALL).fit(train, bimodal.Y[TRAIN])
    mean = ContextMean().fit(train, bimodal.Y[TRAIN]).predict(query)
    assert l2(made.predict(query), bimodal.delta[TEST]) < 0.3 * l2(mean, bimodal.delta[TEST])
    with pytest.raises(RuntimeError, match=r"sample needs a fit on single cells"):
        made.sample(query, 3)


def test_without_an_anchor_the_field_learns_the_mean(bimodal):
    """Of unseen perturbations; few steps, so a part of the gap will do."""
    train, query, truth = bimodal.inputs(TRAIN), bimodal.inputs(TEST, query=True), bimodal.delta[TEST]
    mean = ContextMean().fit(train, bimodal.Y[TRAIN]).predict(query)
    made = make(FlowMatching, **SMALL | {"steps": 300}, anchor="none").fit(train, bimodal.Y[TRAIN])
    assert l2(made.predict(query), truth) < 0.65 * l2(mean, truth)


@pytest.mark.parametrize("head", HEADS)
def test_means_of_queries_without_cells(bimodal, head):
    """Start points are then drawn around the anchor's mean instead of control cells."""
    made = make(head, **SMALL).fit(bimodal.inputs(TRAIN), bimodal.Y[TRAIN])
    got = made.predict(bimodal.inputs(TEST, cells=False))
    assert l2(got, made.predict(bimodal.inputs(TEST, query=True))) < 0.2 * np.linalg.norm(got, axis=1).mean()


# ---- the same bits -------------------------------------------------------------------------------------------------


class Killed(RuntimeError):
    """Stands for a kill."""


class Keeper:
    """Saves every third step; dies after ``last`` saves."""

    def __init__(self, last=None, state=None):
        self.state, self.last, self.asked, self.saves = state, last, 0, 0

    def load(self):
        return self.state

    def due(self):
        self.asked += 1
        return self.asked % 3 == 0

    def save(self, state):
        self.state, self.saves = state, self.saves + 1
        if self.saves == self.last:
            raise Killed(self.saves)

    def report(self, stage, done, total, note=""):
        assert 0 <= done <= total, (stage, done, total)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cells", [True, False])
def test_same_seed_same_bits_also_after_a_kill(head, cells):
    data = screen(n=12, g=5, size=10, pool=30)
    train, query = data.inputs(range(9), cells=cells), data.inputs(range(9, 12), query=True, cells=cells)

    def numbers(made):
        made.fit(train, data.Y[:9])
        state = np.concatenate([p.ravel() for p in made.net_.state_dict().values()])
        return state, made.predict(query), made.sample(query, 4) if cells else np.zeros(0)

    before = torch.get_rng_state()
    plain = numbers(make(head))
    assert torch.equal(before, torch.get_rng_state())
    first, second = make(head), make(head)
    first.monitor = Keeper(last=2)
    with pytest.raises(Killed):
        first.fit(train, data.Y[:9])
    torch.rand(3)  # another process has another stream
    second.monitor = Keeper(state=first.monitor.state)
    for again in (numbers(make(head)), numbers(second)):
        for a, b in zip(plain, again, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(numbers(make(head, seed=1))[1], plain[1])


def test_a_fitted_head_pickles_with_its_autoencoder():
    data = screen(n=8, g=5, size=10, pool=30)
    made = make(SchrodingerBridge, latent="autoencoder").fit(data.inputs(range(6)), data.Y[:6])
    query = data.inputs([6, 7], query=True)
    copied = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(copied.sample(query, 3), made.sample(query, 3))


# ---- populations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_what_the_latent_space_does_not_hold_stays_the_control_cells_own(head):
    data = screen(n=12, g=9, size=20, pool=40)
    made = make(head, latent_dim=2).fit(data.inputs(range(9)), data.Y[:9])
    query = data.inputs(range(9, 12), query=True)
    axes = made.carrier_.space.axes
    source = made.sources(query, 6).cells(query.cells) + made.carrier_.moves(query)[:, None]
    change = made.sample(query, 6) - source
    np.testing.assert_allclose(change - change @ axes @ axes.T, 0, atol=1e-5)
    assert np.abs(change).max() > 1e-3
    alone = made.sample(query.rows(np.array([1])), 6)
    np.testing.assert_allclose(alone[0], made.sample(query, 6)[1], atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_strict_contexts_start_from_open_ones(head):
    data = screen(n=15, g=5, contexts=3, size=10, pool=20)
    rows = np.flatnonzero(data.context < 2)
    train, query = data.inputs(rows), data.inputs(np.flatnonzero(data.context == 2), query=True)
    closed = frozenset({0, 1})
    train = replace(train, cells=replace(train.cells, contexts=closed))
    query = replace(query, cells=replace(query.cells, contexts=closed))
    made = make(head).fit(train, data.Y[rows])
    assert np.isfinite(made.predict(query)).all()
    assert np.isfinite(made.sample(query, 5)).all()
    assert set(np.unique(made.sources(query, 5).context)) <= closed


# ---- corners -------------------------------------------------------------------------------------------------------


def pairs_and_doses(data, rows):
    inputs = data.inputs(rows, dose=np.linspace(0.1, 2, len(rows)).astype(np.float32))
    both = (inputs.entities + inputs.entities[np.roll(np.arange(len(rows)), 1)]).tocsr()
    return replace(
        inputs, entities=both, units=tuple((u[0], inputs.units[i - 1][0]) for i, u in enumerate(inputs.units))
    )


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cells", [True, False])
@pytest.mark.parametrize(
    "case", ["one row", "one unit", "one gene", "constant cells", "no vectors", "pairs", "flat vectors"]
)
def test_corners(head, cells, case):
    settings = {"one gene": {"g": 1}, "constant cells": {"spread": 0.0}}.get(case, {"g": 5})
    data = screen(**{"n": 10, "g": 5, "size": 8, "pool": 12, **settings})
    rows = np.arange(1 if case == "one row" else 7)
    if case == "constant cells":
        data.delta[:] = 0
        data.Y[:] = 0
    if case == "no vectors":
        data = replace(data, X=data.X[:, :0])
    if case == "flat vectors":
        data = replace(data, X=np.ones_like(data.X))
    train, query = data.inputs(rows, cells=cells), data.inputs([8, 9], query=True, cells=cells)
    if case == "one unit":
        train = replace(train, units=((3,),) * len(rows))
    if case == "pairs":
        train, query = (pairs_and_doses(data, r) for r in (rows, np.array([8, 9])))
        train, query = (part if cells else replace(part, cells=None) for part in (train, query))
    made = make(head).fit(train, data.Y[rows])
    out = made.predict(query)
    assert out.shape == (2, data.Y.shape[1])
    assert np.isfinite(out).all()
    if case == "constant cells":
        np.testing.assert_allclose(out, 0, atol=1e-3)
    if cells:
        drawn = made.sample(query, 20)  # more than there are controls
        assert drawn.shape == (2, 20, data.Y.shape[1])
        assert np.isfinite(drawn).all()
        nobody = query.rows(np.zeros(0, int))
        assert made.predict(nobody).shape == (0, data.Y.shape[1])
        assert made.sample(nobody, 3).shape == (0, 3, data.Y.shape[1])


@pytest.mark.parametrize("empty", ["some", "held-out", "all"])
def test_rows_without_cells(empty):
    """A condition may have lost all its cells to a filter."""

    @dataclass(frozen=True)
    class Gone(Halves):
        lost: frozenset = frozenset()

        def perturbed(self, row):
            return super().perturbed(row)[: 0 if row in self.lost else None]

        def perturbed_batches(self, row):
            return super().perturbed_batches(row)[: 0 if row in self.lost else None]

    data = screen(n=12, g=5, size=8, pool=20)
    made = make(FlowMatching)
    held = inner_folds([(i,) for i in range(10)], 5, 0)[0][1].tolist()
    lost = {"some": {0, 4}, "held-out": set(held), "all": set(range(10))}[empty]
    old = data.cells
    data = replace(data, cells=Gone(old.base, old.delta, old.context, 8, 0.5, 20, lost=frozenset(lost)))
    if empty == "all":
        with pytest.raises(ValueError, match="none of the 10 training rows has perturbed cells"):
            made.fit(data.inputs(range(10)), data.Y[:10])
        return
    made.fit(data.inputs(range(10)), data.Y[:10])
    query = data.inputs([10, 11], query=True)
    assert np.isfinite(made.predict(query)).all()
    assert np.isfinite(made.sample(query, 4)).all()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "more",
    [
        {"network": "transformer", "width": 16},
        {"guidance": 2.0},
        {"precision": "bfloat16"},
        {"anchor": "context_mean"},
        {"anchor": "none"},
        {"seed": 2**40},
        {"drop_condition": 0.0},
    ],
)
def test_options_run(head, more):
    data = screen(n=10, g=5, contexts=2, size=8, pool=20)
    made = make(head, **more).fit(data.inputs(range(8)), data.Y[:8])
    query = data.inputs([8, 9], query=True)
    query = replace(query, context=np.array([0, 1]))
    assert np.isfinite(made.predict(query)).all()
    assert np.isfinite(made.sample(query, 3)).all()


@pytest.mark.parametrize(
    ("head", "more", "message"),
    [
        (FlowMatching, {"latent": "umap"}, r"FlowMatching: latent must be one of \('pca', 'autoencoder'\), got 'umap'"),
        (FlowMatching, {"network": "cnn"}, r"network must be one of .*, got 'cnn'"),
        (FlowMatching, {"coupling": "greedy"}, r"coupling must be one of .*, got 'greedy'"),
        (FlowMatching, {"anchor": "knn"}, r"anchor must be one of .*, got 'knn'"),
        (FlowMatching, {"precision": "float16"}, r"precision must be one of .*, got 'float16'"),
        (FlowMatching, {"solver": "rk5"}, r"solver must be one of .*, got 'rk5'"),
        (FlowMatching, {"noise": 1.5}, r"noise must be in \[0, 1\], got 1.5"),
        (FlowMatching, {"solver_steps": 0}, r"solver_steps must be a whole number >= 1, got 0"),
        (FlowMatching, {"latent_dim": 0}, r"latent_dim must be a whole number >= 1, got 0"),
        (FlowMatching, {"lr": 0.0}, r"lr must be > 0, got 0.0"),
        (FlowMatching, {"dropout": 1.0}, r"dropout must be in \[0, 1.0\), got 1.0"),
        (FlowMatching, {"seed": -1}, r"seed must be .*, got -1"),
        (FlowMatching, {"guidance": 2.0, "drop_condition": 0.0}, r"guidance 2.0 needs drop_condition > 0"),
        (FlowMatching, {"network": "transformer", "width": 18}, r"multiple of 4 \(heads\), got 18"),
        (FlowMatching, {"device": "abacus"}, r"device 'abacus' is not one of torch's"),
        (LatentDiffusion, {"objective": "score"}, r"LatentDiffusion: objective must be one of .*, got 'score'"),
        (LatentDiffusion, {"sampler": "sde"}, r"sampler must be one of .*, got 'sde'"),
        (LatentDiffusion, {"eta": -0.1}, r"eta must be in \[0, 1\], got -0.1"),
        (SchrodingerBridge, {"sampler": "ddim"}, r"sampler must be one of .*, got 'ddim'"),
        (SchrodingerBridge, {"sigma": 0.0}, r"sigma must be > 0, got 0.0"),
    ],
)
def test_wrong_options_are_named(head, more, message):
    with pytest.raises(ValueError, match=message):
        head(**more)


def test_wrong_use_is_named(bimodal):
    query = bimodal.inputs(TEST, query=True)
    for method in ("predict", "sample"):
        with pytest.raises(RuntimeError, match=f"FlowMatching.{method} called before fit"):
            getattr(FlowMatching(), method)(query, *([3] if method == "sample" else []))
    with pytest.raises(ValueError, match=r"expected one row of Y per training row"):
        FlowMatching().fit(bimodal.inputs(TRAIN), bimodal.Y)


# ---- the autoencoder -----------------------------------------------------------------------------------------------


def curved(m=1500, g=20):
    rng = np.random.default_rng(0)
    u, v = rng.uniform(-1, 1, (2, m))
    cells = np.stack([u, v, u**2, u * v, np.sin(3 * v)], axis=1) @ rng.normal(size=(5, g))
    return (cells + 0.05 * rng.normal(size=(m, g))).astype(np.float32)


def test_the_autoencoder_bends_where_pca_cannot():
    cells, new = curved()[:1000], curved()[1000:]
    made = Autoencoder.fitted(cells, 2, 0)
    z = made.encode(new)
    assert z.shape == (500, 2)
    assert z.dtype == np.float32
    assert np.square(made.encode(cells)).mean() == pytest.approx(1.0, rel=1e-4)  # one common unit
    apart = made.change(z[:250], z[250:]) - (new[250:] - new[:250])  # differences of cells, reconstructed
    _, axes, _ = pca(cells, 2)
    flat = (new[250:] - new[:250]) @ (np.eye(20) - axes @ axes.T)
    assert np.square(apart).mean() < 0.6 * np.square(flat).mean()
    assert made.change(z, z).max() == 0


def test_the_autoencoder_is_pca_at_first_and_the_same_for_the_same_seed(monkeypatch):
    cells = curved()
    first, second = Autoencoder.fitted(cells, 3, 4), pickle.loads(pickle.dumps(Autoencoder.fitted(cells, 3, 4)))
    np.testing.assert_array_equal(first.encode(cells), second.encode(cells))
    np.testing.assert_array_equal(first.change(*[first.encode(c) for c in (cells[:5], cells[5:10])]).shape, (5, 20))
    assert not np.array_equal(Autoencoder.fitted(cells, 3, 5).encode(cells), first.encode(cells))
    monkeypatch.setattr("embbench.heads._autoencoder._train", lambda *_: None)
    plain, (_, axes, _) = Autoencoder.fitted(cells, 3, 4), pca(cells, 3)
    z = plain.encode(cells)
    np.testing.assert_allclose(z * plain.scale * plain.unit, cells @ axes, atol=1e-4)
    np.testing.assert_allclose(plain.change(z[:9], z[9:18]), (cells[9:18] - cells[:9]) @ axes @ axes.T, atol=1e-4)


@pytest.mark.parametrize("cells", [np.zeros((1, 1)), np.full((30, 4), 2.0), curved(12, 1), curved(3, 6)])
def test_the_autoencoder_of_little(cells):
    made = Autoencoder.fitted(cells.astype(np.float32), 5, 0)
    z = made.encode(cells.astype(np.float32))
    assert 1 <= z.shape[1] <= min(5, cells.shape[1])
    assert np.isfinite(z).all()
    assert np.isfinite(made.change(z, z + 1)).all()


def test_fields_on_effects_learn_what_the_anchor_misses():
    """Without cells the targets are the anchor's errors on rows that it has not seen: there is something to learn."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    Y = (np.sin(3 * X) @ rng.normal(size=(4, 20)) + 0.1 * rng.normal(size=(60, 20))).astype(np.float32)
    rows = Inputs(X, np.zeros(60, int), sparse.eye(60, format="csr", dtype=np.float32), tuple((i,) for i in range(60)))
    made = [head(steps=60, check_every=20, width=16, depth=1, device="cpu").fit(rows, Y) for head in HEADS]
    assert all(head.carrier_.spread.min() > 1e-3 for head in made)
    assert all(len(head.carrier_.spread) > 5 for head in made)
