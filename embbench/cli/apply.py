"""``embbench predict`` and ``explain``: use a configuration of the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embbench.cli._shared import RegistryOption, registry_paths, say, show

if TYPE_CHECKING:
    import pandas as pd

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
    dose: Annotated[float | None, typer.Option(help="Dose, where the screen has doses; default: their median.")] = None,
    results: Folder = None,
    registry: RegistryOption = None,
) -> None:
    """Refit a configuration on all conditions and predict; its cross-validated error is printed beside."""
    from embbench.core import UserError
    from embbench.grid.apply import check_unchanged, find_run, refit
    from embbench.grid.results import check_folder
    from embbench.grid.threads import one_thread

    if out.suffix != ".h5ad":
        raise UserError(f"--out {out}: expected a file that ends in .h5ad")
    check_folder(out.parent, "the folder of the predictions,", "--out")
    paths = registry_paths(registry)
    folder = _folder(results, run)
    found, config = find_run(folder, run)
    with one_thread():
        check_unchanged(found, config, paths)
        applied = refit(found, perturbation, context or [], paths, dose=dose)
    errors = _errors(folder, config, paths)
    _write(out, applied, found, config, errors)
    for line in errors:
        typer.echo(line)
    obs = _obs(applied)
    words = {
        "covered": {True: "yes", False: "no: context mean"},
        "in_training": {True: "yes (not held out)", False: "no"},
    }
    show(
        f"{found.embedding} x {found.head}, fitted on {len(applied.data)} conditions of {found.dataset}",
        obs.replace(words).to_dict("records"),
    )
    say(f"wrote {out}")


def _folder(given: Path | None, key: str) -> Results:
    from embbench.core import UserError
    from embbench.grid.apply import find_run
    from embbench.grid.results import Results

    if given is not None:
        return Results(given)
    reasons = []
    for folder in sorted(p.parent for p in Path("results").glob("*/plans")):
        try:
            find_run(Results(folder), key)
        except UserError as error:
            reasons.append(str(error))
            continue
        return Results(folder)
    if len(reasons) == 1:
        raise UserError(reasons[0])
    raise UserError(f"--run {key}: no folder below results/ holds that configuration; name one with --results")


def _errors(folder: Results, config: str, paths: tuple[str, ...]) -> list[str]:
    """Cross-validated scores of the configuration, one line per metric: mean over its held-out conditions."""
    from embbench.grid.apply import cross_validated
    from embbench.grid.names import registry_of

    lines = []
    names = ["l2_notarget", "pearson_notarget"]
    for name, e in cross_validated(folder, config, registry_of(paths), names).items():
        part = "" if e.folds == e.planned else f", {e.folds} of {e.planned} folds"
        middle = f"middle 95 % of {e.conditions} held-out conditions: {e.low:.3f} to {e.high:.3f}{part}"
        lines.append(f"cross-validated {name}: {e.mean:.3f} ({middle})")
    return lines


def _obs(applied: Applied) -> pd.DataFrame:
    """One row per prediction: what was asked, whether it is the head's own, and whether the refit saw it."""
    import pandas as pd

    query, data = applied.query, applied.data
    seen = set(zip(data.entities, data.context.tolist(), strict=True))
    pairs = list(zip(query.entities, query.context.tolist(), strict=True))
    obs = {"perturbation": ["+".join(e) for e, _ in pairs], "context": [str(c) for _, c in pairs]}
    obs |= {} if query.dose is None else {"dose": query.dose}
    return pd.DataFrame({**obs, "covered": applied.covered, "in_training": [pair in seen for pair in pairs]})


def _write(out: Path, applied: Applied, run: Run, config: str, errors: list[str]) -> None:
    import anndata
    import numpy as np
    import pandas as pd

    from embbench.cache.store import replacing

    obs = _obs(applied)
    obs.index = pd.Index([f"{p}|{c}" for p, c in zip(obs["perturbation"], obs["context"], strict=True)])
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
    from embbench.grid.apply import check_unchanged, find_run
    from embbench.grid.apply import explain as shares_of
    from embbench.grid.threads import one_thread

    paths = registry_paths(registry)
    found, config = find_run(_folder(results, run), run)
    with one_thread():
        check_unchanged(found, config, paths)
        shares, how = shares_of(found, perturbation, paths)
    for context, parts in shares.items():
        records = [{"weight": s.weight, "condition": s.condition, "of context": s.context} for s in parts[:top]]
        show(
            f"{perturbation} in {context}: {found.embedding} x {found.head}, {how}, {len(parts)} training conditions",
            records,
        )
