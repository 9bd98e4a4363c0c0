"""Contracts of what only some heads can do: missing blocks, smoother weights, shared work, label targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from embbench.checks._contract import Make, name_of, require
from embbench.checks._toy import toy_problem
from embbench.checks.heads import close, fitted
from embbench.numerics.smoothers import matrix_of


def head_survives_missing_blocks(make: Make) -> None:
    """A head that handles missing blocks predicts rows that lack one."""
    head, problem = make(), toy_problem(missing=True)
    if not head.handles_missing:
        return
    out = fitted(head, problem).predict(problem.query)
    require(np.isfinite(out).all(), f"{name_of(head)} declares handles_missing but predicts non-finite values")


def head_weights_are_its_prediction(make: Make) -> None:
    """Smoothers: ``weights @ Y`` equals ``predict``."""
    head, problem = make(), toy_problem()
    if not hasattr(head, "weights"):
        return
    head.fit(problem.train, problem.Y)
    W, want = head.weights(problem.train, problem.query), (len(problem.query), len(problem.train))
    require(W.shape == want, f"{name_of(head)}.weights must be {want} (query, train), found {W.shape}")
    out = np.asarray(W @ problem.Y.astype(np.float64))
    require(close(out, head.predict(problem.query)), f"{name_of(head)}: weights @ Y is not what predict gives")


def head_weights_never_read_effects(make: Make) -> None:
    """Smoothers: the weights are the same bits before fit and after fits on different ``Y``."""
    problem = toy_problem()
    if not hasattr(make(), "weights"):
        return
    noise = np.random.default_rng(3).normal(size=problem.Y.shape).astype(np.float32)
    heads = (make(), make().fit(problem.train, problem.Y), make().fit(problem.train, noise))
    first, *others = (_dense(h.weights(problem.train, problem.query)) for h in heads)
    same = all(np.array_equal(first, other) for other in others)
    require(same, f"{name_of(make())}.weights depends on the effects; they may depend on inputs only")


def head_path_is_its_weights(make: Make) -> None:
    """Smoothers that share work between settings: ``path`` gives each setting's own ``weights``, in order."""
    problem, kind = toy_problem(), type(make())
    if not hasattr(kind, "path"):
        return
    heads = _settings(make)
    found = [_dense(matrix_of(W)) for W in kind.path(heads, problem.train, problem.query)]
    require(len(found) == len(heads), f"{kind.__name__}.path must give {len(heads)} settings, found {len(found)}")
    same = all(close(W, _dense(h.weights(problem.train, problem.query))) for h, W in zip(heads, found, strict=True))
    require(same, f"{kind.__name__}.path is not what weights gives for the same settings in that order")


def head_fit_path_is_fit(make: Make) -> None:
    """Heads that share work between fits: those of ``fit_path`` predict as heads fitted one by one, in order."""
    problem, kind = toy_problem(), type(make())
    if not hasattr(kind, "fit_path"):
        return
    shared = [head.predict(problem.query) for head in kind.fit_path(_settings(make), problem.train, problem.Y)]
    alone = [head.fit(problem.train, problem.Y).predict(problem.query) for head in _settings(make)]
    require(len(shared) == len(alone), f"{kind.__name__}.fit_path must give {len(alone)} heads, found {len(shared)}")
    same = all(close(one, other) for one, other in zip(shared, alone, strict=True))
    require(same, f"{kind.__name__}.fit_path does not predict what fit does for the same settings in that order")


def head_held_errors_are_its_errors(make: Make) -> None:
    """Heads that tell squared errors of held rows without predictions: those of ``fit`` and ``predict``."""
    problem, kind = toy_problem(), type(make())
    if not hasattr(kind, "held_errors"):
        return
    rows = np.arange(len(problem.train))
    fit, held = rows[rows % 4 > 0], rows[rows % 4 == 0]
    (found,) = kind.held_errors(_settings(make), [(problem.train, fit, held)], problem.Y)
    query = problem.train.rows(held)
    made = [head.fit(problem.train.rows(fit), problem.Y[fit]).predict(query) for head in _settings(make)]
    want = np.array([np.square(p - problem.Y[held], dtype=np.float64).sum(axis=1) for p in made])
    same = found.shape == want.shape and np.allclose(found, want, rtol=1e-4, atol=1e-6)
    require(same, f"{kind.__name__}.held_errors are not the squared errors of fit and predict")


def _settings(make: Make) -> list[Any]:
    """Fresh heads, one for every setting that selection would try."""
    return [make(**setting) for setting in type(make()).candidates()]


def _dense(W: Any) -> np.ndarray:
    return W.toarray() if sparse.issparse(W) else np.asarray(W)


def head_gives_probabilities(make: Make) -> None:
    """Label heads: ``predict_proba`` has shape (n, g, 3) for -1, 0, 1, rows sum to 1."""
    head, problem = make(), toy_problem()
    if "labels" not in head.targets:
        return
    head.fit(problem.train, problem.labels.astype(np.float32), problem.tested)
    out, want = head.predict_proba(problem.query), (len(problem.query), problem.Y.shape[1], 3)
    require(out.shape == want, f"{name_of(head)}.predict_proba must be {want}, found {out.shape}")
    proper = (out >= 0).all() and np.allclose(out.sum(axis=2), 1.0, atol=1e-5)
    require(proper, f"{name_of(head)}.predict_proba must be >= 0 and sum to 1 over the three labels")
