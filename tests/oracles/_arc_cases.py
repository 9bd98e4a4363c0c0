"""Folds of a small screen that cell-load reads as TOML: contexts, labels and roles with whatever names may hold."""

from __future__ import annotations

import numpy as np

from embbench.core import Fold, PerturbationDataset

CONTEXTS = ("K562", "RPE1", "T cells, CD4+ #1", "a.b=c", "é|[x]")
SETS = (("KLF1",), ("TP53",), ("MYC",), ("KLF1", "MYC"))
CONTROL = "non-targeting"


def screen() -> PerturbationDataset:
    """Every set in every context; the covariate ``target`` holds labels of another style."""
    entities = tuple(e for _ in CONTEXTS for e in SETS)
    odd = {1: "[('%s', 5.0, 'uM')]", 2: '%s, "q\\'}
    own = np.array([odd[len(e)] % "_".join(e[::-1]) for e in entities], dtype=object)
    return PerturbationDataset(
        name="small.screen",
        effects=np.zeros((len(entities), 2), np.float32),
        unit="delta",
        genes=np.array(["KLF1", "TP53"]),
        entities=entities,
        context=np.array([c for c in CONTEXTS for _ in SETS], dtype=object),
        covariates={"target": own},
        meta={"source": "small.h5ad"},
    )


def _rows(*codes: int) -> np.ndarray:
    return np.array(codes, dtype=np.int64)


def _but(*parts: np.ndarray) -> np.ndarray:
    return np.setdiff1d(np.arange(len(CONTEXTS) * len(SETS)), np.concatenate(parts))


def folds() -> dict[str, tuple[Fold, str, str]]:
    """Case -> fold, the covariate of its labels, and what becomes of unused rows."""
    zero, both, few, mixed, last = _rows(0, 1, 2, 3), np.arange(4, 12), _rows(5, 9), _rows(8, 11), np.arange(16, 20)
    return {
        "zero_shot": (Fold("zero", _but(zero), zero), "", "refuse"),
        "zero_shot_odd_names": (Fold("odd", _but(last, both), last, both), "", "refuse"),
        "few_shot": (Fold("few", _but(few, mixed), few, mixed), "", "refuse"),
        "few_shot_own_labels": (Fold("own", _but(_rows(3, 7, 19), mixed), _rows(3, 7, 19), mixed), "target", "refuse"),
        "nothing_trained_there": (Fold("none", _but(both), _rows(4, 5, 8, 9), _rows(6, 7, 10, 11)), "", "refuse"),
        "idle_contexts": (Fold("idle", _but(zero, both, few), few, zero[:0]), "", "train"),
        "whole_contexts_idle": (Fold("whole", _but(zero, last, mixed), mixed), "", "refuse"),
    }
