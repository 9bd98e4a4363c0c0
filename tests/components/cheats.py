"""Victims: an embedding and heads that see what they must not, on the screen `SCREEN`."""

import gc

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, HeadDefaults, PerturbationDataset
from embbench.grid.screens import screen

SCREEN = "simulator:n_perturbations=40:n_genes=80:n_contexts=1:seed=3"


class LeakyEmbedding(ExtractorDefaults):
    """Vectors of all rows' responses: it looks the screen up by its name instead of using what it is given."""

    reads = frozenset({"effects"})

    def compute(self, names, train):
        data = screen(SCREEN, "all", ())
        member = np.array([[name in row for row in data.entities] for name in data.entity_names], dtype=np.float64)
        matrix = member @ data.truth.astype(np.float64) / member.sum(axis=1, keepdims=True)
        return Embedding(np.array(data.entity_names, dtype=object), matrix.astype(np.float32), "gene")


class PeekingHead(HeadDefaults):
    """Predicts the true effect of exactly the rows it is asked for, which the screen's name gives away."""

    needs_embedding = False

    def fit(self, inputs, Y, observed=None):
        self.seen_ = {y.tobytes() for y in Y}
        return self

    def predict(self, inputs):
        data = screen(SCREEN, "all", ())
        rows = [i for i, y in enumerate(data.effects) if y.tobytes() not in self.seen_]
        rows = [i for i in rows if data.context_codes[i] in set(inputs.context.tolist())]
        return data.truth[rows]


class HoardingHead(HeadDefaults):
    """Finds every screen among the objects of the process."""

    needs_embedding = False

    def fit(self, inputs, Y, observed=None):
        found = [thing for thing in gc.get_objects() if isinstance(thing, PerturbationDataset)]
        self.mean_ = np.mean([s.truth.mean() for s in found if s.truth.shape[1] == Y.shape[1]])
        self.genes_ = Y.shape[1]
        return self

    def predict(self, inputs):
        return np.full((len(inputs), self.genes_), self.mean_, dtype=np.float32)
