"""Gene names: symbols, old symbols, Ensembl and Entrez identifiers, and what perturbation labels mean."""

from __future__ import annotations

import functools
import gzip
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embbench.core import UserError

NAMESPACES = ("symbol", "ensembl", "entrez")
ROUTES = ("exact", "symbol", "ensembl", "entrez", "alias", "case")  # the order in which they win a name
UNMAPPED = ("ambiguous", "collision", "unknown")
DATA = Path(__file__).with_name("data")

_ENSEMBL = re.compile(r"(ENSG\d{11})(\.\d+)?(_PAR_Y)?")
_ENTREZ = re.compile(r"(?:LOC)?(\d+)(?:\.0)?")  # NCBI names an unnamed gene LOC and its identifier
_CONTROL = re.compile(
    r"(?:ctrl|control|neg(?:ative)?-?(?:ctrl|control)|non-?target(?:ing)?|safe-?target(?:ing)?)\d*"
    r"|ntc?|scrambled?|unperturbed|untreated|vehicle|dmso"
)
_SEPARATORS = ("+", ";", "|", "&", ",", "_")
_WEAK = (",", "_")  # also found inside guide and clone names: aliases of one or two letters do not count there
_SHORT = 3


@dataclass(frozen=True)
class GeneTable:
    """The packaged genes (org.Hs.eg.db 3.16.0; HGNC symbols: Seal et al. 2023, Nucleic Acids Research 51, D1003): for
    every kind of name the row it means, -1 where it means several.

    Parameters
    ----------
    names : for each row its symbol, Ensembl identifier (the first; "" if none) and Entrez identifier.
    symbol, ensembl, entrez, alias, upper : name -> row; ``upper`` holds the symbols that have small letters.
    """

    names: tuple[Mapping[str, str], ...]
    symbol: Mapping[str, int]
    ensembl: Mapping[str, int]
    entrez: Mapping[str, int]
    alias: Mapping[str, int]
    upper: Mapping[str, int]

    def find(self, name: str) -> tuple[int, str]:
        """Row and route of a name, -1 and the reason if none: symbols win over identifiers, those over aliases.

        Examples
        --------
        >>> gene_table().find("H1F0")[1], gene_table().find("no gene")
        ('alias', (-1, 'unknown'))
        """
        identifier, number = _ENSEMBL.fullmatch(name), _ENTREZ.fullmatch(name)
        tables = (self.symbol, self.ensembl, self.entrez, self.alias, self.upper)
        keys = (name, identifier[1] if identifier else "", number[1] if number else "", name, name)
        for route, table, key in zip(ROUTES[1:], tables, keys, strict=True):
            if key in table:
                return table[key], "ambiguous" if table[key] < 0 else route
        return -1, "unknown"


@functools.cache
def gene_table() -> GeneTable:
    """The packaged gene table, read once."""
    rows = [
        (t != "protein-coding", s[:3] == "LOC", not e, int(z), s, e.split("|")) for z, s, e, t in _read("gene_table")
    ]
    rows.sort()
    symbol: dict[str, int] = {}
    ensembl: dict[str, int] = {}
    for i, (*_, name, identifiers) in enumerate(rows):
        symbol.setdefault(name, i)
        for identifier in filter(None, identifiers):
            first = ensembl.setdefault(identifier, i)
            if first >= 0 and first != i and rows[first][:2] == rows[i][:2]:
                ensembl[identifier] = -1
    meanings: dict[str, set[str]] = {}
    for name, old in _read("gene_alias"):
        meanings.setdefault(old, set()).add(name)
    alias = {old: symbol.get(min(new), -1) if len(new) == 1 else -1 for old, new in meanings.items()}
    names = tuple({"symbol": r[4], "ensembl": r[5][0], "entrez": str(r[3])} for r in rows)
    upper = {name.upper(): i for name, i in symbol.items() if name != name.upper()}
    return GeneTable(names, symbol, ensembl, {n["entrez"]: i for i, n in enumerate(names)}, alias, upper)


def _read(name: str) -> list[list[str]]:
    text = gzip.decompress((DATA / f"{name}.tsv.gz").read_bytes()).decode("utf-8")
    return [line.split("\t") for line in text.splitlines()[1:]]


@dataclass(frozen=True)
class Report:
    """How many names went which way, with up to five examples of each way but ``exact``."""

    what: str
    counts: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, what: str, pairs: Iterable[tuple[str, str, str]]) -> Report:
        """From triples (name, status, what it became)."""
        counts: Counter[str] = Counter()
        examples: dict[str, tuple[str, ...]] = {}
        for name, status, became in pairs:
            counts[status] += 1
            shown = examples.get(status, ())
            if status != "exact" and len(shown) < 5:
                examples[status] = (*shown, name if became == name else f"{name} -> {became}")
        return cls(what, dict(counts), examples)

    @property
    def unmapped(self) -> int:
        """Names that kept their own spelling because they mean no gene, several, or one that is taken."""
        return sum(self.counts.get(status, 0) for status in UNMAPPED)

    def lines(self) -> list[str]:
        """The report as text: the counts, then one line of examples per way.

        Examples
        --------
        >>> Report.of("genes", [("TP53", "exact", "TP53"), ("H1F0", "alias", "H1-0")]).lines()
        ['genes: 1 exact, 1 alias', '  alias (1): H1F0 -> H1-0']
        """
        counts = ", ".join(f"{n} {status}" for status, n in self.counts.items()) or "none"
        more = [f"  {status} ({self.counts[status]}): {', '.join(shown)}" for status, shown in self.examples.items()]
        return [f"{self.what}: {counts}", *more]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {
            "what": self.what,
            "counts": dict(self.counts),
            "examples": {k: list(v) for k, v in self.examples.items()},
        }


@dataclass(frozen=True)
class Harmonised:
    """Names in one namespace, in the order asked for, and for each how it got there.

    ``status`` is ``exact`` (was in the namespace), the route taken (``symbol``, ``ensembl``, ``entrez``, ``alias``,
    ``case``), or why the name was left as it was: ``ambiguous`` (several genes), ``collision`` (another name of the
    list already means that gene) or ``unknown``.
    """

    names: tuple[str, ...]
    status: tuple[str, ...]
    report: Report


def harmonise(names: Sequence[str], to: str = "symbol") -> Harmonised:
    """Bring gene names into one namespace without ever giving two different names the same one.

    When several names mean one gene, the one with the best route keeps it (``ROUTES``, then the first in the list).

    Parameters
    ----------
    names : symbols, old symbols, Ensembl identifiers (a version is dropped) or Entrez integers; may be mixed.
    to : ``symbol``, ``ensembl`` or ``entrez``; anything else is a ValueError.

    Examples
    --------
    >>> done = harmonise(["TP53", "ENSG00000141510.12", "H1F0", "7157", "p40", "RP11-34P13.7"])
    >>> done.names
    ('TP53', 'ENSG00000141510.12', 'H1-0', '7157', 'p40', 'RP11-34P13.7')
    >>> done.status
    ('exact', 'collision', 'alias', 'collision', 'ambiguous', 'unknown')
    >>> harmonise(["TP53"], to="ensembl").names
    ('ENSG00000141510',)
    """
    if to not in NAMESPACES:
        raise ValueError(f"harmonise: to must be one of {', '.join(NAMESPACES)}, got {to!r}")
    unique = list(dict.fromkeys(str(name) for name in names))
    found = {name: _target(name, to) for name in unique}
    owner: dict[str, str] = {}
    for name in sorted(unique, key=lambda n: ROUTES.index(found[n][1]) if found[n][1] in ROUTES else len(ROUTES)):
        target, route = found[name]
        if route in ROUTES and owner.setdefault(target, name) != name:
            found[name] = (name, "collision")
    out = [found[str(name)] for name in names]
    report = Report.of("genes", ((name, found[name][1], found[name][0]) for name in unique))
    return Harmonised(tuple(t for t, _ in out), tuple(s for _, s in out), report)


def symbols_of(names: Sequence[str], to: str = "symbol") -> dict[str, str]:
    """The current name of every name by itself: unlike in `harmonise`, two spellings of one gene get the same one.

    Parameters
    ----------
    names, to : as in `harmonise`; ``to`` is a symbol unless said otherwise.

    Examples
    --------
    >>> symbols_of(["H1F0", "H1-0", "3005", "no gene"])
    {'H1F0': 'H1-0', 'H1-0': 'H1-0', '3005': 'H1-0', 'no gene': 'no gene'}
    >>> symbols_of(["TP53", "7157"], to="ensembl")
    {'TP53': 'ENSG00000141510', '7157': 'ENSG00000141510'}
    """
    done = harmonise(names, to)
    alone = {name for name, status in zip(names, done.status, strict=True) if status == "collision"}
    return {
        name: harmonise([name], to).names[0] if name in alone else found
        for name, found in zip(names, done.names, strict=True)
    }


def check_namespace(who: str, to: str | None) -> None:
    """ValueError unless ``to`` is a namespace or None (names are kept).

    Examples
    --------
    >>> check_namespace("EdgeList", "hgnc")
    Traceback (most recent call last):
    ValueError: EdgeList: to must be symbol, ensembl, entrez or null, got 'hgnc'
    """
    if to is not None and to not in NAMESPACES:
        raise ValueError(f"{who}: to must be {', '.join(NAMESPACES)} or null, got {to!r}")


def _target(name: str, to: str) -> tuple[str, str]:
    if to == "ensembl" and (identifier := _ENSEMBL.fullmatch(name)) and not identifier[3]:
        return identifier[1], "exact" if identifier[1] == name else "ensembl"
    row, route = gene_table().find(name)
    target = gene_table().names[row][to] if row >= 0 else ""
    if not target:
        return name, route if route == "ambiguous" else "unknown"
    return target, "exact" if target == name else route


def namespace(names: Sequence[str]) -> str:
    """The namespace that more than half of the names belong to, else ``unknown``.

    Examples
    --------
    >>> namespace(["TP53", "HLA-DRA", "AC118549.1"]), namespace(["ENSG00000141510.12"]), namespace(["Trp53", "Actb"])
    ('symbol', 'ensembl', 'unknown')
    """
    routes = Counter(gene_table().find(str(name))[1] for name in dict.fromkeys(names))
    routes["ensembl"] = sum(bool(_ENSEMBL.fullmatch(str(name))) for name in dict.fromkeys(names))
    routes["symbol"] += routes["alias"] + routes["case"]
    return next((kind for kind in NAMESPACES if 2 * routes[kind] > len(set(names))), "unknown")


@dataclass(frozen=True)
class Parsed:
    """What perturbation labels mean: per unique label its sorted entities, ``()`` for controls."""

    entity_type: str
    entities: Mapping[str, tuple[str, ...]]
    report: Report


def parse_perturbation(
    labels: Iterable[str], controls: Sequence[str] = (), known_genes: Iterable[str] = (), entity_type: str = "auto"
) -> Parsed:
    """Read labels as the field writes them: ``A+B``, ``A_B``, ``ctrl``, ``A+ctrl``, ``non-targeting``, old names.

    A gene label is split only when every part is a control or a known gene (``X+ctrl`` is X, known or not); a compound
    label is a name and is never split. Nothing is dropped: a label that maps to no gene is its own entity and reported.
    ``A_B`` is the form of Norman et al. (2019), Science 365, 786-793.

    Parameters
    ----------
    labels : perturbation labels, in any order and number.
    controls : labels that are controls here, besides the well-known names (ctrl, control, non-targeting, NT ...).
    known_genes : measured genes as the dataset names them; they win over the packaged table.
    entity_type : ``gene``, ``compound`` or ``auto``: gene when more than half of the unique labels map to genes.

    `UserError`: a label is empty or missing. ValueError: unknown entity type.

    Examples
    --------
    >>> parsed = parse_perturbation(["KLF1+ctrl", "MLL2_TP53", "H1F0", "KLF1_TP53", "NT"], entity_type="gene")
    >>> list(parsed.entities.values())
    [('KLF1',), ('MLL2_TP53',), ('H1-0',), ('KLF1', 'TP53'), ()]
    >>> parse_perturbation(["(+)-JQ1", "TL_HRAS26", "DMSO"]).entities["TL_HRAS26"]
    ('TL_HRAS26',)
    """
    if entity_type not in ("auto", "gene", "compound"):
        raise ValueError(f"parse_perturbation: entity_type must be auto, gene or compound, got {entity_type!r}")
    unique = list(dict.fromkeys(labels))
    if bad := [label for label in unique if not isinstance(label, str) or not label.strip()]:
        raise UserError(f"perturbation labels: expected text, found {bad[0]!r}; name those rows or leave them out")
    reader = _Labels(frozenset(controls), frozenset(known_genes))
    genes = {label: reader.gene(label) for label in unique} if entity_type != "compound" else {}
    if entity_type == "auto":
        status = [s for entities, s in genes.values() if entities]
        mapped = sum(s not in UNMAPPED for s in status)
        entity_type = "gene" if not status or 2 * mapped > len(status) else "compound"
    if entity_type == "compound":
        genes = {s: ((), "control") if reader.control(s) else ((s.strip(),), "exact") for s in unique}
    report = Report.of("perturbations", ((s, status, "+".join(e) or s) for s, (e, status) in genes.items()))
    return Parsed(entity_type, {s: e for s, (e, _) in genes.items()}, report)


@dataclass(frozen=True)
class _Labels:
    """Reads one label at a time."""

    controls: frozenset[str]
    known: frozenset[str]

    def control(self, label: str) -> bool:
        """Named by the user or by custom, whatever its case and separators."""
        text = label.strip()
        plain = re.sub(r"[\s_]|-(?=\d)", "", text.casefold())
        return label in self.controls or text in self.controls or bool(_CONTROL.fullmatch(plain))

    def gene(self, label: str) -> tuple[tuple[str, ...], str]:
        """Entities and status of a gene label."""
        text = label.strip()
        whole, status = self.name(text)
        if status == "control" or status not in UNMAPPED:
            return whole, status
        for separator in (mark for mark in _SEPARATORS if mark in text):
            parts = [part.strip() for part in text.split(separator)]
            parts = [part for part in parts if part] if separator == "_" else parts  # Norman 2019 writes A_B__A_B
            read = [self.gene(part) if part and part != text else ((), "unknown") for part in parts]
            ways = [s for _, s in read if s != "control"]
            entities = tuple(sorted({e for part, _ in read for e in part}))
            if parts and (_all_genes(parts, read, separator) or (separator == "+" and len(entities) == len(ways) == 1)):
                worst = min(ways, key=lambda s: (s not in UNMAPPED, s)) if ways else "control"
                return entities, "combination" if len(entities) > 1 and worst not in UNMAPPED else worst
        return whole, status

    def name(self, text: str) -> tuple[tuple[str, ...], str]:
        """Entities and status of a label that is not split."""
        if self.control(text):
            return (), "control"
        if text in self.known:
            return (text,), "exact"
        target, status = _target(text, "symbol")
        return (target,), status


def _all_genes(parts: Sequence[str], read: Sequence[tuple[tuple[str, ...], str]], separator: str) -> bool:
    """Whether every part is a control or surely a gene: ``TP53_2`` is a guide, not TP53 with Entrez gene 2."""
    ways = {s for _, s in read} - {"control"}
    if "unknown" in ways or ("entrez" in ways and len(ways) > 1):
        return False
    if separator not in _WEAK:
        return True
    return "ambiguous" not in ways and all(
        len(part) >= _SHORT for part, (_, s) in zip(parts, read, strict=True) if s == "alias"
    )
