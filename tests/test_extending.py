"""docs/extending.md as it is printed: three components in a package outside embbench, checked, run and scored."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOC = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def blocks(language: str) -> dict[str, str]:
    """Code blocks of the page by the file name in their first line."""
    found = re.findall(rf"```{language}\n# (\S+)\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)
    return dict(found)


@pytest.fixture
def package(tmp_path):
    for name, text in {**blocks("python"), **blocks("yaml")}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "mypkg" / "__init__.py").touch()
    return tmp_path


def run(package, *arguments, code=0):
    env = {**os.environ, "PYTHONPATH": str(package), "EMBBENCH_HOME": str(package / "home")}
    command = [sys.executable, "-c", "from embbench.cli.main import main; main()", *arguments]
    done = subprocess.run(command, cwd=package, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_page_has_all_three(package):
    assert {"mypkg/shrunken.py", "mypkg/length.py", "mypkg/share.py", "my.yaml"} <= {
        str(p.relative_to(package)) for p in package.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize(
    ("kind", "name"),
    [("heads", "mypkg.shrunken:ShrunkenMean"), ("embeddings", "mypkg.length:Letters"), ("metrics", "direction_all")],
)
def test_contracts_hold_outside_the_package(package, kind, name):
    assert "broken" not in run(package, "check", kind, name, "--registry", "my.yaml")


def test_they_cross_with_everything(package):
    out = run(
        package,
        "grid",
        "--registry",
        "my.yaml",
        "--dataset",
        "sim_small",
        "--emb",
        "letters",
        "--head",
        "shrunken_mean,knn",
        "--metrics",
        "direction_top20",
        "--permutations",
        "1",
        "--out",
        "results",
    )
    assert "shrunken_mean" in out
    assert "letters" in out
    table = (package / "results" / "leaderboard.csv").read_text()
    assert "direction_top20" in table
    assert "permuted:letters" in table
