"""PerturBench's covariate transfer: one draw of train, validation and test over (perturbation, context) pairs."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np

from embbench.core import Fold, PerturbationDataset, Split, UserError
from embbench.splits._units import as_units, transfer_codes, whole_number

Pair = tuple[str, str]  # perturbation label and context
SEEDS = 100_000  # sub-seeds lie below


class PerturbenchTransfer:
    """The same pairs in training, validation and test as PerturBench's released splitter gives.

    Perturbations are taken by their number of contexts, most first, then by label. From those with more than
    ``min_train`` contexts some are held out: a number drawn in 1 .. max(1, open - contexts + max_held), where open are
    its contexts that have not reached their cap of min(``fraction`` x perturbations, ``most``), the control counted as
    a perturbation. Held-out pairs that are alone in their context are in no part; the others are halved into validation
    and test, stratified by context. Sub-seeds, draws and halving use the generators of the original (numpy's
    ``RandomState``, Python's ``random``, scikit-learn's ``train_test_split``).

    Parameters
    ----------
    seed : >= 0.
    max_held : contexts held out of a perturbation at most where it has all of them, >= 1; as many as there are contexts
        would leave some perturbations without training rows, which the original allows too, and more cannot be drawn.
    min_train : only perturbations with more than so many contexts are drawn from, >= 1.
    fraction : in (0, 1], of the perturbations of a context.
    most : perturbations held out per context at most, >= 1.
    labels : covariate of the original perturbation labels, where their order is not that of the entity names joined by
        ``+``.
    order : covariate by which the rows follow each other in the original table, e.g. the number of their first cell;
        None: the order of the screen's rows. A perturbation's contexts are drawn from in the order they appear.

    Raises
    ------
    ValueError
        A parameter out of range.

    References
    ----------
    Wu et al. (2024), PerturBench, arXiv:2408.10609, and its released ``split_covariates``, whose configuration gives
    the defaults (seed 42, one held-out context).

    Examples
    --------
    >>> sets, lines = tuple((p,) for p in "ABCDEFGH" for _ in "xy"), np.array(["x", "y"] * 8)
    >>> toy = PerturbationDataset("toy", np.zeros((16, 1), np.float32), "delta", np.array(["G"]), sets, lines)
    >>> fold, = PerturbenchTransfer(seed=42).split(toy).folds
    >>> len(fold.train), len(fold.validation), len(fold.test)
    (10, 3, 3)
    """

    def __init__(
        self,
        seed: int = 42,
        max_held: int = 1,
        min_train: int = 1,
        fraction: float = 0.3,
        most: int = 200,
        *,
        labels: str | None = None,
        order: str | None = None,
    ) -> None:
        owner = "perturbench_transfer"
        self.seed = whole_number(owner, "seed", seed, 0)
        self.max_held = whole_number(owner, "max_held", max_held, 1)
        self.min_train = whole_number(owner, "min_train", min_train, 1)
        self.most = whole_number(owner, "most", most, 1)
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise ValueError(f"{owner}: fraction must be in (0, 1], got {fraction!r}")
        self.fraction, self.labels, self.order = float(fraction), labels, order

    def split(self, data: PerturbationDataset) -> Split:
        """One fold over the pairs of ``data``; effects are never read.

        Raises
        ------
        UserError
            No such covariate, several labels of one perturbation, or no two held-out pairs in any context.
        """
        pairs = self._pairs(data)
        held = self._held(data, pairs)
        validation, test = self._halved(data, held)
        out = set(held)
        parts = [
            np.array([i for i, pair in enumerate(pairs) if keep(pair)], dtype=np.int64)
            for keep in (lambda pair: pair not in out, test.__contains__, validation.__contains__)
        ]
        return Split("transfer", (Fold(f"seed{self.seed}", *parts),), as_units(transfer_codes(data)))

    def _pairs(self, data: PerturbationDataset) -> list[Pair]:
        """Label and context of each row."""
        if self.labels is None:
            names = ["+".join(entities) for entities in data.entities]
        else:
            names = [str(name) for name in self._column(data, self.labels, "labels").tolist()]
        told = list(zip(data.entities, data.context.tolist(), names, strict=True))
        if (more := len(set(told)) - len({row[:2] for row in told})) > 0:
            raise UserError(
                f"dataset {data.name!r}: expected one label per perturbation and context in {self.labels!r}, found "
                f"{more} more; they could be trained and tested at once: leave labels out"
            )
        return list(zip(names, data.context.tolist(), strict=True))

    def _column(self, data: PerturbationDataset, name: str, option: str) -> np.ndarray:
        if name not in data.covariates:
            known = ", ".join(sorted(data.covariates)) or "none"
            raise UserError(
                f"dataset {data.name!r}: no column {name!r} for perturbench_transfer's {option}; columns: {known} "
                "(carry it along with keep or --covariates)"
            )
        return np.asarray(data.covariates[name])

    def _held(self, data: PerturbationDataset, pairs: list[Pair]) -> list[Pair]:
        """Held-out pairs, in the order they are drawn."""
        from sklearn.utils import check_random_state

        rows = range(len(data))
        if self.order is not None:
            rows = np.argsort(self._column(data, self.order, "order"), kind="stable").tolist()
        contexts: dict[str, list[str]] = {label: [] for label in sorted({label for label, _ in pairs})}
        size: Counter[str] = Counter()
        for label, context in dict.fromkeys(pairs[i] for i in rows):
            contexts[label].append(context)
            size[context] += 1
        if self.max_held > len(data.contexts):
            raise UserError(
                f"dataset {data.name!r}: perturbench_transfer cannot hold out max_held={self.max_held} contexts of "
                f"{len(data.contexts)}; lower max_held"
            )
        cap = {c: min(self.fraction * (n + 1), self.most) for c, n in size.items()}  # the control is one more
        rng, counts, held = check_random_state(self.seed), Counter[str](), []
        ordered = sorted(contexts.items(), key=lambda item: -len(item[1]))
        seeds = [int(rng.randint(SEEDS)) for _ in ordered]
        for (label, seen), seed in zip(ordered, seeds, strict=True):
            free = [c for c in seen if counts[c] < cap[c]]
            if len(seen) <= self.min_train or not free:
                continue
            draw = random.Random(seed)
            number = draw.randint(1, max(1, len(free) - len(data.contexts) + self.max_held))
            chosen = draw.sample(free, number)
            counts.update(chosen)
            held += [(label, context) for context in chosen]
        return held

    def _halved(self, data: PerturbationDataset, held: list[Pair]) -> tuple[set[Pair], set[Pair]]:
        """Validation and test pairs, those alone in their context left out."""
        from sklearn.model_selection import train_test_split

        counts = Counter(context for _, context in held)
        several = [pair for pair in held if counts[pair[1]] > 1]
        strata = [str(frozenset([context])) for _, context in several]  # as the original orders them
        if not several:
            raise UserError(
                f"dataset {data.name!r}: perturbench_transfer holds out {len(held)} pairs, {len(several)} of them in "
                "contexts with two or more; expected at least two in some context: use covariate_transfer, or raise "
                "fraction or max_held"
            )
        validation, test = train_test_split(several, stratify=strata, test_size=0.5, random_state=self.seed)
        return set(validation), set(test)
