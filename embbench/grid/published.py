"""Plain files named on the command line as specs of the table readers, so that published files are read as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embbench.core import UserError


def dataset_spec(options: Mapping[str, Any], text: str) -> str:
    """The table spec of a plain ``.h5ad`` file; anything else is a spec already.

    Parameters
    ----------
    options : of the table reader; of a list of columns the first that the file has in obs is used.

    Raises
    ------
    UserError
        No AnnData file, or none of the columns for ``perturbation_key``.
    """
    if not _plain(text):
        return text
    columns, parts = _columns(Path(text)), []
    for name, value in options.items():
        wanted = value if isinstance(value, list) else None
        found = [column for column in wanted or () if column in columns]
        if wanted is None:
            parts.append(f"{name}={value}")
        elif name == "keep" and found:
            parts.append(f"keep=[{','.join(found)}]")
        elif found:
            parts.append(f"{name}={found[0]}")
        elif name == "perturbation_key":
            raise UserError(
                f"{text}: expected one of the columns {', '.join(value)} in obs, found "
                f"{', '.join(sorted(columns)) or 'none'}; name its columns: table:FILE:unit=delta:perturbation_key=..."
            )
    return ":".join([f"table:{_quoted(text)}", *parts])


def vectors_spec(text: str) -> str:
    """An embedding spec in which plain ``.h5ad`` files are tables; the names of published files may hold ``+``."""
    if _plain(text):
        return f"table:{_quoted(text)}"
    return "+".join(f"table:{_quoted(part)}" if _plain(part) else part for part in text.split("+"))


def _plain(text: str) -> bool:
    return text.endswith(".h5ad") and Path(text).is_file()


def _columns(path: Path) -> set[str]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return set(file["obs"]) if isinstance(file["obs"], h5py.Group) else set(file["obs"].dtype.names)
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: expected an AnnData file (.h5ad) with obs, found: {error}") from error


def _quoted(path: str) -> str:
    r"""A path as a spec holds it: in quotes, with ``+`` escaped as YAML does it, where it has marks of the syntax.

    Examples
    --------
    >>> _quoted("a/b.h5ad"), _quoted("NCBI+UniProt.h5ad")
    ('a/b.h5ad', '"NCBI\\x2BUniProt.h5ad"')
    """
    if not set(path) & set("+:,'\"[]{}#= \\"):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', "\\x22").replace("+", "\\x2B") + '"'
