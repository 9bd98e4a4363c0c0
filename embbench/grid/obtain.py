"""Published screens: what there is, whether it is on this machine, and getting it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from embbench.cache.datafiles import announced, bring, state, withdraw
from embbench.cache.fetched import listing, megabytes
from embbench.core import UserError
from embbench.registry import Entry, Registry, Spec

Say = Callable[[str], None]
Progress = Callable[[str, int, int | None], None]


def is_published(entry: Entry) -> bool:
    """Whether an entry is a screen that others published, with files to fetch.

    Examples
    --------
    >>> is_published(Entry("datasets", "mine", "mine:Mine", params={"files": [{"name": "a.h5ad"}]}))
    True
    """
    return entry.kind == "datasets" and "files" in entry.params


def catalogue(registry: Registry) -> list[dict[str, Any]]:
    """One record per published screen: name, cells, perturbations, contexts, size, whether it is here, and its licence
    in short, with * where it must be accepted.
    """
    out = []
    for entry in registry.entries("datasets"):
        if not is_published(entry):
            continue
        size, found = _size_and_state(entry)
        listed = str(entry.about.get("contexts", "")).split(", ")
        licence = re.split("[;:(]", entry.licence)[0].strip()  # whole in `facts_of`
        out.append(
            {
                "name": entry.name,
                "cells": _number(entry.about.get("cells", "")),
                "perturbed": _number(entry.about.get("perturbations", "")),
                "contexts": listed[0].partition(" x ")[0] if len(listed) == 1 else str(len(listed)),
                "size": size,
                "here": {"ready": "yes", "not fetched": ""}.get(found, "in part"),
                "licence": f"{licence} *" if entry.restricted else licence,
            }
        )
    return out


def short_names(registry: Registry) -> dict[str, str]:
    """Further name of a published screen -> its name."""
    return {also: e.name for e in registry.entries("datasets") if is_published(e) for also in e.also}


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _size_and_state(entry: Entry) -> tuple[str, str]:
    made = entry.make().published
    known, unknown = announced(made.files)
    size = megabytes(known) if known else str(entry.about.get("size", "not known"))
    return size + (f" + {unknown} files" if known and unknown else ""), state(made.folder, made.files)


def facts_of(entry: Entry) -> list[dict[str, str]]:
    """What the catalogue says of a published screen, fact by fact."""
    made = entry.make().published
    told = {
        "name": ", ".join([entry.name, *entry.also]),
        "what": str(entry.about.get("what", "")),
        **{k: _number(v) for k, v in entry.about.items() if k != "what"},
        "licence": entry.licence,
        "restricted": entry.restricted,
        "source": entry.reference,
        "published": entry.dated,
        "state": state(made.folder, made.files),
        "uncertain": entry.uncertain,
        "recipes": ", ".join(["embbench", *entry.params.get("recipes", {})]),
        "folder": str(made.folder),
    }
    for file in made.files:
        size = megabytes(file.bytes) if file.bytes else "size not known"
        sums = f"{file.hashes} hash" if file.sha256 or file.md5 else "hash recorded at first fetch"
        told[f"file {file.part}".strip() + f" {file.name}"] = f"{size}, {sums}; {file.manual or ' or '.join(file.urls)}"
    return [{"fact": k, "value": v} for k, v in told.items() if v]


def told_of(registry: Registry, name: str) -> tuple[list[dict[str, str]], bool]:
    """What the catalogue says of a screen (nothing of one that is not published), and whether it can be opened."""
    if name.partition(":")[0] not in registry.names("datasets"):
        return [], True
    spec = registry.parse("datasets", name)
    if not is_published(spec.entry):
        return [], True
    made = spec.make().published
    return facts_of(spec.entry), state(made.folder, made.files) == "ready"


def published_spec(registry: Registry, name: str, only: str | None = None) -> Spec:
    """The spec of a published screen, with the part of it that is wanted.

    Raises
    ------
    UserError
        No such screen, or one that is not fetched.
    """
    spec = registry.parse("datasets", name)
    if not is_published(spec.entry):
        known = ", ".join(e.name for e in registry.entries("datasets") if is_published(e))
        raise UserError(f"{name} is nothing to fetch: it is simulated, packaged or a reader; to be fetched are {known}")
    if only is not None:
        spec = Spec(spec.text, spec.entry, {**spec.overrides, "only": only})
    return spec


def fetch_screen(
    registry: Registry,
    name: str,
    *,
    only: str | None = None,
    mirror: str | None = None,
    accept: bool = False,
    say: Say,
    progress: Progress,
) -> list[str]:
    """Bring the files of a published screen to this machine and look into them.

    Parameters
    ----------
    name : of a registry entry, or one of its further names.
    only : part of it, for entries that have parts.
    mirror : folder or address to take the files from.
    accept : accept a restrictive licence.
    say, progress : are told what happens, and how many bytes of a file are there.

    Returns
    -------
    What was found in the files, line by line.

    Raises
    ------
    UserError
        The licence is not accepted, a file cannot be had or is another one, or it is not what was published.
    """
    spec = published_spec(registry, name, only)
    made, entry = spec.make(), spec.entry
    if getattr(made, "piecemeal", False) and not made.published.only:
        parts = list(dict.fromkeys(file.part for file in made.published.files if file.part))
        raise UserError(
            f"{entry.name} is fetched part by part, found no part ({entry.about.get('size', 'large')}): name one with "
            f"--only, of {', '.join(parts)}"
        )
    arrived = bring(
        entry.name,
        made.published.folder,
        made.published.files,
        licence=entry.licence,
        restricted=entry.restricted,
        accept=accept,
        mirror=mirror,
        say=say,
        progress=progress,
    )
    try:
        return made.check()
    except UserError as error:
        if gone := withdraw(entry.name, made.published.folder, arrived):
            raise UserError(f"{error}; removed again, since no hash is known of them: {listing(gone)}") from error
        raise
