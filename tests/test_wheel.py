"""The built wheel holds every file of the package and nothing else, and works where it is unpacked."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from _source import PACKAGE, ROOT

pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def package_files() -> set[str]:
    """Every file below embbench/, except what Python writes there."""
    paths = (p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(ROOT).as_posix() for p in paths}


def test_every_file_is_in_the_wheel(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("embbench/")}
    assert {"embbench/core/heads.py", "embbench/cache/store.py", "embbench/data/ppi.tsv.gz"} <= inside
    assert package_files() == inside


def test_nothing_else_lands_in_site_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"embbench"}


def test_licences_travel_along(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(n.endswith("licenses/LICENSE") for n in names)
    for licence in (PACKAGE / "data" / "licences").iterdir():
        assert any(n.endswith(f"licenses/embbench/data/licences/{licence.name}") for n in names)


def test_the_unpacked_wheel_works(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import embbench, embbench.checks\n"
        "from embbench.registry import default\n"
        "print(embbench.__file__)\n"
        "print(len(default().entries()), all(e.summary() for e in default().entries()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where, counts = done.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path / "site")
    assert int(counts.split()[0]) > 50
    assert counts.endswith("True")
