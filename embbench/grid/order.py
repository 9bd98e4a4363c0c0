"""Which runs go together and which come first: an estimate of what each costs, and tasks made of neighbours."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from embbench.core import Run
from embbench.grid.plan import Planned
from embbench.grid.select import FOLDS, settings
from embbench.registry import Registry, Spec

RATE = 2e9  # multiplications a second of one core; only ratios matter, the clock of this start corrects the rest
FIXED = 0.01  # seconds of any run: two files written, vectors looked up
TRAINED = 3e4  # passes of a trained head over its rows, each as dear as one multiplication per row, feature and gene
WIDTH = 512  # of an embedding whose registry entry does not tell
SHARE, LONGEST, SHORTEST = 4, 20.0, 0.02  # tasks per worker at least; estimated seconds of a task
MOST = 16  # runs of a task: what is reported at a time, also where a head is dearer than it looks


@dataclass(frozen=True)
class Task:
    """Runs that one worker does one after the other, what they cost in estimated seconds, and if they ask for a GPU."""

    runs: tuple[Planned, ...]
    cost: float
    gpu: bool = False


@dataclass(frozen=True)
class Price:
    """What one run is expected to need: seconds of a core, under the kind of work that the clock learns about."""

    kind: str
    seconds: float
    gpu: bool = False


def price_of(registry: Registry, run: Run, rows: int, genes: int) -> Price:
    """A rough price: features, search, selection and scoring of a smoother; passes over rows and genes when trained.

    With n rows, g genes, d features before and p after `features`, S settings to choose from and f fits (1, or 6 with
    inner folds): ``f n d min(n, d)`` for PCA, ``f n^2 p + S n^2`` for a smoother, ``f S 3e4 n (p + g)`` for a trained
    head, ``10 n g`` for scores, ``samples n g`` for populations.

    Parameters
    ----------
    registry : of the run's names.
    run : what is to be computed.
    rows, genes : size of its screen.
    """
    head, trained, choices, gpu = _head(registry, run.head)
    d = sum(_width(registry, name) for name in (*run.blocks(), run.context_embedding) if name != "none")
    features = registry.parse("features", run.features)
    dims = {**features.entry.params, **features.overrides}.get("dim", d)
    p = min(d, rows, dims if isinstance(dims, int) else d)
    fits = 1 + FOLDS * (choices > 1)
    work: float = fits * rows * d * (min(rows, d) if features.entry.name == "pca" else 1) + 10 * rows * genes
    work += fits * choices * TRAINED * rows * (p + genes) if trained else fits * rows**2 * p + choices * rows**2
    if run.target == "population":
        work += run.samples * rows * genes
    return Price(f"{head} {run.target}", FIXED + work / RATE, gpu)


@functools.lru_cache(maxsize=1024)
def _head(registry: Registry, text: str) -> tuple[str, bool, int, bool]:
    """Name, whether it is trained, how many settings selection tries, and whether it computes on a GPU."""
    spec = registry.parse("heads", text)
    return spec.entry.name, spec.entry.load().trained, len(settings(spec)), wants_gpu(spec)


def wants_gpu(spec: Spec) -> bool:
    """Whether a component computes on a GPU where there is one: its constructor takes a ``device`` that is not the cpu.

    Examples
    --------
    >>> from embbench.registry import default
    >>> [wants_gpu(default().parse("heads", head)) for head in ("mlp", "mlp:device=cpu", "knn")]
    [True, False, False]
    """
    taken = inspect.signature(spec.entry.load().__init__).parameters
    if "device" not in taken:
        return False
    return {"device": taken["device"].default, **spec.entry.params, **spec.overrides}["device"] != "cpu"


@functools.lru_cache(maxsize=4096)
def _width(registry: Registry, text: str) -> int:
    spec = registry.parse("embeddings", text)
    inner = spec.overrides.get("of")
    if isinstance(inner, str):
        return _width(registry, inner)
    told = {**spec.entry.params, **spec.overrides}.get("dim", spec.entry.dim)
    return told if isinstance(told, int) and told > 0 else WIDTH


def tasks_of(todo: Sequence[Planned], prices: Mapping[str, Price], workers: int) -> list[Task]:
    """The runs as tasks, dear ones first.

    Runs of one dataset, split, embedding, fold and features are neighbours whatever their head, then draws of one
    embedding's permutation: what a process keeps (vectors, features, neighbours, the truth of a fold) is found again.
    A task takes neighbours until it would be too long: at least `SHARE` tasks per worker, at most `LONGEST` seconds or
    `MOST` runs; a run of half that is a task of its own. Tasks are ordered by the power of two of their cost, and as
    planned among equals, so that a worker stays with a screen. None of this changes a number.

    Parameters
    ----------
    todo : runs, in the order of the plan.
    prices : by key.
    workers : that compute at the same time.
    """
    total = sum(prices[p.key].seconds for p in todo)
    most = min(LONGEST, max(SHORTEST, total / (SHARE * max(1, workers))))
    ordered = _near(todo)
    tasks = [_task([p], prices) for p in ordered if prices[p.key].seconds > most / 2]
    for gpu in (True, False):
        rest = [p for p in ordered if prices[p.key].seconds <= most / 2 and prices[p.key].gpu == gpu]
        for _, group in groupby(rest, key=lambda p: _place(p.run)):
            tasks += _packed(list(group), prices, most)
    return sorted(tasks, key=lambda task: -math.floor(math.log2(task.cost)))  # a stable sort


def _near(todo: Sequence[Planned]) -> list[Planned]:
    """Neighbours beside each other; places, folds and embeddings in the order in which they first come."""
    seen: dict[Any, int] = {}

    def rank(value: Any) -> int:
        return seen.setdefault(value, len(seen))

    for p in todo:
        rank(_place(p.run))
        rank(p.run.fold)
        rank(_vectors(p.run))
    return sorted(todo, key=lambda p: (rank(_place(p.run)), rank(p.run.fold), rank(_vectors(p.run))))


def _place(run: Run) -> tuple[Any, ...]:
    """Where vectors are shared, permuted or not."""
    bare = run.embedding.replace("permuted:", "").partition(":draw=")[0]
    return run.dataset, run.genes, run.target, run.split, run.seed, bare


def _vectors(run: Run) -> tuple[str, ...]:
    """What fitted features depend on beside place and fold."""
    return run.embedding, run.context_embedding, run.combine, run.features, run.graph


def _packed(runs: list[Planned], prices: Mapping[str, Price], most: float) -> Iterator[Task]:
    """Neighbours packed in order, those of one fold and vectors kept together where they fit into one task."""
    held: list[Planned] = []
    for _, group in groupby(runs, key=lambda p: (p.run.fold, _vectors(p.run))):
        together = list(group)
        if held and (_cost(held + together, prices) > most or len(held) + len(together) > MOST):
            yield _task(held, prices)
            held = []
        for planned in together:
            if held and (_cost([*held, planned], prices) > most or len(held) >= MOST):
                yield _task(held, prices)
                held = []
            held.append(planned)
    yield _task(held, prices)


def _cost(runs: Iterable[Planned], prices: Mapping[str, Price]) -> float:
    return sum(prices[p.key].seconds for p in runs)


def _task(runs: list[Planned], prices: Mapping[str, Price]) -> Task:
    return Task(tuple(runs), _cost(runs, prices), any(prices[p.key].gpu for p in runs))


class Pace:
    """How long the rest takes, from what the runs of this start took: per kind of work, in units of their price.

    Parameters
    ----------
    prices : of all runs that are to be done, by key.
    workers : that compute at the same time.

    Examples
    --------
    >>> pace = Pace({"a": Price("knn", 1.0), "b": Price("knn", 1.0), "c": Price("mlp", 10.0)}, workers=1)
    >>> pace.left() is None
    True
    >>> pace.add("a", seconds=3.0)
    >>> pace.left()
    33.0
    """

    def __init__(self, prices: Mapping[str, Price], workers: int) -> None:
        self._open, self.workers = dict(prices), workers
        self._spent: dict[str, float] = {}  # by kind: seconds that runs took
        self._price: dict[str, float] = {}  # and what they should have cost

    def add(self, key: str, seconds: float) -> None:
        """A run has ended after ``seconds`` of wall time; 0: it was there already, which teaches nothing."""
        price = self._open.pop(key, None)
        if price is not None and seconds > 0:
            self._spent[price.kind] = self._spent.get(price.kind, 0.0) + seconds
            self._price[price.kind] = self._price.get(price.kind, 0.0) + price.seconds

    def left(self) -> float | None:
        """Seconds of wall time until the last run ends; None before the first one has.

        A kind without a run so far is taken at the average of the others.
        """
        if not self._spent:
            return None
        average = sum(self._spent.values()) / sum(self._price.values())
        rate = {kind: spent / self._price[kind] for kind, spent in self._spent.items()}
        need = [price.seconds * rate.get(price.kind, average) for price in self._open.values()]
        return max(sum(need) / min(self.workers, len(need)), max(need)) if need else 0.0
