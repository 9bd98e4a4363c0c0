"""Protein sequences of genes from a FASTA file: headers of UniProt, Ensembl, GENCODE and RefSeq, isoforms, letters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from embbench.core import UserError
from embbench.embeddings._knowledge import text_lines
from embbench.genes import UNMAPPED, gene_table, harmonise

# Where headers name a gene, in the order of preference: Ensembl's symbol, UniProt, NCBI's [gene=...], GENCODE's
# seventh field, and the Ensembl identifier of the last two.
SYMBOLS = tuple(re.compile(p) for p in (r"\bgene_symbol:(\S+)", r"\bGN=(\S+)", r"\[gene=([^\]\s]+)\]"))
IDENTIFIERS = (re.compile(r"\bgene:(ENSG\d{11})"), re.compile(r"\|(ENSG\d{11})(?:\.\d+)?(?:_PAR_Y)?\|"))
ALPHABET = frozenset("ACDEFGHIKLMNPQRSTVWYXBZUO")  # the residues that ESM knows; X is any
NUCLEOTIDES = frozenset("ACGTUN")
LETTERS = re.compile(r"[A-Z*]+")


class Record(NamedTuple):
    """One sequence: its header without ``>``, in capitals, without gaps and the final stop."""

    header: str
    sequence: str

    @property
    def identifier(self) -> str:
        """The first word of the header."""
        return self.header.split(maxsplit=1)[0] if self.header.strip() else ""


def read_fasta(path: Path) -> list[Record]:
    """Records of a protein FASTA file (.gz allowed), in file order.

    Raises
    ------
    UserError
        Unreadable, no header, a line that is no sequence, or nucleotides.
    """
    records: list[tuple[str, list[str]]] = []
    for number, line in enumerate(text_lines(path), start=1):
        text = line.strip()
        if text.startswith(">"):
            records.append((text[1:].strip(), []))
            continue
        letters = re.sub(r"[\s.-]", "", text).upper()
        if letters and (not records or not LETTERS.fullmatch(letters)):
            raise UserError(f"{path}, line {number}: expected '>header' or residues, found {text[:50]!r}; is it FASTA?")
        if letters:
            records[-1][1].append(letters)
    done = [Record(header, "".join(parts).rstrip("*")) for header, parts in records]
    used = set().union(*(record.sequence for record in done)) if done else set()
    if not used:
        raise UserError(f"{path}: expected protein sequences in FASTA format, found {len(done)} headers and no residue")
    if used <= NUCLEOTIDES:
        raise UserError(f"{path}: expected proteins, found nucleotides ({''.join(sorted(used))}) only; translate them")
    return done


def read_map(path: Path) -> dict[str, str]:
    """Sequence identifier -> gene of a table of two columns, tab- or comma-separated, without quotes.

    Raises
    ------
    UserError
        Unreadable, a line that has not two fields, or two genes for one identifier.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text_lines(path), start=1):
        fields = [field.strip() for field in line.split("\t" if "\t" in line else ",")]
        if line.strip() and (len(fields) != 2 or not all(fields)):
            raise UserError(f"{path}, line {number}: expected 'sequence identifier, gene', found {line[:60]!r}")
        if line.strip() and found.setdefault(fields[0], fields[1]) != fields[1]:
            raise UserError(
                f"{path}, line {number}: expected one gene for {fields[0]!r}, found {found[fields[0]]!r} and "
                f"{fields[1]!r}; keep one line per identifier"
            )
    return found


def header_gene(header: str) -> tuple[str, str]:
    """Symbol and Ensembl gene identifier that a header names, "" where it does not.

    Examples
    --------
    >>> header_gene("sp|P04637|P53_HUMAN Cellular tumor antigen p53 OS=Homo sapiens OX=9606 GN=TP53 PE=1 SV=4")
    ('TP53', '')
    >>> header_gene("ENSP00000269305.4 pep gene:ENSG00000141510.18 gene_symbol:TP53 description:tumor protein")
    ('TP53', 'ENSG00000141510')
    """
    symbol = next((found[1] for pattern in SYMBOLS if (found := pattern.search(header))), "")
    identifier = next((found[1] for pattern in IDENTIFIERS if (found := pattern.search(header))), "")
    fields = header.split("|")
    if not symbol and len(fields) > 6 and fields[0].startswith("ENSP"):
        symbol = fields[6]
    return symbol, identifier


def genes_of(records: Sequence[Record], given: Mapping[str, str]) -> list[str]:
    """Current symbol of each record's gene, "" where nothing names one.

    A gene in ``given`` wins (by identifier, with or without version, or by the accession between bars); then the
    header's symbol if it is current, its Ensembl identifier, its symbol if it is another name of one gene (an alias may
    be that of a gene that is not meant, so identifiers go first), its symbol or identifier as written, and last the
    record's identifier where that is the name of a known gene (``>TP53``).

    Examples
    --------
    >>> genes_of([Record("NP_000537.3 p53", "M"), Record("H1F0", "M"), Record("7157", "M")], {"NP_000537": "TP53"})
    ['TP53', 'H1-0', '']
    """
    return [_gene(record, given) for record in records]


def _gene(record: Record, given: Mapping[str, str]) -> str:
    name = record.identifier
    keys = (name, name.partition(".")[0], *name.split("|")[1:2])
    if told := next((given[key] for key in keys if key in given), ""):
        return _symbol(told) or told
    symbol, identifier = header_gene(record.header)
    plain = "" if name.isdecimal() else _symbol(name)  # a number counts records more often than it is an Entrez gene
    exact = symbol if symbol in gene_table().symbol else ""
    return exact or _symbol(identifier) or _symbol(symbol) or symbol or identifier or plain


def _symbol(word: str) -> str:
    done = harmonise([word])
    return done.names[0] if done.status[0] not in UNMAPPED else ""


def clean(sequence: str) -> tuple[str, int]:
    """The sequence with X for what ESM does not know (stops inside, J), and how many letters that were.

    Examples
    --------
    >>> clean("MK*UBZJ")
    ('MKXUBZX', 2)
    """
    strange = sum(count for letter, count in Counter(sequence).items() if letter not in ALPHABET)
    return "".join(letter if letter in ALPHABET else "X" for letter in sequence), strange


def isoforms(genes: Sequence[str], sequences: Sequence[str], rule: str) -> dict[str, list[str]]:
    """Distinct sequences of each gene in file order: all (``mean``), the first (``canonical``) or the longest.

    Examples
    --------
    >>> isoforms(["A", "A", "B", ""], ["MK", "MKV", "MA", "M"], "longest")
    {'A': ['MKV'], 'B': ['MA']}
    """
    found: dict[str, dict[str, None]] = {}
    for gene, sequence in zip(genes, sequences, strict=True):
        if gene and sequence:
            found.setdefault(gene, {})[sequence] = None
    return {gene: _chosen(list(own), rule) for gene, own in found.items()}


def _chosen(sequences: list[str], rule: str) -> list[str]:
    if rule == "mean":
        return sequences
    return [max(sequences, key=len) if rule == "longest" else sequences[0]]  # max keeps the first of equal length


def distinct(groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Every sequence once."""
    yield from dict.fromkeys(sequence for own in groups.values() for sequence in own)
