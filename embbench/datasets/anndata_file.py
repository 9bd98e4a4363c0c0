"""A single-cell screen in an `.h5ad` file, imported once and kept by content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from embbench.core import PerturbationDataset
from embbench.datasets._import import cached_screen, read_options

PACKAGE = "package:"


class AnnDataFile:
    """A registered screen whose cells lie in an `.h5ad` file.

    Parameters
    ----------
    path : the file; ``package:NAME`` is a file that ships with embbench.
    perturbation_key, control, options : see `embbench.datasets._options.ImportOptions`.
    name : name of the screen; default: the file's.
    default_split, default_context_embedding : what is used when the user names none.
    licence, source : provenance, kept in ``meta``.

    Raises
    ------
    UserError
        An option does not exist or has a value that is not allowed.

    Examples
    --------
    >>> AnnDataFile("package:kang18.h5ad", "perturbation", "control", context_keys=["celltype"]).path.name
    'kang18.h5ad'
    """

    def __init__(
        self,
        path: str,
        perturbation_key: str,
        control: str | list[str] = "control",
        *,
        name: str = "",
        default_split: str = "unseen_perturbation",
        default_context_embedding: str | None = None,
        licence: str = "",
        source: str = "",
        **options: Any,
    ) -> None:
        inside = path.removeprefix(PACKAGE)
        self.path = Path(__file__).parents[1] / "data" / inside if path.startswith(PACKAGE) else Path(path)
        self.options = read_options(perturbation_key, control, options)
        self.name = name or self.path.stem
        self.facts = {"default_split": default_split, "licence": licence, "reference": source}
        if default_context_embedding:
            self.facts["default_context_embedding"] = default_context_embedding

    def load(self) -> PerturbationDataset:
        """The screen, from the store when the same file was imported with the same options before.

        Raises
        ------
        UserError
            Anything wrong with the file; see `embbench.datasets._import.import_h5ad`.
        """
        data = cached_screen(self.path, self.options)
        return replace(data, name=self.name, meta={**data.meta, **self.facts})
