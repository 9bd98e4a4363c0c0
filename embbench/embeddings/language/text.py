"""Texts about genes (names, GO terms, any table of descriptions) through a sentence encoder."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embbench.core import Embedding, PerturbationDataset, UserError
from embbench.embeddings._knowledge import DATA, text_lines
from embbench.embeddings._rows import pick
from embbench.embeddings.language._encoder import EncoderParameters
from embbench.genes import symbols_of

MINILM = "hf:sentence-transformers/all-MiniLM-L6-v2@main"
PACKAGED = {"names": ("gene_names.tsv.gz",), "go": ("go_annotations.tsv.gz", "go_terms.tsv.gz")}
ENTITIES = ("gene", "compound", "context", "any")
NO_DATA = "ND"  # the evidence code of an annotation that says nothing is known


class Text(EncoderParameters):
    """A sentence embedding of what is written about a gene.

    ``names``: ``symbol: full name`` of protein-coding and non-coding RNA genes. ``go``: the names of the terms a gene
    is annotated to, the rarest first, because long texts are cut at their end. A file: one text per name; rows of one
    gene (after old symbols and identifiers became current symbols) are joined in file order, equal ones once. Names
    without text have no vector.

    Parameters
    ----------
    source : ``names``, ``go`` (packaged), or a .tsv or .csv (.gz) with a header and two columns, name and text.
    encoder : see `EncoderParameters`; by default all-MiniLM-L6-v2.
    entity : what the names are: ``gene``, ``compound``, ``context``, ``any``; only genes are harmonised.
    exclude : GO evidence codes to leave out of ``go``, e.g. ``[IEA]``; ND (no data) always is.
    windows : split texts that are too long for the encoder instead of cutting them.
    **options : see `EncoderParameters`.

    References
    ----------
    Reimers and Gurevych (2019), Sentence-BERT, section 3 (pooling); Wang et al. (2020), MiniLM; gene texts as
    perturbation vectors: Chen and Zou (2025), Nature Biomedical Engineering 9, 483 (GenePT).

    Examples
    --------
    >>> Text("names", "./MiniLM", exclude=["IEA"])
    Traceback (most recent call last):
    ValueError: Text: evidence codes exist for source go only, got source 'names'
    """

    def __init__(
        self,
        source: str = "names",
        encoder: str = MINILM,
        entity: str = "gene",
        exclude: Sequence[str] = (),
        windows: bool = False,  # noqa: FBT001, FBT002  # parameters come by name from the registry
        **options: Any,
    ) -> None:
        super().__init__(encoder, **options)
        if entity not in ENTITIES:
            raise ValueError(f"Text: entity must be one of {', '.join(ENTITIES)}, got {entity!r}")
        self.source, self.exclude, self.windows = str(source), tuple(exclude), bool(windows)
        if self.exclude and self.source != "go":
            raise ValueError(f"Text: evidence codes exist for source go only, got source {self.source!r}")
        if entity != "gene" and self.source in PACKAGED:
            raise ValueError(f"Text: source {self.source!r} is about genes, got entity {entity!r}")
        self.entity = entity  # type: ignore[misc]  # one class serves names of every kind

    def files(self) -> tuple[Path, ...]:
        """The texts and the encoder's files."""
        packaged = PACKAGED.get(self.source)
        texts = [Path(self.source).expanduser()] if packaged is None else [DATA / name for name in packaged]
        return (*texts, *self.encoder_files())

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, d), float32, of the asked names that have a text (None: all); ``train`` is not read.

        Raises
        ------
        UserError
            The texts or the encoder cannot be read.
        """
        texts, facts = self._texts()
        wanted = texts if names is None else [name for name in dict.fromkeys(names) if name in texts]
        encoder = self.open()
        tokens = {name: encoder.tokens(texts[name]) for name in wanted}
        known = [name for name, ids in tokens.items() if ids]
        done = encoder.encode([tokens[name] for name in known], windows=self.windows)
        facts |= {"source": Path(self.source).name, "encoder": encoder.said, "holds": "knowledge"}
        facts |= {**done.facts, "unknown_tokens": encoder.unknown(list(tokens.values()))}
        facts["empty"] += len(tokens) - len(known)
        return pick(names, known, done.matrix, self.entity, facts)

    def _texts(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Text of every name, and counts: names in all, names without text, rows joined to an earlier one."""
        if self.source == "go":
            rows = _go_rows(self.exclude)
        elif self.source == "names":
            rows = [(symbol, f"{symbol}: {name}") for symbol, name in _table(DATA / PACKAGED["names"][0])]
        else:
            path = Path(self.source).expanduser()
            rows = _table(path)
            if not rows:
                raise UserError(f"{path}: expected a header and one 'name, text' row per name, found no rows")
        # packaged tables are in current symbols already (same release as the gene table)
        foreign = self.entity == "gene" and self.source not in PACKAGED
        symbol = symbols_of([name for name, _ in rows]) if foreign else {name: name for name, _ in rows}
        parts: dict[str, list[str]] = defaultdict(list)
        for name, text in rows:
            parts[symbol[name]].append(" ".join(text.split()))
        texts = {name: " ".join(filter(None, dict.fromkeys(said))) for name, said in parts.items()}
        empty = sum(not text for text in texts.values())
        facts = {"names": len(texts), "empty": empty, "joined_rows": len(rows) - len(texts)}
        return {name: text for name, text in texts.items() if text}, facts


def _table(path: Path) -> list[tuple[str, str]]:
    """Rows of a table of two columns with a header; tab-separated where the header has a tab.

    A line of a tab-separated file is taken as it is (texts hold quotes); commas need quoted fields.
    """
    lines = text_lines(path)
    if "\t" in lines[0]:
        rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=1) if line.strip()]
    else:
        reader = csv.reader(io.StringIO("\n".join(lines)), strict=True)
        try:
            rows = [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: expected matching quotes, found: {error}") from error
    for number, row in rows:
        if len(row) != 2 or not row[0].strip():
            raise UserError(
                f"{path}, line {number}: expected two fields, name and text, found {len(row)}: {str(row)[:80]}; "
                "keep two columns, and quote texts that hold the separator"
            )
    return [(name.strip(), text) for _, (name, text) in rows[1:]]


def _go_rows(exclude: Sequence[str]) -> list[tuple[str, str]]:
    """Gene and the names of its terms, the rarest first; `UserError` when no annotation is left."""
    name_of = {row[0]: row[1] for row in _rows("go_terms")}
    left_out = {*exclude, NO_DATA}
    pairs = dict.fromkeys((gene, term) for gene, term, code, _ in _rows("go_annotations") if code not in left_out)
    if not pairs:
        raise UserError(f"GO: no annotation left without the evidence codes {', '.join(exclude)}; exclude fewer")
    genes_of = Counter(term for _, term in pairs)
    terms: dict[str, list[str]] = defaultdict(list)
    for gene, term in pairs:
        if term in name_of:
            terms[gene].append(term)
    return [(g, "; ".join(name_of[t] for t in sorted(own, key=lambda t: (genes_of[t], t)))) for g, own in terms.items()]


def _rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in text_lines(DATA / f"{name}.tsv.gz")[1:]]
