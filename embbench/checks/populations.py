"""Contracts of heads that predict cells, and of heads whose fit can be interrupted."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np

from embbench.checks._contract import Make, name_of, require
from embbench.checks._toy import Problem, toy_problem
from embbench.checks.heads import close, fitted
from embbench.core import Inputs, Sources
from embbench.core.cells import Cells

CELLS = 16  # of the 40 controls of a toy context


def head_samples_match_its_prediction(make: Make) -> None:
    """Population heads: ``sample``, shape (n, m, g), is expression; its mean less the baseline is near ``predict``."""
    head, problem, m = make(), toy_problem(), 400
    if "population" not in head.targets:
        return
    query = problem.query.rows(np.arange(4))
    head.fit(problem.train, problem.Y)
    out, effect = head.sample(query, m), head.predict(query)
    require(out.shape == (4, m, effect.shape[1]), f"{name_of(head)}.sample: found {out.shape}, expected (n, cells, g)")
    require(np.isfinite(out).all(), f"{name_of(head)}.sample gave non-finite cells")
    gap = np.abs(out.mean(axis=1) - query.baseline[query.context] - effect)
    allowed = 5 * out.std(axis=1) / np.sqrt(m) + 0.05
    require((gap <= allowed).all(), f"{name_of(head)}: mean of {m} samples is {gap.max():.3g} from predict")


def head_samples_are_rows_independent(make: Make) -> None:
    """Population heads: the cells of a row do not depend on the other rows asked for, nor on when it is asked."""
    head, problem = make(), toy_problem()
    if "population" not in head.targets:
        return
    head.fit(problem.train, problem.Y)
    query = problem.query.rows(np.arange(9))
    whole = head.sample(query, CELLS)
    for rows in (np.arange(9), np.array([7, 3, 5]), np.array([4])):
        part = head.sample(query.rows(rows), CELLS)
        require(
            close(np.asarray(part), np.asarray(whole[rows])),
            f"{name_of(head)}: the cells of a row change when {len(rows)} of 9 rows are asked "
            f"{'again' if len(rows) == len(whole) else 'apart'}; give every row a random stream of its own",
        )


def head_sources_are_what_it_samples_from(make: Make) -> None:
    """Heads with ``sources``: control cells of the row's context, the same ones each time, and cells that ``sample``
    starts from: it follows a change of a control cell in the cells made of it, and hardly in others.
    """
    head, problem = make(), toy_problem()
    if not hasattr(head, "sources"):
        return
    who = name_of(head)
    require("population" in head.targets, f"{who} has sources and must declare the target 'population'")
    head.fit(problem.train, problem.Y)
    query = problem.query.rows(np.arange(6))
    found = head.sources(query, CELLS)
    _are_controls_of_their_context(who, found, query)
    for rows in (np.arange(6), np.array([4, 1])):
        again = head.sources(query.rows(rows), CELLS)
        same = np.array_equal(again.context, found.context[rows]) and np.array_equal(
            again.position, found.position[rows]
        )
        require(same, f"{who}.sources: rows {rows.tolist()} asked again get other control cells")
    _moves_with_its_sources(who, head, query, found)


def _are_controls_of_their_context(who: str, found: Sources, query: Inputs) -> None:
    require(isinstance(found, Sources), f"{who}.sources must give Sources, found {type(found).__name__}")
    want = (len(query), CELLS)
    require(found.context.shape == want, f"{who}.sources must be {want} (rows, cells), found {found.context.shape}")
    nowhere = (found.context == -1) & (found.position == -1)
    own = found.context == query.context[:, None]
    sizes = np.array([query.cells.n_controls(code) for code in query.context.tolist()])  # type: ignore[union-attr]
    inside = (found.position >= 0) & (found.position < sizes[:, None])
    bad = ~(nowhere | (own & inside))
    require(not bad.any(), f"{who}.sources: {int(bad.sum())} cells are no control cell of the row's context")


def _moves_with_its_sources(who: str, head: Any, query: Inputs, found: Sources) -> None:
    """Cells whose control cell changes move by more than what all cells of the row share (a head may also read the mean
    of the controls); a head too little trained to tell its control cells apart may move all of them alike.
    """
    view = query.cells
    if view is None or (found.position < 0).all():
        return
    moved = replace(query, cells=replace(view, source=_Moved(view.source)))
    step = (head.sample(moved, CELLS) - head.sample(query, CELLS)).astype(np.float64)
    hit = (found.position >= 0) & (found.position % 2 == 1)
    still = np.abs(step[hit]).max(axis=1, initial=0) == 0
    require(not still.any(), f"{who}: {int(still.sum())} cells stay as they are when their control cells change")
    shared = np.stack(
        [row[~own].mean(axis=0) if (~own).any() else 0 * row[0] for row, own in zip(step, hit, strict=True)]
    )
    away = np.linalg.norm(step - shared[:, None], axis=2)
    near, far = (float(np.median(away[where])) if where.any() else 0.0 for where in (hit, ~hit))
    alike = near <= 0.01 * float(np.median(np.linalg.norm(step, axis=2)))
    require(
        alike or far < 0.5 * near,
        f"{who}: cells whose control cells stay move by {far:.3g} of their own, those whose control cells change by "
        f"{near:.3g}; sources must name the cells that sample starts from",
    )


class _Moved:
    """The same cells, but every second control cell is another one."""

    def __init__(self, source: Cells) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """Control cells, shape (m, g), those at odd positions moved by noise."""
        cells = self._source.controls(context, half).copy()
        cells[1::2] += np.random.default_rng(context).normal(0, 1, cells[1::2].shape).astype(np.float32)
        return cells


class _StoppedError(Exception):
    """Ends a fit in the middle, as a kill would."""


class _Recorder:
    """A monitor that is always due, keeps every state, and ends the fit after the ``last``-th."""

    def __init__(self, state: bytes | None = None, last: int = 0) -> None:
        self.states: list[bytes] = []
        self._state, self._last = state, last

    def load(self) -> bytes | None:
        """The state that the fit goes on from."""
        return self._state

    def due(self) -> bool:
        """Always."""
        return True

    def save(self, state: bytes) -> None:
        """Keep it; end the fit where that is wanted."""
        self.states.append(bytes(state))
        if len(self.states) == self._last:
            raise _StoppedError

    def report(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Nobody listens."""


def head_resumes_to_the_same_bits(make: Make) -> None:
    """Heads that save states while they are fitted: watched, or stopped at a state and gone on from it in a fresh head,
    they predict the bits of a fit that nobody watched; and they do go on, they do not start anew.
    """
    problem, watched = toy_problem(), _Recorder()
    head = _with(make(), watched, problem)
    saves = len(watched.states)
    if not saves:
        return
    who, calm = name_of(head), _answers(fitted(make(), problem), problem)
    require(_same(_answers(head, problem), calm), f"{who}: predictions change when its fit is watched")
    for last in sorted({(saves + 1) // 2, saves}):
        stopped = _Recorder(last=last)
        with contextlib.suppress(_StoppedError):
            _with(make(), stopped, problem)
        again = _Recorder(stopped.states[-1])
        resumed = _answers(_with(make(), again, problem), problem)
        require(_same(resumed, calm), f"{who}: stopped at state {last} of {saves} and gone on, it predicts other bits")
        require(
            len(again.states) <= saves - last + 1,
            f"{who}: given state {last} of {saves} it saved {len(again.states)} more, so it started anew",
        )


def _with(head: Any, monitor: _Recorder, problem: Problem) -> Any:
    head.monitor = monitor
    return fitted(head, problem)


def _answers(head: Any, problem: Problem) -> list[np.ndarray]:
    out = [np.asarray(head.predict(problem.query))]
    return [*out, np.asarray(head.sample(problem.query.rows(np.arange(3)), 5))] if hasattr(head, "sample") else out


def _same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
