"""What networks of effects learn: scores of the deviations from the context mean on their principal axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embbench.core import Inputs
from embbench.heads._means import context_mean
from embbench.numerics.linalg import pca


@dataclass(frozen=True)
class Target:
    """Effects as context mean + scores on principal axes of the training rows' deviations from it.

    Parameters
    ----------
    context : (k,) codes of the training contexts, ascending.
    means : (k + 1, g) their means, and last the mean over the contexts.
    centre : (g,) mean of the deviations.
    axes : (g, r) orthonormal columns; none where every row equals its context mean.
    scale : root mean square of the scores.

    Examples
    --------
    >>> rows = Inputs(np.zeros((2, 0)), np.zeros(2, int), None, ((0,), (1,)))
    >>> target = Target.fitted(rows, np.array([[0.0, 1.0], [2.0, 1.0]]), rank=5)
    >>> target.base(np.array([0, 9])).tolist(), target.scores(rows, np.array([[0.0, 1.0], [2.0, 1.0]])).tolist()
    ([[1.0, 1.0], [1.0, 1.0]], [[-1.0], [1.0]])
    """

    context: np.ndarray
    means: np.ndarray
    centre: np.ndarray
    axes: np.ndarray
    scale: float

    @classmethod
    def fitted(cls, inputs: Inputs, Y: np.ndarray, rank: int) -> Target:
        """Means and at most ``rank`` axes of training effects ``Y`` (n, g)."""
        context = np.unique(inputs.context)
        asked = np.append(context, -1)  # -1 is no context's code: it gets the mean over the contexts
        means = context_mean(asked, inputs.context) @ Y.astype(np.float64)
        centre, axes, singular = pca(Y - means[np.searchsorted(context, inputs.context)], rank)
        scale = float(np.sqrt(np.square(singular).sum() / max(1, singular.size * len(Y)))) or 1.0
        return cls(context, means, centre, axes, scale)

    def base(self, context: np.ndarray) -> np.ndarray:
        """Prediction of the context alone, shape (n, g), for context codes (n,)."""
        place = np.searchsorted(self.context, context)
        known = self.context[np.minimum(place, len(self.context) - 1)] == context
        return self.means[np.where(known, place, -1)] + self.centre

    def scores(self, inputs: Inputs, Y: np.ndarray) -> np.ndarray:
        """What a network learns, shape (n, r), float32, of effects (n, g)."""
        return (((Y - self.base(inputs.context)) @ self.axes) / self.scale).astype(np.float32)
