"""Shared by context extractors: control means of the contexts whose controls are open."""

from __future__ import annotations

import numpy as np

from embbench.core import PerturbationDataset, UserError


def control_means(train: PerturbationDataset | None, asker: str) -> tuple[list[str], np.ndarray]:
    """Context names and their control means of shape (m, g), contexts without finite means left out.

    Raises
    ------
    UserError
        The dataset has no control expression.

    Examples
    --------
    >>> control_means(None, "pca")
    Traceback (most recent call last):
    embbench.core.screen.UserError: pca needs control expression, found no dataset; use a screen with control cells
    """
    if train is None or train.baseline is None:
        found = "no dataset" if train is None else f"dataset {train.name!r} without baseline"
        raise UserError(f"{asker} needs control expression, found {found}; use a screen with control cells")
    known = np.flatnonzero(np.isfinite(train.baseline).all(axis=1))
    return [train.contexts[i] for i in known], train.baseline[known]
