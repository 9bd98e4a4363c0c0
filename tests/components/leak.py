"""A small screen with cells, labels and doses; the responses of chosen test rows can be replaced by noise."""

from dataclasses import replace

import numpy as np

from embbench.core import HeadDefaults
from embbench.datasets.simulator import Simulator
from embbench.embeddings.effect_pca import EffectPCA
from embbench.splits.unseen_perturbation import UnseenPerturbation


class NoisyCells:
    """Cells whose perturbed cells of some rows are noise."""

    def __init__(self, source, rows):
        self.source, self.rows = source, set(rows.tolist())

    def __getattr__(self, name):
        if name.startswith("__"):  # pickling asks before there is a source
            raise AttributeError(name)
        return getattr(self.source, name)

    def perturbed(self, row):
        cells = self.source.perturbed(row)
        return np.random.default_rng(row).normal(50, 9, cells.shape).astype(np.float32) if row in self.rows else cells


def labelled(effects):
    """Labels of the largest third of the effects."""
    large = np.abs(effects) > np.quantile(np.abs(effects), 2 / 3)
    return (np.sign(effects) * large).astype(np.int8)


class LeakScreen:
    """``noise``: the fold of ``unseen_perturbation:3`` whose test responses (effects, truth, cells) are replaced."""

    def __init__(self, noise: str = "") -> None:
        self.noise = noise

    def load(self):
        data = Simulator(
            name="leak",
            level="cells",
            n_perturbations=60,
            n_genes=60,
            n_contexts=2,
            combos=4,
            cells_per_perturbation=10,
            controls_per_context=80,
        ).load()
        labels = labelled(data.effects)
        data = replace(data, labels=labels, labels_tested=np.ones(labels.shape, bool))
        if not self.noise:
            return data
        rows = next(f.test for f in UnseenPerturbation(3).split(data).folds if f.name == self.noise)
        effects, truth = data.effects.copy(), data.truth.copy()
        effects[rows] = np.random.default_rng(0).normal(100, 30, effects[rows].shape)
        truth[rows] = effects[rows] + 1
        labels = data.labels.copy()
        labels[rows] = np.random.default_rng(1).integers(-1, 2, labels[rows].shape)
        noisy = {"labels": labels, "truth_labels": None, "truth_labels_tested": None}
        return replace(data, effects=effects, truth=truth, cells=NoisyCells(data.cells, rows), **noisy)


class FittedOnEverything(EffectPCA):
    """Victim: gets the whole screen, test rows included."""

    reads = frozenset({"truth"})


class Peeking(HeadDefaults):
    """Victim: finds the screen behind its back and reads all of it."""

    needs_embedding = False
    source = None  # set by the test

    def fit(self, inputs, Y, observed=None):
        self.mean_ = self.source().effects.mean(axis=0)
        return self

    def predict(self, inputs):
        return np.tile(self.mean_, (len(inputs), 1)).astype(np.float32)
