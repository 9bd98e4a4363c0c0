"""The scPRINT encoder: which genes a cell's sequence holds, and the forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from embbench.embeddings.models._layers import Attention, Linear, Norm, key_mask, linear, norm
from embbench.embeddings.models._network import NetworkDefaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors
    from embbench.embeddings.models._layers import Block
    from embbench.embeddings.models._panel import Panel
    from embbench.embeddings.models._run import Batch, Cell

VALUE_EPSILON = 1e-5  # torch's LayerNorm default, in the encoders of values
LARGEST = 1e5  # the value encoders clamp their input here


@dataclass(frozen=True)
class Network(NetworkDefaults):
    """The scPRINT encoder; see `embbench.embeddings.models._run.Network` for what a network offers."""

    vocabulary: tuple[str, ...]
    genes: np.ndarray
    table: Tensor
    tokens: Tensor
    values: tuple[Linear | Norm, ...]
    depth: tuple[Linear | Norm, ...]
    blocks: tuple[Block, ...]
    norm: Norm
    special: int
    pooled: tuple[int, ...]
    normalization: str
    sequence: str
    max_length: int | None
    truncate: str
    seed: int
    pads: ClassVar[tuple[float, ...]] = (0, 0.0)
    aliases: ClassVar[dict[str, str]] = {}

    @property
    def everything(self) -> bool:
        """Whether genes that were not measured are fed."""
        return self.sequence == "all"

    @property
    def needs_depth(self) -> bool:
        """Whether it reads counts; shares of the sequence alone need none."""
        return bool(self.depth) or self.normalization == "log"

    @property
    def width(self) -> int:
        """Width of a state."""
        return int(self.table.shape[1])

    def static(self) -> Tensor:
        """``E[gene]``, shape (genes, d)."""
        return self.table[self.genes]

    def cell(self, panel: Panel, i: int) -> Cell:
        """Cell tokens, then genes in the model's order with their values."""
        from embbench.embeddings.models._run import Cell

        gene, value = panel.cell(i)
        order = np.argsort(gene)
        gene, value = gene[order], value[order].astype(np.float64)
        chosen = self.chosen(gene, value, panel.index)
        count = np.zeros(len(chosen))
        fed = np.isin(gene, chosen)
        count[np.searchsorted(chosen, gene[fed])] = value[fed]
        if self.normalization == "log":
            count = np.log2(1 + count)
        elif count.any():  # the official code divides zero by zero in a cell without counts
            count /= count.sum()
        special = len(self.vocabulary) + np.arange(self.special)
        return Cell(
            label=np.concatenate([np.full(self.special, -1), chosen]),
            fields=(
                np.concatenate([special, chosen]),
                np.concatenate([np.zeros(self.special), count]).astype(np.float32),
            ),
            facts=(float(panel.total[i]),) if self.depth else (),
        )

    def chosen(self, gene: np.ndarray, value: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Genes of a sequence, ascending.

        Parameters
        ----------
        gene, value : shape (k,), the expressed genes, ascending, and their counts.
        measured : shape (p,), the genes of the data.
        """
        from embbench.embeddings.models._panel import stream_of

        every = {"expressed": gene, "panel": np.sort(measured), "all": self.genes}[self.sequence]
        room = self.max_length
        if room is None or len(every) <= room:
            return every
        stream = stream_of("scprint", self.seed, gene, value)
        if len(gene) >= room:
            order = stream.permutation(len(gene)) if self.truncate == "random" else np.argsort(-value, kind="stable")
            return np.sort(gene[order[:room]])
        rest = np.setdiff1d(every, gene, assume_unique=True)
        return np.sort(np.concatenate([gene, stream.permutation(rest)[: room - len(gene)]]))

    def forward(self, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Rows after ``layer``, cell tokens first, and means of the pooled cell tokens."""
        token, value = batch.fields
        h = self.tokens[token]
        h[:, self.special :] += _coded(self.values, value[:, self.special :])
        if self.depth:
            h[:, :1] += _coded(self.depth, torch.log2(1 + batch.facts))
        mask = key_mask(batch.real)
        for block in self.blocks[:layer]:
            h = block(h, mask)
        if layer == self.layers:
            h = self.norm(h)
        return h, h[:, list(self.pooled)].float().mean(dim=1)


def _coded(encoder: tuple[Linear | Norm, ...], x: Tensor) -> Tensor:
    """Vectors of shape (b, n, d) of numbers (b, n)."""
    h = encoder[0](x[..., None].clamp(0, LARGEST))
    for place in range(1, len(encoder), 2):
        h = encoder[place + 1](functional.relu(encoder[place](h)))
    return h


def read_encoder(t: Tensors, at: str, d: int, given: Mapping[str, Any]) -> tuple[Linear | Norm, ...]:
    """Linear(1, d), then as often as there are layers more: LayerNorm, ReLU, (dropout), Linear."""
    found: list[Linear | Norm] = [linear(t, f"{at}0", d, 1)]
    while t.has(f"{at}{2 * len(found) + 2}.weight"):  # 4, 8, ...: each layer more is four modules
        i = 2 * len(found)
        found += [norm(t, f"{at}{i - 1}", d, VALUE_EPSILON), linear(t, f"{at}{i + 2}", d, d)]
    layers = (len(found) + 1) // 2
    if given.get("expr_encoder_layers", layers) != layers:
        raise t.error(f"expected {given['expr_encoder_layers']} layers of {at}, found {layers}")
    return tuple(found)


def read_attention(t: Tensors, at: str, d: int, heads: int, kv: int) -> Attention:
    """Attention with grouped keys and values (Ainslie et al. 2023, arXiv:2305.13245) as the full one that it equals.

    Rows of the fused map: query heads, key heads, value heads; query head h reads key head ``h // (heads // kv)``.
    """
    width = d // heads
    rows = width * (heads + 2 * kv)
    weight, bias = t.take(f"{at}Wqkv.weight", rows, d), t.take(f"{at}Wqkv.bias", rows)
    number = torch.arange(rows)
    parts = number[:d], number[d : d + width * kv], number[d + width * kv :]
    spread = [part.view(-1, width).repeat_interleave(d // len(part), dim=0).flatten() for part in parts]
    order = torch.cat(spread)
    return Attention(Linear(weight[order], bias[order]), linear(t, f"{at}out_proj", d, d), heads)
