"""Cell and gene vectors by the official TranscriptFormer 0.6.1: an oracle of the TranscriptFormer extractor.

Written with transcriptformer 0.6.1, pytorch_lightning 2.6.6, torch 2.13.0, numpy 2.4.6, anndata 0.12.19 (Python 3.11,
CPU). To run it again, from the root of the repository (``make oracles`` does it for all scripts):

    python3.11 -m venv .oracles/transcriptformer
    .oracles/transcriptformer/bin/pip install -c constraints/cpu.txt torch numpy "pandas<3" scipy anndata==0.12.19 \
        scanpy h5py psutil pytorch_lightning==2.6.6 omegaconf hydra-core
    .oracles/transcriptformer/bin/pip install -c constraints/cpu.txt --no-deps transcriptformer==0.6.1
    PYTHONPATH=tests .oracles/transcriptformer/bin/python -m oracles.transcriptformer_official

``run_inference`` end to end, precision 32, ``compile_block_mask`` False, for ``emb_type`` cell and cge; batches of 1
and (checked: at most 5e-6 apart) of 4.

It writes tests/oracles/expected/transcriptformer_official.npz (case SMALL: assay tokens, one unknown; seq_len 63, which
cuts a cell) and transcriptformer_official_plain.npz (no assay, seq_len 256, clip 9, softcap 6). The last cell is empty:

``cell`` (cells, d): sum over kept rows / full padded length; ``gene_names`` (order of the data), ``gene_mean`` (NaN
where no cell gives the gene a vector) and ``gene_count``: mean over the cells that do; ``gene_first`` (genes, d): the
vectors of cell 0; ``static_names``, ``static``: ``model.gene_embeddings(ids)``; ``counts`` (cells, genes of
the data), ``data_genes``, ``assays``; ``versions``; ``digest`` of the parameters.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oracles import _recipe, _write_transcriptformer

VERSION = "0.6.1"
CLOSE = 5e-6


def infer(folder: Path, cells: Any, kind: str, batch: int) -> Any:
    """The AnnData that the official ``run_inference`` returns; ``kind`` is cell or cge."""
    from omegaconf import OmegaConf
    from transcriptformer.model.inference import run_inference

    cfg = OmegaConf.create(json.loads((folder / "config.json").read_text()))
    inference, data = cfg.model.inference_config, cfg.model.data_config
    inference.load_checkpoint = str(folder / "model_weights.pt")
    inference.update({"emb_type": kind, "batch_size": batch, "precision": "32", "device": "cpu"})
    data.aux_vocab_path = data.esm2_mappings_path = str(folder / "vocabs")
    return run_inference(cfg, [cells.copy()])


def gene_vectors(out: Any, names: np.ndarray, cells: int, width: int) -> np.ndarray:
    """Contextual vectors of shape (cells, genes, d), NaN where the official code gives none."""
    rows = np.full((cells, len(names), width), np.nan, dtype=np.float32)
    where = {name: j for j, name in enumerate(names)}
    genes, indices = out.uns["cge_gene_names"], out.uns["cge_cell_indices"]
    for cell, gene, vector in zip(indices, genes, out.uns["cge_embeddings"], strict=True):
        rows[cell, where[gene]] = vector
    return rows


def static(folder: Path, genes: np.ndarray) -> np.ndarray:
    """The official gene encoder on the rows of genes."""
    from transcriptformer.model.layers import PretrainedEmbeddings

    state = torch.load(folder / "model_weights.pt", weights_only=True)
    own = {key.removeprefix("gene_embeddings."): v for key, v in state.items() if key.startswith("gene_embeddings.")}
    encoder = PretrainedEmbeddings(own["embedding.weight"], output_dim=own["mlp.layers.4.weight"].shape[0]).eval()
    encoder.load_state_dict(own)
    writer = _write_transcriptformer
    ids = [len(writer.SPECIAL) + writer.GENES.index(gene) for gene in genes]
    with torch.no_grad():
        return encoder(torch.tensor(ids)).numpy()


def case(folder: Path, shape: _write_transcriptformer.Shape) -> dict[str, np.ndarray]:
    """All outputs of a case."""
    import anndata
    import pandas as pd

    digest = _write_transcriptformer.write_checkpoint(folder, shape.seed, shape=shape)
    matrix, names, assays = _write_transcriptformer.counts(shape)
    cells = anndata.AnnData(
        matrix.astype(np.float32), obs=pd.DataFrame({"assay": assays}), var=pd.DataFrame({"ensembl_id": names})
    )
    genes = np.array([name for name in names if name in _write_transcriptformer.GENES])
    found = {}
    for batch in (1, 4):
        vectors = gene_vectors(infer(folder, cells, "cge", batch), genes, len(matrix), shape.width)
        found[batch] = np.asarray(infer(folder, cells, "cell", batch).obsm["embeddings"]), vectors
    for one, four in zip(found[1], found[4], strict=True):
        apart = float(np.nanmax(np.abs(one - four)))
        _recipe.say(f"batches of 4 against one cell: {apart:.1e}")
        if not apart <= CLOSE or (np.isnan(one) != np.isnan(four)).any():
            sys.exit(f"expected at most {CLOSE}, found {apart}")
    cell, vectors = found[1]
    mean, n = _recipe.mean_over_cells(vectors)
    out = {"cell": cell, "gene_names": genes, "gene_mean": mean, "gene_count": n, "gene_first": vectors[0]}
    out |= {"counts": matrix, "data_genes": names, "assays": assays}
    out |= {"static_names": genes, "static": static(folder, genes), "digest": np.array(digest)}
    used = ("transcriptformer", "pytorch_lightning", "torch", "numpy", "anndata")
    return out | {"versions": np.array([f"{name} {version(name)}" for name in used])}


def main() -> None:
    """Write both expected files."""
    if version("transcriptformer") != VERSION:
        sys.exit(f"expected transcriptformer {VERSION}, found {version('transcriptformer')}")
    torch.set_num_threads(1)
    writer, here = _write_transcriptformer, Path.cwd()
    for suffix, shape in (("", writer.SMALL), ("_plain", writer.PLAIN)):
        with tempfile.TemporaryDirectory() as temporary:
            os.chdir(temporary)  # the official code writes a folder of logs where it runs
            try:
                out = case(Path(temporary) / "checkpoint", shape)
            finally:
                os.chdir(here)
        _recipe.say(_recipe.save(f"transcriptformer_official{suffix}", out))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main()
