"""No prediction reads its own truth: with noise for a fold's test responses its predictions stay bit-identical."""

from functools import cache

import numpy as np
import pytest
from components import leak

from embbench import registry
from embbench.cache.weights import is_remote
from embbench.core import Run
from embbench.grid import screens, vectors
from embbench.grid.fit import job_of, predict
from embbench.grid.names import registry_of
from embbench.grid.prediction import product

STATIC, FITTED = "ppi:dim=4", "effect_pca:dim=4"
SMALL = {
    "mlp": "mlp:width=16:depth=1:epochs=5:patience=2:rank=4:device=cpu",
    "random_forest": "random_forest:rank=4",
    "sklearn": "sklearn:sklearn.neighbors.KNeighborsRegressor",
    "lasso": "lasso:alpha=0.1",
    "pls": "pls:n_components=2",
}


def spec_of(entry):
    """An embedding entry as a small spec, None where it needs a file of the user's, or weights that are fetched."""
    if (entry.needs_file and not entry.test) or entry.missing():
        return None
    if entry.argument == "of":
        return f"{entry.name}:{STATIC}"
    if hasattr(entry.load(), "fetched") and any(is_remote(where) for where, _ in entry.make(**entry.test).fetched()):
        return None
    known = {k: v for k, v in entry.test.items() if not isinstance(v, list | dict)}
    return ":".join([entry.name, *(f"{k}={v}" for k, v in known.items())])


EMBEDDINGS = [e for e in registry.default().entries("embeddings") if not e.name.startswith("oracle_") and spec_of(e)]
HEADS = registry.default().entries("heads")


@pytest.fixture
def screens_of(tmp_path, fresh_home):
    """Registry paths of the plain screen, and of the one whose second fold is noise; an empty cache for each."""
    made = {}
    for label, noise in (("plain", ""), ("noisy", "fold1")):
        path = tmp_path / f"{label}.yaml"
        path.write_text(
            f"datasets:\n  leak: {{impl: 'components.leak:LeakScreen', params: {{noise: '{noise}'}}}}\n"
            "embeddings:\n  fitted_on_everything: {impl: 'components.leak:FittedOnEverything', argument: dim}\n"
            "heads:\n  peeking: {impl: 'components.leak:Peeking'}\n"
        )
        made[label] = (str(path),)
    return made


NOW = {"noise": ""}  # which of the two screens is being run
build = leak.LeakScreen.load


@cache
def loaded(noise):
    return build(leak.LeakScreen(noise))


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(leak.LeakScreen, "load", lambda self: loaded(self.noise))
    screens.forget()


def run_folds(run, paths):
    """Predictions of the first two folds, in order, sharing one cache as a grid does."""
    out = {}
    for fold in ("fold0", "fold1"):
        job = job_of(Run(**{**run, "fold": fold}), paths)
        made = predict(job)
        values = made.values if made.values is not None else product(made.weights, job.data.effects, job.train)
        out[fold] = (values, made.covered)
    return out


def assert_blind(run, screens_of, monkeypatch, tmp_path, *, covered=True):
    found = {}
    for label, paths in screens_of.items():
        monkeypatch.setenv("EMBBENCH_HOME", str(tmp_path / f"home-{label}"))
        NOW["noise"] = "fold1" if label == "noisy" else ""
        found[label] = run_folds(run, paths)
    before, after = found["plain"]["fold1"], found["noisy"]["fold1"]
    assert not covered or before[1].any(), "vacuous: nothing of the fold is covered"
    assert np.array_equal(before[0], after[0]), "predictions moved when their own truth was replaced"
    assert not np.array_equal(found["plain"]["fold0"][0], found["noisy"]["fold0"][0]), (
        "vacuous: the noise reached nobody"
    )


def case(embedding, head, entity="gene"):
    run = {"dataset": "leak", "split": "unseen_perturbation:3", "head": head}
    key = "context_embedding" if entity == "context" else "embedding"
    return {**run, key: embedding, **({"scope": "joint"} if entity == "context" else {})}


@pytest.mark.parametrize("entry", EMBEDDINGS, ids=lambda e: e.name)
def test_every_embedding_under_a_smoother(entry, screens_of, monkeypatch, tmp_path):
    assert_blind(case(spec_of(entry), "knn:k=3", entry.load().entity), screens_of, monkeypatch, tmp_path)


def small(entry):
    """A head as a spec of its contract tests' parameters: costly ones have tiny ones."""
    known = {k: v for k, v in entry.test.items() if isinstance(v, int | float | str)}
    return ":".join([entry.name, *(f"{k}={v}" for k, v in known.items())]) if entry.load().trained else entry.name


def head_case(entry, embedding):
    run = case(embedding, SMALL.get(entry.name, small(entry)))
    head = entry.load()
    if not head.needs_embedding:
        run["embedding"] = "none"
    if head.needs_context_vector:
        run["context_embedding"] = "control_mean"
    if "effects" not in head.targets:
        run |= {"target": head.targets[0], "select": "auroc_condition_all"}
    return run


@pytest.mark.parametrize("embedding", [STATIC, FITTED], ids=["static", "fitted"])
@pytest.mark.parametrize("entry", HEADS, ids=lambda e: e.name)
def test_every_head_on_a_static_and_a_fitted_embedding(entry, embedding, screens_of, monkeypatch, tmp_path):
    if entry.missing():
        pytest.skip(f"needs {entry.missing()}")
    if entry.name == "no_change":
        run = head_case(entry, embedding)
        assert not any(v[0].any() for v in run_folds(run, screens_of["plain"]).values())
        return
    if entry.name == "label_no_change":
        run = head_case(entry, embedding)
        assert all((v[0] == [0, 1, 0]).all() for v in run_folds(run, screens_of["plain"]).values())
        return
    assert_blind(head_case(entry, embedding), screens_of, monkeypatch, tmp_path, covered=entry.load().needs_embedding)


@pytest.mark.slow
@pytest.mark.parametrize("head", [e for e in HEADS if e.load().needs_embedding], ids=lambda e: e.name)
@pytest.mark.parametrize("entry", EMBEDDINGS, ids=lambda e: e.name)
def test_all_pairs(entry, head, screens_of, monkeypatch, tmp_path):
    run = case(spec_of(entry), SMALL.get(head.name, head.name), entry.load().entity)
    if "effects" not in head.load().targets:
        run |= {"target": head.load().targets[0], "select": "auroc_condition_all"}
    assert_blind(run, screens_of, monkeypatch, tmp_path)


def test_an_embedding_fitted_on_test_rows_is_caught(screens_of, monkeypatch, tmp_path):
    with pytest.raises(AssertionError, match="predictions moved"):
        assert_blind(case("fitted_on_everything:4", "knn:k=3"), screens_of, monkeypatch, tmp_path)


def test_a_peeking_head_is_caught(screens_of, monkeypatch, tmp_path):
    monkeypatch.setattr(leak.Peeking, "source", staticmethod(lambda: loaded(NOW["noise"])))
    with pytest.raises(AssertionError, match="predictions moved"):
        assert_blind(case("none", "peeking"), screens_of, monkeypatch, tmp_path, covered=False)


def test_a_warm_cache_leak_is_caught(screens_of, monkeypatch, tmp_path):
    """A key without the training rows hands fold 1 the vectors that fold 0 fitted, also on fold 1's test rows."""
    honest = vectors._view

    def forgetful(reads, data, rows, *, strict):
        view, seen = honest(reads, data, rows, strict=strict)
        return view, {k: v for k, v in seen.items() if k != "rows"}

    monkeypatch.setattr(vectors, "_view", forgetful)
    with pytest.raises(AssertionError, match="predictions moved"):
        assert_blind(case(FITTED, "knn:k=3"), screens_of, monkeypatch, tmp_path)


def test_the_registry_of_the_test_is_the_packaged_one_plus_victims(screens_of):
    assert len(registry_of(screens_of["plain"]).entries()) == len(registry.default().entries()) + 3
