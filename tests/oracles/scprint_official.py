"""Cell and gene vectors by the official scPRINT 2.3.8: an oracle of the scPRINT extractor.

Written with scprint 2.3.8, simpler-flash 1.0.7, lightning 2.6.6, torch 2.13.0, numpy 2.4.6 (Python 3.11, CPU). To run
it again, from the root of the repository (``make oracles`` does it for all scripts):

    python3.11 -m venv .oracles/scprint
    .oracles/scprint/bin/pip install -c constraints/cpu.txt torch numpy "pandas<3" scipy anndata scanpy scikit-learn \
        lightning==2.6.6 torchmetrics einops huggingface_hub ipython
    .oracles/scprint/bin/pip install -c constraints/cpu.txt --no-deps scprint==2.3.8 simpler-flash==1.0.7
    PYTHONPATH=tests .oracles/scprint/bin/python -m oracles.scprint_official

What scprint imports and this does not need (torchvision, scdataloader, lamindb, ...) is stubbed. The model is loaded by
``scPrint.load_from_checkpoint(..., precpt_gene_emb=None, transformer="normal")``; every cell is its own batch; float32
(the official extraction runs under fp16 autocast), no masking. Depth is the total count of the full cell, before genes
are chosen. A sequence holds the model's genes in the model's order, absent ones with count 0.

It writes tests/oracles/expected/scprint_official.npz (6 heads, normalization sum), scprint_official_log.npz
(normalization log, no depth token, three-layer value encoder, an empty cell) and scprint_official_grouped.npz (two
key-value heads for four), each for all genes and, prefix ``subset_``, for 45 of them:

``cell``: mean of the tokens of ``pred_embedding`` (official ``_predict(...)["embs"]``); ``cell_all_classes``: the same
of all classes; ``cell_embs`` (cells, tokens, d); ``gene_names``, ``gene_mean`` over all cells, ``gene_mean_expressed``
over cells with a count (NaN where none) and ``gene_count``; and once ``depth``, ``static`` (all genes), ``counts``
(cells, genes of the data), ``data_genes``, ``versions`` and ``digest`` of the parameters.
The older key ``gene_encoder.embedding.weight`` is checked to load to the same numbers.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oracles import _recipe, _stubs, _write_scprint

VERSIONS = {"scprint": "2.3.8", "simpler-flash": "1.0.7"}


def official_model(path: Path) -> Any:
    """The official model of a checkpoint, on the CPU, in evaluation mode."""
    from scprint import scPrint

    return scPrint.load_from_checkpoint(
        path, precpt_gene_emb=None, transformer="normal", map_location="cpu", weights_only=False
    ).eval()


def sequence(matrix: np.ndarray, names: np.ndarray, genes: tuple[str, ...]) -> np.ndarray:
    """Counts of shape (cells, genes of the sequence), float32, zero where the data lack the gene."""
    where = {name: j for j, name in enumerate(names)}
    out = np.zeros((len(matrix), len(genes)), dtype=np.float32)
    for j, gene in enumerate(genes):
        if gene in where:
            out[:, j] = matrix[:, where[gene]]
    return out


def run(model: Any, matrix: np.ndarray, names: np.ndarray, genes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Official outputs for a sequence of genes, one cell at a time."""
    expression = sequence(matrix, names, genes)
    depth = matrix.sum(axis=1).astype(np.float32)
    position = torch.tensor([[model.genes.index(gene) for gene in genes]])
    rows, tokens, chosen, every = [], [], [], []
    for x, total in zip(torch.from_numpy(expression), torch.from_numpy(depth), strict=True):
        x, total = x[None], total[None]
        with torch.no_grad():
            out = model(position, x, req_depth=total, depth_mult=x.sum(1), get_gene_emb=True, do_class=True)
            rows.append(out["gene_embedding"][0].numpy().copy())
            tokens.append(out["cell_embs"][0].numpy().copy())
            for kept, wanted in ((chosen, model.pred_embedding), (every, [])):
                found = model._predict(position, x, total, pred_embedding=wanted, keep_output=False)
                kept.append(found["embs"][0].numpy().copy())
    vectors = np.stack(rows)
    present = np.where((expression > 0)[..., None], vectors, np.nan)
    return {
        "cell": np.stack(chosen),
        "cell_all_classes": np.stack(every),
        "cell_embs": np.stack(tokens),
        "gene_names": np.array(genes),
        "gene_mean": vectors.mean(axis=0, dtype=np.float64).astype(np.float32),
        "gene_mean_expressed": _recipe.mean_over_cells(present)[0],
        "gene_count": (expression > 0).sum(axis=0),
    }


def case(folder: Path, shape: _write_scprint.Shape) -> dict[str, np.ndarray]:
    """All outputs of a case."""
    digest = _write_scprint.write_checkpoint(folder / "new", shape.seed, shape=shape)
    _write_scprint.write_checkpoint(folder / "old", shape.seed, shape=shape, names="old")
    model, old = (official_model(folder / name / "tiny.ckpt") for name in ("new", "old"))
    state = _write_scprint.parameters(shape.seed, shape)
    for key, value in model.state_dict().items():  # a loader that skipped a key would give other numbers in silence
        if not np.array_equal(value.numpy(), state[key]) or not torch.equal(value, old.state_dict()[key]):
            sys.exit(f"{key}: the official loader did not take it from the file")
    matrix, names = _write_scprint.counts(shape)
    out = run(model, matrix, names, _write_scprint.GENES)
    subset = run(model, matrix, names, _write_scprint.SUBSET)
    out |= {f"subset_{key}": value for key, value in subset.items()}
    means = ("gene_mean_expressed", "subset_gene_mean_expressed")  # NaN for genes without a count
    numbers = {key: value for key, value in out.items() if value.dtype.kind == "f" and key not in means}
    if bad := [key for key, value in numbers.items() if not np.isfinite(value).all()]:
        sys.exit(f"not finite: {bad}")
    versions = np.array([f"{name} {version(name)}" for name in (*VERSIONS, "lightning", "torch", "numpy")])
    static = model.gene_encoder.embeddings.weight.numpy(force=True)
    out |= {"depth": matrix.sum(axis=1).astype(np.float32), "static": static}
    out |= {"counts": matrix, "data_genes": names}
    return out | {"versions": versions, "digest": np.array(digest)}


def main() -> None:
    """Write the three expected files."""
    for name, wanted in VERSIONS.items():
        if version(name) != wanted:
            sys.exit(f"expected {name} {wanted}, found {version(name)}")
    torch.set_num_threads(1)
    _stubs.stub_scprint()
    cases = {"": _write_scprint.SMALL, "_log": _write_scprint.LOG, "_grouped": _write_scprint.GROUPED}
    for suffix, shape in cases.items():
        with tempfile.TemporaryDirectory() as temporary:
            _recipe.say(_recipe.save(f"scprint_official{suffix}", case(Path(temporary), shape)))


if __name__ == "__main__":
    main()
