"""The contracts carry what comes next, without change: each noun is used by a tiny component, end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from components.block_vote import BlockVote
from components.context_ridge import ContextRidge
from components.dose_slope import DoseSlope
from components.graph_step import GraphStep
from components.label_frequency import LabelFrequency
from components.response_loadings import ResponseLoadings
from components.shifted_cells import ShiftedCells
from scipy import sparse

from embbench.checks import toy_inputs, toy_screen
from embbench.core import PerturbationDataset
from embbench.registry import Registry

COMPONENTS = Path(__file__).resolve().parent / "components"


@pytest.fixture
def screen() -> PerturbationDataset:
    return toy_screen()


def halves(screen: PerturbationDataset, **options: Any) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Training inputs, query inputs and their row numbers."""
    test = np.flatnonzero(np.arange(len(screen)) % 4 == 1)
    train = np.setdiff1d(np.arange(len(screen)), test)
    return toy_inputs(screen, train, **options), toy_inputs(screen, test, query=True, **options), train, test


def test_label_targets(screen: PerturbationDataset) -> None:
    train, query, rows, test = halves(screen)
    head = LabelFrequency(width=1.0).fit(train, screen.labels[rows].astype(np.float32), screen.labels_tested[rows])
    proba = head.predict_proba(query)
    assert proba.shape == (len(test), len(screen.genes), 3)
    np.testing.assert_allclose(proba.sum(axis=2), 1, atol=1e-6)
    right = proba.argmax(axis=2) - 1 == screen.labels[test]
    assert right.mean() > (screen.labels[test] == 0).mean() + 0.05  # better than always "unchanged"
    untested = screen.labels.copy()
    untested[~screen.labels_tested] = 1  # what is not tested must not matter
    again = LabelFrequency(width=1.0).fit(train, untested[rows].astype(np.float32), screen.labels_tested[rows])
    assert np.array_equal(again.predict_proba(query), proba)


def test_populations_of_cells(screen: PerturbationDataset) -> None:
    train, query, rows, test = halves(screen)
    head = ShiftedCells().fit(train, screen.effects[rows])
    cells = head.sample(query, 300)
    assert cells.shape == (len(test), 300, len(screen.genes))
    mean_effect = cells.mean(axis=1) - screen.baseline[query.context]
    np.testing.assert_allclose(mean_effect, head.predict(query), atol=0.1)
    with pytest.raises(PermissionError, match="closed"):
        query.cells.perturbed(0)


def test_several_embeddings_with_one_missing(screen: PerturbationDataset) -> None:
    train, query, rows, _ = halves(screen, missing=True)
    lacking = ~query.found[:, 1]
    assert 0 < lacking.sum() < len(query)
    both = BlockVote().fit(train, screen.effects[rows]).predict(query)
    first = replace(train, blocks=train.blocks[:1], found=train.found[:, :1])
    only = BlockVote().fit(first, screen.effects[rows])
    alone = only.predict(replace(query, blocks=query.blocks[:1], found=query.found[:, :1]))
    np.testing.assert_allclose(both[lacking], alone[lacking], atol=1e-6)
    assert np.abs(both[~lacking] - alone[~lacking]).max() > 0.01


def test_graphs(screen: PerturbationDataset) -> None:
    train, query, rows, _ = halves(screen)
    e = train.entities.shape[1]
    source = int(train.entities[0].indices[0])
    edges = sparse.lil_matrix((e, e), dtype=np.float32)
    edges[:, source] = edges[source, :] = 1.0
    edges[source, source] = 0.0
    star = sparse.csr_matrix(edges)
    out = GraphStep().fit(replace(train, graph=star), screen.effects[rows]).predict(replace(query, graph=star))
    has = train.entities[:, [source]].toarray().ravel() > 0
    want = screen.effects[rows][has].astype(np.float64).mean(axis=0)
    leaf = [i for i in range(len(query)) if source not in query.entities[i].indices and query.entities[i].nnz == 1]
    assert leaf
    np.testing.assert_allclose(out[leaf], np.repeat(want[None], len(leaf), axis=0), atol=1e-5)


def test_doses(screen: PerturbationDataset) -> None:
    train, query, rows, test = halves(screen)
    head = DoseSlope().fit(train, screen.effects[rows])
    twice = head.predict(replace(query, dose=2 * query.dose))
    np.testing.assert_allclose(twice, 2 * head.predict(query), rtol=1e-5)
    dose, Y = screen.dose[rows].astype(np.float64), screen.effects[rows].astype(np.float64)
    slope = np.linalg.lstsq(dose[:, None], Y, rcond=None)[0][0]
    np.testing.assert_allclose(head.predict(query), np.outer(screen.dose[test], slope), atol=1e-5)


def test_joint_over_contexts(screen: PerturbationDataset) -> None:
    rows = np.flatnonzero(screen.context_codes != 2)
    test = np.flatnonzero(screen.context_codes == 2)
    head = ContextRidge().fit(toy_inputs(screen, rows), screen.effects[rows])
    query = toy_inputs(screen, test, query=True)
    moved = query.context_vector.copy()
    moved[2] = moved[0]
    here, there = head.predict(query), head.predict(replace(query, context_vector=moved))
    assert np.abs(here - there).max() > 1e-3
    other = replace(query, context=np.zeros(len(query), dtype=np.int64))
    np.testing.assert_allclose(there, head.predict(other), atol=1e-6)


def test_embeddings_fitted_per_fold(screen: PerturbationDataset) -> None:
    names = [n for n in screen.entity_names if n in set(screen.genes.tolist())]
    held = names[:4]
    train = np.array([i for i, row in enumerate(screen.entities) if not set(held) & set(row)])
    test = np.setdiff1d(np.arange(len(screen)), train)
    one = ResponseLoadings().compute(screen.entity_names, screen.training(train))
    assert one.lookup(held)[1].all(), "vacuous: the held-out entities have no vector"
    effects = screen.effects.copy()
    effects[test] = np.random.default_rng(0).normal(size=(len(test), effects.shape[1]))
    noisy = replace(screen, effects=effects, truth=effects)
    two = ResponseLoadings().compute(screen.entity_names, noisy.training(train))
    assert np.array_equal(one.matrix, two.matrix)
    leaked = ResponseLoadings().compute(screen.entity_names, noisy)
    assert not np.allclose(one.matrix, leaked.matrix)


def test_the_components_are_one_file_and_one_entry_each() -> None:
    entries = Registry(COMPONENTS / "registry.yaml").entries()
    files = {e.module.partition(".")[2] for e in entries}
    assert len(files) == len(entries) == 9
    assert all(len((COMPONENTS / f"{f}.py").read_text().splitlines()) <= 80 for f in files)
    for entry in entries:
        assert entry.make() is not None
