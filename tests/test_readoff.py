"""What is read off inner products equals what predictions over genes give."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from embbench.cache.screens import with_digest
from embbench.core import PerturbationDataset
from embbench.grid import gram, readoff
from embbench.grid.prediction import product
from embbench.grid.score import truth_of
from embbench.numerics import smoothers
from embbench.numerics.smoothers import GramBlock, Neighbours, Spectral, forms_of, matrix_of
from embbench.registry import default

RNG = np.random.default_rng(0)
NAMES = [f"{s}_{g}" for s in readoff.SCORES for g in ("all", "notarget")]


def screen(*, halves=True, contexts=2, n=24, g=40):
    """Perturbed genes are measured, some of them not; one row is zero and one constant."""
    Y = RNG.normal(size=(n, g)).astype(np.float32)
    Y[0], Y[1] = 0.0, 2.0
    truth = (Y + 0.3 * RNG.normal(size=Y.shape)).astype(np.float32) if halves else None
    names = [f"G{i}" for i in range(n // contexts)] * contexts
    genes = np.array([f"G{i}" for i in range(2, g + 2)])
    context = np.repeat([f"C{i}" for i in range(contexts)], n // contexts)
    return with_digest(PerturbationDataset("s", Y, "delta", genes, tuple((x,) for x in names), context, truth=truth))


def some_weights(m, n, density):
    W = RNG.random((m, n)) * (RNG.random((m, n)) < density)
    W[0] = 0.0  # a row without any weight predicts no change
    return sparse.csr_matrix(W)


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("halves", [True, False])
def test_scores_equal_those_of_predictions(monkeypatch, halves, density, compiles):
    monkeypatch.setattr(smoothers, "has_numba", lambda: compiles)
    monkeypatch.setattr(smoothers, "DENSE", 0.5)
    data = screen(halves=halves)
    rows, train = np.array([0, 1, 5, 12, 20]), np.array([2, 3, 4, 13, 14, 15, 23])
    W = some_weights(len(rows), len(train), density)
    found = readoff.read_scores(NAMES, W, data, rows, train)
    registry, truth = default(), truth_of(data, rows, train)
    for name in NAMES:
        wanted = registry.parse("metrics", name).make()(product(W, data.effects, train), truth)
        np.testing.assert_allclose(found[name], wanted, rtol=2e-6, atol=2e-6, err_msg=name)


def test_what_is_readable_depends_on_the_screen_alone():
    data = screen()
    assert readoff.readable(["l2_all", "mae_all", "pearson_top20", "cosine_notarget"], data) == [
        "l2_all",
        "cosine_notarget",
    ]
    assert readoff.readable(["l2_all"], replace(data, observed=np.ones(data.effects.shape, dtype=bool))) == []


@pytest.mark.parametrize("compiles", [True, False])
def test_forms_of_a_path_are_those_of_its_predictions(monkeypatch, compiles):
    monkeypatch.setattr(smoothers, "has_numba", lambda: compiles)
    Y = RNG.normal(size=(30, 50))
    held, fit = np.array([1, 7, 8]), np.array([0, 2, 3, 4, 5, 9, 11, 20, 29])
    index = np.argsort(RNG.random((3, 9)), axis=1)
    near = [Neighbours(index, RNG.random((3, k)), 9) for k in (1, 4, 9)]
    left, right = RNG.normal(size=(3, 2)), RNG.normal(size=(2, 9))
    spectral = [Spectral(left, RNG.random(2), right, 1 / 9) for _ in range(3)]
    path = [*near, RNG.random((3, 9)), *spectral, sparse.csr_matrix(RNG.random((3, 9)))]
    forms = forms_of(iter(path), GramBlock(Y @ Y.T, Y.sum(axis=1), fit, held, 50))
    for i, weights in enumerate(path):
        p, t = matrix_of(weights) @ Y[fit], Y[held]
        np.testing.assert_allclose(forms.squared_error()[i], ((p - t) ** 2).sum(axis=1), rtol=1e-10)
        correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(p, t, strict=True)]
        np.testing.assert_allclose(forms.pearson()[i], correlation, atol=1e-10)
        cosine = (p * t).sum(axis=1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)
        np.testing.assert_allclose(forms.cosine()[i], cosine, atol=1e-10)


def test_gram_blocks_of_contexts_are_products_and_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path))
    monkeypatch.setattr(gram, "KEPT", 0)
    data = screen()
    rows, others = np.array([23, 0, 5, 14]), np.array([13, 2])
    Y, T = data.effects.astype(np.float64), data.truth.astype(np.float64)
    shared = gram.Gram(data)
    np.testing.assert_allclose(shared.among(rows), Y[rows] @ Y[rows].T, rtol=1e-12)
    np.testing.assert_allclose(shared.against_truth(rows, others), T[rows] @ Y[others].T, rtol=1e-12)
    assert len(list((tmp_path / "cache" / "gram").glob("*.h5"))) == 7  # three pairs of effects, four with truths
    again = gram.Gram(data)
    monkeypatch.setattr(gram.Gram, "_compute", None)  # everything is read
    np.testing.assert_array_equal(again.among(rows), shared.among(rows))
