"""The Virtual Cell Challenge score: three metrics, each relative to the mean of the training perturbations."""

from __future__ import annotations

import numpy as np

from embbench.core import Composite

ZERO_IS_BEST = np.array([True, False, False])


def _relative(means: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Mean over the parts of ``1 - x / base`` (0 is best) or ``(x - base) / (1 - base)`` (1 is best), each at least 0.

    A part that is undefined counts 0, as does one whose baseline is perfect already.
    """
    room = np.where(ZERO_IS_BEST, base, 1.0 - base)
    gain = np.where(ZERO_IS_BEST, base - means, means - base)
    share = np.divide(gain, room, out=np.zeros_like(means), where=room > 0)
    return np.maximum(np.nan_to_num(share, nan=0.0), 0.0).mean(axis=1)


SOURCE = (
    "cell-eval 0.8.2, `cell-eval score` on profile vcc = {mae, discrimination_score_l1, overlap_at_N}; "
    "Roohani et al. (2025), Virtual Cell Challenge, Cell 188:3370"
)
PARTS = ("mae_all", "discrimination_l1_cell_eval_notarget")

vcc_effects = Composite(
    _relative, (*PARTS, "de_overlap_n_effects_all"), "context_mean", "high", SOURCE, lower=0.0, upper=1.0
)
vcc_cells = Composite(
    _relative, (*PARTS, "de_overlap_n_cells_cell_eval_all"), "context_mean", "high", SOURCE, lower=0.0, upper=1.0
)
