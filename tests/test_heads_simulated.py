"""The benchmark of heads on simulated screens: planted embeddings, tables, and one small round trip."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from embbench.datasets._sim_settings import Settings
from embbench.datasets.simulator import latent_vectors

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import heads_simulated

    return heads_simulated


def small(bench: ModuleType, tmp_path: Path) -> list[str]:
    sizes = ["--perturbations", "24", "--genes", "20", "--cells", "12", "--controls", "80", "--samples", "12"]
    given = [str(tmp_path / "report.md"), "--out", str(tmp_path / "out"), "--heads", "context_mean,knn:k=2"]
    return [*given, *sizes, "--seeds", "1", "--targets", "population"]


def test_a_round_trip_tells_all_and_starts_nothing_twice(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.main(small(bench, tmp_path))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for metric in ("l2_debiased_all", "pearson_all", "edistance_euclidean_u_pca50", "mmd_rbf_u_pca50"):
        assert f"## {metric}" in text
    lines = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| knn:k=2 |")]
    assert {embedding.strip() for _, embedding in lines} >= {"informative", "half", "permuted"}
    assert "failed" not in text
    assert float(text.rpartition("| context_mean | population |")[2].split("|")[1]) > 50  # MiB
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("a finished run was started again"))
    bench.main(small(bench, tmp_path))
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == text


def test_planted_embeddings_share_what_they_say(bench: ModuleType, tmp_path: Path) -> None:
    settings = {"n_perturbations": 150, "rho": 1.0, "seed": 4}
    specs = bench.plant(tmp_path, settings)
    names, latent = latent_vectors(Settings(**settings))
    tables = [pd.read_csv(specs[k].split(":")[1], index_col=0) for k in ("informative", "half")]
    assert all(tuple(t.index) == names for t in tables)
    r = [np.corrcoef(t.to_numpy().ravel(), latent.ravel())[0, 1] for t in tables]
    assert r[0] == pytest.approx(1.01**-0.5, abs=0.005)
    assert r[1] == pytest.approx((0.5 / 1.01) ** 0.5, abs=0.05)
    assert specs["permuted"] == f"permuted:{specs['informative']}"


def test_tables_give_paired_intervals_and_shares(bench: ModuleType) -> None:
    rng = np.random.default_rng(0)
    levels = {("context_mean", "none"): 2.0, ("knn", "informative"): 1.0, ("ridge", "informative"): 1.2}
    drawn = {where: level + 0.1 * rng.standard_normal(5) for where, level in levels.items()}
    scores = pd.DataFrame(
        [
            {"seed": s, "head": h, "embedding": e, "metric": "l2_debiased_all", "group": "all", "value": v}
            for (h, e), values in drawn.items()
            for s, v in enumerate(values)
        ]
    )
    tables = bench.Tables(scores, pd.DataFrame())
    base, knn, ridge = drawn.values()
    want = stats.ttest_rel(ridge, base).confidence_interval(0.95)
    shown = f"{(ridge - base).mean():+.3f} [{want.low:+.3f}, {want.high:+.3f}]"
    line = next(x for x in tables.scores("l2_debiased_all").splitlines() if x.startswith("| ridge"))
    assert line == f"| ridge | informative | {ridge.mean():.3f} ({shown}) | – | – | – |"
    share = next(x for x in tables.gap("l2_debiased_all", "context_mean").splitlines() if x.startswith("| ridge"))
    assert share.split("|")[3].strip() == f"{(base - ridge).mean() / (base - knn).mean():.2f}"
    against = tables.against("t", "l2_debiased_all", "all", "informative", ["knn"])
    assert f"{(ridge - knn).mean():+.3f} [" in against


def test_the_command_line_takes_registered_heads_only(bench: ModuleType) -> None:
    args: argparse.Namespace = bench.arguments(["r.md"])
    assert {"knn", "ridge", "context_mean", "no_change", "mlp"} <= set(args.heads)
    assert "no_such_head" not in args.heads
    done = subprocess.run(
        [sys.executable, str(BENCH / "heads_simulated.py"), "--help"], capture_output=True, check=True
    )
    assert b"--effect-size" in done.stdout
