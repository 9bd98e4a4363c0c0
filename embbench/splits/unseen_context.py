"""Unseen context: each cell type, line or donor in turn, zero-shot or with a few perturbations of it in training."""

from __future__ import annotations

import zlib

import numpy as np

from embbench.core import Fold, PerturbationDataset, Split, UserError
from embbench.splits._units import as_units, enough, whole_number


class UnseenContext:
    """One fold per context: its rows are tested, those of all other contexts are trained.

    With ``few_shot=n``, n perturbations of the held-out context (all their doses) are training rows and never scored.
    The support sets are nested: those of n are contained in those of any larger n. When some tested perturbation
    occurs in no training row, test rows are grouped by that.

    Parameters
    ----------
    few_shot : support perturbations per held-out context; 0 is zero-shot, ValueError below.
    seed : seed of the order in which perturbations enter the support.

    References
    ----------
    Lotfollahi, Wolf and Theis (2019), scGen, Nature Methods 16:715: a cell type held out of training.

    Examples
    --------
    >>> sets, lines = (("A",), ("B",), ("A",)), np.array(["K562", "K562", "RPE1"])
    >>> toy = PerturbationDataset("toy", np.zeros((3, 1), np.float32), "delta", np.array(["G"]), sets, lines)
    >>> [(fold.name, fold.test.tolist()) for fold in UnseenContext().split(toy).folds]
    [('K562', [0, 1]), ('RPE1', [2])]
    """

    def __init__(self, few_shot: int = 0, seed: int = 0) -> None:
        self.few_shot = whole_number("unseen_context", "few_shot", few_shot, 0)
        self.seed = whole_number("unseen_context", "seed", seed, 0)

    def split(self, data: PerturbationDataset) -> Split:
        """One fold for each context that has rows; effects are never read.

        Raises
        ------
        UserError
            Fewer than 2 contexts, or a context with no perturbation left to score.
        """
        code = data.context_codes
        present = np.unique(code)
        enough(data, len(present), 2, "contexts with rows for unseen_context", "use unseen_perturbation")
        parts = [(data.contexts[c], self._support(data, np.flatnonzero(code == c))) for c in present]
        tests = [np.flatnonzero((data.context == name) & ~support) for name, support in parts]
        trains = [np.flatnonzero((data.context != name) | support) for name, support in parts]
        groups = [_seen(data, train, test) for train, test in zip(trains, tests, strict=True)]
        mixed = any((g == "perturbation unseen").any() for g in groups)
        folds = [
            Fold(name, train, test, groups=group if mixed else None)
            for (name, _), train, test, group in zip(parts, trains, tests, groups, strict=True)
        ]
        return Split("context", tuple(folds), as_units(code))

    def _support(self, data: PerturbationDataset, rows: np.ndarray) -> np.ndarray:
        """(n,) bool of support rows among ``rows`` of one context; depends on seed and context name alone."""
        support = np.zeros(len(data), dtype=bool)
        if not self.few_shot:
            return support
        name, sets = str(data.context[rows[0]]), sorted({data.entities[i] for i in rows})
        if len(sets) <= self.few_shot:
            raise UserError(
                f"dataset {data.name!r}: unseen_context:few_shot={self.few_shot} needs more perturbations than that in "
                f"every context, found {len(sets)} in {name!r}; use few_shot < {len(sets)}"
            )
        order = np.random.default_rng([self.seed, zlib.crc32(name.encode())]).permutation(len(sets))
        chosen = {sets[i] for i in order[: self.few_shot]}
        support[[i for i in rows if data.entities[i] in chosen]] = True
        return support


def _seen(data: PerturbationDataset, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Whether each test row's perturbation (the set) has a training row."""
    known = {data.entities[i] for i in train}
    return np.array([f"perturbation {'seen' if data.entities[i] in known else 'unseen'}" for i in test])
