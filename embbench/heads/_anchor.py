"""The mean effect that a population head starts from: kernel ridge over perturbations and contexts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.spatial.distance import cdist

from embbench.core import Inputs
from embbench.heads._leave_out import left_out, unit_blocks
from embbench.heads._means import indicator
from embbench.numerics.linalg import pca

PENALTIES = tuple(float(a) for a in np.logspace(-2.5, 3.0, 12))  # on kernels with unit diagonal
SHARES = (0.0, 0.7, 1.0)  # of an effect that contexts have in common
FLAT = (1e6, 1e3)  # prior variances of the common mean and of context means: neither is shrunk
AXES = 64  # of the effects, when settings are compared


@dataclass(frozen=True)
class _Setting:
    kind: str  # linear or rbf kernel between perturbation vectors
    share: float
    identity: float  # weight of a perturbation's own, vector-free part: 0 or 1


@dataclass(frozen=True)
class Anchor:
    """Kernel ridge regression of effects: ``Y = mean + context mean + f(x, context) + noise``.

    The prior covariance of ``f`` between two rows is ``(k(x, x') + identity [number of perturbations that both have])
    (share + (1 - share) [same context])``; the identity part is additive in a set's members. This is
    intrinsic coregionalisation with one correlation between contexts. Kernel, share, identity and penalty are those
    with the smallest leave-one-unit-out squared error, in closed form (`left_out`); with one unit only, whose rows
    leave nothing to learn from, the largest penalty.

    Parameters
    ----------
    train : training rows.
    dual : shape (n, g), coefficients.
    setting, penalty : what was chosen.
    out_of_unit : shape (n, g), float32, predictions of training rows without the rows that share a unit with them; 0
        where no other is left.

    References
    ----------
    Bonilla, Chai and Williams (2008), Multi-task Gaussian process prediction, equation 2.
    """

    train: Inputs
    dual: np.ndarray
    setting: _Setting
    penalty: float
    out_of_unit: np.ndarray

    @classmethod
    def fitted(cls, inputs: Inputs, Y: np.ndarray) -> Anchor:
        """Choose and fit on rows (n, ...) and effects ``Y`` of shape (n, g)."""
        rows = _plain(inputs)
        _, axes, _ = pca(Y, AXES)
        scores = Y.astype(np.float64) @ axes if axes.shape[1] else Y[:, :1].astype(np.float64)
        blocks = unit_blocks(inputs.units)
        best = (np.inf, _Setting("linear", 1.0, 0.0), PENALTIES[-1])
        for setting in _settings(rows):
            value, vector = np.linalg.eigh(_prior(setting, rows, rows, rows))
            for penalty in PENALTIES:
                smoother = (vector * (np.maximum(value, 0) / (np.maximum(value, 0) + penalty))) @ vector.T
                errors = left_out(smoother, scores, blocks)
                error = float(np.nansum(np.square(errors))) if np.isfinite(errors).any() else np.inf
                if error < best[0]:
                    best = (error, setting, penalty)
        _, setting, penalty = best
        value, vector = np.linalg.eigh(_prior(setting, rows, rows, rows))
        value = np.maximum(value, 0)
        target = Y.astype(np.float64)
        dual = (vector / (value + penalty)) @ (vector.T @ target)
        errors = left_out((vector * (value / (value + penalty))) @ vector.T, target, blocks)
        unseen = target - np.where(np.isfinite(errors), errors, target)
        return cls(rows, dual, setting, penalty, unseen.astype(np.float32))

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n_query, g), float32."""
        prior = _prior(self.setting, _plain(inputs), self.train, self.train)
        return np.asarray(prior @ self.dual, dtype=np.float32)


def means_only(inputs: Inputs) -> Inputs:
    """The rows without vectors, entities and doses: an anchor of means over contexts."""
    return Inputs(inputs.X[:, :0], inputs.context, inputs.entities[:, :0], inputs.units)


def _plain(inputs: Inputs) -> Inputs:
    """The rows without cells (which may be open files) and what else the anchor does not read."""
    return Inputs(inputs.X, inputs.context, inputs.entities, inputs.units, dose=inputs.dose)


def _settings(rows: Inputs) -> Iterator[_Setting]:
    """Settings worth comparing: several contexts or none, vectors or none, repeated perturbations or none."""
    shares = SHARES if len(np.unique(rows.context)) > 1 else (1.0,)
    sets = indicator(rows.entities)
    repeated = bool(sets.nnz) and bool((np.diff(sets.tocsc().indptr) > 1).any())
    kinds = ("linear", "rbf") if rows.X.shape[1] else ("linear",)
    yield from (_Setting(*s) for s in product(kinds, shares, (0.0, 1.0) if repeated else (0.0,)))


def _features(rows: Inputs, train: Inputs) -> np.ndarray:
    """Vectors, centred and scaled to unit mean square norm over the training rows, and the standardised dose."""
    mean = train.X.mean(axis=0, dtype=np.float64)
    norm = np.sqrt(np.square(train.X - mean).sum(axis=1).mean()) if train.X.size else 1.0
    parts = [(rows.X - mean) / (norm or 1.0)]
    if train.dose is not None and rows.dose is not None and train.dose.std() > 0:
        parts.append(((rows.dose - train.dose.mean()) / train.dose.std())[:, None].astype(np.float64))
    return np.hstack(parts)


def _prior(setting: _Setting, rows: Inputs, train: Inputs, scale: Inputs) -> np.ndarray:
    """Prior covariance, shape (len(rows), len(train)), float64."""
    a, b = _features(rows, scale), _features(train, scale)
    if setting.kind == "linear":
        kernel = a @ b.T
    else:
        square = cdist(b, b, "sqeuclidean")
        width = float(np.median(square[np.triu_indices(len(b), 1)])) if len(b) > 1 else 1.0
        kernel = np.exp(-cdist(a, b, "sqeuclidean") / (width or 1.0))
    if setting.identity:
        sets = [indicator(part.entities) for part in (rows, train)]
        kernel = kernel + (sets[0] @ sets[1].T).toarray()
    together = rows.context[:, None] == train.context[None, :]
    kernel = kernel * (setting.share + (1 - setting.share) * together)
    return np.asarray(kernel + FLAT[0] + FLAT[1] * together, dtype=np.float64)
