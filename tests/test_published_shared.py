"""The shared real files go through the readers of published files where they match, to the screens that tests know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embbench.datasets.anndata_file import AnnDataFile
from embbench.datasets.cells_file import CellsFile
from embbench.datasets.table import ConditionTable

pytestmark = pytest.mark.shared


def linked(folder: Path, shared: Path, name: str) -> str:
    """A folder of its own, which may be written to, with the shared file in it."""
    (folder / name).symlink_to(shared / "expression" / name)
    return str(folder)


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "papalexi21": (
        "papalexi2021_eccite_lowmoi_299genes.h5ad",
        {"control": ["non-targeting", "control"], "batch_key": ["bio_rep", "replicate", None], "entity_type": "gene"},
        {"control": "non-targeting", "batch_key": "bio_rep", "entity_type": "gene"},
    ),
    "kang18": (
        "kang2018_pbmc_ifnb_1000hvg_counts.h5ad",
        {
            "control": "control",
            "context_keys": [["cell_type", "celltype"]],
            "size_factor": ["n_counts", None],
            "batch_key": ["replicate", None],
        },
        {"control": "control", "context_keys": ["celltype"], "size_factor": "n_counts"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_reader_gives_the_screen_of_the_plain_import(name: str, shared_data: Path, tmp_path: Path) -> None:
    file, published, plain = CASES[name]
    root = linked(tmp_path, shared_data, file)
    reader = CellsFile(name, [{"name": file}], root=root, cells="none", etest=False, **published)
    assert reader.check()[0].endswith("counts")
    data = reader.load()
    known = AnnDataFile(
        str(shared_data / "expression" / file), "perturbation", cells="none", etest=False, **plain
    ).load()
    assert (data.conditions, data.contexts) == (known.conditions, known.contexts)
    np.testing.assert_array_equal(data.effects, known.effects)
    np.testing.assert_array_equal(data.truth, known.truth)


@pytest.mark.parametrize(
    ("file", "context"),
    [
        ("op3_neurips2023_rankscores_135drugs_4celltypes.h5ad", "cell_type"),
        ("tahoe_rankscores_10lines.h5ad", "cell_type"),
    ],
)
def test_tables_of_scores_are_condition_tables(file: str, context: str, shared_data: Path) -> None:
    path = shared_data / "expression" / file
    import anndata

    keys = anndata.read_h5ad(path, backed="r").obs.columns
    key = context if context in keys else "cell_line"
    data = ConditionTable(str(path), "rank_score", context_key=key, entity_type="compound").load()
    assert data.unit == "rank_score"
    assert len(data.contexts) > 1
