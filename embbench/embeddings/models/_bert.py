"""The BERT encoder of a published Hugging Face folder, whatever its tokens are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors
    from embbench.embeddings.models._layers import Block, Norm

SIZES = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "max_position_embeddings")


def bert(t: Tensors, config: dict[str, Any], words: int) -> tuple[Tensor, Tensor, Norm, tuple[Block, ...]]:
    """The encoder of Devlin et al. (2019), arXiv:1810.04805, under transformers' names without ``bert.``.

    Parameters
    ----------
    t : the tensors; heads are the caller's.
    config : of the folder, with `SIZES`.
    words : number of tokens.

    Returns
    -------
    Word vectors (words, d), position vectors with that of token type 0 added, their norm, and the layers.

    Raises
    ------
    UserError
        A size, an activation or a tensor is missing or does not fit.
    """
    from embbench.embeddings.models._layers import ACTIVATIONS, Block, attention, linear, norm

    if lost := [key for key in (*SIZES, "hidden_act") if key not in config]:
        raise t.error(f"config.json does not say {', '.join(lost)}")
    d, heads, layers, inner, positions = (config[key] for key in SIZES)
    eps, activation = float(config.get("layer_norm_eps", 1e-12)), config["hidden_act"]  # 1e-12: default of BertConfig
    if activation not in ACTIVATIONS:
        raise t.error(f"expected hidden_act of {', '.join(ACTIVATIONS)} in config.json, found {activation!r:.40}")
    found = t.count("encoder.layer.{}.")
    if found != layers:
        raise t.error(f"config.json says {layers} layers, found {found}")
    blocks = []
    for i in range(layers):
        at = f"encoder.layer.{i}."
        keys = tuple(f"{at}attention.self.{name}" for name in ("query", "key", "value"))
        attend = attention(t, keys, f"{at}attention.output.dense", d, heads)
        norms = [norm(t, f"{at}{where}output.LayerNorm", d, eps) for where in ("attention.", "")]
        up, down = linear(t, f"{at}intermediate.dense", inner, d), linear(t, f"{at}output.dense", d, inner)
        blocks.append(Block(attend, norms[0], up, down, norms[1], activation, post=True))
    table = t.take("embeddings.word_embeddings.weight", words, d)
    kinds = t.take("embeddings.token_type_embeddings.weight", None, d)
    start = t.take("embeddings.position_embeddings.weight", positions, d) + kinds[0]
    return table, start, norm(t, "embeddings.LayerNorm", d, eps), tuple(blocks)
