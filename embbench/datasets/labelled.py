"""Any screen with single cells, given DE labels {down, none, up} and a DE table by a test on its cells."""

from __future__ import annotations

from embbench.core import PerturbationDataset, UserError
from embbench.datasets._label_options import MIN_CELLS, LabelOptions
from embbench.datasets._labels import label_screen
from embbench.numerics import de


class Labelled:
    """``labelled:NAME``: the screen NAME with labels for ``--target labels`` and DE metrics.

    Parameters
    ----------
    of : the screen; by name in a spec (``labelled:papalexi21:test=welch``).
    test, level, min_cells, min_expressed, min_log2fc, equal_cells, pseudocount, donor_cells, seed : see `LabelOptions`.

    Examples
    --------
    >>> Labelled(test="welch").load()
    Traceback (most recent call last):
        ...
    embbench.core.screen.UserError: labelled: needs a screen with single cells, labelled:NAME
    """

    def __init__(
        self,
        of: PerturbationDataset | None = None,
        test: str = "wilcoxon",
        level: float = 0.05,
        min_cells: int = MIN_CELLS,
        min_expressed: float = 0.05,
        min_log2fc: float = 0.0,
        equal_cells: int | None = None,
        pseudocount: float = de.PSEUDOCOUNT,
        donor_cells: int = 5,
        seed: int = 0,
    ) -> None:
        self.of = of
        self.options = LabelOptions(
            test, level, min_cells, min_expressed, min_log2fc, equal_cells, pseudocount, donor_cells, seed
        )

    def load(self) -> PerturbationDataset:
        """The labelled screen; `UserError` where it has no cells or nothing can be tested."""
        if self.of is None:
            raise UserError("labelled: needs a screen with single cells, labelled:NAME")
        return label_screen(self.of, self.options)
