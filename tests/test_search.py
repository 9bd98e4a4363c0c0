"""Neighbour search: every backend and precision gives the answer of float64 brute force, to the bit the same."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from embbench.core import UserError  # noqa: E402
from embbench.heads import _search, _search_compiled, _search_frame, _search_library, _search_rank  # noqa: E402
from embbench.numerics.jit import has_numba  # noqa: E402

METRICS = ("l2", "cosine", "inner_product")
WAYS = {
    "compiled": {"backend": "compiled"},
    "bf16": {"backend": "compiled", "precision": "bf16"},
    "faiss": {"backend": "faiss"},
    "torch": {"backend": "torch"},
}


@pytest.fixture(params=list(WAYS))
def way(request):
    """Arguments of each way to search."""
    if request.param == "faiss":
        pytest.importorskip("faiss")
    if WAYS[request.param]["backend"] == "compiled" and not has_numba():
        pytest.skip("numba is not installed")
    return WAYS[request.param]


def oracle(X, Q, k, metric):
    """All distances in float64, a stable sort of each row."""
    X, Q = np.asarray(X, np.float64), np.asarray(Q, np.float64)
    if metric == "l2":
        table = np.sqrt(np.square(Q[:, None] - X[None]).sum(axis=2))
    else:
        table = -(Q @ X.T)
        if metric == "cosine":
            norms = np.linalg.norm(Q, axis=1)[:, None] * np.linalg.norm(X, axis=1)
            table = 1 + np.divide(table, norms, out=np.zeros_like(table), where=norms > 0)
    order = np.argsort(table, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(table, order, 1)


def equal(found, want):
    np.testing.assert_array_equal(found[0], want[0])
    np.testing.assert_array_equal(found[1], want[1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (300, 7, 3, 400), (2500, 30, 64, 25), (1500, 9, 129, 1), (40, 3, 700, 5)]
)
def test_equals_brute_force(way, metric, shape):
    n, q, d, k = shape
    rng = np.random.default_rng(n)
    X, Q = rng.normal(size=(n, d)), rng.normal(size=(2 * q, 2 * d))[::2, ::2]  # not contiguous
    for dtype in (np.float64, np.float32):
        rows, queries = X.astype(dtype), Q.astype(dtype)
        index, distance = _search.nearest(rows, queries, k, metric, **way)
        want, exact = oracle(rows, queries, k, metric)
        assert index.dtype == np.int64
        assert distance.dtype == np.float64
        np.testing.assert_array_equal(index, want)
        np.testing.assert_allclose(distance, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("metric", ["l2", "inner_product"])
@pytest.mark.parametrize("d", [1, 2, 70])
def test_ties_go_to_the_smaller_row(way, metric, d):
    grid = np.random.default_rng(d).integers(-1, 2, size=(2100, d)).astype(np.float32)
    for n, k in ((2050, 33), (60, 60)):
        index, distance = _search.nearest(grid[:n], grid[2050:], k, metric, **way)
        equal((index, distance), oracle(grid[:n], grid[2050:], k, metric))  # integers: exact in any order


@pytest.mark.parametrize("metric", METRICS)
def test_every_way_gives_the_same_bits(metric, monkeypatch):
    rng = np.random.default_rng(5)
    X, Q = (rng.normal(size=(n, 77)).astype(np.float32) for n in (3000, 40))
    X[::3], X[4], Q[2] = X[0], 0.0, 0.0  # a thousand equal rows, zero vectors
    X[1::50] *= 1 + 1e-7
    made = _search.nearest(X, Q, 60, metric)
    alone = _search.nearest(X, Q[7:8], 60, metric)
    equal(alone, (made[0][7:8], made[1][7:8]))
    for name, options in WAYS.items():
        if name == "faiss":
            pytest.importorskip("faiss")
        equal(_search.nearest(X, Q, 60, metric, **options), made)
    for module in (_search, _search_rank):
        monkeypatch.setattr(module, "has_numba", lambda: False)
    equal(_search.nearest(X, Q, 60, metric), made)
    tensors = torch.from_numpy(X), torch.from_numpy(Q)
    equal(_search.nearest(*tensors, 60, metric), made)


@pytest.mark.parametrize("scale", ["1e4 away", 1e-20, 1e18, 1e-150, 1e150])
def test_hard_scales(way, scale):
    rng = np.random.default_rng(1)
    X, Q = rng.normal(size=(1200, 6)), rng.normal(size=(9, 6))
    X, Q = (X + 1e4, Q + 1e4) if scale == "1e4 away" else (X * scale, Q * scale)
    if scale not in (1e150, 1e-150):
        X, Q = X.astype(np.float32), Q.astype(np.float32)
    for metric in METRICS:
        want = oracle(X, Q, 5, metric)[0]
        np.testing.assert_array_equal(_search.nearest(X, Q, 5, metric, **way)[0], want, err_msg=metric)


def test_rows_of_very_different_length(way):
    rng = np.random.default_rng(2)
    X = (rng.normal(size=(1500, 20)) * 10.0 ** rng.integers(-6, 7, size=(1500, 1))).astype(np.float32)
    for metric in METRICS:
        np.testing.assert_array_equal(
            _search.nearest(X, X[:20], 12, metric, **way)[0], oracle(X, X[:20], 12, metric)[0], err_msg=metric
        )


def test_nothing_to_find(way):
    none = np.zeros((0, 3), np.float32)
    some = np.ones((4, 3), np.float32)
    assert _search.nearest(none, some, 2, **way)[0].shape == (4, 0)
    assert _search.nearest(some, none, 2, **way)[0].shape == (0, 2)
    index, distance = _search.nearest(np.zeros((900, 0)), np.zeros((3, 0)), 2, **way)
    assert index.tolist() == [[0, 1]] * 3
    assert not distance.any()
    index, distance = _search.nearest(np.zeros((3, 2)), some[:, :2], 9, "cosine", **way)
    assert index.tolist() == [[0, 1, 2]] * 4
    assert (distance == 1).all()


def test_ever_nearer_rows_and_small_tiles(way, monkeypatch):
    """Each tile brings nearer rows than all before: the room fills again and again."""
    monkeypatch.setattr(_search_compiled, "TILE", 130)
    monkeypatch.setattr(_search_compiled, "FEW", 7)
    monkeypatch.setattr(_search_library, "BLOCK", 20_000)
    rng = np.random.default_rng(3)
    X = rng.normal(size=(4000, 5)).astype(np.float32)
    X = X[np.argsort(-np.linalg.norm(X, axis=1))]
    Q = (0.01 * rng.normal(size=(23, 5))).astype(np.float32)
    np.testing.assert_array_equal(_search.nearest(X, Q, 11, **way)[0], oracle(X, Q, 11, "l2")[0])
    monkeypatch.setattr(_search_compiled, "HELD", 0)
    monkeypatch.setattr(_search_compiled, "MANY", 5)
    np.testing.assert_array_equal(_search.nearest(X, Q, 300, **way)[0], oracle(X, Q, 300, "l2")[0])


def test_more_ties_than_room_leave_a_query_open():
    if not has_numba():
        pytest.skip("numba is not installed")
    X = np.random.default_rng(4).normal(size=(3000, 8)).astype(np.float32)
    X[::2] = X[0]
    Q = np.stack([X[0], X[1] + 20])
    frame = _search_frame.Frame(X, Q, "l2")
    ((start, near),) = _search_compiled.candidates(X, Q, 10, "l2", "float32", frame)
    assert start == 0
    assert (near[0] == 3000).all()
    assert (near[1] < 3000).sum() >= 10
    np.testing.assert_array_equal(_search.nearest(X, Q, 10)[0], oracle(X, Q, 10, "l2")[0])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("metric", METRICS)
def test_scores_stay_within_their_bound(metric, precision):
    rng = np.random.default_rng(6)
    X = np.concatenate([rng.normal(size=(40, 300)), rng.lognormal(0, 3, (40, 300)), rng.integers(0, 2, (40, 300))])
    X = X.astype(np.float32)
    Q = X[::7] + rng.normal(size=X[::7].shape).astype(np.float32)
    frame = _search_frame.Frame(X, Q, metric)
    block = _search_compiled.Block(frame(Q), metric, precision)
    tile = _search_compiled.Tile(frame(X), 0, precision)
    dot = np.empty((len(Q), len(X)), np.float32)
    offset, error = block.scores(tile, dot)
    score = offset.astype(float) - float(block.factor) * dot.astype(float)
    wide = frame(X).astype(float), frame(Q).astype(float)
    exact = float(block.factor) * wide[1] @ wide[0].T
    exact = (np.square(wide[0]).sum(axis=1) if metric == "l2" else 0.0) - exact
    assert (np.abs(score - exact) <= block.share * np.abs(dot) + error[:, None]).all()
    assert np.abs(score - exact).max() > 0


def test_most_queries_are_settled_at_once():
    if not has_numba():
        pytest.skip("numba is not installed")
    rng = np.random.default_rng(7)
    X, Q = (rng.normal(size=(n, 200)).astype(np.float32) for n in (3000, 100))
    frame = _search_frame.Frame(X, Q, "l2")
    for precision, most in (("float32", 22), ("bf16", 60)):
        ((_, near),) = _search_compiled.candidates(X, Q, 20, "l2", precision, frame)
        count = (near < 3000).sum(axis=1)
        assert count.min() >= 20
        assert count.mean() < most
    searcher = _search_library.Searcher(X, Q, "l2", "torch", torch, frame)
    found = np.empty((100, 20), np.int64), np.empty((100, 20))
    proposed = []
    propose = searcher.propose
    searcher.propose = lambda which, count: proposed.append((len(which), count)) or propose(which, count)
    assert not len(_search_library.settle(X, Q, 20, "l2", searcher, np.arange(100), *found))
    assert proposed == [(100, 20 + _search_library.SLACK)]


@pytest.mark.parametrize("d", [0, 1, 63, 64, 65, 200])
def test_distances_are_sums_of_the_pair_alone(d):
    rng = np.random.default_rng(d)
    X, Q = rng.normal(size=(50, d)).astype(np.float32), rng.normal(size=(4, d))
    near = np.sort(rng.integers(0, 51, size=(4, 9)), axis=1)  # 50: no row
    for metric in METRICS:
        made = _search_rank.distances(X, Q, near, metric)
        for i, j in np.ndindex(near.shape):
            alone = _search_rank.distances(X, Q[i : i + 1], near[i : i + 1, j : j + 1], metric)[0, 0]
            assert made[i, j] == alone
            if near[i, j] == 50:
                assert alone == np.inf
            elif metric == "l2":
                gaps = X[near[i, j]].astype(float) - Q[i]
                assert math.isclose(alone, math.sqrt(math.fsum(gaps * gaps)), rel_tol=1e-14)


def test_what_auto_takes(monkeypatch):
    pytest.importorskip("faiss")
    X = np.zeros((2, 2))
    monkeypatch.setattr(_search, "has_numba", lambda: True)
    monkeypatch.setattr(_search, "_faiss_gpus", lambda: 0)
    assert _search._choose(X, "l2", "auto", "float32")[0] == "compiled"
    monkeypatch.setattr(_search, "has_numba", lambda: False)
    assert _search._choose(X, "l2", "auto", "float32")[0].startswith("faiss")
    assert _search._choose(X, "l2", "torch", "float32") == ("torch", torch)


def test_auto_takes_bf16_where_it_pays(monkeypatch):
    if not has_numba():
        pytest.skip("numba is not installed")
    X = np.random.default_rng(9).normal(size=(1000, 256)).astype(np.float32)
    taken = []
    search = _search._compiled
    monkeypatch.setattr(_search, "_compiled", lambda *args: taken.append(args[4]) or search(*args))
    monkeypatch.setattr(_search, "_multiplies_bf16", lambda: True)
    made = _search.nearest(X, X[:500], 3)
    assert taken == ["bf16", "float32"]  # the second is handed the queries that the first left open: none
    equal(_search.nearest(X, X[:499], 3), (made[0][:499], made[1][:499]))
    assert taken[2:] == ["float32"]


def test_what_is_not_there_is_said(monkeypatch):
    X = np.zeros((2, 2))
    for bad, message in (
        ({"metric": "l1"}, r"metric must be one of .*got 'l1'"),
        ({"backend": "annoy"}, r"backend must be one of .*got 'annoy'"),
        ({"precision": "int8"}, r"precision must be one of .*got 'int8'"),
        ({"backend": "faiss", "precision": "bf16"}, r"'bf16' needs backend 'compiled' .*got 'faiss'"),
    ):
        with pytest.raises(UserError, match=message):
            _search.nearest(X, X, 1, **bad)
    monkeypatch.setattr(_search, "has_numba", lambda: False)
    with pytest.raises(UserError, match="needs numba; pip install numba"):
        _search.nearest(X, X, 1, backend="compiled")
    monkeypatch.setattr(_search, "_library", lambda: ("torch", torch))
    with pytest.raises(UserError, match="'faiss' is not installed; pip install faiss-cpu"):
        _search.nearest(X, X, 1, backend="faiss")


@pytest.mark.cuda
@pytest.mark.parametrize("metric", METRICS)
def test_a_gpu_gives_the_same_bits(metric):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    rng = np.random.default_rng(8)
    X, Q = (rng.normal(size=(n, 96)).astype(np.float32) for n in (5000, 60))
    X[::4] = X[0]
    made = _search.nearest(X, Q, 30, metric, backend="torch")
    equal(_search.nearest(X, Q, 30, metric, backend="torch-cuda"), made)
    equal(_search.nearest(torch.from_numpy(X).cuda(), torch.from_numpy(Q), 30, metric), made)
