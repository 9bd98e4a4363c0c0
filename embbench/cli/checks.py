"""``embbench check``: the contracts, on your own component."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from embbench.cli._shared import RegistryOption, registry_paths, show

if TYPE_CHECKING:
    from embbench.registry import Entry, Registry


def check(
    kind: Annotated[str, typer.Argument(help="heads, embeddings, splits, metrics, features or datasets")],
    target: Annotated[str, typer.Argument(help="package.module:object, or a registered name such as knn:k=3")],
    registry: RegistryOption = None,
) -> None:
    """Run every contract of a kind on a component; exit code 1 when one is broken."""
    from embbench import checks
    from embbench.core import UserError
    from embbench.grid.names import registry_of

    found = checks.checks_for(kind)
    if not found:
        raise UserError(f"check {kind!r}: expected one of {', '.join(checks.KINDS)}")
    entry = _entry(registry_of(registry_paths(registry)), kind, target)
    records = []
    for contract in found:
        broken = checks.run_check(contract, entry)
        records.append({"contract": contract.__name__, "result": "broken" if broken else "ok", "why": broken})
    show(f"{kind} {target}", records)
    if any(r["result"] == "broken" for r in records):
        raise typer.Exit(1)


def _entry(known: Registry, kind: str, target: str) -> Entry:
    """What is to be checked; what cannot be loaded or made is a mistake of the command line, not a broken contract."""
    from embbench.grid.validate import check_spec
    from embbench.registry import Entry

    if "." in target.partition(":")[0]:
        entry = Entry(kind, target, target)
        entry.load()
        return entry
    if ":" in target:
        check_spec(known, kind, target)
        spec = known.parse(kind, target)
        return replace(spec.entry, test={**spec.entry.test, **{k: v for k, v in spec.overrides.items() if k != "of"}})
    entry = known.get(kind, target)
    if entry.argument != "of":
        entry.make(**entry.test)
    return entry
