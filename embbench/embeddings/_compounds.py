"""Users' tables of compounds: name -> SMILES, and how a screen's names are found in them."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from embbench.core import UserError
from embbench.embeddings._knowledge import text_lines

SUFFIXES = (".tsv", ".csv", ".txt")
# Columns in the order of preference; letters and digits only, as `Sheet.column` compares them. Among them are those of
# Tahoe (drug), OP3 (sm_name), LINCS (pert_iname), sci-Plex (product_name) and PubChem downloads.
NAME_COLUMNS = (
    *("name", "compound", "compoundname", "pertname", "pertiname", "perturbation", "drug", "drugname"),
    *("smname", "productname", "moleculename", "treatment", "condition"),
)
SMILES_COLUMNS = ("isomericsmiles", "smiles", "canonicalsmiles", "connectivitysmiles")  # stereochemistry first
BLANK = frozenset({"", "na", "n/a", "nan", "none", "null", "-", "-666", "restricted"})  # LINCS writes the last two

T = TypeVar("T")


class Sheet(NamedTuple):
    """A table of text: where it came from, its column names, and (line number, trimmed fields) of every row."""

    path: Path
    header: list[str]
    rows: list[tuple[int, list[str]]]

    def pairs(self, names: int, values: int) -> Iterator[tuple[str, str, str]]:
        """Of every row where it stands, its compound and its value, for error messages and reading.

        Raises
        ------
        UserError
            A row without a compound.
        """
        for number, row in self.rows:
            where = f"{self.path}, line {number}"
            if not row[names]:
                raise UserError(f"{where}: expected a compound name, found none beside {row[values][:40]!r}")
            yield where, row[names], row[values]

    def column(self, what: str, name: str | None, usual: tuple[str, ...]) -> int:
        """Position of a column: of that name, or of the first usual one, whatever its capitals and punctuation.

        Raises
        ------
        UserError
            No such column, or several of that name.
        """
        fits = [i for i, field in enumerate(self.header) if field == name]
        plain = [re.sub(r"[^a-z0-9]", "", field.casefold()) for field in self.header]
        for key in usual if name is None else (re.sub(r"[^a-z0-9]", "", name.casefold()),):
            fits = fits or [i for i, field in enumerate(plain) if field == key]
        if len(fits) == 1:
            return fits[0]
        asked = f"a column {name!r}" if name is not None else f"one of the columns {', '.join(usual)}"
        found = f"{len(fits)} of that name" if fits else f"none in {', '.join(self.header[:12])}"
        raise UserError(f"{self.path}: expected {asked} for the {what}, found {found}; say which column holds them")


def read_sheet(path: Path) -> Sheet:
    """Read a table with one header line: tab-separated where the header has a tab, else comma-separated.

    Raises
    ------
    UserError
        Missing or unreadable file, a suffix other than .tsv, .csv or .txt (.gz), a ragged row, no row.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: expected a table of compounds, found {'a folder' if path.is_dir() else 'nothing'}")
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path}: expected one of {', '.join(SUFFIXES)} (also .gz), found suffix {suffix!r}; convert it"
        )
    text = "\n".join(text_lines(path))
    separator = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        lines = [(reader.line_num, [field.strip() for field in row]) for row in reader]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: expected fields in matching quotes, found: {error}"
        ) from error
    lines = [(number, row) for number, row in lines if any(row)]
    if len(lines) < 2:
        raise UserError(f"{path}: expected a header line and one line per compound, found {len(lines)} lines")
    header = lines[0][1]
    for number, row in lines[1:]:
        if len(row) != len(header):
            raise UserError(f"{path}, line {number}: expected {len(header)} fields as in the header, found {len(row)}")
    return Sheet(path, header, lines[1:])


class SmilesTable(NamedTuple):
    """Compounds of a table in file order, each once, with their SMILES as written; ``blank`` names have none."""

    names: list[str]
    smiles: list[str]
    blank: list[str]


def smiles_table(path: Path, names: str | None = None, smiles: str | None = None) -> SmilesTable:
    """Read compound name -> SMILES; a repeated name with an equal structure keeps its first SMILES.

    Two SMILES are equal when their texts are, or else when rdkit (if it is installed) writes both alike. SMILES are
    not otherwise checked here.

    Parameters
    ----------
    path : see `read_sheet`.
    names, smiles : columns; None finds the usual ones (`NAME_COLUMNS`, `SMILES_COLUMNS`).

    Raises
    ------
    UserError
        As `read_sheet`; a row without name, a name with two structures, or no SMILES at all.
    """
    sheet = read_sheet(path)
    a = sheet.column("compound names", names, NAME_COLUMNS)
    b = sheet.column("SMILES", smiles, SMILES_COLUMNS)
    found: dict[str, str] = {}
    blank: dict[str, None] = {}
    for where, name, text in sheet.pairs(a, b):
        if text.casefold() in BLANK:
            blank[name] = None
        elif not same_structure(found.setdefault(name, text), text):
            raise UserError(
                f"{where}: compound {name!r} has two structures, {found[name]} and {text}; keep one, or "
                "give each its own name"
            )
    if not found:
        raise UserError(f"{path}: expected SMILES of compounds, found {len(blank)} names and no SMILES")
    return SmilesTable(list(found), list(found.values()), [name for name in blank if name not in found])


def read_smiles(path: Path, names: str | None = None, smiles: str | None = None) -> tuple[list[str], list[str]]:
    """Names and SMILES of `smiles_table`, in file order, each name once; names without SMILES are left out."""
    table = smiles_table(path, names, smiles)
    return table.names, table.smiles


def same_structure(a: str, b: str) -> bool:
    """Whether two SMILES mean one structure (salts and stereochemistry count).

    Examples
    --------
    >>> same_structure("OCC", "OCC"), same_structure("CC", "CCC")
    (True, False)
    """
    if a == b or find_spec("rdkit") is None:  # without rdkit only equal texts are known to be equal
        return a == b
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(text) for text in (a, b)]
    return all(m is not None for m in molecules) and len({Chem.MolToSmiles(m) for m in molecules}) == 1


def folded(name: str) -> str:
    """A compound name without differences of case, Unicode form and white space.

    Examples
    --------
    >>> folded(" Tofacitinib  Citrate ") == folded("tofacitinib citrate")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def counted(names: Sequence[str]) -> dict[str, Any]:
    """How many names, and up to five of them, for provenance."""
    return {"count": len(names), "examples": list(names[:5])}


class Match(NamedTuple):
    """Asked name -> name of the table; ``loose`` were found by `folded`, ``ambiguous`` mean several different rows."""

    rows: dict[str, str]
    loose: list[str]
    ambiguous: list[str]

    def facts(self) -> dict[str, Any]:
        """What provenance says of the names."""
        return {
            "matched": len(self.rows),
            "matched_by_folding": counted(self.loose),
            "ambiguous_names": counted(self.ambiguous),
        }


def match_names(names: Iterable[str] | None, table: Mapping[str, T], same: Callable[[T, T], bool]) -> Match:
    """Find a screen's names in a table: as written, else `folded` when all rows of that folded name are the same.

    Each name is found or not whatever the others are.

    Parameters
    ----------
    names : asked names, None for all of the table.
    table : name -> its value.
    same : whether two values mean one compound.

    Examples
    --------
    >>> table = {"Imatinib": "a", "JQ1": "b", "jq1": "c"}
    >>> found = match_names(["imatinib", "JQ1", "jQ1"], table, str.__eq__)
    >>> found.rows, found.ambiguous
    ({'imatinib': 'Imatinib', 'JQ1': 'JQ1'}, ['jQ1'])
    """
    if names is None:
        return Match({name: name for name in table}, [], [])
    groups: dict[str, list[str]] = defaultdict(list)
    for name in table:
        groups[folded(name)].append(name)
    out = Match({}, [], [])
    for name in dict.fromkeys(names):
        near = groups.get(folded(name), [])
        if name in table:
            out.rows[name] = name
        elif near and all(same(table[near[0]], table[other]) for other in near[1:]):
            out.rows[name] = near[0]
            out.loose.append(name)
        elif near:
            out.ambiguous.append(name)
    return out
