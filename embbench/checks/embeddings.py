"""Contracts of embedding extractors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embbench.checks._contract import Make, name_of, require
from embbench.checks._toy import COMPOUNDS, CONTEXTS, KNOWN, UNKNOWN, ToyCells, toy_screen
from embbench.core import CellView, Counts, Embedding, PerturbationDataset

READS = {"controls", "effects", "truth"}
ENTITIES = ("gene", "compound", "context", "cell", "any")
NOBODY = "no such name"


def toy_names(entity: str) -> list[str]:
    """Names of the toy screen that an extractor of an entity kind is asked for."""
    kinds = {"compound": COMPOUNDS, "context": CONTEXTS}
    return list(kinds.get(entity, KNOWN[:10] + UNKNOWN[:1]))


def train_view(extractor: Any, screen: PerturbationDataset) -> PerturbationDataset | None:
    """What the grid hands out: None to static extractors, the whole screen to oracles, a training view to others."""
    if not extractor.reads:
        return None
    return screen if extractor.oracle else screen.training(train_rows(screen))


def train_rows(screen: PerturbationDataset) -> np.ndarray:
    """Training rows (two of three) of the toy screen.

    Examples
    --------
    >>> train_rows(range(6)).tolist()
    [0, 2, 3, 5]
    """
    return np.flatnonzero(np.arange(len(screen)) % 3 != 1)


def _screen(extractor: Any, seed: int = 0) -> PerturbationDataset:
    return toy_screen(seed, "compound" if extractor.entity == "compound" else "gene")


def _compute(make: Make, names: Sequence[str] | None = None, screen: PerturbationDataset | None = None) -> Embedding:
    extractor = make()
    names = toy_names(extractor.entity) if names is None else names
    return extractor.compute(names, train_view(extractor, _screen(extractor) if screen is None else screen))


def vectors_of(table: Embedding) -> dict[Any, np.ndarray]:
    """name, or (name, context) -> vector."""
    names = table.names.tolist()
    keys = names if table.contexts is None else list(zip(names, table.contexts.tolist(), strict=True))
    return dict(zip(keys, table.matrix, strict=True))


def same_table(a: Embedding, b: Embedding, tolerance: float = 0.0) -> bool:
    """Same keys with equal vectors, whatever their order.

    Examples
    --------
    >>> a, b = (Embedding(np.array(names), np.eye(2)) for names in (["A", "B"], ["B", "A"]))
    >>> same_table(a, a), same_table(a, b)
    (True, False)
    """
    left, right = vectors_of(a), vectors_of(b)
    return left.keys() == right.keys() and all(_near(v, right[k], tolerance) for k, v in left.items())


def _near(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))


def embedding_declares_what_it_reads(make: Make) -> None:
    """Entity kind and ``reads`` are known words; flags are bools; oracles read the truth, and only they."""
    extractor = make()
    require(extractor.entity in ENTITIES, f"{name_of(extractor)}.entity must be of {ENTITIES}: {extractor.entity!r}")
    reads = extractor.reads
    known = isinstance(reads, frozenset) and reads <= READS
    require(known, f"{name_of(extractor)}.reads must be a frozenset of {sorted(READS)}, found {reads!r}")
    for flag in ("names_matter", "needs_names", "needs_cells", "oracle"):
        value = getattr(extractor, flag, None)
        require(isinstance(value, bool), f"{name_of(extractor)}.{flag} must be True or False, found {value!r}")
    honest = ("truth" in reads) == extractor.oracle
    require(honest, f"{name_of(extractor)}: oracle is {extractor.oracle} but it reads {sorted(reads)}")


def embedding_gives_a_table(make: Make) -> None:
    """Finite float32 or float64 vectors for some of the asked names and no others; entity as declared."""
    extractor, table = make(), _compute(make)
    require(isinstance(table, Embedding), f"{name_of(extractor)}.compute must give an Embedding, found {type(table)}")
    kind = table.matrix.dtype
    require(kind in (np.float32, np.float64), f"{name_of(extractor)}: vectors must be float32 or float64, found {kind}")
    require(np.isfinite(table.matrix).all(), f"{name_of(extractor)}: vectors must be finite; leave missing names out")
    width = table.matrix.shape[1]
    require(width > 0, f"{name_of(extractor)}: vectors have no column")
    strange = sorted(set(table.names.tolist()) - set(toy_names(extractor.entity)))
    require(not strange, f"{name_of(extractor)} answers for names that were not asked: {strange[:3]}")
    agrees = "any" in (extractor.entity, table.entity) or table.entity == extractor.entity
    require(agrees, f"{name_of(extractor)}: the table is of {table.entity!r}, declared {extractor.entity!r}")


def embedding_knows_a_toy_name(make: Make) -> None:
    """At least one known name has a vector: otherwise every other check would pass vacuously."""
    extractor, table = make(), _compute(make)
    found = set(table.names.tolist()) & set(toy_names(extractor.entity))
    require(found, f"{name_of(extractor)} has no vector for any of {toy_names(extractor.entity)[:4]}...")


def embedding_leaves_unknown_names_out(make: Make) -> None:
    """A name that nobody knows is absent (extractors that take any name, such as one-hot, are excused)."""
    extractor = make()
    if extractor.entity == "any" or extractor.names_matter or extractor.needs_names:
        return
    table = _compute(make, [*toy_names(extractor.entity), NOBODY])
    require(NOBODY not in table.names.tolist(), f"{name_of(extractor)} made up a vector for {NOBODY!r}; leave it out")


def embedding_is_deterministic(make: Make) -> None:
    """Two fresh extractions give the same bits in the same order."""
    a, b = _compute(make), _compute(make)
    same = a.names.tolist() == b.names.tolist() and np.array_equal(a.matrix, b.matrix)
    require(same, f"{name_of(make())}: two fresh extractions differ; seed it")


def embedding_vectors_follow_their_names(make: Make) -> None:
    """Asking in another order gives each name the same vector (for one-hot-like tables: the same names)."""
    extractor, names = make(), toy_names(make().entity)
    a, b = _compute(make), _compute(make, names[::-1])
    if extractor.names_matter:
        require(vectors_of(a).keys() == vectors_of(b).keys(), f"{name_of(extractor)}: coverage depends on the order")
    else:
        require(same_table(a, b), f"{name_of(extractor)}: a vector depends on the position of its name")


def embedding_vectors_depend_on_the_name_alone(make: Make) -> None:
    """A name asked with fewer others has the same vector (not for tables where ``names_matter``)."""
    extractor = make()
    if extractor.names_matter:
        return
    whole, few = _compute(make), _compute(make, toy_names(extractor.entity)[1:3])
    part = {k: v for k, v in vectors_of(whole).items() if (k if isinstance(k, str) else k[0]) in few.names.tolist()}
    same = part.keys() == vectors_of(few).keys() and all(_near(v, part[k], 1e-6) for k, v in vectors_of(few).items())
    require(same, f"{name_of(extractor)}: a vector depends on which other names are asked for; declare names_matter")


def embedding_gives_its_vocabulary(make: Make) -> None:
    """``compute(None)`` gives every name the source knows, with the vectors that they have when asked for."""
    extractor = make()
    if extractor.names_matter or extractor.needs_names:
        return
    view = train_view(extractor, _screen(extractor))
    everything, asked = vectors_of(extractor.compute(None, view)), vectors_of(_compute(make))
    lost = [k for k, v in asked.items() if k not in everything or not _near(v, everything[k], 1e-6)]
    require(not lost, f"{name_of(extractor)}: compute(None) lacks or changes the vectors of {lost[:3]}")


def embedding_reads_only_what_it_declares(make: Make) -> None:
    """Static tables ignore ``train``; tables that do not declare effects ignore training effects."""
    extractor, names = make(), toy_names(make().entity)
    if {"effects", "truth"} & extractor.reads:
        return
    screen = _screen(extractor)
    plain = extractor.compute(names, train_view(extractor, screen))
    noise = np.random.default_rng(5).normal(size=screen.effects.shape).astype(np.float32)
    cells = replace(screen.cells, shifted=screen.cells.shifted + noise)
    other = replace(screen, effects=noise, truth=noise, noise_free=noise, labels=None, cells=cells)
    again = make().compute(names, other.training(train_rows(other)))
    require(same_table(plain, again), f"{name_of(extractor)} reads {sorted(extractor.reads)} but follows the effects")


def embedding_never_sees_test_rows(make: Make) -> None:
    """Fitted tables stay the same bits when everything but training rows and half-A controls changes."""
    extractor = make()
    if not extractor.reads or extractor.oracle:
        return
    screen = _screen(extractor)
    plain, again = _compute(make, None, screen), _compute(make, None, _scrambled(screen))
    require(same_table(plain, again), f"{name_of(extractor)} depends on test rows or on control half B")


def embedding_ignores_batches(make: Make) -> None:
    """Extractors that take ``batch``: cells or texts fed one at a time or 32 together give the same vectors."""
    if not hasattr(make(), "batch"):
        return
    one, many = _compute(lambda **p: make(batch=1, **p)), _compute(lambda **p: make(batch=32, **p))
    require(same_table(one, many, 1e-5), f"{name_of(make())}: vectors depend on the batch; mask padding")


def embedding_ignores_the_order_of_cells(make: Make) -> None:
    """Extractors of control cells: the same cells in another order give the same vectors (no subset drawn)."""
    extractor = make()
    if not extractor.needs_cells:
        return
    every = {name: 10**6 for name in ("cells", "max_cells") if hasattr(extractor, name)}
    screen = _screen(extractor)
    shuffled = replace(screen, cells=CellView(ShuffledCells(screen.cells), np.arange(len(screen))))
    plain, again = (_compute(lambda **p: make(**every, **p), None, s) for s in (screen, shuffled))
    require(same_table(plain, again, 1e-5), f"{name_of(extractor)}: vectors depend on the order of the control cells")


@dataclass(frozen=True)
class ShuffledCells:
    """The same cells, controls in another order."""

    inner: ToyCells

    def _order(self, context: int, half: str) -> np.ndarray:
        return np.random.default_rng([8, context]).permutation(self.inner.n_controls(context, half))

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """Control cells of shape (m, g) in another order."""
        return self.inner.controls(context, half)[self._order(context, half)]

    def n_controls(self, context: int, half: str = "A") -> int:
        """As it was."""
        return self.inner.n_controls(context, half)

    def counts(self, context: int, half: str = "A", index: np.ndarray | None = None) -> Counts:
        """Control cells as counts in another order."""
        order = self._order(context, half)
        return self.inner.counts(context, half).rows(order if index is None else order[index])

    def names(self, context: int, half: str = "A") -> np.ndarray:
        """Names in the other order."""
        return self.inner.names(context, half)[self._order(context, half)]

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        """Batch codes in the other order."""
        return self.inner.batches(context, half)[self._order(context, half)]

    def perturbed(self, row: int) -> np.ndarray:
        """As they were."""
        return self.inner.perturbed(row)

    def perturbed_batches(self, row: int) -> np.ndarray:
        """As they were."""
        return self.inner.perturbed_batches(row)


@dataclass(frozen=True)
class ScrambledCells:
    """Cells whose test rows and half-B controls are noise, whatever way they are reached."""

    inner: ToyCells
    closed: frozenset[int]

    def controls(self, context: int, half: str = "A") -> np.ndarray:
        """Half A as it was; everything else shifted."""
        cells = self.inner.controls(context, half)
        return cells if half == "A" else cells + np.float32(9)

    def n_controls(self, context: int, half: str = "A") -> int:
        """As it was."""
        return self.inner.n_controls(context, half)

    def counts(self, context: int, half: str = "A", index: np.ndarray | None = None) -> Counts:
        """Half A as it was; everything else shifted."""
        cells = self.inner.counts(context, half, index)
        return cells if half == "A" else replace(cells, values=cells.values + cells.values)

    def names(self, context: int, half: str = "A") -> np.ndarray:
        """As they were."""
        return self.inner.names(context, half)

    def batches(self, context: int, half: str = "A") -> np.ndarray:
        """As they were."""
        return self.inner.batches(context, half)

    def perturbed_batches(self, row: int) -> np.ndarray:
        """As they were."""
        return self.inner.perturbed_batches(row)

    def perturbed(self, row: int) -> np.ndarray:
        """Open rows as they were; closed rows shifted."""
        cells = self.inner.perturbed(row)
        return cells + np.float32(9) if row in self.closed else cells


def _scrambled(screen: PerturbationDataset) -> PerturbationDataset:
    test = np.setdiff1d(np.arange(len(screen)), train_rows(screen))
    rng = np.random.default_rng(6)

    def noisy(value: np.ndarray, rows: np.ndarray) -> np.ndarray:
        value = value.copy()
        value[rows] = rng.normal(size=(len(rows), *value.shape[1:])) * 9
        return value

    every = np.arange(len(screen))
    return replace(
        screen,
        effects=noisy(screen.effects, test),
        truth=noisy(screen.truth, every),
        noise_free=noisy(screen.noise_free, every),
        truth_variance=np.abs(noisy(screen.truth_variance, every)),
        baseline_truth=noisy(screen.baseline_truth, np.arange(len(screen.contexts))),
        labels=np.where(np.isin(every, test)[:, None], 0, screen.labels).astype(np.int8),
        truth_labels=np.zeros_like(screen.labels),
        log2fc=noisy(screen.log2fc, every),
        padj=np.abs(noisy(screen.padj, every)),
        cells=CellView(ScrambledCells(screen.cells, frozenset(test.tolist())), every),
    )
