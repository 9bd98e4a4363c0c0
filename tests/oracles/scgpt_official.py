"""Cell and gene vectors by the official scGPT 0.2.4: an oracle of the scGPT extractor.

Written with scgpt 0.2.4, torch 2.13.0, numpy 2.4.6, anndata 0.12.19, scanpy 1.11.5 (Python 3.11, CPU). To run it again,
from the root of the repository (``make oracles`` does it for all scripts):

    python3.11 -m venv .oracles/scgpt
    .oracles/scgpt/bin/pip install -c constraints/cpu.txt torch numpy "pandas<3" scipy anndata==0.12.19 scanpy==1.11.5 \
        matplotlib seaborn scikit-learn tqdm numba ipython networkx statsmodels
    .oracles/scgpt/bin/pip install -c constraints/cpu.txt --no-deps scgpt==0.2.4
    PYTHONPATH=tests .oracles/scgpt/bin/python -m oracles.scgpt_official

torchtext (dead for torch >= 2.4) and datasets (training only) are stubbed. The random choice that the official binning
makes between repeated quantile edges is fixed by patching ``numpy.random.rand``: ``up`` u = 0 (the right-hand edge),
``mid`` u = 0.5, ``low`` u = 1 - 1e-9. Cell vectors: ``scgpt.tasks.embed_data`` end to end. Gene vectors:
``TransformerModel._encode`` on the batches of the official ``DataCollator``, one cell at a time and (checked: at most
5e-6 apart) in padded batches. The official code fails on a cell without any known gene, so there is none.

It writes tests/oracles/expected/scgpt_official.npz (case small, ``in_proj`` keys; ``Wqkv`` keys are checked to give the
same) and scgpt_official_census.npz (the 60,697 tokens of the published whole-human model):

``cell_<rule>`` (cells, d), L2-normalised; ``gene_names``, ``gene_mean_<rule>`` (genes, d; NaN where no cell has it) and
``gene_count``: mean over the cells that express the gene; ``layers_cell`` (layers + 1, cells, d, not normalised) and
``layers_gene_mean`` (layers + 1, genes, d), rule up, 0 = input embedding; ``token_values`` (cells, tokens; bins, rule
up, padded) and ``token_ids``; ``static_names``, ``static``: ``model.encoder(ids)``;
``counts`` (cells, genes of the data) and ``data_genes``; ``versions``; ``digest`` of the parameters.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oracles import _recipe, _stubs, _write_scgpt

VERSION = "0.2.4"
RULES = {"up": 0.0, "mid": 0.5, "low": 1.0 - 1e-9}
CLOSE = 5e-6


@contextmanager
def tie_rule(u: float) -> Iterator[None]:
    """Every draw of ``numpy.random.rand`` is ``u``; workers are forked, so they see it too."""
    original = np.random.rand  # what the official code calls
    np.random.rand = lambda *shape: np.full(shape, u)
    try:
        yield
    finally:
        np.random.rand = original


def official_model(folder: Path, *, strict: bool = True) -> tuple[Any, Any, dict[str, Any]]:
    """The official model of a folder, built as ``embed_data`` does, with its vocabulary and arguments."""
    from scgpt.model import TransformerModel
    from scgpt.tokenizer import GeneVocab
    from scgpt.utils import load_pretrained

    arguments = json.loads((folder / "args.json").read_text())
    vocab = GeneVocab.from_file(folder / "vocab.json")
    for token in _write_scgpt.SPECIAL:
        if token not in vocab:
            vocab.append_token(token)
    sizes = {name: arguments[key] for name, key in (("d_model", "embsize"), ("nhead", "nheads"), ("d_hid", "d_hid"))}
    model = TransformerModel(
        ntoken=len(vocab),
        nlayers=arguments["nlayers"],
        nlayers_cls=arguments["n_layers_cls"],
        n_cls=1,
        vocab=vocab,
        dropout=arguments["dropout"],
        pad_token=arguments["pad_token"],
        pad_value=arguments["pad_value"],
        do_mvc=True,
        use_fast_transformer=False,
        **sizes,
    )
    load_pretrained(model, torch.load(folder / "best_model.pt", weights_only=True), strict=strict, verbose=False)
    return model.eval(), vocab, arguments


def sentences(matrix: np.ndarray, names: np.ndarray, vocab: Any, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """What the dataset inside ``get_batch_cell_embeddings`` yields: ``<cls>``, then the expressed known genes."""
    known = [j for j, name in enumerate(names) if name in vocab]
    ids = np.array([vocab[names[j]] for j in known])
    out = []
    for row in matrix[:, known]:
        there = np.flatnonzero(row)
        genes = torch.from_numpy(np.insert(ids[there], 0, vocab["<cls>"])).long()
        values = torch.from_numpy(np.insert(row[there].astype(np.float32), 0, arguments["pad_value"]))
        out.append({"genes": genes, "expressions": values})
    return out


def batches(examples: list[dict[str, Any]], size: int, vocab: Any, arguments: dict[str, Any]) -> Iterator[Any]:
    """Batches of the official collator: binned, padded to their own maximum, ids and values."""
    from scgpt.data_collator import DataCollator

    collate = DataCollator(
        do_padding=True,
        pad_token_id=vocab[arguments["pad_token"]],
        pad_value=arguments["pad_value"],
        do_mlm=False,
        do_binning=True,
        max_length=1200,
        sampling=True,
        keep_first_n_tokens=1,
    )
    for start in range(0, len(examples), size):
        part = [{key: value.clone() for key, value in one.items()} for one in examples[start : start + size]]
        batch = collate(part)
        yield batch["gene"], batch["expr"]


def encode(model: Any, examples: list[dict[str, Any]], size: int, vocab: Any, arguments: dict[str, Any]) -> Any:
    """Rows of shape (cells, tokens of the vocabulary, d), NaN where absent, ids and values of each cell."""
    rows = np.full((len(examples), len(vocab), arguments["embsize"]), np.nan, dtype=np.float32)
    tokens, cell = [], 0
    pad = vocab[arguments["pad_token"]]
    with torch.no_grad():
        for ids, values in batches(examples, size, vocab, arguments):
            out = model._encode(ids, values, src_key_padding_mask=ids.eq(pad)).numpy()
            for i in range(len(ids)):
                kept = ids[i].ne(pad).numpy()
                rows[cell, ids[i].numpy()[kept]] = out[i][kept]
                tokens.append((ids[i].numpy()[kept], values[i].numpy()[kept]))
                cell += 1
    return rows, tokens


def embed_data(folder: Path, matrix: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Cell vectors of the official function, end to end."""
    import anndata
    import pandas as pd
    from scgpt.tasks import embed_data as official

    cells = anndata.AnnData(matrix.astype(np.float32), var=pd.DataFrame({"feature_name": names}, index=names))
    out = official(cells, folder, gene_col="feature_name", batch_size=4, device="cpu", use_fast_transformer=False)
    return np.asarray(out.obsm["X_scGPT"], dtype=np.float32)


def layer_rows(model: Any, examples: list[dict[str, Any]], vocab: Any, arguments: dict[str, Any]) -> list[np.ndarray]:
    """Rows after 0, 1, ..., L layers: the official model with its later layers taken off."""
    stack, out = model.transformer_encoder, []
    layers, forward = list(stack.layers), stack.forward
    for n in range(len(layers) + 1):
        stack.layers = torch.nn.ModuleList(layers[:n] or layers)
        stack.forward = forward if n else (lambda x, **_: x)
        out.append(encode(model, examples, 1, vocab, arguments)[0])
    return out


def near(left: np.ndarray, right: np.ndarray, what: str) -> None:
    """Stop when two official routes disagree."""
    apart = float(np.nanmax(np.abs(left - right)))
    _recipe.say(f"{what}: {apart:.1e}")
    if not apart <= CLOSE or (np.isnan(left) != np.isnan(right)).any():
        sys.exit(f"{what}: expected at most {CLOSE}, found {apart}")


def run(folder: Path, matrix: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    """All official outputs of a checkpoint folder."""
    model, vocab, arguments = official_model(folder)
    genes = np.array([name for name in names if name in vocab])
    ids = np.array([vocab[name] for name in genes])
    examples = sentences(matrix, names, vocab, arguments)
    out: dict[str, np.ndarray] = {"gene_names": genes, "counts": matrix, "data_genes": names}
    for rule, u in RULES.items():
        with tie_rule(u):
            rows, tokens = encode(model, examples, 1, vocab, arguments)
            near(encode(model, examples, 4, vocab, arguments)[0], rows, f"{rule}: batches of 4 against one cell")
            out[f"cell_{rule}"] = embed_data(folder, matrix, names)
            cls = rows[:, vocab["<cls>"]]
            near(out[f"cell_{rule}"], cls / np.linalg.norm(cls, axis=1, keepdims=True), f"{rule}: embed_data")
            out[f"gene_mean_{rule}"], out["gene_count"] = _recipe.mean_over_cells(rows[:, ids])
            if rule == "up":
                out |= _padded(tokens, vocab["<pad>"], arguments["pad_value"])
                layers = layer_rows(official_model(folder)[0], examples, vocab, arguments)
                near(layers[-1], rows, "all layers")
                out["layers_cell"] = np.stack([layer[:, vocab["<cls>"]] for layer in layers])
                out["layers_gene_mean"] = np.stack([_recipe.mean_over_cells(layer[:, ids])[0] for layer in layers])
    with torch.no_grad():
        out["static"] = model.encoder(torch.from_numpy(ids)).numpy()
    return out | {"static_names": genes, "versions": versions()}


def _padded(tokens: list[tuple[np.ndarray, np.ndarray]], pad: int, value: float) -> dict[str, np.ndarray]:
    longest = max(len(ids) for ids, _ in tokens)
    ids = np.full((len(tokens), longest), pad, dtype=np.int64)
    values = np.full((len(tokens), longest), value, dtype=np.float32)
    for i, (row, numbers) in enumerate(tokens):
        ids[i, : len(row)], values[i, : len(row)] = row, numbers
    return {"token_ids": ids, "token_values": values}


def versions() -> np.ndarray:
    """Names and versions of what computed the numbers."""
    return np.array([f"{name} {version(name)}" for name in ("scgpt", "torch", "numpy", "anndata", "scanpy")])


def main() -> None:
    """Write both expected files."""
    if version("scgpt") != VERSION:
        sys.exit(f"expected scgpt {VERSION}, found {version('scgpt')}")
    torch.set_num_threads(1)
    _stubs.stub_scgpt()
    import scgpt

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        digest = _write_scgpt.write_checkpoint(folder / "small")
        out = run(folder / "small", *_write_scgpt.counts())
        _write_scgpt.write_checkpoint(folder / "Wqkv", layout="Wqkv")
        with tie_rule(RULES["up"]):
            near(embed_data(folder / "Wqkv", *_write_scgpt.counts()), out["cell_up"], "Wqkv keys")
        _recipe.say(_recipe.save("scgpt_official", out | {"digest": np.array(digest)}))
        shipped = Path(scgpt.__file__).parent / "tokenizer" / "default_census_vocab.json"
        tokens = _write_scgpt.census_tokens(json.loads(shipped.read_text()))
        shape = _write_scgpt.CENSUS
        digest = _write_scgpt.write_checkpoint(folder / "census", shape.seed, tokens=tokens, shape=shape, layout="Wqkv")
        out = run(folder / "census", *_write_scgpt.census_counts())
        _recipe.say(_recipe.save("scgpt_official_census", out | {"digest": np.array(digest)}))


if __name__ == "__main__":
    main()
