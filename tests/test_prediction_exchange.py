"""Predictions leave for other tools and come back: cell-eval's own numbers, the leaderboard, and files of all kinds."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import typer
from _grid import run
from oracles import cell_eval_export_official as official
from typer.testing import CliRunner

from embbench.cli import exchange as verbs
from embbench.core import DETable, UserError
from embbench.exchange import score as scoring
from embbench.exchange._coverage import LEAK
from embbench.exchange.predictions import FORMATS, Gathered, Names, export, gather, place_of
from embbench.exchange.score import Asked, Scored, score_file
from embbench.grid import limits
from embbench.grid.frames import read_frames
from embbench.grid.score import truth_of
from embbench.registry import default
from embbench.report.tables import leaderboard

EXPECTED = json.loads(official.EXPECTED.read_text(encoding="utf-8"))["cases"]
SIM, SPLIT = "sim_cells", "unseen_perturbation:3"
METRICS = ("mse_all", "pearson_notarget")
BOARD = (*METRICS, "mae_all", "rank_l2_by_truth_notarget")
WRITTEN = ("sim_effects", "sim_raised", "strong_cells")
PEER = {
    "mse": "mse_all",
    "mse_delta": "mse_all",
    "mae": "mae_all",
    "mae_delta": "mae_all",
    "pearson_delta": "pearson_all",
    **{f"discrimination_score_{d}": f"discrimination_{d}_cell_eval_notarget" for d in ("l1", "l2", "cosine")},
}
PEER_CELLS = {
    "pearson_edistance": "pearson_edistance_euclidean_v_all:cells=all",
    "overlap_at_N": "de_overlap_n_cells_cell_eval_all:cells=all",
    "overlap_at_50": "de_overlap_50_cells_cell_eval_all:cells=all",
    "de_direction_match": "de_direction_match_cells_cell_eval_all:cells=all",
    "de_spearman_lfc_sig": "de_spearman_lfc_sig_cells_cell_eval_all:cells=all",
    "de_sig_genes_recall": "de_sig_recall_cells_all:cells=all",
}


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, session_home: Path) -> None:
    """Fixtures of this file run before `_own_home` sets the home of a test."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EMBBENCH_HOME", str(session_home))
    for module in (limits, scoring):  # ceilings from 16 resamples in place of 100: they are compared, not judged
        assert module.OUTER == module.INNER == 10
        patch.setattr(module, "OUTER", 4)
        patch.setattr(module, "INNER", 4)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Gathered]]:
    """Every case of the oracle, gathered; those whose files are read are written as cell-eval's pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    found = official.gather_cases(folder / "results")
    for case in WRITTEN:
        export(found[case], "cell-eval", folder / case)
    return folder, found


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ceilings, where values alone are compared: they do not depend on the file and are checked elsewhere."""
    monkeypatch.setattr("embbench.exchange.score.ceilings", lambda *_, **__: [])


def metric(name: str):
    return default().parse("metrics", name).make()


def judged(gathered: Gathered, made):
    """Predictions and truth as cell-eval defines them: file means less half-B control means; batch-matched effects."""
    data, train = gathered.data, gathered.results.rows(made.key)["train"]
    truth = truth_of(data, made.rows, train, cells=gathered.cells)
    if not gathered.cells:
        return made.values, None, truth
    base = [truth.cells.controls(c).mean(axis=0, dtype=np.float64) for c in data.context_codes[made.rows].tolist()]
    observed = [truth.cells.perturbed(i).mean(axis=0, dtype=np.float64) for i in range(len(made.rows))]
    truth = replace(truth, effects=(np.array(observed) - base).astype(np.float32))
    return (made.values.mean(axis=1, dtype=np.float64) - base).astype(np.float32), made.values, truth


@pytest.mark.parametrize("case", official.CASES)
def test_cell_eval_gives_our_numbers(pairs, case: str) -> None:
    gathered, compared = pairs[1][case], 0
    for made in gathered.folds:
        effects, cells, truth = judged(gathered, made)
        sets = np.array([len(e) > 1 for e in truth.entities])
        own = {name: metric(v)(effects, truth) for name, v in PEER.items()}
        for name, v in PEER.items():  # cell-eval leaves out the gene named like the condition: none for A+B
            own[name] = np.where(sets, metric(v.replace("notarget", "all"))(effects, truth), own[name])
        if cells is not None:
            name = "pearson_edistance"
            own[name] = metric(PEER_CELLS[name])(cells, truth)
        for context, stored in EXPECTED[case][made.fold].items():
            at = np.flatnonzero(gathered.data.context[made.rows] == context)
            at = at[np.argsort([gathered.data.conditions[i] for i in made.rows[at]])]
            assert [gathered.data.conditions[i] for i in made.rows[at]] == stored["conditions"]
            if "observed" in stored:
                with np.errstate(over="ignore"):  # 1e300 stands for infinity
                    table = {c: np.array(t, float).astype(np.float32) for c, t in stored["observed"].items()}
                assert at.tolist() == list(range(len(made.rows)))
                held = replace(truth, de=DETable(table["log2_fold_change"], table["fdr"]))
                own |= {n: metric(v)(cells, held) for n, v in PEER_CELLS.items() if n != "pearson_edistance"}
            for name, theirs in stored["values"].items():
                if len(at) == 1 and name.startswith("discrimination"):
                    assert np.isnan(own[name][at]).all()  # cell-eval says 1 of a single condition, we say undefined
                elif name in own:
                    mine = np.nan_to_num(own[name][at]) if name.startswith("overlap") else own[name][at]
                    np.testing.assert_allclose(mine, np.array(theirs, dtype=float), atol=2e-6, err_msg=name)
                    compared += 1
    assert compared >= 13
    if case == "strong_cells":
        overlap = [max(s["values"]["overlap_at_N"]) for f in EXPECTED[case].values() for s in f.values()]
        assert max(overlap) > 0.3  # the comparison is of something


@pytest.mark.parametrize("case", WRITTEN)
def test_a_pair_holds_what_cell_eval_asks_for(pairs, case: str) -> None:
    folder, gathered = pairs[0], pairs[1][case]
    for made in gathered.folds:
        real, pred = (anndata.read_h5ad(folder / case / made.fold / f"{n}.h5ad") for n in ("real", "pred"))
        assert real.var_names.equals(pred.var_names)
        assert list(real.var_names) == gathered.data.genes.tolist()
        for part in (real, pred):
            assert part.X.min() >= 0
            assert part.X.max() < 15
        for context in real.obs["cell_type"].unique():
            mine = [set(p.obs["target_gene"][p.obs["cell_type"] == context]) for p in (real, pred)]
            assert mine[0] == mine[1]
            assert "non-targeting" in mine[0]


def test_raised_genes_are_counted_and_kept(pairs, tmp_path: Path) -> None:
    gathered = pairs[1]["sim_raised"]
    written = export(gathered, "cell-eval", tmp_path)
    assert any("were raised so that no value is negative" in line for line in written.notes)
    pred = anndata.read_h5ad(tmp_path / "fold0" / "pred.h5ad")
    made, contexts = gathered.folds[0], json.loads(pred.uns["embbench"]["contexts"])
    for i, row in enumerate(made.rows[:3]):
        where = str(gathered.data.context[row])
        at = (pred.obs["target_gene"] == gathered.data.conditions[row]) & (pred.obs["cell_type"] == where)
        raised = pred.varm["raised"][:, contexts.index(where)]
        np.testing.assert_allclose(pred.X[at.to_numpy()] - raised, made.values[i], atol=1e-6)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory):
    """Effects under a head and its baselines; the embedding lacks some perturbations, which take the fallback."""
    axes = {"dataset": SIM, "split": SPLIT, "emb": "hallmark:8", "head": "knn:k=3", "baselines": True}
    return run(tmp_path_factory.mktemp("grid"), (), metrics=list(BOARD), **axes)


@pytest.fixture(scope="module")
def plain(grid, tmp_path_factory: pytest.TempPathFactory) -> tuple[Gathered, Path]:
    results, planned = grid
    config = next(p.config for p in planned if p.run.head == "knn:k=3" and p.run.embedding == "hallmark:8")
    gathered, folder = gather(results, config[:8]), tmp_path_factory.mktemp("plain")
    return gathered, export(gathered, "h5ad", folder).files[0]


@pytest.fixture(scope="module")
def wanted(plain) -> Scored:
    """What the run's own file scores under `METRICS`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embbench.exchange.score.ceilings", lambda *_, **__: [])
        return score_file(asked(plain[1]))


def asked(path: Path, **more) -> Asked:
    return Asked(path, **{"dataset": SIM, "split": SPLIT, "metrics": METRICS, **more})


def values_of(made, name: str) -> np.ndarray:
    part = made.rows[(made.rows["metric"] == name).to_numpy()]
    return part.sort_values(["fold", "row"])["value"].to_numpy()


def test_a_round_trip_gives_the_leaderboard(grid, plain) -> None:
    gathered, path = plain
    made = score_file(asked(path, metrics=BOARD))
    frames = read_frames(grid[0], default(), list(BOARD))
    for record in made.summary:
        board = leaderboard(
            frames.scores, frames.runs, frames.ceilings, frames.metrics, metric=record["metric"], bootstrap=2
        )
        own = board[board["config"] == gathered.config].iloc[0]
        assert record["score"] == pytest.approx(own["mean"], abs=1e-7)
        assert record["ceiling"] == pytest.approx(own["ceiling"], abs=1e-9, nan_ok=True)
        for head in ("no_change", "context_mean"):
            mean = board[board["head"] == head].iloc[0]["mean"]
            assert record[head] == pytest.approx(mean, abs=1e-7, nan_ok=True)
        assert record["conditions"] == own["n_conditions"]
    assert made.coverage == pytest.approx(own["coverage"])
    assert "predicted by embbench under these folds" in made.notes
    file = anndata.read_h5ad(path)
    stored = file.obs.sort_values(["fold", "row"])["score:mae_all"].to_numpy()
    np.testing.assert_array_equal(values_of(made, "mae_all"), stored)
    np.testing.assert_array_equal(file.layers["truth"], gathered.data.truth[file.obs["row"]])
    assert file.uns["embbench"]["dataset_digest"] == gathered.data.meta["digest"]


def test_cells_come_back_with_the_scores_of_their_run(pairs, tmp_path: Path) -> None:
    names = ("mse_all", "edistance_euclidean_v_all", "edistance_euclidean_v_pca50", "pearson_edistance_euclidean_v_all")
    gathered = pairs[1]["sim_raised"]
    gathered = replace(gathered, folds=gathered.folds[:1])
    path = export(gathered, "h5ad", tmp_path).files[0]
    plain = score_file(asked(path, metrics=names, fold="fold0"))
    made, data = gathered.folds[0], gathered.data
    train = gathered.results.rows(made.key)["train"]
    truth = truth_of(data, made.rows, train, cells=True, spaces={"pca50"})
    effects = made.values.mean(axis=1, dtype=np.float64) - data.baseline[data.context_codes[made.rows]]
    order = np.argsort(made.rows)
    for name in names:
        given = effects.astype(np.float32) if name == "mse_all" else made.values
        np.testing.assert_allclose(values_of(plain, name), metric(name)(given, truth)[order], atol=1e-9)
    pair = score_file(asked(pairs[0] / "sim_raised" / "fold0" / "pred.h5ad", metrics=names, fold="fold0"))
    pd.testing.assert_frame_equal(pair.rows, plain.rows)
    assert any("control cells of the file are not used" in line for line in pair.notes)


def test_fewer_cells_of_an_unscored_condition_change_nothing(pairs, bare, tmp_path: Path) -> None:
    gathered = replace(pairs[1]["sim_raised"], folds=pairs[1]["sim_raised"].folds[:1])
    path, data = export(gathered, "h5ad", tmp_path).files[0], gathered.data
    file = anndata.read_h5ad(path)
    other = next(i for i in range(len(data)) if i not in gathered.folds[0].rows)
    one = file[:1].copy()
    one.obs = one.obs.assign(condition=data.conditions[other], context=str(data.context[other]))
    one.obs["perturbation"] = "+".join(data.entities[other])
    made = [score_file(asked(path, metrics=("mse_all",), fold="fold0"))]
    for parts in ([file, one], [file[5:], one]):
        each = anndata.concat(parts, index_unique="-")
        del each.obs["fold"], each.obs["covered"]
        each.write_h5ad(tmp_path / "x.h5ad")
        made.append(score_file(asked(tmp_path / "x.h5ad", metrics=("mse_all",), fold="fold0", unit="cells")))
    np.testing.assert_array_equal(values_of(made[1], "mse_all"), values_of(made[0], "mse_all"))
    assert not any("cells: " in line for line in made[1].notes)
    first = gathered.folds[0].rows[0]
    limit = f"conditions have 25 to 30 cells: 25 of each are scored, as many as of {data.conditions[first]} in "
    assert limit + str(data.context[first]) in made[2].notes


def test_a_foreign_pair_is_told_by_its_controls(pairs, tmp_path: Path) -> None:
    source, gathered = pairs[0] / "sim_effects" / "fold0" / "pred.h5ad", pairs[1]["sim_effects"]
    file = anndata.read_h5ad(source)
    context = file.obs["cell_type"].astype(str)
    for obs in (file.obs.assign(cell_type="my " + context), file.obs.drop(columns="cell_type")):
        anndata.AnnData(file.X, obs, file.var, dict(file.uns), varm=dict(file.varm)).write_h5ad(tmp_path / "other.h5ad")
        with pytest.raises(UserError, match=rf"raised by amounts per context.*{context.iloc[0]}"):
            score_file(asked(tmp_path / "other.h5ad", fold="fold0"))
    file.uns = {}
    del file.obs["covered"]
    file.obs = file.obs.rename(columns={"target_gene": "what", "cell_type": "where"})
    file.write_h5ad(tmp_path / "pred.h5ad")
    keys = {"perturbation_key": "what", "context_key": "where", "fold": "fold0"}
    made = score_file(asked(tmp_path / "pred.h5ad", metrics=("mae_all",), **keys))
    truth = truth_of(gathered.data, gathered.folds[0].rows, gathered.results.rows(gathered.folds[0].key)["train"])
    wanted = metric("mae_all")(gathered.folds[0].values, truth)
    np.testing.assert_allclose(values_of(made, "mae_all"), wanted[np.argsort(gathered.folds[0].rows)], atol=1e-7)
    assert any("the file's own in 2 contexts" in line for line in made.notes)
    assert made.notes[0] == "read as expression (control rows lie near the control means of sim_cells)"


def wide(plain) -> pd.DataFrame:
    """The predictions as a table of one's own."""
    file = anndata.read_h5ad(plain[1])
    obs = pd.DataFrame(
        {"perturbation": file.obs["perturbation"].astype(str), "context": file.obs["context"].astype(str)}
    )
    values = pd.DataFrame(file.X.astype(np.float64), columns=file.var_names)
    return pd.concat([obs.reset_index(drop=True), values], axis=1)


def test_tables_of_any_spelling_give_the_same(plain, wanted, bare, tmp_path: Path) -> None:
    frame = wide(plain)
    rng = np.random.default_rng(0)
    turned = ["_".join(reversed(p.split("+"))) if "+" in p else f"{p}+ctrl" for p in frame["perturbation"]]
    messy = frame.assign(perturbation=turned, seen="yes", EXTRA=1.5)
    messy = messy[["seen", *rng.permutation(frame.columns), "EXTRA"]].sample(frac=1, random_state=1)
    more = messy.iloc[[0]].assign(perturbation="NOSUCHGENE")
    text = pd.concat([messy, more]).to_csv(index=False, lineterminator="\r\n", float_format="%.9g")
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    frame.to_parquet(tmp_path / "c.parquet")
    for name in ("a.csv", "b.csv.gz", "c.parquet"):
        made = score_file(asked(tmp_path / name))
        assert LEAK in made.notes
        for each in METRICS:
            np.testing.assert_allclose(values_of(made, each), values_of(wanted, each), atol=1e-6)
        assert made.coverage == 1.0  # a table does not say which predictions are fallbacks
        odd = [line for line in made.notes if "NOSUCHGENE" in line or "no genes of" in line]
        assert len(odd) == (0 if name == "c.parquet" else 2)


def test_what_numbers_are_is_told_or_refused(plain, wanted, bare, tmp_path: Path) -> None:
    frame, data, path = wide(plain), plain[0].data, tmp_path / "e.csv"
    genes = frame.columns[2:]
    base = data.baseline.astype(np.float64)
    means = frame.copy()
    means[genes] += np.stack([base[data.contexts.index(c)] for c in frame["context"]])
    controls = pd.DataFrame(
        {"perturbation": "control", "context": data.contexts, **dict(zip(genes, base.T, strict=True))}
    )
    slip = pd.concat([means, controls], ignore_index=True)
    slip.loc[0, means.loc[0, genes].astype(float).idxmin()] = -1e-4  # one value of a smoothing model
    for table, unit, told, off in (
        (means, "expression", "expression (as --unit says)", 0),
        (slip, "auto", "expression (control rows lie near the control means of sim_cells)", 1),
        (
            pd.concat([frame, controls.assign(**dict.fromkeys(genes, 0.0))]),
            "auto",
            "effects (control rows lie near 0)",
            0,
        ),
        (frame, "auto", "effects (values are negative)", 0),
    ):
        table.to_csv(path, index=False)
        made = score_file(asked(path, unit=unit))
        assert made.notes[0] == f"read as {told}"
        near = np.isclose(values_of(made, "mse_all"), values_of(wanted, "mse_all"), atol=1e-6)
        assert (~near).sum() <= off
    positive, half = frame.copy(), controls.copy()
    positive[genes], half[genes] = np.abs(frame[genes]), 0.5 * controls[genes]
    for bad in (positive, slip.iloc[: len(frame)], pd.concat([means, half]), pd.concat([frame, controls])):
        bad.to_csv(path, index=False)
        with pytest.raises(UserError, match="cannot tell whether values are effects or expression"):
            score_file(asked(path))


def test_repeated_rows_and_counts_are_refused(plain, bare, tmp_path: Path) -> None:
    frame, path = wide(plain), tmp_path / "x.csv"
    size = frame[frame.columns[2:]].abs()
    twice = pd.concat([frame.assign(fold="run1"), frame.assign(fold="run2")])
    runs = "column fold names run1, run2, no folds of the split"
    for table, unit, message in (
        (twice, "auto", f"68 conditions have several rows, .*are negative.*{runs}"),
        (twice.assign(**pd.concat([size, size])), "auto", f"68 conditions have several rows, .*{runs}"),
        (twice.drop(columns="fold"), "auto", "68 conditions have several rows, .*--unit cells where rows are cells"),
        (frame.assign(**size * 1000), "expression", "found .* values of 15 or more"),
        (frame.assign(**(size * 20).round().clip(upper=9)), "cells", r"found whole numbers only \(0 to 9\)"),
    ):
        table.to_csv(path, index=False)
        with pytest.raises(UserError, match=message):
            score_file(asked(path, unit=unit))
    frame.assign(fold="run1").to_csv(path, index=False)
    assert any("names run1, no folds of the split (fold0" in line for line in score_file(asked(path)).notes)


def test_a_file_of_ours_is_scored_under_its_own_folds(plain, bare) -> None:
    fewer = {"genes": "hvg:50", "metrics": ("mse_all",)}
    for more, message in (
        ({"split": "unseen_perturbation:4"}, "fold0, fold1"),
        ({"seed": 1}, "fold0, fold1"),
        ({"split": "unseen_context"}, "T cell|context"),
        ({**fewer, "split": "unseen_context"}, "split unseen_context"),
    ):
        with pytest.raises(UserError, match=f"under --split {SPLIT} --seed 0 .*differs in .*({message})"):
            score_file(asked(plain[1], **more))
    made = score_file(asked(plain[1], **fewer))
    assert any("made with --genes all, is scored with hvg:50" in line for line in made.notes)


def test_missing_conditions_take_the_context_mean_and_are_counted(plain, bare, tmp_path: Path) -> None:
    frame = wide(plain)
    frame.iloc[5:].to_csv(tmp_path / "part.csv", index=False)
    made = score_file(asked(tmp_path / "part.csv"))
    uncovered = made.rows[~made.rows["covered"].to_numpy()]
    assert len(uncovered) == 5 * len(METRICS)
    assert made.coverage == pytest.approx(1 - 5 / len(frame))
    np.testing.assert_array_equal(uncovered["value"], uncovered["context_mean"])
    assert any(line.startswith(f"5 of {len(frame)} test conditions are not covered") for line in made.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns=f.columns[[4, 7]]), "2 of 100 genes of sim_cells are not in the file"),
        (lambda f: f.drop(columns="perturbation"), "expected a column of perturbations"),
        (lambda f: f.drop(columns="context"), "expected a column of contexts, for sim_cells has 2"),
        (lambda f: f.assign(context="nowhere"), "none of 68 rows is a condition of sim_cells"),
        (lambda f: pd.concat([f, f.iloc[:2]]), "2 conditions have several rows"),
        (lambda f: f.assign(perturbation=["", *f["perturbation"][1:]]), "1 of 68 rows have no 'perturbation'"),
        (lambda f: f.set_axis([*f.columns[:-1], f.columns[-2]], axis=1), "names are repeated"),
        (lambda f: f.assign(**{f.columns[5]: [np.nan, *f.iloc[1:, 5]]}), "1 predicted values are missing or infinite"),
        (lambda f: f.assign(**{f.columns[4]: ["1,5", *f.iloc[1:, 4]]}), "e.g. .*: '1,5' in row 0; write plain numbers"),
        (lambda f: f.assign(seen="yes").drop(columns=f.columns[4]), r"left out, .*: seen \('yes' in row 0\)"),
        (lambda f: f.iloc[:0], "expected at least one prediction"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_finding(plain, tmp_path: Path, change, message: str) -> None:
    change(wide(plain)).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(UserError, match=message):
        score_file(asked(tmp_path / "x.csv"))


def test_options_that_do_not_fit_are_refused(plain, grid, tmp_path: Path) -> None:
    gathered, path = plain
    for more, message in (
        ({"unit": "counts"}, "--unit 'counts': expected one of auto, delta"),
        ({"fold": "fold9"}, "--fold 'fold9'"),
        ({"perturbation_key": "pert"}, "has no column 'pert'"),
    ):
        with pytest.raises(UserError, match=message):
            score_file(asked(path, **more))
    with pytest.raises(UserError, match="expected a file of predictions"):
        score_file(asked(tmp_path / "none.csv"))
    with pytest.raises(UserError, match="--fold 'x'"):
        gather(grid[0], gathered.config, fold="x")
    with pytest.raises(UserError, match="is the name of a condition"):
        export(gathered, "cell-eval", tmp_path, Names(control=gathered.data.conditions[0]))
    for names in ({"context": "target_gene"}, {"perturbation": "covered"}, {"context": " "}, {"control": ""}):
        with pytest.raises(UserError, match="expected names of their own for two columns"):
            export(gathered, "cell-eval", tmp_path / "names", Names(**names))
    with pytest.raises(UserError, match="--format 'csv': expected one of"):
        export(gathered, "csv", tmp_path)


def test_doses_compounds_and_unobserved_entries(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = [
        (d, c, x)
        for d in ("aspirin+b", "JQ1", "Dasatinib", "TSA")
        for c in ("K562", "A549")
        for x in (2e-9, 8e-9, 10.0)
    ]
    frame = pd.DataFrame(rows, columns=["drug", "line", "dose"])
    genes = pd.DataFrame(rng.normal(size=(len(rows), 5)).round(3), columns=list("VWXYZ"))
    genes.iloc[0, 1] = np.nan
    pd.concat([frame, genes], axis=1).to_csv(tmp_path / "s.csv", index=False)
    spec = (
        f"table:{tmp_path}/s.csv:unit=delta:perturbation_key=drug:context_key=line:dose_key=dose:entity_type=compound"
    )
    axes = {"dataset": spec, "split": "unseen_perturbation:2", "head": "context_mean", "metrics": ["mae_all"]}
    results, planned = run(tmp_path / "out", (), **axes)
    gathered = gather(results, planned[0].config)
    with pytest.raises(UserError, match="has no control means"):
        export(gathered, "cell-eval", tmp_path / "pair")
    path = export(gathered, "h5ad", tmp_path / "plain").files[0]
    file = anndata.read_h5ad(path)
    assert file.layers["observed"].sum() == 119
    assert sorted(set(file.obs["dose"])) == [2e-9, 8e-9, 10.0]
    options = {"dataset": spec, "split": "unseen_perturbation:2", "metrics": ("mae_all",)}
    made = score_file(asked(path, **options))
    own = np.concatenate([s["mae_all"] for s in gathered.scores()[0]])
    order = np.argsort(np.concatenate([m.rows for m in gathered.folds]))
    np.testing.assert_allclose(made.rows.sort_values("row")["value"], own[order], atol=1e-7)
    table = pd.concat([frame, genes.fillna(0) + 1], axis=1)  # off by one everywhere that is observed
    table.to_csv(tmp_path / "p.csv", index=False)
    keys = {"perturbation_key": "drug", "context_key": "line", "unit": "delta"}
    np.testing.assert_allclose(score_file(asked(tmp_path / "p.csv", **options, **keys)).rows["value"], 1.0, atol=1e-6)
    named = table.assign(drug=[f"{d}@{x:g}" for d, _, x in rows]).drop(columns="dose")
    named.to_csv(tmp_path / "q.csv", index=False)
    np.testing.assert_allclose(score_file(asked(tmp_path / "q.csv", **options, **keys)).rows["value"], 1.0, atol=1e-6)
    table.drop(columns="dose").to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(UserError, match="has 3 doses"):
        score_file(asked(tmp_path / "r.csv", **options, **keys))


def test_openproblems_files_follow_the_task(plain, bare, tmp_path: Path) -> None:
    gathered = plain[0]
    written = export(gathered, "openproblems", tmp_path)
    assert any("sign_log10_pval" in line for line in written.notes)
    assert any("fallback" in line for line in written.notes) == any(not m.covered.all() for m in gathered.folds)
    made, file = gathered.folds[1], anndata.read_h5ad(tmp_path / "fold1" / "prediction.h5ad")
    np.testing.assert_array_equal(file.layers["prediction"], made.values.astype(np.float64))
    assert file.X is None
    assert set(file.uns) == {"dataset_id", "method_id"}
    assert file.layers["prediction"].dtype == "f8"
    lines = pd.read_csv(tmp_path / "fold1" / "id_map.csv")
    assert lines["id"].astype(str).tolist() == file.obs_names.tolist()
    assert lines["cell_type"].tolist() == gathered.data.context[made.rows].tolist()
    own = {"fold": "fold1", "metrics": ("mae_all",)}
    place = tmp_path / "fold1" / "prediction.h5ad"
    back = score_file(asked(place, id_map=tmp_path / "fold1" / "id_map.csv", **own))
    np.testing.assert_array_equal(values_of(back, "mae_all"), values_of(score_file(asked(plain[1], **own)), "mae_all"))
    lines.iloc[1:].to_csv(tmp_path / "short.csv", index=False)
    for maps, message in (
        ({}, "needs its --id-map"),
        ({"id_map": tmp_path / "short.csv"}, "1 of .* ids without a line"),
    ):
        with pytest.raises(UserError, match=message):
            score_file(asked(place, **maps))
    asked_for = lines.iloc[::-2].assign(id=range(100, 100 + len(lines.iloc[::-2])))
    asked_for.to_csv(tmp_path / "map.csv", index=False, lineterminator="\r\n")
    names = Names(id_map=tmp_path / "map.csv")
    mine = anndata.read_h5ad(export(gathered, "openproblems", tmp_path / "own", names).files[0])
    np.testing.assert_array_equal(mine.layers["prediction"], file.layers["prediction"][::-2])
    assert mine.obs_names[0] == "100"
    asked_for.assign(sm_name="nobody").to_csv(tmp_path / "map.csv", index=False)
    with pytest.raises(UserError, match="are not predicted"):
        export(gathered, "openproblems", tmp_path / "own", names)


def test_the_two_verbs(plain, grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.command("export")(verbs.export)
    app.command("score")(verbs.score)
    for form in FORMATS:
        line = [
            "export",
            str(grid[0].folder),
            "--run",
            plain[0].config[:8],
            "--format",
            form,
            "--out",
            str(tmp_path / form),
        ]
        said = CliRunner().invoke(app, [*line, "--fold", "fold2"])
        assert said.exit_code == 0, said
        assert said.stdout.count(str(tmp_path)) == (1 if form == "h5ad" else 2)
    out = tmp_path / "scores.csv"
    line = ["score", str(tmp_path / "h5ad" / "predictions.h5ad"), "--dataset", SIM, "--split", SPLIT]
    said = CliRunner().invoke(app, [*line, "--metrics", "mae_all", "--fold", "fold2", "--out", str(out)])
    assert said.exit_code == 0, said
    assert "context_mean" in said.stdout
    assert "ceiling" in said.stdout
    assert "predicted by embbench under these folds" in said.stderr
    assert set(pd.read_csv(out)["fold"]) == {"fold2"}
    table, link = tmp_path / "mine.csv", tmp_path / "link.csv"
    wide(plain).to_csv(table, index=False)
    link.symlink_to(table)
    kept = table.read_bytes()
    for target in (table, link):
        said = CliRunner().invoke(app, ["score", str(table), *line[2:], "--out", str(target)])
        assert "that is the file that is read" in str(said.exception)
    assert table.read_bytes() == kept
    for form, *options in (
        ("ro-crate", "--run", "x"),
        ("snakemake", "--licence", "MIT"),
        ("h5ad", "--link"),
        ("h5ad", "--control", "non-targeting"),
        ("cell-eval", "--id-map", "m.csv"),
    ):
        said = CliRunner().invoke(app, ["export", str(grid[0].folder), "--format", form, *options])
        assert isinstance(said.exception, UserError)
        assert f"--format {form} has no use for {options[0]} (" in str(said.exception)


def test_folds_called_like_contexts_make_folders(pairs) -> None:
    gathered = pairs[1]["kang_effects"]
    folds = tuple(
        replace(m, fold=name) for m, name in zip(gathered.folds, ["T/2", "T_2", "..", "B cells"], strict=False)
    )
    odd = replace(gathered, folds=folds)
    assert [place_of(odd, made) for made in folds] == ["T_2_0", "T_2_1", "_2", "B cells"]
