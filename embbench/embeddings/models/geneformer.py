"""Geneformer V1 and V2: static, contextual gene and cell vectors from a published Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embbench.core import UserError
from embbench.embeddings.models._bert import SIZES, bert
from embbench.embeddings.models._geneformer import CORPORA, STEMS, Words, find_dictionaries, repository_of
from embbench.embeddings.models._model import CellModel
from embbench.embeddings.models._network import NetworkDefaults

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._layers import Block, Norm
    from embbench.embeddings.models._panel import AnyCase, Panel
    from embbench.embeddings.models._run import Batch, Cell

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
CHOICES = {"readout": ("mean", "cls"), "depth": ("cell", "vocabulary"), "ties": ("stable", "token", "quicksort")}
UNUSED = ("cls.", "bert.pooler.", "pooler.", "bert.embeddings.position_ids", "embeddings.position_ids")


class Geneformer(CellModel):
    """Geneformer (Theodoris et al. 2023; V2: Chen et al. 2024): genes ranked by scaled expression, a BERT encoder.

    A cell is the sequence of its expressed genes by ``count / depth * 1e4 / median`` in descending order, where the
    median is that of the gene's non-zero values in the pretraining corpus; V2 puts ``<cls>`` before and ``<eos>``
    after. ``h0 = LN(E[gene] + P[rank] + T[0])``, then layers ``h = LN(h + A(h)); h = LN(h + W2 relu(W1 h))``. Static
    vectors are ``E[gene]``; a contextual vector is the mean of a gene's rows over cells that hold it; a cell vector is
    the mean of its gene rows. Ranks do not depend on the depth of a cell, so any scale of counts serves. A cell without
    a known gene, which the official tokeniser drops, is its special tokens alone (V1: ``<mask>``).

    Parameters
    ----------
    checkpoint, level, layer, mode, cells, seed, metacells, precision, device, batch : see `CellModel`; the default
        layer is the last but one (official ``emb_layer=-1``).
    corpus : dictionaries of the published repository: ``gc30M`` (V1), ``gc95M`` or ``gc104M`` (V2). None takes those
        found in the checkpoint folder, beside it, or in the repository's ``geneformer`` folder.
    weights : name of the file of weights; None: ``model.safetensors``, else ``pytorch_model.bin``.
    tokens, medians, mapping : pickled dictionaries of token ids, medians, and aliases -> Ensembl identifiers, where
        they lie elsewhere. V1 does without the aliases. Columns that are aliases of one gene are added up.
    special : whether ``<cls>`` and ``<eos>`` stand around a cell; None: if the token dictionary has them (V2).
    readout : cell vector: ``mean`` over gene tokens, or ``cls`` (V2).
    depth : ``cell``: counts of the whole cell (official); ``vocabulary``: counts of the model's genes (as
        ModelGenerator). It can only move rounding, and with it ties.
    ties : order of equal values: ``stable``: that of the data's columns; ``token``: that of the vocabulary;
        ``quicksort``: as numpy's unstable sort leaves it (official; it may differ between machines).
    max_length : tokens of a cell, special ones included; None: all positions of the model.

    References
    ----------
    Theodoris et al. (2023), Nature 618, 616-624, "Rank value encoding"; Chen et al. (2024), bioRxiv 2024.08.16.608180.

    Examples
    --------
    >>> [path.name for path in Geneformer("Geneformer-V1-10M", corpus="gc30M").files()][:3]
    ['config.json', 'model.safetensors', 'token_dictionary_gc30M.pkl']
    """

    title: ClassVar[str] = "geneformer"
    where: ClassVar[str] = (
        "Download the model's folder and the folder geneformer of huggingface.co/ctheodoris/Geneformer (Apache-2.0), "
        "and put the dictionaries (*.pkl) beside config.json, or name them with tokens=, medians=, mapping="
    )

    def __init__(
        self,
        checkpoint: str | None = None,
        level: str = "static",
        corpus: str | None = None,
        weights: str | None = None,
        tokens: str | None = None,
        medians: str | None = None,
        mapping: str | None = None,
        *,
        special: bool | None = None,
        readout: str = "mean",
        depth: str = "cell",
        ties: str = "stable",
        max_length: int | None = None,
        **run: Any,
    ) -> None:
        super().__init__(checkpoint, level, **run)
        if corpus is not None and corpus not in CORPORA:
            raise ValueError(f"Geneformer: corpus must be one of {', '.join(CORPORA)} or null, got {corpus!r}")
        for name, value in (("readout", readout), ("depth", depth), ("ties", ties)):
            if value not in CHOICES[name]:
                raise ValueError(f"Geneformer: {name} must be one of {', '.join(CHOICES[name])}, got {value!r}")
        if max_length is not None and (not isinstance(max_length, int) or max_length < 3):
            raise ValueError(f"Geneformer: max_length must be an integer >= 3 or null, got {max_length!r}")
        if special not in (None, True, False):
            raise ValueError(f"Geneformer: special must be true, false or null, got {special!r}")
        self.corpus, self.weights, self.special, self.max_length = corpus, weights, special, max_length
        self.tokens, self.medians, self.mapping = tokens, medians, mapping
        self.readout, self.depth, self.ties = readout, depth, ties

    def folder(self) -> Path:
        """The folder of config.json; where only its subfolder ``checkpoint`` holds one, that."""
        folder = super().folder()
        inner = folder / "checkpoint"
        return inner if (inner / "config.json").is_file() and not (folder / "config.json").is_file() else folder

    def files(self) -> tuple[Path, ...]:
        """Configuration, weights and dictionaries, where they are or are expected."""
        from embbench.embeddings.models._checkpoint import present

        folder = self.folder()
        return (folder / "config.json", *present(folder, (self._weights().name,)), *self.dictionaries().values())

    def fetched(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The model's folder and, of the same repository, its dictionaries."""
        if self.checkpoint is None:
            return ()
        wanted: list[tuple[str, tuple[str, ...]]] = [(self.checkpoint, ("config.json", self.weights or WEIGHTS[0]))]
        if self.corpus is not None and (repository := repository_of(self.checkpoint)):
            given = self._given()
            names = tuple(f"{stem}_{self.corpus}.pkl" for role, stem in STEMS.items() if given[role] is None)
            wanted += [(f"{repository}/{CORPORA[self.corpus]}", names)] if names else []
        return tuple(wanted)

    def dictionaries(self) -> dict[str, Path]:
        """``tokens``, ``medians`` and ``mapping`` -> file, existing or expected; V1 may go without ``mapping``."""
        return find_dictionaries(self.folder(), self.checkpoint, self.corpus, self._given())

    def _given(self) -> dict[str, str | None]:
        return {"tokens": self.tokens, "medians": self.medians, "mapping": self.mapping}

    def load(self, folder: Path) -> Network:
        """The encoder of a published folder with its dictionaries; every tensor of it is checked."""
        from embbench.embeddings.models._checkpoint import Tensors, read_json, read_state
        from embbench.embeddings.models._panel import AnyCase

        config, found = read_json(folder / "config.json"), self.dictionaries()
        words = Words.read(found, special=self.special)
        _check(folder / "config.json", config, found["tokens"], len(words.vocabulary))
        if self.readout == "cls" and not words.special:
            raise UserError(f"geneformer:readout=cls needs <cls> in each cell (V2), found V1 in {folder}; use mean")
        longest = self.max_length or config["max_position_embeddings"]
        if longest > config["max_position_embeddings"]:
            raise UserError(
                f"geneformer:max_length={longest}: expected at most {config['max_position_embeddings']} (positions of "
                f"{folder})"
            )
        path = self._weights()
        t = Tensors("Geneformer", path, read_state(path)).ignore(*UNUSED).strip("bert.")
        encoder = bert(t, config, len(words.vocabulary))
        t.finish()
        aliases = AnyCase(words.mapping)
        return Network(words, aliases, *encoder, self.readout, self.depth, self.ties, longest)

    def _weights(self) -> Path:
        """The file of weights, existing or expected."""
        names = WEIGHTS if self.weights is None else (self.weights,)
        folder = self.folder()
        return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _check(path: Path, config: dict[str, Any], tokens: Path, words: int) -> None:
    """The configuration describes a BERT encoder over the dictionary's tokens."""
    sizes: dict[str, Any] = {key: config.get(key) for key in SIZES}
    whole = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in sizes.values())
    if not whole or sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise UserError(f"{path}: expected sizes that fit, found {sizes}; is it Geneformer?")
    kinds = (config.get("model_type"), config.get("position_embedding_type", "absolute"), config.get("hidden_act"))
    if kinds[:2] != ("bert", "absolute") or kinds[2] not in ("relu", "gelu", "silu"):
        raise UserError(
            f"{path}: expected model_type bert, absolute positions and hidden_act relu, gelu or silu, found "
            f"{', '.join(map(repr, kinds))}; is it Geneformer?"
        )
    if config.get("vocab_size") != words:
        raise UserError(
            f"{path}: expected vocab_size {words}, the tokens of {tokens}, found {config.get('vocab_size')!r}; a model "
            "goes with the dictionaries of its own corpus: corpus=gc30M (V1), gc95M or gc104M (V2)"
        )


@dataclass(frozen=True)
class Network(NetworkDefaults):
    """The Geneformer encoder; see `embbench.embeddings.models._run.Network` for what a network offers."""

    words: Words
    aliases: AnyCase
    table: Tensor
    start: Tensor
    norm: Norm
    blocks: tuple[Block, ...]
    readout: str
    depth: str
    ties: str
    longest: int

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens."""
        return self.words.vocabulary

    @property
    def genes(self) -> np.ndarray:
        """Numbers of the tokens that have a median."""
        return np.flatnonzero(np.isfinite(self.words.median))

    @property
    def collapse(self) -> bool:
        """Columns that are aliases of one gene are added up where there is a table of aliases."""
        return bool(self.aliases)

    @property
    def pads(self) -> tuple[int]:
        """The number of ``<pad>``."""
        return (self.vocabulary.index("<pad>"),)

    @property
    def default_layer(self) -> int:
        """The last but one, as the official extraction reads it."""
        return self.layers - 1

    @property
    def width(self) -> int:
        """Width of a state."""
        return int(self.table.shape[1])

    def static(self) -> Tensor:
        """``E[gene]``, shape (genes, d)."""
        return self.table[self.genes]

    def cell(self, panel: Panel, i: int) -> Cell:
        """Genes by descending scaled value, between ``<cls>`` and ``<eos>`` in V2."""
        from embbench.embeddings.models._run import Cell

        gene, value = panel.cell(i)
        value = value.astype(np.float64)
        total = panel.total[i] if self.depth == "cell" and panel.total[i] > 0 else value.sum()
        scaled = value / total * 1e4 / self.words.median[gene]  # in the official order of operations: rounding decides
        special = self.words.special
        gene = gene[ranked(scaled, gene, self.ties)[: self.longest - len(special)]]
        alone = [] if len(gene) or special else [self.vocabulary.index("<mask>")]
        token = np.concatenate([special[:1], gene, special[1:], alone]).astype(np.int64)
        label = np.concatenate([[-1] * len(special[:1]), gene, [-1] * len(special[1:]), [-1] * len(alone)])
        return Cell(label=label.astype(np.int64), fields=(token,))

    def forward(self, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Rows after ``layer``, and their mean over gene tokens (or the ``<cls>`` row)."""
        import torch

        from embbench.embeddings.models._layers import key_mask

        (token,) = batch.fields
        h = self.norm(self.table[token] + self.start[: token.shape[1]])
        mask = key_mask(batch.real)
        for block in self.blocks[:layer]:
            h = block(h, mask)
        if self.readout == "cls":
            return h, h[:, 0].float()
        is_gene = torch.from_numpy(np.isfinite(self.words.median)).to(token.device)
        counted = is_gene[token] & batch.real
        counted = torch.where(counted.any(dim=1, keepdim=True), counted, batch.real)[..., None]
        return h, (h.float() * counted).sum(dim=1) / counted.sum(dim=1)


def ranked(scaled: np.ndarray, gene: np.ndarray, ties: str) -> np.ndarray:
    """Positions of values in descending order; ``ties`` as in `Geneformer`.

    Parameters
    ----------
    scaled : shape (n,), > 0.
    gene : shape (n,), vocabulary numbers.
    ties : ``stable``, ``token`` or ``quicksort``.

    Examples
    --------
    >>> [ranked(np.array([1.0, 2, 2]), np.array([7, 9, 8]), t).tolist() for t in ("stable", "token")]
    [[1, 2, 0], [2, 1, 0]]
    """
    if ties == "token":
        return np.lexsort((gene, -scaled))
    return np.argsort(-scaled, kind="stable" if ties == "stable" else "quicksort")
