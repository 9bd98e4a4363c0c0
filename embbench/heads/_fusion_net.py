"""The network that attends over several embeddings of a row, for several members at once."""

from __future__ import annotations

import torch
from torch import nn


class Stack(nn.Module):
    """One linear map for each of K members, (K, ..., n_in) to (K, ..., n_out); ``zero`` starts all of them at 0."""

    def __init__(self, members: int, n_in: int, n_out: int, *, zero: bool = False, bias: bool = True) -> None:
        super().__init__()
        bound = 0.0 if zero else max(1, n_in) ** -0.5
        self.weight = nn.Parameter(torch.empty(members, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, n_out)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The maps of each member's own values."""
        flat = x.reshape(len(x), -1, x.shape[-1])
        out = flat @ self.weight if self.bias is None else torch.baddbmm(self.bias, flat, self.weight)
        return out.reshape(*x.shape[:-1], out.shape[-1])


class Layer(nn.Module):
    """Transformer encoder layer for K members, normalised before attention and before the feed-forward map."""

    def __init__(self, members: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.qkv, self.out = Stack(members, width, 3 * width), Stack(members, width, width)
        self.wide, self.narrow = Stack(members, width, 2 * width), Stack(members, 2 * width, width)

    def forward(self, tokens: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Tokens (K, n, t, width) after one layer; no token looks at one that is not ``seen`` (K, n, t) bool."""
        q, k, v = self.qkv(_norm(tokens)).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, :, None, None, :])
        tokens = tokens + self.dropout(self.out(mixed.transpose(2, 3).flatten(-2)))
        return tokens + self.dropout(self.narrow(self.dropout(nn.functional.gelu(self.wide(_norm(tokens))))))


def _norm(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.layer_norm(x, x.shape[-1:])


class FusionNet(nn.Module):
    """K members: one token per block, a context token and a query token whose last state gives the output; beside it a
    linear map of blocks and context. All outputs start at 0.

    Parameters
    ----------
    members, n_out : K, and outputs of each.
    slices : columns of each block in the features.
    n_context : width of the context's numbers.
    width, heads, depth, dropout : of the encoder; ``heads`` divides ``width``.

    References
    ----------
    Vaswani et al. (2017), Attention is all you need, section 3.2; attention pooling of gene embeddings from several
    sources: Littman et al. (2025), PRESAGE; the query token: Devlin et al. (2019), BERT, section 3.
    """

    def __init__(
        self, members: int, n_out: int, slices: tuple[slice, ...], n_context: int, width: int, heads: int, depth: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.slices = slices
        self.inlets = nn.ModuleList(Stack(members, s.stop - s.start, width) for s in slices)
        self.context, self.query = Stack(members, n_context, width), nn.Parameter(torch.randn(members, 1, width) * 0.1)
        self.layers = nn.ModuleList(Layer(members, width, heads, dropout) for _ in range(depth))
        self.dropout, self.outlet = nn.Dropout(dropout), Stack(members, width, n_out, zero=True)
        n_in = n_context + sum(s.stop - s.start for s in slices)
        self.direct = Stack(members, n_in, n_out, zero=True, bias=False)

    def forward(self, x: torch.Tensor, context: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Outputs (K, n, n_out) of features (K, n, d) and contexts (K, n, p); ``keep`` (K, n, blocks) masks blocks."""
        parts = [x[..., s] * keep[..., b, None] for b, s in enumerate(self.slices)]
        blocks = [inlet(part) for inlet, part in zip(self.inlets, parts, strict=True)]
        query = self.query[:, None].expand(-1, x.shape[1], -1, -1).squeeze(2)
        tokens = torch.stack([query, self.context(context), *blocks], dim=2)
        seen = torch.cat([keep.new_ones(*keep.shape[:2], 2), keep], dim=2)
        for layer in self.layers:
            tokens = layer(tokens, seen)
        pooled = self.dropout(nn.functional.silu(_norm(tokens[:, :, 0])))
        out: torch.Tensor = self.outlet(pooled) + self.direct(torch.cat([*parts, context], dim=-1))
        return out


def drop_blocks(found: torch.Tensor, share: float) -> torch.Tensor:
    """Modality dropout: ``found`` (..., blocks) with a random ``share`` of the marks gone, never the last of a row.

    References
    ----------
    Neverova et al. (2016), ModDrop, section 4.
    """
    luck = torch.rand(found.shape, device=found.device)
    kept = found & (luck >= share)
    best = torch.where(found, luck, -1.0).argmax(dim=-1, keepdim=True)
    rescued = torch.zeros_like(found).scatter(-1, best, value=True) & found
    return torch.where(kept.any(dim=-1, keepdim=True), kept, rescued)
