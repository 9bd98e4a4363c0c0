"""Sparse label tables as screens, on small files and on the shared L1000 consensus signatures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from embbench.core import UserError
from embbench.datasets.label_table import LabelTable

LINES = [
    ("KLF1", "TP53", "Up", 2.5),
    ("KLF1", "MYC", "down", -1.5),
    ("KLF1+ctrl", "JAK1", "ns", 0.1),
    ("CEBPA", "TP53", "down", -3.0),
    ("CEBPA+KLF1", "H1F0", "up", 1.0),
    ("control", "TP53", "none", 0.0),
]
KEYS = {"perturbation_key": "pert", "gene_key": "symbol"}


def write(path, lines=LINES, context=None):
    frame = pd.DataFrame(lines, columns=["pert", "symbol", "word", "z"])
    if context is not None:
        frame["line"] = context
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False)
    return str(path)


def entries(data, matrix):
    return {("+".join(e), str(g)): matrix[i, j] for i, e in enumerate(data.entities) for j, g in enumerate(data.genes)}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_labels_and_what_is_not_listed(tmp_path, suffix):
    path = write(tmp_path / f"de{suffix}", [LINES[0], LINES[1], *LINES[3:]])
    data = LabelTable(path, **KEYS, label_key="word").load()
    assert data.name == "de"
    assert data.unit == "rank_score"
    assert sorted(data.conditions) == ["CEBPA", "CEBPA+KLF1", "KLF1"]
    labels = {k: v for k, v in entries(data, data.labels).items() if v}
    assert labels == {("KLF1", "TP53"): 1, ("KLF1", "MYC"): -1, ("CEBPA", "TP53"): -1, ("CEBPA+KLF1", "H1-0"): 1}
    assert data.labels_tested.all()
    assert data.observed is None
    np.testing.assert_array_equal(data.effects, data.labels)
    assert data.meta["mapping"]["left_out"]["control rows"] == 1
    assert data.meta["published_labels"] == {"up": 2, "down": 2, "none": 5}
    assert data.truth_labels is data.labels
    sparse = LabelTable(path, **KEYS, label_key="word", missing="untested").load()
    np.testing.assert_array_equal(sparse.labels_tested, data.labels != 0)
    np.testing.assert_array_equal(sparse.observed, data.labels != 0)


def test_values_units_and_contexts(tmp_path):
    lines = [LINES[0], LINES[1], LINES[3]]
    path = write(tmp_path / "de.csv", [*lines, *lines], ["K562"] * 3 + ["A549"] * 3)
    options = {"value_key": "z", "unit": "zscore", "context_key": "line"}
    data = LabelTable(path, **KEYS, label_key="word", **options).load()
    assert (len(data), data.contexts, data.unit) == (4, ("A549", "K562"), "zscore")
    assert sorted(set(data.effects.ravel().tolist())) == [-3.0, -1.5, 0.0, 2.5]
    by_sign = LabelTable(path, **KEYS, **options).load()
    np.testing.assert_array_equal(by_sign.labels, data.labels)
    with pytest.raises(UserError, match="repeat a"):
        LabelTable(path, **KEYS, label_key="word").load()
    np.testing.assert_array_equal(LabelTable(path, **KEYS, label_key="word", combine="mean").load().labels,
                                  data.rows(np.flatnonzero(data.context == "K562")).labels)  # fmt: skip


def test_repeats_that_disagree_are_untested(tmp_path):
    lines = [LINES[0], ("KLF1", "TP53", "down", -1.0), LINES[1], LINES[3]]
    data = LabelTable(write(tmp_path / "a.csv", lines), **KEYS, label_key="word", combine="mean").load()
    tested, labels = entries(data, data.labels_tested), entries(data, data.labels)
    assert not tested["KLF1", "TP53"]
    assert labels["KLF1", "TP53"] == 0
    assert tested["CEBPA", "MYC"]


def test_words(tmp_path):
    lines = [("KLF1", "TP53", "HIGHER", 1.0), ("CEBPA", "MYC", "-1", 1.0), ("CEBPA", "TP53", "same", 1.0)]
    path = write(tmp_path / "a.csv", lines)
    with pytest.raises(UserError, match=r"'higher', 'same'; say what they mean with up="):
        LabelTable(path, **KEYS, label_key="word").load()
    data = LabelTable(path, **KEYS, label_key="word", up="Higher", none=["same", "equal"]).load()
    assert sorted(data.labels.ravel().tolist()) == [-1, 0, 0, 1]


def test_min_genes(tmp_path):
    path = write(tmp_path / "a.csv", [*LINES[:2], LINES[3], ("CEBPA", "MYC", "up", 1.0), ("GATA1", "KRAS", "up", 1.0)])
    data = LabelTable(path, **KEYS, label_key="word", min_genes=2).load()
    assert data.conditions == ("KLF1", "CEBPA")
    assert "KRAS" not in data.genes
    assert data.meta["mapping"]["left_out"]["conditions with fewer than 2 entries"] == 1
    with pytest.raises(UserError, match="two or more conditions, found 0"):
        LabelTable(path, **KEYS, label_key="word", min_genes=3).load()


def test_mistakes(tmp_path):
    path = write(tmp_path / "a.csv")
    with pytest.raises(UserError, match="no column 'words' for label_key; did you mean word"):
        LabelTable(path, **KEYS, label_key="words").load()
    with pytest.raises(UserError, match="'word' must hold finite numbers"):
        LabelTable(path, **KEYS, value_key="word").load()
    with pytest.raises(UserError, match="expected a file, found nothing"):
        LabelTable(str(tmp_path / "b.csv"), **KEYS, label_key="word").load()
    for wrong, match in (
        ({}, "label_key"),
        ({"label_key": "word", "missing": "zero"}, "missing must be one of"),
        ({"label_key": "word", "unit": "zscore"}, "no value_key"),
        ({"label_key": "word", "min_genes": 0}, "got 0"),
        ({"label_key": "word", "up": "down"}, "down would have two meanings"),
    ):
        with pytest.raises(ValueError, match=match):
            LabelTable(path, **wrong)


@pytest.mark.shared
def test_l1000(shared_data):
    path = shared_data / "expression" / "lincs_l1000_overexpression_consensus_dysreg.parquet"
    keys = {"perturbation_key": "pert_symbol", "gene_key": "symbol", "label_key": "direction"}
    data = LabelTable(str(path), **keys, value_key="z_score", unit="zscore", min_genes=20).load()
    raw = pd.read_parquet(path)
    raw = raw[raw.groupby("pert_symbol").symbol.transform("size") >= 20]
    assert (len(data), data.entity_type) == (253, "gene")
    assert (data.labels == 1).sum() == (raw.direction == "up").sum()
    assert (data.labels == -1).sum() == (raw.direction == "down").sum()
    np.testing.assert_array_equal(data.labels, np.sign(data.effects))
    np.testing.assert_allclose(np.sort(data.effects[data.effects != 0]), np.sort(raw.z_score), rtol=1e-6)
    assert data.labels_tested.all()
    sparse = LabelTable(str(path), **keys, missing="untested", min_genes=20).load()
    assert sparse.labels_tested.sum() == sparse.observed.sum() == len(raw)
