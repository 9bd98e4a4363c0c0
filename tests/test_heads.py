"""Heads against closed forms and scikit-learn; the exact tie rule of the neighbour search; the contracts' corners."""

from __future__ import annotations

import importlib
import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from embbench.core import Inputs
from embbench.heads import _search
from embbench.heads.additive import Additive
from embbench.heads.context_mean import ContextMean
from embbench.heads.kernel_ridge import KernelRidge
from embbench.heads.knn import KNN, backend
from embbench.heads.lasso import Lasso
from embbench.heads.mlp import MLP
from embbench.heads.nearest_context import NearestContext
from embbench.heads.no_change import NoChange
from embbench.heads.perturbation_mean import PerturbationMean
from embbench.heads.ridge import Ridge
from embbench.heads.sklearn_any import PartialLeastSquares, SklearnRegressor
from embbench.numerics.smoothers import matrix_of

FAST = {"width": 16, "depth": 1, "epochs": 10, "patience": 3, "rank": 4, "device": "cpu"}
SMOOTHERS = [
    NoChange(), ContextMean(), PerturbationMean(), Additive(), NearestContext(), KNN(3), KNN(4, weights="softmax"),
    KNN(4, "cosine", "distance"), KNN(4, "inner_product"), Ridge(1.0), KernelRidge(1.0), KernelRidge(1.0, "laplacian"),
    KernelRidge(1.0, "cosine"), KernelRidge(1.0, "linear"),
]  # fmt: skip
TRAINED = [
    Lasso(0.05), PartialLeastSquares(3), SklearnRegressor("sklearn.svm.SVR"), MLP(**FAST),
    SklearnRegressor(params={"n_estimators": 4}, rank=3),
]  # fmt: skip
ALL = SMOOTHERS + TRAINED


def name(head):
    return f"{type(head).__name__}-{'-'.join(str(v) for v in vars(head).values() if isinstance(v, str))}"


def inputs(sets, context, X=None, e=None, vectors=None, dose=None):
    """Inputs for rows given as tuples of entity codes."""
    e = e or 1 + max(max(s) for s in sets)
    rows = [i for i, s in enumerate(sets) for _ in s]
    ones = np.ones(len(rows), np.float32)
    table = sparse.csr_matrix((ones, (rows, [m for s in sets for m in s])), shape=(len(sets), e))
    X = np.zeros((len(sets), 0), np.float32) if X is None else X.astype(np.float32)
    return Inputs(X=X, context=np.asarray(context, np.int64), entities=table, units=tuple(sets), dose=dose,
                  context_vector=vectors)  # fmt: skip


def screen(n=40, d=6, g=12, seed=0, c=3):
    """A small informative screen: n rows, singles and pairs, c contexts."""
    rng = np.random.default_rng(seed)
    e = n // 2
    sets = [(int(i % e),) if i % 4 else tuple(sorted({int(i % e), int((i + 3) % e)})) for i in range(n)]
    table = rng.normal(size=(e, d))
    X = np.stack([table[list(s)].sum(axis=0) for s in sets])
    context = rng.integers(0, c, n)
    Y = X @ rng.normal(size=(d, g)) + rng.normal(size=(c, g))[context] + 0.3 * rng.normal(size=(n, g))
    vectors = rng.normal(size=(c + 1, 4)).astype(np.float32)
    return inputs(sets, context, X, e, vectors), Y.astype(np.float32)


# ---- contracts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ALL, ids=name)
def test_contract(head):
    train, Y = screen()
    query, _ = screen(seed=1)
    head = pickle.loads(pickle.dumps(head))
    with pytest.raises(RuntimeError, match=rf"^{type(head).__name__}\.predict called before fit$"):
        head.predict(query)
    before = (train.X.copy(), Y.copy(), np.random.get_state()[1].copy(), torch.get_rng_state())  # noqa: NPY002
    other = head.fit(train.rows(np.arange(9)), Y[:9, :5])  # forgets: other rows and another number of genes
    assert other is head
    first = head.fit(train, Y).predict(query)
    assert first.shape == (len(query), Y.shape[1])
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    fresh = pickle.loads(pickle.dumps(head.fit(train, Y)))
    np.testing.assert_array_equal(fresh.predict(query), first)
    part = np.array([5, 0, 17])
    np.testing.assert_allclose(head.predict(query.rows(part)), first[part], atol=1e-5)
    np.testing.assert_array_equal(train.X, before[0])
    np.testing.assert_array_equal(Y, before[1])
    np.testing.assert_array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[3])


@pytest.mark.parametrize("head", ALL, ids=name)
def test_one_training_row(head):
    train, Y = screen()
    pred = head.fit(train.rows(np.array([1])), Y[1:2]).predict(train)
    assert pred.shape == Y.shape
    assert np.isfinite(pred).all()
    if isinstance(head, KNN | Ridge | KernelRidge | Lasso | MLP | SklearnRegressor | ContextMean):
        np.testing.assert_allclose(pred, np.broadcast_to(Y[1], Y.shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", [h for h in ALL if not h.needs_embedding], ids=name)
def test_heads_without_embedding_take_no_columns(head):
    train, Y = screen()
    bare = inputs(train.units, train.context, None, train.entities.shape[1], train.context_vector)
    np.testing.assert_array_equal(head.fit(bare, Y).predict(bare), head.fit(train, Y).predict(train))


@pytest.mark.parametrize("head", SMOOTHERS, ids=name)
def test_weights_are_the_prediction(head):
    train, Y = screen()
    query, _ = screen(seed=1)
    W = head.weights(train, query)
    assert W.shape == (len(query), len(train))
    assert W.dtype == np.float64
    np.testing.assert_allclose(W @ Y.astype(np.float64), head.fit(train, Y).predict(query), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cls", [KNN, Ridge, KernelRidge])
def test_path_gives_the_bits_of_single_settings(cls):
    train, _ = screen()
    query, _ = screen(seed=1)
    heads = [cls(**setting) for setting in cls.candidates()]
    assert 4 <= len(heads) <= 24
    for head, W in zip(heads, cls.path(heads, train, query), strict=True):
        alone = head.weights(train, query)
        dense = [m.toarray() if sparse.issparse(m) else m for m in (matrix_of(W), alone)]
        np.testing.assert_array_equal(*dense)


@pytest.mark.parametrize("cls", [Lasso, MLP, PartialLeastSquares, SklearnRegressor, ContextMean])
def test_candidates_construct(cls):
    assert all(isinstance(cls(**setting), cls) for setting in cls.candidates())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KNN(0), "KNN: k must be a whole number >= 1, got 0"),
        (lambda: KNN(2.5), "KNN: k must be .* got 2.5"),
        (lambda: KNN(metric="l1"), "KNN: metric must be one of .* got 'l1'"),
        (lambda: KNN(weights="near"), "KNN: weights must be one of .* got 'near'"),
        (lambda: KNN(weights="softmax", temperature=0), "KNN: temperature must be > 0, got 0"),
        (
            lambda: KNN(metric="inner_product", weights="distance"),
            "need a distance .l2 or cosine., got metric 'inner_product'",
        ),
        (lambda: Ridge(-1), "Ridge: alpha must be > 0, got -1"),
        (lambda: Ridge(float("nan")), "Ridge: alpha must be > 0, got nan"),
        (lambda: KernelRidge(gamma=0), "KernelRidge: gamma must be > 0, got 0"),
        (lambda: KernelRidge(kernel="poly"), "KernelRidge: kernel must be one of .* got 'poly'"),
        (lambda: Lasso(0), "Lasso: alpha must be > 0, got 0"),
        (lambda: MLP(width=0), "MLP: width must be .* got 0"),
        (lambda: MLP(dropout=1), "MLP: dropout must be in .* got 1"),
        (lambda: MLP(device="abacus"), "MLP: device 'abacus'"),
        (lambda: SklearnRegressor("sklearn.svm:Nothing"), "must be an importable .* got 'sklearn.svm:Nothing'"),
        (lambda: SklearnRegressor("sklearn.svm:SVC"), "'sklearn.svm:SVC' is no scikit-learn regressor"),
        (lambda: SklearnRegressor("nodots"), "must be an importable .* got 'nodots'"),
        (lambda: SklearnRegressor("sklearn.multioutput:MultiOutputRegressor"), "made without arguments"),
        (lambda: SklearnRegressor("sklearn.svm:SVR", depth=3), r"has no parameters \['depth'\]"),
    ],
)
def test_constructors_name_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fit_names_a_wrong_number_of_rows():
    train, Y = screen()
    for head in (KNN(), Lasso(), MLP(**FAST), SklearnRegressor()):
        with pytest.raises(
            ValueError, match=rf"{type(head).__name__}\.fit: expected one row of Y .*\(3, 12\), 40 rows"
        ):
            head.fit(train, Y[:3])


# ---- means -------------------------------------------------------------------------------------------------------


def test_context_and_perturbation_mean():
    train = inputs([(0,), (0,), (0,), (1,), (0, 1)], [0, 0, 1, 1, 2], e=3)
    query = inputs([(0,), (0,), (1, 0), (2,), (2,)], [0, 9, 0, 1, 9], e=3)
    context = ContextMean().weights(train, query)
    third = [1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 3]
    np.testing.assert_allclose(context, [[0.5, 0.5, 0, 0, 0], third, [0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0], third])
    same = [0.25, 0.25, 0.5, 0, 0]
    mean = PerturbationMean().weights(train, query).toarray()
    np.testing.assert_allclose(mean, [same, same, [0, 0, 0, 0, 1], [0, 0, 0.5, 0.5, 0], third])
    assert NoChange().weights(train, query).nnz == 0


def test_additive_sums_singles():
    train = inputs([(0,), (0,), (1,), (0, 1), (0,)], [0, 0, 0, 0, 1], e=4)
    query = inputs([(0, 1), (0, 1), (0, 3), (2, 3), (0,), (0, 1)], [0, 1, 0, 1, 0, 5], e=4)
    W = Additive().weights(train, query).toarray()
    third = np.array([1, 1, 1, 0, 0]) / 3
    np.testing.assert_allclose(W[0], [0.5, 0.5, 1, 0, 0])  # both members alone in context 0
    np.testing.assert_allclose(W[1], [0, 0, 1, 0, 1])  # member 1 comes from context 0
    np.testing.assert_allclose(W[2], np.array([0.5, 0.5, 0, 0, 0]) + third)  # member 3 unseen: mean single of context 0
    np.testing.assert_allclose(W[3], [0, 0, 0, 0, 2])
    np.testing.assert_allclose(W[4], PerturbationMean().weights(train, query.rows(np.array([4]))).toarray()[0])
    np.testing.assert_allclose(W[5], [0.25, 0.25, 1, 0, 0.5])  # unseen context: contexts equal


def test_additive_without_singles_is_the_context_mean():
    train = inputs([(0, 1), (1, 2), (0, 2)], [0, 0, 1], e=4)
    query = inputs([(0, 3), (0, 1, 2)], [0, 1], e=4)
    np.testing.assert_allclose(Additive().weights(train, query).toarray(), ContextMean().weights(train, query))


def test_nearest_context_follows_the_vectors():
    vectors = np.array([[0, 0], [1, 100], [4, 0], [0.9, 0]], np.float32)
    train = inputs([(0,), (0,), (0,), (1,), (1,)], [0, 1, 2, 1, 2], e=3, vectors=vectors)
    query = inputs([(0,), (1,), (2,), (0,), (2,)], [3, 3, 3, 2, 1], e=3, vectors=vectors)
    W = NearestContext().weights(train, query).toarray()
    known = vectors[:3].astype(float)
    scaled = (vectors - known.mean(0)) / known.std(0)
    order = np.argsort(((scaled[3] - scaled[:3]) ** 2).sum(1))
    assert order.tolist() == [0, 2, 1]  # context 3 is nearest to 0, which lacks entity 1, then to 2
    np.testing.assert_allclose(W[0], [1, 0, 0, 0, 0])
    np.testing.assert_allclose(W[1], [0, 0, 0, 0, 1])
    np.testing.assert_allclose(W[2], [1, 0, 0, 0, 0])  # unseen set: mean of context 0
    np.testing.assert_allclose(W[3], [0, 0, 1, 0, 0])  # own context is at distance 0
    np.testing.assert_allclose(W[4], [0, 0.5, 0, 0.5, 0])
    tied = inputs([(0,), (0,)], [1, 0], e=3, vectors=np.array([[1.0], [-1.0], [0.0]], np.float32))
    asked = inputs([(0,)], [2], e=3, vectors=tied.context_vector)
    np.testing.assert_allclose(NearestContext().weights(tied, asked).toarray(), [[0, 1]])  # smaller context code


def test_nearest_context_names_missing_vectors():
    train, _ = screen()
    bare = inputs(train.units, train.context, None, train.entities.shape[1])
    with pytest.raises(ValueError, match=r"expected a context_vector for contexts .* found None"):
        NearestContext().weights(bare, bare)
    vectors = train.context_vector.copy()
    vectors[1] = np.nan
    broken = inputs(train.units, train.context, None, train.entities.shape[1], vectors)
    with pytest.raises(ValueError, match=r"found other values for contexts \[1\]"):
        NearestContext().weights(broken, broken)


# ---- nearest neighbours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "theirs"), [("l2", "euclidean"), ("cosine", "cosine")])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize(("n", "d", "k"), [(30, 4, 7), (300, 24, 10), (300, 24, 300), (60, 3, 500)])
def test_knn_equals_sklearn(metric, theirs, weights, n, d, k):
    from sklearn.neighbors import KNeighborsRegressor

    rng = np.random.default_rng(n + k)
    X, Q, Y = (rng.normal(size=s).astype(np.float32) for s in ((n, d), (40, d), (n, 9)))
    train, query = (inputs([(0,)] * len(part), np.zeros(len(part)), part) for part in (X, Q))
    ours = KNN(k, metric, weights).fit(train, Y).predict(query)
    oracle = KNeighborsRegressor(min(k, n), weights=weights, algorithm="brute", metric=theirs)
    np.testing.assert_allclose(ours, oracle.fit(X.astype(float), Y).predict(Q.astype(float)), atol=1e-6)


def brute(X, Q, k, metric):
    """The stated rule, by plain loops: (float64 distance, row number)."""
    X, Q = X.astype(np.float64), Q.astype(np.float64)
    table = np.empty((len(Q), len(X)))
    for i, q in enumerate(Q):
        for j, x in enumerate(X):
            product = float(np.dot(q, x))
            norms = np.linalg.norm(q) * np.linalg.norm(x)
            cosine = 1.0 - product / norms if norms else 1.0
            table[i, j] = {"l2": np.sqrt(((x - q) ** 2).sum()), "inner_product": -product, "cosine": cosine}[metric]
    return np.lexsort((np.broadcast_to(np.arange(len(X)), table.shape), table), axis=1)[:, :k], table


@pytest.fixture(params=["faiss", "torch"])
def library(request, monkeypatch):
    """Each search library in turn; the compiled search, which would go before them, is out of the way."""
    monkeypatch.setattr(_search, "has_numba", lambda: False)
    if request.param == "faiss":
        pytest.importorskip("faiss")
        assert backend() in ("faiss-cpu", "faiss-gpu")
    else:
        monkeypatch.setattr(_search, "_library", lambda: ("torch", torch))
    return request.param


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), metric=st.sampled_from(["l2", "inner_product"]), k=st.integers(1, 12))
def test_ties_go_to_the_smaller_row(data, metric, k):
    n = data.draw(st.integers(1, 60))
    grid = np.random.default_rng(data.draw(st.integers(0, 2**20))).integers(-2, 3, size=(n + 5, 2))
    X, Q = grid[:n].astype(np.float32), grid[n:].astype(np.float32)
    for fake in (None, ("torch", torch)):
        with pytest.MonkeyPatch.context() as patch:
            if fake:
                patch.setattr(_search, "_library", lambda fake=fake: fake)
            index, distance = _search.nearest(X, Q, k, metric)
        want, table = brute(X, Q, min(k, n), metric)
        np.testing.assert_array_equal(index, want)
        np.testing.assert_allclose(distance, np.take_along_axis(table, want, 1), atol=1e-12)


@pytest.mark.parametrize("metric", ["l2", "cosine", "inner_product"])
def test_tie_group_larger_than_the_slack(library, metric):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(4000, 8)).astype(np.float32)
    X[rng.permutation(4000)[:3000]] = X[7]  # far more equal rows than proposals, scattered
    Q = np.concatenate([X[7:8] + 0.01, rng.normal(size=(4, 8)).astype(np.float32), X[7:8]])
    index, distance = _search.nearest(X, Q, 50, metric)
    want, table = brute(X, Q, 50, metric)
    same = np.take_along_axis(table, index, 1)
    np.testing.assert_allclose(same, np.take_along_axis(table, want, 1), atol=1e-12)
    np.testing.assert_allclose(distance, same, atol=1e-12)
    tied = np.flatnonzero(np.equal(X, X[7]).all(axis=1))
    np.testing.assert_array_equal(index[5], tied[:50] if metric != "inner_product" else want[5])
    assert (np.diff(index, axis=1)[np.diff(distance, axis=1) == 0] > 0).all()


@pytest.mark.parametrize("metric", ["l2", "cosine", "inner_product"])
@pytest.mark.parametrize("shape", [(5000, 32, 100), (900, 5, 1), (200, 200, 150)])
def test_libraries_agree_to_the_bit(metric, shape, monkeypatch):
    pytest.importorskip("faiss")
    n, d, k = shape
    rng = np.random.default_rng(n)
    X, Q = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(30, d)).astype(np.float32)
    X[::5] = X[0]
    X[3], Q[2] = 0.0, 0.0
    faiss_index, faiss_distance = _search.nearest(X, Q, k, metric)
    alone = _search.nearest(X, Q[11:12], k, metric)
    np.testing.assert_array_equal(alone[0][0], faiss_index[11])
    np.testing.assert_array_equal(alone[1][0], faiss_distance[11])
    monkeypatch.setattr(_search, "_library", lambda: ("torch", torch))
    torch_index, torch_distance = _search.nearest(X, Q, k, metric)
    np.testing.assert_array_equal(faiss_index, torch_index)
    np.testing.assert_array_equal(faiss_distance, torch_distance)


@pytest.mark.parametrize("shift", [1e4, 1e-20, 1e18])
def test_search_survives_hard_scales(library, shift):
    rng = np.random.default_rng(1)
    X, Q = rng.normal(size=(400, 6)), rng.normal(size=(9, 6))
    X, Q = (X + shift, Q + shift) if shift == 1e4 else (X * shift, Q * shift)
    X, Q = X.astype(np.float32), Q.astype(np.float32)
    for metric in ("l2", "inner_product"):
        np.testing.assert_array_equal(_search.nearest(X, Q, 5, metric)[0], brute(X, Q, 5, metric)[0])


def test_without_faiss_torch_searches_with_a_notice(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    _search._library.cache_clear()
    try:
        with pytest.warns(UserWarning, match="faiss is not installed: .* pip install faiss-cpu"):
            assert backend() in ("torch", "torch-cuda")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert backend().startswith("torch")
    finally:
        _search._library.cache_clear()


def test_knn_weight_rules():
    X = np.array([[0.0], [1.0], [3.0], [0.0], [9.0]])
    train, query = inputs([(0,)] * 5, np.zeros(5), X), inputs([(0,)] * 2, np.zeros(2), np.array([[0.0], [-1.0]]))
    W = KNN(4, weights="distance").weights(train, query).toarray()
    inverse = 1 / np.array([1.0, 2.0, 4.0, 1.0])
    np.testing.assert_allclose(W, [[0.5, 0, 0, 0.5, 0], [*(inverse / inverse.sum()), 0]])
    soft = KNN(4, weights="softmax", temperature=0.5).weights(train, query).toarray()
    raw = np.exp(-np.array([0.0, 1.0, 3.0, 0.0]) / (0.5 * 0.5))  # excess over the nearest; its median is 0.5
    np.testing.assert_allclose(soft, np.tile([*(raw / raw.sum()), 0], (2, 1)))
    assert KNN(1, weights="softmax").weights(train, query).nnz == 2
    flat = inputs([(0,)] * 5, np.zeros(5), np.array([[1.0], [1.0], [1.0], [1.0], [2.0]]))
    np.testing.assert_allclose(
        KNN(5, weights="softmax").weights(flat, query).toarray(), np.tile([0.25] * 4 + [0.0], (2, 1))
    )
    index, distance = KNN().neighbours(train, query, k_max=99)
    assert index.tolist() == [[0, 3, 1, 2, 4]] * 2
    np.testing.assert_allclose(distance[1], [1, 1, 2, 4, 10])


# ---- linear and kernel models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(50, 8), (20, 60), (30, 30)])
@pytest.mark.parametrize("alpha", [0.01, 10.0, 1e5])
def test_ridge_equals_sklearn(n, d, alpha):
    from sklearn import linear_model

    rng = np.random.default_rng(n)
    X, Q, Y = (rng.normal(size=s).astype(np.float32) + 0.5 for s in ((n, d), (11, d), (n, 7)))
    ours = Ridge(alpha).fit(inputs([(0,)] * n, np.zeros(n), X), Y).predict(inputs([(0,)] * 11, np.zeros(11), Q))
    oracle = linear_model.Ridge(alpha, solver="svd").fit(X.astype(float), Y.astype(float))
    np.testing.assert_allclose(ours, oracle.predict(Q.astype(float)), atol=1e-5)


def test_ridge_with_degenerate_features():
    X = np.ones((6, 3))
    X[:, 2] = [0, 1, 0, 1, 0, 1]
    train = inputs([(0,)] * 6, np.zeros(6), np.concatenate([X, X], axis=1))
    W = Ridge(1e-9).weights(train, train)
    np.testing.assert_allclose(W, (X[:, 2:] == X[:, 2]) / 3, atol=1e-8)
    flat = inputs([(0,)] * 6, np.zeros(6), np.ones((6, 2)))
    np.testing.assert_allclose(Ridge(1e-9).weights(flat, flat), np.full((6, 6), 1 / 6))


@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "cosine", "linear"])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.1, 1.0), (3.0, 0.25)])
def test_kernel_ridge_equals_sklearn(kernel, alpha, gamma):
    from scipy.spatial.distance import pdist
    from sklearn import kernel_ridge

    rng = np.random.default_rng(0)
    X, Q, Y = (rng.normal(size=s).astype(np.float32) for s in ((40, 5), (11, 5), (40, 7)))
    gaps = pdist(X.astype(float), "cityblock" if kernel == "laplacian" else "sqeuclidean")
    oracle = kernel_ridge.KernelRidge(alpha=alpha, kernel=kernel, gamma=gamma / np.median(gaps))
    mean = Y.astype(float).mean(axis=0)
    want = oracle.fit(X.astype(float), Y - mean).predict(Q.astype(float)) + mean
    train, query = (inputs([(0,)] * len(part), np.zeros(len(part)), part) for part in (X, Q))
    np.testing.assert_allclose(KernelRidge(alpha, kernel, gamma).fit(train, Y).predict(query), want, atol=1e-5)


def test_kernel_ridge_names_a_hopeless_alpha():
    train = inputs([(0,)] * 30, np.zeros(30), np.ones((30, 2)) * 1e6)
    with pytest.raises(ValueError, match=r"KernelRidge: alpha 1e-12 is too small for the linear kernel of 30 rows"):
        KernelRidge(1e-12, "linear").weights(train, train)


@pytest.mark.parametrize(("n", "d"), [(60, 10), (25, 40)])
@pytest.mark.parametrize("alpha", [0.003, 0.1, 1.0])
def test_lasso_equals_sklearn(n, d, alpha):
    from sklearn import linear_model

    rng = np.random.default_rng(d)
    X = rng.normal(size=(n, d)) @ (np.eye(d) + 0.3 * rng.normal(size=(d, d)) / np.sqrt(d))
    X, Q = X.astype(np.float32), rng.normal(size=(9, d)).astype(np.float32)
    Y = (X[:, :3] @ rng.normal(size=(3, 6)) + 0.2 * rng.normal(size=(n, 6)) + 1.0).astype(np.float32)
    ours = Lasso(alpha).fit(inputs([(0,)] * n, np.zeros(n), X), Y)
    oracle = linear_model.Lasso(alpha, tol=1e-12, max_iter=200_000).fit(X.astype(float), Y.astype(float))
    np.testing.assert_allclose(ours.coef_.T, oracle.coef_, atol=1e-5 if n > d else 1e-3)
    query = inputs([(0,)] * 9, np.zeros(9), Q)
    np.testing.assert_allclose(ours.predict(query), oracle.predict(Q.astype(float)), atol=1e-3)


def test_lasso_on_uncorrelated_features_is_the_soft_threshold():
    rng = np.random.default_rng(0)
    U, _ = np.linalg.qr(rng.normal(size=(50, 6)) - 0.0)
    U, _ = np.linalg.qr(U - U.mean(axis=0))
    X, Y = (U * np.sqrt(50) * np.arange(1, 7)).astype(np.float32), rng.normal(size=(50, 300)).astype(np.float32)
    size = (X.astype(float) ** 2).mean(axis=0)[:, None]
    pull = X.T.astype(float) @ (Y - Y.mean(axis=0, dtype=float)) / 50
    want = np.sign(pull) * np.maximum(np.abs(pull) - 0.1, 0) / size
    ours = Lasso(0.1).fit(inputs([(0,)] * 50, np.zeros(50), X), Y)
    np.testing.assert_allclose(ours.coef_, want, atol=1e-5)
    assert (ours.coef_ == 0).mean() > 0.1


def test_lasso_says_when_it_has_not_converged(monkeypatch):
    monkeypatch.setattr(importlib.import_module("embbench.heads.lasso"), "ROUNDS", 1)
    train, Y = screen()
    with pytest.warns(UserWarning, match="1 rounds left a violation of .* at alpha 0.001"):
        Lasso(0.001).fit(train, Y)


# ---- trained heads -----------------------------------------------------------------------------------------------


def test_sklearn_regressor_is_the_named_estimator():
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.svm import SVR

    train, Y = screen(60)
    query, _ = screen(20, seed=5)
    X, Q = train.X.astype(float), query.X.astype(float)
    forest = RandomForestRegressor(n_estimators=7, random_state=3).fit(X, Y.astype(float))
    ours = SklearnRegressor(seed=3, params={"n_estimators": 7}).fit(train, Y).predict(query)
    np.testing.assert_allclose(ours, forest.predict(Q), atol=1e-6)
    svr = np.stack([SVR(C=2.0).fit(X, y).predict(Q) for y in Y.T.astype(float)], axis=1)
    np.testing.assert_allclose(SklearnRegressor("sklearn.svm.SVR", C=2.0).fit(train, Y).predict(query), svr, atol=1e-5)
    pls = PLSRegression(n_components=3, scale=False).fit(X, Y.astype(float)).predict(Q)
    np.testing.assert_allclose(PartialLeastSquares(3).fit(train, Y).predict(query), pls, atol=1e-5)


def test_full_rank_targets_change_no_neighbour_mean_and_sizes_are_cut():
    train, Y = screen(30)
    spec = "sklearn.neighbors:KNeighborsRegressor"
    plain = SklearnRegressor(spec, n_neighbors=4).fit(train, Y).predict(train)
    np.testing.assert_allclose(
        SklearnRegressor(spec, rank=99, n_neighbors=4).fit(train, Y).predict(train), plain, atol=1e-5
    )
    cut = SklearnRegressor(spec, n_neighbors=99).fit(train, Y).predict(train)
    np.testing.assert_allclose(cut, np.broadcast_to(Y.mean(axis=0), Y.shape), atol=1e-5)
    flat = SklearnRegressor(rank=3).fit(train, np.ones_like(Y)).predict(train)
    np.testing.assert_array_equal(flat, np.ones_like(Y))
    assert PartialLeastSquares(32).fit(train, Y).fitted_.n_components == 6


def mlp_screen(n=160, d=16, g=60, contexts=2):
    """Non-linear effects of a gene, scaled per context, plus noise; n genes in every context."""
    rng = np.random.default_rng(0)
    E = rng.normal(size=(n, d))
    effect = np.tanh(E @ rng.normal(size=(d, 12)) / 2) @ rng.normal(size=(12, g)) / 3
    gene, context = np.tile(np.arange(n), contexts), np.repeat(np.arange(contexts), n)
    Y = effect[gene] * (1.0 + 0.5 * context[:, None]) + rng.normal(size=(contexts, g))[context]
    Y += 0.3 * rng.normal(size=Y.shape)
    return inputs([(int(i),) for i in gene], context, E[gene]), Y.astype(np.float32)


def test_mlp_beats_the_context_mean_on_unseen_genes():
    data, Y = mlp_screen()
    test = np.array([u[0] < 40 for u in data.units])
    errors = []
    for head in (ContextMean(), MLP(epochs=60, device="cpu")):
        pred = head.fit(data.rows(~test), Y[~test]).predict(data.rows(test))
        errors.append(float(np.square(pred - Y[test]).mean()))
    assert errors[1] < 0.6 * errors[0]
    assert head.epochs_ > 0


def test_mlp_learns_nothing_from_noise():
    rng = np.random.default_rng(2)
    data, Y = mlp_screen(80, contexts=1)
    noise = rng.normal(size=Y.shape).astype(np.float32)
    pred = MLP(**{**FAST, "epochs": 30}).fit(data, noise).predict(data)
    base = ContextMean().fit(data, noise).predict(data)
    assert np.square(pred - base).mean() < 0.1 * np.square(noise - base).mean()


def test_mlp_takes_unseen_contexts_vectors_and_doses():
    data, Y = mlp_screen(40, contexts=2)
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    dose = np.linspace(0, 3, len(data)).astype(np.float32)
    full = inputs(data.units, data.context, data.X, vectors=vectors, dose=dose)
    head = MLP(**FAST).fit(full, Y)
    new = inputs([(0,), (1,)], [2, 2], data.X[:2], e=40, vectors=vectors, dose=dose[:2])
    pred = head.predict(new)
    assert np.isfinite(pred).all()
    broken = inputs([(0,)], [2], data.X[:1], e=40, vectors=vectors * np.array([[1], [1], [np.nan]]), dose=dose[:1])
    with pytest.raises(ValueError, match=r"must be finite, found other values in contexts \[2\]"):
        head.predict(broken)
    blind = MLP(**{**FAST, "epochs": 1}).fit(data, np.zeros_like(Y)).predict(data)
    np.testing.assert_array_equal(blind, np.zeros_like(Y))
