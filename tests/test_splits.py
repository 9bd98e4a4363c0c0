"""Splits: held-out units never train, rows are tested once, refusals are clear, effects are never read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embbench.core import PerturbationDataset, UserError
from embbench.splits.covariate_transfer import CovariateTransfer
from embbench.splits.given_column import GivenColumn
from embbench.splits.unseen_combination import UnseenCombination
from embbench.splits.unseen_context import UnseenContext
from embbench.splits.unseen_perturbation import UnseenPerturbation


def screen(rows, *, values=0.0, **more):
    """A dataset of (entities, context) pairs whose effects no split may read."""
    effects = np.full((len(rows), 3), values, dtype=np.float32)
    return PerturbationDataset(
        name="toy",
        effects=effects,
        unit="delta",
        genes=np.array(["G1", "G2", "G3"]),
        entities=tuple(tuple(sorted(e)) for e, _ in rows),
        context=np.array([c for _, c in rows]),
        observed=np.isfinite(effects),
        **more,
    )


def crossed(n=8, contexts="xyz", pairs=()):
    rows = [((f"P{i}",), c) for c in contexts for i in range(n)]
    return screen(rows + [((f"P{i}", f"P{j}"), c) for c in contexts for i, j in pairs])


PAIRS = [(0, 1), (2, 3), (4, 5), (6, 7), (0, 7), (1, 6)]
SPLITS = [
    UnseenPerturbation(4, seed=1),
    UnseenContext(),
    UnseenContext(few_shot=3, seed=2),
    UnseenCombination(3),
    CovariateTransfer(4),
]


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: type(s).__name__)
def test_deterministic_blind_and_disjoint(split):
    data = crossed(pairs=PAIRS)
    noise = screen([*zip(data.entities, data.context.tolist(), strict=True)], values=np.nan)
    first, second = split.split(data), split.split(noise)
    assert first.kind == second.kind
    assert first.units == second.units
    assert len(first.units) == len(data)
    for a, b in zip(first.folds, second.folds, strict=True):
        assert a.name == b.name
        np.testing.assert_array_equal(a.train, b.train)
        np.testing.assert_array_equal(a.test, b.test)
        assert not set(a.train) & set(a.test)
        assert len(a.train)
        assert len(a.test)
        assert a.groups is None or len(a.groups) == len(a.test)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sets(st.sampled_from("ABCDEFG"), min_size=1, max_size=3), st.sampled_from("xy")),
        min_size=8,
        max_size=30,
    ),
    seed=st.integers(0, 5),
)
def test_unseen_perturbation_any_rows(rows, seed):
    try:
        split = UnseenPerturbation(2, seed).split(screen(rows))
    except UserError:
        return
    tested = np.concatenate([f.test for f in split.folds])
    assert sorted(tested) == list(range(len(rows)))
    for fold in split.folds:
        trained = set().union(*(rows[i][0] for i in fold.train))
        assert all(not rows[i][0] <= trained for i in fold.test)


def test_unseen_perturbation_groups_and_contexts():
    data = crossed(pairs=PAIRS)
    split = UnseenPerturbation(4).split(data)
    assert sum(len(f.test) for f in split.folds) == len(data)
    for fold in split.folds:
        trained = {e for i in fold.train for e in data.entities[i]}
        per_context = [{data.entities[i] for i in fold.test if data.context[i] == c} for c in "xyz"]
        assert per_context[0] == per_context[1] == per_context[2]
        for i, group in zip(fold.test, fold.groups, strict=True):
            seen = sum(e in trained for e in data.entities[i])
            if len(data.entities[i]) == 1:
                assert group == "single"
            else:
                assert group == f"combination: {seen or 'none'} of 2 seen"
    assert {g for f in split.folds for g in f.groups} >= {"single", "combination: 1 of 2 seen"}
    assert UnseenPerturbation(4).split(crossed()).folds[0].groups is None


def test_seed_moves_the_partition():
    data = crossed(20)
    a, b = (UnseenPerturbation(4, seed).split(data).folds[0].test for seed in (0, 1))
    assert set(a) != set(b)


def test_partition_does_not_depend_on_row_order():
    data = crossed(10, pairs=PAIRS)
    order = np.random.default_rng(0).permutation(len(data))
    for split in SPLITS:
        plain, moved = split.split(data), split.split(data.rows(order))
        for a, b in zip(plain.folds, moved.folds, strict=True):
            assert set(a.test) == set(order[b.test])


def test_unseen_context_zero_shot():
    data = crossed()
    split = UnseenContext().split(data)
    assert [f.name for f in split.folds] == ["x", "y", "z"]
    for fold in split.folds:
        assert set(data.context[fold.test]) == {fold.name}
        assert fold.name not in data.context[fold.train]
        assert fold.groups is None


@pytest.mark.parametrize("seed", [0, 3])
def test_few_shot_support_is_nested_trained_and_never_scored(seed):
    data = crossed(12, "xyz")
    supports = []
    for n in (1, 5, 10):
        split = UnseenContext(few_shot=n, seed=seed).split(data)
        fold = split.folds[1]
        support = {i for i in fold.train if data.context[i] == "y"}
        assert len(support) == n
        assert not support & set(fold.test)
        assert len(fold.test) == 12 - n
        supports.append(support)
    assert supports[0] < supports[1] < supports[2]
    without_x = data.rows(np.flatnonzero(data.context != "x"))
    fewer = UnseenContext(few_shot=5, seed=seed).split(without_x).folds[0]
    names = {without_x.entities[i] for i in fewer.train if without_x.context[i] == "y"}
    assert names == {data.entities[i] for i in supports[1]}, "another context moved the support"


def test_few_shot_takes_all_doses():
    rows = [((f"D{i}",), c) for c in "xy" for i in range(4) for _ in range(3)]
    fold = UnseenContext(few_shot=2).split(screen(rows, dose=np.tile([1.0, 2.0, 3.0], 8))).folds[0]
    support = [rows[i][0] for i in fold.train if rows[i][1] == "x"]
    assert len(support) == 6
    assert not set(support) & {rows[i][0] for i in fold.test}


def test_unseen_context_groups_unseen_perturbations():
    data = screen([(("A",), "x"), (("B",), "x"), (("A",), "y"), (("A",), "z")])
    folds = UnseenContext().split(data).folds
    assert folds[0].groups.tolist() == ["perturbation seen", "perturbation unseen"]
    assert folds[1].groups.tolist() == ["perturbation seen"]


def test_unseen_combination():
    data = screen(
        [((e,), c) for e in "ABCD" for c in "xy"] + [(set(p), c) for p in ("AB", "AE", "EF", "CD") for c in "xy"]
    )
    split = UnseenCombination(4).split(data)
    groups = {}
    for fold in split.folds:
        held = {data.entities[i] for i in fold.test}
        assert len(held) == 1
        assert len(fold.test) == 2
        assert not held & {data.entities[i] for i in fold.train}
        assert set(range(8)) <= set(fold.train)
        groups["".join(held.pop())] = fold.groups[0]
    assert groups == {k: f"{n} of 2 singles seen" for k, n in {"AB": 2, "AE": 1, "EF": 0, "CD": 2}.items()}
    assert len(set(split.units)) == 8


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 8), st.sampled_from("uvwxy")), min_size=6, max_size=40),
    folds=st.integers(2, 6),
)
def test_covariate_transfer_any_rows(pairs, folds):
    rows = [((f"P{i}",), c) for i, c in sorted(pairs)]
    sets = [r[0] for r in rows]
    shared = [i for i, s in enumerate(sets) if sets.count(s) > 1]
    if not shared:
        return
    data = screen(rows)
    split = CovariateTransfer(folds).split(data)
    assert sorted(np.concatenate([f.test for f in split.folds])) == shared
    for fold in split.folds:
        trained = {data.entities[i] for i in fold.train}
        assert all(data.entities[i] in trained for i in fold.test)


def test_covariate_transfer_is_balanced_within_contexts():
    data = crossed(20, "wxyz")
    for fold in CovariateTransfer(4).split(data).folds:
        counts = [int((data.context[fold.test] == c).sum()) for c in "wxyz"]
        assert max(counts) - min(counts) <= 2


def test_given_roles_and_numbers():
    rows = [((f"P{i}",), "x") for i in range(6)]
    roles = np.array(["train", "train", "val", "test", "", "Test"])
    fold = GivenColumn("s").split(screen(rows, covariates={"s": roles})).folds[0]
    assert (fold.name, *map(np.ndarray.tolist, (fold.train, fold.validation, fold.test))) == ("s", [0, 1], [2], [3, 5])
    for column in (
        np.array([0, 1, 2, 0, 1, 2]),
        np.array([0, 1, 2, 0, 1, 2.0]),
        np.array([f"fold{i % 3}" for i in range(6)]),
    ):
        split = GivenColumn("s").split(screen(rows, covariates={"s": column}))
        assert [f.test.tolist() for f in split.folds] == [[0, 3], [1, 4], [2, 5]]
        assert split.folds[0].train.tolist() == [1, 2, 4, 5]
    missing = GivenColumn("s").split(screen(rows, covariates={"s": np.array([0, 1, np.nan, 0, 1, 1])}))
    assert missing.folds[0].train.tolist() == [1, 4, 5]


def test_given_units_follow_what_is_unseen():
    rows = [((e,), c) for c in "xy" for e in "AB"]
    by_context = GivenColumn("s").split(screen(rows, covariates={"s": np.array([0, 0, 1, 1])}))
    by_entity = GivenColumn("s").split(screen(rows, covariates={"s": np.array([0, 1, 0, 1])}))
    by_pair = GivenColumn("s").split(screen(rows, covariates={"s": np.array(["train", "train", "train", "test"])}))
    assert by_context.units == ((0,), (0,), (1,), (1,))
    assert by_entity.units == ((0,), (1,), (0,), (1,))
    assert len(set(by_pair.units)) == 4


ONE_CONTEXT = [((f"P{i}",), "x") for i in range(6)]
ONE_PERTURBATION = [(("P",), c) for c in "xyz"]
REFUSALS = [
    (UnseenPerturbation(2), ONE_PERTURBATION, "at least 2 perturbations"),
    (UnseenPerturbation(8), ONE_CONTEXT, "unseen_perturbation:6"),
    (UnseenPerturbation(2), [("AB", "x"), ("AB", "y")], "training rows"),
    (UnseenContext(), ONE_CONTEXT, "at least 2 contexts"),
    (UnseenContext(few_shot=1), ONE_PERTURBATION, "few_shot < 1"),
    (UnseenCombination(2), ONE_CONTEXT, "at least 2 combinations"),
    (UnseenCombination(5), [*ONE_CONTEXT, ("AB", "x"), ("AC", "x")], "unseen_combination:2"),
    (CovariateTransfer(), ONE_CONTEXT, "at least 2 contexts"),
    (CovariateTransfer(), [("A", "x"), ("B", "y")], "occur in 2 contexts"),
    (GivenColumn("nope"), ONE_CONTEXT, "no column 'nope'; columns: fold, word"),
    (GivenColumn("word"), ONE_CONTEXT, "train/val/test or fold numbers, found w"),
    (GivenColumn("fold"), ONE_CONTEXT, "0 training and 6 test rows"),
]


@pytest.mark.parametrize(("split", "rows", "message"), REFUSALS)
def test_refusals_name_what_and_next_step(split, rows, message):
    n = len(rows)
    data = screen(rows, covariates={"word": np.full(n, "w"), "fold": np.zeros(n, int)})
    with pytest.raises(UserError, match=message):
        split.split(data)


@pytest.mark.parametrize(
    "make",
    [
        lambda: UnseenPerturbation(1),
        lambda: UnseenPerturbation(2, seed=-1),
        lambda: UnseenContext(few_shot=-1),
        lambda: UnseenCombination(2.5),
        lambda: CovariateTransfer(True),
        lambda: GivenColumn(""),
    ],
)
def test_constructors_validate(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_negative_fold_numbers_are_refused():
    with pytest.raises(UserError, match="-1"):
        GivenColumn("s").split(screen(ONE_CONTEXT, covariates={"s": np.array([-1, 0, 1, 0, 1, 0])}))
