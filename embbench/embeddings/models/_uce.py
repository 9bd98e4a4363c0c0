"""UCE's tokens: where a species' genes lie in the genome and in the table of tokens, and a cell as a sentence."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embbench.cache.pickles import read_pickle
from embbench.core import UserError

FIELDS = ("species", "gene_symbol", "chromosome", "start")
SPECIAL = ("<pad>", "<left>", "<right>", "<cls>")  # rows 0 to 3 of the table of tokens
PAD, RIGHT, CLS = 0, 2, 3


@dataclass(frozen=True)
class Genome:
    """Tokens of a species.

    Parameters
    ----------
    vocabulary : special tokens, chromosomes ascending, genes.
    row : shape (len(vocabulary),), row of each in the table of tokens.
    opening : shape (len(vocabulary),), vocabulary number of a gene's chromosome, -1 for other tokens.
    start : shape (len(vocabulary),), where a gene begins on it.
    first : number of the first gene.
    """

    vocabulary: tuple[str, ...]
    row: np.ndarray
    opening: np.ndarray
    start: np.ndarray
    first: int

    @classmethod
    def read(cls, proteins: Path, chromosomes: Path, offsets: Path, species: str, base: int) -> Genome:
        """From the published files; a gene needs a protein and a place.

        Raises
        ------
        UserError
            Not such files, or without the species.
        """
        from embbench.embeddings.models._checkpoint import read_state

        spelled: dict[str, str] = {}  # the official code joins names that differ in case, and numbers what is left
        for name in read_state(proteins):
            spelled.setdefault(name.upper(), name)
        places, code = _places(chromosomes, species)
        table = read_pickle(offsets)
        offset = table.get(species) if isinstance(table, dict) else None
        if not isinstance(offset, int | np.integer) or offset < len(SPECIAL):
            raise UserError(f"{offsets}: expected {species!r} -> its first row, found {offset!r}; is it UCE's?")
        genes = [(i, name) for i, name in enumerate(spelled) if name in places]
        if not genes:
            raise UserError(f"{chromosomes}: expected genes of {proteins.name}, found none; is it UCE's?")
        used = sorted({code[places[name][0]] for _, name in genes})
        token = {number: len(SPECIAL) + i for i, number in enumerate(used)}
        first = len(SPECIAL) + len(used)
        vocabulary = (*SPECIAL, *(f"<chromosome {number}>" for number in used), *(spelled[name] for _, name in genes))
        return cls(
            vocabulary,
            np.array([*range(len(SPECIAL)), *(base + n for n in used), *(int(offset) + i for i, _ in genes)]),
            np.array([-1] * first + [token[code[places[name][0]]] for _, name in genes]),
            np.array([0] * first + [places[name][1] for _, name in genes]),
            first,
        )


def _places(path: Path, species: str) -> tuple[dict[str, tuple[str, int]], dict[str, int]]:
    """Gene in capitals -> its chromosome and start; chromosome -> its number among those of all species."""
    places: dict[str, tuple[str, int]] = {}
    every: set[str] = set()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if absent := [name for name in FIELDS if name not in (reader.fieldnames or ())]:
                raise UserError(f"{path}: expected columns {', '.join(FIELDS)}, found no {', '.join(absent)}")
            for row in reader:
                if row["chromosome"] in ("", "NA", "nan"):  # the official code's table has no number for them either
                    continue
                every.add(name := f"{row['species']}_{row['chromosome']}")
                if row["species"] == species:
                    places.setdefault(row["gene_symbol"].upper(), (name, int(float(row["start"]))))
    except (OSError, ValueError, TypeError, csv.Error, AttributeError) as error:
        raise UserError(f"{path}: expected a table of {', '.join(FIELDS)}, unreadable: {error}") from error
    return places, {name: number for number, name in enumerate(sorted(every))}


def sentence(
    gene: np.ndarray, value: np.ndarray, genome: Genome, size: int, stream: np.random.Generator | np.random.RandomState
) -> np.ndarray:
    """Vocabulary numbers of a cell's sentence, shape (n,), int64; ``<cls>`` alone for a cell without genes.

    Parameters
    ----------
    gene, value : shape (k,), vocabulary numbers and counts > 0.
    genome : where the genes lie.
    size : genes drawn.
    stream : draws once ``choice`` and once ``shuffle``, as the official code does.
    """
    if not len(gene):
        return np.array([CLS])
    weight = np.log1p(value.astype(np.float64))
    drawn = gene[stream.choice(len(gene), size=size, p=weight / weight.sum(), replace=True)]
    drawn = drawn[np.lexsort((drawn, genome.start[drawn], genome.opening[drawn]))]
    chromosomes, begin = np.unique(genome.opening[drawn], return_index=True)
    groups = np.split(drawn, begin[1:])
    order = np.arange(len(chromosomes))
    stream.shuffle(order)
    parts = [np.concatenate([[chromosomes[k]], groups[k], [RIGHT]]) for k in order]
    return np.concatenate([[CLS], *parts]).astype(np.int64)
