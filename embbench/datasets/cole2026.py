"""Effects and labels per condition as the frozen-embedding benchmark of Cole et al. 2026 published them (h5ad)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embbench.core import ENTITY_TYPES, PerturbationDataset, UserError
from embbench.datasets._given import text, words
from embbench.datasets._h5ad import column_names
from embbench.datasets._open import open_anndata
from embbench.datasets._published import Published, first_column
from embbench.datasets.table import ConditionTable

CONTENT = ("effects", "labels")
FOLDS = re.compile(r"fold_(\d+)")  # columns that say train or test, one for each fold
SPLIT = "test_split"  # column of fold numbers, one for each row
TRAIN, BLANK = "train", ("", "nan", "none", "<na>")


class Cole2026:
    """One table of the collection: conditions x genes, effects against control or labels -1, 0, 1.

    Effects of a line were all taken against the same controls (``controls: shared``), so tables say so. Folds stay a
    covariate: ``test_split`` as published, or made of the columns ``fold_0``, ``fold_1`` ... that say ``test``; a
    condition that they never test says ``train`` there and trains in every fold.

    Parameters
    ----------
    name, files, root, only : see `embbench.datasets._published.Published`; one file is read.
    content : ``effects`` (unit delta) or ``labels`` of a test (-1 down, 0, 1 up; effects are then the labels, unit
        rank_score; a missing entry was not tested).
    perturbation_key, context_key, dose_key : columns of obs; of a list the first that there is, ``None`` in it allows
        that there is none (Norman's file has one line and no column for it: the context is ``context``).
    context : name of the only context, where no column names it.
    keep : further columns to carry along, those that there are.
    entity_type : ``gene`` or ``compound``. Genes are brought to symbols, where two identifiers mean one symbol one of
        them stays as it is spelled; compounds stay as they are spelled, whole numbers without ``.0``.
    licence, source : facts for reports.

    Raises
    ------
    ValueError
        ``content`` or ``entity_type`` is none of those, or not exactly one file is named.

    References
    ----------
    Cole et al. (2026), doi 10.64898/2026.02.18.706454; columns as the loader of
    genbio-ai/foundation-models-perturbation (e5b4caf), benchmark/task/task.py, reads them.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Mapping[str, Any]],
        root: str = "",
        only: str = "",
        content: str = "effects",
        perturbation_key: str | Sequence[str] = ("gene_id", "pert_id"),
        context_key: str | Sequence[str | None] = "cell_line",
        dose_key: str | Sequence[str | None] | None = None,
        context: str = "all",
        keep: Sequence[str] = (),
        entity_type: str = "gene",
        licence: str = "",
        source: str = "",
    ) -> None:
        if content not in CONTENT:
            raise ValueError(f"Cole2026: content must be one of {', '.join(CONTENT)}, got {content!r}")
        if entity_type not in ENTITY_TYPES:
            raise ValueError(f"Cole2026: entity_type must be one of {', '.join(ENTITY_TYPES)}, got {entity_type!r}")
        self.published = Published.of(name, files, root, only)
        if len(self.published.stored) != 1:
            raise ValueError(f"Cole2026: expected one file, got {', '.join(self.published.stored) or 'none'}")
        self.content, self.entity_type, self.context = content, entity_type, text("context", context)
        self.keys = {"perturbation_key": perturbation_key, "context_key": context_key, "dose_key": dose_key}
        self.keep, self.licence, self.source = tuple(words(keep, "keep")), licence, source

    def check(self) -> list[str]:
        """What the file holds, line by line; `UserError`: it is not fetched, or not as published."""
        data = self.load()
        folds = set(_words(data.covariates.get(SPLIT)).tolist())
        return [
            f"{len(data):,} conditions x {len(data.genes):,} genes, {self.content} ({data.unit})",
            f"{len(data.entity_names):,} {data.entity_type}s in {len(data.contexts)} contexts",
            f"{len(folds - {*BLANK, TRAIN})} published folds",
            *([data.meta["folds"]] if "folds" in data.meta else []),
        ]

    def load(self) -> PerturbationDataset:
        """The screen, shape (n, g), with its published folds as covariates.

        Raises
        ------
        UserError
            The file is not fetched, lacks a column, or holds values of another kind (counts for effects ...).
        """
        self.published.require()
        path = self.published.path(self.published.stored[0])
        with open_anndata(path) as file:
            columns = column_names(file, "obs")
        chosen = {option: first_column(self.published.name, option, key, columns) for option, key in self.keys.items()}
        carried = dict.fromkeys([SPLIT, *self.keep, *(c for c in columns if FOLDS.fullmatch(c))])
        keep = [c for c in carried if c in columns and c not in chosen.values()]
        data = self._table(path, chosen, keep).load()
        self._check_values(path, data)
        data = self._named(data) if self.entity_type == "compound" else data
        if chosen["context_key"] is None:
            data = replace(data, context=np.full(len(data), self.context), contexts=(self.context,))
        data = _labelled(data) if self.content == "labels" else data
        return _with_folds(data)

    def _table(self, path: Path, chosen: Mapping[str, str | None], keep: Sequence[str]) -> ConditionTable:
        return ConditionTable(
            str(path),
            unit="delta" if self.content == "effects" else "rank_score",
            perturbation_key=str(chosen["perturbation_key"]),
            context_key=chosen["context_key"],
            dose_key=chosen["dose_key"],
            keep=tuple(keep),
            entity_type=self.entity_type,
            combine="mean" if self.content == "effects" else "error",
            controls="shared",
            names="distinct" if self.entity_type == "gene" else "keep",
            name=self.published.name,
            licence=self.licence,
            source=self.source,
        )

    def _check_values(self, path: Path, data: PerturbationDataset) -> None:
        """Labels are -1, 0, 1; effects have signs, which counts and log counts have not."""
        seen = data.effects[np.isfinite(data.effects)]
        if self.content == "labels" and (strange := set(np.unique(seen).tolist()) - {-1.0, 0.0, 1.0}):
            shown = ", ".join(f"{v:g}" for v in sorted(strange)[:4])
            raise UserError(
                f"{self.published.name}: {path.name}: expected labels -1, 0 and 1 in X, found {shown}; the file is "
                "another one (effects?): fetch the published one"
            )
        if self.content == "effects" and seen.min() >= 0:
            raise UserError(
                f"{self.published.name}: {path.name}: expected effects against control in X, found no value below 0 "
                f"(up to {seen.max():g}); the file holds expression: fetch the published one"
            )

    def _named(self, data: PerturbationDataset) -> PerturbationDataset:
        """Compounds by the names that the collection's drug vectors have: 2244, not 2244.0."""
        plain = tuple(tuple(re.sub(r"^(\d+)\.0$", r"\1", name) for name in row) for row in data.entities)
        return replace(data, entities=plain)


def _labelled(data: PerturbationDataset) -> PerturbationDataset:
    """Labels (n, g), int8, from effects that are labels; entries without a value were not tested."""
    tested = np.isfinite(data.effects)
    labels = np.where(tested, data.effects, 0).astype(np.int8)
    return replace(data, labels=labels, labels_tested=tested)


def _words(values: np.ndarray | None) -> np.ndarray:
    """Values of a covariate as lower-case text; none where there is none."""
    return np.array([str(v).strip().lower() for v in ([] if values is None else values.tolist())], dtype=str)


def _with_folds(data: PerturbationDataset) -> PerturbationDataset:
    """``test_split`` of the columns that say ``test``, where each row is tested at most once; the default split."""
    columns = {int(found[1]): c for c in data.covariates if (found := FOLDS.fullmatch(c))}
    meta, covariates = dict(data.meta), dict(data.covariates)
    if columns and SPLIT not in covariates:
        tested = np.array([covariates[columns[k]].astype(str) == "test" for k in sorted(columns)])
        often = int((tested.sum(axis=0) > 1).sum())
        if often:
            meta["folds"] = f"{often} conditions are tested in several folds: use given:fold_0, given:fold_1 ..."
        else:
            numbers = np.array(sorted(columns)).astype(str)
            covariates[SPLIT] = np.where(tested.any(axis=0), numbers[tested.argmax(axis=0)], TRAIN)
    told = _words(covariates.get(SPLIT))
    never, out = int((told == TRAIN).sum()), int(np.isin(told, BLANK).sum())
    if never or out:
        meta["folds"] = f"{never} conditions are never tested and train in every fold, {out} are in no fold"
    if SPLIT in covariates:
        meta["default_split"] = f"given:{SPLIT}"
    return replace(data, covariates=covariates, meta=meta)
