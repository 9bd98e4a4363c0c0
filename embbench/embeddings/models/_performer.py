"""The performer decoder of scFoundation: attention by positive random features, linear in the number of positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embbench.embeddings.models._layers import Attention, Block, Linear, Norm, linear, norm

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors

FLOOR = 1e-4  # added to every feature by the published code, so that no denominator vanishes
MULTIPLE = 4  # width inside a layer's position-wise map, in widths


@dataclass(frozen=True)
class FeatureAttention(Attention):
    """Attention ``f(Q) (f(K)^T V) / f(Q) (f(K)^T 1)`` with ``f(x) = exp(W x - |x|^2 / 2)``, x divided by ``d_h^(1/4)``.

    FAVOR+ (Choromanski et al. 2021, arXiv:2009.14794, equations 4 and 5). The factor ``m^(-1/2)`` of the features
    cancels in the quotient. As in the published code exponents are lowered by their maximum, of each query and of all
    keys, and `FLOOR` is added after that, so the maximum over keys moves results by up to 1e-3.

    Parameters
    ----------
    qkv, out, heads : see `Attention`; here ``qkv`` maps to three blocks of heads x d_h.
    projection : shape (m, d_h), W as stored in the checkpoint.
    together : maximum over the keys of all cells of a batch, as the published code, not of each cell.
    """

    projection: Tensor
    together: bool

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend within each sequence of (b, n, d); every position is a key, so ``mask`` must be None."""
        import torch

        if mask is not None:
            raise ValueError(f"FeatureAttention: every position is a key, got a mask of shape {tuple(mask.shape)}")
        b, n, _ = x.shape
        fused = self.qkv(x)
        with torch.autocast(x.device.type, enabled=False):  # sums of 19,266 exponentials need float32
            q, k, v = fused.float().view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            feature = self._features(k, None if self.together else (1, 2, 3))
            context, normaliser = feature.transpose(-1, -2) @ v, feature.sum(-2)[..., None]
            del feature  # (b, heads, n, m): the largest tensor of the model
            feature = self._features(q, (3,))
            seen = (feature @ context).div_(feature @ normaliser)
        return self.out(seen.transpose(1, 2).reshape(b, n, -1))

    def _features(self, x: Tensor, over: tuple[int, ...] | None) -> Tensor:
        scaled = x * x.shape[-1] ** -0.25
        exponent = scaled @ self.projection.float().T
        peak = exponent.max() if over is None else exponent.amax(over, keepdim=True)
        return exponent.sub_(scaled.square().sum(-1, keepdim=True).div_(2)).sub_(peak).exp_().add_(FLOOR)


@dataclass(frozen=True)
class Decoder:
    """Encoder width to decoder width, pre-norm layers, two norms in a row."""

    embed: Linear
    blocks: tuple[Block, ...]
    inner: Norm
    outer: Norm

    def __call__(self, h: Tensor, layer: int) -> Tensor:
        """States of shape (b, n, e) of (b, n, d) after ``layer``; 0 is the input of the first, the last is normed."""
        h = self.embed(h)
        for block in self.blocks[:layer]:
            h = block(h)
        return self.outer(self.inner(h)) if layer == len(self.blocks) else h


def decoder(t: Tensors, width: int, sizes: dict[str, int], eps: float, *, together: bool) -> Decoder:
    """The decoder of a checkpoint.

    Parameters
    ----------
    t : keys without ``model.``.
    width : of the encoder.
    sizes : ``hidden_dim``, ``depth``, ``heads``, ``dim_head`` of the configuration.
    eps : of the norms.
    together : see `FeatureAttention`.

    Raises
    ------
    UserError
        A tensor is missing or of another shape; another number of layers.
    """
    d, heads, head = sizes["hidden_dim"], sizes["heads"], sizes["dim_head"]
    if (found := t.count("decoder.performer.net.layers.{}.")) != sizes["depth"]:
        raise t.error(f"expected the {sizes['depth']} decoder layers of its configuration, found {found}")
    blocks = []
    for i in range(sizes["depth"]):
        attend, feed = (f"decoder.performer.net.layers.{i}.{part}" for part in (0, 1))
        attention = FeatureAttention(
            qkv=_fused(t, tuple(f"{attend}.fn.to_{part}" for part in "qkv"), heads * head, d),
            out=linear(t, f"{attend}.fn.to_out", d, heads * head),
            heads=heads,
            projection=t.take(f"{attend}.fn.fast_attention.projection_matrix", None, head),
            together=together,
        )
        up, down = linear(t, f"{feed}.fn.fn.w1", MULTIPLE * d, d), linear(t, f"{feed}.fn.fn.w2", d, MULTIPLE * d)
        norms = norm(t, f"{attend}.norm", d, eps), norm(t, f"{feed}.norm", d, eps)
        blocks.append(Block(attention, norms[0], up, down, norms[1], "gelu", post=False))
    embed = linear(t, "decoder_embed", d, width)
    return Decoder(embed, tuple(blocks), norm(t, "decoder.norm", d, eps), norm(t, "norm", d, eps))


def _fused(t: Tensors, keys: tuple[str, ...], out: int, width: int) -> Linear:
    import torch

    parts = [linear(t, key, out, width) for key in keys]
    return Linear(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts if p.bias is not None]))
