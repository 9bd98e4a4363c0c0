"""Packaged knowledge: gene sets from GMT files and GO annotations propagated over the ontology."""

from __future__ import annotations

import functools
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from embbench.core import UserError
from embbench.embeddings._evidence import EVIDENCE, evidence_codes
from embbench.genes import symbols_of

DATA = Path(__file__).parents[1] / "data"
RELATIONS = ("is_a", "part_of", "regulates", "positively_regulates", "negatively_regulates")
WEIGHTED = re.compile(r"(.+),\s*-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")  # a member of Enrichr's weighted sets
_SPELLING = {"isa": "is_a"}

Incidence = tuple[list[str], list[str], sparse.csr_matrix]


def text_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text file, gzip-compressed or not (by its first bytes).

    Raises
    ------
    UserError
        Missing, unreadable or not text.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a readable UTF-8 text file (.gz allowed), found: {error}") from error
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def read_gmt(path: Path) -> Incidence:
    """Gene sets of a GMT file: one set per line, ``name<TAB>note<TAB>gene...``; plain or gzip.

    Old symbols, Ensembl and Entrez identifiers become current symbols (`embbench.genes.symbols_of`: two spellings of
    one gene are one gene); names that mean no single gene stay as they are. Members written
    ``gene,number`` (Enrichr) lose the number; a gene named twice counts once.

    Returns
    -------
    genes sorted, sets in file order, binary incidence of shape (genes, sets), float64 CSR.

    Raises
    ------
    UserError
        A line without gene, a repeated set name, or no set at all.
    """
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        name, *rest = line.split("\t")
        members = [_member(gene) for gene in rest[1:] if gene.strip()]
        if not members:
            raise UserError(
                f"{path}, line {number}: expected 'name<TAB>note<TAB>gene<TAB>gene...', found {line[:60]!r}"
            )
        if name in sets:
            raise UserError(f"{path}, line {number}: set {name!r} occurs twice; give every set its own name")
        sets[name] = members
    if not sets:
        raise UserError(f"{path}: expected gene sets in GMT format, found an empty file")
    symbol = symbols_of(sorted({gene for members in sets.values() for gene in members}))
    pairs = [(symbol[gene], name) for name, members in sets.items() for gene in members]
    genes = sorted(set(symbol.values()))
    return genes, list(sets), _incidence(pairs, genes, list(sets))


def _member(text: str) -> str:
    weighted = WEIGHTED.fullmatch(text.strip())
    return weighted[1].strip() if weighted else text.strip()


class Ontology(NamedTuple):
    """GO as annotated: ``direct`` (genes, terms) binary, ``parents[relation]`` (terms, terms) from child to parent.

    ``branch`` (terms,) is BP, CC or MF.
    """

    genes: list[str]
    terms: list[str]
    branch: np.ndarray
    direct: sparse.csr_matrix
    parents: dict[str, sparse.csr_matrix]


@functools.lru_cache(maxsize=4)
def go_ontology(
    ontology: str | None, keep: tuple[str, ...] | None, drop: tuple[str, ...], folder: Path = DATA
) -> Ontology:
    """Direct annotations and edges of GO.

    Parameters
    ----------
    ontology : ``BP``, ``CC``, ``MF``, or None for all three.
    keep, drop : evidence codes or groups of `EVIDENCE` to use (None: all) and to leave out.
    folder : where ``go_annotations.tsv.gz``, ``go_parents.tsv.gz`` and ``go_terms.tsv.gz`` lie.

    Returns
    -------
    Ontology with genes and terms sorted; genes without annotation are absent. The result is kept for the next call:
    leave it as it is.

    Raises
    ------
    UserError
        A code that GO does not have, or no annotation has the evidence asked for; the codes that exist are listed.
    """
    branch_of = {row[0]: row[2] for row in _table(folder / "go_terms.tsv.gz") if ontology in (None, row[2])}
    annotations = [row for row in _table(folder / "go_annotations.tsv.gz") if ontology in (None, row[3])]
    wanted, unwanted = None if keep is None else evidence_codes(keep), evidence_codes(drop)
    chosen = [
        (gene, term)
        for gene, term, code, _ in annotations
        if (wanted is None or code in wanted) and code not in unwanted
    ]
    existing = {row[2] for row in annotations}
    unknown = {*(wanted or ()), *unwanted} - existing - {code for group in EVIDENCE.values() for code in group}
    if unknown or not chosen:
        raise UserError(
            f"GO: {f'unknown evidence {sorted(unknown)}' if unknown else 'no annotation left'} "
            f"(evidence {keep}, without {list(drop)}); existing codes: {', '.join(sorted(existing))}; "
            f"groups: {', '.join(EVIDENCE)}"
        )
    terms, genes = sorted(branch_of), sorted({gene for gene, _ in chosen})
    edges: dict[str, list[tuple[str, str]]] = {relation: [] for relation in RELATIONS}
    for child, parent, relation in _table(folder / "go_parents.tsv.gz"):
        if child in branch_of and parent in branch_of:
            edges[_relation(relation)].append((child, parent))
    parents = {relation: _incidence(pairs, terms, terms) for relation, pairs in edges.items()}
    branch = np.array([branch_of[term] for term in terms])
    return Ontology(genes, terms, branch, _incidence(chosen, genes, terms), parents)


@functools.lru_cache(maxsize=4)
def go_incidence(
    ontology: str | None,
    relations: tuple[str, ...],
    keep: tuple[str, ...] | None,
    drop: tuple[str, ...],
    folder: Path = DATA,
) -> Incidence:
    """Genes x GO terms after propagation: a gene annotated to a term belongs to all its ancestors.

    Parameters
    ----------
    ontology, keep, drop, folder : see `go_ontology`.
    relations : relations of `RELATIONS` that annotations follow upwards.

    References
    ----------
    Gene Ontology Consortium (2000), Nature Genetics 25:25-29 (the true path rule).

    Returns
    -------
    genes sorted, terms sorted, binary incidence of shape (genes, terms), float64 CSR; genes without annotation are
    absent. The result is kept for the next call: leave it as it is.

    Raises
    ------
    UserError
        See `go_ontology`.
    """
    go = go_ontology(ontology, keep, drop, folder)
    propagated = go.direct @ _closure(go, relations)
    propagated.data[:] = 1.0
    return go.genes, go.terms, propagated.tocsr()


def information_content(
    ontology: str | None,
    relations: tuple[str, ...],
    keep: tuple[str, ...] | None,
    drop: tuple[str, ...],
    folder: Path = DATA,
) -> np.ndarray:
    """``IC(t) = -ln p(t)``, shape (terms,): p is the share of annotations at t or a descendant, within BP, CC or MF.

    A gene annotated to two descendants of t counts twice, unlike in a document frequency. Terms without annotation
    have IC 0 (they are in no set either), and so has a term above the branches' roots, which counts more than all of
    its own branch. Arguments as in `go_incidence`.

    References
    ----------
    Resnik (1995), IJCAI, equations 1 and 3; for GO: Lord et al. (2003), Bioinformatics 19(10), section 2.
    """
    go = go_ontology(ontology, keep, drop, folder)
    direct = np.asarray(go.direct.sum(axis=0)).ravel()
    count = _closure(go, relations).T @ direct
    total = np.zeros(len(go.terms))
    for branch in np.unique(go.branch):
        total[go.branch == branch] = direct[go.branch == branch].sum()
    # GO's artificial root `all` is above the three branches: its share would be more than 1
    return np.where(count > 0, np.maximum(0.0, np.log(np.maximum(total, 1.0) / np.maximum(count, 1.0))), 0.0)


def _closure(go: Ontology, relations: tuple[str, ...]) -> sparse.csr_matrix:
    none = sparse.csr_matrix((len(go.terms), len(go.terms)))
    return ancestors(sum((go.parents[relation] for relation in dict.fromkeys(relations)), none))


def ancestors(parents: sparse.csr_matrix) -> sparse.csr_matrix:
    """Reflexive transitive closure, shape (t, t), of a DAG's child-parent matrix, by repeated Boolean squaring.

    ``ceil(log2(depth))`` sparse products instead of a walk per term.

    Examples
    --------
    >>> chain = sparse.csr_matrix(np.array([[0.0, 1, 0], [0, 0, 1], [0, 0, 0]]))
    >>> ancestors(chain).toarray().tolist()
    [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    """
    reach = (parents + sparse.identity(parents.shape[0], format="csr")).tocsr()
    reach.data[:] = 1.0
    while True:
        further = (reach @ reach).tocsr()
        further.data[:] = 1.0
        if further.nnz == reach.nnz:
            further.sort_indices()
            return further
        reach = further


def _relation(text: str) -> str:
    spelled = text.replace(" ", "_")
    return _SPELLING.get(spelled, spelled)


def _table(path: Path) -> Iterator[list[str]]:
    return (line.split("\t") for line in text_lines(path)[1:])


def _incidence(pairs: list[tuple[str, str]], row_names: list[str], column_names: list[str]) -> sparse.csr_matrix:
    row_of = {name: i for i, name in enumerate(row_names)}
    column_of = {name: i for i, name in enumerate(column_names)}
    rows = [row_of[row] for row, _ in pairs]
    columns = [column_of[column] for _, column in pairs]
    matrix = sparse.csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(row_names), len(column_names)))
    matrix.data[:] = 1.0  # a pair annotated twice counts once (the constructor summed repeats)
    return matrix
