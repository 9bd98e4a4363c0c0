"""The few inference-only pieces that the published transformers share: linear maps, norms, attention, blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors

T = TypeVar("T")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


def to(thing: T, **where: Any) -> T:
    """A dataclass of tensors (nested, in tuples too) with every floating tensor moved: ``device=``, ``dtype=``."""
    if isinstance(thing, torch.Tensor):
        kept = where if thing.is_floating_point() else {k: v for k, v in where.items() if k != "dtype"}
        return thing.to(**kept)
    if isinstance(thing, tuple | list):
        return type(thing)(to(x, **where) for x in thing)  # type: ignore[return-value]
    if hasattr(thing, "__dataclass_fields__"):
        return replace(thing, **{f.name: to(getattr(thing, f.name), **where) for f in fields(thing)})
    return thing


@dataclass(frozen=True)
class Linear:
    """``x W^T + b``: weight of shape (out, in), bias (out,) or None."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the last axis (Ba et al. 2016, arXiv:1607.06450, equation 4)."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Normalised (..., d)."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class RMSNorm(Norm):
    """Root mean square normalisation over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467, equation 4)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Normalised (..., d)."""
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


def linear(t: Tensors, key: str, out: int | None, width: int | None, *, bias: bool = True) -> Linear:
    """The linear map ``key``.weight, ``key``.bias of a checkpoint, shapes checked (None: any)."""
    weight = t.take(f"{key}.weight", out, width)
    return Linear(weight, t.take(f"{key}.bias", weight.shape[0]) if bias else None)


def norm(t: Tensors, key: str, width: int, eps: float) -> Norm:
    """The layer norm ``key``.weight, ``key``.bias of a checkpoint."""
    return Norm(t.take(f"{key}.weight", width), t.take(f"{key}.bias", width), eps)


@dataclass(frozen=True)
class Attention:
    """Multi-head self-attention, ``softmax(Q K^T / sqrt(d_h) + bias) V`` (Vaswani et al. 2017, equation 1).

    Parameters
    ----------
    qkv : (d, 3 d) map whose rows are query, key and value blocks, heads inside each.
    out : (d, d) map.
    heads : number of heads.
    """

    qkv: Linear
    out: Linear
    heads: int

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend within each sequence.

        Parameters
        ----------
        x : shape (b, n, d).
        mask : broadcastable to (b, heads, n, n): True where a key may be seen, or a float bias; None: all keys.
        """
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(seen.transpose(1, 2).reshape(b, n, -1))


def attention(t: Tensors, keys: tuple[str, ...], out: str, width: int, heads: int, *, bias: bool = True) -> Attention:
    """Attention from one fused map (``keys`` of length 1, a prefix such as ``self_attn.in_proj_``) or from three.

    A fused prefix ends in ``_`` or ``.``: ``in_proj_`` + ``weight``; separate prefixes are those of `linear`.
    """
    if len(keys) == 1:
        fused = Linear(
            t.take(f"{keys[0]}weight", 3 * width, width), t.take(f"{keys[0]}bias", 3 * width) if bias else None
        )
    else:
        parts = [linear(t, key, width, width, bias=bias) for key in keys]
        fused = Linear(
            torch.cat([p.weight for p in parts]),
            torch.cat([p.bias for p in parts if p.bias is not None]) if bias else None,
        )
    return Attention(fused, linear(t, out, width, width, bias=bias), heads)


@dataclass(frozen=True)
class Block:
    """One transformer layer: attention and a two-layer map, with the norm after (post) or before (pre) each.

    Post: ``h = N1(h + A(h)); h = N2(h + F(h))`` (Vaswani et al. 2017). Pre: ``h = h + A(N1(h)); h = h + F(N2(h))``
    (Xiong et al. 2020, arXiv:2002.04745). With ``gate``, ``F(x) = down(act(gate x) * up x)`` (Shazeer 2020,
    arXiv:2002.05202), else ``down(act(up x))``.
    """

    attend: Attention
    norm1: Norm
    up: Linear
    down: Linear
    norm2: Norm
    activation: str
    post: bool
    gate: Linear | None = None

    def feed(self, x: Tensor) -> Tensor:
        """The position-wise map of (b, n, d)."""
        act = ACTIVATIONS[self.activation]
        inner = act(self.up(x)) if self.gate is None else act(self.gate(x)) * self.up(x)
        return self.down(inner)

    def __call__(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """States of shape (b, n, d) after the layer; ``mask`` as in `Attention`."""
        if self.post:
            h = self.norm1(h + self.attend(h, mask))
            return self.norm2(h + self.feed(h))
        h = h + self.attend(self.norm1(h), mask)
        return h + self.feed(self.norm2(h))


def key_mask(real: Tensor) -> Tensor | None:
    """Attention mask of shape (b, 1, 1, n) from the real positions (b, n); None when nothing is padded.

    Without a mask torch picks its fused kernels, which are about twice as fast.
    """
    return None if bool(real.all()) else real[:, None, None, :]
