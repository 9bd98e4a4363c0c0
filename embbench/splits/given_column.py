"""A split that comes with the data: a column of train / val / test, or of fold numbers."""

from __future__ import annotations

import re

import numpy as np

from embbench.core import Fold, PerturbationDataset, Split, UserError
from embbench.splits._units import unseen_units, whole_number
from embbench.splits.unseen_perturbation import UnseenPerturbation

ROLES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
UNUSED = ("", "nan", "none", "<na>")
NUMBER = re.compile(r"(?:fold[ _-]?)?(\d{1,6})(?:\.0)?", re.ASCII)


class GivenColumn:
    """Folds read from a covariate column; rows with an empty value are in no fold.

    ``train`` / ``val`` / ``test`` make one fold, fold numbers (``0``, ``1``, ... or ``fold0``) one fold each, trained
    on the rows of the others and on those that say ``train``, which are never tested. The unit of inner folds follows
    what is unseen: contexts when no tested context is ever trained, entities when some tested entity is not, else
    (entity set, context).

    Parameters
    ----------
    column : name of the column in ``data.covariates``, shape (n,); ValueError when empty.
    folds : 0 refuses a screen without the column; k >= 2 gives it k seeded folds over perturbations instead
        (`unseen_perturbation`), so that one grid serves screens that come with a split and those that do not.
    seed : of those seeded folds.

    Examples
    --------
    >>> names, roles = np.array(["G"]), {"split": np.array(["train", "test"])}
    >>> effects, lines = np.zeros((2, 1), np.float32), np.array(["K562", "K562"])
    >>> toy = PerturbationDataset("toy", effects, "delta", names, (("A",), ("B",)), lines, covariates=roles)
    >>> [(fold.train.tolist(), fold.test.tolist()) for fold in GivenColumn().split(toy).folds]
    [([0], [1])]
    """

    def __init__(self, column: str = "split", folds: int = 0, seed: int = 0) -> None:
        if not column or not isinstance(column, str):
            raise ValueError(f"given: column must be the name of a covariate column, got {column!r}")
        self.column = column
        self.folds = whole_number("given", "folds", folds, 0)
        self.seed = whole_number("given", "seed", seed, 0)
        if self.folds == 1:
            raise ValueError("given: folds must be 0 (the column is needed) or >= 2, got 1")

    def split(self, data: PerturbationDataset) -> Split:
        """The folds of the column; effects are never read.

        Raises
        ------
        UserError
            No such column (with ``folds`` = 0), values of another kind, or no training or no test rows.
        """
        if self.folds and self.column not in data.covariates:
            return UnseenPerturbation(self.folds, self.seed).split(data)
        values = self._values(data)
        used = set(values.tolist()) - {""}
        if used and used <= set(ROLES.values()):
            train, validation, test = (np.flatnonzero(values == r) for r in ("train", "validation", "test"))
            folds = [Fold(self.column, train, test, validation)]
        else:
            numbers = sorted(used - {"train"}, key=int)
            folds = [
                Fold(f"fold{k}", np.flatnonzero((values != k) & (values != "")), np.flatnonzero(values == k))
                for k in numbers
            ]
        for fold in folds:
            if not len(fold.train) or not len(fold.test):
                raise UserError(
                    f"dataset {data.name!r}: split column {self.column!r} gives {len(fold.train)} training and "
                    f"{len(fold.test)} test rows in {fold.name}; expected at least one of each"
                )
        return Split("given", tuple(folds), unseen_units(data, folds))

    def _values(self, data: PerturbationDataset) -> np.ndarray:
        """(n,) roles, or fold numbers as text, or "" for unused rows."""
        if self.column not in data.covariates:
            known = ", ".join(sorted(data.covariates)) or "none"
            raise UserError(f"dataset {data.name!r}: no column {self.column!r}; columns: {known} (use given:COLUMN)")
        out = []
        for raw in np.asarray(data.covariates[self.column]).tolist():
            text = (raw.decode() if isinstance(raw, bytes) else str(raw)).strip().lower()
            number = NUMBER.fullmatch(text)
            out.append("" if text in UNUSED else ROLES.get(text, str(int(number[1])) if number else f"?{text}"))
        values = np.array(out)
        used = set(out) - {""}
        numbered = all(v.isdecimal() for v in used - {"train"})
        if not used or not (used <= set(ROLES.values()) or numbered):
            shown = ", ".join(sorted(v.lstrip("?") for v in used)[:6]) or "only empty values"
            raise UserError(
                f"dataset {data.name!r}: split column {self.column!r} must hold train/val/test or fold numbers, "
                f"found {shown}"
            )
        return values
