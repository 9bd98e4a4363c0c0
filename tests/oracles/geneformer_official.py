"""Cell and gene vectors by transformers' own ``BertForMaskedLM``: an oracle of the Geneformer extractor.

Written with transformers 5.23.0, safetensors 0.8.0, torch 2.13.0, numpy 2.4.6 (Python 3.11, CPU). To run it again, from
the root of the repository (``make oracles`` does it for all scripts):

    python3.11 -m venv .oracles/geneformer
    .oracles/geneformer/bin/pip install -c constraints/cpu.txt torch numpy transformers==5.23.0 safetensors
    PYTHONPATH=tests .oracles/geneformer/bin/python -m oracles.geneformer_official

The package ``geneformer`` is not on PyPI; the tokeniser is written here from the rule of its ``tokenizer.py``
(Apache-2.0): count / total * 1e4 / median, descending, at most ``max_position_embeddings`` tokens; V2 first adds up
columns whose upper-cased names are aliases of one gene, and puts ``<cls>`` before and ``<eos>`` after. Where values
tie (V1 only: medians repeat) the order is that of the data's columns (the official quicksort leaves it open). One cell
at a time, attention "eager".

It writes tests/oracles/expected/geneformer_official_v1.npz and _v2.npz (130 genes; v2 cuts at 48 genes), and, where the
published dictionaries are found (folder ``shared/data/vocab`` beside the repository), _real_v1.npz and _real_v2.npz:

``token_ids`` (cells, tokens; padded with 0); ``cell_layers`` (layers + 1, cells, d): mean over gene tokens, special
tokens excluded, 0 = embedding output, -2 = official ``emb_layer=-1``; ``gene_names`` (model's identifiers),
``gene_mean_layers`` (layers + 1, genes, d; NaN where no cell has it) and ``gene_count``; ``cls_layers`` (v2);
``static`` (genes, d): word embeddings; ``counts`` (cells, genes of the data), ``data_genes``; ``versions``; ``digest``
of the parameters.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from oracles import _recipe, _write_geneformer

VERSION = "5.23.0"
VOCABULARIES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "vocab"
CLOSE = 5e-6


def collapse(
    matrix: np.ndarray, names: np.ndarray, words: _write_geneformer.Dictionaries
) -> tuple[np.ndarray, list[str]]:
    """Counts by model identifier: aliases added up (v2), unknown columns left out, order of first appearance."""
    columns: dict[str, np.ndarray] = {}
    for j, name in enumerate(names):
        gene = words.aliases.get(str(name).upper()) if words.aliases else str(name)
        if gene in words.tokens and gene in words.medians:
            columns[gene] = columns.get(gene, np.zeros(len(matrix), np.int64)) + matrix[:, j]
    return np.stack(list(columns.values()), axis=1), list(columns)


def sentences(
    matrix: np.ndarray,
    names: np.ndarray,
    words: _write_geneformer.Dictionaries,
    shape: _write_geneformer.Shape,
    *,
    unique: bool = True,
) -> tuple[list[list[int]], list[str]]:
    """Token ids of each cell, and the genes of the data that the model knows; ``unique``: refuse ties of v2."""
    values, genes = collapse(matrix, names, words)
    tokens = np.array([words.tokens[gene] for gene in genes])
    medians = np.array([words.medians[gene] for gene in genes], dtype=np.float64)
    special = shape.version == "v2"
    out = []
    for row, total in zip(values, matrix.sum(axis=1), strict=True):
        scaled = row / total * 10_000 / medians
        there = np.flatnonzero(scaled)
        ranked = tokens[there][np.argsort(-scaled[there], kind="stable")].tolist()
        kept = ranked[: shape.positions - 2 * special]
        out.append([words.tokens["<cls>"], *kept, words.tokens["<eos>"]] if special else kept)
        ordered = np.sort(scaled[there])
        if unique and special and (np.diff(ordered) < 1e-9 * ordered[1:]).any():
            sys.exit("two values of a cell tie; choose another seed")
    return out, genes


def run(
    folder: Path,
    matrix: np.ndarray,
    names: np.ndarray,
    words: _write_geneformer.Dictionaries,
    shape: _write_geneformer.Shape,
) -> dict[str, np.ndarray]:
    """All outputs of a checkpoint."""
    from transformers import BertForMaskedLM

    model = BertForMaskedLM.from_pretrained(folder / "checkpoint", attn_implementation="eager").eval()
    cells, genes = sentences(matrix, names, words, shape)
    where = {words.tokens[gene]: j for j, gene in enumerate(genes)}
    rows = np.full((shape.layers + 1, len(cells), len(genes), shape.width), np.nan, dtype=np.float32)
    first = []
    for i, ids in enumerate(cells):
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        stack = torch.stack(hidden)[:, 0].numpy()
        for position, token in enumerate(ids):
            if token in where:
                rows[:, i, where[token]] = stack[:, position]
        first.append(stack[:, 0])
    means = [_recipe.mean_over_cells(layer) for layer in rows]
    out = {
        "token_ids": np.array([ids + [0] * (max(map(len, cells)) - len(ids)) for ids in cells]),
        "cell_layers": np.nanmean(rows, axis=2, dtype=np.float64).astype(np.float32),
        "gene_names": np.array(genes),
        "gene_mean_layers": np.stack([mean for mean, _ in means]),
        "gene_count": means[0][1],
        "static": model.bert.embeddings.word_embeddings.weight.numpy(force=True)[list(where)],
    }
    return out | ({"cls_layers": np.stack(first, axis=1)} if shape.version == "v2" else {})


def _loaded(folder: Path, shape: _write_geneformer.Shape, rows: int) -> None:
    """Stop when transformers filled in a parameter instead of taking it from the file."""
    from transformers import BertForMaskedLM

    state = BertForMaskedLM.from_pretrained(folder / "checkpoint").state_dict()
    for key, value in _write_geneformer.parameters(shape.seed, shape, rows).items():
        if not np.array_equal(state[key].numpy(), value):
            sys.exit(f"{key}: transformers did not take it from the file")


def case(
    shape: _write_geneformer.Shape,
    words: _write_geneformer.Dictionaries,
    data: tuple[np.ndarray, np.ndarray],
    *,
    check_binary: bool,
) -> dict[str, np.ndarray]:
    """All outputs of a case; the ``.bin`` form of a small case is checked to load to the same."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        digest = _write_geneformer.write_checkpoint(folder / "a", shape.seed, shape=shape, words=words)
        _loaded(folder / "a", shape, len(words.tokens))
        out = run(folder / "a", *data, words, shape)
        if check_binary:
            _write_geneformer.write_checkpoint(folder / "b", shape.seed, shape=shape, words=words, binary=True)
            again = run(folder / "b", *data, words, shape)["cell_layers"]
            if not np.allclose(again, out["cell_layers"], atol=CLOSE):
                sys.exit("pytorch_model.bin and model.safetensors give different vectors")
    if not np.isfinite(out["cell_layers"]).all():
        sys.exit("a cell without tokens")
    out |= {"counts": data[0], "data_genes": data[1]}
    versions = np.array([f"{name} {version(name)}" for name in ("transformers", "torch", "numpy", "safetensors")])
    return out | {"versions": versions, "digest": np.array(digest)}


def main() -> None:
    """Write the expected files."""
    if version("transformers") != VERSION:
        sys.exit(f"expected transformers {VERSION}, found {version('transformers')}")
    torch.set_num_threads(1)
    writer = _write_geneformer
    for shape in (writer.V1, writer.V2):
        out = case(shape, writer.dictionaries(shape), writer.counts(shape), check_binary=True)
        _recipe.say(_recipe.save(f"geneformer_official_{shape.version}", out))
    if not VOCABULARIES.is_dir():
        _recipe.say(f"no {VOCABULARIES}: the cases with the published dictionaries are left as they are")
        return
    for shape in (writer.REAL_V1, writer.REAL_V2):
        words = writer.read_dictionaries(VOCABULARIES, shape.version)
        out = case(shape, words, writer.real_counts(shape, words), check_binary=False)
        _recipe.say(_recipe.save(f"geneformer_official_real_{shape.version}", out))


if __name__ == "__main__":
    main()
