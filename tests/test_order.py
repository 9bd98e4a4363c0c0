"""Runs as tasks: each once, neighbours together, dear ones first, and a remaining time that is learned."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest

from embbench.core import Run
from embbench.grid.order import LONGEST, MOST, Pace, Price, price_of, tasks_of
from embbench.grid.plan import Planned
from embbench.registry import default

FOLDS = ("fold0", "fold1", "fold2")


def runs(heads: tuple[str, ...], embeddings: tuple[str, ...], dataset: str = "one") -> list[Planned]:
    """A plan's order: embeddings, then heads, then folds."""
    return [
        Planned(
            Run(dataset, "s", fold, head, embedding=e, features="pca:5"), f"{dataset}|{e}|{head}|{fold}", e, "method"
        )
        for e in embeddings
        for head in heads
        for fold in FOLDS
    ]


def flat(todo: list[Planned], seconds: float = 1.0) -> dict[str, Price]:
    return {p.key: Price(p.run.head, seconds) for p in todo}


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("seconds", [1e-4, 0.4, 100.0])
def test_every_run_is_in_one_task(workers: int, seconds: float) -> None:
    todo = runs(("knn", "ridge", "lasso"), ("go", "permuted:go", "permuted:go:draw=1", "ppi"))
    todo += runs(("knn",), ("go",), "two")
    tasks = tasks_of(todo, flat(todo, seconds), workers)
    assert Counter(p.key for task in tasks for p in task.runs) == Counter(p.key for p in todo)
    for task in tasks:
        assert (
            len({(p.run.dataset, p.run.embedding.removeprefix("permuted:").partition(":draw")[0]) for p in task.runs})
            == 1
        )
        assert len(task.runs) <= MOST
        assert task.cost == pytest.approx(seconds * len(task.runs))
        assert task.cost <= LONGEST or len(task.runs) == 1


def test_runs_that_share_vectors_follow_each_other_whatever_the_head() -> None:
    todo = runs(("knn", "ridge", "lasso"), ("go", "permuted:go", "permuted:go:draw=1"))
    tasks = tasks_of(todo, flat(todo, 1e-3), 1)
    assert [len(task.runs) for task in tasks] == [15, 12]
    shared = [(p.run.fold, p.run.embedding) for task in tasks for p in task.runs]
    assert len([key for key, _ in groupby(shared)]) == len(set(shared)) == 9
    assert len([key for key, _ in groupby(fold for fold, _ in shared)]) == 3  # the truth of a fold is found again
    cut = tasks_of(todo, flat(todo, 2.0), 1)  # 13.5 seconds each: groups of three heads are not torn
    assert [len(task.runs) for task in cut] == [6, 6, 6, 6, 3]
    assert all(Counter((p.run.fold, p.run.embedding) for p in task.runs).most_common()[-1][1] == 3 for task in cut)


def test_dear_runs_come_first_and_alone() -> None:
    todo = runs(("knn", "mlp"), ("go", "ppi"))
    prices = {p.key: Price(p.run.head, 300.0 if p.run.head == "mlp" else 0.01, p.run.head == "mlp") for p in todo}
    tasks = tasks_of(todo, prices, 2)
    assert [[p.run.head for p in task.runs] for task in tasks] == [["mlp"]] * 6 + [["knn"] * 3] * 2
    assert [task.gpu for task in tasks] == [True] * 6 + [False] * 2


def test_prices_grow_with_what_a_run_computes() -> None:
    registry = default()

    def price(head: str, rows: int = 400, genes: int = 2000, **more: str) -> float:
        run = Run("d", "s", "fold0", head, **{"embedding": "random:64", "features": "pca:50", **more})
        return price_of(registry, run, rows, genes).seconds

    assert price("mlp") > 20 * price("ridge") > 20 * price("no_change", embedding="none")
    assert price("knn") > price("knn", embedding="none")
    assert price("ridge", rows=2000) > 3 * price("ridge")
    assert price("mlp", genes=8000) > 3 * price("mlp")
    assert price("mlp", target="population") > price("mlp")
    wide, narrow = (price("ridge:alpha=1.0", embedding=f"permuted:random:{d}", rows=2000) for d in (2048, 32))
    assert wide > 2 * narrow
    assert price_of(registry, Run("d", "s", "f", "mlp"), 9, 9).gpu
    assert not price_of(registry, Run("d", "s", "f", "mlp:device=cpu"), 9, 9).gpu


def test_the_remaining_time_is_learned_per_kind_of_work() -> None:
    todo = runs(("knn", "mlp"), ("go",))
    prices = {p.key: Price(p.run.head, 100.0 if p.run.head == "mlp" else 1.0) for p in todo}
    pace = Pace(prices, workers=2)
    assert pace.left() is None
    first, *others = (p.key for p in todo if p.run.head == "mlp")
    pace.add(first, 50.0)  # twice as fast as priced; nothing is known of the others, so they are too
    assert pace.left() == pytest.approx((50.0 * 2 + 0.5 * 3) / 2)
    smooth = [p.key for p in todo if p.run.head == "knn"]
    pace.add(smooth[0], 4.0)  # now it is: four times as slow
    assert pace.left() == pytest.approx((50.0 * 2 + 4.0 * 2) / 2)
    pace.add(smooth[1], 0.0)  # was there already: teaches nothing
    pace.add(others[0], 50.0)
    assert pace.left() == pytest.approx(50.0)  # one long run is left, which two workers cannot share
    pace.add(others[1], 50.0)
    pace.add(smooth[2], 4.0)
    assert pace.left() == 0.0
