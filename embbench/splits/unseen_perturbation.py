"""Unseen perturbation: whole perturbations are held out, in every context and in every combination."""

from __future__ import annotations

import numpy as np

from embbench.core import Fold, PerturbationDataset, Split
from embbench.numerics.folds import first_fold, partition
from embbench.splits._units import enough, entity_units, members_in, whole_number


class UnseenPerturbation:
    """k folds over entities, one partition for all contexts.

    A row is tested once, in the lowest-numbered fold among its entities; a row that contains any entity of a fold is
    absent from that fold's training rows (holding out A also holds out A+B). Combinations are grouped by how many of
    their members occur in training.

    Parameters
    ----------
    folds : number of folds, >= 2 (else ValueError) and at most the number of entities.
    seed : seed of the partition.

    References
    ----------
    Roohani, Huang and Leskovec (2024), GEARS, Nature Biotechnology 42:927: whole perturbed genes held out.

    Examples
    --------
    >>> sets, lines = (("A",), ("B",), ("A",)), np.array(["K562", "K562", "RPE1"])
    >>> toy = PerturbationDataset("toy", np.zeros((3, 1), np.float32), "delta", np.array(["G"]), sets, lines)
    >>> sorted(fold.test.tolist() for fold in UnseenPerturbation(folds=2).split(toy).folds)
    [[0, 2], [1]]
    """

    def __init__(self, folds: int = 5, seed: int = 0) -> None:
        self.folds = whole_number("unseen_perturbation", "folds", folds, 2)
        self.seed = whole_number("unseen_perturbation", "seed", seed, 0)

    def split(self, data: PerturbationDataset) -> Split:
        """Folds over the entities of ``data``; effects are never read.

        Raises
        ------
        UserError
            Fewer entities than folds, or no row without the held-out entities.
        """
        names = data.entity_names
        enough(data, len(names), 2, "perturbations for unseen_perturbation", "use unseen_context or more perturbations")
        step = f"use fewer folds, e.g. unseen_perturbation:{len(names)}"
        enough(data, len(names), self.folds, f"perturbations for {self.folds} folds", step)
        units = entity_units(data)
        home, touches = first_fold(units, partition(len(names), self.folds, self.seed))
        folds = []
        for k in range(self.folds):
            train, test = np.flatnonzero(~touches[:, k]), np.flatnonzero(home == k)
            if not len(test):  # only combinations, all tested in earlier folds
                continue
            step = "combinations tie all perturbations together: use fewer folds, or unseen_combination"
            enough(data, len(train), 1, f"training rows in fold {k}", step)
            folds.append(Fold(f"fold{k}", train, test, groups=_groups(data, train, test)))
        return Split("perturbation", tuple(folds), units)


def _groups(data: PerturbationDataset, train: np.ndarray, test: np.ndarray) -> np.ndarray | None:
    """Per test row "single", or how many members of its combination are in training; None without combinations."""
    if max(len(row) for row in data.entities) == 1:
        return None
    seen = members_in(test, data, {e for i in train for e in data.entities[i]})
    sizes = [len(data.entities[i]) for i in test]
    return np.array(
        ["single" if m == 1 else f"combination: {s or 'none'} of {m} seen" for s, m in zip(seen, sizes, strict=True)]
    )
