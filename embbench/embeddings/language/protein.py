"""Proteins of genes through an ESM-2 type model: a FASTA file to one vector per gene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embbench.core import Embedding, PerturbationDataset, UserError
from embbench.embeddings._rows import pick
from embbench.embeddings.language._encoder import Encoder, EncoderParameters
from embbench.embeddings.language._fasta import ALPHABET, clean, distinct, genes_of, isoforms, read_fasta, read_map

ISOFORMS = ("longest", "canonical", "mean")
RESIDUES = "ACDEFGHIKLMNPQRSTVWYX"  # what a vocabulary must have: the twenty, and X for anything


class Protein(EncoderParameters):
    """The mean over residues of a protein language model's hidden states, without BOS and EOS.

    A protein of more than ``window`` residues is split into windows that overlap; its vector is the mean over windows
    weighted by their residues (residues of an overlap count in both). ``pooling: cls`` takes the BOS vector instead,
    of windows likewise. Stops at the end are dropped; stops inside and letters that the model does not know are X.

    Parameters
    ----------
    source : FASTA (.gz) with headers of UniProt (``GN=``), Ensembl (``gene_symbol:``, ``gene:``), GENCODE, NCBI
        (``[gene=TP53]``), or the gene alone (``>TP53``).
    encoder : see `EncoderParameters`; any ESM-1b or ESM-2 folder of transformers.
    genes : table of two columns, sequence identifier and gene, for headers without one (RefSeq's protein.faa).
    isoform : of a gene's sequences ``longest`` (the first of equal ones), ``canonical`` (the first listed, which in
        UniProt's files is the canonical one) or ``mean`` (the mean of the vectors of all different ones).
    overlap : residues that neighbouring windows share.
    window : residues at a time; ESM-2 was trained on 1,024 tokens with BOS and EOS.
    pooling : ``mean``, ``cls`` or ``max``.
    **options : see `EncoderParameters`.

    References
    ----------
    Lin et al. (2023), Evolutionary-scale prediction of atomic-level protein structure with a language model, Science
    379, 1123 (ESM-2); mean over residues as in Rives et al. (2021), PNAS 118, section "Materials and methods".

    Examples
    --------
    >>> Protein("human.fasta", "./esm2", isoform="shortest")
    Traceback (most recent call last):
    ValueError: Protein: isoform must be one of longest, canonical, mean, got 'shortest'
    """

    layout = "esm"

    def __init__(
        self,
        source: str,
        encoder: str = "hf:facebook/esm2_t33_650M_UR50D@main",
        genes: str | None = None,
        isoform: str = "longest",
        overlap: int = 128,
        window: int = 1022,
        pooling: str = "mean",
        **options: Any,
    ) -> None:
        if not isinstance(window, int):
            raise ValueError(f"Protein: window must be an integer >= 2, got {window!r}")
        super().__init__(encoder, window=window, pooling="mean" if pooling == "auto" else pooling, **options)
        if isoform not in ISOFORMS:
            raise ValueError(f"Protein: isoform must be one of {', '.join(ISOFORMS)}, got {isoform!r}")
        if not isinstance(overlap, int) or not 0 <= overlap < window:
            raise ValueError(f"Protein: overlap must be in [0, window = {window}), got {overlap!r}")
        self.source = Path(str(source)).expanduser()
        self.genes = None if genes is None else Path(genes).expanduser()
        self.isoform, self.overlap = isoform, overlap

    def files(self) -> tuple[Path, ...]:
        """The sequences, the map if there is one, and the encoder's files."""
        return (self.source, *([] if self.genes is None else [self.genes]), *self.encoder_files())

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, d), float32, of the asked genes with a sequence (None: all); ``train`` is not read.

        Raises
        ------
        UserError
            The sequences or the encoder cannot be read, or no header names a gene.
        """
        proteins, facts = self._proteins()
        wanted = list(proteins) if names is None else [name for name in dict.fromkeys(names) if name in proteins]
        encoder = self.open(specials=False, types=("esm",))
        table = _residues(encoder)
        sequences = list(distinct({gene: proteins[gene] for gene in wanted}))
        cleaned = [clean(sequence) for sequence in sequences]
        done = encoder.encode([[table[r] for r in text] for text, _ in cleaned], windows=True, overlap=self.overlap)
        row = {sequence: i for i, sequence in enumerate(sequences)}
        vectors = [done.matrix[[row[s] for s in proteins[gene]]].mean(axis=0, dtype=np.float64) for gene in wanted]
        matrix = np.stack(vectors) if vectors else done.matrix
        facts |= {"source": self.source.name, "encoder": encoder.said, "isoform": self.isoform, "holds": "knowledge"}
        facts |= {**done.facts, "residues_as_x": sum(strange for _, strange in cleaned)}
        return pick(names, wanted, matrix, self.entity, facts)

    def _proteins(self) -> tuple[dict[str, list[str]], dict[str, Any]]:
        """Gene -> its chosen sequences, and counts of what the file holds."""
        records = read_fasta(self.source)
        genes = genes_of(records, {} if self.genes is None else read_map(self.genes))
        if not any(genes):
            raise UserError(
                f"{self.source}: expected headers with a gene (GN=, gene_symbol:, gene:, [gene=), found none in "
                f"{len(records)}, e.g. {records[0].header[:60]!r}; give genes=FILE, identifier and gene per line"
            )
        chosen = isoforms(genes, [record.sequence for record in records], self.isoform)
        facts = {"sequences": len(records), "without_gene": genes.count(""), "genes": len(chosen)}
        return chosen, {**facts, "empty": sum(not record.sequence for record in records)}


def _residues(encoder: Encoder) -> dict[str, int]:
    """Token of every residue letter; letters that the vocabulary lacks get that of X."""
    vocabulary = encoder.tokenizer.get_vocab()
    if absent := [letter for letter in RESIDUES if letter not in vocabulary]:
        raise UserError(f"encoder {encoder.recipe.folder}: its vocabulary lacks the residues {', '.join(absent)}")
    return {letter: vocabulary.get(letter, vocabulary["X"]) for letter in sorted(ALPHABET)}
