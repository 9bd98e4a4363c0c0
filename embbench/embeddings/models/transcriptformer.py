"""TranscriptFormer: static, contextual gene and cell vectors from a published folder (config, weights, vocabs)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import h5py
import numpy as np

from embbench.cache.weights import is_remote
from embbench.core import UserError
from embbench.embeddings.models._model import CellModel

if TYPE_CHECKING:
    from torch import Tensor

    from embbench.embeddings.models._checkpoint import Tensors
    from embbench.embeddings.models._transcriptformer import Network

SHIFTS = ("fed", "official")
ORDERS = ("random", "count", "vocabulary", "data")
READOUTS = ("mean", "official")
CLIP = 30.0  # the inference default; config.json of the published models leaves it open
UNUSED = ("mu.", "gene_id_head.")
SIZES = ("embed_dim", "model_dim", "num_heads", "num_layers", "seq_len")
ARCHIVES = (".tar.gz", ".tgz")
# the species of a published archive; which order their genes have is in its config.json
SAPIENS = ("homo_sapiens",)
EXEMPLAR = (*SAPIENS, "mus_musculus", "danio_rerio", "drosophila_melanogaster", "caenorhabditis_elegans")
METAZOA = (
    *EXEMPLAR,
    *("oryctolagus_cuniculus", "gallus_gallus", "xenopus_laevis", "lytechinus_variegatus", "spongilla_lacustris"),
    *("saccharomyces_cerevisiae", "plasmodium_falciparum"),
)
PUBLISHED = {"tf_sapiens": SAPIENS, "tf_exemplar": EXEMPLAR, "tf_metazoa": METAZOA}


class TranscriptFormer(CellModel):
    """TranscriptFormer (Pearce et al. 2025): an autoregressive transformer whose attention is biased by counts.

    The model is fed ``[START]`` and the expressed genes, each seeing itself and those before it: ``x = LN(h); h = x +
    A(x); x = LN(h); h = x + W2 gelu(W1 x)``, with attention logits ``c tanh((q k / sqrt(d_h) + log(1 + count)) / c)``.
    Static vectors are ``MLP(E[gene])``, E being frozen protein vectors; contextual vectors are means of a gene's rows
    over cells that express it; the cell vector is the mean of all rows.

    Parameters
    ----------
    checkpoint, level, layer, mode, cells, seed, metacells, precision, device, batch : see `CellModel`; the address of a
        published archive holds its folder (tf_sapiens ...).
    shift : the row that stands for a gene: ``fed``, the one that was fed this gene; ``official``, the one before it, as
        the official contextual gene embeddings: such a vector has seen neither its gene nor its count.
    readout : cell vector: ``mean`` of the rows, or ``official``: their sum divided by ``max_length``, which grows with
        the number of expressed genes.
    order : of genes in a cell, which matters as attention is causal: ``random``, a permutation that the cell's content
        and ``seed`` decide; ``count``, falling, equal counts in the model's order; ``vocabulary``, the model's order;
        ``data``, that of the data's columns (official).
    max_length : rows of a cell at most, ``[START]`` included; null: as trained. Of more genes the first in ``order``
        stay, under ``vocabulary`` a random subset (else genes at its end would never appear).
    assay : name in the model's assay vocabulary for all cells; ``unknown`` is masked, as in the official code.
    species : whose genes to use (homo_sapiens, mus_musculus ...), of those the checkpoint has.

    References
    ----------
    Pearce et al. (2025), A cross-species generative cell atlas across 1.5 billion years of evolution, bioRxiv
    2025.04.25.650731, Methods, "Expression-aware multi-head self-attention".

    Examples
    --------
    >>> [path.name for path in TranscriptFormer("tf_sapiens").files()]
    ['model_weights.pt', 'config.json', 'assay_vocab.json', 'homo_sapiens_gene.h5']
    """

    title: ClassVar[str] = "transcriptformer"
    where: ClassVar[str] = (
        "Download tf_sapiens.tar.gz, tf_exemplar.tar.gz or tf_metazoa.tar.gz from "
        "czi-transcriptformer.s3.amazonaws.com/weights (MIT licence) and unpack it"
    )

    def __init__(
        self,
        checkpoint: str | None = None,
        level: str = "static",
        shift: str = "fed",
        readout: str = "mean",
        order: str = "random",
        max_length: int | None = None,
        assay: str = "unknown",
        species: str = "homo_sapiens",
        **run: Any,
    ) -> None:
        super().__init__(checkpoint, level, **run)
        for what, value, allowed in (
            ("shift", shift, SHIFTS),
            ("readout", readout, READOUTS),
            ("order", order, ORDERS),
        ):
            if value not in allowed:
                raise ValueError(f"TranscriptFormer: {what} must be one of {', '.join(allowed)}, got {value!r}")
        if max_length is not None and (not isinstance(max_length, int) or max_length < 2):
            raise ValueError(f"TranscriptFormer: max_length must be an integer >= 2 or null, got {max_length!r}")
        self.shift, self.readout, self.order, self.max_length = shift, readout, order, max_length
        self.assay, self.species = str(assay), str(species)
        last = str(checkpoint).partition("?")[0].rstrip("/").rpartition("/")[2]
        archive = checkpoint is not None and is_remote(str(checkpoint)) and last.endswith(ARCHIVES)
        self.inside = last.partition(".")[0] if archive else ""
        name = self.inside or last
        vocabs = [f"vocabs/{kind}_gene.h5" for kind in PUBLISHED.get(name, SAPIENS)]
        self.wanted = ("model_weights.pt", "config.json", "vocabs/assay_vocab.json", *vocabs)  # type: ignore[misc]
        if name in PUBLISHED:  # messages name the entry that can be fetched
            self.title = name.replace("tf_", "transcriptformer-")  # type: ignore[misc]

    def folder(self) -> Path:
        """The folder of the model, existing or not; in an archive it is the one named as the archive."""
        return super().folder() / self.inside

    def fetched(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Where the files come from: (checkpoint, files) to fetch when it is remote."""
        inside = f"{self.inside}/" if self.inside else ""
        return tuple((where, tuple(f"{inside}{name}" for name in names)) for where, names in super().fetched())

    def files(self) -> tuple[Path, ...]:
        """The files that the vectors depend on: those that config.json names, or those of the published folder."""
        from embbench.embeddings.models._checkpoint import read_json

        folder = self.folder()
        try:
            data = _section(folder / "config.json", read_json(folder / "config.json"), "data_config")
            assays, species = _vocabularies(folder / "config.json", data)
        except UserError:  # loading says what is wrong
            return tuple(folder / name for name in self.wanted)
        vocabs = [*(["assay_vocab.json"] if assays else []), *species]
        return folder / "model_weights.pt", folder / "config.json", *(folder / "vocabs" / name for name in vocabs)

    def load(self, folder: Path) -> Network:
        """The encoder of a published folder; every tensor of it is checked."""
        from embbench.embeddings.models._checkpoint import Tensors, read_json, read_state

        path, config = folder / "config.json", read_json(folder / "config.json")
        data, sizes = _section(path, config, "data_config"), _section(path, config, "model_config")
        wrong = {k: sizes.get(k) for k in SIZES if not isinstance(sizes.get(k), int) or sizes[k] < 1}
        if wrong or sizes["embed_dim"] % sizes["num_heads"]:
            raise UserError(f"{path}: expected sizes that fit, found {wrong or sizes}; is it TranscriptFormer?")
        if data.get("normalize_to_scale") or not data.get("pad_zeros", True):
            raise UserError(
                f"{path}: expected expressed genes with counts, found normalize_to_scale "
                f"{data.get('normalize_to_scale')!r} and pad_zeros {data.get('pad_zeros')!r}, which is not supported"
            )
        weights = folder / "model_weights.pt"
        t = Tensors("TranscriptFormer", weights, read_state(weights)).ignore(*UNUSED)
        return _network(t, folder, data, sizes, self)


def _section(path: Path, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    model = config.get("model")
    found = model.get(name) if isinstance(model, dict) else None
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected model.{name}, found {', '.join(map(str, config))}; is it TranscriptFormer?")
    return found


def _vocabularies(path: Path, data: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Whether there is an assay token, and the files of genes in the order of the embedding's rows."""
    auxiliary, species = data.get("aux_cols"), data.get("esm2_mappings")
    if auxiliary not in (None, "assay", ["assay"]):
        raise UserError(f"{path}: expected aux_cols assay or null, found {auxiliary!r}")
    safe = isinstance(species, list) and all(isinstance(s, str) and Path(s).name == s for s in species)
    if not safe or not species:
        raise UserError(f"{path}: expected esm2_mappings as names of files in vocabs, found {species!r}")
    return auxiliary is not None, species


def _genes(path: Path) -> list[str]:
    """Names in the dataset ``keys`` of an HDF5 file of protein vectors."""
    try:
        with h5py.File(path, "r") as file:
            keys = file["keys"][:]
        return [key.decode() if isinstance(key, bytes) else str(key) for key in keys]
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: expected HDF5 with gene names in keys, found: {error}; download it again") from error


def _names(folder: Path, data: Mapping[str, Any], kind: str) -> tuple[list[str], np.ndarray, int]:
    """Special tokens and the genes of a species, their rows in the embedding, and how many rows it has.

    Rows are the special tokens, then the files' genes; of a name that occurs twice the first counts, as the official
    vocabulary is built.
    """
    special = data.get("special_tokens") or ["unknown", "[START]", "[END]", "[RD]", "[CELL]", "[PAD]", "[MASK]"]
    _, files = _vocabularies(folder / "config.json", data)
    if f"{kind}_gene.h5" not in files or "[START]" not in special:
        raise UserError(
            f"{folder / 'config.json'}: expected the token [START] and the species {kind}, found "
            f"{', '.join(map(str, special))} and {', '.join(files)}"
        )
    place: dict[str, int] = {name: i for i, name in enumerate(special)}
    own: dict[str, None] = {}
    for file in files:
        for gene in _genes(folder / "vocabs" / file):
            place.setdefault(gene, len(place))
            if file == f"{kind}_gene.h5":
                own[gene] = None
    names = [*special, *own]
    return names, np.array([place[name] for name in names]), len(place)


def _network(t: Tensors, folder: Path, data: dict[str, Any], sizes: dict[str, Any], own: TranscriptFormer) -> Network:
    from embbench.embeddings.models._transcriptformer import Network, read_layer, read_table

    d, clip = sizes["embed_dim"], data.get("clip_counts")
    names, rows, total = _names(folder, data, own.species)
    if (layers := t.count("transformer_encoder.encoder_layers.{}.")) != sizes["num_layers"]:
        raise t.error(f"expected {sizes['num_layers']} layers, found {layers}")
    made = Network(
        vocabulary=tuple(names),
        genes=np.arange(len(data.get("special_tokens") or names[:7]), len(names)),
        table=read_table(t, rows, total, d),
        start=names.index("[START]"),
        assay=_assay(t, folder, data, own.assay, d),
        blocks=tuple(read_layer(t, f"transformer_encoder.encoder_layers.{i}.", sizes) for i in range(layers)),
        epsilon=float(sizes.get("log_counts_eps", 1e-6)),
        clip=CLIP if clip is None else float(clip),
        length=own.max_length or sizes["seq_len"],
        shift=own.shift,
        readout=own.readout,
        order=own.order,
        seed=own.seed,
    )
    t.finish()
    return made


def _assay(t: Tensors, folder: Path, data: Mapping[str, Any], wanted: str, d: int) -> Tensor | None:
    """The token of an assay, shape (1, d); None where there is none, or where it is unknown and masked."""
    from embbench.embeddings.models._checkpoint import read_json

    path = folder / "vocabs" / "assay_vocab.json"
    assays = read_json(path) if _vocabularies(folder / "config.json", data)[0] else {"unknown": 0}
    if (
        wanted not in assays
        or "unknown" not in assays
        or sorted(assays.values(), key=str) != sorted(range(len(assays)), key=str)
    ):
        raise UserError(f"{path}: expected assay {wanted!r} among numbered names, found {', '.join(assays)}")
    if data.get("aux_cols") is None:
        return None
    table = t.take("aux_embeddings.assay.weight", len(assays), d)
    return None if wanted == "unknown" else table[[assays[wanted]]]
