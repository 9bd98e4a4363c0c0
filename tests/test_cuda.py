"""The same numbers on a GPU; every test skips where torch sees none."""

import numpy as np
import pytest
from _tiny_models import FAMILIES, MODELS, good
from scipy import sparse
from scipy.spatial.distance import cdist

from embbench.checks import toy_screen
from embbench.core import Inputs
from embbench.heads.knn import KNN, backend
from embbench.heads.mlp import MLP

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]


def rows(n: int, seed: int) -> Inputs:
    X = np.random.default_rng(seed).normal(size=(n, 32)).astype(np.float32)
    units = tuple((i,) for i in range(n))
    return Inputs(X, np.zeros(n, dtype=np.int64), sparse.eye(n, format="csr", dtype=np.float32), units)


def test_the_nearest_rows_are_those_of_scipy():
    assert backend() in ("faiss-gpu", "torch-cuda")
    train, query = rows(500, 0), rows(40, 1)
    index, distance = KNN().neighbours(train, query, 10)
    want = np.sort(cdist(query.X.astype(np.float64), train.X.astype(np.float64)), axis=1)[:, :10]
    np.testing.assert_allclose(distance, want, rtol=1e-6)
    assert index.shape == (40, 10)


def test_the_mlp_trains_there_and_agrees_with_the_cpu():
    train, query = rows(120, 0), rows(10, 1)
    Y = (train.X @ np.random.default_rng(2).normal(size=(32, 20))).astype(np.float32)
    made = {
        d: MLP(width=32, depth=1, epochs=20, dropout=0.0, device=d).fit(train, Y).predict(query)
        for d in ("cpu", "cuda")
    }
    np.testing.assert_allclose(made["cuda"], made["cpu"], atol=0.05 * np.abs(made["cpu"]).max())


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.2)])
def test_cell_models_agree_with_the_cpu(family, precision, tolerance, tmp_path):
    given = good(tmp_path, family) | {"level": "gene"}
    screen = toy_screen()
    train = screen.training(np.arange(len(screen)))
    ways = {"cpu": {"device": "cpu"}, "cuda": {"device": "cuda", "precision": precision}}
    made = {name: FAMILIES[family].make(**given | how).compute(None, train) for name, how in ways.items()}
    assert made["cuda"].names.tolist() == made["cpu"].names.tolist()
    assert np.array_equal(made["cuda"].count, made["cpu"].count)
    largest = max(1.0, np.abs(made["cpu"].matrix).max())
    assert np.abs(made["cuda"].matrix - made["cpu"].matrix).max() < tolerance * largest
