"""Floor and progress, pairwise tests, false declarations, variance shares, choices and ranks: against closed forms."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from embbench.core import Composite, UserError
from embbench.grid import honesty
from embbench.registry import INFORMATION
from embbench.report import marks, tables
from embbench.report.answers import answer_sheets
from embbench.report.choice import choices
from embbench.report.composites import composite_sheets, composite_table
from embbench.report.critical import demsar, rank_boxes, ranks
from embbench.report.decomposition import Block, crossed, decompose, shares, variances
from embbench.report.findings import by_information, decomposition
from embbench.report.flips import chernoff, flip_p
from embbench.report.layout import leaderboard_sheets
from embbench.report.render import markdown, terminal, text
from embbench.report.write import report_frames, write_frames, write_report

METRICS = {"pearson": {"best": "high", "lower": -1.0, "upper": 1.0, "level": "condition"}}
METRICS |= {"l2": {"best": "low", "lower": 0.0, "upper": np.inf, "level": "condition"}}
COORDINATES = {"combine": "sum", "context_embedding": "none", "features": "pca:100", "scope": "auto"}
COORDINATES |= {
    "target": "effects",
    "graph": "none",
    "select": "l2_all",
    "genes": "all",
    "samples": 100,
    "strict_context": False,
}
COORDINATES |= {"seed": 0, "protocol": "default", "status": "done", "reason": "", "fallback": "context mean", "dim": 10}
COORDINATES |= {"chosen": "", "trials": 3, "cpu_seconds": 0.1, "split": "unseen_perturbation"}
HERE = Path(__file__).resolve().parents[1]


def bench(name: str) -> ModuleType:
    """A benchmark script as a module."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / "bench" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def grid(
    entries: dict[tuple[str, str], np.ndarray],
    *,
    metric: str = "pearson",
    dataset: str = "toy",
    covered: dict[tuple[str, str], np.ndarray] | None = None,
    roles: dict[str, str] | None = None,
    more: dict[tuple[str, str], dict[str, object]] | None = None,
    ceiling: np.ndarray | None = None,
    folds: int = 2,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None]:
    """Frames of (head, embedding) -> scores (contexts, units)."""
    scores, runs = [], []
    contexts, units = next(iter(entries.values())).shape
    context, unit = (a.ravel() for a in np.meshgrid(np.arange(contexts), np.arange(units), indexing="ij"))
    names = np.array([f"g{u:03d}" for u in range(units)])
    for (head, embedding), values in entries.items():
        mask = (covered or {}).get((head, embedding), np.ones(units, dtype=bool))
        role = "baseline" if embedding == "none" else "permuted" if embedding.startswith("permuted") else "method"
        role = (roles or {}).get(embedding, role)
        for fold in range(folds):
            key = f"{dataset}|{head}|{embedding}|{fold}"
            line = COORDINATES | {"dataset": dataset, "head": head, "embedding": embedding, "fold": str(fold)}
            runs.append(line | {"key": key, "role": role} | (more or {}).get((head, embedding), {}))
            hit = np.flatnonzero(unit % folds == fold)
            part = {"row": hit, "condition": names[unit[hit]], "unit": names[unit[hit]], "key": key, "group": ""}
            part |= {"context": np.array([f"c{c}" for c in context[hit]]), "detectable": True, "metric": metric}
            scores.append(pd.DataFrame(part | {"covered": mask[unit[hit]], "value": values.ravel()[hit]}))
    top = None
    if ceiling is not None:
        top = pd.DataFrame({"row": np.arange(contexts * units), "value": ceiling.ravel()})
        top = top.assign(dataset=dataset, genes="all", metric=metric, note="simulated truth")
    return pd.concat(scores, ignore_index=True), pd.DataFrame(runs), top


def board(frames, metric="pearson", **more):
    return tables.leaderboard_and_pairs(*frames, METRICS, metric=metric, bootstrap=300, **more)


# ---- sign flips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 9, 12])
@pytest.mark.parametrize("two_sided", [True, False])
def test_few_clusters_are_tested_exactly(n, two_sided):
    parts = np.random.default_rng(n).normal(0.4, 1, n)
    total = [np.dot(s, parts) for s in itertools.product([1, -1], repeat=n)]
    want = np.mean(
        [(abs(t) if two_sided else t) >= (abs(parts.sum()) if two_sided else parts.sum()) - 1e-9 for t in total]
    )
    assert flip_p(parts[:, None], 0, two_sided=two_sided)[0] == pytest.approx(want)
    if n > 1:
        peer = scipy_stats.permutation_test(
            (parts,),
            np.sum,
            permutation_type="samples",
            alternative="two-sided" if two_sided else "greater",
            n_resamples=np.inf,
        )
        assert flip_p(parts[:, None], 0, two_sided=two_sided)[0] == pytest.approx(peer.pvalue)


def test_many_clusters_agree_with_the_normal_limit_and_pairs_are_differences():
    rng = np.random.default_rng(0)
    sums = rng.normal(0.1, 1, (60, 5))
    first, second = np.array([0, 1, 3]), np.array([2, 4, 3])
    got = flip_p(sums, 3, two_sided=True, first=first, second=second)
    gaps = sums[:, first] - sums[:, second]
    np.testing.assert_allclose(got, flip_p(gaps, 3, two_sided=True), rtol=1e-12)
    z = np.abs(gaps.sum(axis=0)) / np.sqrt(np.maximum((gaps**2).sum(axis=0), 1e-300))
    np.testing.assert_allclose(got[:2], 2 * scipy_stats.norm.sf(z[:2]), atol=0.02)
    assert got[2] == 1.0  # no difference at all
    assert np.isnan(flip_p(np.zeros((0, 2)), 0, two_sided=True)).all()


@pytest.mark.parametrize("shift", [1.0, 2.0, 5.0])
def test_p_below_the_resolution_is_a_bound_on_the_exact_one(shift):
    parts = np.random.default_rng(1).normal(shift, 1, 18)
    patterns = 1.0 - 2.0 * ((np.arange(2**18)[:, None] >> np.arange(18)) & 1)
    exact = np.mean(patterns @ parts >= parts.sum() - 1e-9)
    assert exact <= chernoff(parts) <= 40 * exact
    strong = np.random.default_rng(2).normal(3, 1, 60)
    assert flip_p(strong[:, None], 0, two_sided=True)[0] < 1e-9  # survives Holm over many pairs


def test_null_pairs_are_significant_as_often_as_stated():
    rng = np.random.default_rng(5)
    for n in (8, 40):
        sums = rng.standard_t(4, size=(n, 2000))
        p = flip_p(sums, 0, two_sided=True)
        assert np.mean(p <= 0.05) <= scipy_stats.binom.ppf(0.999, 2000, 0.05) / 2000
        assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.06)


# ---- floor and progress --------------------------------------------------------------------------------------------


def entries(seed=0, units=40, contexts=2):
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.3, (contexts, units))
    noise = lambda s: rng.normal(0, s, (contexts, units))  # noqa: E731
    out = {("no_change", "none"): 5 + hard + noise(0.05), ("context_mean", "none"): 4 + hard + noise(0.05)}
    out |= {("ridge", "go"): 3 + hard + noise(0.05), ("ridge", "collapsed"): out["context_mean", "none"]}
    truth = 2 + hard
    return out | {("ridge", "perfect"): truth.copy(), ("ridge", "leaky"): truth - 0.5}, truth


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_progress_is_the_ratio_of_means_whatever_the_direction(turn):
    scores, truth = entries()
    metric = "l2" if turn > 0 else "pearson"
    frames = grid({k: turn * v for k, v in scores.items()}, metric=metric, ceiling=turn * truth)
    found, _ = board(frames, metric=metric)
    by = found.set_index("embedding")
    low, high, floor = (scores[k].mean() for k in (("ridge", "perfect"), ("ridge", "go"), ("context_mean", "none")))
    assert by.loc["go", "progress"] == pytest.approx((floor - high) / (floor - low))
    assert by.loc["go", "progress_low"] < by.loc["go", "progress"] < by.loc["go", "progress_high"]
    assert set(by["floor_name"]) == {"context_mean"}
    assert by.loc["go", "floor"] == pytest.approx(turn * floor)
    assert by.loc["perfect", ["progress", "progress_low", "progress_high"]].tolist() == pytest.approx([1, 1, 1])
    assert by.loc["collapsed", "progress"] <= 0
    assert by.loc["collapsed", "progress_high"] <= 0
    assert by.loc["leaky", "progress_low"] > 1
    assert by.loc["leaky", "flags"] == "above ceiling"
    assert by.loc["perfect", "flags"] == ""
    shown = text(terminal(leaderboard_sheets(found, METRICS, {}))) + markdown(leaderboard_sheets(found, METRICS, {}))
    for word in ("floor: the best of the baselines that always run, context_mean", "progress: (floor - score)", "100%"):
        assert word in " ".join(shown.split())
    assert "A above ceiling" in shown
    assert max(map(len, text(terminal(leaderboard_sheets(found, METRICS, {}))).splitlines())) <= 100


def test_the_floor_is_chosen_again_in_every_resample():
    rng = np.random.default_rng(3)
    one, two = rng.normal(4, 1, (1, 30)), rng.normal(4, 1, (1, 30))
    two += one.mean() - two.mean()  # a draw
    frames = grid({("a", "none"): one, ("b", "none"): two, ("ridge", "go"): one}, metric="l2", ceiling=one * 0)
    go = board(frames, metric="l2")[0].set_index("embedding").loc["go"]
    assert go["progress"] == pytest.approx(0.0, abs=1e-9)
    assert go["progress_low"] < -0.01  # where b is the floor, a lies above it
    assert go["progress_high"] <= 1e-9


def test_progress_uses_conditions_that_have_everything():
    scores, truth = entries()
    top = truth.copy()
    top[:, :10] = np.nan
    scores["ridge", "go"][0, 12] = np.nan
    scores["no_change", "none"][:] = np.nan  # a correlation of nothing
    found, _ = board(grid(scores, metric="l2", ceiling=top), metric="l2")
    by = found.set_index("embedding")
    keep = np.isfinite(top) & np.isfinite(scores["ridge", "go"])

    def level(values):
        return np.mean([values[c][keep[c]].mean() for c in range(2)])

    floor, score = level(scores["context_mean", "none"]), level(scores["ridge", "go"])
    assert by.loc["go", "progress"] == pytest.approx((floor - score) / (floor - level(truth)))
    assert by.loc["perfect", "progress"] == pytest.approx(1.0)
    assert "on the 60 conditions with a ceiling" in markdown(leaderboard_sheets(found, METRICS, {}))


@pytest.mark.parametrize("gap", ["undefined", "failed"])
def test_a_gap_in_a_baseline_changes_neither_floor_nor_progress_silently(gap):
    scores, truth = entries()
    scores["additive", "none"] = scores["context_mean", "none"] - 0.5  # the best baseline
    whole = board(grid(scores, metric="l2", ceiling=truth, folds=10), metric="l2")[0].set_index("embedding")
    assert whole.loc["go", ["floor_name", "floor_without"]].tolist() == ["additive", ""]
    if gap == "undefined":
        scores["additive", "none"][0, 3] = np.nan
    one, two, top = grid(scores, metric="l2", ceiling=truth, folds=10)
    if gap == "failed":
        hit = (two["head"] == "additive") & (two["fold"] == "3")
        two.loc[hit, "status"] = "failed"
        one = one[~one["key"].isin(two.loc[hit, "key"])]
    found, _ = board((one, two, top), metric="l2")
    go = found.set_index("embedding").loc["go"]
    assert go[["floor_name", "floor_without"]].tolist() == ["additive", ""]
    keep = np.isfinite(scores["additive", "none"])
    if gap == "failed":
        keep[:, 3::10] = False
    score, floor, best = (
        np.mean([v[c][keep[c]].mean() for c in range(2)])
        for v in (scores["ridge", "go"], scores["additive", "none"], truth)
    )
    assert go["progress"] == pytest.approx((floor - score) / (floor - best))
    assert go["progress"] == pytest.approx(whole.loc["go", "progress"], abs=0.02)


def test_baselines_that_are_no_candidates_are_named():
    scores, truth = entries()
    scores["additive", "none"] = scores["context_mean", "none"] - 0.5
    scores["additive", "none"][:, ::3] = np.nan
    scores["no_change", "none"][:] = np.nan
    found, _ = board(grid(scores, metric="l2", ceiling=truth), metric="l2")
    assert set(found["floor_name"]) == {"context_mean"}
    told = "additive (52 of 80 conditions); no_change (0 of 80 conditions)"
    assert set(found["floor_without"]) == {told}
    shown = markdown(leaderboard_sheets(found, METRICS, {}))
    assert f"context_mean; defined on too few conditions to be one: {told}." in shown
    holes, _ = entries()  # each has 90 %, all of them together would share 70 %
    for number, name in enumerate("abc"):
        holes[name, "none"] = holes["context_mean", "none"].copy()
        holes[name, "none"][:, 4 * number : 4 * number + 4] = np.nan
    found, _ = board(grid(holes, metric="l2", ceiling=truth), metric="l2")
    assert found["floor_without"].iloc[0] == "c (72 of 80 conditions)"
    assert found["progress"].notna().any()


def test_progress_without_headroom_ceiling_or_baseline_says_so():
    scores, truth = entries()
    noise = np.random.default_rng(0).normal(0, 0.5, truth.shape)
    for top in (
        scores["context_mean", "none"] + noise,
        scores["context_mean", "none"] + 1,
        scores["context_mean", "none"],
    ):
        found, _ = board(grid(scores, metric="l2", ceiling=top), metric="l2")
        assert set(found["progress_note"]) == {"undefined"}
        assert found["progress"].isna().all()
        assert "undefined" in markdown(leaderboard_sheets(found, METRICS, {}))
    found, _ = board(grid(scores, metric="l2"), metric="l2")
    assert set(found["progress_note"]) == {"no ceiling"}
    assert found["floor"].iloc[0] == pytest.approx(scores["context_mean", "none"].mean())
    bare = {k: v for k, v in scores.items() if k[1] != "none"}
    assert set(board(grid(bare, metric="l2", ceiling=truth), metric="l2")[0]["progress_note"]) == {"no baseline"}
    few = {k: v[:, :2] for k, v in scores.items()}
    assert set(board(grid(few, metric="l2", ceiling=truth[:, :2]), metric="l2")[0]["progress_note"]) == {
        "fewer than 3 units"
    }


def test_other_variants_of_the_ceiling_are_not_mixed_in():
    scores, truth = entries()
    one, two, top = grid(scores, metric="l2", ceiling=truth)
    both = pd.concat([top.assign(variant="cole_q0.9", value=9.0), top.assign(variant="noise_free")])
    plain, named = (board((one, two, t), metric="l2")[0] for t in (top, both))
    pd.testing.assert_frame_equal(plain, named)


def test_progress_interval_covers():
    """A planted progress of one half, joint noise: 95 % intervals hold it in 90 to 99 % of cases."""
    hits = []
    for seed in range(80):
        rng = np.random.default_rng([8, seed])
        hard = rng.normal(0, 0.5, (2, 30))
        unit = {n: rng.normal(0, 0.3, 30) + rng.normal(0, 0.2, (2, 30)) for n in ("floor", "score")}
        table = {("context_mean", "none"): 4 + hard + unit["floor"], ("ridge", "go"): 3 + hard + unit["score"]}
        found, _ = board(grid(table, metric="l2", ceiling=2 + hard), metric="l2")
        go = found.set_index("embedding").loc["go"]
        hits.append(go["progress_low"] <= 0.5 <= go["progress_high"])
    assert 0.90 <= np.mean(hits) <= 0.99


# ---- coverage, pairs, verdicts -------------------------------------------------------------------------------------


def half_covered(seed=0, units=60):
    """An embedding that covers 40 %, useless, whose fallback is better than another useless one's predictions."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.3, (2, units))
    mask = np.arange(units) % 5 < 2
    mean = 4 + hard
    bad = mean + 0.5 + rng.normal(0, 0.1, (2, units))
    also = mean + 0.5 + rng.normal(0, 0.1, (2, units))
    table = {("context_mean", "none"): mean, ("ridge", "whole"): bad, ("ridge", "part"): np.where(mask, also, mean)}
    return grid(table, metric="l2", covered={("ridge", "part"): mask}), mask


def test_partial_coverage_is_listed_unranked_and_compared_on_common_conditions():
    frames, mask = half_covered()
    found, pairs = board(frames, metric="l2")
    by = found.set_index("embedding")
    assert by.loc["part", "mean"] < by.loc["whole", "mean"]  # the fallback flatters
    assert pd.isna(by.loc["part", "rank"])
    assert not by.loc["part", "best"]
    assert by.loc["whole", "rank"] == 2
    (pair,) = pairs[pairs["kind"] == "embeddings"].to_dict("records")
    assert (pair["n_units"], pair["n_conditions"]) == (mask.sum(), 2 * mask.sum())
    assert abs(pair["difference"]) < 0.1
    assert pair["better"] == "–"
    assert "‡" in markdown(leaderboard_sheets(found, METRICS, {}))
    ranked, _ = board(frames, metric="l2", coverage=0.3)
    assert ranked.set_index("embedding").loc["part", "rank"] == 2
    with pytest.raises(UserError, match="from 0 to 1"):
        board(frames, metric="l2", coverage=80.0)


def informative(seed=0, units=40, gain=0.5, draws=8):
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 1, (2, units))

    def make(shift):
        return shift + hard + rng.normal(0, 0.2, (2, units))

    table = {("context_mean", "none"): make(0.0)}
    for head in ("knn", "ridge"):
        table |= {(head, "good"): make(gain), (head, "bad"): make(0.0)}
        for name in ("good", "bad"):
            table |= {(head, f"permuted:{name}:draw={d}"): make(rng.normal(0, 0.02)) for d in range(draws)}
    return table


def test_pairs_compare_whole_perturbations_and_holm_counts_all_of_them():
    table = informative()
    found, pairs = board(grid(table))
    assert sorted(zip(pairs["kind"], pairs["shared"], pairs["first"], pairs["second"], strict=True)) == [
        ("embeddings", "knn", "bad", "good"),
        ("embeddings", "ridge", "bad", "good"),
        ("heads", "bad", "knn", "ridge"),
        ("heads", "good", "knn", "ridge"),
    ]
    pair = pairs[(pairs["shared"] == "knn")].iloc[0]
    gaps = (table["knn", "bad"] - table["knn", "good"]).mean(axis=0)
    assert pair["difference"] == pytest.approx(gaps.mean())
    assert pair["low"] < gaps.mean() < pair["high"]
    assert pair["p"] <= 1e-4
    assert pair["better"] == "good"
    order = np.sort(pairs["p"].to_numpy())
    assert pairs["p_holm"].min() == pytest.approx(4 * order[0])
    by = found.set_index(["head", "embedding"])
    assert by.loc[("knn", "good"), ["pairs", "pairs_better", "pairs_worse"]].tolist() == [2, 1, 0]
    assert by.loc[("knn", "bad"), ["pairs", "pairs_better", "pairs_worse"]].tolist() == [2, 0, 1]
    assert "+1 -0" in markdown(leaderboard_sheets(found, METRICS, {}))


def test_pairs_that_could_not_be_tested_are_not_counted():
    frames = grid({k: v[:, :6] for k, v in informative().items()})
    found, pairs = board(frames)
    assert len(pairs) == 4
    assert not pairs["p_holm"].notna().any()
    assert not found["pairs"].any()
    assert "pairs" not in leaderboard_sheets(found, METRICS, {})[0].columns


def test_a_statistic_per_gene_is_compared_over_all_conditions_only():
    frames, _ = half_covered()
    gene = {"l2": METRICS["l2"] | {"level": "gene"}}
    assert len(board(frames, metric="l2")[1]) == 1
    found, pairs = tables.leaderboard_and_pairs(*frames, gene, metric="l2", bootstrap=50)
    assert not len(pairs)
    assert not found["pairs"].any()
    assert "is in no pair" in markdown(leaderboard_sheets(found, gene, {}))
    whole = {"pearson": METRICS["pearson"] | {"level": "gene"}}
    assert len(tables.leaderboard_and_pairs(*grid(informative()), whole, metric="pearson", bootstrap=50)[1]) == 4
    made = report_frames(*frames, gene, {}, ["l2"], bootstrap=20)
    assert not len(made["by_group"])


def test_two_useless_embeddings_are_not_told_apart_by_how_much_they_disturb():
    table = informative(gain=0.0)
    for head in ("knn", "ridge"):  # bad and its permutations lose to the mean, and to the other useless embedding
        for name in table:
            if name[0] == head and "bad" in name[1]:
                table[name] = table[name] - 1.0
    _, pairs = board(grid(table))
    between = pairs[pairs["kind"] == "embeddings"]
    assert (between["p_holm"] < 0.01).all()
    assert set(between["better"]) == {"–"}


def test_both_verdict_columns_are_one_family():
    found, _ = board(grid(informative()))
    go = found.set_index(["head", "embedding"])
    assert set(found["verdicts"]) == {
        4 + 4
    }  # each against its own permutations and against the mean; permutations claim nothing
    assert (go.loc[("knn", "good"), "beats_permuted"], go.loc[("knn", "good"), "beats_context_mean"]) == ("yes", "yes")
    assert go.loc[("knn", "good"), "context_mean_p"] < 0.05
    assert go.loc[("knn", "bad"), "beats_permuted"] == "no"


def test_few_covered_perturbations_claim_nothing():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.3, (2, 40))
    mask = np.arange(40) < 6  # all better: the bootstrap alone would call it
    better = hard + np.where(mask, 1.0 + rng.normal(0, 0.1, (2, 40)), 0.0)
    found, _ = board(grid({("context_mean", "none"): hard, ("knn", "go"): better}, covered={("knn", "go"): mask}))
    go = found.set_index("embedding").loc["go"]
    assert go["vs_context_mean_low"] > 0
    assert go["beats_context_mean"] == "–"


@pytest.mark.parametrize("planted", [False, True])
def test_simulated_screens(planted):
    """A short run of bench/null_screens.py; acceptance asks for <= 16 of 200, and >= 80 % found."""
    null = bench("null_screens")
    found = []
    for seed in range(4):
        frames = null.screen_frames(9000 + seed, planted=planted, perturbations=40, genes=60)
        found.append(null.declared(frames, "l2_all", "full_a" if planted else ""))
    table = pd.DataFrame(found)
    assert (table[["permuted", "context_mean", "pairs"]].sum(axis=1) > 0).sum() <= 1
    if planted:
        assert (table["found"] > 0).sum() >= 3


# ---- embedding or head ---------------------------------------------------------------------------------------------


def test_components_are_unbiased_however_the_noise_correlates():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(3, 2))
    want = variances(np.stack([mean, mean]), np.full((2, 1), 0.5))[:, 0]
    assert want.sum() == pytest.approx(mean.var())
    mix = rng.normal(size=(6, 6))
    got = []
    for _ in range(4000):
        noise = (rng.normal(size=(8, 6)) @ mix).reshape(8, 3, 2)
        got.append(variances(mean + noise, np.full((8, 1), 1 / 8))[:, 0])
    error = np.std(got, axis=0) / np.sqrt(4000)
    assert (np.abs(np.mean(got, axis=0) - want) < 4 * error).all()


def test_shares_do_not_depend_on_units_of_a_context():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(20, 4, 3)) * 0.2 + rng.normal(size=(4, 3))
    even, code, ones = np.full(20, 1 / 20), np.arange(20), [np.ones((20, 1))]
    plain = [Block(values, even, code), Block(values[::-1], even, code)]
    moved = [plain[0], Block(7 - 100 * values[::-1], even, code)]  # progress is affine in the score
    np.testing.assert_allclose(shares(plain, ones)[0], shares(moved, ones)[0], rtol=1e-9)


@pytest.mark.parametrize("name", ["embedding", "head", "even"])
def test_intervals_cover_planted_shares(name):
    """A short run of bench/decomposition_coverage.py; acceptance asks for 90 to 99 % of 200."""
    held, mean, defined = bench("decomposition_coverage").coverage(name, 60, 60, resamples=200)
    assert defined == 60
    np.testing.assert_allclose(mean, bench("decomposition_coverage").SCENARIOS[name][0], atol=0.03)
    assert (held >= 0.85).all()


def test_noise_alone_has_no_shares():
    values = np.random.default_rng(0).normal(size=(40, 4, 3))
    found = decompose([Block(values, np.full(40, 1 / 40), np.arange(40))], resamples=200)
    assert "undefined" in found["note"]
    assert np.isnan(found["embedding"])
    few = decompose([Block(values[:5], np.full(5, 1 / 5), np.arange(5))], resamples=50)
    assert "fewer than 10 clusters" in few["note"]


def crossed_grid(dataset="toy", embedding=0.5, head=0.1, metric="pearson", heads=("knn", "ridge", "mlp")):
    rng = np.random.default_rng(sum(map(ord, dataset)))
    hard = rng.normal(0, 1, (2, 40))
    table = {("context_mean", "none"): hard, ("ridge", "random"): hard, ("ridge", "permuted:go"): hard + 9}
    table |= {("ridge", "oracle_pca"): hard + 50}
    for (i, e), (j, h) in itertools.product(enumerate(("go", "ppi", "text")), enumerate(heads)):
        table[h, e] = hard + embedding * i + head * j + rng.normal(0, 0.1, (2, 40))
    return grid(table, metric=metric, dataset=dataset, roles={"random": "random", "oracle_pca": "oracle"})


def test_decomposition_table_states_its_panel():
    found = decomposition(*crossed_grid()[:2], METRICS, metric="pearson", bootstrap=200)
    (line,) = found.to_dict("records")
    assert (line["embeddings"], line["heads"], line["left_out"]) == ("go; ppi; text", "knn; mlp; ridge", "")
    want = np.array([0.5**2, 0.1**2]) * 2 / 3
    assert line["embedding"] == pytest.approx(want[0] / want.sum(), abs=0.02)
    assert line["embedding_min"] <= line["embedding"] <= line["embedding_max"]
    assert (line["answer"], line["n_clusters"], line["n_blocks"]) == ("embedding", 40, 2)
    turned = decomposition(*crossed_grid(embedding=0.1, head=0.5)[:2], METRICS, metric="pearson", bootstrap=200)
    assert turned["answer"].tolist() == ["head"]
    lone = decomposition(*crossed_grid(heads=("knn",))[:2], METRICS, metric="pearson", bootstrap=50)
    assert lone["note"].iloc[0] == "no crossed panel of 2 embeddings x 2 heads: 3 and 1 found"


def contexts_grid(*, embedding="none", **more):
    """Heads on context embeddings, with one embedding of the perturbations or none."""
    frames = crossed_grid()
    runs = frames[1]
    hit = runs["role"] == "method"
    runs.loc[hit, "context_embedding"] = runs.loc[hit, "embedding"]
    runs.loc[hit, "embedding"] = embedding
    return frames[0], runs.assign(**more), frames[2]


@pytest.mark.parametrize("embedding", ["none", "esm"])
def test_context_embeddings_are_levels(embedding):
    scores, runs, _ = contexts_grid(embedding=embedding)
    (line,) = decomposition(scores, runs, METRICS, metric="pearson", bootstrap=200).to_dict("records")
    (plain,) = decomposition(*crossed_grid()[:2], METRICS, metric="pearson", bootstrap=200).to_dict("records")
    assert line["embeddings"] == "; ".join(f"{embedding} / {name}" for name in ("go", "ppi", "text"))
    assert [line[c] for c in ("heads", "answer")] == ["knn; mlp; ridge", "embedding"]
    assert line["embedding"] == pytest.approx(plain["embedding"])
    kinds = runs["head"].map({"knn": "simple", "ridge": "simple", "mlp": "complex"}).fillna("")
    inner = runs["context_embedding"].map({"go": 3.0, "ppi": 1.0, "text": 2.0})
    runs = runs.assign(complexity=kinds, inner_score=inner, information="unperturbed expression")
    chosen = choices(scores, runs, METRICS, metric="pearson", bootstrap=50)
    assert len(chosen) == 9
    assert set(chosen.loc[chosen["chosen"], "simple_embedding"]) == {f"{embedding} / ppi"}
    found = tables.leaderboard(scores, runs, None, METRICS, metric="pearson", bootstrap=20)
    (group,) = by_information(found, METRICS).to_dict("records")
    assert [group[c] for c in ("information", "embeddings", "configurations")] == ["unperturbed expression", 3, 9]
    assert group["best_embedding"] == f"{embedding} / text"


def test_a_panel_that_is_missing_says_why():
    scores, runs, _ = crossed_grid(heads=("knn", "ridge"))

    def note(scores, runs, **more):
        return decomposition(scores, runs, METRICS, metric="pearson", bootstrap=20, **more)["note"].iloc[0]

    blind = runs.assign(embedding=runs["embedding"].where(runs["role"] != "method", "none"))
    blind = blind.assign(combine=runs["embedding"])
    assert note(scores, blind).endswith("0 and 0 found; methods not taken in: 6 without vectors")
    failed = runs["embedding"].isin(["ppi", "text"]) & (runs["fold"] == "0")
    less = runs.assign(status=np.where(failed, "failed", "done"))
    kept = scores[~scores["key"].isin(runs.loc[failed, "key"])]
    assert note(kept, less).endswith("1 and 2 found; methods not taken in: 4 incomplete")
    poor = scores.assign(covered=~scores["key"].str.contains("ppi|text"))
    assert note(poor, runs).endswith("1 and 2 found; methods not taken in: 4 poorly covered")
    single = scores.assign(context=scores["row"].map("c{}".format))
    assert "every context has a single condition" in note(single, runs)
    holes = scores.assign(value=scores["value"].where((scores["row"] % 2 == 0) ^ scores["key"].str.contains("ppi")))
    assert note(holes, runs) == "no condition that every entry of the panel covers"
    two = runs[~((runs["head"] == "ridge") & runs["embedding"].isin(["go", "text"]))]
    two = two[~((two["head"] == "knn") & (two["embedding"] == "ppi"))]
    assert "3 and 2 found, only" in note(scores[scores["key"].isin(two["key"])], two)


def test_an_answer_that_one_level_decides_is_not_given():
    scores, runs, _ = crossed_grid(head=0.1, embedding=0.5)
    lost = scores["key"].str.contains("|mlp|", regex=False)
    worse = scores.assign(value=scores["value"] - np.where(lost, 50.0 + scores["value"], 0.0))
    (line,) = decomposition(worse, runs, METRICS, metric="pearson", bootstrap=100).to_dict("records")
    assert line["embedding_minus_head_high"] < 0
    assert line["answer"] == "depends on mlp"
    assert line["embedding_max"] > 0.8
    shown = text(terminal(answer_sheets({"decomposition": pd.DataFrame([line])})), width=100)
    assert "depends on mlp" in " ".join(shown.split())
    assert f"–{100 * line['embedding_max']:.0f}%" in shown
    gone = np.zeros((20, 3, 2))
    gone[:, 2, :] = 1.0  # without the third embedding nothing differs
    one = Block(gone, np.full(20, 1 / 20), np.arange(20))
    assert decompose([one], resamples=50)["answer"] == "depends on embedding 3"
    assert decompose([one], resamples=50, levels=(["a", "b", "c"], ["x", "y"]))["answer"] == "depends on c"


def test_several_datasets_are_pooled_over_the_common_panel():
    parts = [crossed_grid("a")[:2], crossed_grid("b", heads=("knn", "ridge"))[:2]]
    frames = [pd.concat(pair, ignore_index=True) for pair in zip(*parts, strict=True)]
    found = decomposition(*frames, METRICS, metric="pearson", bootstrap=100).set_index("dataset")
    assert found.loc["all datasets", "heads"] == "knn; ridge"
    assert found.loc["all datasets", ["n_clusters", "n_blocks"]].tolist() == [80, 4]
    assert found.loc["a", "heads"] == "knn; mlp; ridge"


def test_gaps_in_the_panel_are_left_out_by_name():
    pairs = dict.fromkeys(itertools.product("abc", "xyz"), 0)
    del pairs["b", "y"], pairs["b", "z"]
    assert crossed(pairs).left_out == ("b",)
    assert crossed({}).embeddings == ()


# ---- choices, information, ranks -----------------------------------------------------------------------------------


def choice_grid(metric="pearson", **more):
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, (2, 40))
    spec = {  # outer gain, inner error, complexity
        ("knn", "go"): (0.6, 1.0, "simple"),
        ("ridge", "go"): (0.9, 2.0, "simple"),  # better outside, worse inside: never chosen
        ("knn", "ppi"): (0.1, 3.0, "simple"),
        ("mlp", "go"): (0.3, 1.5, "complex"),
        ("mlp", "ppi"): (0.2, 1.2, "complex"),
    }
    table = {k: hard + v[0] + rng.normal(0, 0.1, (2, 40)) for k, v in spec.items()}
    about = {k: {"inner_score": v[1], "complexity": v[2], "budget": 20, **more} for k, v in spec.items()}
    return grid(table, metric=metric, more=about)


def test_choices_are_made_on_inner_scores_only():
    frames = choice_grid()
    found = choices(*frames[:2], METRICS, metric="pearson", bootstrap=200)
    assert len(found) == 4
    (line,) = found[found["chosen"]].to_dict("records")
    assert (line["simple_head"], line["simple_embedding"]) == ("knn", "go")
    assert (line["complex_head"], line["complex_embedding"]) == ("mlp", "ppi")
    assert line["difference"] == pytest.approx(0.4, abs=0.1)
    assert (line["better"], line["same_budget"], line["simple_trials"]) == ("simple", "yes", 3)
    assert set(found["simple_head"]) == {"knn"}
    high = choice_grid(select="pearson")  # an inner score where high is best
    turned = choices(*high[:2], METRICS, metric="pearson", bootstrap=50)
    assert set(turned.loc[turned["chosen"], "simple_embedding"]) == {"ppi"}


def test_unequal_budgets_withhold_the_winner():
    one, two, _ = choice_grid()
    two.loc[two["head"] == "mlp", ["budget", "trials"]] = [2, 2]
    two.loc[two["head"] != "mlp", ["budget", "trials"]] = [15, 14]
    found = choices(one, two, METRICS, metric="pearson", bootstrap=50)
    assert set(found["same_budget"]) == {"no"}
    assert set(found["better"]) == {"budgets differ: 15 against 2 trials"}
    shown = text(terminal(answer_sheets({"choice": found})), width=100)
    assert "14 / 2 of 15 / 2" in shown
    assert "budgets differ" in shown


def test_without_inner_scores_there_is_no_choice():
    one, two, _ = choice_grid()
    assert not len(choices(one, two.drop(columns="inner_score"), METRICS, metric="pearson", bootstrap=20))
    assert not len(choices(one, two.assign(complexity="simple"), METRICS, metric="pearson", bootstrap=20))


def test_information_groups():
    table = informative()
    about = {(h, "good"): {"information": "prior knowledge", "flags": "controls shared"} for h in ("knn", "ridge")}
    frames = grid(table, more=about, ceiling=np.full((2, 40), 3.0))
    frames[1][["information", "flags"]] = frames[1][["information", "flags"]].fillna("")
    found, _ = board(frames)
    groups = by_information(found, METRICS).set_index("information")
    assert list(groups.index) == ["prior knowledge", "undeclared"]
    assert groups.loc["prior knowledge", ["embeddings", "configurations", "beat_permuted", "judged"]].tolist() == [
        1,
        2,
        2,
        2,
    ]
    assert groups.loc["prior knowledge", "best_progress"] > groups.loc["undeclared", "best_progress"]
    shown = markdown(leaderboard_sheets(found, METRICS, {}))
    assert "flags: C controls shared" in shown
    assert "prior = prior knowledge" in shown


def test_exploded_scores_are_flagged_and_move_no_summary():
    scores, truth = entries()
    scores["knn", "go"] = scores["ridge", "go"] + 1e6
    scores["pls", "go"] = scores["ridge", "go"] + 0.1
    about = {k: {"information": "prior knowledge", "flags": ""} for k in scores}
    found, _ = board(grid(scores, metric="l2", ceiling=truth, more=about), metric="l2")
    assert found.set_index("head").loc["knn", "flags"] == "exploded"
    assert (found["flags"] == "exploded").sum() == 1
    shown = text(terminal(leaderboard_sheets(found, METRICS, {})))
    assert "X exploded (worse than the floor by over ten times" in " ".join(shown.split())
    (group,) = by_information(found[found["embedding"] == "go"], METRICS).to_dict("records")
    progress = found[found["embedding"] == "go"]["progress"]
    assert (group["exploded"], group["configurations"]) == (1, 3)
    assert group["median_progress"] == pytest.approx(np.sort(progress)[1])
    assert "1/3" in markdown(answer_sheets({"by_information": pd.DataFrame([group])}))
    near = {k: v for k, v in scores.items() if k[0] != "knn"}  # little room: minus 1,500 % is an ordinary score
    near["ridge", "go"] = near["context_mean", "none"] + 0.15
    top = near["context_mean", "none"] - 0.01
    found, _ = board(grid(near, metric="l2", ceiling=top), metric="l2")
    go = found[found["head"] == "ridge"].set_index("embedding").loc["go"]
    assert go["progress_high"] < -10
    assert go["flags"] == ""


def test_marks_are_the_words_of_the_grid():
    assert set(marks.FLAGS) == {*honesty.FLAGS, marks.EXPLODED}
    assert len(set(marks.FLAGS.values())) == len(marks.FLAGS)
    assert set(marks.INFORMATION) == set(INFORMATION) - {"none"}
    assert marks.short_information(" + ".join(INFORMATION)) == "+".join(marks.INFORMATION[k] for k in INFORMATION[1:])


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_flags_are_never_hidden(width):
    words = "controls shared; reads test rows"
    about = {(h, "good"): {"information": "prior knowledge + unknown", "flags": words} for h in ("knn", "ridge")}
    frames = grid(informative(), more=about, ceiling=np.full((2, 40), 3.0))
    frames[1][["information", "flags"]] = frames[1][["information", "flags"]].fillna("")
    found, _ = board(frames)
    shown = text(terminal(leaderboard_sheets(found, METRICS, {}), width=width), width=width)
    assert "CT" in shown.split()
    assert "Not shown" not in shown or "flags" not in shown.partition("Not shown")[2].split("\n\n")[0]
    assert "prior+unknown" in markdown(leaderboard_sheets(found, METRICS, {}))


# ---- composites ----------------------------------------------------------------------------------------------------

GAIN = Composite(
    lambda means, base: ((base[0] - means[:, 0]) + (means[:, 1] - base[1])) / 2,
    ("l2", "pearson"),
    "context_mean",
    "high",
    "test",
)


def composite_frames(failed: bool = False):
    table = informative()
    table |= {("ridge", "oracle_pca"): table["ridge", "good"] + 5}
    both = [
        grid({k: (1 if m == "pearson" else -2) * v for k, v in table.items()}, metric=m, roles={"oracle_pca": "oracle"})
        for m in METRICS
    ]
    scores, runs = pd.concat([one for one, _, _ in both], ignore_index=True), both[0][1]
    if failed:
        hit = (runs["head"] == "knn") & (runs["embedding"] == "good") & (runs["fold"] == "0")
        runs.loc[hit, "status"] = "failed"
        scores = scores[~scores["key"].isin(runs.loc[hit, "key"])]
    found = [tables.leaderboard(scores, runs, None, METRICS, metric=m, bootstrap=20) for m in METRICS]
    return pd.concat(found, ignore_index=True)


def test_composites_are_sorted_by_role_and_computed_from_means():
    made = composite_table(composite_frames(), {"gain": GAIN})
    assert made["role"].tolist() == ["method"] * 4 + ["baseline"] + ["permuted"] * 4 + ["oracle"]
    wide = made.set_index(["head", "embedding"])
    base = wide.loc[("context_mean", "none")]
    assert base["score"] == pytest.approx(0.0)
    want = (base["l2"] - wide["l2"] + wide["pearson"] - base["pearson"]) / 2
    np.testing.assert_allclose(wide["score"], want)
    methods = made[made["role"] == "method"]
    assert methods["score"].is_monotonic_decreasing
    assert made.loc[made["role"].isin(["permuted", "oracle"]), "rank"].isna().all()
    assert sorted(made["rank"].dropna()) == [1, 2, 3, 4, 5]
    (sheet,) = composite_sheets(made)
    assert [name.partition(" ")[0] for name, _ in sheet.sections] == ["Methods", "Baselines", "Permutations", "Oracles"]
    assert sheet in answer_sheets({"composites": made})
    assert max(map(len, text(terminal([sheet])).splitlines())) <= 100


def test_composites_of_incomplete_or_missing_parts_are_not_ranked_or_say_so():
    made = composite_table(composite_frames(failed=True), {"gain": GAIN}).set_index(["head", "embedding"])
    assert not made.loc[("knn", "good"), "complete"]
    assert np.isnan(made.loc[("knn", "good"), "rank"])
    board = composite_frames()
    lone = board[board["metric"] == "pearson"]
    assert not len(composite_table(lone, {"gain": GAIN}))
    (line,) = composite_table(lone, {"gain": GAIN}, asked=["gain"]).to_dict("records")
    assert line["note"] == "not computed: part l2 not scored"
    assert np.isnan(line["score"])
    assert "part l2 not scored" in markdown(composite_sheets(composite_table(lone, {"gain": GAIN}, asked=["gain"])))
    bare = board[board["head"] != "context_mean"]
    (line,) = composite_table(bare, {"gain": GAIN}, asked=["gain"]).to_dict("records")
    assert line["note"] == "not computed: baseline context_mean not scored"
    gap = board.copy()
    gap.loc[(gap["head"] == "knn") & (gap["embedding"] == "bad") & (gap["metric"] == "l2"), "mean"] = np.nan
    part = composite_table(gap, {"gain": GAIN}).set_index(["head", "embedding"]).loc[("knn", "bad")]
    assert (part["note"], np.isnan(part["score"])) == ("not computed: part l2 not scored", True)
    torn = board.assign(complete=board["head"] != "context_mean")
    assert "incomplete" in composite_table(torn, {"gain": GAIN}, asked=["gain"])["note"].iloc[0]
    (line,) = composite_table(board[:0], {"gain": GAIN}, asked=["gain"]).to_dict("records")
    assert line["note"] == "not computed: part l2, pearson not scored"


def test_an_outdated_table_is_removed(tmp_path):
    board = composite_frames()
    frames = dict.fromkeys(("by_context", "by_group", "problems"), board[:0]) | {"leaderboard": board}
    given = (METRICS, {}, list(METRICS))
    made = composite_table(board, {"gain": GAIN})
    written = write_frames(tmp_path, frames | {"composites": made}, *given)
    assert "gain" in written["leaderboard.md"].read_text()
    assert (tmp_path / "composites.csv").is_file()
    (tmp_path / "own.csv").write_text("kept")
    write_frames(tmp_path, frames, *given)
    assert not (tmp_path / "composites.csv").exists()
    assert (tmp_path / "own.csv").is_file()


def test_ranks_are_demsars_example():
    """Table 6 and section 3.2.2 of Demsar (2006): AdaBoost-free C4.5 variants on 14 datasets."""
    auc = np.array(
        [
            *[[0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967]],
            *[[0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931]],
            *[[0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875]],
            *[[1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669]],
            *[[0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970]],
        ]
    )
    found = demsar(auc.T)
    assert found["mean_rank"].round(3).tolist() == [3.143, 2.0, 2.893, 1.964]
    assert found["critical_difference"] == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert found["label"] == "critical difference"
    ties_removed = np.argsort(np.argsort(np.random.default_rng(0).normal(size=(4, 9)), axis=0), axis=0)
    chi, _ = scipy_stats.friedmanchisquare(*ties_removed)
    ratio = 8 * chi / (9 * 3 - chi)
    assert demsar(ties_removed.astype(float))["friedman_p"] == pytest.approx(scipy_stats.f.sf(ratio, 3, 24))
    assert np.isnan(demsar(np.ones((3, 7)))["friedman_p"])


@pytest.mark.parametrize("n", [5, 6])
def test_ranks_are_tested_from_six_screens_up(n):
    parts = [crossed_grid(f"screen{i}")[:2] for i in range(n)]
    frames = [pd.concat(pair, ignore_index=True) for pair in zip(*parts, strict=True)]
    found = tables.leaderboard(*frames, None, METRICS, metric="pearson", bootstrap=20)
    table = ranks(found, METRICS, by="embedding")
    assert table["entry"].tolist() == ["text", "ppi", "go"]
    assert table["mean_rank"].tolist() == [1, 2, 3]
    assert set(table["label"]) == {"critical difference" if n >= 6 else "descriptive"}
    assert table["critical_difference"].notna().all() == (n >= 6)
    one = ranks(found, METRICS, {f"screen{i}": {"study": "same"} for i in range(n)}, by="embedding")
    assert set(one["n_screens"]) == {1}
    assert len(ranks(found, METRICS)) == 9
    with pytest.raises(ValueError, match="by must be one of"):
        ranks(found, METRICS, by="dataset")


def test_rank_boxes_are_descriptive():
    scores, runs, _ = crossed_grid()
    found = rank_boxes(scores, runs, METRICS, metric="pearson")
    assert set(found["label"]) == {"descriptive"}
    assert found.groupby(["fold", "context"]).size().tolist() == [9] * 4
    box = found[(found["fold"] == "0") & (found["context"] == "c0")].set_index(["head", "embedding"])
    keys = runs[(runs["fold"] == "0") & (runs["role"] == "method")].set_index("key")[["head", "embedding"]]
    raw = scores[(scores["context"] == "c0") & scores["key"].isin(keys.index)].groupby("key")["value"].mean()
    for key, mean in raw.items():
        assert box.loc[tuple(keys.loc[key]), "mean"] == pytest.approx(mean)
    assert box["rank"].tolist() == sorted(box["rank"])


def test_whole_report_is_deterministic_and_fits(tmp_path):
    scores, runs, top = choice_grid(information="prior knowledge")
    files = [
        write_report(
            tmp_path / name,
            scores=scores.sample(frac=1, random_state=number),
            runs=runs.sample(frac=1, random_state=number),
            ceilings=top,
            metrics=METRICS,
            facts={},
            bootstrap=50,
        )
        for number, name in enumerate("ab")
    ]
    for name, path in files[0].items():
        assert path.read_bytes() == files[1][name].read_bytes(), name
    page = files[0]["leaderboard.md"].read_text()
    for word in ("## Answers", "Best simple head against best complex head", "By information", "Embedding or head?"):
        assert word in page
    frames = report_frames(scores, runs, top, METRICS, {}, ["pearson"], bootstrap=50)
    shown = text(terminal(answer_sheets(frames)), width=100)
    assert max(map(len, shown.splitlines())) <= 100
