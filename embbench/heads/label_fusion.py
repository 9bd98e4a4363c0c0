"""Attention over several embeddings at once to the DE labels of all genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from embbench.core import Inputs
from embbench.heads._fusion import FusionHead, Loss, Tokens
from embbench.heads._labels import CLASSES, LabelHead, class_counts, frequencies, known_labels
from embbench.numerics.linalg import pca

SHRINK = np.linspace(0.0, 1.0, 11)  # factors of the logits that are compared on rows held out


@dataclass(frozen=True)
class _Logits:
    """Log odds of down and up against none: those of smoothed class frequencies, plus scores on a few axes.

    The axes are principal axes of the labels' standardised residuals r / sqrt(p (1 - p)), which is what one Newton
    step from the frequencies aims at, weighted by the curvature p (1 - p).

    Parameters
    ----------
    prior : (2, g) log odds of the frequencies, half a count added to each class.
    axes : (k, 2, g), log odds per unit of a score.
    """

    prior: np.ndarray
    axes: np.ndarray

    @classmethod
    def fitted(cls, labels: np.ndarray, tested: np.ndarray, rank: int) -> _Logits:
        """From labels (n, g) and the tested mask (n, g), on at most ``rank`` axes.

        References
        ----------
        McCullagh and Nelder (1989), Generalized Linear Models, section 2.5 (working residuals and weights).
        """
        share = frequencies(class_counts(labels, tested) + 0.5)
        p = share[:, [0, 2]].T
        spread = np.sqrt(p * (1 - p))
        hits = np.stack([labels == CLASSES[0], labels == CLASSES[2]], axis=1)
        residual = (np.where(tested[:, None], hits - p, 0.0) / spread).reshape(len(labels), -1)
        _, axes, singular = pca(residual, rank)
        scale = singular / np.sqrt(len(labels))
        return cls(np.log(p / share[:, 1]), (axes * scale).T.reshape(-1, *p.shape) / spread)


class LabelFusion(FusionHead, LabelHead):
    """A small transformer over one token per embedding, a context token and a query token, whose last state moves the
    class frequencies of all genes: P = softmax(log frequency + scores @ axes).

    A zero output is exactly `label_prior`, and training starts there. Missing embeddings are masked out of attention,
    which training practises by dropping whole embeddings (never all of a row). The prediction is the mean of the logits
    of ``folds`` members, each fitted without a part of the units, times the factor in [0, 1] with which they give these
    parts the highest likelihood; so is the length of training chosen. With fewer than two units it is the prior. A
    label that a gene never has in training keeps probability 0.

    Parameters
    ----------
    As in `embbench.heads._fusion.FusionHead`; ``rank`` is the number of axes of the labels.

    References
    ----------
    Littman et al. (2025), PRESAGE (bioRxiv 2025.06.03.657653); Vaswani et al. (2017), Attention is all you need,
    section 3.2; low-rank logits: Yee and Hastie (2003), Reduced-rank vector generalized linear models, section 2.

    Examples
    --------
    >>> LabelFusion(folds=1)
    Traceback (most recent call last):
    ValueError: LabelFusion: folds must be a whole number >= 2, got 1
    """

    def fit(self, inputs: Inputs, Y: np.ndarray, observed: np.ndarray | None = None) -> Self:
        """Train on inputs (n, ...) and labels ``Y`` (n, g) where ``observed`` (n, g) says that they were tested."""
        labels, tested = known_labels(self, inputs, Y, observed)
        with np.errstate(divide="ignore"):
            self.prior_ = np.log(frequencies(class_counts(labels, tested)))
        self.tokens_, folds = Tokens.fitted(inputs), self._folds(inputs)
        self.axes_ = np.zeros((0, 2, Y.shape[1]), dtype=np.float32)
        parts = [_Logits.fitted(labels[fit], tested[fit], self.rank) for fit, _ in folds]
        rank = max((len(part.axes) for part in parts), default=0)
        if not rank:
            return self
        prior = np.stack([part.prior for part in parts]).astype(np.float32)
        axes = np.zeros((len(parts), rank, *prior.shape[1:]), dtype=np.float32)
        for member, part in enumerate(parts):
            axes[member, : len(part.axes)] = part.axes
        arrays = (prior, axes, np.where(tested, labels + 1, -1).astype(np.int8))

        def loss_of(device: torch.device) -> Loss:
            return _cross_entropy(*(torch.from_numpy(array).to(device) for array in arrays))

        _, held_loss = self._train(inputs, folds, rank, loss_of)
        share = min(SHRINK.tolist(), key=held_loss)
        self.axes_ = axes.reshape(-1, *axes.shape[2:]) * np.float32(share / len(parts))
        return self

    def predict_proba(self, inputs: Inputs) -> np.ndarray:
        """Probabilities (n, g, 3) of down, none, up, float32; RuntimeError before ``fit``."""
        if not hasattr(self, "prior_"):
            raise RuntimeError("LabelFusion.predict called before fit")
        logits = np.repeat(self.prior_[None], len(inputs), axis=0)
        if len(self.axes_):
            scores = self._outputs(inputs).transpose(0, 1).flatten(1).numpy()
            logits[:, :, [0, 2]] += np.einsum("nk,kcg->ngc", scores, self.axes_, optimize=True)
        proba = np.exp(logits - logits.max(axis=2, keepdims=True))
        return (proba / proba.sum(axis=2, keepdims=True)).astype(np.float32)


def _cross_entropy(prior: torch.Tensor, axes: torch.Tensor, code: torch.Tensor) -> Loss:
    """Each row's mean cross entropy over its tested genes: members' log odds (K, 2, g) and axes (K, k, 2, g), classes
    (n, g) int8 in 0..2, -1 where untested.
    """

    def loss(out: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        members, count, _ = out.shape
        odds = torch.bmm(out, axes.flatten(2)).reshape(members, count, *prior.shape[1:]) + prior[:, None]
        down, up, truth = odds[:, :, 0], odds[:, :, 1], code[rows]
        log_total = torch.logaddexp(torch.logaddexp(down, up), torch.zeros_like(down))
        own = torch.where(truth == 0, down, torch.where(truth == 2, up, 0.0))
        seen = truth >= 0
        return ((log_total - own) * seen).sum(dim=-1) / seen.sum(dim=-1).clamp(min=1)

    return loss
