"""knn under the grid's protocol against scikit-learn: features, per-k predictions, selection; and the rule for ties."""

import functools

import numpy as np
import pytest
from _grid import row_sums, run, stored, write_registry, write_vectors
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embbench.cache.keys import stream
from embbench.grid.names import registry_of
from embbench.grid.screens import screen, split_of
from embbench.grid.vectors import compute_embedding
from embbench.numerics.folds import inner_folds

SPLIT = "unseen_perturbation:3"
PATH = "expression/lincs_l1000_overexpression_consensus_dysreg.parquet"
KEYS = {"perturbation_key": "pert_symbol", "gene_key": "symbol", "value_key": "z_score"}
UNIFORM = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 80, 100)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    simulator = "embbench.datasets.simulator:Simulator"
    params = {"n_perturbations": 150, "n_genes": 120, "combos": 10, "seed": 4, "controls_per_context": 200}
    return write_registry(tmp_path_factory.mktemp("sim"), datasets={"screen": {"impl": simulator, "params": params}})


@pytest.fixture(scope="module")
def l1000(shared_data, tmp_path_factory):
    table = "embbench.datasets.table:ConditionTable"
    params = {"path": str(shared_data / PATH), **KEYS, "unit": "zscore", "missing": "zero", "min_entries": 20}
    return write_registry(tmp_path_factory.mktemp("l1000"), datasets={"screen": {"impl": table, "params": params}})


def softmax(distance, temperature):
    excess = distance - distance.min(axis=1, keepdims=True)
    return np.exp(-excess / (temperature * np.median(excess, axis=1, keepdims=True)))


def features(X):
    """Standardise and PCA as scikit-learn does it, fitted on training rows ``X`` (n, d) float64."""
    axes = PCA(n_components=min(100, X.shape[1], len(X) - 1), svd_solver="full")
    return make_pipeline(StandardScaler(), axes).fit(X)


def neighbours(n, k, temperature=None):
    weights = "uniform" if temperature is None else functools.partial(softmax, temperature=temperature)
    return KNeighborsRegressor(n_neighbors=min(k, n), weights=weights, algorithm="brute")


def predictions(X, Y, fit, rows, candidates):
    """Predictions of ``rows`` by every candidate (k,) or (k, temperature)."""
    ready = features(X[fit])
    train, query = ready.transform(X[fit]), ready.transform(X[rows])
    return [neighbours(len(fit), *c).fit(train, Y[fit]).predict(query) for c in candidates]


def chosen(X, Y, units, seed, candidates):
    """The candidate with the smallest mean L2 over inner folds, the first among equals."""
    left, sizes, _ = np.linalg.svd(Y, full_matrices=False)
    Y = left * sizes  # a rotation of the genes: the same distances in fewer columns
    errors = np.zeros((len(candidates), len(X)))
    for fit, held in inner_folds(units, 5, seed):
        for i, predicted in enumerate(predictions(X, Y, fit, held, candidates)):
            errors[i, held] = np.linalg.norm(predicted - Y[held], axis=1)
    return candidates[int(np.argmin(errors.mean(axis=1)))]


class Parts:
    """The rows that one fit of a run sees: per context, covered ones."""

    def __init__(self, made, data, embedding, paths):
        table = compute_embedding(registry_of(paths), embedding, data, made.train)
        X, has = row_sums(data, table.names.tolist(), table.matrix.astype(np.float64))
        self.X, self.Y = X.astype(np.float32).astype(np.float64), data.effects.astype(np.float64)
        self.made, self.data, self.has, self.paths = made, data, has, paths

    def __iter__(self):
        for context in self.data.contexts:
            here = (self.data.context == context) & self.has
            at = np.flatnonzero(here[self.made.rows])
            yield context, self.made.train[here[self.made.train]], self.made.rows[at], at


def grid_runs(tmp_path, paths, embedding, heads, **axes):
    axes = {"dataset": "screen", "split": SPLIT, "emb": embedding, "head": heads, "features": "pca:100", **axes}
    results, planned = run(tmp_path / "out", paths, **axes)
    for p in planned:
        made, data = stored(results, p, paths)
        yield p.run, made, Parts(made, data, embedding, paths), results.facts(p.key)["chosen"]


def assert_tie_free(X, fit, rows):
    ready = features(X[fit])
    distance = cdist(ready.transform(X[rows]), ready.transform(X[fit]))
    assert np.diff(np.sort(distance, axis=1), axis=1).min() > 1e-9, "vacuous: the features have ties"


def check_every_k(paths, embedding, tmp_path):
    heads = {f"knn:k={k}:weights=uniform:temperature=1.0": i for i, k in enumerate(UNIFORM)}
    count, made_before = 0, {}
    for planned, made, parts, choices in grid_runs(tmp_path, paths, embedding, list(heads)):
        assert all(c["trials"] == 0 for c in choices.values())
        for context, fit, rows, at in parts:
            place = (planned.fold, context)
            if place not in made_before:
                assert_tie_free(parts.X, fit, rows)
                made_before[place] = predictions(parts.X, parts.Y, fit, rows, [(k,) for k in UNIFORM])
            assert made.covered[at].all()
            np.testing.assert_allclose(made.values[at], made_before[place][heads[planned.head]], atol=1e-5)
            count += len(at)
    assert count >= len(UNIFORM) * 150


def check_selection(paths, embedding, tmp_path, head, candidates, **axes):
    for planned, made, parts, choices in grid_runs(tmp_path, paths, embedding, head, **axes):
        units = split_of("screen", SPLIT, "all", 0, paths).units
        seed = stream("screen", SPLIT, planned.fold, 0, "inner")
        for context, fit, rows, at in parts:
            best = chosen(parts.X[fit], parts.Y[fit], [units[i] for i in fit], seed, candidates)
            params = choices[context]["params"]
            assert (params["k"], *([params["temperature"]] if "temperature" in params else [])) == best
            want = predictions(parts.X, parts.Y, fit, rows, [best])[0]
            np.testing.assert_allclose(made.values[at], want, atol=1e-5)


ALL = [(k,) for k in UNIFORM] + [(k, t) for k in (20, 50, 100) for t in (0.25, 0.5, 1.0)]


def test_every_k_on_a_simulated_screen(simulated, tmp_path):
    check_every_k(simulated, "random:128", tmp_path)


def test_selection_on_a_simulated_screen(simulated, tmp_path):
    check_selection(simulated, "ppi:64", tmp_path, "knn", ALL)


@pytest.mark.shared
@pytest.mark.parametrize("embedding", ["random:128", "ppi:64"])
def test_every_k_on_l1000(l1000, embedding, tmp_path):
    data = screen("screen", "all", l1000)
    assert len(data) > 200
    check_every_k(l1000, embedding, tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize("embedding", ["random:128", "ppi:64"])
def test_selection_on_l1000(l1000, embedding, tmp_path):
    check_selection(l1000, embedding, tmp_path, "knn", ALL)


def test_ties_go_to_the_smaller_row_number(simulated, tmp_path):
    data = screen("screen", "all", simulated)
    names = list(data.entity_names)
    matrix = np.repeat(np.random.default_rng(0).normal(size=(len(names) // 5 + 1, 3)), 5, axis=0)[: len(names)]
    spec = write_vectors(tmp_path / "ties.csv", names, matrix.astype(np.float32).astype(np.float64)) + ":to=null"
    axes = {"dataset": "screen", "split": SPLIT, "emb": spec, "scope": "per_context"}
    results, planned = run(tmp_path / "out", simulated, head="knn:k=3:weights=uniform", **axes)
    split = 0
    for p in planned:
        made, _ = stored(results, p, simulated)
        X, _ = row_sums(data, names, matrix.astype(np.float32).astype(np.float64))
        X = X.astype(np.float32).astype(np.float64)
        for row, value in zip(made.rows, made.values, strict=True):
            fit = made.train[data.context[made.train] == data.context[row]]
            distance = np.sqrt(np.square(X[fit] - X[row]).sum(axis=1))
            near = np.lexsort((fit, distance))[:3]
            split += (distance == distance[near[-1]]).sum() > (distance[near] == distance[near[-1]]).sum()
            np.testing.assert_allclose(value, data.effects[fit[near]].mean(axis=0, dtype=np.float64), atol=1e-6)
    assert split > 20, "vacuous: no tie was cut"
