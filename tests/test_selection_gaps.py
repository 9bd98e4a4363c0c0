"""Selection on screens with untested genes: the algebra gives what scoring every prediction gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embbench import registry as registries
from embbench.core import Run
from embbench.grid.fit import job_of
from embbench.grid.inputs import Raw, assemble
from embbench.grid.select import Problem, choose
from embbench.grid.targets import target_values, training_truth
from embbench.numerics.linalg import gram

OWN = """
datasets:
  gappy:
    impl: embbench.datasets.table:ConditionTable
    params: {path: gappy.csv, unit: delta, context_key: line, entity_type: compound}
"""


@pytest.fixture(scope="module", params=[0.02, 0.6], ids=["few gaps", "mostly gaps"])
def problem(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """The training rows of one fold of a screen of 40 compounds in 2 lines, with that share of entries missing."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 25))
    values = np.concatenate([hidden, 0.5 * hidden]) + rng.normal(size=(80, 25))
    values[rng.random(values.shape) < request.param] = np.nan
    table = pd.DataFrame(values, columns=[f"gene{j}" for j in range(25)])
    table.insert(0, "perturbation", [f"drug{i}" for i in range(40)] * 2)
    table.insert(1, "line", ["one"] * 40 + ["two"] * 40)
    folder: Path = tmp_path_factory.mktemp("gappy")
    table.to_csv(folder / "gappy.csv", index=False)
    (folder / "own.yaml").write_text(OWN, encoding="utf-8")
    job = job_of(
        Run("gappy", "unseen_perturbation:3", "fold0", "knn", embedding="random:8"), (str(folder / "own.yaml"),)
    )
    raw, n = assemble(job.data, job.tables, job.train, job.query, job.units)
    Y, observed = target_values(job.data, job.train, "effects", job.train)
    assert observed is not None
    part = Raw(raw.inputs.rows(np.arange(n)))
    features = job.registry.parse("features", "pca:5")
    truth = lambda index: training_truth(job.data, job.train[index])  # noqa: E731
    products = lambda: (gram(Y), Y.sum(axis=1, dtype=np.float64))  # noqa: E731
    return Problem(part, lambda: Y, observed, Y.shape[1], truth, features, gram=products)


@pytest.mark.parametrize("head", ["knn", "ridge", "kernel_ridge"])
@pytest.mark.parametrize("metric", ["l2_all", "mse_all", "rmse_all"])
def test_selection_by_gram_equals_selection_by_predictions(problem: Problem, head: str, metric: str) -> None:
    known = registries.default()
    spec, scorer = known.parse("heads", head), known.get("metrics", metric).make()
    fast = choose(spec, problem, metric, scorer, 5)
    slow = choose(spec, problem, "by predictions", scorer, 5)
    assert fast.params == slow.params
    assert fast.trials == slow.trials > 10
    assert fast.score == pytest.approx(slow.score, rel=1e-5)
