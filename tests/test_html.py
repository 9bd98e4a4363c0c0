"""The HTML page and the static figures: numbers against pandas, untrusted names, and a browser that uses the page."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embbench.core import UserError
from embbench.report import tables
from embbench.report.boards import OTHER, SUBSETS
from embbench.report.critical import rank_boxes
from embbench.report.figures.write import stem, write_figures
from embbench.report.findings import POOLED
from embbench.report.page.bundle import make_bundle
from embbench.report.page.encode import decode, encode, number, pack, plain, unpack
from embbench.report.page.names import short_names
from embbench.report.page.write import embedded, page, write_page

EVIL = "</script><img src=x onerror=window.pwned=1>"
METRICS = {
    "l2_all": {"best": "low", "lower": 0.0, "upper": np.inf, "level": "condition", "unit": "effect", "source": "a"},
    "pearson_all": {"best": "high", "lower": -1.0, "upper": 1.0, "level": "condition", "unit": "", "source": EVIL},
}
PAIRS = [("context_mean", "none"), ("no_change", "none"), *itertools.product(("knn:k=5", "ridge"), ("go", "ppi", EVIL))]
PAIRS += [(head, f"permuted:go:draw={d}") for head in ("knn:k=5", "ridge") for d in range(3)]
ROLES = {"none": "baseline", "go": "method", "ppi": "method", EVIL: "method"}
# l2: ppi with ridge is best; pearson: go with knn is best, so that switching the metric changes the winner
LEVEL = {"l2_all": {("ridge", "ppi"): 1.0, ("knn:k=5", "ppi"): 1.2}, "pearson_all": {("knn:k=5", "go"): 0.8}}
REST = {"l2_all": 2.0, "pearson_all": 0.3}


def toy() -> tuple[SimpleNamespace, dict[str, pd.DataFrame]]:
    """Frames of two datasets, three folds, two contexts, with one failed run; and the report's tables."""
    rng, runs, scores = np.random.default_rng(0), [], []
    for dataset, (head, embedding), fold in itertools.product(("screen_a", "screen_b"), PAIRS, range(3)):
        failed = dataset == "screen_b" and embedding == EVIL and head == "ridge"
        told = "prior knowledge" if embedding in ("go", "ppi") else ""
        run = {"dataset": dataset, "split": "unseen_perturbation", "genes": "all", "fold": f"fold{fold}", "head": head}
        run |= {"embedding": embedding, "context_embedding": "none", "role": ROLES.get(embedding, "permuted")}
        run |= dict.fromkeys(OTHER, "") | {"seed": 0, "key": f"r{len(runs)}", "fallback": "context mean", "trials": 3}
        run |= {"status": "failed" if failed else "done", "reason": EVIL if failed else "", "n_train": 20, "n_test": 20}
        run |= {"coverage": 1.0, "dim": 10, "query_controls": "", "config": f"{head}|{embedding}", "cpu_seconds": 0.5}
        run |= {"chosen": '{"all": {"k": 7}}' if head == "ridge" else "", "information": told, "dated": "", "flags": ""}
        run |= {"modality": {"go": "gene set", "ppi": "network"}.get(embedding, ""), "complexity": "simple"}
        runs.append(run | {"inner_score": 1.0})
        if failed:
            continue
        row = np.arange(60)[np.arange(60) // 2 % 3 == fold]
        part = pd.DataFrame({"row": row, "condition": [f"gene{r // 2}" for r in row], "covered": True, "group": ""})
        part["context"], part["unit"] = np.where(row % 2, "rpe1", "k562"), part["condition"]
        part["detectable"] = row % 5 > 0
        for metric in METRICS:
            level = LEVEL[metric].get((head, embedding), REST[metric])
            value = level + 0.1 * np.sin(row) + rng.normal(0, 0.02, len(row))
            scores.append(part.assign(metric=metric, value=value, **run))
    frame, runs_frame = pd.concat(scores, ignore_index=True), pd.DataFrame(runs)
    ceilings = frame[["dataset", "genes", "row", "condition", "context", "metric"]].drop_duplicates()
    ceilings = ceilings.assign(value=np.where(ceilings["metric"] == "l2_all", 0.5, 0.95), note="toy", bias=0.01)
    ceilings = pd.concat([ceilings.assign(variant=v) for v in ("noise_free", "cole_q0.9")], ignore_index=True)
    facts = {name: {"controls": "halves", "simulated": True, "footer": EVIL} for name in ("screen_a", "screen_b")}
    made = [
        make(frame, runs_frame, ceilings, METRICS, metric=metric, subset=subset, bootstrap=100)
        for make in (tables.leaderboard, tables.by_context)
        for metric in METRICS
        for subset in SUBSETS
    ]
    shown = {"leaderboard": pd.concat(made[:4]), "by_context": pd.concat(made[4:])}
    shown |= {"problems": tables.problems(runs_frame), "timings": tables.timings(runs_frame)}
    shown |= {"chosen": tables.chosen(runs_frame), "decomposition": _decomposition(), "composites": _composites()}
    boxes = [rank_boxes(frame, runs_frame, METRICS, metric=metric) for metric in METRICS]
    shown |= {"rank_boxes": pd.concat(boxes, ignore_index=True)}
    return SimpleNamespace(runs=runs_frame, scores=frame, ceilings=ceilings, metrics=METRICS, facts=facts), shown


def _decomposition() -> pd.DataFrame:
    where = {"metric": "l2_all", "subset": "all", "dataset": "screen_a", "split": "unseen_perturbation", "genes": "all"}
    shares = {"embedding": 0.6, "head": 0.3, "interaction": 0.1}
    spans = {f"{k}_{side}": v + d for k, v in shares.items() for side, d in (("low", -0.05), ("high", 0.05))}
    line = {**where, **shares, **spans, "answer": "embedding", "embeddings": "go; ppi", "heads": "knn"}
    line |= {f"{k}_{side}": v + d for k, v in shares.items() for side, d in (("min", -0.07), ("max", 0.07))}
    return pd.DataFrame([line, line | {"dataset": POOLED, "answer": "not told apart"}])


def _composites() -> pd.DataFrame:
    where = {"composite": "vcc_effects", "dataset": "screen_a", "split": "unseen_perturbation", "genes": "all"}
    where |= {"head": "ridge", "context_embedding": "none", "role": "method"}
    lines = [where | {"embedding": e, "score": s, "l2_all": 1.0, "config": e} for e, s in (("ppi", 0.41), ("go", 0.17))]
    return pd.DataFrame(lines)


def toy_details() -> dict[str, object]:
    rng, names = np.random.default_rng(1), ["TP53", EVIL, "MYC", "GAPDH"]
    where = {"dataset": "screen_a", "split": "unseen_perturbation", "genes": "all", "head": "ridge", "embedding": "ppi"}
    where |= {"condition": "gene1", "context": "k562", "names": names}
    values = {"true": np.array([1.0, -0.5, np.nan, 0.1]), "predicted": [0.8, -0.4, 0.0, 0.0], "top": 2}
    cells = {"real": rng.normal(size=(20, 2)), "predicted": rng.normal(size=(20, 2)), "top": [EVIL]}
    stats = {f"{a}_{b}": np.arange(1.0, 5) for a in ("mean", "variance") for b in ("true", "predicted")}
    known = {"row": np.arange(60), "effect_norm": np.arange(60) + 1.0, "n_cells": np.arange(60) + 10}
    return {
        "conditions": {"screen_a": known},
        "examples": [{**where, **values, "neighbours": [[EVIL, 0.7], ["gene4", -0.2]], "scores": {"l2_all": 1.0}}],
        "populations": [{**where, **cells, **stats}],
        "flags": {"oracle": "looks at the truth", "information undeclared": "nobody said"},
    }


@pytest.fixture(scope="module")
def made() -> tuple[SimpleNamespace, dict[str, pd.DataFrame], dict]:
    frames, shown = toy()
    return frames, shown, make_bundle(frames, shown, toy_details(), {"versions": {"embbench": EVIL}, "seeds": [0]})


# ---- the bundle ----------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1.7975e308)
@example(-0.0)
def test_numbers_keep_four_digits(value: float) -> None:
    rounded = float(f"{value:.4g}")
    assert number(value) == "" if np.isinf(rounded) else float(number(value)) == rounded
    assert plain(value) == (None if np.isinf(rounded) else rounded)


@settings(max_examples=50)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_scores_keep_six_digits(value: float) -> None:
    rounded = float(f"{value:.6g}")
    assert number(value, 6) == "" if np.isinf(rounded) else float(number(value, 6)) == rounded


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["", "1", ".25", "-3"])))
def test_packing_can_be_undone(tokens: list[str]) -> None:
    assert unpack(pack(tokens), len(tokens)) == tokens


def test_packing_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="5 values, found 3"):
        unpack("1*3", 5)


def test_tables_come_back_rounded() -> None:
    frame = pd.DataFrame({"x": [1.23456, np.nan, 2e-7], "ok": [True, False, True], "name": ["a", None, EVIL], "n": 3})
    frame["kind"] = pd.Categorical(["u", "v", "u"])
    back = decode(encode(frame))
    assert back["x"].tolist()[::2] == [1.235, 2e-7]
    assert np.isnan(back["x"][1])
    assert back["ok"].tolist() == [1.0, 0.0, 1.0]
    assert back["name"].tolist() == ["a", "", EVIL]
    assert back["kind"].tolist() == ["u", "v", "u"]
    assert len(decode(encode(frame.head(0)))) == 0


def test_points_are_means_of_the_scores(made) -> None:
    frames, _, bundle = made
    got = decode(bundle["tables"]["points"])
    scores = frames.scores[frames.scores["role"] != "permuted"]
    scores = pd.concat([scores.assign(subset="all"), scores[scores["detectable"]].assign(subset="detectable")])
    by = ["subset", "dataset", "head", "embedding", "fold", "context"]
    want = scores.pivot_table(index=by, columns="metric", values="value", aggfunc="mean")
    own = got[got["role"] != "ceiling"].set_index(by).sort_index()
    assert len(own) == len(want)
    for metric in METRICS:
        np.testing.assert_allclose(own[metric], want[metric].loc[own.index], rtol=1e-3)
    assert set(own.xs("ridge", level="head")["k"]) == {7.0}
    assert set(own.xs("knn:k=5", level="head")["k"]) == {5.0}
    ceiling = got[got["role"] == "ceiling"]
    assert len(ceiling) == 2 * 2 * 3 * 2  # subsets, datasets, folds, contexts
    assert set(ceiling["l2_all"]) == {0.5}


def test_conditions_hold_the_best_and_the_context_mean(made) -> None:
    got = decode(made[2]["tables"]["conditions"])
    part = got[got["dataset"] == "screen_a"]
    assert ("ridge", "ppi") in set(zip(part["head"], part["embedding"], strict=True))
    assert "context_mean" in set(part["head"])
    assert part.groupby(["head", "embedding"]).size().unique().tolist() == [60]
    assert got.loc[got["dataset"] == "screen_b", "effect_norm"].isna().all()
    assert part["effect_norm"].min() == 1.0


def test_ceilings_are_told_apart_by_variant(made) -> None:
    got = decode(made[2]["tables"]["ceilings"])
    assert set(got["variant"]) == {"noise_free", "cole_q0.9"}
    assert got["conditions"].tolist() == [60.0] * len(got)


def test_the_bundle_is_json_and_the_same_every_time(made) -> None:
    frames, shown, bundle = made
    text = json.dumps(bundle, allow_nan=False)
    again = make_bundle(frames, shown, toy_details(), {"versions": {"embbench": EVIL}, "seeds": [0]})
    assert json.dumps(again, allow_nan=False) == text


def test_details_that_do_not_fit_are_refused(made) -> None:
    frames, shown, _ = made
    details = toy_details()
    details["examples"][0]["true"] = [1.0]
    with pytest.raises(ValueError, match=r"examples.*one length.*'true': 1"):
        make_bundle(frames, shown, details, {})
    del details["examples"][0]["true"]
    with pytest.raises(ValueError, match="need true"):
        make_bundle(frames, shown, details, {})


def test_nested_values_become_json() -> None:
    assert plain({"a": [np.float32(1.00001), np.inf], "b": {2, 1}, "c": Path("x")}) == {
        "a": [1, None],
        "b": [1, 2],
        "c": "x",
    }


def nothing() -> dict:
    frames, _ = toy()
    empty = SimpleNamespace(
        runs=frames.runs.assign(status="failed", reason="broken"),
        scores=frames.scores.head(0),
        ceilings=pd.DataFrame(),
        metrics=METRICS,
        facts={},
    )
    return make_bundle(empty, {}, {}, {})


NAMES = [f"table:path=/{folder}/{'x' * n}{end}.csv{more}" for folder in ("a", "b/c", "d/c") for n in (1, 60)
         for end in ("1", "2") for more in ("", ":information=unknown")]  # fmt: skip


def test_labels_are_short_and_different() -> None:
    labels = short_names([*NAMES, "ppi", EVIL, *(f"permuted:{name}" for name in NAMES)])
    assert len(set(labels.values())) == len(labels)
    assert max(map(len, labels.values())) <= 45
    assert labels["ppi"] == "ppi"
    assert (
        short_names(["table:path=/q/w.csv:information=unknown", "go"])["table:path=/q/w.csv:information=unknown"]
        == "w.csv"
    )


def settings_differ() -> dict:
    """A bundle whose entries differ in their features only: pca:3 is one worse everywhere, and covers little."""
    frames, _ = toy()
    keep = frames.runs["embedding"].isin(["none", "ppi"]) & (frames.runs["dataset"] == "screen_a")
    runs = frames.runs[keep]
    scores = frames.scores[frames.scores["key"].isin(runs["key"])]
    again = {c: (lambda x: x + "b") for c in ("key", "config")}
    twin = runs.assign(features="pca:3", **{c: make(runs[c]) for c, make in again.items()})
    worse = scores.assign(features="pca:3", value=scores["value"] - 1, covered=scores["row"] % 4 == 0)
    worse = worse.assign(**{c: make(scores[c]) for c, make in again.items()})
    runs = pd.concat([runs.assign(features="raw"), twin[twin["embedding"] == "ppi"]], ignore_index=True)
    scores = pd.concat([scores.assign(features="raw"), worse[worse["embedding"] == "ppi"]], ignore_index=True)
    given_frames = SimpleNamespace(**vars(frames) | {"runs": runs, "scores": scores})
    board = tables.leaderboard(scores, runs, None, METRICS, metric="l2_all", bootstrap=50)
    return make_bundle(given_frames, {"leaderboard": board}, {"conditions": toy_details()["conditions"]}, {})


def test_entries_that_differ_in_a_setting_are_not_averaged() -> None:
    bundle = settings_differ()
    got = decode(bundle["tables"]["conditions"])
    assert set(got["features"]) == {"raw"}  # what covers little is never among the best
    assert got.groupby(["head", "embedding"])["l2_all"].size().unique().tolist() == [60]
    points = decode(bundle["tables"]["points"])
    ppi = points[(points["embedding"] == "ppi") & (points["subset"] == "all")]
    both = ppi.groupby(["head", "features"])["l2_all"].mean().unstack()
    np.testing.assert_allclose(both["raw"] - both["pca:3"], 1.0, atol=1e-3)


# ---- the page ------------------------------------------------------------------------------------------------------


def test_no_name_ends_the_data_block(made) -> None:
    text = page(made[2], title=EVIL)
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert json.loads(data.group(1)) == json.loads(json.dumps(made[2]))
    assert "{{" not in text.replace(data.group(1), "")
    assert embedded(" \u2028</SCRIPT><!--") == '" \\u2028\\u003c/SCRIPT\\u003e\\u003c!--"'


def test_a_title_cannot_open_a_slot(made) -> None:
    assert "<title>{{program}}</title>" in page(made[2], title="{{program}}")


def test_the_page_loads_nothing(made) -> None:
    text = page(made[2])
    links = set(re.findall(r"https?://[^\s\"'<\\]+", text))
    assert links == {"http://www.w3.org/2000/svg"}  # a namespace, not an address
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    assert policy.startswith("default-src 'none'")
    for tag, name in (("style", "style-src"), ("script", "script-src")):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S).group(1)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy


def test_the_same_bundle_gives_the_same_page(made, tmp_path: Path) -> None:
    first, second = (write_page(tmp_path / f"{i}.html", made[2]).read_bytes() for i in range(2))
    assert first == second


FIGURES = {"heatmap", "boxes", "ranks", "decomposition", "progress", "contexts", "effect_norm", "n_cells", "n_train"}
FIGURES |= {"dimension", "neighbours_k", "predictions", "neighbours", "cells", "gene_means", "gene_variances"}
# ---- figures -------------------------------------------------------------------------------------------------------


def test_figures_are_written_alike_every_time(made, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bundle = made[2] | {"metrics": {"l2_all": METRICS["l2_all"]}}
    bundle["tables"] = dict(bundle["tables"])
    board = decode(bundle["tables"]["leaderboard"])
    keep = (board["dataset"] == "screen_a") & (board["metric"] == "l2_all")
    bundle["tables"]["leaderboard"] = encode(board[keep].assign(embedding=board["embedding"].replace(EVIL, "a_$b$")))
    first = write_figures(tmp_path / "a", bundle, ("svg",))
    names = {p.stem.split("-")[0] for p in first}
    assert names == FIGURES
    assert len(first) == len(set(first)) == sum(1 for _ in (tmp_path / "a").iterdir())
    for one, two in zip(first, write_figures(tmp_path / "b", bundle, ("svg",)), strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    few = bundle | {"tables": {"leaderboard": bundle["tables"]["leaderboard"]}, "details": {}}
    pages = [write_figures(tmp_path / folder, few, ("pdf",)) for folder in "cd"]
    assert [p.read_bytes() for p in pages[0]] == [p.read_bytes() for p in pages[1]]
    text = next(p for p in first if p.name.startswith("heatmap") and p.suffix == ".svg").read_text("utf-8")
    assert ">ppi</text>" in text
    assert ">a_$b$</text>" in text


def test_files_of_figures_are_told_apart() -> None:
    long = "table:path=/" + "x" * 300
    names = [
        ("boxes", m, f"{long}/{d}.csv", "s", g) for m in ("l2_all", "l2:all") for d in "ab" for g in ("all", "ALL")
    ]
    made = [stem(name, {}) for name in names]
    assert len({name.casefold() for name in made}) == len(names)
    assert all(name.startswith("boxes-l2_all-") and len(name) < 200 for name in made)


def test_critical_differences_are_drawn(made, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    where = {"metric": "l2_all", "subset": "all", "split": "unseen_perturbation", "genes": "all", "by": "embedding"}
    rows = [where | {"entry": e, "mean_rank": r, "n_screens": 6, "groups": g, "critical_difference": 1.0, "label": "x"}
            for e, r, g in (("go", 1.2, "1"), ("ppi", 1.9, "1; 2"), (EVIL, 2.9, "2"))]  # fmt: skip
    bundle = made[2] | {"tables": made[2]["tables"] | {"ranks": encode(pd.DataFrame(rows))}}
    names = [p.name for p in write_figures(tmp_path, bundle, ("svg",))]
    assert sum(name.startswith("critical-l2_all-all_datasets") for name in names) == 1
    assert sum(name.startswith("decomposition-l2_all-all_datasets") for name in names) == 1


def test_what_is_not_ranked_is_not_the_best_of_a_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = {p.stem.split("-")[0]: p.read_text("utf-8") for p in write_figures(tmp_path, settings_differ(), ("svg",))}
    assert "‡ too few own conditions: not ranked" in written["heatmap"]
    assert ">‡ ppi · pca:3</text>" in written["boxes"]
    assert "pca:3" not in written["effect_norm"]


def test_figures_of_an_empty_report_are_none(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert write_figures(tmp_path, nothing(), ("png",)) == []


def test_without_matplotlib_the_remedy_is_named(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"embbench\[plots\]"):
        write_figures(tmp_path, made[2])


def test_an_unknown_format_is_refused(made, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found gif"):
        write_figures(tmp_path, made[2], ("gif",))


# ---- a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    selenium = pytest.importorskip("selenium.webdriver", reason="the browser test needs selenium")
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip(f"the browser test needs chromium and chromedriver, found {binary} and {driver}")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    for switch in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield found
    found.quit()


def opened(browser, path: Path, width: int = 1280):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(path.as_uri())
    return browser


@pytest.fixture(scope="module")
def report(made, tmp_path_factory) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "report.html", made[2], title=EVIL)


def errors(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def column(browser, name: str) -> list[str]:
    script = """
      const heads = [...document.querySelectorAll(".board thead th")].map((h) => h.querySelector("button").dataset.key);
      const at = heads.indexOf(arguments[0]);
      return [...document.querySelectorAll(".board tbody tr")].map((row) => row.children[at].textContent);"""
    return browser.execute_script(script, name)


def choose(browser, name: str, value: str) -> None:
    script = """
      const box = document.getElementById(arguments[0]);
      box.value = arguments[1];
      box.dispatchEvent(new Event("change"));"""
    browser.execute_script(script, name, value)


def test_the_winner_follows_the_metric(browser, report: Path, made) -> None:
    opened(browser, report)
    board = made[1]["leaderboard"]
    for dataset, metric in itertools.product(("screen_a", "screen_b"), METRICS):
        choose(browser, "dataset", dataset)
        choose(browser, "metric", metric)
        part = board[(board["dataset"] == dataset) & (board["metric"] == metric) & (board["subset"] == "all")]
        best = part[part["role"] == "method"].iloc[0]
        said = browser.execute_script("return document.querySelector('#winner b').textContent")
        assert said == f"{best['embedding']} × {best['head']}"
        top = browser.execute_script("return document.querySelector('.heat td.top1').title")
        assert top.startswith(said)
        assert column(browser, "mean")[0].startswith(f"{best['mean']:.2f}"[:3])
    assert {("ridge", "ppi"), ("knn:k=5", "go")} == {
        tuple(board[board["metric"] == m].iloc[0][["head", "embedding"]]) for m in METRICS
    }
    assert errors(browser) == []


def test_sorting_by_click_and_by_keyboard(browser, report: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, report)

    def means() -> list[float]:
        return [float(text.split(" ")[0].replace("−", "-")) for text in column(browser, "mean")]

    browser.find_element(By.CSS_SELECTOR, ".board button[data-key=mean]").click()
    assert means() == sorted(means())
    state = "return document.querySelector('.board th [data-key=mean]').closest('th').getAttribute('aria-sort')"
    assert browser.execute_script(state) == "ascending"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert means() == sorted(means(), reverse=True)
    assert browser.execute_script(state) == "descending"
    browser.find_element(By.CSS_SELECTOR, ".board button[data-key=head]").click()
    heads = column(browser, "head")
    assert heads == sorted(heads)
    assert errors(browser) == []


def test_the_best_stay_first_when_the_direction_changes(browser, report: Path) -> None:
    from selenium.webdriver.common.by import By

    opened(browser, report)
    state = "return document.querySelector('.board th [data-key=mean]').closest('th').getAttribute('aria-sort')"
    browser.find_element(By.CSS_SELECTOR, ".board button[data-key=mean]").click()
    for metric, order in (("pearson_all", "descending"), ("l2_all", "ascending")):
        choose(browser, "metric", metric)
        assert browser.execute_script(state) == order
        said = browser.execute_script("return document.querySelector('#winner b').textContent").split(" × ")
        assert [column(browser, "embedding")[0], column(browser, "head")[0]] == said
    assert errors(browser) == []


def test_unranked_entries_never_win(browser, tmp_path: Path) -> None:
    opened(browser, write_page(tmp_path / "settings.html", settings_differ()))
    said = browser.execute_script("return document.querySelector('#winner b').textContent")
    assert said == "ppi · raw × ridge"
    assert browser.execute_script("return document.querySelector('.heat td.top1').title").startswith(said)
    assert browser.execute_script("return document.querySelectorAll('.heat td.hatched').length") == 2
    assert "‡" in column(browser, "rank")
    labels = browser.execute_script(
        "return [...document.querySelectorAll('#dependence .legend li')].map((x) => x.textContent)"
    )
    assert labels
    assert not [text for text in labels if "pca:3" in text]
    assert errors(browser) == []


def test_one_ranked_entry_is_told_apart_from_nothing(browser, made, tmp_path: Path) -> None:
    board = made[1]["leaderboard"]
    one = board[(board["role"] == "method") & (board["rank"] == 1)]
    bundle = make_bundle(made[0], {"leaderboard": one}, {}, {})
    opened(browser, write_page(tmp_path / "one.html", bundle))
    text = browser.execute_script("return document.getElementById('winner').textContent")
    assert "only ranked entry" in text
    assert "all other" not in text


def test_panels_of_pooled_shares_and_composites(browser, report: Path) -> None:
    opened(browser, report)
    text = "return document.getElementById(arguments[0]).textContent"
    shares = browser.execute_script(text, "decomposition")
    assert "All datasets together" in shares
    assert "not told apart" in shares
    assert "Leaving one level out: embedding 53 % to 67 %" in shares
    assert "vcc_effects" in browser.execute_script(text, "composites")
    assert "0.41" in browser.execute_script(text, "composites")
    assert errors(browser) == []


def test_logarithmic_axes_have_ticks(browser, report: Path) -> None:
    opened(browser, report)
    script = """
      const out = [];
      for (const low of [-3, -0.3, 0, 0.29, 0.301, 1.7, 3.999])
        for (const span of [0.01, 0.1, 0.3, 0.5, 0.9, 1, 1.7, 4, 9])
          for (const wanted of [4, 6]) out.push(logTicks(low, low + span, wanted).length);
      return out;"""
    found = browser.execute_script(script)
    assert min(found) >= 2
    assert max(found) <= 12


def test_print_fits_the_paper(browser, report: Path) -> None:
    opened(browser, report, 1039)  # A4, landscape, without its margins
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 1039
        shown = "return getComputedStyle(document.querySelector(arguments[0])).display"
        assert browser.execute_script(shown, ".spark") == browser.execute_script(shown, ".legend.sparks") == "none"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_filters(browser, report: Path) -> None:
    from selenium.webdriver.common.by import By

    opened(browser, report)
    every = len(column(browser, "head"))
    box = browser.find_element(By.ID, "filter")
    box.send_keys("prior ridge")
    assert set(column(browser, "embedding")) == {"go", "ppi"}
    assert set(column(browser, "head")) == {"ridge"}
    box.clear()
    box.send_keys("nothing like it")
    assert column(browser, "head") == []
    box.clear()
    box.send_keys(" ")
    browser.find_element(By.CSS_SELECTOR, "input[value=permuted]").click()
    assert len(column(browser, "head")) == every + 2
    assert errors(browser) == []


def test_names_are_text(browser, report: Path) -> None:
    opened(browser, report)
    for dataset in ("screen_b", "screen_a"):
        choose(browser, "dataset", dataset)
        assert browser.execute_script("return window.pwned") is None
        assert browser.execute_script("return document.images.length") == 0
    titles = "return [...document.querySelectorAll('.board tbody th')].map((cell) => cell.title)"
    assert EVIL in browser.execute_script(titles)
    assert short_names([EVIL])[EVIL] in column(browser, "embedding")
    assert browser.execute_script("return document.title") == EVIL
    assert EVIL in browser.execute_script("return document.getElementById('problems').textContent")  # the reason
    assert EVIL in browser.execute_script("return document.getElementById('predictions').textContent")
    assert errors(browser) == []


def test_every_figure_is_there_and_steps_by_keyboard(browser, report: Path) -> None:
    opened(browser, report)
    for name in ("boxes", "ranks", "decomposition", "dependence", "contexts", "predictions", "cells"):
        assert browser.execute_script(f"return document.querySelectorAll('#{name} svg[role=img]').length") > 0, name
    step = """
      const svg = document.querySelector("#boxes svg[tabindex]");
      svg.focus();
      svg.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
      return document.getElementById("spoken").textContent;"""
    assert "fold0" in browser.execute_script(step)
    broken = "return [...document.querySelectorAll('svg')].filter((s) => /NaN|Infinity/.test(s.outerHTML)).length"
    assert browser.execute_script(broken) == 0
    assert errors(browser) == []


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_hangs_over_the_edge(browser, report: Path, width: int) -> None:
    opened(browser, report, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert errors(browser) == []


def test_themes(browser, report: Path) -> None:
    from selenium.webdriver.common.by import By

    opened(browser, report)
    ground = "return getComputedStyle(document.body).backgroundColor"
    for scheme, colour in (("dark", "rgb(20, 23, 27)"), ("light", "rgb(255, 255, 255)")):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        assert browser.execute_script(ground) == colour
    browser.find_element(By.ID, "theme").click()
    browser.find_element(By.ID, "theme").click()
    assert browser.find_element(By.ID, "theme").text == "Theme: dark"
    assert browser.execute_script(ground) == "rgb(20, 23, 27)"


def test_an_address_brings_the_view_back(browser, report: Path) -> None:
    opened(browser, report)
    choose(browser, "dataset", "screen_b")
    choose(browser, "metric", "pearson_all")
    address = browser.current_url
    browser.get("about:blank")
    browser.get(address)
    assert "pearson_all on screen_b" in browser.execute_script("return document.getElementById('winner').textContent")


def test_a_bare_leaderboard_is_enough(browser, made, tmp_path: Path) -> None:
    frames, shown, _ = made
    few = ["metric", "subset", "dataset", "split", "genes", "role", "rank", "head", "embedding", "context_embedding"]
    runs = frames.runs.drop(columns=["information", "modality", "dated", "flags", "complexity", "inner_score"])
    frames = SimpleNamespace(**vars(frames) | {"ceilings": None, "runs": runs})
    bundle = make_bundle(frames, {"leaderboard": shown["leaderboard"][[*few, "mean"]]}, {}, {})
    opened(browser, write_page(tmp_path / "bare.html", bundle))
    assert browser.execute_script("return document.querySelector('#winner b').textContent") == "ppi × ridge"
    assert browser.execute_script("return document.querySelectorAll('#boxes svg[role=img]').length") == 1
    assert errors(browser) == []


def test_an_empty_report_says_why(browser, tmp_path: Path) -> None:
    opened(browser, write_page(tmp_path / "empty.html", nothing()))
    assert browser.execute_script("return document.querySelectorAll('section').length") == 15
    assert browser.execute_script("return document.querySelectorAll('.empty').length") >= 8
    assert errors(browser) == []
