"""Contracts of heads."""

from __future__ import annotations

import copy
import pickle
import random
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from scipy import sparse

from embbench.checks._contract import ContractError, Make, name_of, require
from embbench.checks._toy import Problem, toy_problem
from embbench.core import Inputs, UserError

FLAGS = ("needs_embedding", "needs_cells", "needs_graph", "needs_baseline", "needs_context_vector")
SCOPES, TARGETS = ("auto", "joint", "per_context"), ("effects", "labels", "population")


def targets_of(head: Any, problem: Problem) -> tuple[np.ndarray, np.ndarray | None]:
    """What a head is fitted to, shape (n, g), and its observed mask: labels only for heads of nothing but labels."""
    if set(head.targets) == {"labels"}:
        return problem.labels.astype(np.float32), problem.tested
    return problem.Y, None


def fitted(head: Any, problem: Problem) -> Any:
    """The head after ``fit`` on a problem, with the targets that it declares."""
    return head.fit(problem.train, *targets_of(head, problem))


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal shapes and values up to 1e-5 of the larger side's size (float32 predictions of unit scale).

    Examples
    --------
    >>> close(np.array([1.0]), np.array([1.0 + 1e-7])), close(np.array([1.0]), np.array([[1.0]]))
    (True, False)
    """
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-5, atol=1e-5))


def _arrays(inputs: Inputs) -> Iterator[np.ndarray]:
    for field in fields(inputs):
        value = getattr(inputs, field.name)
        if isinstance(value, np.ndarray):
            yield value
        elif sparse.issparse(value):
            yield from (value.data, value.indices, value.indptr)


def head_declares_what_it_needs(make: Make) -> None:
    """Flags, scope, targets and constructor parameters are stated and of the right kind."""
    head = make()
    for flag in (*FLAGS, "handles_missing", "trained"):
        value = getattr(head, flag, None)
        require(isinstance(value, bool), f"{name_of(head)}.{flag} must be True or False, found {value!r}")
    require(head.scope in SCOPES, f"{name_of(head)}.scope must be one of {SCOPES}, found {head.scope!r}")
    known = isinstance(head.targets, tuple) and head.targets and set(head.targets) <= set(TARGETS)
    require(known, f"{name_of(head)}.targets must be a tuple of some of {TARGETS}, found {head.targets!r}")
    for target, method in (("labels", "predict_proba"), ("population", "sample")):
        require(
            target not in head.targets or callable(getattr(head, method, None)),
            f"{name_of(head)} declares target {target!r} and must have {method}",
        )


def head_candidates_are_valid_parameters(make: Make) -> None:
    """Every setting that selection would try constructs; at least one is offered."""
    head = make()
    settings = head.candidates()
    ok = isinstance(settings, list) and settings and all(isinstance(s, dict) for s in settings)
    require(ok, f"{name_of(head)}.candidates() must be a non-empty list of dicts, found {settings!r}")
    for setting in settings:
        try:
            make(**setting)
        except (TypeError, ValueError, UserError) as error:
            raise ContractError(f"{name_of(head)}: candidate {setting} is refused: {error}") from error


def head_predicts_finite_float32(make: Make) -> None:
    """``fit`` returns self; ``predict`` gives finite float32 of shape (n, g)."""
    problem, head = toy_problem(), make()
    require(fitted(head, problem) is head, f"{name_of(head)}.fit must return self")
    out = head.predict(problem.query)
    want = (len(problem.query), problem.Y.shape[1])
    require(
        isinstance(out, np.ndarray) and out.shape == want and out.dtype == np.float32,
        f"{name_of(head)}.predict must give {want} float32, found {np.shape(out)} {getattr(out, 'dtype', type(out))}",
    )
    require(np.isfinite(out).all(), f"{name_of(head)}.predict gave {int((~np.isfinite(out)).sum())} non-finite values")


def head_leaves_its_arguments_alone(make: Make) -> None:
    """No array of the inputs, of ``Y`` or of the mask changes in ``fit`` or ``predict``."""
    problem, head = toy_problem(), make()
    Y, observed = targets_of(head, problem)
    held = [*_arrays(problem.train), *_arrays(problem.query), Y, *([] if observed is None else [observed])]
    before = copy.deepcopy(held)
    head.fit(problem.train, Y, observed).predict(problem.query)
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, held, strict=True))
    require(same, f"{name_of(head)}: fit or predict changed an argument in place; copy before writing")


def head_is_deterministic(make: Make) -> None:
    """Two fresh fits predict the same bits."""
    problem = toy_problem()
    a, b = (fitted(make(), problem).predict(problem.query) for _ in range(2))
    require(np.array_equal(a, b), f"{name_of(make())}: two fresh fits differ by {np.abs(a - b).max():.3g}; seed it")


def head_forgets_the_last_fit(make: Make) -> None:
    """A second ``fit`` gives the bits of a fresh one."""
    problem, other = toy_problem(), toy_problem(seed=1)
    again = fitted(fitted(make(), other), problem).predict(problem.query)
    fresh = fitted(make(), problem).predict(problem.query)
    require(np.array_equal(again, fresh), f"{name_of(make())}: state of an earlier fit leaks into the next one")


def head_rows_are_independent(make: Make) -> None:
    """A row's prediction does not depend on the other rows asked for, nor on their order."""
    problem = toy_problem()
    head = fitted(make(), problem)
    whole = head.predict(problem.query)
    for rows in (np.array([7, 3, 19]), np.array([5]), np.random.default_rng(0).permutation(len(problem.query))):
        part = head.predict(problem.query.rows(rows))
        require(close(part, whole[rows]), f"{name_of(head)}: predictions change when {len(rows)} rows are asked apart")


def head_refuses_to_predict_before_fit(make: Make) -> None:
    """RuntimeError that says "before fit"."""
    head = make()
    try:
        head.predict(toy_problem().query)
    except RuntimeError as error:
        require("before fit" in str(error), f"{name_of(head)}: the error must say 'before fit', found {error!r}")
    else:
        raise ContractError(f"{name_of(head)}.predict before fit must raise RuntimeError('... before fit')")


def head_fits_one_row(make: Make) -> None:
    """One training row is enough to predict something finite."""
    problem, head = toy_problem(), make()
    Y, observed = targets_of(head, problem)
    one = np.array([0])
    head.fit(problem.train.rows(one), Y[one], None if observed is None else observed[one])
    out = head.predict(problem.query)
    require(np.isfinite(out).all(), f"{name_of(head)}: not finite after a fit on one row")


def head_predicts_an_unseen_context(make: Make) -> None:
    """A query context without training rows gets finite predictions."""
    problem, head = toy_problem(), make()
    Y, observed = targets_of(head, problem)
    rows = np.flatnonzero(problem.train.context != 2)
    head.fit(problem.train.rows(rows), Y[rows], None if observed is None else observed[rows])
    out = head.predict(problem.query.rows(problem.query.context == 2))
    require(np.isfinite(out).all(), f"{name_of(head)}: not finite in a context without training rows")


def head_takes_a_mask_of_everything_for_none(make: Make) -> None:
    """``observed`` all True means the same as None."""
    problem, head = toy_problem(), make()
    Y, _ = targets_of(head, problem)
    a = head.fit(problem.train, Y).predict(problem.query)
    b = make().fit(problem.train, Y, np.ones(Y.shape, dtype=bool)).predict(problem.query)
    require(close(a, b), f"{name_of(head)}: a mask that marks all entries observed changes the prediction")


def head_pickles(make: Make) -> None:
    """A fitted head survives pickling, bit for bit."""
    problem = toy_problem()
    head = fitted(make(), problem)
    try:
        copied = pickle.loads(pickle.dumps(head))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ContractError(f"{name_of(head)} cannot be pickled after fit: {error}") from error
    same = np.array_equal(copied.predict(problem.query), head.predict(problem.query))
    require(same, f"{name_of(head)}: predictions change when the fitted head is pickled")


def head_touches_no_global_random_state(make: Make) -> None:
    """The global streams of Python, NumPy and torch are where they were."""
    problem = toy_problem()
    for _ in range(2):  # a first fit may import torch, and may leave a stream where a second fit puts it again
        before = _random_state()
        fitted(make(), problem).predict(problem.query)
        after = _random_state()
        moved = [name for name, value in before.items() if value != after[name]]
        who = name_of(make())
        require(not moved, f"{who} moves the global random state of {', '.join(moved)}; use a seeded generator")
        if torch := sys.modules.get("torch"):
            torch.rand(1)


def _random_state() -> dict[str, bytes]:
    keys, position = np.random.get_state()[1:3]  # noqa: NPY002
    state = {"random": repr(random.getstate()).encode(), "numpy": keys.tobytes() + str(position).encode()}
    if torch := sys.modules.get("torch"):
        state["torch"] = torch.get_rng_state().numpy().tobytes()
    return state
