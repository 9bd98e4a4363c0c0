"""``embbench check``: the contracts, on your own component."""

from __future__ import annotations

from typing import Annotated

import typer

from embbench.cli._shared import RegistryOption, registry_paths, show


def check(
    kind: Annotated[str, typer.Argument(help="heads, embeddings, splits, metrics, features or datasets")],
    target: Annotated[str, typer.Argument(help="package.module:object, or a registered name such as knn:k=3")],
    registry: RegistryOption = None,
) -> None:
    """Run every contract of a kind on a component; exit code 1 when one is broken."""
    from dataclasses import replace

    from embbench import checks
    from embbench.core import UserError
    from embbench.grid.names import registry_of
    from embbench.grid.validate import check_spec
    from embbench.registry import Entry

    found = checks.checks_for(kind)
    if not found:
        raise UserError(f"check {kind!r}: expected one of {', '.join(checks.KINDS)}")
    known = registry_of(registry_paths(registry))
    if "." in target.partition(":")[0]:
        entry = Entry(kind, target, target)
    elif ":" in target:
        check_spec(known, kind, target)
        spec = known.parse(kind, target)
        entry = replace(spec.entry, test={**spec.entry.test, **{k: v for k, v in spec.overrides.items() if k != "of"}})
    else:
        entry = known.get(kind, target)
    entry.load()  # what does not exist is a mistake of the command line, not a broken contract
    records = []
    for contract in found:
        broken = checks.run_check(contract, entry)
        records.append({"contract": contract.__name__, "result": "broken" if broken else "ok", "why": broken})
    show(f"{kind} {target}", records)
    if any(r["result"] == "broken" for r in records):
        raise typer.Exit(1)
