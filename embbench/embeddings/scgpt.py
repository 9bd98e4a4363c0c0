"""scGPT gene vectors, static: token embedding and its layer norm, from a published checkpoint folder.

Contextual vectors (means over control cells) need the whole forward pass and are not part of this file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embbench.cache.home import home
from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset, UserError
from embbench.embeddings._pickle import read_torch
from embbench.embeddings._rows import pick

FILES = ("best_model.pt", "vocab.json", "args.json")
TABLE = "encoder.embedding.weight"
NORM = ("encoder.enc_norm.weight", "encoder.enc_norm.bias")
EPSILON = 1e-5  # torch's LayerNorm default, which the published model uses


class ScGPT(ExtractorDefaults):
    """``LayerNorm(Embedding[gene])`` for every gene of the vocabulary: what the official ``model.encoder`` returns.

    Special tokens (``<pad>``, ``<cls>``, ``<eoc>``) are left out. Names are the vocabulary's own (HGNC symbols).

    Parameters
    ----------
    weights : folder of ``best_model.pt``, ``vocab.json``, ``args.json``; None is ``$EMBBENCH_HOME/weights/scgpt``.

    References
    ----------
    Cui et al. (2024), Nature Methods 21, "Input embeddings"; static vectors as in the official network tutorial.

    Examples
    --------
    >>> [path.name for path in ScGPT("whole-human").files()]
    ['best_model.pt', 'vocab.json', 'args.json']
    """

    def __init__(self, weights: str | None = None) -> None:
        self.weights = None if weights is None else Path(weights).expanduser()

    def folder(self) -> Path:
        """The checkpoint folder, existing or not."""
        return home("weights", "scgpt") if self.weights is None else self.weights

    def files(self) -> tuple[Path, ...]:
        """The files that the vectors depend on."""
        return tuple(self.folder() / name for name in FILES)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, embsize), float32, of the asked genes (None: all); ``train`` is not read.

        Raises
        ------
        UserError
            Weights are missing (says where to get them and where to put them) or do not fit vocabulary and arguments.
        """
        if absent := [path.name for path in self.files() if not path.is_file()]:
            raise UserError(
                f"scgpt: no {', '.join(absent)} in {self.folder()}. Download a model folder (whole-human) from the "
                "public scGPT model zoo (linked in the README of github.com/bowang-lab/scGPT, MIT licence), put its "
                f"{', '.join(FILES)} there, or say embbench extract --model scgpt:weights=FOLDER"
            )
        vocabulary, arguments = (self._json(name) for name in FILES[1:])
        table, scale, shift = self._tensors()
        width = arguments.get("embsize")
        if table.ndim != 2 or table.shape[1] != width or scale.shape != (width,) or shift.shape != (width,):
            raise UserError(f"scgpt: {self.folder()}: args.json says embsize {width}, found {TABLE} of {table.shape}")
        genes = {name: row for name, row in vocabulary.items() if not (name.startswith("<") and name.endswith(">"))}
        rows = np.array(list(genes.values()), dtype=np.int64)
        if not len(rows) or rows.min() < 0 or rows.max() >= len(table):
            raise UserError(f"scgpt: {self.folder()}: vocab.json has {len(rows)} genes for {len(table)} rows")
        vectors = table[rows]
        centred = vectors - vectors.mean(axis=1, keepdims=True)
        vectors = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON) * scale + shift
        return pick(names, list(genes), vectors, self.entity, {"source": "scGPT checkpoint", "holds": "knowledge"})

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder() / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"{path}: expected JSON, found: {error}; download the folder again") from error
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}; download it again")
        return content

    def _tensors(self) -> list[np.ndarray]:
        path = self.folder() / FILES[0]
        state = read_torch(path)
        found = list(state) if isinstance(state, dict) else [type(state).__name__]
        if absent := [key for key in (TABLE, *NORM) if key not in found]:
            raise UserError(f"{path}: expected the parameters {absent}, found {found[:4]}; is it scGPT?")
        return [state[key].double().numpy() for key in (TABLE, *NORM)]
