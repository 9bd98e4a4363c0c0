"""Condition-level tables: every format gives the same screen as pandas, and every mistake is named."""

import gzip
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from embbench.core import UserError
from embbench.datasets.table import ConditionTable

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "expression"
GENES = ["TP53", "HLA-DRA", "H1F0", "RP11-34P13.7"]


def wide(seed=0):
    values = np.random.default_rng(seed).normal(size=(6, 4)).astype(np.float32)
    frame = pd.DataFrame(values, columns=GENES)
    frame.insert(0, "perturbation", ["KLF1", "MYC", "KLF1_MYC"] * 2)
    frame.insert(1, "cell_line", ["K562"] * 3 + ["RPE1"] * 3)
    return frame


def melted(frame):
    return frame.melt(["perturbation", "cell_line"], var_name="gene", value_name="value").dropna()


def write(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".h5ad":
        genes = [c for c in frame.columns if c in GENES]
        obs = frame.drop(columns=genes).set_axis([f"c{i}" for i in range(len(frame))])
        anndata.AnnData(frame[genes].to_numpy(), obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(path)
    else:
        frame.to_csv(path, sep="\t" if ".tsv" in path.name else ",", index=False)
    return str(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.tsv.gz", "a.parquet", "a.h5ad"])
def test_wide_formats_agree(tmp_path, name):
    frame = wide()
    data = ConditionTable(write(frame, tmp_path / name), unit="delta", context_key="cell_line").load()
    np.testing.assert_array_equal(data.effects, frame[GENES].to_numpy())
    assert data.truth is data.effects
    assert data.observed is None
    assert data.genes.tolist() == ["TP53", "HLA-DRA", "H1-0", "RP11-34P13.7"]
    assert data.entities == (("KLF1",), ("MYC",), ("KLF1", "MYC")) * 2
    assert data.contexts == ("K562", "RPE1")
    assert (data.name, data.unit, data.entity_type, data.meta["controls"]) == ("a", "delta", "gene", "none")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_long_is_wide(tmp_path, name):
    frame = wide()
    frame.loc[2, "TP53"] = np.nan
    frame.loc[4, "H1F0"] = np.nan
    shuffled = melted(frame).sample(frac=1, random_state=1)
    options = {"unit": "zscore", "context_key": "cell_line"}
    data = ConditionTable(write(shuffled, tmp_path / name), gene_key="gene", value_key="value", **options).load()
    want = ConditionTable(write(frame, tmp_path / f"wide_{name}"), **options).load()
    order = {(e, c): i for i, (e, c) in enumerate(zip(data.entities, data.context, strict=True))}
    rows = [order[key] for key in zip(want.entities, want.context, strict=True)]
    columns = [data.genes.tolist().index(g) for g in want.genes]
    np.testing.assert_array_equal(data.effects[rows][:, columns], want.effects)
    np.testing.assert_array_equal(data.observed[rows][:, columns], want.observed)
    assert want.observed.sum() == 22


def test_absent_entries_are_zero_only_when_asked(tmp_path):
    frame = melted(wide()).iloc[:-3].assign(status=lambda f: np.where(f.value > 0, "up", "down"))
    options = {"unit": "zscore", "context_key": "cell_line", "gene_key": "gene", "value_key": "value"}
    path = write(frame, tmp_path / "a.csv")
    masked = ConditionTable(path, label_key="status", **options).load()
    filled = ConditionTable(path, label_key="status", missing="zero", **options).load()
    assert masked.observed.sum() == 21
    assert np.isnan(masked.effects[~masked.observed]).all()
    assert filled.observed is None
    np.testing.assert_array_equal(filled.effects, np.where(masked.observed, masked.effects, 0))
    np.testing.assert_array_equal(masked.labels_tested, masked.observed)
    np.testing.assert_array_equal(masked.labels, np.where(masked.observed, np.sign(masked.effects), 0))
    assert filled.labels_tested.all()
    np.testing.assert_array_equal(filled.labels, masked.labels)
    assert (filled.meta["missing"], filled.meta["listed_entries"]) == ("zero", 21)


@pytest.mark.parametrize("matrix", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_zero_can_mean_untested(tmp_path, matrix):
    frame = wide()
    values = frame[GENES].to_numpy(copy=True)
    values[0, 1] = values[3, 2] = 0
    path = tmp_path / "a.h5ad"
    obs = frame[["perturbation", "cell_line"]].set_axis(list("abcdef"))
    anndata.AnnData(matrix(values), obs=obs, var=pd.DataFrame({"name": GENES}, index=list("wxyz"))).write_h5ad(path)
    options = {"unit": "rank_score", "context_key": "cell_line", "gene_key": "name"}
    np.testing.assert_array_equal(ConditionTable(str(path), **options).load().effects, values)
    data = ConditionTable(str(path), zero_is_missing=True, **options).load()
    np.testing.assert_array_equal(data.observed, values != 0)


def test_dose_cells_covariates_and_joined_contexts(tmp_path):
    frame = wide().assign(dose=[1, 1, 1, 10, 10, 10], cells=[5, 6, 7, 8, 9, 10], batch=list("aabbcc"), fold=range(6))
    options = {"dose_key": "dose", "n_cells_key": "cells", "keep": ["batch", "fold"]}
    path = write(frame, tmp_path / "a.csv")
    data = ConditionTable(path, unit="log2fc", context_key=["cell_line", "batch"], **options).load()
    assert data.contexts == ("K562|a", "K562|b", "RPE1|b", "RPE1|c")
    assert data.conditions[2] == "KLF1+MYC@1"
    assert data.n_cells.tolist() == [5, 6, 7, 8, 9, 10]
    assert data.covariates["batch"].tolist() == list("aabbcc")
    assert data.covariates["fold"].tolist() == list(range(6))
    assert data.genes.tolist() == ["TP53", "HLA-DRA", "H1-0", "RP11-34P13.7"]


def test_repeats_are_refused_or_averaged(tmp_path):
    frame = pd.concat([wide(0), wide(1)]).assign(
        cells=range(12), perturbation=["KLF1", "MYC", "KLF1+MYC"] * 2 + ["KLF1", "MYC", "MYC_KLF1"] * 2
    )
    frame.iloc[0, 2] = np.nan
    path = write(frame, tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"6 rows repeat .* 'KLF1' in context 'K562'.*combine=mean"):
        ConditionTable(path, unit="delta", context_key="cell_line", keep=["cells"]).load()
    options = {"unit": "delta", "context_key": "cell_line", "n_cells_key": "cells", "combine": "mean"}
    data = ConditionTable(path, **options).load()
    both = np.stack([frame[GENES].to_numpy()[:6], frame[GENES].to_numpy()[6:]]).astype(np.float64)
    np.testing.assert_allclose(data.effects, np.nanmean(both, axis=0), rtol=1e-6)
    assert data.n_cells.tolist() == [6, 8, 10, 12, 14, 16]
    assert data.meta["mapping"]["left_out"]["repeated rows (averaged)"] == 6


def test_repeated_entries_of_a_long_table(tmp_path):
    frame = pd.concat([melted(wide(0)), melted(wide(1)).iloc[:5]])
    options = {"unit": "delta", "context_key": "cell_line", "gene_key": "gene", "value_key": "value"}
    path = write(frame, tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"5 entries repeat .* KLF1 and TP53"):
        ConditionTable(path, **options).load()
    data = ConditionTable(path, combine="mean", **options).load()
    want = frame.groupby(["perturbation", "cell_line", "gene"], sort=False).value.mean().unstack()[GENES]
    keys = [("_".join(e), c) for e, c in zip(data.entities, data.context, strict=True)]
    np.testing.assert_allclose(data.effects, want.loc[keys].to_numpy(), rtol=1e-6)


def test_controls_and_thin_rows_are_left_out_and_counted(tmp_path):
    frame = wide()
    frame.loc[6] = ["non-targeting", "K562", 1, 1, 1, 1]
    frame.loc[7] = ["GFP", "K562", 1, 1, 1, 1]
    frame.loc[3, GENES[1:]] = np.nan
    path = write(frame.assign(empty=np.nan), tmp_path / "a.csv")
    data = ConditionTable(path, unit="delta", context_key="cell_line", control="GFP", min_entries=2).load()
    assert len(data) == 5
    assert list(data.meta["mapping"]["left_out"].values()) == [2, 0, 1, 1]


def test_names_that_look_like_numbers_stay_text(tmp_path):
    frame = wide().assign(perturbation=["7157", "4609", "007"] * 2, cell_line=["01"] * 3 + ["1"] * 3)
    data = ConditionTable(write(frame, tmp_path / "a.csv"), unit="delta", context_key="cell_line").load()
    assert data.entities[:3] == (("TP53",), ("MYC",), ("007",))
    assert data.contexts == ("01", "1")


def test_pandas_index_is_a_name_or_ignored(tmp_path):
    frame = wide()
    frame.to_csv(tmp_path / "a.csv")
    data = ConditionTable(str(tmp_path / "a.csv"), unit="delta", context_key="cell_line").load()
    assert len(data.genes) == 4
    frame.iloc[:3].drop(columns="cell_line").set_index("perturbation").to_parquet(tmp_path / "b.parquet")
    assert ConditionTable(str(tmp_path / "b.parquet"), unit="delta").load().contexts == ("all",)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_mask_survives_the_long_format(tmp_path_factory, data):
    shape = (data.draw(st.integers(2, 5)), data.draw(st.integers(2, 6)))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])))
    mask = mask.reshape(shape)
    mask[0], mask[:, 0] = True, True
    values = np.where(mask, np.arange(1.0, mask.size + 1).reshape(shape), np.nan)
    frame = pd.DataFrame(values, columns=[f"g{i}" for i in range(shape[1])]).assign(
        p=[f"x{i}" for i in range(shape[0])]
    )
    path = tmp_path_factory.mktemp("long") / "a.parquet"
    frame.melt("p", var_name="gene", value_name="value").dropna().to_parquet(path)
    read = ConditionTable(str(path), unit="delta", perturbation_key="p", gene_key="gene", value_key="value").load()
    np.testing.assert_array_equal(read.effects, values.astype(np.float32))


def broken(tmp_path, case):
    frame, options = wide(), {"unit": "delta", "context_key": "cell_line"}
    path = tmp_path / "a.csv"
    if case == "text":
        frame["note"] = "hello"
    elif case == "infinite":
        frame.loc[1, "TP53"] = np.inf
    elif case == "too large":
        frame["TP53"] = 1e300
    elif case == "no label":
        frame.loc[1, "perturbation"] = None
    elif case == "no context":
        frame.loc[2, "cell_line"] = ""
    elif case == "one":
        frame = frame.iloc[:1]
    elif case == "empty":
        frame = frame.iloc[:0]
    elif case == "only controls":
        frame["perturbation"] = "ctrl"
    elif case == "no genes":
        frame = frame[["perturbation", "cell_line"]]
    elif case == "repeated gene":
        frame = pd.concat([frame, frame[["TP53"]]], axis=1)
    elif case == "near miss":
        options["context_key"] = "cell_lines"
    elif case == "other case":
        options["perturbation_key"] = "Perturbation"
    elif case == "dose text":
        frame, options["dose_key"] = frame.assign(dose="10 uM"), "dose"
    elif case == "label":
        frame = melted(frame).assign(status="maybe")
        options |= {"gene_key": "gene", "value_key": "value", "label_key": "status"}
    elif case == "varying":
        frame = melted(frame).assign(batch=range(24))
        options |= {"gene_key": "gene", "value_key": "value", "keep": ["batch"]}
    write(frame, path)
    return ConditionTable(str(path), **options)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("text", "'note' must hold finite numbers, found 'hello' in row 1; .* keep"),
        ("infinite", "'TP53' must hold finite numbers, found inf in row 2"),
        ("too large", "'TP53' must hold finite numbers"),
        ("no label", r"'perturbation' \(perturbation_key\) is empty in 1 of 6 rows, first in row 2"),
        ("no context", r"'cell_line' \(context_key\) is empty in 1 of 6 rows, first in row 3"),
        ("one", "expected two or more perturbations or contexts, found 1 and 1"),
        ("empty", "expected at least one row"),
        ("only controls", "found 0 and 0 .*6 control rows"),
        ("no genes", "expected gene columns, found perturbation, cell_line"),
        ("repeated gene", "1 column names are repeated, e.g. 'TP53'"),
        ("near miss", "no column 'cell_lines' for context_key; did you mean cell_line"),
        ("other case", "did you mean perturbation"),
        ("dose text", "'dose' must hold finite numbers, found '10 uM'"),
        ("label", "label_key='status' must hold .*found maybe"),
        ("varying", r"'batch' \(keep\) must have one value per condition"),
    ],
)
def test_mistakes_are_named(tmp_path, case, message):
    with pytest.raises(UserError, match=message) as caught:
        broken(tmp_path, case).load()
    assert str(tmp_path / "a.csv") in str(caught.value)


@pytest.mark.parametrize("name", ["a.parquet", "a.h5ad", "a.csv.gz"])
@pytest.mark.parametrize("content", ["text", "truncated", "nothing"])
def test_damaged_files_are_named(tmp_path, name, content):
    path = tmp_path / name
    write(wide(), path)
    whole = path.read_bytes()
    path.write_bytes(
        {"text": b"perturbation,TP53\nKLF1,1\n", "truncated": whole[: len(whole) // 2], "nothing": b""}[content]
    )
    with pytest.raises(UserError, match=r"cannot be read as (parquet|h5ad|text)"):
        ConditionTable(str(path), unit="delta").load()


def test_other_files_are_named(tmp_path):
    for name, message in (("no.csv", "found nothing"), ("", "found a folder"), ("a.rds", "rename or convert")):
        if name.endswith("rds"):
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(UserError, match=message):
            ConditionTable(str(tmp_path / name), unit="delta").load()
    (tmp_path / "b.csv").write_bytes(gzip.compress(b"perturbation,TP53\n"))
    with pytest.raises(UserError, match="cannot be read as text"):
        ConditionTable(str(tmp_path / "b.csv"), unit="delta").load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "unit must be one of delta, log2fc, zscore, rank_score, got ''"),
        ({"unit": "lfc"}, "got 'lfc'"),
        ({"unit": "delta", "missing": "zero"}, "missing=zero is for long tables"),
        ({"unit": "delta", "label_key": "s"}, "label_key is for long tables"),
        ({"unit": "delta", "value_key": "v"}, "needs gene_key"),
        ({"unit": "delta", "min_entries": 0}, "got 0"),
        ({"unit": "delta", "entity_type": "drug"}, "got 'drug'"),
    ],
)
def test_parameters_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ConditionTable("a.csv", **options)


def shared(name):
    path = SHARED / name
    if not path.is_file():
        pytest.skip("shared data is absent")
    return str(path)


@pytest.mark.shared
def test_op3():
    path = shared("op3_neurips2023_rankscores_135drugs_4celltypes.h5ad")
    data = ConditionTable(path, unit="rank_score", context_key="cell_type").load()
    assert data.effects.shape == (540, 6349)
    np.testing.assert_array_equal(data.effects, anndata.read_h5ad(path).X)
    assert (data.entity_type, data.contexts) == ("compound", ("b", "myeloid", "nk", "t"))
    assert len(data.entity_names) == 135
    assert ("TL_HRAS26",) in data.entities
    assert data.meta["default_split"] == "unseen_context"


@pytest.mark.shared
def test_tahoe():
    path = shared("tahoe_rankscores_10lines.h5ad")
    options = {"context_key": "cell_line", "zero_is_missing": True, "keep": ["n_ranked"]}
    data = ConditionTable(path, unit="rank_score", **options).load()
    raw = anndata.read_h5ad(path)
    np.testing.assert_array_equal(data.observed, raw.X != 0)
    np.testing.assert_array_equal(data.covariates["n_ranked"], raw.obs["n_ranked"])
    assert len(data.contexts) == 10


@pytest.mark.shared
def test_l1000():
    path = shared("lincs_l1000_overexpression_consensus_dysreg.parquet")
    keys = {"perturbation_key": "pert_symbol", "gene_key": "symbol", "value_key": "z_score", "label_key": "direction"}
    data = ConditionTable(path, unit="zscore", missing="zero", min_entries=20, **keys).load()
    raw = pd.read_parquet(path)
    raw = raw[raw.groupby("pert_symbol").symbol.transform("size") >= 20]
    assert (len(data), data.entity_type) == (253, "gene")
    assert np.count_nonzero(data.effects) == len(raw) == data.meta["listed_entries"]
    table = raw.pivot_table(index="pert_symbol", columns="symbol", values="z_score", fill_value=0)
    order = [e[0] for e in data.entities]
    np.testing.assert_allclose(np.sort(data.effects, axis=1), np.sort(table.loc[order].to_numpy(), axis=1), rtol=1e-6)
    np.testing.assert_array_equal(data.labels, np.sign(data.effects))
