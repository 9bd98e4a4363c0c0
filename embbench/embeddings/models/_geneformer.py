"""Geneformer's dictionaries: where the published repository keeps them, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embbench.cache.pickles import read_pickle
from embbench.cache.weights import local_folder
from embbench.core import UserError

STEMS = {"tokens": "token_dictionary", "medians": "gene_median_dictionary", "mapping": "ensembl_mapping_dict"}
CORPORA = {"gc104M": "geneformer", "gc95M": "geneformer", "gc30M": "geneformer/gene_dictionaries_30m"}
SENTENCE = ("<cls>", "<eos>")  # V2 puts them around a cell's genes
REPOSITORY = re.compile(r"(hf:[^/]+/[^/@]+)(@[^/]+)?(?:/.*)?")


def repository_of(checkpoint: str) -> str:
    """``hf:org/name@revision`` of a hub text, empty for others.

    Examples
    --------
    >>> repository_of("hf:ctheodoris/Geneformer@main/Geneformer-V1-10M")
    'hf:ctheodoris/Geneformer@main'
    """
    if (found := REPOSITORY.fullmatch(checkpoint)) is None:
        return ""
    return found[1] + (found[2] or "@main")


def find_dictionaries(
    folder: Path, checkpoint: str | None, corpus: str | None, given: Mapping[str, str | None]
) -> dict[str, Path]:
    """``tokens``, ``medians`` and ``mapping`` -> file, existing or expected.

    They are looked for in the model's folder, beside it, and in the folder ``geneformer`` of the repository, by their
    published names; names without a corpus are those of the first releases, which had no ``mapping``.

    Parameters
    ----------
    folder, checkpoint : the model's folder, and the text that it comes from.
    corpus : of `CORPORA`, or None for any.
    given : files that the user named.
    """
    roots = [folder, folder.parent]
    if checkpoint is not None and (repository := repository_of(checkpoint)):
        roots.append(local_folder(repository))
    places = [folder, folder.parent, *(root / sub for sub in dict.fromkeys(CORPORA.values()) for root in roots)]
    out: dict[str, Path] = {}
    for role, stem in STEMS.items():
        names = [*(f"{stem}_{name}.pkl" for name in (CORPORA if corpus is None else (corpus,))), f"{stem}.pkl"]
        found = next((place / name for place in places for name in names if (place / name).is_file()), None)
        named = given[role]
        early = given["tokens"] is not None or out.get("tokens", folder).name == f"{STEMS['tokens']}.pkl"
        if named is not None:
            out[role] = Path(named).expanduser()
        elif found is not None or role != "mapping" or not early:
            out[role] = found or folder / names[0]
    return out


@dataclass(frozen=True)
class Words:
    """The tokeniser's dictionaries.

    Parameters
    ----------
    vocabulary : tokens by number, Ensembl identifiers but for the special ones.
    median : shape (len(vocabulary),), float64, NaN for special tokens.
    mapping : aliases in capitals -> Ensembl identifier; empty for V1.
    special : numbers of ``<cls>`` and ``<eos>``, or ().
    """

    vocabulary: tuple[str, ...]
    median: np.ndarray
    mapping: dict[str, str]
    special: tuple[int, ...]

    @classmethod
    def read(cls, files: dict[str, Path], *, special: bool | None) -> Words:
        """From the pickles, without running code of them.

        Raises
        ------
        UserError
            Not such dictionaries, or of different releases.
        """
        tokens, medians = _table(files["tokens"], (int, np.integer)), _table(files["medians"], (float, int, np.number))
        vocabulary = tuple(sorted(tokens, key=lambda name: int(tokens[name])))
        if [int(tokens[name]) for name in vocabulary] != list(range(len(vocabulary))) or "<pad>" not in tokens:
            raise UserError(
                f"{files['tokens']}: expected <pad> and tokens numbered 0 to {len(tokens) - 1}, found gaps, repeats or "
                "no <pad>"
            )
        median = np.array([medians.get(name, np.nan) for name in vocabulary], dtype=np.float64)
        lost = [name for name, m in zip(vocabulary, median, strict=True) if not (name[0] == "<" or 0 < m < np.inf)]
        if lost:
            raise UserError(
                f"{files['medians']}: expected a median > 0 for every gene of {files['tokens'].name}, found none for "
                f"{len(lost)}, e.g. {lost[0]}; take both dictionaries of one release"
            )
        both = all(token in tokens for token in SENTENCE)
        if special and not both:
            raise UserError(f"geneformer:special=true needs {' and '.join(SENTENCE)} in {files['tokens']}, found none")
        around = tuple(int(tokens[token]) for token in SENTENCE) if (both if special is None else special) else ()
        if "mapping" not in files and both:
            raise UserError(
                f"geneformer: no ensembl_mapping_dict beside {files['tokens']}, whose tokeniser (V2) adds up "
                "aliases; put the file there or name it with mapping="
            )
        mapping = _table(files["mapping"], (str,)) if "mapping" in files else {}
        return cls(vocabulary, median, mapping, around)


def _table(path: Path, kinds: tuple[type, ...]) -> dict[str, Any]:
    """A pickled dict from text to values of those kinds."""
    content = read_pickle(path)
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) and key for key in content):
        raise UserError(f"{path}: expected a dictionary of names, found {type(content).__name__}; is it Geneformer's?")
    if odd := [key for key, value in content.items() if not isinstance(value, kinds)]:
        raise UserError(
            f"{path}: expected {kinds[0].__name__} values, found {content[odd[0]]!r:.80} for {odd[0]!r:.80}"
        )
    return content
