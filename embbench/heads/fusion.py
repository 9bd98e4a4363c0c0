"""Attention over several embeddings at once, from whichever of them a row has, to the effect."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from scipy.optimize import nnls

from embbench.core import Inputs
from embbench.heads._fusion import FusionHead, Loss, Tokens
from embbench.heads._fusion_ridge import LinearPart
from embbench.heads._smoother import check_rows
from embbench.heads._target import Target


class Fusion(FusionHead):
    """A small transformer over one token per embedding, a context token and a query token whose last state predicts,
    beside ridge regression on all embeddings side by side.

    Both learn the deviation from the context mean, as scores on its principal axes. Missing embeddings count as their
    mean in ridge and are masked out of attention, which training practises by dropping whole embeddings (never all of a
    row). A context without training rows has a zero one-hot, practised by hiding that of a tenth of the rows.

    The transformer is the mean of ``folds`` members, each fitted without a part of the units. The penalty of ridge, the
    length of training, and the two non-negative weights with which ridge and transformer are added are those that
    predict these parts best. Without information in the embeddings the prediction is the context mean; so it is with
    fewer than two units, where nothing can be held out. One embedding alone is one token.

    Parameters
    ----------
    As in `embbench.heads._fusion.FusionHead`.

    References
    ----------
    Littman et al. (2025), PRESAGE (bioRxiv 2025.06.03.657653): gene embeddings from several sources pooled by
    attention; Vaswani et al. (2017), Attention is all you need, section 3.2; members on folds: Krogh and Vedelsby
    (1995); weights from out-of-fold predictions: Breiman (1996), Stacked regressions, Machine Learning 24:49.

    Examples
    --------
    >>> Fusion(heads=3)
    Traceback (most recent call last):
    ValueError: Fusion: heads must divide width 64, got 3
    """

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Train on inputs (n, ...) and effects ``Y`` (n, g); ``observed`` is not used, since unobserved entries of
        ``Y`` come filled.
        """
        check_rows(self, inputs, Y)
        self.target_, self.tokens_ = Target.fitted(inputs, Y, self.rank), Tokens.fitted(inputs)
        folds, rank = self._folds(inputs), self.target_.axes.shape[1]
        self.linear_: LinearPart | None = None
        if not rank or not folds:  # every row equals its context mean, or nothing can be held out
            return self
        scores = self.target_.scores(inputs, Y)
        self.linear_ = LinearPart.fitted(*self._linear(inputs), scores.astype(np.float64), folds)
        out, _ = self._train(inputs, folds, rank, lambda device: _squared(torch.from_numpy(scores).to(device)))
        attended = np.zeros_like(self.linear_.out_of_fold)
        for member, (_, held) in enumerate(folds):
            attended[held] = out[member, : len(held)].numpy()
        self.weights_ = nnls(np.stack([self.linear_.out_of_fold.ravel(), attended.ravel()], axis=1), scores.ravel())[0]
        return self

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Effects, shape (n, g), float32; RuntimeError before ``fit``."""
        if not hasattr(self, "target_"):
            raise RuntimeError("Fusion.predict called before fit")
        out = self.target_.base(inputs.context)
        if self.linear_ is not None:
            attended = self._outputs(inputs).mean(dim=0).numpy()
            scores = self.weights_[0] * self.linear_(*self._linear(inputs)) + self.weights_[1] * attended
            out += scores * self.target_.scale @ self.target_.axes.T
        return out.astype(np.float32)

    def _linear(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Features of the linear part, each block of root mean square norm 1, and one-hot training contexts."""
        x, context, _ = self.tokens_(inputs)
        widths = [s.stop - s.start for _, s in self.tokens_.blocks]
        return x / np.sqrt(np.repeat(widths, widths)), context[:, : len(self.tokens_.context.contexts)]


def _squared(target: torch.Tensor) -> Loss:
    """Mean squared error of each row's outputs against a target (n, r)."""
    return lambda out, rows: (out - target[rows]).square().mean(dim=-1)
