"""What a field is told about a row: context, dose, perturbation vector, and the anchor's latent move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from embbench.core import Inputs
from embbench.heads._torch import RowEncoder

HIDE_CONTEXT = 0.1  # of training pairs, so that unseen contexts are practised


@dataclass(frozen=True)
class Conditions:
    """Columns, in order: is the perturbation told; one-hot of training contexts; the perturbation's features;
    context vector and dose; the anchor's latent move.

    Parameters
    ----------
    encoder : of contexts, features, context vector and dose, in this order.
    contexts, features, width : columns of the one-hot, of the features and of the latent move.
    """

    encoder: RowEncoder
    contexts: int
    width: int
    features: int

    @classmethod
    def fitted(cls, inputs: Inputs, width: int) -> Conditions:
        """Scales of the training rows; ``width`` is that of the latent moves."""
        encoder = RowEncoder.fitted(inputs)
        return cls(encoder, len(encoder.contexts), width, inputs.X.shape[1])

    def __call__(self, inputs: Inputs, moves: np.ndarray) -> np.ndarray:
        """Conditions of rows (n, ...) with latent moves (n, k), float32."""
        told = np.ones((len(inputs), 1), dtype=np.float32)
        return np.hstack([told, self.encoder(inputs), moves]).astype(np.float32)

    @property
    def hide(self) -> float:
        """Share of training pairs whose context one-hot is hidden."""
        return HIDE_CONTEXT

    def hidden(self, told: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Conditions (b, p) with the perturbation, and the context one-hot, kept as the columns of ``keep`` (b, 2) say.

        Hidden columns are 0, the mean of training rows.
        """
        perturbation, context = keep[:, :1].to(told), keep[:, 1:].to(told)
        first = 1 + self.contexts
        vectors = slice(first, first + self.features)
        out = told.clone()
        out[:, :1] *= perturbation
        out[:, 1:first] *= context
        out[:, vectors] *= perturbation
        out[:, -self.width :] *= perturbation
        return out

    def foreign(self, told: torch.Tensor, fitted: torch.Tensor) -> torch.Tensor:
        """Conditions (b, p) without the one-hot of contexts that no row of ``fitted`` (m, p) has: as in a query."""
        onehot = slice(1, 1 + self.contexts)
        known = (told[:, onehot] * fitted[:, onehot].amax(dim=0)).sum(dim=1) > 0
        return self.hidden(told, torch.stack([torch.ones_like(known), known], dim=1))

    def nothing(self, told: torch.Tensor) -> torch.Tensor:
        """Conditions (b, p) whose perturbation is hidden."""
        keep = torch.tensor([[False, True]], device=told.device).expand(len(told), 2)
        return self.hidden(told, keep)
