"""The grids that ship are data: each is read, planned and holds what its comment promises."""

from pathlib import Path

import pytest

from embbench.grid.config import read_grid
from embbench.grid.plan import plan

FILES = sorted((Path(__file__).resolve().parents[1] / "grids").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_grid_file_plans(path):
    planned = plan(read_grid(path))
    assert planned
    assert len({p.key for p in planned}) == len(planned)
    assert not [p.reason for p in planned if p.reason]


def test_the_demo_is_a_real_crossing():
    grid = read_grid(FILES[0].with_name("demo.yaml"))
    assert len(grid.emb) >= 6
    assert len(grid.head) >= 5
    assert set(grid.dataset) == {"sim_demo", "sim_null"}
    kang = read_grid(FILES[0].with_name("demo_kang18.yaml"))
    assert {"no_change", "perturbation_mean", "nearest_context", "knn", "ridge"} <= set(kang.head)
