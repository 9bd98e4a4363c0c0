"""Tables of (head, relation, tail), and which of their nodes are genes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embbench.core import UserError
from embbench.embeddings._knowledge import text_lines
from embbench.genes import harmonise

HEADERS = (("head", "relation", "tail"), ("source", "metaedge", "target"), ("subject", "predicate", "object"))
NO_GENE = ("unknown", "ambiguous")


def gene_triples(
    path: Path, columns: Sequence[str] | None, gene_prefix: str | None
) -> tuple[np.ndarray, dict[str, str]]:
    """Distinct sorted triples of shape (t, 3) of labels, and label -> symbol of the nodes that are genes.

    Two spellings of one gene become one label. ``gene_prefix`` is what labels of genes begin with; None takes every
    node that is a known gene symbol or identifier.

    Raises
    ------
    UserError
        The table cannot be read or has no gene.
    """
    rows = read_triples(path, columns)
    symbol, prefix = {}, gene_prefix or ""
    for label in sorted({row[0] for row in rows} | {row[2] for row in rows}):
        if not label.startswith(prefix):
            continue
        one = harmonise([label.removeprefix(prefix)])  # one name at a time: two spellings may become one symbol
        if gene_prefix is not None or one.status[0] not in NO_GENE:
            symbol[label] = one.names[0]
    if not symbol:
        begins = f" beginning with {prefix!r}" if prefix else ""
        raise UserError(f"{path}: expected gene nodes{begins}, found none, e.g. {rows[0][0]!r}; see gene_prefix")
    joined = {label: prefix + name for label, name in symbol.items()}
    triples = sorted({(joined.get(head, head), relation, joined.get(tail, tail)) for head, relation, tail in rows})
    return np.array(triples), {joined[label]: name for label, name in symbol.items()}


def read_triples(path: Path, columns: Sequence[str] | None = None) -> list[tuple[str, str, str]]:
    """Rows (head, relation, tail) of a table; tab- or comma-separated, ``.gz`` allowed, without header or with one.

    ``columns`` names the three; None takes one of `HEADERS`, else three columns without header.

    Raises
    ------
    UserError
        Unreadable file, missing columns, or a line that has no three texts.
    """
    lines = text_lines(path)
    tabs = "\t" in lines[0]
    try:  # quotes mean something in comma-separated files only
        rows = [line.split("\t") for line in lines] if tabs else list(csv.reader(lines))
    except csv.Error as error:
        raise UserError(f"{path}: expected a table of triples, found: {error}") from error
    header = [field.strip() for field in rows[0]] if rows else []
    wanted = columns or next((h for h in HEADERS if set(h) <= {field.lower() for field in header}), None)
    if wanted is not None:
        fields = header if columns else [field.lower() for field in header]
        if absent := [name for name in wanted if name not in fields]:
            raise UserError(f"{path}: expected columns {absent}, found {header[:12]}")
        places, first = [fields.index(name) for name in wanted], 1
    else:
        places, first = [0, 1, 2], 0
    out = []
    for number, row in enumerate(rows[first:], start=first + 1):
        if not any(row):
            continue
        triple = [row[place].strip() for place in places if place < len(row)]
        if len(triple) < 3 or not all(triple) or (wanted is None and len(row) != 3):
            raise UserError(f"{path}, line {number}: expected head, relation and tail, found {row[:6]}; see columns")
        out.append((triple[0], triple[1], triple[2]))
    if not out:
        raise UserError(f"{path}: expected triples (head, relation, tail), found none")
    return out
