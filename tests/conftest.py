"""Settings and fixtures of all tests: one thread, a home of their own, the shared real data where it exists."""

from __future__ import annotations

import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"):
    os.environ.setdefault(_name, "1")  # before numpy and torch start their pools

import pytest  # noqa: E402

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))  # tests/components is imported as ``components``


@pytest.fixture(scope="session")
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One EMBBENCH_HOME for the whole run, so that tests share extracted embeddings."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _own_home(session_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBBENCH_HOME", str(session_home))


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty EMBBENCH_HOME for this test alone."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("EMBBENCH_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared real data beside the repository; absent: skip."""
    folder = HERE.parents[1] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared real data is not beside this checkout")
    return folder
