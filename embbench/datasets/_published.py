"""What readers of published screens share: where their files lie, columns by their published names, and the import."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from embbench.cache.datafiles import DataFile, chosen, digests, folder_of, records, require
from embbench.cache.keys import code_of
from embbench.core import PerturbationDataset, UserError
from embbench.datasets._assembled import Assembled, Part
from embbench.datasets._given import check_options, words
from embbench.datasets._h5ad import column, column_names, describe, length, near
from embbench.datasets._import import Cells, cached, read_options
from embbench.datasets._matrix import open_matrix
from embbench.datasets._open import open_anndata
from embbench.datasets._options import ImportOptions
from embbench.datasets._recipes import Recipe, curate, recipe_of
from embbench.datasets._scale import detect_scale

OF_CELLS = ("perturbation_key", "batch_key", "size_factor", "dose_key")
COLUMNS = (*OF_CELLS, "layer", "gene_key")
LISTS = ("context_keys", "covariates")
FACTS = ("default_split", "default_context_embedding")


@dataclass(frozen=True)
class Published:
    """The files of a published screen on this machine.

    Parameters
    ----------
    name : of the registry entry; also the folder's below ``$EMBBENCH_HOME/published``.
    files : those of the part that is used.
    folder : where they lie.
    only : which of them, for entries whose files can be used apart ('' all).
    """

    name: str
    files: tuple[DataFile, ...]
    folder: Path
    only: str = ""

    @classmethod
    def of(cls, name: str, files: Sequence[Mapping[str, Any]], root: str = "", only: str = "") -> Published:
        """From the parameters of a registry entry; ValueError for a record that is none, `UserError` for a part."""
        told = chosen(records(files), only or None)
        return cls(name, told, Path(root) if root else folder_of(name), only)

    def require(self) -> None:
        """`UserError` that says how to fetch them, when files are not there."""
        require(self.name, self.folder, self.files)

    @property
    def stored(self) -> tuple[str, ...]:
        """Names of the files as they lie in the folder."""
        return tuple(name for file in self.files for name in file.stored)

    def path(self, stored: str) -> Path:
        """Where a file lies."""
        return self.folder / stored

    def digests(self) -> dict[str, str]:
        """Stored name -> sha256."""
        return digests(self.folder, self.files)


Opened = Mapping[str, Any]  # stored name -> open AnnData
Assemble = Callable[[Opened], Assembled]
Opener = Callable[[contextlib.ExitStack], Opened]


@dataclass(frozen=True)
class Screen:
    """How the files of a published screen become effects.

    Parameters
    ----------
    published : its files.
    reader : module of the reader, for the key.
    assemble : open files -> the cells with columns named as the import options say.
    options : of the import (`ImportOptions`). A list for a column means the first one that there is; ``None`` in it,
        that there may be none.
    expects : ``counts`` or ``lognorm``, as published; anything else in the file is refused.
    recipe : how benchmarks curated it.
    facts : for ``meta``: licence, reference, default split.
    own : the reader's further parameters that its cells depend on, JSON-able, for the key.
    opener : opens the files where they are no AnnData as published; None: every `.h5ad` and zarr store among them.
    """

    published: Published
    reader: str
    assemble: Assemble
    options: Mapping[str, Any]
    expects: str = "counts"
    recipe: Recipe = field(default_factory=Recipe)
    facts: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    opener: Opener | None = None

    def __post_init__(self) -> None:
        check_options(self.options)

    def check(self) -> list[str]:
        """Whether the files are as published, read from their tables and a sample of the values.

        Returns
        -------
        Lines that say what was found.

        Raises
        ------
        UserError
            A column is absent, no label is a control, or the values are of another kind.
        """
        with self.open() as file:
            options = self._options(file)
            cells, genes = length(file, "obs"), length(file, "var")
            self._check_scale(file, options)
            labels = column(file, "obs", options.perturbation_key, "--perturbation-key")
            number = int(np.isin(labels.codes, [labels.levels.index(name) for name in options.control]).sum())
            lines = [
                f"{cells:,} cells x {genes:,} genes, {self.expects}",
                f"{labels.name}: {len(labels.levels)} labels, control {', '.join(options.control)} in {number:,} cells",
            ]
            for key in options.context_keys:
                levels = column(file, "obs", key, "--context-key").levels
                lines.append(f"context {key}: {len(levels)} ({describe(levels)})")
            used = {name: getattr(options, name) for name in COLUMNS[1:] if getattr(options, name)}
            _ = file.notes  # makes the columns that nothing above asks for, which may be what is wrong
            return lines + [f"{name}: {value}" for name, value in used.items()]

    def load(self, progress: Any = None) -> PerturbationDataset:
        """The screen, from the store when these files were imported in this way before.

        Raises
        ------
        UserError
            Files are not fetched, or not as published; see `embbench.datasets._import.import_h5ad`.
        """
        with self.open() as file:
            options = self._options(file)
            self._check_scale(file, options)
        sums = self.published.digests()
        told: dict[str, Any] = {
            "file": next(iter(sums.values())) if len(sums) == 1 else sums,
            "reader": code_of(self.reader),
        }
        source = ", ".join(self.published.stored)
        told |= {"published": self.published.name, "only": self.published.only, "read": dict(self.options)}
        told |= {"own": dict(self.own)} if self.own else {}
        told |= {"drop": [dict(rule) for rule in self.recipe.drop]} if self.recipe.drop else {}
        data = cached(Cells(source, told, self.open), options, progress)
        data = curate(data, self.recipe)
        return replace(data, name=self.published.name, meta={**data.meta, **self.facts})

    @contextlib.contextmanager
    def open(self) -> Iterator[Assembled]:
        """The cells; `UserError` when files are not there or cannot be read."""
        self.published.require()
        with contextlib.ExitStack() as stack:
            file = self.assemble(self._opened(stack) if self.opener is None else self.opener(stack))
            self._align(file)
            yield file

    def _align(self, file: Assembled) -> None:
        """Give files that call a column differently the name of the first: else none would be found in all of them.

        Raises
        ------
        UserError
            Some of the files have such a column, others none.
        """
        for option in OF_CELLS if len(file.parts) > 1 else ():
            wanted = self.options.get(option)
            known = [[*part.obs, *column_names(part.file, "obs")] for part in file.parts]
            found = [first_column(self.published.name, option, wanted, names) for names in known]
            if len(set(found)) == 1:
                continue
            have = [(i, part, name) for i, (part, name) in enumerate(zip(file.parts, found, strict=True)) if name]
            if len(have) < len(found):
                lacking = [part.tag for part, name in zip(file.parts, found, strict=True) if not name]
                raise UserError(
                    f"{self.published.name}: expected a column for {option} in every file or in none, found "
                    f"{have[0][2]!r} in {have[0][1].tag}, none in {', '.join(lacking)}; read them apart (only=...), or "
                    f"leave it out ({option}=null)"
                )
            for i, part, name in have:
                if name != have[0][2]:
                    file.parts[i] = replace(part, obs={**part.obs, have[0][2]: functools.partial(part.read, name)})

    def _opened(self, stack: contextlib.ExitStack) -> Opened:
        names = [name for name in self.published.stored if name.endswith((".h5ad", ".zarr"))]
        return {name: stack.enter_context(open_anndata(self.published.path(name))) for name in names}

    def _check_scale(self, file: Assembled, options: ImportOptions) -> None:
        matrix = open_matrix(file, options.layer, (length(file, "obs"), length(file, "var")))
        try:
            found = detect_scale(matrix, "auto", file.filename, column_names(file, "obs"))
        except UserError as error:
            raise UserError(f"{self.published.name}: expected {self.expects} as published. {error}") from error
        if found != self.expects:
            raise UserError(
                f"{self.published.name}: expected {self.expects} as published, found {found} in {matrix.label}; the "
                "file is another one (a processed copy?): fetch the published one, or use embbench data import"
            )

    def _options(self, file: Assembled) -> ImportOptions:
        """Import options with the columns that there are."""
        known, out = column_names(file, "obs"), dict(self.options)
        for name in OF_CELLS:
            out[name] = first_column(self.published.name, name, out.get(name), known)
        for name in LISTS:
            each = out.get(name) or ()
            found = [first_column(self.published.name, name, key, known) for key in words(each, name)]
            out[name] = [key for key in found if key]
        out = {name: value for name, value in out.items() if name not in ("gene_key", "layer")}  # seen to by `part_of`
        key = out.pop("perturbation_key")
        return read_options(key, self._controls(file, key, words(out.pop("control", ()), "control")), out)

    def _controls(self, file: Assembled, key: str, known: Sequence[str]) -> list[str]:
        """Those of the published control labels that the file has."""
        levels = column(file, "obs", key, "--perturbation-key").levels
        found = [name for name in known if name in levels]
        if not found:
            raise UserError(
                f"{self.published.name}: expected the control {' or '.join(map(repr, known))} among the labels, found "
                f"{len(levels)} labels ({describe(levels)}); the file is not the published one, or has changed: "
                "embbench data import reads it with columns of your choice"
            )
        return found


def first_column(name: str, option: str, wanted: Sequence[str | None] | str | None, known: Sequence[str]) -> str | None:
    """The first of several column names that there is; None where that is allowed.

    Raises
    ------
    UserError
        There is none of them, and None is not among them; or these are no names.

    Examples
    --------
    >>> first_column("norman19", "batch_key", ["gem_group", "gemgroup", None], ["gemgroup"])
    'gemgroup'
    """
    given = wanted
    if wanted is None or isinstance(wanted, str):
        wanted = [wanted]
    if not isinstance(wanted, list | tuple) or not wanted or not all(isinstance(w, str | None) for w in wanted):
        raise UserError(
            f"{name}: {option} must be a column, or columns of which the first that there is counts, found {given!r}"
        )
    for each in wanted:
        if each is None or each in known:
            return each
    listed = " or ".join(str(each) for each in wanted)
    raise UserError(
        f"{name}: expected the column {listed} for {option}, as published{near(str(wanted[0]), known)}; the file is "
        "another one, or has changed: embbench data import reads it with columns of your choice"
    )


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of a reader, parted into import options and facts for ``meta``."""
    facts = {name: options[name] for name in FACTS if options.get(name)}
    return {name: value for name, value in options.items() if name not in FACTS}, facts


def part_of(name: str, file: Any, options: Mapping[str, Any], tag: str = "", **obs: np.ndarray) -> Part:
    """An open file as a part, with gene names and values from where the options say, and further columns of obs."""
    key, layer = options.get("gene_key"), options.get("layer")
    known = column_names(file, "var")
    return Part(file, obs, first_column(name, "gene_key", key, known) if key else None, layer, tag)


def relabel(values: np.ndarray, change: Callable[[str], str]) -> np.ndarray:
    """Labels, shape (m,), objects of str, each level changed once.

    Examples
    --------
    >>> relabel(np.array(["OST4_pDS353", ""], dtype=object), lambda label: label.partition("_p")[0]).tolist()
    ['OST4', '']
    """
    listed = values.tolist()  # sorting them, as np.unique does, takes ten times as long
    new = {level: change(level) if level else "" for level in dict.fromkeys(listed)}
    return np.array([new[level] for level in listed], dtype=object)


def screen_of(
    published: Published,
    reader: str,
    assemble: Assemble,
    options: Mapping[str, Any],
    expects: str,
    recipe: str,
    own: Mapping[str, Any] | None = None,
    opener: Opener | None = None,
) -> Screen:
    """A `Screen` from the parameters of a reader, the import options of its recipe among them.

    Raises
    ------
    UserError
        An option that imports do not have; no such recipe.
    """
    given, facts = split_options(options)
    told = recipe_of(recipe, given.pop("recipes", {}), published.name)
    if unknown := sorted(set(given) - set(ImportOptions.__dataclass_fields__)):
        known = ", ".join(sorted(ImportOptions.__dataclass_fields__))
        raise UserError(f"{published.name}: there is no option {unknown[0]!r}; options of the import are {known}")
    other = {name: given.get(name) for name, value in told.options.items() if given.get(name) != value}
    return Screen(published, reader, assemble, given, expects, replace(told, changed=other), facts, own or {}, opener)
