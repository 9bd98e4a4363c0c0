"""scPRINT (version 1): static, contextual gene and cell vectors from a published Lightning checkpoint (.ckpt)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embbench.cache.weights import is_remote
from embbench.core import UserError
from embbench.embeddings.models._model import CellModel

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors
    from embbench.embeddings.models._scprint import Network

SEQUENCES = ("expressed", "panel", "all")
TRUNCATION = ("random", "top")
READOUTS = ("predicted", "classes", "all")
EPSILON = 1e-6  # of all norms of the transformer (simpler-flash)
TABLE = "gene_encoder.embeddings.weight"
OLDER = ("gene_encoder.embedding.weight", "gene_encoder.0.embedding.weight", "gene_encoder.0.embeddings.weight")
UNUSED = ("expr_decoder.", "cls_decoders.", "mvc_decoder.", "grad_reverse_discriminator_loss.", "bottleneck_mlps.")
# what other values would change in the forward pass; absent means the first
PLAIN: dict[str, tuple[Any, ...]] = {
    "attn_bias": ("none", None),
    "expr_emb_style": ("continuous",),
    "domain_spec_batchnorm": ("None", None, False),
    "cell_emb_style": ("cls",),
    "transformer": ("flash", "normal"),
    "prenorm": (True,),
}


class ScPRINT(CellModel):
    """scPRINT (Kalfon et al. 2025): label tokens, genes with counts and genomic positions, a pre-norm transformer.

    A gene's token is ``E[gene] + MLP(x) + P[gene]`` with ``x`` its count over the sum of the sequence (or ``log2(1 +
    count)``, as the checkpoint says), behind a token of the depth, one of the cell and one per label class. Static
    vectors are ``E[gene]`` (pooled protein vectors); a contextual vector is the mean of a gene's rows over the cells
    that had it in their sequence; the cell vector is the mean of label tokens. Rows are labelled in the model's order
    (the official extraction labels them in the order in which the user named the genes).

    Parameters
    ----------
    checkpoint : as in `CellModel`, and the ``.ckpt`` file itself.
    level, layer, mode, cells, seed, metacells, precision, device, batch : see `CellModel`; ``layer`` counts
        transformer layers, the last one followed by the final norm.
    file : name of the checkpoint in the folder or repository.
    sequence : genes of a cell's sequence, always in the model's order: ``expressed`` in the cell, the ``panel`` that
        was measured, or ``all`` of the model (those not measured with count 0).
    max_length : genes of a sequence at most (published models were trained on 2,200); null: no limit. Expressed genes
        come first, then genes with count 0 drawn by the cell's content (so ``all`` is the official ``random expr``).
    truncate : which expressed genes stay where there are more: ``random``, by the cell's content, or ``top`` counts.
    readout : label tokens of the cell vector: those that the checkpoint names (``predicted``, as the official code; all
        classes where it names none), of all ``classes``, of a list of classes; or ``all`` cell tokens, depth included.
    prefix : genes of the model to use, by how their Ensembl identifiers begin; ENSG is human, ENSMUSG mouse.

    References
    ----------
    Kalfon et al. (2025), scPRINT, Nature Communications 16, 3607, Methods, "Expression encoder" and "Model".

    Examples
    --------
    >>> ScPRINT("weights/small-v1.ckpt").files() == ScPRINT("weights", file="small-v1.ckpt").files()
    True
    """

    title: ClassVar[str] = "scprint"
    where: ClassVar[str] = (
        "Download small-v1.ckpt, medium-v1.5.ckpt or large-v1.ckpt of huggingface.co/jkobject/scPRINT, and put it there"
    )

    def __init__(
        self,
        checkpoint: str | None = None,
        level: str = "static",
        file: str = "large-v1.ckpt",
        sequence: str = "expressed",
        max_length: int | None = 2200,
        truncate: str = "random",
        readout: str | list[str] = "predicted",
        prefix: str = "ENSG",
        **run: Any,
    ) -> None:
        super().__init__(checkpoint, level, **run)
        for what, value, allowed in (
            ("sequence", sequence, SEQUENCES),
            ("truncate", truncate, TRUNCATION),
            ("readout", readout if isinstance(readout, str) else READOUTS[0], READOUTS),
        ):
            if value not in allowed:
                raise ValueError(f"ScPRINT: {what} must be one of {', '.join(allowed)}, got {value!r}")
        if not readout or not all(isinstance(name, str) for name in readout):
            raise ValueError(f"ScPRINT: readout must be one of {', '.join(READOUTS)} or names, got {readout!r}")
        if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
            raise ValueError(f"ScPRINT: max_length must be an integer >= 1 or null, got {max_length!r}")
        if not isinstance(file, str) or not file.endswith(".ckpt"):
            raise ValueError(f"ScPRINT: file must be the name of a .ckpt file, got {file!r}")
        self.file, self.sequence, self.max_length, self.truncate = file, sequence, max_length, truncate
        self.readout, self.prefix = readout, prefix
        itself = str(checkpoint).endswith(".ckpt")
        name = Path(str(checkpoint)).name if itself else file
        self.wanted = (name,)  # type: ignore[misc]  # one file per checkpoint
        self._itself = itself and not is_remote(str(checkpoint))
        size = name.partition("-")[0]
        if size in ("small", "medium", "large"):  # messages name the entry that can be fetched
            self.title = f"scprint-{size}"  # type: ignore[misc]

    def folder(self) -> Path:
        """The folder of the checkpoint, existing or not."""
        return Path(str(self.checkpoint)).expanduser().parent if self._itself else super().folder()

    def load(self, folder: Path) -> Network:
        """The encoder of a published checkpoint; every tensor of it is checked."""
        from embbench.embeddings.models._checkpoint import Tensors, read_lightning

        path = folder / self.wanted[0]
        state, given = read_lightning(path)
        newer = given.get("cell_specific_blocks") or isinstance(given.get("genes"), dict)
        if newer or any(key.startswith("cell_transformer.") for key in state):
            raise UserError(
                f"{path}: expected scPRINT version 1, found one with a separate cell transformer (cell_specific_blocks "
                f"{given.get('cell_specific_blocks')!r}: scPRINT-2), which is not supported; use small-v1.ckpt, "
                "medium-v1.5.ckpt or large-v1.ckpt"
            )
        t = Tensors("scPRINT", path, state).ignore(*UNUSED)
        for old in OLDER:
            t = t.rename(old, TABLE)
        _check(path, given, self.level)
        return _network(t, given, self)


def _check(path: Path, given: Mapping[str, Any], level: str) -> None:
    """Refuse settings under which the official forward pass is another one."""
    odd = {k: given[k] for k, allowed in PLAIN.items() if k in given and given[k] not in allowed}
    if level == "cell" and given.get("compress_class_dim") is not None:  # quantises label tokens only
        odd["compress_class_dim"] = given["compress_class_dim"]
    if given.get("normalization", "sum") not in ("sum", "log"):
        odd["normalization"] = given["normalization"]
    if odd:
        raise UserError(f"{path}: scPRINT with {odd} is not supported, expected the settings of the published models")


def _names(t: Tensors, given: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    """Names in the first setting that is there: a list, or the keys of a dict."""
    found = next((given[key] for key in keys if given.get(key)), ())
    names = tuple(found) if isinstance(found, list | tuple | dict) else ()
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise t.error(f"expected {keys[0]} in hyper_parameters as unique names, found {str(found)[:80]!r}")
    return names


def _network(t: Tensors, given: Mapping[str, Any], own: ScPRINT) -> Network:
    import torch

    from embbench.embeddings.models._layers import Block, linear, norm
    from embbench.embeddings.models._scprint import Network, read_attention, read_encoder

    genes, classes = _names(t, given, ("genes",)), _names(t, given, ("classes", "label_counts"))
    heads, kv = given.get("nhead"), given.get("num_heads_kv") or given.get("nhead")
    table = t.take(TABLE, len(genes), None)
    d = table.shape[1]
    if not (isinstance(heads, int) and isinstance(kv, int)) or min(heads, kv) < 1 or d % heads or heads % kv:
        raise t.error(f"expected heads that fit {d} columns, found nhead {heads!r} and num_heads_kv {kv!r}")
    layers = t.count("transformer.blocks.{}.")
    found = {"d_model": d, "nlayers": layers, "depth_atinput": t.has("depth_encoder.encoder.0.weight")}
    found |= {"use_metacell_token": t.has("metacell_encoder.embedding.weight")}
    if other := {k: v for k, v in found.items() if given.get(k, v) != v}:
        raise t.error(f"expected tensors as hyper_parameters say, found {other}, not { {k: given[k] for k in other} }")
    blocks = []
    for i in range(layers):
        at = f"transformer.blocks.{i}."
        up = linear(t, f"{at}mlp.fc1", None, d)
        down = linear(t, f"{at}mlp.fc2", d, up.weight.shape[0])
        norms = [norm(t, f"{at}norm{k}", d, EPSILON) for k in (1, 2)]
        blocks.append(
            Block(read_attention(t, f"{at}mixer.", d, heads, kv), norms[0], up, down, norms[1], "gelu", post=False)
        )
    tokens = [t.take("class_encoder.embedding.weight", len(classes) + 1, d)]
    if found["use_metacell_token"]:  # row 0 is a cell, row 1 a sum of cells
        tokens.insert(0, t.take("metacell_encoder.embedding.weight", 2, d)[[int(own.metacells is not None)]])
    if found["depth_atinput"]:
        tokens.insert(0, torch.zeros(1, d))  # the depth of a cell is added to it
    special = sum(map(len, tokens))
    first = special - len(classes)
    named = _names(t, given, ("pred_embedding",)) if given.get("pred_embedding") else classes
    choice = (
        {"predicted": named, "classes": classes, "all": ()}[own.readout]
        if isinstance(own.readout, str)
        else own.readout
    )
    if unknown := [name for name in choice if name not in classes]:
        raise UserError(
            f"{t.path}: expected readout among the classes {', '.join(classes)}, found {', '.join(unknown)}"
        )
    made = Network(
        vocabulary=genes,
        genes=_chosen(t, genes, own.prefix),
        table=table,
        tokens=torch.cat([_with_positions(t, table, given), *tokens]),
        values=read_encoder(t, "expr_encoder.encoder.", d, given),
        depth=read_encoder(t, "depth_encoder.encoder.", d, given) if found["depth_atinput"] else (),
        blocks=tuple(blocks),
        norm=norm(t, "transformer.norm", d, EPSILON),
        special=special,
        pooled=tuple(first + classes.index(name) for name in choice) or tuple(range(special)),
        normalization=given.get("normalization", "sum"),
        sequence=own.sequence,
        max_length=own.max_length,
        truncate=own.truncate,
        seed=own.seed,
    )
    t.finish()
    return made


def _chosen(t: Tensors, genes: tuple[str, ...], prefix: str) -> np.ndarray:
    """Numbers of the genes whose identifier is the prefix and a number."""
    chosen = [i for i, name in enumerate(genes) if name.startswith(prefix) and name[len(prefix) :][:1].isdigit()]
    if not chosen:
        raise t.error(f"expected genes named {prefix} and a number, found {', '.join(genes[:3])}")
    return np.array(chosen)


def _with_positions(t: Tensors, table: Tensor, given: Mapping[str, Any]) -> Tensor:
    """``E[gene] + P[gene]``; older files hold P as (genes, d), newer ones as (genes, 1, d)."""
    if not t.has("pos_encoder.pe"):
        if given.get("gene_pos_enc"):
            raise t.error("expected pos_encoder.pe, as gene_pos_enc is set, found none")
        return table
    middle = (1,) * (len(t.shape("pos_encoder.pe")) - 2)
    return table + t.take("pos_encoder.pe", table.shape[0], *middle, table.shape[1]).view_as(table)
