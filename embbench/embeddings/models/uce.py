"""UCE: static, contextual gene and cell vectors from the published files (weights, proteins, chromosomes, offsets)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embbench.core import UserError
from embbench.embeddings.models._model import CellModel
from embbench.embeddings.models._network import NetworkDefaults
from embbench.embeddings.models._uce import PAD, Genome, sentence

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors
    from embbench.embeddings.models._layers import Block, Linear, Norm
    from embbench.embeddings.models._panel import AnyCase, Panel
    from embbench.embeddings.models._run import Batch, Cell

PROTEINS = {  # species of the published protein embeddings
    "human": "Homo_sapiens.GRCh38",
    "mouse": "Mus_musculus.GRCm39",
    "frog": "Xenopus_tropicalis.Xenopus_tropicalis_v9.1",
    "zebrafish": "Danio_rerio.GRCz11",
    "mouse_lemur": "Microcebus_murinus.Mmur_3.0",
    "pig": "Sus_scrofa.Sscrofa11.1",
    "macaca_fascicularis": "Macaca_fascicularis.Macaca_fascicularis_6.0",
    "macaca_mulatta": "Macaca_mulatta.Mmul_10",
}
EPSILON = 1e-5  # torch's LayerNorm default, which the published model uses
BATCH = 25  # the official default, which decides the padding that soft_mask lets in


class UCE(CellModel):
    """UCE (Rosen et al. 2023): a cell is a sample of its genes, as protein vectors in the order of the genome.

    Genes are drawn with replacement in proportion to ``log1p(count)`` and grouped by chromosome, chromosomes in random
    order, genes by start; each group stands between its chromosome's token and a closing token, ``<cls>`` before all.
    ``x = sqrt(d) LN(gelu(W e / |e|)) + P`` of a token's ESM2 vector e, then layers ``h = LN(h + A(h));
    h = LN(h + W2 relu(W1 h))``, then a decoder of three blocks ``gelu(LN(W h))`` and a linear map. A cell vector is the
    decoded ``<cls>`` row divided by its norm; a contextual vector is the mean of a gene's decoded rows, one for each
    time it was drawn; static vectors are the model's own map of a gene's protein, ``LN(gelu(W' e / |e|))``.

    Parameters
    ----------
    checkpoint, level, mode, cells, seed, metacells, precision, device, batch : see `CellModel`. Draws are seeded by a
        cell's content and ``seed``; the official code draws from one stream over all cells.
    layer : 0 is the input, then the layers' states, and one more, the default: the decoder's output.
    weights : name of the state dict: ``4layer_model.torch`` or ``33l_8ep_1024t_1280.torch``. Its table of tokens is
        read; ``all_tokens.torch``, which the official loader replaces by it, is not.
    species : of the cells, one of the published ones.
    sample_size : genes drawn for a cell.
    pad_length : tokens that a sentence may have.
    heads : attention heads; the files do not say, the official code has 20.
    chromosomes : row of the first chromosome in the table of tokens; the files do not say.
    soft_mask : the official code adds 1 to the attention scores of padding instead of hiding it, so its vectors depend
        on the other cells of a batch; True does the same.

    References
    ----------
    Rosen et al. (2023), Universal Cell Embeddings, bioRxiv 2023.11.28.568918, "Methods".

    Examples
    --------
    >>> [path.name for path in UCE("model_files").files()][:2]
    ['4layer_model.torch', 'Homo_sapiens.GRCh38.gene_symbol_to_embedding_ESM2.pt']
    """

    title: ClassVar[str] = "uce"
    where: ClassVar[str] = (
        "Download the files of figshare.com/articles/dataset/Universal_Cell_Embedding_Model_Files/24320806 by hand, "
        "unpack protein_embeddings.tar.gz there"
    )

    def __init__(
        self,
        checkpoint: str | None = None,
        level: str = "static",
        weights: str = "4layer_model.torch",
        species: str = "human",
        sample_size: int = 1024,
        pad_length: int = 1536,
        heads: int = 20,
        chromosomes: int = 143574,
        *,
        soft_mask: bool = False,
        **run: Any,
    ) -> None:
        super().__init__(checkpoint, level, **run)
        if species not in PROTEINS:
            raise ValueError(f"UCE: species must be one of {', '.join(PROTEINS)}, got {species!r}")
        whole = {"sample_size": sample_size, "pad_length": pad_length, "heads": heads, "chromosomes": chromosomes}
        for name, value in whole.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"UCE: {name} must be an integer >= 1, got {value!r}")
        if pad_length < sample_size + 3:
            raise ValueError(
                f"UCE: pad_length must hold sample_size genes, <cls> and a chromosome's two tokens, got {pad_length} "
                f"for {sample_size}"
            )
        self.weights, self.species, self.heads, self.soft_mask = weights, species, heads, bool(soft_mask)
        if soft_mask:  # its vectors depend on the batch, so the batch goes into their key
            self.batch, self.unkeyed = self.batch or BATCH, frozenset({"device"})  # type: ignore[misc]
        self.sample_size, self.pad_length, self.chromosomes = sample_size, pad_length, chromosomes

    def files(self) -> tuple[Path, ...]:
        """State dict, protein vectors of the species (whose order numbers the genes), chromosomes, offsets."""
        folder = self.folder()
        proteins = f"protein_embeddings/{PROTEINS[self.species]}.gene_symbol_to_embedding_ESM2.pt"
        return tuple(folder / name for name in (self.weights, proteins, "species_chrom.csv", "species_offsets.pkl"))

    def fetched(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """A remote copy of the folder."""
        if self.checkpoint is None:
            return ()
        names = tuple(path.relative_to(self.folder()).as_posix() for path in self.files())
        return ((self.checkpoint, names),)

    def load(self, folder: Path) -> Network:
        """The encoder and decoder of a published state dict, for the genes of the species."""
        from embbench.embeddings.models._checkpoint import Tensors, read_state

        weights, proteins, chromosomes, offsets = self.files()
        genome = Genome.read(proteins, chromosomes, offsets, self.species, self.chromosomes)
        t = Tensors("UCE", weights, read_state(weights)).strip("module.").ignore("binary_decoder.")
        made = _network(t, genome, self)
        t.finish()
        return made


def _network(t: Tensors, genome: Genome, own: UCE) -> Network:
    import torch
    from torch.nn import functional

    from embbench.embeddings.models._layers import Block, attention, linear, norm
    from embbench.embeddings.models._panel import AnyCase

    width, size = t.shape("encoder.0.weight") if len(t.shape("encoder.0.weight")) == 2 else (0, 0)
    if not width or width % own.heads:
        raise t.error(f"expected a width that {own.heads} heads divide, found encoder.0.weight of width {width}")

    def project(key: str, x: Tensor) -> Tensor:
        return norm(t, f"{key}.2", width, EPSILON)(functional.gelu(linear(t, f"{key}.0", width, size)(x)))

    table = t.take("pe_embedding.weight", None, size)
    if genome.row.max() >= len(table):
        raise t.error(
            f"expected at least {genome.row.max() + 1} rows of pe_embedding.weight (genes of {own.species}, and "
            f"chromosomes from row {own.chromosomes}), found {len(table)}; chromosomes= sets where they begin"
        )
    vectors = functional.normalize(table[torch.from_numpy(genome.row)], dim=1)
    blocks = []
    for i in range(t.count("transformer_encoder.layers.{}.")):
        at = f"transformer_encoder.layers.{i}."
        attend = attention(t, (f"{at}self_attn.in_proj_",), f"{at}self_attn.out_proj", width, own.heads)
        up = linear(t, f"{at}linear1", None, width)
        down = linear(t, f"{at}linear2", width, up.weight.shape[0])
        norms = [norm(t, f"{at}norm{k}", width, EPSILON) for k in (1, 2)]
        blocks.append(Block(attend, norms[0], up, down, norms[1], "relu", post=True))
    decoder, inner = [], width
    for k in range(3):
        step = linear(t, f"decoder.{k}.0", None, inner)
        inner = int(step.weight.shape[0])
        decoder.append((step, norm(t, f"decoder.{k}.1", inner, EPSILON)))
    positions = t.take("pos_encoder.pe", None, 1, width)[:, 0]
    if len(positions) < own.pad_length:
        raise t.error(f"pad_length {own.pad_length} needs as many rows of pos_encoder.pe, found {len(positions)}")
    return Network(
        genome=genome,
        aliases=AnyCase({name.upper(): name for name in genome.vocabulary[genome.first :]}),
        tokens=project("encoder", vectors) * math.sqrt(width),
        fixed=project("gene_embedding_layer", vectors[genome.first :]),
        positions=positions,
        blocks=tuple(blocks),
        decoder=tuple(decoder),
        last=linear(t, "decoder.3", inner, inner),
        sample_size=own.sample_size,
        pad_length=own.pad_length,
        soft_mask=own.soft_mask,
        seed=own.seed,
    )


@dataclass(frozen=True)
class Network(NetworkDefaults):
    """The UCE encoder; see `embbench.embeddings.models._run.Network` for what a network offers.

    ``tokens`` and ``fixed`` are the token's input and static vectors, computed once: they need no cell.
    """

    genome: Genome
    aliases: AnyCase
    tokens: Tensor
    fixed: Tensor
    positions: Tensor
    blocks: tuple[Block, ...]
    decoder: tuple[tuple[Linear, Norm], ...]
    last: Linear
    sample_size: int
    pad_length: int
    soft_mask: bool
    seed: int
    pads: ClassVar[tuple[int]] = (PAD,)
    needs_depth: ClassVar[bool] = True

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens of the species."""
        return self.genome.vocabulary

    @property
    def genes(self) -> np.ndarray:
        """Numbers of the genes."""
        return np.arange(self.genome.first, len(self.vocabulary))

    @property
    def layers(self) -> int:
        """Number of transformer layers, and one for the decoder."""
        return len(self.blocks) + 1

    @property
    def width(self) -> int:
        """Width of a state."""
        return int(self.tokens.shape[1])

    def static(self) -> Tensor:
        """``LN(gelu(W' e / |e|))``, shape (genes, d)."""
        return self.fixed

    def cell(self, panel: Panel, i: int) -> Cell:
        """A sentence of sampled genes."""
        from embbench.embeddings.models._panel import stream_of
        from embbench.embeddings.models._run import Cell

        gene, value = panel.cell(i)
        order = np.argsort(gene)  # the draw then depends on the cell's content alone, not on the order of columns
        stream = stream_of("uce", self.seed, gene, value)
        token = sentence(gene[order], value[order], self.genome, self.sample_size, stream)
        if len(token) > self.pad_length:
            raise UserError(
                f"uce: a cell's genes lie on so many chromosomes that its sentence has {len(token)} tokens, expected "
                f"at most pad_length={self.pad_length}; lower sample_size"
            )
        return Cell(label=np.where(token >= self.genome.first, token, -1), fields=(token,))

    def forward(self, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Rows after ``layer`` and ``<cls>`` rows of norm 1."""
        from torch.nn import functional

        from embbench.embeddings.models._layers import key_mask

        (token,) = batch.fields
        h = self.tokens[token] + self.positions[: token.shape[1]]
        mask = (~batch.real).to(h.dtype)[:, None, None, :] if self.soft_mask else key_mask(batch.real)
        for block in self.blocks[:layer]:
            h = block(h, mask)
        if layer == self.layers:
            for step, scale in self.decoder:
                h = functional.gelu(scale(step(h)))
            h = self.last(h)
        return h, functional.normalize(h[:, 0].float(), dim=-1)
