"""The grid as users write it: a YAML file or command line options, validated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, field_validator, model_validator

from embbench.core import UserError
from embbench.grid.metrics import METRICS
from embbench.grid.protocols import DEFAULT, expanded
from embbench.registry import split_specs

DEMO = "sim_demo"
SOLVERS = ("exact", "randomized", "auto")


class Grid(BaseModel):
    """A grid as users write it; every list is an axis of the product.

    Parameters
    ----------
    dataset, split, emb, head : names or specs; ``split: default`` is the dataset's own.
    cell_emb : cell representations; each stands for a context by the mean over its control cells.
    context_emb, combine, features, seed, graph : further axes.
    preset : ``fast``, ``reference`` or another one of the registry: of every head that has it and names none itself.
    scope, target, select, genes, strict_context, samples : one value for all runs.
    metrics : registered metrics to score, by their full names; the default depends on the target.
    baselines : add no change, context mean, perturbation mean, additive and the random embedding.
    permutations : draws of each embedding's own permutation under smoothers and under trained heads.
    protocol : a published one (``embbench/protocols``): sets the fields above that are not given, what selection tries
        and its inner folds.
    published : file of the published table that the grid reproduces (`embbench reproduce`), relative to the grid's.
    """

    model_config = ConfigDict(extra="forbid")

    dataset: list[str] = Field(default=[DEMO], min_length=1)
    split: list[str] = Field(default=["default"], min_length=1)
    emb: list[str] = []
    head: list[str] = Field(default=["knn"], min_length=1)
    context_emb: list[str] = ["default"]
    cell_emb: list[str] = []
    combine: list[str] = ["sum"]
    features: list[str] = ["pca:100"]
    graph: list[str] = ["none"]
    seed: list[NonNegativeInt] = [0]
    preset: str = "default"
    scope: str = Field(default="auto", pattern="^(auto|joint|per_context)$")
    target: str = Field(default="effects", pattern="^(effects|labels|population)$")
    select: str = "l2_all"
    genes: str = "all"
    strict_context: bool = False
    samples: int = Field(default=100, ge=1)
    metrics: list[str] = list(METRICS)
    baselines: bool = True
    permutations: dict[Literal["smoother", "trained"], NonNegativeInt] = {"smoother": 10, "trained": 3}
    protocol: str = DEFAULT
    published: str = ""

    @model_validator(mode="before")
    @classmethod
    def _protocol(cls, content: Any) -> Any:
        return expanded(content) if isinstance(content, dict) else content

    @field_validator(
        "dataset",
        "split",
        "emb",
        "head",
        "context_emb",
        "cell_emb",
        "combine",
        "features",
        "graph",
        "metrics",
        mode="before",
    )
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return split_specs(value) if isinstance(value, str) else value

    @field_validator("seed", mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value


def read_grid(path: Path | None, **given: Any) -> Grid:
    """A grid from a YAML file, overridden by what was given on the command line.

    Raises
    ------
    UserError
        Unreadable YAML, an unknown field, or a value out of range; the message names file and field.
    """
    import yaml

    content: Any = {}
    if path is not None:
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"grid {path}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            found = type(content).__name__ if not isinstance(content, dict) else ", ".join(map(repr, content))
            raise UserError(f"grid {path}: expected fields such as dataset, emb, head; found {found}")
    try:
        return Grid(**{**content, **{k: v for k, v in given.items() if v not in (None, [], ())}})
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(Grid.model_fields)
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"grid {path or 'options'}: {where}: {first['msg']}, found {first['input']!r}; fields: {known}"
        ) from error


def with_solver(grid: Grid, svd: str | None, seeds: Sequence[int]) -> Grid:
    """The grid with its PCA by another solver, once per seed: ``pca:100`` becomes ``pca:100:svd=randomized:seed=0``.

    Raises
    ------
    UserError
        An unknown solver, or a grid without PCA features that leave it open.
    """
    if svd is None or svd == "exact":
        return grid
    if svd not in SOLVERS:
        raise UserError(f"--svd must be one of {', '.join(SOLVERS)}, got {svd!r}")
    chosen = [text.partition(":")[0] == "pca" and ":svd=" not in text for text in grid.features]
    if not any(chosen):
        raise UserError(f"--svd {svd} is for PCA features that name no solver, found {', '.join(grid.features)}")
    features = [
        each
        for text, own in zip(grid.features, chosen, strict=True)
        for each in ([f"{text}:svd={svd}:seed={seed}" for seed in seeds or (0,)] if own else [text])
    ]
    return grid.model_copy(update={"features": list(dict.fromkeys(features))})
