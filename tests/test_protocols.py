"""Published protocols as presets: folds, chosen values and scores are those of the published code, on its files."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from _cli import embbench
from scipy import sparse
from scipy.stats import pearsonr, spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import Lasso
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from embbench.core import Inputs, PerturbationDataset, UserError
from embbench.features.pca import PCA as Features
from embbench.genes import gene_table
from embbench.grid.config import Grid, read_grid, with_solver
from embbench.grid.protocols import described, inner_units, kfold, protocols
from embbench.grid.results import Results
from embbench.numerics.folds import inner_folds
from embbench.registry import default
from embbench.splits.given_column import GivenColumn
from embbench.splits.perturbench_transfer import PerturbenchTransfer

EXPECTED = Path(__file__).resolve().parent / "oracles" / "expected" / "perturbench_split_official.json"
LINES, N, D, GENES = ("K-562", "hTERT-RPE1"), 180, 128, 16
NAMES = ("KG_WaveGC_G_StringDB_combined_0.0_(D=128)", "scGenePT_NCBI+UniProt_(D=128)")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in the format of the published ones: effects with their folds, and two embeddings by Ensembl identifier."""
    folder, rng = tmp_path_factory.mktemp("published"), np.random.default_rng(3)
    ids = [n["ensembl"] for n in gene_table().names if n["ensembl"].startswith("ENSG")][: N + GENES + 20]
    perturbed, measured = ids[:N], ids[N : N + GENES]
    rows = [(gene, line) for line in LINES for gene in rng.permutation(perturbed)[: N - 5]]
    obs = pd.DataFrame(rows, columns=["gene_id", "cell_line"], index=[f"{i}" for i in range(len(rows))])
    obs["symbol"] = [f"symbol{i}" for i in range(len(obs))]
    obs["test_split"] = [float(perturbed.index(gene) % 5) for gene, _ in rows]
    vectors = rng.normal(size=(len(ids), D)) * np.geomspace(3, 0.3, D)
    signal = np.tanh(vectors[:, :12] @ rng.normal(size=(12, GENES)) / 8)
    place = [ids.index(gene) for gene, _ in rows]
    X = signal[place] + rng.normal(scale=0.6, size=(len(rows), GENES)) + rng.normal(size=GENES)
    var = pd.DataFrame(index=measured)
    ad.AnnData(X.astype(np.float32), obs=obs.astype({"cell_line": "category"}), var=var).write_h5ad(folder / "lfc.h5ad")
    kept = rng.permutation([i for i in range(len(ids)) if i % 23 or i >= N])  # some perturbed genes have no vector
    for number, name in enumerate(NAMES):
        values = sparse.csr_matrix((vectors[kept] + number * rng.normal(size=(len(kept), D))).astype(np.float32))
        table = ad.AnnData(values, obs=pd.DataFrame(index=[ids[i] for i in kept]))
        table.write_h5ad(folder / f"{name}.h5ad")
    return folder


def pipeline(head: str) -> GridSearchCV:
    """The published search, in float64 with exact components."""
    last, grid = {
        "knn": (KNeighborsRegressor(), {"head__n_neighbors": [20, 40, 60, 80, 100]}),
        "lasso": (Lasso(tol=1e-9, max_iter=100_000), {"head__alpha": [1e-3, 1e-2, 1e-1, 1]}),
    }[head]
    steps = Pipeline([("scale", StandardScaler()), ("pca", PCA(n_components=100, svd_solver="full")), ("head", last)])

    def score(truth: np.ndarray, predicted: np.ndarray) -> float:
        return -float(np.linalg.norm(truth - predicted, axis=1).mean())

    return GridSearchCV(steps, grid, cv=KFold(n_splits=5, shuffle=True, random_state=42), scoring=make_scorer(score))


def reference(folder: Path, name: str, head: str) -> dict[tuple[str, str], tuple[float, float, dict[str, float]]]:
    """Chosen value, its inner score and the outer scores per (fold, line), as the published scripts compute them."""
    screen, table, out = ad.read_h5ad(folder / "lfc.h5ad"), ad.read_h5ad(folder / f"{name}.h5ad"), {}
    where = {gene: i for i, gene in enumerate(table.obs_names)}
    vectors, Y = table.X.toarray().astype(np.float64), screen.X.astype(np.float64)
    genes, has = screen.obs.gene_id.to_numpy(), screen.obs.gene_id.isin(table.obs_names).to_numpy()
    for fold in range(5):
        tested = screen.obs.test_split.to_numpy() == fold
        for line in LINES if head == "knn" else LINES[:1]:
            own = (screen.obs.cell_line == line).to_numpy()
            fit, ask, test = (np.flatnonzero(own & mask) for mask in (~tested & has, tested & has, tested))
            search = pipeline(head).fit(vectors[[where[g] for g in genes[fit]]], Y[fit])
            made = np.tile(Y[own & ~tested].mean(axis=0), (len(Y), 1))
            made[ask] = search.predict(vectors[[where[g] for g in genes[ask]]])
            wrong = made[test] - Y[test]
            out[f"fold{fold}", line] = (
                next(iter(search.best_params_.values())),
                -search.best_score_,
                {
                    "l2_all": np.linalg.norm(wrong, axis=1).mean(),
                    "mse_all": np.square(wrong).mean(),
                    "mae_all": np.abs(wrong).mean(),
                    "spearman_all": np.mean([spearmanr(made[i], Y[i])[0] for i in test]),
                    "pearson_all": np.mean([pearsonr(made[i], Y[i])[0] for i in test]),
                },
            )
    return out


@pytest.fixture(scope="module")
def grid(published: Path) -> Results:
    """Both embeddings under both heads, from the command line; scored once."""
    files = ",".join(f"{name}.h5ad" for name in NAMES)
    line = f"grid --protocol cole2026 --dataset lfc.h5ad --emb '{files}' --no-baselines --permutations 0 --out cole"
    said = embbench(published, line)
    assert said.code == 0, said.err
    assert "deviates" not in said.err
    return Results(published / "cole")


def scores_of(results: Results) -> pd.DataFrame:
    from embbench import results as frames

    wanted = ("l2_all", "mse_all", "mae_all", "spearman_all", "pearson_all")
    return frames(results.folder, wanted).scores


@pytest.mark.parametrize(("number", "head"), [(0, "knn"), (1, "knn"), (0, "lasso")])
def test_a_published_file_gives_the_numbers_of_the_published_pipeline(
    grid: Results, published: Path, number: int, head: str
) -> None:
    scores, told = scores_of(grid), grid.plans()[-1]["runs"]
    keys = {p["run"]["fold"]: p["key"] for p in told if p["run"]["head"] == head and _of(p["run"], number)}
    assert sorted(keys) == [f"fold{k}" for k in range(5)]
    chosen_ks = set()
    for (fold, line), (best, inner, expected) in reference(published, NAMES[number], head).items():
        chosen = grid.facts(keys[fold])["chosen"][line]
        assert chosen["params"] == {{"knn": "k", "lasso": "alpha"}[head]: best}
        np.testing.assert_allclose(chosen["score"], inner, rtol=1e-5)
        assert chosen["trials"] == {"knn": 5, "lasso": 4}[head]
        chosen_ks.add(best)
        own = scores[(scores.key == keys[fold]) & (scores.context == line)]
        found = own.groupby("metric", observed=True).value.mean()
        np.testing.assert_allclose(found[list(expected)], list(expected.values()), rtol=1e-5, atol=1e-5)
    assert len(chosen_ks) > 1 or head == "lasso"


def _of(run: dict[str, str], number: int) -> bool:
    return f"D={D}" in run["embedding"] and ("UniProt" in run["embedding"]) == bool(number)


def toy(rows: list[tuple[str, str]], **covariates: np.ndarray) -> PerturbationDataset:
    sets, context = tuple(tuple(sorted(p.split("+"))) for p, _ in rows), np.array([c for _, c in rows])
    effects = np.zeros((len(rows), 1), np.float32)
    return PerturbationDataset("toy", effects, "delta", np.array(["G"]), sets, context, covariates=covariates)


@pytest.mark.parametrize("n", [2, 4, 5, 23, 134])
def test_inner_folds_are_those_of_sklearn(n: int) -> None:
    rows = Inputs(np.zeros((n, 0)), np.zeros(n, int), None, tuple((7 * i % 1009,) for i in range(n)))
    folds = inner_folds(inner_units(rows, "cole2026").units, 5, seed=9)
    split = KFold(min(n, 5), shuffle=True, random_state=42).split(np.zeros(n))
    assert sorted(held.tolist() for _, held in folds) == sorted(held.tolist() for _, held in split)
    assert inner_units(rows, "default") is rows


def test_inner_folds_never_part_a_unit() -> None:
    units = (*((i // 3,) for i in range(30)), (0, 9), (4,), (3, 4))
    rows = Inputs(np.zeros((33, 0)), np.zeros(33, int), None, units)
    for fit, held in inner_folds(inner_units(rows, "cole2026").units, 5, seed=0):
        assert not {u for i in fit for u in units[i]} & {u for i in held if len(units[i]) == 1 for u in units[i]}
    alone = Inputs(np.zeros((3, 0)), np.zeros(3, int), None, units[:3])
    assert inner_folds(inner_units(alone, "cole2026").units, 5, seed=0) == []
    np.testing.assert_array_equal(np.bincount(kfold(23, 5, 42)), [5, 5, 5, 4, 4])


@pytest.mark.parametrize("name", protocols())
def test_every_preset_names_what_exists(name: str) -> None:
    from embbench.grid.protocols import protocol

    grid, told, registry = Grid(protocol=name), protocol(name), default()
    assert described(name)[0] == name
    assert told is not None
    for field, value in told.grid.items():
        assert getattr(grid, field) == value
    for kind, texts in {
        "splits": grid.split,
        "heads": grid.head,
        "features": grid.features,
        "metrics": grid.metrics,
    }.items():
        for text in texts:
            registry.parse(kind, text).make()
    for head, tried in told.candidates.items():
        for params in tried:
            registry.get("heads", head).make(**params)


def test_a_protocol_leaves_runs_without_one_alone() -> None:
    from embbench.core import Run
    from embbench.grid.plan import plan

    assert "protocol" not in Run("a", "b", "c", "knn").coordinates()
    axes = {"dataset": "sim_small", "emb": "random:4", "head": "knn", "baselines": False, "permutations": {}}
    plain = plan(Grid(**axes, split="unseen_perturbation:5", features="pca:100"))
    under = plan(Grid(**axes, protocol="cole2026"))
    assert [{p.run.protocol for p in planned} for planned in (plain, under)] == [{"default"}, {"cole2026"}]
    assert not {p.key for p in plain} & {p.key for p in under}


def test_what_the_user_says_wins_and_is_told(published: Path) -> None:
    line = (
        "grid --protocol cole2026 --dataset sim_small --emb random:4 --head knn:k=3 --features pca:3 --metrics l2_all"
    )
    said = embbench(published, f"{line} --split unseen_perturbation:2 --no-baselines --permutations 0 --out told")
    assert said.code == 0, said.err
    lines = [text for text in said.err.splitlines() if text.startswith("deviates")]
    assert lines[0] == "deviates from cole2026: split unseen_perturbation:2 (the protocol: given:test_split:folds=5)"
    assert lines[1] == "deviates from cole2026: head knn:k=3 (the protocol: knn, lasso)"
    assert lines[2] == "deviates from cole2026: features pca:3 (the protocol: pca:100)"
    assert "controls halves of sim_small" in lines[3]
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--protocol cole26", ("no protocol named 'cole26'", "cole2026")),
        ("--protocol cole2026 --target labels", ("fixes target to 'effects'", "found 'labels'")),
        ("--protocol cole2026 --dataset vectors.h5ad", ("expected one of the columns gene_id, pert_id", "_index")),
        ("--svd randomised", ("--svd must be one of exact, randomized, auto", "'randomised'")),
        ("--svd randomized --features raw", ("--svd randomized is for PCA features", "found raw")),
    ],
)
def test_mistakes_are_told(published: Path, options: str, words: tuple[str, ...]) -> None:
    if "vectors" in options:
        (published / f"{NAMES[0]}.h5ad").with_name("vectors.h5ad").write_bytes(
            (published / f"{NAMES[0]}.h5ad").read_bytes()
        )
    said = embbench(published, f"grid {options} --emb random:4")
    assert said.code == 2
    assert all(word in said.err for word in words), said.err


def test_grid_files_name_a_protocol(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("protocol: cole2026\nhead: knn\nemb: [random]\n", encoding="utf-8")
    grid = read_grid(tmp_path / "grid.yaml", features="pca:20")
    assert (grid.head, grid.features, grid.select, grid.context_emb) == (["knn"], ["pca:20"], "l2_all", ["none"])
    assert read_grid(tmp_path / "grid.yaml", protocol="cole2026-norman").features == ["pca:50"]


def test_given_folds_or_seeded_ones() -> None:
    from embbench.splits.unseen_perturbation import UnseenPerturbation

    rows = [(f"P{i}", "x") for i in range(20)]
    column = np.array([f"{i % 5}.0" for i in range(20)])
    given = GivenColumn("test_split", folds=5, seed=3)
    assert [f.test.tolist() for f in given.split(toy(rows, test_split=column)).folds][1] == [1, 6, 11, 16]
    seeded, alike = given.split(toy(rows)), UnseenPerturbation(5, seed=3).split(toy(rows))
    assert [f.test.tolist() for f in seeded.folds] == [f.test.tolist() for f in alike.folds]
    with pytest.raises(UserError, match="no column 'test_split'"):
        GivenColumn("test_split").split(toy(rows))
    with pytest.raises(ValueError, match="folds must be 0"):
        GivenColumn("test_split", folds=1)


@pytest.mark.parametrize(("shape", "svd"), [((300, 260), "randomized"), ((300, 700), "auto"), ((40, 30), "randomized")])
def test_the_randomised_solver_is_scikit_learns(shape: tuple[int, int], svd: str) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=shape) * rng.gamma(1.0, size=shape[1]) + 5
    new, dim = X[:7] + 1, min(20, shape[1])
    scale = StandardScaler().fit(X)
    for seed in (0, 4):
        theirs = PCA(n_components=dim, svd_solver=svd, random_state=seed).fit(scale.transform(X))
        ours = Features(dim, svd=svd, seed=seed).fit(X)
        expected = theirs.transform(scale.transform(new))
        np.testing.assert_allclose(ours.scores(new), expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max())
    if len(X) > 200:  # an approximation, told by its name
        assert not np.allclose(np.abs(ours.scores(new)), np.abs(Features(dim).fit(X).scores(new)), rtol=1e-6)


def test_the_randomised_solver_on_degenerate_rows() -> None:
    assert Features(5, svd="randomized").fit(np.ones((4, 3))).transform(np.ones((2, 3))).tolist() == [[0.0], [0.0]]
    assert Features(5, svd="randomized").fit(np.eye(1)).transform(np.eye(1)).shape == (1, 1)
    repeated = np.repeat(np.random.default_rng(0).normal(size=(3, 8)), 4, axis=0)
    assert Features(9, svd="auto").fit(repeated).transform(repeated).shape == (12, 2)


def test_the_solver_is_an_axis_of_the_grid() -> None:
    grid = with_solver(Grid(features="pca:30,raw"), "randomized", [1, 2])
    assert grid.features == ["pca:30:svd=randomized:seed=1", "pca:30:svd=randomized:seed=2", "raw"]
    assert with_solver(Grid(), "exact", [1]).features == ["pca:100"]


def test_the_solver_from_the_command_line(published: Path) -> None:
    line = "grid --protocol cole2026 --dataset lfc.h5ad --emb random:150 --head knn --svd randomized --seed 1,2"
    said = embbench(published, f"{line} --no-baselines --permutations 0 --metrics l2_all --out solver")
    assert (said.code, "deviates" in said.err) == (0, False), said.err
    runs = [p["run"] for p in Results(published / "solver").plans()[-1]["runs"]]
    assert {run["features"] for run in runs} == {f"pca:100:svd=randomized:seed={s}" for s in (1, 2)}
    assert ["seed" in run for run in runs] == [False] * 10


def test_names_of_a_table_can_stay_as_spelled(published: Path) -> None:
    from embbench.datasets.table import ConditionTable

    options = {"unit": "delta", "perturbation_key": "gene_id", "context_key": "cell_line", "controls": "shared"}
    data = ConditionTable(str(published / "lfc.h5ad"), **options, names="keep").load()
    assert all(name.startswith("ENSG") for name in (*data.entity_names, *data.genes))
    assert (data.meta["controls"], data.meta["namespace"]) == ("shared", "as spelled")
    other = ConditionTable(str(published / "lfc.h5ad"), **options).load()
    assert not any(name.startswith("ENSG") for name in other.entity_names)
    assert len(other) == len(data)
    obs = pd.DataFrame({"gene_id": ["ENSG00000141510", "TP53", "MYC", "non-targeting"]}, index=[*"abcd"])
    ad.AnnData(np.eye(4, dtype=np.float32), obs=obs, var=pd.DataFrame(index=[*"wxyz"])).write_h5ad(
        published / "two.h5ad"
    )
    both = ConditionTable(str(published / "two.h5ad"), unit="delta", perturbation_key="gene_id", names="distinct")
    data = both.load()
    assert data.entities == (("ENSG00000141510",), ("TP53",), ("MYC",))
    assert data.meta["mapping"]["kept_apart"] == ["ENSG00000141510"]


def parts_of(data: PerturbationDataset, rows: list[tuple[str, str]], splitter: PerturbenchTransfer) -> dict[str, str]:
    (fold,) = splitter.split(data).folds
    out = dict.fromkeys(map("|".join, rows))
    for part, chosen in (("train", fold.train), ("val", fold.validation), ("test", fold.test)):
        out |= {"|".join(rows[i]): part for i in chosen}
    return out


def perturbench_cases(name: str) -> list[str]:
    from oracles.perturbench_split_official import CASES

    return [case for case, (table, _) in CASES.items() if (table == "drawn") == (name == "drawn")]


def check_perturbench(case: str) -> None:
    """The parts of the released splitter, from rows in another order than that of its cells."""
    from oracles.perturbench_split_official import CASES, cells

    name, options = CASES[case]
    seen = [pair for pair in dict.fromkeys(cells(name)) if pair[0] != "control"]
    order = sorted(range(len(seen)), key=lambda i: seen[i][::-1])
    rows = [seen[i] for i in order]
    data = toy(rows, label=np.array([p for p, _ in rows]), first=np.array(order))
    found = parts_of(data, rows, PerturbenchTransfer(**options, labels="label", order="first"))
    assert found == json.loads(EXPECTED.read_text(encoding="utf-8"))["parts"][case]


@pytest.mark.parametrize("case", perturbench_cases("drawn"))
def test_the_transfer_split_is_perturbenchs(case: str) -> None:
    check_perturbench(case)


@pytest.mark.shared
@pytest.mark.parametrize("case", perturbench_cases("devel"))
def test_the_transfer_split_is_perturbenchs_on_its_own_screen(shared_data: Path, case: str) -> None:
    check_perturbench(case)


@pytest.mark.shared
def test_an_imported_screen_gives_perturbenchs_split(shared_data: Path, fresh_home: Path) -> None:
    from embbench.datasets.anndata_file import AnnDataFile

    path = shared_data / "expression" / "perturbench_norman19_mcfaline23_devel.h5ad"
    more = {"context_keys": ["cell_type"], "select": {"dataset": "mcfaline23"}, "covariates": ["condition"]}
    quick = {"min_cells": 1, "cells": "none", "etest": False, "matching": "pooled", "controls": "shared"}
    data = AnnDataFile(str(path), "condition", **more, **quick).load()
    rows = list(zip(data.covariates["condition"].tolist(), data.context.tolist(), strict=True))
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))["parts"]["mcfaline_42"]
    assert parts_of(data, rows, PerturbenchTransfer(labels="condition")) == expected


def test_the_transfer_split_refuses_what_it_cannot_halve() -> None:
    rows = [(f"P{i}", c) for i in range(4) for c in "xyz"]
    with pytest.raises(UserError, match="holds out 3 pairs, 0 of them"):
        PerturbenchTransfer(fraction=0.1).split(toy(rows))
    with pytest.raises(UserError, match="no column 'first'"):
        PerturbenchTransfer(order="first").split(toy(rows))
    with pytest.raises(UserError, match="one label per perturbation"):
        PerturbenchTransfer(labels="l").split(toy([*rows, ("P0", "x")], l=np.array([f"l{i}" for i in range(13)])))
    with pytest.raises(ValueError, match="fraction must be in"):
        PerturbenchTransfer(fraction=0.0)


def test_perturbench_transfer_from_the_command_line(tmp_path: Path) -> None:
    line = "grid --protocol perturbench-transfer --dataset sim_context --emb random:8 --head ridge:alpha=10"
    said = embbench(tmp_path, f"{line} --permutations 0 --out out")
    assert said.code == 0, said.err
    assert "controls halves of sim_context" in said.err
    from embbench import results as frames

    found = frames(tmp_path / "out", ("rank_l2_over_n_by_truth_all", "rank_l2_by_truth_all", "rmse_all", "cosine_all"))
    assert {run["head"] for run in found.runs.to_dict("records")} >= {"ridge:alpha=10", "perturbation_mean"}
    own = found.scores[(found.scores["head"] == "ridge:alpha=10") & (found.scores.embedding == "random:8")]
    wide = own.pivot_table(index=["context", "condition"], columns="metric", values="value", observed=True)
    n = wide.groupby("context", observed=True).rmse_all.transform("size")
    ranked = (n > 1).to_numpy()
    assert ranked.any()
    older, newer = wide.rank_l2_over_n_by_truth_all * n, wide.rank_l2_by_truth_all * (n - 1)
    np.testing.assert_allclose(older[ranked], newer[ranked], atol=1e-9)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_randomised_pipeline_is_scikit_learns(seed):
    """Its training rows have the solver's left vectors, its test rows projections: predictions agree only with both."""
    from sklearn.decomposition import PCA
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from embbench.core import Inputs
    from embbench.grid.inputs import Raw
    from embbench.heads.knn import KNN
    from embbench.registry import default

    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(90, 40)).astype(np.float32), rng.normal(size=(70, 5)).astype(np.float32)
    fit, held, units = np.arange(70), np.arange(70, 90), tuple((i,) for i in range(90))
    found, entities = np.ones((90, 1), dtype=bool), sparse.eye(90, format="csr")
    raw = Raw(Inputs(X, np.zeros(90, dtype=int), entities, units, (("e", slice(0, 40)),), found))
    inputs = raw.featured(default().parse("features", f"pca:6:svd=randomized:seed={seed}"), fit)
    ours = KNN(k=4).fit(inputs.rows(fit), Y).predict(inputs.rows(held))
    solver = PCA(6, svd_solver="randomized", random_state=seed)
    theirs = make_pipeline(StandardScaler(), solver, KNeighborsRegressor(4)).fit(X[fit].astype(float), Y)
    np.testing.assert_allclose(ours, theirs.predict(X[held].astype(float)), atol=1e-6)
