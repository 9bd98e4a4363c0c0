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
    """b problems of p numbers each, one row per problem."""

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (b,) and gradients (b, p) at ``x`` (b, p)."""
        ...

    def take(self, which: np.ndarray) -> Self:
        """Some of the problems: a bool mask (b,)."""
        ...


def minimise(
    problems: Problems, start: np.ndarray, curvature: np.ndarray, tol: np.ndarray, max_iter: int
) -> tuple[np.ndarray, int]:
    """Minimise until no derivative exceeds its problem's ``tol``.

    Parameters
    ----------
    problems : value and gradient of b problems.
    start : (b, p).
    curvature : (b, p), > 0, a diagonal guess of the Hessians: the initial matrix of every iteration, scaled.
    tol : (b,), > 0.
    max_iter : iterations at most.

    Returns
    -------
    The minima (b, p), and the number of problems that did not get there.

    References
    ----------
    Nocedal and Wright (2006), Numerical Optimization, algorithms 7.4 and 7.5 (initial matrix: equation 7.20 in the
    metric of ``curvature``), backtracking with quadratic interpolation: section 3.5. Pairs without positive curvature
    are skipped; in convex problems they come from rounding alone.
    """
    out, late, index = np.empty_like(start), 0, np.arange(len(start))
    state = _State(problems, start, curvature)
    for step in range(max_iter + 1):
        steep = np.abs(state.gradient).max(axis=1) > tol[index]
        done = ~steep | state.stuck
        if step == max_iter or done.all() or done.sum() > (1 - SQUEEZE) * len(done):
            end = np.ones_like(done) if step == max_iter else done
            out[index[end]] = state.x[end]
            late += int(steep[end].sum())
            if end.all():
                break
            index = index[~end]
            state.keep(~end)
        state.advance()
    return out, late


class _State:
    """Where b problems are, in arrays (b, p), and the last steps that led there."""

    def __init__(self, problems: Problems, start: np.ndarray, curvature: np.ndarray) -> None:
        self.problems, self.x, self.inverse = problems, start, 1.0 / curvature
        self.value, self.gradient = problems(start)
        self.pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # steps, changes of gradient, 1 / products
        self.scale, self.stuck = np.ones(len(start)), np.zeros(len(start), dtype=bool)

    def keep(self, which: np.ndarray) -> None:
        """Forget all problems but some, a bool mask (b,)."""
        self.problems = self.problems.take(which)
        for name in ("x", "inverse", "value", "gradient", "scale", "stuck"):
            setattr(self, name, getattr(self, name)[which])
        self.pairs = [(s[which], y[which], rho[which]) for s, y, rho in self.pairs]

    def _direction(self) -> np.ndarray:
        """Minus the inverse Hessian times the gradient, (b, p), by the two-loop recursion."""
        q, parts = -self.gradient, []
        for s, y, rho in reversed(self.pairs):
            part = rho * _dot(s, q)
            q -= part[:, None] * y
            parts.append(part)
        q *= self.inverse
        q *= self.scale[:, None]
        for (s, y, rho), part in zip(self.pairs, reversed(parts), strict=True):
            q += (part - rho * _dot(y, q))[:, None] * s
        return q

    def advance(self) -> None:
        """One iteration of every problem; one that finds no lower point is stuck."""
        direction = self._direction()
        slope, length = _dot(self.gradient, direction), np.ones(len(self.value))
        x = self.x + direction
        value, gradient = self.problems(x)
        for _ in range(HALVINGS):
            high = ~(value <= self.value + ARMIJO * length * slope + SLACK * np.abs(self.value))
            if not high.any():
                break
            rise = value - self.value - length * slope
            best = -slope * length / (2 * np.where(rise > 0, rise, np.inf))
            length = np.where(high, length * np.clip(best, 0.1, 0.5), length)
            x[high] = self.x[high] + length[high, None] * direction[high]
            value[high], gradient[high] = self.problems.take(high)(x[high])
        else:
            self.stuck = high
            x[high], gradient[high], value[high] = self.x[high], self.gradient[high], self.value[high]
        self._remember(x - self.x, gradient - self.gradient)
        self.x, self.gradient, self.value = x, gradient, value

    def _remember(self, s: np.ndarray, y: np.ndarray) -> None:
        product, bent = _dot(s, y), _dot(y, self.inverse * y)
        good = product > np.finfo(np.float64).eps * bent
        inverse = np.divide(1.0, product, out=np.zeros(len(s)), where=good)
        self.pairs = [*self.pairs, (s, y, inverse)][-MEMORY:]
        self.scale = np.divide(product, bent, out=self.scale.copy(), where=good)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("bp,bp->b", a, b)
