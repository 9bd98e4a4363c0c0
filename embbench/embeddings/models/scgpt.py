"""scGPT: static, contextual gene and cell vectors from a published folder (args.json, vocab.json, best_model.pt)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embbench.core import UserError
from embbench.embeddings.models._model import CellModel
from embbench.embeddings.models._network import NetworkDefaults

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors
    from embbench.embeddings.models._layers import Block, Linear, Norm
    from embbench.embeddings.models._panel import Panel
    from embbench.embeddings.models._run import Batch, Cell

TIES = ("mid", "up", "low", "random")
TRUNCATION = ("random", "top")
SPECIAL = ("<pad>", "<cls>", "<eoc>")
EPSILON = 1e-5  # torch's LayerNorm default, which the published model uses
LARGEST = 512.0  # the value encoder of the published model clamps its input here
UNUSED = ("decoder.", "cls_decoder.", "mvc_decoder.", "grad_reverse_discriminator.", "sim.", "creterion_cce.")
ATTENTION = (("self_attn.Wqkv.", ""), ("self_attn.in_proj_", ""), ("self_attn._impl.Wqkv.", "_impl."))


class ScGPT(CellModel):
    """scGPT (Cui et al. 2024): expressed genes with binned counts, a ``<cls>`` token, a post-norm transformer.

    ``h0 = LN(E[gene]) + LN(W2 relu(W1 min(x, 512)))``, then layers ``h = LN(h + A(h)); h = LN(h + W2 relu(W1 h))``.
    Static vectors are ``LN(E[gene])``; a contextual vector is the mean of a gene's rows over cells that express it;
    the cell vector is the ``<cls>`` row divided by its norm. The values of a cell are ranks in 50 quantiles of its
    own non-zero values, so any scale of counts serves.

    Parameters
    ----------
    checkpoint, level, layer, mode, cells, seed, metacells, precision, device, batch : see `CellModel`.
    ties : bin of a value that lies on a repeated quantile, almost always so for counts of 1 and 2: ``mid`` (middle of
        the range), ``up``, ``low``, or ``random`` as the official code draws it (here seeded by the cell's content).
    max_length : tokens of a cell, ``<cls>`` included.
    truncate : genes kept in longer cells: ``random`` (as the official code, seeded by the cell's content) or ``top``.

    References
    ----------
    Cui et al. (2024), scGPT, Nature Methods 21, 1470-1480, "Input embeddings" and "Cell representation".

    Examples
    --------
    >>> [path.name for path in ScGPT("whole-human").files()]
    ['best_model.pt', 'vocab.json', 'args.json']
    """

    title: ClassVar[str] = "scgpt"
    wanted: ClassVar[tuple[str, ...]] = ("best_model.pt", "vocab.json", "args.json")
    where: ClassVar[str] = (
        "Download a model folder (whole-human) from the public scGPT model zoo, linked in the README of "
        "github.com/bowang-lab/scGPT (MIT licence), and put the files there"
    )

    def __init__(
        self,
        checkpoint: str | None = None,
        level: str = "static",
        ties: str = "mid",
        max_length: int = 1200,
        truncate: str = "random",
        **run: Any,
    ) -> None:
        super().__init__(checkpoint, level, **run)
        if ties not in TIES or truncate not in TRUNCATION:
            raise ValueError(f"ScGPT: ties of {TIES} and truncate of {TRUNCATION}, got {ties!r} and {truncate!r}")
        if not isinstance(max_length, int) or max_length < 2:
            raise ValueError(f"ScGPT: max_length must be an integer >= 2, got {max_length!r}")
        self.ties, self.max_length, self.truncate = ties, max_length, truncate

    def load(self, folder: Path) -> Network:
        """The encoder of a published folder; every tensor of it is checked."""
        from embbench.embeddings.models._checkpoint import Tensors, read_json, read_state

        arguments, vocabulary = read_json(folder / "args.json"), _vocabulary(folder / "vocab.json")
        sizes = {k: arguments.get(k) for k in ("embsize", "nheads", "d_hid", "nlayers")}
        if not all(isinstance(v, int) and v > 0 for v in sizes.values()) or sizes["embsize"] % sizes["nheads"]:
            raise UserError(f"{folder / 'args.json'}: expected sizes that fit, found {sizes}; is it scGPT?")
        style = arguments.get("input_emb_style", "continuous")
        if style != "continuous" or arguments.get("pre_norm", False):
            raise UserError(
                f"{folder / 'args.json'}: expected input_emb_style continuous and post-norm layers (all published "
                f"models), found {style!r} and pre_norm {arguments.get('pre_norm', False)}"
            )
        path = folder / "best_model.pt"
        t = Tensors("scGPT", path, read_state(path)).strip("module.").ignore(*UNUSED)
        return _network(t, vocabulary, sizes, arguments, (self.ties, self.max_length, self.truncate, self.seed))


def _vocabulary(path: Path) -> tuple[str, ...]:
    """Token names by number; the special tokens that are missing are appended, as the official code does."""
    from embbench.embeddings.models._checkpoint import read_json

    table = read_json(path)
    names = sorted(table, key=lambda name: table[name] if isinstance(table[name], int) else -1)
    if not names or [table[name] for name in names] != list(range(len(names))):
        found = "gaps, repeats or no numbers" if names else "no token"
        raise UserError(f"{path}: expected tokens numbered 0 to {max(len(table) - 1, 0)}, found {found}")
    return (*names, *(s for s in SPECIAL if s not in table))


def _network(
    t: Tensors, vocabulary: tuple[str, ...], sizes: dict[str, int], arguments: dict[str, Any], choices: tuple
) -> Network:
    from embbench.embeddings.models._layers import Block, attention, linear, norm

    d, inner = sizes["embsize"], sizes["d_hid"]
    layers = t.count("transformer_encoder.layers.{}.")
    if layers != sizes["nlayers"]:
        raise UserError(
            f"{t.path}: args.json says {sizes['nlayers']} layers, found {layers}; download the folder again"
        )
    first = "transformer_encoder.layers.0."
    fused, extra = next(((k, e) for k, e in ATTENTION if t.has(f"{first}{k}weight")), ATTENTION[0])
    blocks = []
    for i in range(layers):
        at = f"transformer_encoder.layers.{i}."
        attend = attention(t, (f"{at}{fused}",), f"{at}self_attn.{extra}out_proj", d, sizes["nheads"])
        up, down = linear(t, f"{at}linear1", inner, d), linear(t, f"{at}linear2", d, inner)
        norms = [norm(t, f"{at}norm{k}", d, EPSILON) for k in (1, 2)]
        blocks.append(Block(attend, norms[0], up, down, norms[1], "relu", post=True))
    table = t.take("encoder.embedding.weight", len(vocabulary), d)
    values = (linear(t, "value_encoder.linear1", d, 1), linear(t, "value_encoder.linear2", d, d))
    made = Network(
        vocabulary=vocabulary,
        genes=np.array([i for i, name in enumerate(vocabulary) if name not in SPECIAL]),
        table=table,
        norm=norm(t, "encoder.enc_norm", d, EPSILON),
        values=values,
        value_norm=norm(t, "value_encoder.norm", d, EPSILON),
        blocks=tuple(blocks),
        pads=(vocabulary.index(str(arguments.get("pad_token", SPECIAL[0]))), float(arguments.get("pad_value", -2))),
        cls=vocabulary.index(SPECIAL[1]),
        bins=int(arguments.get("n_bins", 51)),
        ties=choices[0],
        max_length=choices[1],
        truncate=choices[2],
        seed=choices[3],
    )
    t.finish()
    return made


@dataclass(frozen=True)
class Network(NetworkDefaults):
    """The scGPT encoder; see `embbench.embeddings.models._run.Network` for what a network offers."""

    vocabulary: tuple[str, ...]
    genes: np.ndarray
    table: Tensor
    norm: Norm
    values: tuple[Linear, Linear]
    value_norm: Norm
    blocks: tuple[Block, ...]
    pads: tuple[int, float]
    cls: int
    bins: int
    ties: str
    max_length: int
    truncate: str
    seed: int
    aliases: ClassVar[dict[str, str]] = {}

    @property
    def width(self) -> int:
        """Width of a state."""
        return int(self.table.shape[1])

    def static(self) -> Tensor:
        """``LN(E[gene])``, shape (genes, d)."""
        return self.norm(self.table[self.genes])

    def cell(self, panel: Panel, i: int) -> Cell:
        """``<cls>`` with the pad value, then the expressed genes with their bins."""
        from embbench.embeddings.models._panel import stream_of
        from embbench.embeddings.models._run import Cell

        gene, value = panel.cell(i)
        stream = stream_of("scgpt", self.seed, gene, value)
        bins = quantile_bins(value, self.bins, self.ties, stream)
        room = self.max_length - 1
        if len(gene) > room:
            chosen = stream.permutation(len(gene)) if self.truncate == "random" else np.argsort(-value, kind="stable")
            kept = np.sort(chosen[:room])
            gene, bins = gene[kept], bins[kept]
        token = np.concatenate([[self.cls], gene])
        return Cell(
            label=np.concatenate([[-1], gene]),
            fields=(token, np.concatenate([[self.pads[1]], bins]).astype(np.float32)),
        )

    def forward(self, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Rows after ``layer`` and ``<cls>`` rows of norm 1."""
        from torch.nn import functional

        from embbench.embeddings.models._layers import key_mask

        token, value = batch.fields
        first, second = self.values
        coded = second(functional.relu(first(value.clamp(max=LARGEST)[..., None])))
        h = self.norm(self.table[token]) + self.value_norm(coded)
        mask = key_mask(batch.real)
        for block in self.blocks[:layer]:
            h = block(h, mask)
        return h, functional.normalize(h[:, 0].float(), dim=-1)


def quantile_bins(values: np.ndarray, bins: int, ties: str, stream: np.random.Generator) -> np.ndarray:
    """Bins 1..``bins - 1`` of a cell's positive values among the ``bins - 1`` quantiles of these values.

    A value between two quantiles has one bin; one that equals several lies between ``right + 1`` and ``left``, the
    numbers of quantiles below it and up to it, and ``ties`` says where.

    Parameters
    ----------
    values : shape (k,), > 0.
    bins, ties : see `ScGPT`; 0 is the bin of zero.
    stream : for ``ties="random"``.

    Examples
    --------
    >>> quantile_bins(np.array([1.0, 1, 1, 4]), 5, "mid", np.random.default_rng(0)).tolist()
    [2.0, 2.0, 2.0, 4.0]
    """
    if not len(values):
        return np.zeros(0)
    edges = np.quantile(values.astype(np.float64), np.linspace(0, 1, bins - 1))
    left, right = np.digitize(values, edges), np.digitize(values, edges, right=True)
    if ties == "up":
        return left.astype(np.float64)
    if ties == "low":
        return np.where(left > right, right + 1, left).astype(np.float64)
    share = stream.random(len(values)) if ties == "random" else 0.5
    return np.ceil(left + share * (right - left))
