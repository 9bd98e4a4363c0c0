"""Words of an RO-Crate: authors with their ORCID, licences as SPDX names, media types."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from embbench.core import UserError

# what the registry and users write -> the SPDX identifier (https://spdx.org/licenses)
SPDX = {
    text.casefold(): name
    for name in ("MIT", "BSD-3-Clause", "Apache-2.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0")
    for text in (name, name.replace("-", " "), name.replace("CC-", "CC ").replace("-4.0", " 4.0"))
} | {"cc0 1.0": "CC0-1.0"}
MEDIA = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".md": "text/markdown",
    ".html": "text/html",
    ".txt": "text/plain",
    ".json": "application/json",
    ".h5": "application/x-hdf5",
    ".h5ad": "application/x-hdf5",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".pdf": "application/pdf",
}
ORCID = re.compile(r"(?:https?://orcid\.org/)?(\d{4}-\d{4}-\d{4}-\d{3}[\dX])", re.IGNORECASE)


@dataclass(frozen=True)
class Author:
    """A person, with the ORCID as URL where there is one."""

    name: str
    orcid: str = ""


def read_author(text: str) -> Author:
    """``Name``, or ``Name <ORCID>``, the ORCID bare or as URL.

    Raises
    ------
    UserError
        No name, or what is in brackets is no ORCID (ISO 7064 11,2 check digit).

    Examples
    --------
    >>> read_author("Josiah Carberry <0000-0002-1825-0097>").orcid
    'https://orcid.org/0000-0002-1825-0097'
    """
    name, bracket, rest = text.strip().partition("<")
    told = rest.strip().removesuffix(">").strip()
    if not name.strip():
        raise UserError(f'author {text!r}: expected "Name" or "Name <ORCID>", found no name')
    if not bracket:
        return Author(name.strip())
    found = ORCID.fullmatch(told)
    if found is None or not _checks(found[1].upper()):
        raise UserError(
            f'author {text!r}: expected "Name <ORCID>" such as "A. Name <0000-0002-1825-0097>", found {told!r}, which '
            "is none (four groups of four; the last digit checks the others)"
        )
    return Author(name.strip(), f"https://orcid.org/{found[1].upper()}")


def _checks(orcid: str) -> bool:
    total = 0
    for digit in orcid.replace("-", "")[:-1]:
        total = (total + int(digit)) * 2
    return "0123456789X"[(12 - total % 11) % 11] == orcid[-1]


def licence_id(text: str) -> str:
    """The address of a licence that SPDX knows, a name within the crate of others.

    Examples
    --------
    >>> licence_id("CC BY 4.0"), licence_id("that of the file")
    ('https://spdx.org/licenses/CC-BY-4.0', '#licence-that-of-the-file')
    """
    name = SPDX.get(text.strip().casefold())
    return f"https://spdx.org/licenses/{name}" if name else f"#licence-{slug(text)}"


def slug(text: str) -> str:
    """Letters, digits, dots and hyphens of a text: what an identifier may hold without escapes.

    Examples
    --------
    >>> slug("Hallmark: 8 (x)")
    'hallmark-8-x'
    """
    return re.sub(r"[^a-z0-9.]+", "-", text.casefold()).strip("-")


def media_type(path: str) -> str:
    """The media type of a file by its suffix.

    Examples
    --------
    >>> media_type("results/leaderboard.csv")
    'text/csv'
    """
    return MEDIA.get(PurePosixPath(path).suffix.lower(), "application/octet-stream")
