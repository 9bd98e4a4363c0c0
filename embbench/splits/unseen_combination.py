"""Unseen combination: whole sets of perturbations are held out; single perturbations stay in training."""

from __future__ import annotations

import numpy as np

from embbench.core import Fold, PerturbationDataset, Split
from embbench.numerics.folds import partition
from embbench.splits._units import as_units, codes, enough, members_in, whole_number


class UnseenCombination:
    """k folds over the unordered sets of two or more entities; a set is held out in all contexts and doses together.

    Test rows are grouped by how many members of the set occur alone in training ("0 of 2 singles seen").

    Parameters
    ----------
    folds : number of folds, >= 2 (else ValueError) and at most the number of sets.
    seed : seed of the partition.

    References
    ----------
    Roohani, Huang and Leskovec (2024), GEARS, Nature Biotechnology 42:927: combinations by members seen in training.

    Examples
    --------
    >>> sets, lines = (("A",), ("B",), ("A", "B"), ("A", "C")), np.array(["K562"] * 4)
    >>> toy = PerturbationDataset("toy", np.zeros((4, 1), np.float32), "delta", np.array(["G"]), sets, lines)
    >>> sorted(str(fold.groups[0]) for fold in UnseenCombination(folds=2).split(toy).folds)
    ['1 of 2 singles seen', '2 of 2 singles seen']
    """

    def __init__(self, folds: int = 5, seed: int = 0) -> None:
        self.folds = whole_number("unseen_combination", "folds", folds, 2)
        self.seed = whole_number("unseen_combination", "seed", seed, 0)

    def split(self, data: PerturbationDataset) -> Split:
        """Folds over the combinations of ``data``; effects are never read.

        Raises
        ------
        UserError
            Fewer than 2 combinations, or fewer than folds.
        """
        sets = sorted({row for row in data.entities if len(row) > 1})
        enough(data, len(sets), 2, "combinations (sets of 2 or more) for unseen_combination", "use unseen_perturbation")
        step = f"use fewer folds, e.g. unseen_combination:{len(sets)}"
        enough(data, len(sets), self.folds, f"combinations for {self.folds} folds", step)
        fold_of = dict(zip(sets, partition(len(sets), self.folds, self.seed).tolist(), strict=True))
        home = np.array([fold_of.get(row, -1) for row in data.entities])
        folds = []
        for k in range(self.folds):
            train, test = np.flatnonzero(home != k), np.flatnonzero(home == k)
            alone = members_in(test, data, {data.entities[i][0] for i in train if len(data.entities[i]) == 1})
            groups = [f"{a} of {len(data.entities[i])} singles seen" for a, i in zip(alone, test, strict=True)]
            folds.append(Fold(f"fold{k}", train, test, groups=np.array(groups)))
        return Split("combination", tuple(folds), as_units(codes(data.entities)))
