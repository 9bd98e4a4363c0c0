"""docs/extending.md as it is printed: components in a package outside embbench, checked, run and scored."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
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


HUB = "## A gene model from the Hugging Face hub"


def commands(heading):
    """Lines of the section's blocks without a language, as argument lists."""
    section = DOC.read_text(encoding="utf-8").partition(heading)[2].partition("\n## ")[0]
    found = re.findall(r"^```(\w*)\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)
    (block,) = [text for language, text in found if not language]
    return [shlex.split(line) for line in block.splitlines()]


def test_a_gene_model_is_checked_and_extracted(package):
    """The section's commands, line by line."""
    script, *rest = commands(HUB)
    assert script[0] == "python"
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, *script[1:]], cwd=package, env=env, check=True, capture_output=True, timeout=300)
    assert [line[:2] for line in rest] == [["embbench", "check"], ["embbench", "extract"]]
    checked, extracted = (run(package, *line[1:]) for line in rest)
    assert "broken" not in checked
    assert "embedding_ignores_the_order_of_cells" in checked
    vectors, width = re.search(r"gene-bert\S*\s+(\d+)\s+(\d+)\s+gene\b", extracted).groups()
    assert int(vectors) > 5  # of the 30 perturbed genes: the others are made up, or not measured
    assert int(width) == 16


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
def test_the_gene_model_is_the_official_one(package, monkeypatch, kind):
    """Rows, cell vectors and layers against transformers, for both forms in which such folders are published."""
    import torch
    import transformers

    from embbench.embeddings.models._run import Batch

    monkeypatch.syspath_prepend(str(package))
    for name in [name for name in sys.modules if name.split(".")[0] == "mypkg"]:
        monkeypatch.delitem(sys.modules, name)
    sizes = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 20}
    official = getattr(transformers, kind)(transformers.BertConfig(vocab_size=9, layer_norm_eps=1e-3, **sizes)).eval()
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in official.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=stream) * 0.4)
    official.save_pretrained(package / "bert")
    (package / "bert" / "vocab.json").write_text(
        json.dumps({n: i for i, n in enumerate(["<pad>", "<cls>", *"ABCDEFG"])})
    )
    network = importlib.import_module("mypkg.gene_bert").GeneBert(str(package / "bert")).network()

    token = torch.tensor([[1, 4, 2, 8], [1, 3, 0, 0]])
    real = torch.tensor([[True] * 4, [True, True, False, False]])
    states = official(token, attention_mask=real.long(), output_hidden_states=True).hidden_states
    assert network.layers == 3
    for layer, state in enumerate(states):
        rows, cell = network.forward(Batch((token,), torch.empty(2, 0), real), layer)
        assert torch.allclose(rows[real], state[real], atol=1e-5)
        assert torch.allclose(cell, state[:, 0], atol=1e-5)
    words = official.get_input_embeddings().weight
    assert torch.equal(network.static(), words[np.arange(2, 9)])
