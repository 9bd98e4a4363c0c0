"""The report layer on synthetic result frames: statistics against scipy and brute force, honesty rules, rendering."""

from __future__ import annotations

import itertools
import time
from dataclasses import fields, replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from embbench.core import UserError
from embbench.report import stats, tables
from embbench.report.boards import strip_permuted
from embbench.report.layout import context_sheets, group_sheets, leaderboard_sheets, problem_sheets
from embbench.report.render import csv, markdown, svg, terminal, text
from embbench.report.stats import interval, plan, resampled_means, summarise, versus_draws, versus_reference
from embbench.report.write import write_report

METRICS = {
    "pearson": {"best": "high", "lower": -1.0, "upper": 1.0, "level": "condition", "source": "test"},
    "l2": {"best": "low", "lower": 0.0, "upper": np.inf, "level": "condition", "source": "test"},
}
FACTS = {"toy": {"controls": "shared", "simulated": True, "footer": "simulated: not evidence"}}
DEFAULTS = {
    "combine": "sum",
    "context_embedding": "none",
    "features": "pca:100",
    "scope": "auto",
    "target": "effects",
    "graph": "none",
    "select": "l2",
    "genes": "all",
    "samples": 100,
    "strict_context": False,
    "seed": 0,
    "protocol": "default",
}


def role_of(head: str, embedding: str) -> str:
    if embedding.startswith("permuted:"):
        return "permuted"
    if embedding.startswith("oracle_"):
        return "oracle"
    if embedding == "random":
        return "random"
    return "baseline" if embedding == "none" else "method"


def results(
    configurations: list[tuple[str, str]],
    value,  # fn(configuration number, unit codes, context codes) -> scores
    *,
    units: int = 30,
    contexts: tuple[str, ...] = ("k562", "rpe1"),
    split: str = "unseen_perturbation",
    folds: int = 3,
    metric: str = "pearson",
    statuses: dict[tuple[int, int], tuple[str, str]] | None = None,
    **more: object,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and runs of a grid; perturbation u is tested in fold u % folds, in every context."""
    unit, context = (a.ravel() for a in np.meshgrid(np.arange(units), np.arange(len(contexts))))
    runs, scores = [], []
    for number, (head, embedding) in enumerate(configurations):
        values = value(number, unit, context)
        for fold in range(folds):
            status, reason = (statuses or {}).get((number, fold), ("done", ""))
            where = DEFAULTS | {"dataset": "toy", "split": split, "fold": str(fold), "head": head, **more}
            where |= {"embedding": embedding, "key": f"{number}-{fold}-{where['seed']}"}
            runs.append(
                where
                | {"status": status, "reason": reason, "n_train": 20, "n_test": 10, "coverage": 1.0, "fallback": ""}
                | {"dim": 100, "chosen": '{"k": 5}', "trials": 3, "cpu_seconds": 0.5, "role": role_of(head, embedding)}
            )
            if status != "done":
                continue
            hit = np.flatnonzero(unit % folds == fold)
            part = pd.DataFrame({"row": hit, "condition": [f"g{u}" for u in unit[hit]]})
            part["context"] = np.array(contexts, dtype=object)[context[hit]]
            part["unit"], part["group"] = part["condition"], np.where(unit[hit] % 2, "0 seen", "1 seen")
            part["covered"], part["detectable"] = unit[hit] % 10 != 9, unit[hit] % 5 != 0
            part["metric"], part["value"] = metric, values[hit]
            scores.append(part.assign(**where))
    columns = ["key", "dataset", "row", "condition", "context", "unit", "group", "covered", "detectable", "metric"]
    empty = pd.DataFrame(columns=[*columns, "value"])
    return pd.concat(scores, ignore_index=True) if scores else empty, pd.DataFrame(runs)


CONFIGURATIONS = [
    ("context_mean", "none"),
    ("no_change", "none"),
    ("ridge", "go"),
    ("ridge", "random"),
    *[("ridge", "permuted:go" + (f":draw={d}" if d else "")) for d in range(4)],
    ("ridge", "oracle_pca"),
]
LEVELS = [0.3, 0.0, 0.5, 0.3, 0.3, 0.31, 0.29, 0.3, 0.9]


def toy_value(number: int, unit: np.ndarray, context: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng([7, number])
    shared = np.random.default_rng(3).normal(0, 0.2, unit.max() + 1)[unit]
    return LEVELS[number] + shared + 0.05 * context + rng.normal(0, 0.05, len(unit))


def toy(**more):
    return results(CONFIGURATIONS, toy_value, **more)


def board(scores, runs, ceilings=None, metric="pearson", **more):
    return tables.leaderboard(scores, runs, ceilings, METRICS, metric=metric, bootstrap=200, **more)


# ---- statistics ----------------------------------------------------------------------------------------------------


def test_single_context_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=40)
    design = plan(np.zeros(40), np.arange(40), over_contexts=False, resamples=20_000, seed=1)
    mean, low, high, units = summarise(values[None], design)
    peer = scipy_stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=5)
    assert mean[0] == pytest.approx(values.mean(), rel=1e-12)
    assert units[0] == 40
    width = peer.confidence_interval.high - peer.confidence_interval.low
    assert low[0] == pytest.approx(peer.confidence_interval.low, abs=0.03 * width)
    assert high[0] == pytest.approx(peer.confidence_interval.high, abs=0.03 * width)
    error = resampled_means(values[None], design)[0, 1:].std()
    assert error == pytest.approx(values.std() / np.sqrt(40), rel=0.02)


@pytest.mark.parametrize("over_contexts", [False, True])
def test_resamples_equal_brute_force_repetition_of_rows(over_contexts):
    rng = np.random.default_rng(2)
    unit, context = rng.integers(0, 7, 40), rng.integers(0, 4, 40)
    values = rng.normal(size=(3, 40))
    values[0, rng.random(40) < 0.3] = np.nan
    values[1, context == 2] = np.nan
    design = plan(context, unit, over_contexts=over_contexts, resamples=30, seed=0)
    got = resampled_means(values, design)
    codes = np.unique(context if over_contexts else unit)
    for i, b in itertools.product(range(3), range(31)):
        blocks: list[tuple[int, float]] = []  # (context copy, value), rows repeated as often as their unit was drawn
        for code, count in zip(codes, design.counts[:, b].astype(int), strict=True):
            rows = np.flatnonzero((context if over_contexts else unit) == code)
            for copy in range(count):
                blocks += [((context[r], copy if over_contexts else 0), values[i, r]) for r in rows]
        known = [(c, v) for c, v in blocks if np.isfinite(v)]
        per_context = [np.mean([v for c, v in known if c == one]) for one in {c for c, _ in known}]
        want = np.mean(per_context) if per_context else np.nan
        np.testing.assert_allclose(got[i, b], want, rtol=1e-12)


def test_interval_covers_the_true_two_level_mean():
    rng = np.random.default_rng(4)
    unit, context = np.tile(np.arange(25), 3), np.repeat(np.arange(3), 25)
    effects = rng.normal(size=(400, 25))[:, unit] + rng.normal(0, 0.5, size=(400, 75)) + context
    design = plan(context, unit, over_contexts=False, resamples=400, seed=0)
    _, low, high, _ = summarise(effects, design)
    assert 0.90 <= np.mean((low < 1.0) & (high > 1.0)) <= 0.98


def test_resample_without_a_present_row_is_left_out_of_the_interval():
    values = np.full((1, 6), np.nan)
    values[0, :3] = [1.0, 2.0, 3.0]
    design = plan(np.zeros(6), np.arange(6), over_contexts=False, resamples=500, seed=0)
    samples = resampled_means(values, design)
    assert np.isnan(samples).any()
    low, high = interval(samples, 3)
    assert 1.0 <= low[0] < high[0] <= 3.0


def test_reference_gap_is_paired():
    rng = np.random.default_rng(0)
    common = rng.normal(0, 10, 50)
    values = np.stack([common + 0.1 + rng.normal(0, 0.01, 50), common])
    design = plan(np.zeros(50), np.arange(50), over_contexts=False, resamples=500, seed=0)
    gap = versus_reference(values, common, design, sign=1.0)
    assert gap.verdict(np.abs(values).mean(axis=1), needs_draws=False) == ["yes", "no"]
    assert gap.high[0] - gap.low[0] < 0.02
    assert (gap.mean[1], gap.low[1], gap.high[1]) == (0.0, 0.0, 0.0)


@pytest.fixture
def few_draws(monkeypatch):
    """Verdicts from the four draws of the toy frames."""
    monkeypatch.setattr(stats, "MIN_DRAWS", 2)


def test_few_draws_give_no_verdict():
    scores, runs = toy()
    frame = tables.leaderboard(scores, runs, None, METRICS, metric="pearson")
    go = frame[(frame["embedding"] == "go") & (frame["head"] == "ridge")].iloc[0]
    assert (go["draws"], go["beats_permuted"], np.isfinite(go["permutation_p"])) == (4, "–", False)
    assert np.isfinite(go["vs_permuted_low"])
    assert "too few units (10) or permutation draws (5)" in text(terminal(leaderboard_sheets(frame, METRICS, FACTS)))


def verdicts(versus, part):
    """Verdicts of some comparisons as a board of their own."""
    cut = replace(versus, **{f.name: getattr(versus, f.name)[part] for f in fields(versus)})
    return cut.verdict(np.ones(len(cut.mean)), needs_draws=True)


@pytest.mark.parametrize(("draws", "common", "units"), [(5, 0.0, 10), (5, 0.3, 40), (10, 0.0, 40), (10, 0.3, 10)])
def test_null_embeddings_rarely_beat_their_permutations(draws, common, units):
    """Embedding and draws are exchangeable; ``common`` moves all perturbations of one draw together, which the
    bootstrap over perturbations alone calls a win in about a fifth of the cases.
    """
    rng = np.random.default_rng([draws, units, int(10 * common)])
    cases, unit = 1000, np.tile(np.arange(units), 2)
    design = plan(np.repeat([0, 1], units), unit, over_contexts=False, resamples=200, seed=0)
    scores = rng.normal(size=(cases, 1, units))[:, :, unit] + rng.normal(0, 0.3, (cases, draws + 1, units))[:, :, unit]
    scores += rng.normal(0, 0.2, (cases, draws + 1, 2 * units)) + common * rng.normal(size=(cases, draws + 1, 1))
    found = versus_draws(scores[:, 0], list(scores[:, 1:]), design, sign=1.0, seed=0)
    alone = sum(verdicts(found, slice(i, i + 1)) == ["yes"] for i in range(cases))
    assert alone <= scipy_stats.binom.ppf(0.999, cases, 0.05)  # what a test of size 5 % may show in so many cases
    boards = [verdicts(found, slice(i, i + 25)) for i in range(0, cases, 25)]
    assert sum("yes" in board for board in boards) <= scipy_stats.binom.ppf(0.999, len(boards), 0.05)
    if common:
        assert np.mean(found.low > 0) > 0.1
    shifted = versus_draws(scores[:100, 0] + 3.0, list(scores[:100, 1:]), design, sign=1.0, seed=0)
    assert sum(verdicts(shifted, slice(i, i + 1)) == ["yes"] for i in range(100)) > 90


def test_one_more_draw_test_is_the_t_prediction_interval():
    draws = np.random.default_rng(0).normal(0, 1, (5, 12))
    design = plan(np.zeros(12), np.arange(12), over_contexts=False, resamples=50, seed=0)
    found = versus_draws(np.ones((1, 12)), [draws], design, sign=1.0, seed=0)
    means = draws.mean(axis=1)
    t = (1.0 - means.mean()) / (means.std(ddof=1) * np.sqrt(1 + 1 / 5))
    assert found.p[0] == pytest.approx(scipy_stats.t.sf(t, 4), rel=1e-9)
    assert found.mean[0] == pytest.approx(1.0 - means.mean())


def test_equal_scores_and_rounding_noise_beat_nothing():
    values = np.random.default_rng(0).normal(2, 1, (1, 30))
    design = plan(np.zeros(30), np.arange(30), over_contexts=False, resamples=100, seed=0)
    for gap in (0.0, 1e-9):
        found = versus_draws(values + gap, [np.repeat(values, 5, axis=0)], design, sign=1.0, seed=0)
        assert found.verdict(values.mean(axis=1), needs_draws=True) == ["no"]


# ---- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("go", ("go", "go", "")),
        ("permuted:go", ("permuted:go", "go", "0")),
        ("permuted:knn:k=3:draw=2", ("permuted:knn:k=3", "knn:k=3", "2")),
        ("permuted:go:draw=1+permuted:ppi:draw=1", ("permuted:go+permuted:ppi", "go+ppi", "1,1")),
    ],
)
def test_permuted_names(name, want):
    assert strip_permuted(name) == want


@pytest.mark.usefixtures("few_draws")
def test_leaderboard_means_order_and_verdicts():
    scores, runs = toy()
    frame = board(scores, runs).set_index(["head", "embedding"])
    assert list(frame.index) == [
        ("ridge", "go"),
        *[i for i in frame.index if i[0] in ("context_mean", "no_change") or i[1] == "random"],
        ("ridge", "permuted:go"),
        ("ridge", "oracle_pca"),
    ]
    raw = scores[scores["embedding"] == "go"]
    want = raw.groupby("context")["value"].mean().mean()
    go = frame.loc[("ridge", "go")]
    assert go["mean"] == pytest.approx(want)
    assert go["low"] < want < go["high"]
    assert (go["n_units"], go["n_conditions"], go["n_contexts"], go["unit"]) == (30, 60, 2, "perturbations")
    assert (go["beats_permuted"], go["beats_context_mean"], go["rank"], go["best"]) == ("yes", "yes", 1, True)
    assert (go["permutation"], go["draws"], go["coverage"]) == ("permuted:go", 4, pytest.approx(0.9))
    draws = raw_mean = scores[scores["embedding"].str.startswith("permuted")].groupby("context")["value"].mean().mean()
    assert frame.loc[("ridge", "permuted:go"), "mean"] == pytest.approx(raw_mean)
    assert go["vs_permuted"] == pytest.approx(want - draws)
    oracle = frame.loc[("ridge", "oracle_pca")]
    assert pd.isna(oracle["rank"])
    assert (oracle["best"], oracle["beats_context_mean"]) == (False, "–")
    assert frame.loc[("no_change", "none"), "beats_context_mean"] == "no"


@pytest.mark.usefixtures("few_draws")
def test_low_is_best_turns_signs_and_order():
    scores, runs = results(CONFIGURATIONS, lambda *a: 5 - toy_value(*a), metric="l2")
    frame = board(scores, runs, metric="l2").set_index("embedding")
    assert frame.loc["go", "rank"] == 1
    assert frame.loc["go", "vs_permuted"] > 0
    assert frame.loc["go", "beats_permuted"] == "yes"


def test_seeds_are_averaged_per_row_whatever_the_order_of_the_frame():
    parts = [results(CONFIGURATIONS, lambda n, u, c, s=s: toy_value(n, u, c) + s, seed=s) for s in (0, 1, 2)]
    scores, runs = (pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True))
    one = board(scores, runs)
    single = board(*toy())
    np.testing.assert_allclose(one["mean"].to_numpy(float), single["mean"].to_numpy(float) + 1.0)
    shuffled = board(scores.sample(frac=1, random_state=0), runs.sample(frac=1, random_state=1))
    assert csv(one) == csv(shuffled)


def test_detectable_conditions_only():
    scores, runs = toy()
    frame = board(scores, runs, subset="detectable")
    keep = scores[scores["detectable"] & (scores["embedding"] == "go")]
    want = keep.groupby("context")["value"].mean().mean()
    assert frame.set_index("embedding").loc["go", "mean"] == pytest.approx(want)
    assert set(frame["n_conditions"]) == {48}


def test_missing_folds_are_marked_and_never_ranked():
    bad = {(2, 1): ("failed", "boom"), (5, 0): ("pending", ""), (3, 0): ("skipped", "no vectors")}
    scores, runs = toy(statuses=bad)
    frame = board(scores, runs).set_index("embedding")
    for name in ("go", "random", "permuted:go"):
        assert not frame.loc[name, "complete"]
        assert pd.isna(frame.loc[name, "rank"])
        assert frame.loc[name, "beats_permuted"] == "–"
    assert (frame.loc["go", "done"], frame.loc["go", "failed"]) == (2, 1)
    shown = text(terminal(leaderboard_sheets(frame.reset_index(), METRICS, FACTS)))
    assert "†2/3" in shown
    found = tables.problems(runs)
    assert sorted(zip(found["status"], found["reason"], found["folds"], strict=True)) == [
        ("failed", "boom", "1"),
        ("pending", "", "0"),
        ("skipped", "no vectors", "0"),
    ]
    assert "boom" in text(terminal(problem_sheets(found)))


@pytest.mark.usefixtures("few_draws")
def test_incomplete_draws_are_left_out_of_the_comparison():
    scores, runs = toy(statuses={(5, 0): ("failed", "boom")})
    go = board(scores, runs).set_index("embedding").loc["go"]
    assert go["draws"] == 3
    assert go["beats_permuted"] == "yes"


def test_only_skipped_runs(tmp_path):
    bad = {(n, f): ("skipped", "needs cells") for n in range(9) for f in range(3)}
    scores, runs = toy(statuses=bad)
    scores = scores[["key", "row", "metric", "value"]]  # a frame without rows need not have every column
    assert not len(board(scores, runs, pd.DataFrame()))
    files = write_report(tmp_path, scores=scores, runs=runs, ceilings=None, metrics=METRICS, facts=FACTS, bootstrap=20)
    assert files["leaderboard.csv"].read_text().startswith("metric,subset,dataset,split")
    assert "needs cells" in files["leaderboard.md"].read_text()
    assert tables.problems(runs)["runs"].sum() == 27


def test_undefined_scores_are_counted_and_shown():
    def value(number, unit, context):
        out = toy_value(number, unit, context)
        return np.full_like(out, np.nan) if number == 1 else np.where((unit == 3) & (number == 2), np.nan, out)

    scores, runs = results(CONFIGURATIONS, value)
    frame = board(scores, runs)
    by = frame.set_index(["head", "embedding"])
    nothing = by.loc[("no_change", "none")]
    assert (nothing["undefined"], nothing["n_conditions"], nothing["beats_context_mean"]) == (60, 0, "–")
    assert np.isnan(nothing["mean"])
    assert pd.isna(nothing["rank"])
    assert (by.loc[("ridge", "go"), "undefined"], by.loc[("ridge", "go"), "n_units"]) == (2, 29)
    assert "undefined" in text(terminal(leaderboard_sheets(frame, METRICS, FACTS)))
    again = results(CONFIGURATIONS, value, seed=1)
    both = board(*(pd.concat(pair, ignore_index=True) for pair in zip((scores, runs), again, strict=True)))
    assert both.set_index(["head", "embedding"]).loc[("ridge", "go"), "undefined"] == 2  # conditions, not seeds
    draws = board(*results(CONFIGURATIONS, lambda n, u, c: np.where(u == 3, np.nan, toy_value(n, u, c))))
    assert set(draws["undefined"]) == {2}  # nor permutation draws
    everything = board(*results(CONFIGURATIONS, lambda n, u, c: np.full(len(u), np.nan)))
    assert everything["mean"].isna().all()
    assert "undefined" in markdown(leaderboard_sheets(everything, METRICS, FACTS))


@pytest.mark.parametrize("units", [1, 2, 5])
def test_few_units_claim_nothing(units):
    frame = board(*toy(units=units, folds=1))
    assert frame["low"].isna().all() == (units < 3)
    assert set(frame["beats_permuted"]) | set(frame["beats_context_mean"]) == {"–"}
    assert not frame["best"].any()
    shown = text(terminal(leaderboard_sheets(frame, METRICS, FACTS)))
    assert f"n = {units} perturbations: no winner claimed" in shown
    assert " yes" not in shown
    assert " no " not in shown.replace("no winner", "").replace("no interval", "")


def test_unseen_context_resamples_contexts():
    names = tuple(f"cell type {i}" for i in range(8))
    configurations = [("knn", "none"), ("context_mean", "none")]

    def value(number, unit, context):
        return number + np.random.default_rng([number, 1]).normal(size=8)[context] + 0.001 * unit

    scores, runs = results(configurations, value, units=20, contexts=names, split="unseen_context", folds=1)
    frame = board(scores, runs)
    assert set(frame["unit"]) == {"contexts"}
    assert set(frame["n_units"]) == {8}
    per_context = scores[scores["head"] == "knn"].groupby("context")["value"].mean()
    spread = per_context.std(ddof=0) / np.sqrt(8)
    knn = frame.set_index("head").loc["knn"]
    assert (knn["high"] - knn["low"]) / 3.92 == pytest.approx(spread, rel=0.25)
    assert "n = 8 contexts: no winner claimed" in text(terminal(leaderboard_sheets(frame, METRICS, FACTS)))
    cells = tables.by_context(scores, runs, None, METRICS, metric="pearson", bootstrap=100)
    assert len(cells) == 16
    got = cells[cells["head"] == "knn"].set_index("context")["mean"]
    np.testing.assert_allclose(got.to_numpy(float), per_context[got.index].to_numpy())
    assert set(cells["unit"]) == {"conditions"}
    (sheet,) = context_sheets(cells, METRICS, FACTS)
    for width in (60, 100):  # what does not fit goes into a further table, never away
        shown = text(terminal([sheet], width=width), width=width)
        assert max(map(len, shown.splitlines())) <= width
        for _, lines in sheet.sections:
            assert all(cell in shown for line in lines for cell in line.cells)


def test_many_contexts_are_summarised_over_contexts():
    names = tuple(f"c{i:02d}" for i in range(12))
    scores, runs = results(CONFIGURATIONS[:2], lambda n, u, c: c / 10.0 + n, contexts=names)
    frame = tables.by_context(scores, runs, None, METRICS, metric="pearson", bootstrap=20)
    (sheet,) = context_sheets(frame, METRICS, FACTS)
    assert sheet.columns[-3:] == ("min", "median", "max")
    lines = {line.cells[0]: line.cells[-3:] for _, part in sheet.sections for line in part}
    assert [float(v) for v in lines["no_change"]] == [1.0, 1.55, 2.1]


def test_groups_are_reported_apart():
    scores, runs = toy()
    frame = tables.by_group(scores, runs, None, METRICS, metric="pearson", bootstrap=50)
    raw = scores[(scores["embedding"] == "go") & (scores["group"] == "1 seen")]
    got = frame[(frame["embedding"] == "go") & (frame["group"] == "1 seen")].iloc[0]
    assert got["mean"] == pytest.approx(raw.groupby("context")["value"].mean().mean())
    assert got["n_units"] == 15
    assert "0 seen" in markdown(group_sheets(frame, METRICS, FACTS))


def test_ceilings_are_averaged_like_scores():
    scores, runs = toy()
    rows = scores.drop_duplicates("row")[["dataset", "row", "condition", "context", "detectable"]]
    ceilings = rows.assign(metric="pearson", value=np.linspace(0.5, 1.0, len(rows)), note="from cells")
    frame = board(scores, runs, ceilings)
    want = ceilings.groupby("context")["value"].mean().mean()
    assert frame["ceiling"].iloc[0] == pytest.approx(want)
    shown = text(terminal(leaderboard_sheets(frame, METRICS, FACTS)))
    assert "noise ceiling" in shown
    assert "from cells" in shown
    cells = tables.by_context(scores, runs, ceilings, METRICS, metric="pearson", bootstrap=20)
    per_context = ceilings.groupby("context")["value"].mean()
    assert cells.groupby("context")["ceiling"].first().tolist() == pytest.approx(per_context.tolist())
    assert "noise ceiling" in text(terminal(context_sheets(cells, METRICS, FACTS)))
    ceilings.loc[ceilings.index[:10], "value"] = np.nan
    shown = markdown(leaderboard_sheets(board(scores, runs, ceilings), METRICS, FACTS))
    assert "50 of 60 conditions" in shown
    assert "not available" in markdown(leaderboard_sheets(board(scores, runs), METRICS, FACTS))


@pytest.mark.usefixtures("few_draws")
def test_own_permutation_matches_every_other_coordinate():
    first = results(CONFIGURATIONS, toy_value, features="pca:100")
    second = results(CONFIGURATIONS[:4], lambda *a: toy_value(*a) + 1, features="raw")
    for frame in second:
        frame["key"] = "raw-" + frame["key"]
    scores, runs = (pd.concat(pair, ignore_index=True) for pair in zip(first, second, strict=True))
    frame = board(scores, runs).set_index(["features", "embedding", "head"])
    assert frame.loc[("pca:100", "go", "ridge"), "beats_permuted"] == "yes"
    assert frame.loc[("raw", "go", "ridge"), "beats_permuted"] == "–"
    assert frame.loc[("raw", "go", "ridge"), "vs_context_mean"] == pytest.approx(
        frame.loc[("pca:100", "go", "ridge"), "vs_context_mean"]
    )


def test_permuted_context_embeddings_are_compared_too():
    names = ["control_pca", *[f"permuted:control_pca:draw={d}" for d in range(5)]]
    parts = []
    for number, name in enumerate(names):
        part = results(
            [("ridge", "none")], lambda n, u, c, m=number: toy_value(m, u, c) + (m == 0), context_embedding=name
        )
        for frame in part:
            frame["key"] = f"{number}-" + frame["key"]
        part[1]["role"] = "permuted" if number else "method"
        parts.append(part)
    scores, runs = (pd.concat(pair, ignore_index=True) for pair in zip(*parts, strict=True))
    frame = board(scores, runs)
    assert frame["context_embedding"].tolist() == ["control_pca", "permuted:control_pca"]
    assert frame["beats_permuted"].tolist() == ["yes", "–"]
    assert "permuted:control_pca" in text(terminal(leaderboard_sheets(frame, METRICS, FACTS)))


def test_gene_sets_and_datasets_are_never_compared():
    first, second = toy(), toy(genes="hvg:500")
    for frame in second:
        frame["key"] = "hvg-" + frame["key"]
    frame = board(*(pd.concat(pair, ignore_index=True) for pair in zip(first, second, strict=True)))
    assert (frame["rank"] == 1).sum() == 2
    assert len(leaderboard_sheets(frame, METRICS, FACTS)) == 2


def test_timings_and_chosen_values():
    scores, runs = toy()
    took = tables.timings(runs).set_index("embedding")
    assert took.loc["permuted:go", "cpu_seconds"] == pytest.approx(4 * 3 * 0.5)
    assert took.loc["go", "cpu_seconds_per_run"] == pytest.approx(0.5)
    assert "cpu_seconds" not in board(scores, runs)
    counts = tables.chosen(runs).set_index("embedding")
    assert (counts.loc["go", "parameter"], counts.loc["go", "value"], counts.loc["go", "runs"]) == ("k", "5", 3)


def test_wrong_input_is_named():
    scores, runs = toy()
    with pytest.raises(UserError, match=r"no metric named 'r3'.*l2, pearson"):
        board(scores, runs, metric="r3")
    with pytest.raises(ValueError, match="subset must be one of"):
        board(scores, runs, subset="easy")
    with pytest.raises(ValueError, match="have no line in runs"):
        board(scores, runs.iloc[1:])
    with pytest.raises(ValueError, match="scores row 0 twice"):
        board(pd.concat([scores, scores.iloc[:1]]), runs)
    with pytest.raises(ValueError, match="keys must be unique"):
        board(scores, pd.concat([runs, runs.iloc[:1]]))
    with pytest.raises(ValueError, match="must be JSON"):
        tables.chosen(runs.assign(chosen="{"))


# ---- rendering and files -------------------------------------------------------------------------------------------


def test_terminal_fits_100_columns_and_names_everything():
    scores, runs = toy()
    sheets = leaderboard_sheets(board(scores, runs), METRICS, FACTS)
    shown = text(terminal(sheets), width=100)
    assert max(map(len, shown.splitlines())) <= 100
    for word in ("CONTROLS SHARED", "SIMULATED", "Methods", "Baselines", "Permutations", "Oracles", "noise ceiling"):
        assert word in shown
    for word in ("higher is better", "percentile bootstrap over 30 perturbations", "simulated: not evidence"):
        assert word in shown
    assert "context_embedding" not in shown  # constant
    narrow = text(terminal(sheets, width=76), width=76)
    assert "Not shown at 76 columns: cov" in narrow
    limited = text(terminal(leaderboard_sheets(board(scores, runs), METRICS, FACTS, top=1)))
    assert "baselines: 2 more rows in leaderboard.csv" in limited


def test_brackets_and_pipes_survive(tmp_path):
    scores, runs = results([("knn:metric=[bold]|x", "go"), *CONFIGURATIONS[1:]], toy_value)
    sheets = leaderboard_sheets(board(scores, runs), METRICS, FACTS)
    assert "[bold]" in text(terminal(sheets, width=120), width=120)
    assert r"[bold]\|x" in markdown(sheets)
    picture = svg(terminal(sheets), tmp_path / "board.svg").read_text()
    assert picture.startswith("<svg")
    assert "cdnjs" not in picture
    ElementTree.fromstring(picture)
    assert [p.name for p in tmp_path.iterdir()] == ["board.svg"]


def test_two_reports_are_bit_identical(tmp_path):
    first, second = toy(), results(CONFIGURATIONS, lambda *a: 5 - toy_value(*a), metric="l2")
    scores, runs = pd.concat([first[0], second[0]], ignore_index=True), first[1]
    files = {}
    for folder, order in (("a", 0), ("b", 1)):
        mixed = scores if order == 0 else scores.sample(frac=1, random_state=3)
        if order:  # the grid hands over categories
            mixed = mixed.astype({c: "category" for c in mixed.columns if mixed[c].dtype == object})
        files[folder] = write_report(
            tmp_path / folder, scores=mixed, runs=runs, ceilings=None, metrics=METRICS, facts=FACTS, bootstrap=50
        )
    assert sorted(files["a"]) == [
        "by_context.csv",
        "by_group.csv",
        "by_information.csv",
        "choice.csv",
        "chosen.csv",
        "decomposition.csv",
        "leaderboard.csv",
        "leaderboard.md",
        "pairwise.csv",
        "problems.csv",
        "rank_boxes.csv",
        "ranks.csv",
        "timings.csv",
    ]
    for name, path in files["a"].items():
        assert path.read_bytes() == files["b"][name].read_bytes(), name
    table = pd.read_csv(files["a"]["leaderboard.csv"])
    assert len(table) == 2 * 2 * 6
    assert "## Per context" in files["a"]["leaderboard.md"].read_text()


def test_ten_thousand_configurations():
    heads, embeddings, rows = 100, 100, 200
    names = list(itertools.product([f"head{i}" for i in range(heads)], [f"e{i}" for i in range(embeddings)]))
    fold_rows = np.arange(rows)
    base = DEFAULTS | {"dataset": "toy", "split": "unseen_perturbation", "fold": "0", "status": "done", "reason": ""}
    base |= {"fallback": "", "dim": 10, "chosen": "", "trials": 1, "cpu_seconds": 1.0, "role": "method"}
    runs = pd.DataFrame(names, columns=["head", "embedding"]).assign(**base)
    runs["key"] = [f"k{i}" for i in range(len(runs))]
    unit = np.array([f"g{r}" for r in fold_rows], dtype=object)
    scores = pd.DataFrame(
        {
            "key": np.repeat(runs["key"].to_numpy(), rows),
            "row": np.tile(fold_rows, len(runs)),
            "condition": np.tile(unit, len(runs)),
            "unit": np.tile(unit, len(runs)),
            "context": "k562",
            "group": "",
            "covered": True,
            "detectable": True,
            "metric": "pearson",
            "value": np.random.default_rng(0).normal(size=rows * len(runs)),
        }
    )
    start = time.perf_counter()
    frame = tables.leaderboard(scores, runs, None, METRICS, metric="pearson")
    assert time.perf_counter() - start < 30
    assert len(frame) == 10_000
    assert frame["rank"].max() == 10_000
