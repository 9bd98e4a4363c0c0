"""The scFoundation network: an encoder of the expressed genes, a decoder of all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embbench.core import UserError
from embbench.embeddings.models._depth import (
    DEPTH_TOKENS,
    check_rows,
    expression,
    labels,
    masked_mean,
    positive,
    value_embedding,
)
from embbench.embeddings.models._network import NetworkDefaults
from embbench.embeddings.models._tensors import short

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors
    from embbench.embeddings.models._depth import ValueEmbedding
    from embbench.embeddings.models._layers import Block, Norm
    from embbench.embeddings.models._panel import Panel
    from embbench.embeddings.models._performer import Decoder
    from embbench.embeddings.models._run import Batch, Cell

EPSILON = 1e-5  # torch's LayerNorm default, which the published model uses
MULTIPLE = 4  # width inside an encoder layer's position-wise map, in widths
UNUSED = ("token_emb.emb_mask.", "token_emb.emb_pad.", "to_final.", "decoder.performer.calls_since_last_redraw")
DECODER = ("decoder.", "decoder_embed.", "norm.")
PARTS = {"encoder": "transformer", "decoder": "performer"}  # module types of the published model


@dataclass(frozen=True)
class Choices:
    """Parameters of the extractor that the network needs; see `ScFoundation`. ``decode``: rows of all genes."""

    decode: bool
    target: tuple[str, float]
    readout: str
    together: bool
    average: str
    total: str


def _sizes(config: dict[str, Any], path: Path) -> dict[str, dict[str, int]]:
    """Sizes of encoder and decoder; refuses other kinds of layers."""
    sizes = {}
    for part, kind in PARTS.items():
        given = config.get(part)
        if not isinstance(given, dict) or given.get("module_type") != kind or given.get("norm_first"):
            raise UserError(f"{path}: expected post-norm {kind} layers as {part}, found {short(str(given))}")
        wanted = ("hidden_dim", "depth", "heads", *(["dim_head"] if part == "decoder" else []))
        sizes[part] = positive({k: given.get(k) for k in wanted}, path, "scFoundation")
    if sizes["encoder"]["hidden_dim"] % sizes["encoder"]["heads"]:
        raise UserError(f"{path}: expected heads that divide the width, found {sizes['encoder']}; is it scFoundation?")
    return sizes


def network(t: Tensors, vocabulary: tuple[str, ...], config: dict[str, Any], choices: Choices) -> Network:
    """The network of one model of a checkpoint; every tensor is checked.

    Parameters
    ----------
    t : keys without ``model.``.
    vocabulary : the gene list.
    config : of ``mae_autobin``.
    choices : see `Choices`.

    Raises
    ------
    UserError
        Other kinds or numbers of layers, another gene list, a tensor missing, too many, or of another shape.
    """
    from embbench.embeddings.models._layers import Block, attention, linear, norm
    from embbench.embeddings.models._performer import decoder

    sizes = _sizes(config, t.path)
    d, depth, heads = (sizes["encoder"][k] for k in ("hidden_dim", "depth", "heads"))
    check_rows(t, "pos_emb.weight", DEPTH_TOKENS + 1, len(vocabulary))
    if (found := t.count("encoder.transformer_encoder.{}.")) != depth:
        raise t.error(f"expected the {depth} encoder layers of its configuration, found {found}")
    blocks = []
    for i in range(depth):
        at = f"encoder.transformer_encoder.{i}"
        attend = attention(t, (f"{at}.self_attn.in_proj_",), f"{at}.self_attn.out_proj", d, heads)
        up, down = linear(t, f"{at}.linear1", MULTIPLE * d, d), linear(t, f"{at}.linear2", d, MULTIPLE * d)
        norms = [norm(t, f"{at}.norm{k}", d, EPSILON) for k in (1, 2)]
        blocks.append(Block(attend, norms[0], up, down, norms[1], "relu", post=True))
    made = Network(
        vocabulary=vocabulary,
        genes=np.arange(len(vocabulary)),
        values=value_embedding(t, ("token_emb.mlp", "token_emb.mlp2", "token_emb.emb"), d, config),
        positions=t.take("pos_emb.weight", len(vocabulary) + DEPTH_TOKENS + 1, d),
        blocks=tuple(blocks),
        norm=norm(t, "encoder.norm", d, EPSILON),
        decoder=decoder(t, d, sizes["decoder"], EPSILON, together=choices.together) if choices.decode else None,
        choices=choices,
    )
    (t if choices.decode else t.ignore(*DECODER)).finish()
    return made


@dataclass(frozen=True)
class Network(NetworkDefaults):
    """Encoder, and decoder for gene vectors; see `embbench.embeddings.models._run.Network`."""

    vocabulary: tuple[str, ...]
    genes: np.ndarray
    values: ValueEmbedding
    positions: Tensor
    blocks: tuple[Block, ...]
    norm: Norm
    decoder: Decoder | None
    choices: Choices
    everything: ClassVar[bool] = True
    needs_depth: ClassVar[bool] = True
    aliases: ClassVar[dict[str, str]] = {}

    @property
    def layers(self) -> int:
        """Number of decoder layers, or of encoder layers when cells alone are wanted."""
        return len(self.blocks if self.decoder is None else self.decoder.blocks)

    @property
    def width(self) -> int:
        """Width of an encoder state."""
        return int(self.positions.shape[1])

    @property
    def pads(self) -> tuple[float, ...]:
        """Fillers of shorter cells: the position that the checkpoint keeps for them, and 0."""
        return (len(self.genes) + DEPTH_TOKENS, 0.0) if self.decoder is None else (0.0,)

    def static(self) -> Tensor:
        """Position vectors of the genes, shape (genes, d)."""
        return self.positions[: len(self.genes)]

    def cell(self, panel: Panel, i: int) -> Cell:
        """Values of all genes, T and S; without decoder only the expressed genes', with their positions."""
        from embbench.embeddings.models._run import Cell

        n = len(self.genes)
        gene, value, total = expression(panel, i, self.choices.total)
        depth = math.log10(total) if total > 0 else 0.0
        kind, number = self.choices.target
        aim = number if kind == "t" else depth + (number if kind == "a" else math.log10(number))
        if self.decoder is None:
            place = np.concatenate([gene, [n, n + 1]])
            x = np.concatenate([value, [aim, depth]]).astype(np.float32)
            return Cell(np.where(place < n, place, -1), (place, x))
        x = np.zeros(n + DEPTH_TOKENS, dtype=np.float32)
        x[gene], x[n:] = value, (aim, depth)
        return Cell(labels(panel, n, gene, self.choices.average), (x,))

    def forward(self, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Rows after ``layer`` of the decoder (encoder when cells alone are wanted), and cell vectors."""
        import torch

        if self.decoder is None:
            place, x = batch.fields
            states = self._encode(self.values(x).add_(self.positions[place]), batch.real, layer)
            return states, self._pooled(states, batch.real)
        (x,) = batch.fields
        seen = x > 0
        seen[:, len(self.genes) :] = True
        lengths = seen.sum(1, keepdim=True)
        place = torch.argsort((~seen).to(torch.uint8), dim=1, stable=True)[:, : int(lengths.max())]
        real = torch.arange(place.shape[1], device=x.device) < lengths
        h = self.values(x)
        row = torch.arange(len(x), device=x.device)[:, None].expand_as(place)
        states = self._encode(h[row, place].add_(self.positions[place]), real, len(self.blocks))
        h[row[real], place[real]] = states[real].to(h.dtype)
        return self.decoder(h.add_(self.positions[: x.shape[1]]), layer), self._pooled(states, real)

    def _encode(self, h: Tensor, real: Tensor, layer: int) -> Tensor:
        from embbench.embeddings.models._layers import key_mask

        mask = key_mask(real)
        for block in self.blocks[:layer]:
            h = block(h, mask)
        return self.norm(h) if layer == len(self.blocks) else h

    def _pooled(self, states: Tensor, real: Tensor) -> Tensor:
        """Cell vectors; T and S are the last two real tokens."""
        import torch

        states, lengths = states.float(), real.sum(1, keepdim=True)
        if self.choices.readout == "max":
            return states.masked_fill(~real[..., None], -math.inf).amax(1)
        gene = torch.arange(real.shape[1], device=real.device) < lengths - DEPTH_TOKENS
        gene = torch.where(lengths > DEPTH_TOKENS, gene, real)
        row = torch.arange(len(states), device=real.device)
        ends = [states[row, lengths[:, 0] - back] for back in (1, 2)]  # S, then T
        highest = states.masked_fill(~gene[..., None], -math.inf).amax(1)
        return torch.cat([*ends, highest, masked_mean(states, gene)], dim=1)
