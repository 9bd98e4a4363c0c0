"""Compounds through a language model of SMILES (ChemBERTa), from a table compound -> SMILES."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embbench.core import Embedding, PerturbationDataset, UserError
from embbench.embeddings._compounds import match_names, smiles_table
from embbench.embeddings._rows import pick
from embbench.embeddings.language._encoder import EncoderParameters

CHEMBERTA = "hf:seyonec/ChemBERTa-zinc-base-v1@main"


class Smiles(EncoderParameters):
    """The mean over tokens (special ones included) of the hidden states of a RoBERTa that was trained on SMILES.

    A name is found as the screen writes it, else without differences of case, Unicode form and white space where all
    rows of that spelling have one SMILES. What is longer than the model takes is cut and counted, or split on request.

    Parameters
    ----------
    source : .tsv or .csv (.gz) with a header; columns as in `embbench.embeddings._compounds`.
    encoder : see `EncoderParameters`; e.g. ``hf:DeepChem/ChemBERTa-77M-MTR@main``.
    canonical : write SMILES as rdkit does first, so that a compound's vector does not depend on how its SMILES is
        written; those that rdkit cannot read have no vector and are counted. False takes them as they are.
    windows : split SMILES that are too long for the encoder instead of cutting them.
    names, smiles : columns of the table; None finds the usual ones.
    **options : see `EncoderParameters`.

    References
    ----------
    Chithrananda, Grand and Ramsundar (2020), ChemBERTa, arXiv 2010.09885; Ahmad et al. (2022), ChemBERTa-2, arXiv
    2209.01712.

    Examples
    --------
    >>> Smiles("drugs.tsv", "./ChemBERTa", pooling="sum")
    Traceback (most recent call last):
    ValueError: Smiles: pooling must be one of auto, mean, cls, max, got 'sum'
    """

    entity = "compound"
    layout = "smiles"
    needs_names = True  # names are matched as the screen writes them, so they must be given

    def __init__(
        self,
        source: str,
        encoder: str = CHEMBERTA,
        canonical: bool = False,  # noqa: FBT001, FBT002  # parameters come by name from the registry
        windows: bool = False,  # noqa: FBT001, FBT002
        names: str | None = None,
        smiles: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(encoder, **options)
        self.source, self.canonical, self.windows = Path(str(source)).expanduser(), bool(canonical), bool(windows)
        self.names, self.smiles = names, smiles

    def files(self) -> tuple[Path, ...]:
        """The table and the encoder's files."""
        return (self.source, *self.encoder_files())

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, d), float32, of the asked compounds with a SMILES (None: all); ``train`` is not read.

        Raises
        ------
        UserError
            The table or the encoder cannot be read, or ``canonical`` is asked for without rdkit.
        """
        table = smiles_table(self.source, self.names, self.smiles)
        written = dict(zip(table.names, table.smiles, strict=True))
        if self.canonical:
            written = {name: text for name, old in written.items() if (text := canonical_smiles(old))}
        found = match_names(names, written, str.__eq__)
        texts = sorted({written[row] for row in found.rows.values()})
        encoder = self.open()
        tokens = [encoder.tokens(text) for text in texts]
        done = encoder.encode(tokens, windows=self.windows)
        row = {text: i for i, text in enumerate(texts)}
        matrix = done.matrix[[row[written[own]] for own in found.rows.values()]]
        facts = {"source": self.source.name, "encoder": encoder.said, "holds": "knowledge", **done.facts}
        facts |= {"compounds": len(table.names), "without_smiles": len(table.blank)}
        facts |= {"unreadable": len(table.names) - len(written), "loose": len(found.loose)}
        facts |= {"ambiguous": len(found.ambiguous), "unknown_tokens": encoder.unknown(tokens)}
        return pick(names, list(found.rows), matrix, self.entity, facts)


def canonical_smiles(smiles: str) -> str:
    """The SMILES as rdkit writes it, "" for one that it cannot read; `UserError`: rdkit is not installed."""
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise UserError(
            f"canonical SMILES of {smiles[:20]!r} need rdkit: pip install rdkit, or canonical=false"
        ) from error
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    return "" if molecule is None else Chem.MolToSmiles(molecule)
