"""Make the tables of ``embbench/data`` from downloaded sources: the same input gives the same bytes.

Usage: ``python bench/make_data.py SOURCE [TARGET]``. SOURCE is a folder that holds ``orghs_*``, ``godb_*``,
``imex_intact_ppi_symbols.tsv.gz``, ``enrichr_Reactome_2022.gmt`` and ``msigdb_h.gmt.gz``, with ``expression`` and
``licences`` beside it. Where every table comes from, and what was left out, is told in ``embbench/data/README.md``.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

TABLES = {
    "gene_table.tsv.gz": ("orghs_gene_table.tsv.gz", ("entrez", "symbol", "ensembl_id", "gene_type")),
    "gene_alias.tsv.gz": ("orghs_symbol_alias.tsv.gz", ("symbol", "alias_symbol")),
    "go_annotations.tsv.gz": ("orghs_go_direct.tsv.gz", ("symbol", "go_id", "evidence", "ontology")),
    "go_parents.tsv.gz": ("godb_parents.tsv.gz", ("child", "parent", "relationship_type")),
    "go_terms.tsv.gz": ("godb_terms.tsv.gz", ("go_id", "term", "ontology")),
}
RENAMED = {"ensembl_id": "ensembl", "alias_symbol": "alias"}
DESCRIBED = ("protein-coding", "ncRNA")  # gene types whose full names are kept; others are hardly ever perturbed
GENE_SETS = {"reactome.gmt.gz": "enrichr_Reactome_2022.gmt", "hallmark.gmt.gz": "msigdb_h.gmt.gz"}
OPEN_SOURCES = {"IntAct", "MINT"}  # a pair that only "IMEx" names may be curated by a partner with its own terms
MITOCHONDRIAL = re.compile(r"ATP[68]|CYTB|COX[123]|ND[1-6]L?|RNR[12]|TRN(?:[LS][12]|[A-Z])")  # NCBI symbols
KANG = "kang2018_pbmc_ifnb_1000hvg_counts.h5ad"


def lines(path: Path) -> Iterator[str]:
    """Text lines of a plain or gzipped file, without the line end."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    for line in text.rstrip("\n").split("\n"):
        yield line.rstrip("\r")


def write(path: Path, rows: Iterable[str]) -> None:
    """Write gzip without a time stamp or a file name in its header."""
    text = "".join(f"{row}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text, compresslevel=9, mtime=0))


def columns(source: Path, names: tuple[str, ...]) -> Iterator[str]:
    """Some columns of a TSV file, in the given order and without repeated rows.

    A missing Ensembl identifier (``NA``) becomes empty; a row whose alias is ``NA`` goes, because as a perturbation
    label it means "not available" and not the gene XK.
    """
    rows = lines(source)
    where = {name: i for i, name in enumerate(next(rows).split("\t"))}
    yield "\t".join(RENAMED.get(name, name) for name in names)
    cells = (row.split("\t") for row in rows)
    picked = ([row[where[n]] for n in names] for row in cells)
    kept = (row for row in picked if not (names[-1] == "alias_symbol" and row[-1] == "NA"))
    if "symbol" in names:
        kept = (approved(row, names) for row in kept)
    yield from dict.fromkeys("\t".join("" if c == "NA" else c for c in row) for row in kept)


def approved(row: list[str], names: tuple[str, ...]) -> list[str]:
    """The row with the approved symbol of a mitochondrial gene (COX2 -> MT-CO2), which NCBI does not use.

    Only gene_table has Entrez identifiers; elsewhere RNR1 and RNR2 (also nuclear genes) stay.
    """
    at = names.index("symbol")
    nuclear = not 4508 <= int(row[names.index("entrez")]) <= 4579 if "entrez" in names else row[at][:3] == "RNR"
    if nuclear or not MITOCHONDRIAL.fullmatch(row[at]):
        return row
    short = re.sub("^COX", "CO", re.sub("^TRN", "T", row[at])).replace("CYTB", "CYB")
    return [f"MT-{short}" if i == at else cell for i, cell in enumerate(row)]


def gene_sets(source: Path) -> Iterator[str]:
    """GMT rows with sorted, unique genes and no empty last column."""
    for row in lines(source):
        name, note, *genes = row.split("\t")
        yield "\t".join([name, note, *sorted({g.strip() for g in genes} - {""})])


def described(source: Path) -> Iterator[str]:
    """Symbol and full name of every protein-coding or non-coding RNA gene that has more than a number (LOC...)."""
    rows = columns(source, ("symbol", "gene_name", "gene_type", "entrez"))
    next(rows)
    yield "symbol\tname"
    for symbol, name, kind, _ in (row.split("\t") for row in rows):
        if kind in DESCRIBED and name and not re.fullmatch(r"LOC\d+", symbol):
            yield f"{symbol}\t{name}"


def domains(source: Path) -> Iterator[str]:
    """GMT rows of Pfam families: identifier, no note, sorted genes that have the domain."""
    rows = lines(source)
    where = {name: i for i, name in enumerate(next(rows).split("\t"))}
    members: dict[str, set[str]] = {}
    for row in rows:
        cell = row.split("\t")
        if cell[where["pfam_id"]].startswith("PF"):
            symbol = approved([cell[where["symbol"]]], ("symbol",))[0]
            members.setdefault(cell[where["pfam_id"]], set()).add(symbol)
    for family in sorted(members):
        yield "\t".join([family, "", *sorted(members[family])])


def interactions(source: Path) -> Iterator[str]:
    """Pairs that IntAct or MINT itself names, with the number of evidence rows."""
    rows = lines(source)
    where = {name: i for i, name in enumerate(next(rows).split("\t"))}
    yield "g1\tg2\tn"
    for row in rows:
        cell = row.split("\t")
        if OPEN_SOURCES & set(cell[where["dbs"]].split("|")):
            yield "\t".join(cell[where[name]] for name in ("g1", "g2", "n"))


def screen(source: Path, target: Path) -> None:
    """Kang 2018 with integer counts, three columns about cells and none about genes."""
    import anndata
    import numpy as np
    import pandas as pd
    from scipy import sparse

    full = anndata.read_h5ad(source)
    counts = sparse.csr_matrix(full.X)
    counts.sort_indices()
    whole = sparse.csr_matrix((counts.data.astype(np.int16), counts.indices, counts.indptr), counts.shape)
    if not np.array_equal(whole.data, counts.data):
        sys.exit(f"{source}: expected whole counts below 32768, found others")
    obs = full.obs[["celltype", "perturbation", "n_counts"]].copy()
    obs["n_counts"] = obs["n_counts"].astype(np.int32)
    small = anndata.AnnData(whole, obs=obs, var=pd.DataFrame(index=full.var_names))
    small.write_h5ad(target, compression="gzip", compression_opts=9)


def artistic(source: Path) -> Iterator[str]:
    """Copyright lines and licence text of a Debian copyright file."""
    yield "org.Hs.eg.db 3.16.0 (Bioconductor): https://bioconductor.org/packages/org.Hs.eg.db/"
    for row in lines(source):
        if row.startswith("Copyright: 2019"):
            yield f"{row}\nLicense: Artistic-2.0\n"
        elif row.startswith(" "):
            yield "" if row == " ." else row[1:]


def main(source: Path, target: Path) -> None:
    """Write every table, the screen and the licence text that comes with its source."""
    (target / "licences").mkdir(parents=True, exist_ok=True)
    for name, (origin, names) in TABLES.items():
        write(target / name, columns(source / origin, names))
    write(target / "gene_names.tsv.gz", described(source / "orghs_gene_table.tsv.gz"))
    for name, origin in GENE_SETS.items():
        write(target / name, gene_sets(source / origin))
    write(target / "pfam.gmt.gz", domains(source / "orghs_pfam.tsv.gz"))
    write(target / "ppi.tsv.gz", interactions(source / "imex_intact_ppi_symbols.tsv.gz"))
    screen(source.parent / "expression" / KANG, target / "kang18.h5ad")
    text = "\n".join(artistic(source / "orghs_debian_copyright.txt"))
    (target / "licences" / "genes-and-annotations-Artistic-2.0.txt").write_text(text + "\n", encoding="utf-8")
    for path in sorted(p for p in target.rglob("*") if p.is_file()):
        print(f"{path.stat().st_size:>9,} {path.relative_to(target)}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    default = Path(__file__).resolve().parents[1] / "embbench" / "data"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else default)
