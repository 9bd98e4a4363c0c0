"""Screens as GEARS serves them: labels in both orders, the cell line, values as they are, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _published import ENSEMBL, GENES, cells, h5ad, log_normalised
from tiny.gears import NORMAN, OTHER, archive, processed

from embbench.cache.datafiles import bring, records
from embbench.core import UserError
from embbench.datasets.gears import Gears

STORED = "perturb_processed.h5ad"
FILES = [{"name": STORED, "urls": ["https://example.org/file"]}]


@pytest.fixture(autouse=True)
def _home(fresh_home: Path) -> None:
    """Imports go to a store of their own."""


def reader(folder: Path, data: bytes, **options: Any) -> Gears:
    (folder / STORED).write_bytes(data)
    return Gears("mini", FILES, options.pop("context", "K562"), root=str(folder), **options)


def test_labels_in_both_orders_are_one_perturbation_in_the_right_line(tmp_path: Path) -> None:
    made = reader(tmp_path, processed(NORMAN, "A549", counts_layer=True), entity_type="gene")
    assert made.check()[0] == f"{12 * (len(NORMAN) + 1)} cells x {len(GENES)} genes, lognorm"
    data = made.load()
    pairs = {tuple(sorted(label.split("+"))) for label in NORMAN[-3:-1]}
    assert set(data.entities) == {(gene,) for gene in GENES[:5]} | pairs | {("RHOXF2BB",)}
    assert data.contexts == ("K562",)
    assert data.meta["scale"] == "lognorm"
    n_cells = dict(zip(data.entities, data.n_cells.tolist(), strict=True))
    assert n_cells[GENES[0],] == 24
    assert n_cells[GENES[1],] == 12
    told = "\n".join(data.meta["import_report"])
    assert "cell_type reads A549 in every cell; the study used K562" in told
    both = f"{GENES[0]}+ctrl = ctrl+{GENES[0]}"
    assert f"perturbations under labels in both orders, joined: 1 ({both})" in told
    assert tuple(data.genes) == GENES, "names are those of gene_name, not the Ensembl index"


def test_effects_are_differences_of_the_values_as_they_are(tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipes": {"gears": {}}, "controls": "shared", "matching": "pooled"}
    data = reader(tmp_path, processed(OTHER, "K562"), entity_type="gene", recipe="gears", **options).load()
    counts, labels = cells((*OTHER, "ctrl"))
    values, names = log_normalised(counts).astype(float), np.array(labels)
    for i, (gene,) in enumerate(data.entities):
        expected = values[names == f"{gene}+ctrl"].mean(axis=0) - values[names == "ctrl"].mean(axis=0)
        np.testing.assert_allclose(data.effects[i], expected, atol=2e-6)
    assert data.meta["recipe"] == "gears"
    assert not any("cell_type reads" in line for line in data.meta["import_report"])


def test_the_context_is_part_of_the_key(tmp_path: Path) -> None:
    data = processed(OTHER, "K562")
    assert reader(tmp_path, data).load().contexts == ("K562",)
    assert reader(tmp_path, data, context="RPE1").load().contexts == ("RPE1",)


def test_archives_and_bare_files_give_the_same(tmp_path: Path) -> None:
    served = archive("norman", NORMAN, "A549")["norman.zip"]
    raw = [{"name": "norman.zip", "urls": ["https://example.org/1"], "unpack": [f"norman/{STORED}"]}]
    found = []
    for place, body in (("zip", served), ("bare", processed(NORMAN, "A549"))):
        (tmp_path / place / "mirror").mkdir(parents=True)
        (tmp_path / place / "mirror" / "norman.zip").write_bytes(body)
        mirror = str(tmp_path / place / "mirror")
        told: dict[str, Any] = {"say": str, "progress": lambda *_: None}
        bring("mini", tmp_path / place / "out", records(raw), licence="", mirror=mirror, **told)
        found.append(Gears("mini", raw, "K562", root=str(tmp_path / place / "out")).load())
    np.testing.assert_array_equal(found[0].effects, found[1].effects)


def mangled(**change: Any) -> bytes:
    counts, labels = cells(OTHER)
    X = counts if change.get("counts") else log_normalised(counts)
    if change.get("scaled"):
        X = X - X.mean(axis=0)
    obs = {"condition": labels, "cell_type": change.get("lines", ["K562"] * len(labels))}
    if change.get("control"):
        obs["condition"] = [label.replace("ctrl", change["control"]) for label in labels]
    var = {} if change.get("nameless") else {"gene_name": GENES}
    return h5ad(X, obs, var, ENSEMBL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": True}, "mini: expected lognorm as published, found counts"),
        ({"scaled": True}, "negative values"),
        ({"nameless": True}, "expected the column gene_name for gene_key"),
        ({"control": "nothing"}, "expected the control 'ctrl'"),
        ({"lines": ["K562", "RPE1"] * 36}, "expected one cell line in 'cell_type', as published, found 2"),
    ],
)
def test_other_files_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    made = reader(tmp_path, mangled(**change))
    with pytest.raises(UserError, match=message):
        made.check()


def test_a_file_without_cell_type_and_a_context_of_none(tmp_path: Path) -> None:
    counts, labels = cells(OTHER)
    data = h5ad(log_normalised(counts), {"condition": labels}, {"gene_name": GENES}, ENSEMBL)
    assert reader(tmp_path, data).load().contexts == ("K562",)
    with pytest.raises(ValueError, match="context must name the cell line"):
        Gears("mini", FILES, "")


def test_a_screen_that_is_not_fetched_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="embbench data fetch mini"):
        Gears("mini", FILES, "K562", root=str(tmp_path)).load()
