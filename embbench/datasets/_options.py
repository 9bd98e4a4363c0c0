"""How an AnnData file becomes a screen: the parameters of an import, validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from embbench.core import ENTITY_TYPES, UserError
from embbench.datasets._scale import SCALES
from embbench.numerics.moments import MATCHING

CONTROLS = ("halves", "shared")
CELLS = ("all", "controls", "none")
FLAGS = ("genes selected on test rows",)


def _words(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(str(v) for v in value)


@dataclass(frozen=True)
class ImportOptions:
    """Parameters of `embbench.datasets._import.import_h5ad`.

    Parameters
    ----------
    perturbation_key : obs column of perturbation labels.
    control : control label or labels; well-known names (control, ctrl, non-targeting, DMSO ...) count as well.
    context_keys : obs columns that make a context, joined by ``|``; none: one context ``all``.
    batch_key : obs column of batches, for matching and for the control halves.
    size_factor : obs column of total counts per cell; None: the sum over the panel (marked).
    layer : layer instead of ``X``.
    scale : ``auto``, ``counts`` or ``lognorm`` (natural log1p of counts scaled to 1e4).
    controls : ``halves`` (training effects against half A, truth against half B) or ``shared`` (all for both).
    matching : ``batch``, ``equal-batch``, ``pooled`` or ``batch-means`` (means over batches, unmatched).
    entity_type : ``auto``, ``gene`` or ``compound``.
    min_cells : conditions with fewer usable cells are dropped.
    max_residual : largest expression of a condition's own measured target that is left, as a share of control (0.3:
        at least 70 % knock-down); conditions above it are dropped, those with no measured target are kept. None: off.
    cells : which cells are kept beside the condition level: ``all``, ``controls`` or ``none``.
    dose_key : numeric obs column of doses.
    gene_key : var column of gene names; None: the index.
    covariates : further obs columns that are constant within a condition, e.g. a published split.
    select : obs column -> value or values; other cells are left out.
    etest : compute an E-test p value per condition.
    flags : what tables must say of the screen, of `FLAGS`, e.g. that its genes were chosen with all cells in view.
    dated : when the screen was made public, e.g. ``2021-03``; shown beside the date of each embedding's information.
    seed : of the control halves and the E-test.

    Examples
    --------
    >>> ImportOptions("guide", "NT", context_keys="cell_line", scale="counts").control
    ('NT',)
    >>> ImportOptions("guide", matching="pairs")
    Traceback (most recent call last):
        ...
    embbench.core.screen.UserError: import: matching must be one of batch, equal-batch, pooled, batch-means, got 'pairs'
    """

    perturbation_key: str
    control: str | Sequence[str] = ()
    context_keys: str | Sequence[str] = ()
    batch_key: str | None = None
    size_factor: str | None = None
    layer: str | None = None
    scale: str = "auto"
    controls: str = "halves"
    matching: str = "batch"
    entity_type: str = "auto"
    min_cells: int = 10
    max_residual: float | None = None
    cells: str = "all"
    dose_key: str | None = None
    gene_key: str | None = None
    covariates: str | Sequence[str] = ()
    select: Mapping[str, Any] = field(default_factory=dict)
    etest: bool = True
    flags: str | Sequence[str] = ()
    dated: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("control", "context_keys", "covariates", "flags"):
            object.__setattr__(self, name, _words(getattr(self, name)))
        object.__setattr__(self, "select", {k: list(_words(_text(v))) for k, v in self.select.items()})
        for name, allowed in (
            ("scale", SCALES),
            ("controls", CONTROLS),
            ("matching", MATCHING),
            ("cells", CELLS),
            ("entity_type", ("auto", *ENTITY_TYPES)),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(f"import: {name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if unknown := sorted(set(self.flags) - set(FLAGS)):
            raise UserError(f"import: flags must be of {', '.join(FLAGS)}, got {', '.join(unknown)}")
        if self.min_cells < 1:
            raise UserError(f"import: min_cells must be at least 1, got {self.min_cells}")
        if self.max_residual is not None and not self.max_residual > 0:
            raise UserError(f"import: max_residual is a share of control above 0, e.g. 0.3, got {self.max_residual}")
        if self.matching == "batch-means" and self.batch_key is None:
            raise UserError(
                "import: matching batch-means takes means over batches, found no batch column; name one (batch_key), "
                "or choose matching pooled"
            )
        keys = [self.perturbation_key, *self.context_keys]
        if repeated := sorted({k for k in keys if keys.count(k) > 1}):
            raise UserError(
                f"import: {', '.join(repeated)} is used twice among the perturbation key and the context keys {keys}; "
                "name each column once"
            )

    def facts(self) -> dict[str, Any]:
        """JSON-able values, for the import key.

        Examples
        --------
        >>> ImportOptions("guide", "NT").facts()["control"]
        ['NT']
        """
        told = {k: v for k, v in asdict(self).items() if v or k not in ("flags", "dated")}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in told.items()}


def _text(value: Any) -> Any:
    return value if isinstance(value, str | list | tuple) else str(value)
