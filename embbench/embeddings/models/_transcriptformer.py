"""The TranscriptFormer encoder: the order of a cell's genes, attention biased by counts, and the forward pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from embbench.embeddings.models._layers import ACTIVATIONS, Linear, Norm, linear, norm
from embbench.embeddings.models._network import NetworkDefaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors
    from embbench.embeddings.models._panel import Panel
    from embbench.embeddings.models._run import Batch, Cell

EPSILON = 1e-5  # torch's LayerNorm default
CHUNK = 4096  # genes embedded at a time
QUERIES = 256  # of a block of attention
SCORES = {"cpu": 2**21, "cuda": 2**28}  # logits held at a time: 8 MiB stay near a core, 1 GiB keep a GPU busy


@dataclass(frozen=True)
class Layer:
    """``x = N1(h); h = A(x) + x; x = N2(h); h = F(x) + x``: residuals start from the normalised states.

    Parameters
    ----------
    qkv : (d, 3 d) map whose rows are query, key and value blocks, heads inside each.
    out : (d, d) map.
    heads : number of heads.
    cap : largest size of a logit; 0 for none.
    norm1, up, down, norm2, activation : the rest of the layer.
    """

    qkv: Linear
    out: Linear
    heads: int
    cap: float
    norm1: Norm
    up: Linear
    down: Linear
    norm2: Norm
    activation: str

    def __call__(self, h: Tensor, bias: Tensor) -> Tensor:
        """States of shape (b, n, d) after the layer; ``bias`` (b, n) is added to the logits of a key."""
        x = self.norm1(h)
        x = self.norm2(self.attend(x, bias) + x)
        return self.down(ACTIVATIONS[self.activation](self.up(x))) + x

    def attend(self, x: Tensor, bias: Tensor) -> Tensor:
        """Causal attention, some heads and queries at a time: the cap on logits excludes torch's fused kernels.

        Memory is bounded, and a block of queries sees only the keys up to its end.
        """
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).reshape(3, b * self.heads, n, -1)
        q = q / math.sqrt(d // self.heads)
        bias = bias.repeat_interleave(self.heads, dim=0)[:, None]
        group = max(1, SCORES.get(x.device.type, SCORES["cpu"]) // (min(n, QUERIES) * n))
        out = torch.empty_like(v)
        for first in range(0, len(q), group):
            h = slice(first, first + group)
            for lo in range(0, n, QUERIES):
                hi = min(n, lo + QUERIES)
                logits = (q[h, lo:hi] @ k[h, :hi].transpose(1, 2)).float().add_(bias[h, :, :hi])
                if self.cap:
                    logits.div_(self.cap).tanh_().mul_(self.cap)
                later = torch.ones(hi - lo, hi, dtype=torch.bool, device=x.device).triu(lo + 1)
                out[h, lo:hi] = logits.masked_fill_(later, -math.inf).softmax(dim=-1).to(v.dtype) @ v[h, :hi]
        return self.out(out.view(b, self.heads, n, -1).transpose(1, 2).reshape(b, n, d))


@dataclass(frozen=True)
class Network(NetworkDefaults):
    """The TranscriptFormer encoder; see `embbench.embeddings.models._run.Network` for what a network offers."""

    vocabulary: tuple[str, ...]
    genes: np.ndarray
    table: Tensor
    start: int
    assay: Tensor | None
    blocks: tuple[Layer, ...]
    epsilon: float
    clip: float
    length: int
    shift: str
    readout: str
    order: str
    seed: int
    needs_depth: ClassVar[bool] = True
    pads: ClassVar[tuple[float, ...]] = (0, 0.0)
    aliases: ClassVar[dict[str, str]] = {}

    @property
    def width(self) -> int:
        """Width of a state."""
        return int(self.table.shape[1])

    def static(self) -> Tensor:
        """``MLP(E[gene])``, shape (genes, d)."""
        return self.table[self.genes]

    def cell(self, panel: Panel, i: int) -> Cell:
        """``[START]`` with count 1, then the genes with their counts; which row stands for a gene is `shift`."""
        from embbench.embeddings.models._run import Cell

        gene, value = panel.cell(i)
        order = self.ordered(gene, value)
        gene, value = gene[order], value[order]
        fed = self.length - 1  # the official input is shifted by one: the last of `length` genes is only predicted
        token = np.concatenate([[self.start], gene[:fed]])
        label = np.concatenate([[-1], gene] if self.shift == "fed" else [gene, [-1]])[: len(token)]
        count = np.concatenate([[1.0], np.minimum(value[:fed], self.clip)])
        return Cell(label=label, fields=(token, count.astype(np.float32)))

    def ordered(self, gene: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Positions of the kept genes in the order in which they are fed.

        Parameters
        ----------
        gene, value : shape (k,), the expressed genes in data order, and their counts.
        """
        from embbench.embeddings.models._panel import stream_of

        if self.order == "data":
            return np.arange(len(gene))[: self.length]
        places = np.argsort(gene)
        if self.order == "count":
            return places[np.argsort(-value[places], kind="stable")][: self.length]
        if self.order == "vocabulary" and len(gene) <= self.length:
            return places
        drawn = stream_of("transcriptformer", self.seed, gene, value).permutation(len(gene))[: self.length]
        return places[drawn if self.order == "random" else np.sort(drawn)]

    def forward(self, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Rows after ``layer``, and their mean or scaled sum.

        Padding needs no mask: it is on the right, where no real row looks.
        """
        token, count = batch.fields
        h = self.table[token]
        if self.assay is not None:
            h = torch.cat([self.assay.expand(len(h), 1, -1), h], dim=1)
            count = torch.cat([torch.ones_like(count[:, :1]), count], dim=1)
        bias = torch.log1p(count + self.epsilon)
        for block in self.blocks[:layer]:
            h = block(h, bias)
        rows = h if self.assay is None else h[:, 1:]
        total = (rows.float() * batch.real[..., None]).sum(dim=1)
        return rows, total / (self.length if self.readout == "official" else batch.lengths[:, None])


def read_table(t: Tensors, rows: np.ndarray, total: int, d: int) -> Tensor:
    """``MLP(E)`` of the tokens in use, shape (tokens, d): the frozen vectors themselves are not needed any more."""
    from embbench.embeddings.models._run import all_threads

    proteins = t.take("gene_embeddings.embedding.weight", total, None)
    first = linear(t, "gene_embeddings.mlp.layers.0", None, proteins.shape[1])
    scaled = norm(t, "gene_embeddings.mlp.layers.2", first.weight.shape[0], EPSILON)
    second = linear(t, "gene_embeddings.mlp.layers.4", d, first.weight.shape[0])
    chunks = np.split(rows, range(CHUNK, len(rows), CHUNK))
    with all_threads(), torch.no_grad():
        return torch.cat([second(scaled(functional.relu(first(proteins[chunk])))) for chunk in chunks])


def read_layer(t: Tensors, at: str, sizes: Mapping[str, Any]) -> Layer:
    """One layer of the checkpoint, shapes checked against the configuration."""
    d, inner, activation = sizes["embed_dim"], sizes["model_dim"], str(sizes.get("activation", "gelu"))
    if activation not in ACTIVATIONS:
        raise t.error(f"expected activation of {', '.join(ACTIVATIONS)}, found {activation!r}")
    biases = {name: bool(sizes.get(name, False)) for name in ("attn_bias", "fw_bias")}
    maps = [linear(t, f"{at}self_attn.linears.{j}", d, d, bias=biases["attn_bias"]) for j in range(4)]
    shifts = [m.bias for m in maps[:3] if m.bias is not None]
    return Layer(
        qkv=Linear(torch.cat([m.weight for m in maps[:3]]), torch.cat(shifts) if shifts else None),
        out=maps[3],
        heads=sizes["num_heads"],
        cap=float(sizes.get("softcap", 0)),
        norm1=norm(t, f"{at}norm1", d, EPSILON),
        up=linear(t, f"{at}linear1", inner, d, bias=biases["fw_bias"]),
        down=linear(t, f"{at}linear2", d, inner, bias=biases["fw_bias"]),
        norm2=norm(t, f"{at}norm2", d, EPSILON),
        activation=activation,
    )
