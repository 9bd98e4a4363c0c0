"""L-BFGS on many independent smooth convex problems at once: each has its own step, memory and end."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np

MEMORY = 8  # pairs kept
ARMIJO = 1e-4
HALVINGS = 30
SLACK = 1e-13  # of the value: what rounding may add to it in a step that goes down
SQUEEZE = 0.8  # share of unfinished problems below which the finished ones are taken out of the arrays


class Problems(Protocol):
    """b problems in arrays whose last axis counts them."""

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (b,) and gradients (..., b) at ``x`` (..., b)."""
        ...

    def take(self, which: np.ndarray) -> Self:
        """Some of the problems."""
        ...


def minimise(
    problems: Problems, start: np.ndarray, curvature: np.ndarray, tol: float, max_iter: int
) -> tuple[np.ndarray, int]:
    """Minimise until no derivative exceeds ``tol``.

    Parameters
    ----------
    problems : value and gradient of b problems.
    start : (..., b).
    curvature : (..., b), > 0, a diagonal guess of the Hessians: the initial matrix of every iteration, scaled.
    tol, max_iter : the end.

    Returns
    -------
    The minima (..., b), and the number of problems that did not get there.

    References
    ----------
    Nocedal and Wright (2006), Numerical Optimization, algorithms 7.4 and 7.5 (initial matrix: equation 7.20 in the
    metric of ``curvature``), backtracking with quadratic interpolation: section 3.5. Pairs without positive curvature are
    skipped; in convex problems they come from rounding alone.
    """
    shape, out = start.shape, np.empty((start[..., 0].size, start.shape[-1]))
    late, index = 0, np.arange(shape[-1])
    state = _State.at(problems, start, curvature)
    for step in range(max_iter + 1):
        done = np.abs(state.gradient).max(axis=0) <= tol
        done |= state.stuck
        if step == max_iter or done.sum() > (1 - SQUEEZE) * len(done) or done.all():
            end = np.ones_like(done) if step == max_iter else done
            out[:, index[end]] = state.x[:, end]
            late += int((np.abs(state.gradient[:, end]).max(axis=0) > tol).sum())
            if end.all():
                break
            index, state = index[~end], state.take(~end)
        state.advance()
    return out.reshape(shape), late


class _State:
    """Where b problems are, in arrays (p, b), and the last steps that led there."""

    def __init__(self, problems: Problems, shape: tuple[int, ...], arrays: tuple[np.ndarray, ...]) -> None:
        self.problems, self.shape = problems, shape
        self.x, self.inverse, self.gradient, self.value, self.stuck = arrays
        self.pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # steps, changes of gradient, 1 / products
        self.scale = np.ones(len(self.value))

    @classmethod
    def at(cls, problems: Problems, start: np.ndarray, curvature: np.ndarray) -> _State:
        """The first state, at ``start`` (..., b)."""
        value, gradient = problems(start)
        b = start.shape[-1]
        flat = (x.reshape(-1, b) for x in (start, 1.0 / curvature, gradient))
        return cls(problems, start.shape[:-1], (*flat, value, np.zeros(b, dtype=bool)))

    def take(self, keep: np.ndarray) -> _State:
        """The state of some problems."""
        arrays = tuple(a[..., keep] for a in (self.x, self.inverse, self.gradient, self.value, self.stuck))
        out = _State(self.problems.take(keep), self.shape, arrays)
        out.pairs = [tuple(a[..., keep] for a in pair) for pair in self.pairs]
        out.scale = self.scale[keep]
        return out

    def _direction(self) -> np.ndarray:
        """Minus the inverse Hessian times the gradient, (p, b), by the two-loop recursion."""
        q, parts = self.gradient.copy(), []
        for s, y, rho in reversed(self.pairs):
            part = rho * _dot(s, q)
            q -= part * y
            parts.append(part)
        q *= self.inverse * self.scale
        for (s, y, rho), part in zip(self.pairs, reversed(parts), strict=True):
            q += (part - rho * _dot(y, q)) * s
        return -q

    def _try(self, x: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        problems = self.problems if which.all() else self.problems.take(which)
        value, gradient = problems(np.ascontiguousarray(x[:, which]).reshape(*self.shape, -1))
        return value, gradient.reshape(len(x), -1)

    def advance(self) -> None:
        """One iteration of every problem; one that finds no lower point is stuck."""
        direction = self._direction()
        slope, length = _dot(self.gradient, direction), np.ones(len(self.value))
        x, gradient, value = self.x + direction, np.empty_like(self.x), np.empty_like(self.value)
        open_ = np.ones(len(self.value), dtype=bool)
        for _ in range(HALVINGS):
            value[open_], gradient[:, open_] = self._try(x, open_)
            allowed = self.value + ARMIJO * length * slope + SLACK * np.abs(self.value)
            open_ &= ~(value <= allowed)
            if not open_.any():
                break
            rise = value - self.value - length * slope
            best = -slope * length / (2 * np.where(rise > 0, rise, np.inf))
            length = np.where(open_, length * np.clip(best, 0.1, 0.5), length)
            x[:, open_] = self.x[:, open_] + length[open_] * direction[:, open_]
        self.stuck = open_
        x[:, open_], gradient[:, open_], value[open_] = self.x[:, open_], self.gradient[:, open_], self.value[open_]
        self._remember(x - self.x, gradient - self.gradient)
        self.x, self.gradient, self.value = x, gradient, value

    def _remember(self, s: np.ndarray, y: np.ndarray) -> None:
        product, bent = _dot(s, y), _dot(y, self.inverse * y)
        good = product > np.finfo(np.float64).eps * bent
        safe = np.where(good, product, 1.0)
        self.pairs = [*self.pairs, (s, y, np.where(good, 1.0 / safe, 0.0))][-MEMORY:]
        self.scale = np.where(good, product / np.where(good, bent, 1.0), self.scale)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("pb,pb->b", a, b)
