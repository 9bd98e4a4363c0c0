"""``embbench predict`` and ``explain``: use a configuration of the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embbench.cli._shared import RegistryOption, registry_paths, say, show

if TYPE_CHECKING:
    from embbench.core import Run
    from embbench.grid.apply import Applied
    from embbench.grid.results import Results

RunKey = Annotated[str, typer.Option("--run", help="Configuration id from the leaderboard (its start is enough).")]
Folder = Annotated[
    Path | None, typer.Option("--results", help="Results folder; default: the one below results/ that holds the id.")
]


def predict(
    run: RunKey,
    perturbation: Annotated[
        list[str], typer.Option(help="A perturbation, or a set as A+B; may be given several times.")
    ],
    out: Annotated[Path, typer.Option(help="File to write (.h5ad).")],
    context: Annotated[list[str] | None, typer.Option(help="Context(s); default: all of the screen.")] = None,
    results: Folder = None,
    registry: RegistryOption = None,
) -> None:
    """Refit a configuration on all conditions and predict; its cross-validated error is printed beside."""
    from embbench.core import UserError
    from embbench.grid.apply import find_run, refit
    from embbench.grid.results import check_folder
    from embbench.grid.schedule import one_thread

    if out.suffix != ".h5ad":
        raise UserError(f"--out {out}: expected a file that ends in .h5ad")
    check_folder(out.parent, "the folder of the predictions,", "--out")
    paths = registry_paths(registry)
    folder = _folder(results, run)
    found, config = find_run(folder, run)
    with one_thread():
        applied = refit(found, perturbation, context or [], paths)
    errors = _errors(folder, config, paths)
    _write(out, applied, found, config, errors)
    for line in errors:
        typer.echo(line)
    records = [
        {"perturbation": "+".join(e), "context": c, "own prediction": "yes" if k else "no: context mean"}
        for e, c, k in zip(applied.query.entities, applied.query.context, applied.covered, strict=True)
    ]
    show(f"{found.embedding} x {found.head}, fitted on {len(applied.data)} conditions of {found.dataset}", records)
    say(f"wrote {out}")


def _folder(given: Path | None, key: str) -> Results:
    from embbench.core import UserError
    from embbench.grid.apply import find_run
    from embbench.grid.results import Results

    if given is not None:
        return Results(given)
    for folder in sorted(p.parent for p in Path("results").glob("*/plans")):
        try:
            find_run(Results(folder), key)
        except UserError:
            continue
        return Results(folder)
    raise UserError(f"--run {key}: no folder below results/ holds that configuration; name one with --results")


def _errors(folder: Results, config: str, paths: tuple[str, ...]) -> list[str]:
    """Cross-validated scores of the configuration, one line per metric: mean over its held-out conditions."""
    from embbench.grid.apply import cross_validated
    from embbench.grid.names import registry_of

    lines = []
    for name, (mean, low, high, n) in cross_validated(
        folder, config, registry_of(paths), ["l2_notarget", "pearson_notarget"]
    ).items():
        lines.append(
            f"cross-validated {name}: {mean:.3f} (middle 95 % of {n} held-out conditions: {low:.3f} to {high:.3f})"
        )
    return lines


def _write(out: Path, applied: Applied, run: Run, config: str, errors: list[str]) -> None:
    import anndata
    import numpy as np
    import pandas as pd

    from embbench.cache.store import replacing

    conditions = ["+".join(e) for e in applied.query.entities]
    obs = pd.DataFrame(
        {"perturbation": conditions, "context": applied.query.context.astype(str), "covered": applied.covered},
        index=[f"{p}|{c}" for p, c in zip(conditions, applied.query.context, strict=True)],
    )
    made = anndata.AnnData(X=applied.effects, obs=obs, var=pd.DataFrame(index=applied.data.genes.astype(str)))
    made.uns["embbench"] = {
        "unit": applied.data.unit,
        "dataset": run.dataset,
        "embedding": run.embedding,
        "head": run.head,
        "config": config,
        "controls": str(applied.data.meta.get("controls", "none")),
        "errors": errors,
    }
    if applied.data.baseline is not None:
        codes = [applied.data.contexts.index(c) for c in applied.query.context]
        made.layers["expression"] = np.asarray(applied.data.baseline[codes] + applied.effects, dtype=np.float32)
    with replacing(out.resolve()) as temporary:
        made.write_h5ad(temporary)


def explain(
    run: RunKey,
    perturbation: Annotated[str, typer.Option(help="A perturbation, or a set as A+B.")],
    top: Annotated[int, typer.Option(min=1, help="Contributions to show per context.")] = 10,
    results: Folder = None,
    registry: RegistryOption = None,
) -> None:
    """Show the training perturbations that a smoother's prediction is made of."""
    from embbench.grid.apply import explain as shares_of
    from embbench.grid.apply import find_run
    from embbench.grid.schedule import one_thread

    paths = registry_paths(registry)
    found, _ = find_run(_folder(results, run), run)
    with one_thread():
        shares, how = shares_of(found, perturbation, paths)
    for context, parts in shares.items():
        records = [{"weight": s.weight, "condition": s.condition, "of context": s.context} for s in parts[:top]]
        show(
            f"{perturbation} in {context}: {found.embedding} x {found.head}, {how}, {len(parts)} training conditions",
            records,
        )
