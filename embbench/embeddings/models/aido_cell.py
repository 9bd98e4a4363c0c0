"""AIDO.Cell: static, contextual gene and cell vectors from a published folder (config.json, model.safetensors)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embbench.core import UserError
from embbench.embeddings.models._depth import (
    DEPTH_TOKENS,
    DepthModel,
    check_rows,
    expression,
    labels,
    masked_mean,
    number,
    positive,
    read_genes,
    value_embedding,
)
from embbench.embeddings.models._network import NetworkDefaults

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors
    from embbench.embeddings.models._depth import ValueEmbedding
    from embbench.embeddings.models._layers import Block, Norm
    from embbench.embeddings.models._panel import Panel
    from embbench.embeddings.models._run import Batch, Cell

READOUTS = ("present", "all")
NORMS = ("LayerNorm", "RMSNorm")
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
HEADS = ("cls.", "pooler.", "bert.pooler.", "model.pooler.")  # of the pretraining classes
UNUSED = tuple(f"gene_embedding.{kind}_embedding." for kind in ("mask", "pad"))  # no position is masked or padded
LEAST_DEPTH = 5.0  # log10 of counts; smaller cells are fed as if they had 1e5
LARGEST = 20.0
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
FIXED = {"model_type": "cellfoundation", "hidden_act": "swiglu", "position_embedding_type": "absolute"}


class AidoCell(DepthModel):
    """AIDO.Cell (Ho et al. 2024): all 19,264 genes of a cell and two depth tokens in a pre-norm transformer.

    ``x = ln(1 + 1e4 count / total)``, depth tokens ``max(log10 total, 5)``; ``h0 = V(x) + P[position]``; layers
    ``h = h + A(N(h)); h = h + down(silu(gate N(h)) * up N(h))``; the last state is ``N(h)``. Every position attends to
    every position, also to genes that the screen does not measure (fed as 0). Static vectors are ``P``, which hardly
    depend on biology; contextual ones are means over all control cells.

    Parameters
    ----------
    checkpoint, level, layer, mode, cells, seed, metacells, precision, device, batch : see `CellModel`.
    genes, average, total : see `DepthModel`.
    readout : mean that is the cell vector: over ``present`` positions (measured genes and depth tokens) or ``all``.

    Notes
    -----
    Attention over 19,266 positions costs about 9, 24 and 141 s per cell for 3M, 10M and 100M on two cores: take few
    ``cells``, ``metacells`` or a GPU.

    References
    ----------
    Ho et al. (2024), bioRxiv 2024.11.28.625303, "Architecture" and "Preprocessing".

    Examples
    --------
    >>> AidoCell("hf:genbio-ai/AIDO.Cell-3M@main").title
    'aido-cell-3m'
    """

    title: ClassVar[str] = "aido-cell"
    wanted: ClassVar[tuple[str, ...]] = ("config.json", "model.safetensors")
    where: ClassVar[str] = (
        "Download a folder genbio-ai/AIDO.Cell-3M, -10M or -100M of huggingface.co (GenBio AI Community License, "
        "non-commercial)"
    )

    def __init__(
        self, checkpoint: str | None = None, level: str = "static", readout: str = "present", **more: Any
    ) -> None:
        super().__init__(checkpoint, level, **more)
        if readout not in READOUTS:
            raise ValueError(f"AidoCell: readout must be one of {', '.join(READOUTS)}, got {readout!r}")
        self.readout = readout
        size = re.search(r"AIDO\.Cell-(\w+)", self.checkpoint or "")
        self.title = f"aido-cell-{size[1].lower()}" if size else type(self).title  # type: ignore[misc]  # as users type it

    def files(self) -> tuple[Path, ...]:
        """The configuration, the weights in the form that is there, the gene list."""
        from embbench.embeddings.models._checkpoint import present

        folder = self.folder()
        weights = next((name for name in WEIGHTS if (folder / name).is_file()), WEIGHTS[0])
        return (folder / self.wanted[0], *present(folder, [weights]), self.gene_list())

    def load(self, folder: Path) -> Network:
        """The encoder of a published folder; every tensor of it is checked."""
        from embbench.embeddings.models._checkpoint import Tensors, find_file, read_json, read_state

        path = folder / self.wanted[0]
        config = read_json(path)
        if wrong := {k: config[k] for k, v in FIXED.items() if config.get(k, v) != v}:
            raise UserError(f"{path}: expected { ({k: FIXED[k] for k in wrong}) }, found {wrong}; is it AIDO.Cell?")
        sizes = positive({k: config.get(k) for k in SIZES}, path, "AIDO.Cell")
        if (
            sizes["hidden_size"] % sizes["num_attention_heads"]
            or config.get("normalization_type", NORMS[0]) not in NORMS
        ):
            raise UserError(
                f"{path}: expected heads that divide hidden_size and normalization_type of {NORMS}, found {sizes} and "
                f"{config.get('normalization_type')!r}"
            )
        weights = find_file(folder, WEIGHTS, "AIDO.Cell")
        t = Tensors("AIDO.Cell", weights, read_state(weights)).ignore(*HEADS).strip("bert.", "model.")
        return _network(t.ignore(*UNUSED), read_genes(self.gene_list()), sizes, config, self)


def _network(
    t: Tensors, vocabulary: tuple[str, ...], sizes: dict[str, int], config: dict[str, Any], model: AidoCell
) -> Network:
    from embbench.embeddings.models._layers import Block, RMSNorm, attention, linear, norm

    d, depth, heads, inner = (sizes[k] for k in SIZES)
    bias, eps = bool(config.get("add_linear_bias", True)), number(config, "layer_norm_eps", 1e-5, t)

    def normed(key: str) -> Norm:
        if config.get("normalization_type", NORMS[0]) == "RMSNorm":
            return RMSNorm(t.take(f"{key}.weight", d), None, eps)
        return norm(t, key, d, eps)

    check_rows(t, "position_embedding.weight", DEPTH_TOKENS, len(vocabulary))
    if (found := t.count("encoder.layer.{}.")) != depth:
        raise UserError(f"{t.path}: config.json says {depth} layers, found {found}; download the folder again")
    blocks = []
    for i in range(depth):
        at = f"encoder.layer.{i}"
        keys = tuple(f"{at}.attention.self.{part}" for part in ("query", "key", "value"))
        attend = attention(t, keys, f"{at}.attention.output.dense", d, heads, bias=bias)
        up, gate = (linear(t, f"{at}.mlp.{part}_proj", inner, d, bias=bias) for part in ("up", "gate"))
        down = linear(t, f"{at}.mlp.down_proj", d, inner, bias=bias)
        norms = normed(f"{at}.attention.ln"), normed(f"{at}.ln")
        blocks.append(Block(attend, norms[0], up, down, norms[1], "silu", post=False, gate=gate))
    keys = tuple(f"gene_embedding.{part}" for part in ("linear1", "linear2", "lookup_table"))
    made = Network(
        vocabulary=vocabulary,
        genes=np.arange(len(vocabulary)),
        values=value_embedding(t, (keys[0], keys[1], keys[2]), d, config),
        positions=t.take("position_embedding.weight", len(vocabulary) + DEPTH_TOKENS, d),
        blocks=tuple(blocks),
        norm=normed("encoder.ln"),
        readout=model.readout,
        average=model.average,
        total=model.total,
    )
    t.finish()
    return made


@dataclass(frozen=True)
class Network(NetworkDefaults):
    """The AIDO.Cell encoder; see `embbench.embeddings.models._run.Network` for what a network offers."""

    vocabulary: tuple[str, ...]
    genes: np.ndarray
    values: ValueEmbedding
    positions: Tensor
    blocks: tuple[Block, ...]
    norm: Norm
    readout: str
    average: str
    total: str
    everything: ClassVar[bool] = True
    needs_depth: ClassVar[bool] = True
    pads: ClassVar[tuple[float, ...]] = (0.0, 0.0)  # never used: all cells have the same length
    aliases: ClassVar[dict[str, str]] = {}

    @property
    def width(self) -> int:
        """Width of a state."""
        return int(self.positions.shape[1])

    def static(self) -> Tensor:
        """Position vectors of the genes, shape (genes, d)."""
        return self.positions[: len(self.genes)]

    def cell(self, panel: Panel, i: int) -> Cell:
        """Every gene's value and the two depth tokens; beside them which positions are present."""
        from embbench.embeddings.models._run import Cell

        n = len(self.genes)
        gene, value, total = expression(panel, i, self.total)
        x = np.zeros(n + DEPTH_TOKENS, dtype=np.float32)
        x[gene] = np.minimum(value, LARGEST)
        x[n:] = max(np.log10(total), LEAST_DEPTH) if total > 0 else LEAST_DEPTH
        present = np.ones(n + DEPTH_TOKENS, dtype=bool)
        if self.readout == "present":
            present[:n] = np.isin(self.genes, panel.index)
        return Cell(labels(panel, n, gene, self.average), (x, present))

    def forward(self, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Rows after ``layer`` and their mean over the present positions."""
        x, present = batch.fields
        h = self.values(x).add_(self.positions)
        for block in self.blocks[:layer]:
            h = block(h)
        if layer == self.layers:
            h = self.norm(h)
        return h, masked_mean(h, present)
