"""Covariate transfer: a perturbation seen in some contexts is predicted in others that are themselves in training."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from embbench.core import Fold, PerturbationDataset, Split
from embbench.splits._units import as_units, enough, transfer_codes, whole_number


class CovariateTransfer:
    """k folds over (entity set, context) pairs of perturbations that occur in two or more contexts.

    Every such row is tested once, and every tested perturbation keeps a training context: its contexts are dealt to
    different folds, each to the fold that so far holds out fewest pairs of that context. Perturbations of one context
    are always trained.

    Parameters
    ----------
    folds : number of folds, >= 2; else ValueError.
    seed : seed of the order of dealing and of ties.

    References
    ----------
    Wu et al. (2024), PerturBench, arXiv:2408.10609: covariate transfer, cut into folds instead of one draw.

    Examples
    --------
    >>> sets, lines = (("A",), ("A",), ("B",)), np.array(["K562", "RPE1", "K562"])
    >>> toy = PerturbationDataset("toy", np.zeros((3, 1), np.float32), "delta", np.array(["G"]), sets, lines)
    >>> sorted((fold.train.tolist(), fold.test.tolist()) for fold in CovariateTransfer(folds=2).split(toy).folds)
    [([0, 2], [1]), ([1, 2], [0])]
    """

    def __init__(self, folds: int = 5, seed: int = 0) -> None:
        self.folds = whole_number("covariate_transfer", "folds", folds, 2)
        self.seed = whole_number("covariate_transfer", "seed", seed, 0)

    def split(self, data: PerturbationDataset) -> Split:
        """Folds over the transferable pairs of ``data``; effects are never read.

        Raises
        ------
        UserError
            One context, or no perturbation in two contexts.
        """
        contexts = defaultdict(set)
        for entities, context in zip(data.entities, data.context.tolist(), strict=True):
            contexts[entities].add(context)
        enough(data, len(set(data.context.tolist())), 2, "contexts for covariate_transfer", "use unseen_perturbation")
        shared = {entities: sorted(seen) for entities, seen in contexts.items() if len(seen) > 1}
        step = "use unseen_context or unseen_perturbation"
        enough(data, len(shared), 1, "perturbations that occur in 2 contexts for covariate_transfer", step)
        fold_of = self._deal(shared)
        pairs = zip(data.entities, data.context.tolist(), strict=True)
        home = np.array([fold_of.get(pair, -1) for pair in pairs], dtype=np.int64)
        folds = tuple(
            Fold(f"fold{k}", np.flatnonzero(home != k), np.flatnonzero(home == k)) for k in np.unique(home[home >= 0])
        )
        return Split("transfer", folds, as_units(transfer_codes(data)))

    def _deal(self, shared: dict[tuple[str, ...], list[str]]) -> dict[tuple[tuple[str, ...], str], int]:
        """Fold of each (entity set, context)."""
        rng = np.random.default_rng(self.seed)
        held: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(self.folds))
        total = np.zeros(self.folds)
        fold_of = {}
        sets = sorted(shared)
        for i in rng.permutation(len(sets)):
            used = np.zeros(self.folds)
            for j in rng.permutation(len(shared[sets[i]])):
                context = shared[sets[i]][j]
                k = int(np.lexsort((rng.permutation(self.folds), total, held[context], used))[0])
                fold_of[sets[i], context] = k
                for counter in (used, held[context], total):
                    counter[k] += 1
        return fold_of
