"""Screens as PerturBench curated them: effects from counts, splits by cell as a covariate, labels, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _published import GENES, cells, gzipped, h5ad, log_normalised
from tiny.perturbench import DRUGS, GENE_LABELS, LINES, STATES, curated, split

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._roles import Roles
from embbench.datasets.perturbench import PerturBench
from embbench.registry import default
from embbench.splits.given_column import GivenColumn

CELLS, TABLE = "mini.h5ad", "mini_split.csv"
FILES = [
    {"name": CELLS, "urls": ["https://example.org/1"], "part": "cells"},
    {"name": TABLE, "urls": ["https://example.org/2"], "part": "split"},
]
SHARED: dict[str, Any] = {"controls": "shared", "matching": "pooled"}


@pytest.fixture(autouse=True)
def _home(fresh_home: Path) -> None:
    """Imports go to a store of their own."""


def reader(folder: Path, data: bytes, table: bytes | None = None, **options: Any) -> PerturBench:
    (folder / CELLS).write_bytes(data)
    if table is not None:
        (folder / TABLE).write_bytes(table)
        options["splits"] = {"split": TABLE}
    given: dict[str, Any] = {"context_keys": ["cell_type"], "size_factor": ["ncounts", None], "entity_type": "gene"}
    files = FILES if table is not None else FILES[:1]
    return PerturBench("mini", files, root=str(folder), **{**given, **options})


def report(data: PerturbationDataset) -> str:
    return "\n".join(data.meta["import_report"])


def test_effects_come_from_counts_and_total_counts(tmp_path: Path) -> None:
    labels = (*GENE_LABELS, "JUN+FOS")
    data = reader(tmp_path, curated(labels, LINES), **SHARED).load()
    counts, names = cells([label for _ in LINES for label in labels])
    totals = counts.sum(axis=1, keepdims=True) + 50.0
    values = np.log1p(counts / totals * 1e4)
    line = np.repeat([each["cell_type"] for each in LINES], len(names) // len(LINES))
    of = np.array(["+".join(sorted(name.split("+"))) for name in names])
    assert len(data) == (len(set(labels)) - 1) * len(LINES)
    for i, (entities, context) in enumerate(zip(data.entities, data.context.tolist(), strict=True)):
        here = line == context
        expected = values[here & (of == "+".join(entities))].mean(axis=0) - values[here & (of == "control")].mean(
            axis=0
        )
        np.testing.assert_allclose(data.effects[i], expected, atol=1e-5)
    assert data.meta["size_factor"] == "ncounts"
    assert data.meta["scale"] == "counts"


def test_the_recipe_of_an_entry_sets_the_import_and_not_the_control_labels() -> None:
    made = default().get("datasets", "norman19_perturbench").make(recipe="perturbench")
    assert made.control == ["control"]
    assert {key: made.screen.options[key] for key in SHARED} == SHARED
    assert not made.screen.recipe.changed


def test_x_is_read_when_asked_for(tmp_path: Path) -> None:
    made = curated(GENE_LABELS, LINES)
    counts, log = reader(tmp_path, made).load(), reader(tmp_path, made, layer=None).load()
    assert log.meta["scale"] == "lognorm"
    assert not np.allclose(counts.effects, log.effects)


@pytest.mark.parametrize("style", ["as published", "windows", "headed", "named", "capitals"])
def test_roles_of_cells_become_a_split_of_conditions(style: str, tmp_path: Path) -> None:
    table = split(GENE_LABELS, len(LINES))
    if style == "windows":
        table = b"\xef\xbb\xbf" + table.replace(b"\n", b"\r\n")
    if style == "headed":
        table = b"\n,split\n" + table
    if style == "named":
        table = b"Cell,assigned\n" + table
    if style == "capitals":
        table = table.replace(b"test", b"Test").replace(b"val", b" val ")
    data = reader(tmp_path, curated(GENE_LABELS, LINES), table).load()
    told = dict(zip(zip(data.entities, data.context.tolist(), strict=True), data.covariates["split"], strict=True))
    for gene, role in zip(GENES[:5], ("train", "train", "train", "val", "test"), strict=True):
        assert told[(gene,), "a549"] == "train"
        assert told[(gene,), "k562"] == told[(gene,), "mcf7"] == role
    (fold,) = GivenColumn("split").split(data).folds
    tested = {(data.entities[i], str(data.context[i])) for i in fold.test}
    assert tested == {((GENES[4],), "k562"), ((GENES[4],), "mcf7")}
    assert len(fold.train) == 5 + 2 * 3
    assert len(fold.validation) == 2
    said = report(data)
    assert f"split ({TABLE}): conditions 11 train, 2 val, 2 test" in said
    assert "roles of control cells, not used (36 train, 18 val, 18 test): 72" in said
    header = {"headed": ",split", "named": "Cell,assigned"}.get(style)
    assert ("names columns, passed over" in said) == (header is not None)
    assert header is None or f"the first line of {TABLE} names columns, passed over: {header}" in said


def test_conditions_of_several_roles_are_in_no_fold_and_said(tmp_path: Path) -> None:
    lines = split(GENE_LABELS, 1).decode().splitlines()
    lines[24] = "cell24,test"  # the first cell of the first perturbation
    lines[36] = "cell36,"  # the second one: a cell without a role
    del lines[37]
    lines += [f"cell{i},train" for i in range(9000, 9003)] + ["", "cell9003"]
    made = curated((*GENE_LABELS, f"{GENES[0]}+{GENES[1]}", f"{GENES[1]}+{GENES[0]}"), LINES[:1])
    data = reader(tmp_path, made, "\n".join(lines).encode()).load()
    roles = dict(zip(data.entities, data.covariates["split"].tolist(), strict=True))
    pair = tuple(sorted(GENES[:2]))
    assert roles[GENES[0],] == ""
    assert roles[GENES[1],] == "train"
    assert roles[pair] == ""
    said = report(data)
    assert f"conditions whose cells have several roles, in no fold ({GENES[0]} in a549): 1" in said
    assert "cells without a role of their own, which follow their condition: 2" in said
    assert "cells of the split that the screen does not have: 4" in said


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"other1,train\nother2,test\n", "none of its 2 cells"),
        (b"cell0,train\ncell1,training\n", "line 2: expected train, val, test or nothing .* found 'training'"),
        (b"cell0,train\ncell0,test\n", "line 2: the cell 'cell0' is named twice"),
        (b"\n", "found none"),
        (b"cell0,training\ncell1,train\n", "line 1: expected train, val, test or nothing .* found 'training'"),
        (b"cell,split\nindex,split\n", "line 2: expected train, val, test"),
        ("cell0,train\n".encode("utf-16"), "in UTF-8, found UTF-16; remove the file and fetch it again"),
        ("cell0,train\n".encode("utf-16-le"), "line 1: expected train, val, test"),
        (
            b"cell0,train\ncell\xe9,test\n",
            "in UTF-8, found other bytes .*decode byte 0xe9.*; remove the file and fetch",
        ),
        (gzipped(b"cell0,train\n"), "in UTF-8, found a gzip file; remove the file"),
        (b"cell0,train\n" + b"x" * 200_000 + b",test\n", "after line 1 .*field larger than field limit"),
        (b'cell0,train\n"cell1,test\ncell2,test\n', "in UTF-8, found other bytes after line 1 .*unexpected end"),
    ],
)
def test_splits_that_are_none_are_refused(table: bytes, message: str, tmp_path: Path) -> None:
    made = reader(tmp_path, curated(GENE_LABELS, LINES), table)
    with pytest.raises(UserError, match=message):
        made.check()


def test_altered_symbols_are_restored_where_that_is_sure(tmp_path: Path) -> None:
    labels = (*GENE_LABELS, "Gcontrol13", "controlDK", "xcontrolx")
    options = {"altered": ["NA", "NTC", "random"], "context_keys": ["cell_type", "treatment"]}
    data = reader(tmp_path, curated(labels, STATES), **options).load()
    assert data.contexts == ("a172|none", "a172|trametinib", "u87mg|none", "u87mg|trametinib")
    assert {(gene,) for gene in (*GENES[:5], "GNA13", "NADK", "xcontrolx")} == set(data.entities)
    said = report(data)
    assert "had altered, restored: 2 (Gcontrol13 -> GNA13, controlDK -> NADK)" in said
    assert "kept as they are: 1 (xcontrolx -> xcontrolx)" in said
    plain = reader(tmp_path, curated(labels, STATES), context_keys=["cell_type", "treatment"]).load()
    assert ("GNA13",) not in plain.entities
    assert ("Gcontrol13",) in plain.entities


def test_compounds_keep_their_names_and_other_controls_are_read(tmp_path: Path) -> None:
    labels = ("C[S+](C)[O-]", "C[S+](C)[O-]", "(+)-JQ1", "A, B+C", *DRUGS[4:])
    options = {
        "labels": ["condition", "sm_name", "SMILES"],
        "control": ["control", "Dimethyl Sulfoxide", "C[S+](C)[O-]"],
        "rename": {"(+)-JQ1": "JQ1"},
        "entity_type": "compound",
        "batch_key": ["plate_name", None],
    }
    made = reader(tmp_path, curated(labels, LINES, "SMILES"), **options)
    assert "control control in 72 cells" in "\n".join(made.check())
    data = made.load()
    assert data.entity_type == "compound"
    assert {e for (e,) in data.entities} == {"JQ1", "A, B+C", *DRUGS[4:]}
    assert "labels renamed: 1 ((+)-JQ1 -> JQ1)" in report(data)
    assert not data.meta["batch_key"]


def test_parts_can_be_used_apart(tmp_path: Path) -> None:
    table = split(GENE_LABELS, len(LINES))
    reader(tmp_path, curated(GENE_LABELS, LINES), table)
    options = {"default_split": "given:split", "default_context_embedding": "control_context_pca"}
    alone = reader(tmp_path, curated(GENE_LABELS, LINES), table, only="cells", **options).load()
    assert "split" not in alone.covariates
    assert "default_split" not in alone.meta, "it would name a column that is not there"
    assert alone.meta["default_context_embedding"] == "control_context_pca"
    assert f"the split 'split' is in {TABLE} (part split), which only=cells leaves out" in report(alone)
    whole = reader(tmp_path, curated(GENE_LABELS, LINES), table, **options).load()
    assert whole.meta["default_split"] == "given:split"
    kept = reader(tmp_path, curated(GENE_LABELS, LINES), table, only="cells", default_split="unseen_context").load()
    assert kept.meta["default_split"] == "unseen_context"
    other = reader(tmp_path, curated(GENE_LABELS, LINES), table, only="split")
    assert other.check() == [f"{TABLE}: 252 cells (168 train, 42 val, 42 test); its cells are in another part"]
    with pytest.raises(UserError, match="the part 'split' has no cells"):
        other.load()


def test_a_screen_in_the_store_is_given_without_reading_its_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = reader(tmp_path, curated(GENE_LABELS, LINES), split(GENE_LABELS, len(LINES)))
    first = made.load()
    monkeypatch.setattr(Roles, "read", lambda path: pytest.fail(f"{path} was read"))
    again = made.load()
    assert again.covariates["split"].tolist() == first.covariates["split"].tolist()
    assert again.meta["import_report"] == first.meta["import_report"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"splits": ["a"]}, r"splits must map names to names, got \['a'\]"),
        ({"splits": {"split": "absent.csv"}}, r"split must name one of the files \(mini.h5ad\), got 'absent.csv'"),
        ({"splits": {"split": 3}}, "splits must map names to names, got 'split': 3"),
        ({"labels": []}, r"labels must be a name or a list of names, got \[\]"),
        ({"control": 3}, "control must be a name or a list of names, got 3"),
        ({"rename": {"JUN": 3}}, "rename must map names to names, got 'JUN': 3"),
        ({"layer": 3}, "layer must be text, got 3"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"min_cells": True}, "min_cells must be a whole number, got True"),
        ({"altered": 3}, "altered must be a name or a list of names, found 3"),
        ({"context_keys": 3}, "context_keys must be a name or a list of names, found 3"),
        (
            {"context_keys": [["cell_type", 3]]},
            r"context_keys must be a column, or columns .* found \['cell_type', 3\]",
        ),
    ],
)
def test_values_that_are_none_are_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        reader(tmp_path, curated(GENE_LABELS, LINES), **given).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": "none"}, "expected raw counts in layers/counts, as published .*layer=null"),
        ({"layers": "log"}, "expected counts as published, found lognorm"),
        ({"labels": "guide"}, "expected the column condition for perturbation labels"),
        ({"context": "line"}, "expected the column cell_type for context_keys|'cell_type' is not a column"),
    ],
)
def test_other_files_are_refused(change: dict[str, str], message: str, tmp_path: Path) -> None:
    counts, names = cells(GENE_LABELS)
    log = log_normalised(counts)
    layers = {"none": {}, "log": {"counts": log}}.get(change.get("layers", ""), {"counts": counts})
    obs = {change.get("labels", "condition"): names, change.get("context", "cell_type"): ["k562"] * len(names)}
    made = reader(tmp_path, h5ad(log, obs, {}, GENES, layers=layers))
    with pytest.raises(UserError, match=message):
        made.check()


def test_the_development_screen_of_perturbench(shared_data: Path, tmp_path: Path) -> None:
    """A real file of theirs, without counts: it is read from X, and refused without saying so."""
    import anndata

    source = shared_data / "expression" / "perturbench_norman19_mcfaline23_devel.h5ad"
    files = [{"name": "devel.h5ad", "urls": ["https://example.org/devel"]}]
    (tmp_path / "devel.h5ad").write_bytes(source.read_bytes())
    kept: dict[str, Any] = {
        "context_keys": ["cell_type", "treatment"],
        "entity_type": "gene",
        "etest": False,
        "cells": "none",
    }
    with pytest.raises(UserError, match="expected raw counts in layers/counts"):
        PerturBench("devel", files, root=str(tmp_path), **kept).check()
    data = PerturBench("devel", files, root=str(tmp_path), layer=None, **SHARED, **kept).load()
    assert data.contexts == ("A172|none", "T98G|none", "U87MG|none", "k562|none")
    assert len(data) == 18 + 15 + 9 * 3
    assert sum(len(e) == 2 for e in data.entities) == 15
    raw = anndata.read_h5ad(source)
    X, obs = raw.to_df(), raw.obs
    here = obs.cell_type.astype(str) == "k562"
    expected = X[here & (obs.condition == "KLF1+MAP2K6")].mean() - X[here & (obs.condition == "control")].mean()
    found = data.effects[data.entities.index(("KLF1", "MAP2K6"))]
    order = dict(zip(data.genes.tolist(), found.tolist(), strict=True))
    same = [gene for gene in X.columns if gene in order]
    assert len(same) > 450
    np.testing.assert_allclose([order[gene] for gene in same], expected[same], atol=2e-5)


def test_roles_are_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text('"a,1",train\nb,validation\nc,\nd,nan\n', encoding="utf-8")
    assert dict(Roles.read(tmp_path / "s.csv").roles) == {"a,1": "train", "b": "val", "c": "", "d": ""}
