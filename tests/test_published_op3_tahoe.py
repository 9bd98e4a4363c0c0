"""OP3 and Tahoe files with lines that are missing, damaged or at odds with others: refused, or counted and said."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pyarrow.parquet as pq
import pytest
from _published import GENES, made
from tiny import op3, tahoe

from embbench.core import PerturbationDataset, UserError

PLAIN = {"controls": "shared", "etest": False}
SHARD = "data/train-00000-of-03388.parquet"
TOKENS = "metadata/gene_metadata.parquet"


@pytest.fixture(autouse=True)
def _home(fresh_home: Path) -> None:
    """Imports of their own for each test."""


def edited(data: bytes, folder: Path, change: Callable[[anndata.AnnData], anndata.AnnData | None]) -> bytes:
    """An `.h5ad` file after a change (in place, or the one that is returned)."""
    raw = anndata.read_h5ad(io.BytesIO(data))
    found = change(raw)
    (raw if found is None else found).write_h5ad(folder / "edited.h5ad")
    return (folder / "edited.h5ad").read_bytes()


def report(data: PerturbationDataset) -> list[str]:
    return list(data.meta["import_report"])


def blanked(key: str, *rows: int) -> Callable[[anndata.AnnData], None]:
    """A change that makes some lines of a column missing."""

    def change(raw: anndata.AnnData) -> None:
        raw.obs.iloc[list(rows), raw.obs.columns.get_loc(key)] = None

    return change


def test_op3_de_counts_rows_without_a_compound_or_cell_type(tmp_path: Path) -> None:
    files = dict(op3.differential())
    plain = made("op3_de", tmp_path / "a", files).load()
    train = edited(files["de_train.h5ad"], tmp_path, blanked("sm_name", 0))
    train = edited(train, tmp_path, blanked("cell_type", 0, 1, 3))  # the first line lacks both: counted once
    data = made("op3_de", tmp_path / "b", files | {"de_train.h5ad": train}).load()
    assert len(data) == len(plain) - 3
    assert "" not in data.contexts
    assert "rows without sm_name, left out: 1" in report(data)
    assert "rows without cell_type, left out: 2" in report(data)
    assert not [line for line in report(plain) if line.startswith("rows without")]


def test_op3_de_counts_genes_of_either_file(tmp_path: Path) -> None:
    files = dict(op3.differential())  # the test file lacks the last gene
    train = edited(files["de_train.h5ad"], tmp_path, lambda raw: raw[:, 3:].copy())
    data = made("op3_de", tmp_path / "a", files | {"de_train.h5ad": train}).load()
    assert data.genes.tolist() == list(GENES[3:-1])
    assert "genes that not all files have, left out: 4" in report(data)


def test_op3_doses_that_are_text(tmp_path: Path) -> None:
    ((name, data),) = op3.counts().items()

    def texts(unit: str) -> Callable[[anndata.AnnData], None]:
        def change(raw: anndata.AnnData) -> None:
            raw.obs["dose_uM"] = [f"{value:g}{unit}" for value in raw.obs["dose_uM"]]

        return change

    plain = made("op3_counts", tmp_path / "a", {name: data}, **PLAIN).load()
    told = made("op3_counts", tmp_path / "b", {name: edited(data, tmp_path, texts(""))}, **PLAIN).load()
    np.testing.assert_array_equal(told.dose, plain.dose)
    np.testing.assert_array_equal(told.effects, plain.effects)
    for i, unit in enumerate((" uM", "e999")):
        files = {name: edited(data, tmp_path, texts(unit))}
        with pytest.raises(UserError, match=rf"op3_counts: expected a finite number .* dose_uM, found '14\.1{unit}'"):
            made("op3_counts", tmp_path / str(i), files, **PLAIN).load()


@pytest.mark.parametrize(
    ("tokens", "names", "found"),
    [
        ([None, 5], ["ENSG00000141510", "ENSG00000136997"], "'' and 'ENSG00000141510'"),
        ([3.0, 5.5], ["ENSG00000141510", "ENSG00000136997"], r"'3\.0' and 'ENSG00000141510'"),
        ([3, -5], ["ENSG00000141510", "ENSG00000136997"], "'-5' and"),
        ([3, 5], ["ENSG00000141510", None], "'5' and ''"),
    ],
)
def test_tahoe_gene_table_with_missing_lines(tmp_path: Path, tokens: list[Any], names: list[Any], found: str) -> None:
    files = dict(tahoe.shards()) | {TOKENS: tahoe.parquet({"token_id": tokens, "ensembl_id": names})}
    with pytest.raises(UserError, match=rf"tahoe_hf: gene_metadata\.parquet: expected a whole token_id .*{found}"):
        made("tahoe_hf", tmp_path, files, **PLAIN).load()


@pytest.mark.parametrize(
    ("name", "column"), [(SHARD, "drug"), (SHARD, "cell_line_id"), (SHARD, "expressions"), (TOKENS, "ensembl_id")]
)
def test_tahoe_damaged_pages_name_their_file(tmp_path: Path, name: str, column: str) -> None:
    files = dict(tahoe.shards())
    meta = pq.ParquetFile(io.BytesIO(files[name])).metadata
    chunks = [meta.row_group(0).column(j) for j in range(meta.num_columns)]
    (chunk,) = [each for each in chunks if each.path_in_schema.partition(".")[0] == column]
    start, size = chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size
    data = files[name]
    files[name] = data[:start] + b"\xff" * size + data[start + size :]
    with pytest.raises(UserError, match=rf"{name.rpartition('/')[2]}: cannot be read in .*; fetch it again"):
        made("tahoe_hf", tmp_path, files, **PLAIN).load()


@pytest.mark.parametrize("option", ["layer", "gene_key"])
def test_tahoe_shards_refuse_options_that_they_cannot_heed(tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match=f"tahoe_hf: {option} is no option of parquet shards, found 'raw'"):
        made("tahoe_hf", tmp_path, {}, **{option: "raw"})
    made("tahoe_hf", tmp_path, {}, **{option: None})


def test_tahoe_drugs_at_odds_with_their_dose_text(tmp_path: Path) -> None:
    name, drug = tahoe.PLATE.format(3), "Verteporfin"
    files = dict(tahoe.plates((3,)))
    plain = made("tahoe_plates", tmp_path / "a", files, only="plate3", **PLAIN).load()
    assert not [line for line in report(plain) if "is not the one" in line]

    def change(raw: anndata.AnnData) -> None:
        text = raw.obs["drugname_drugconc"].astype(str).to_numpy(object)
        hit = np.flatnonzero(raw.obs["drug"] == drug)[:5]
        text[hit] = tahoe.told("Homoharringtonine", 5.0)
        raw.obs["drugname_drugconc"] = text

    odd = {name: edited(files[name], tmp_path, change)}
    data = made("tahoe_plates", tmp_path / "b", odd, only="plate3", **PLAIN).load()
    line = "plate3: cells whose drug is not the one in drugname_drugconc, kept under drug (at dose 0 as control): 5"
    assert f"{line} (first: 'Verteporfin' and 'Homoharringtonine')" in report(data)
    np.testing.assert_array_equal(data.effects, plain.effects)  # the label is that of `drug`
