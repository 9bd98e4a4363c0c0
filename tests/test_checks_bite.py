"""Tests of the contracts: each fails a component that is broken on purpose, and passes a sound one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from components.block_vote import BlockVote
from components.context_ridge import ContextRidge
from components.counter import Counter
from components.label_frequency import LabelFrequency
from components.moved_controls import MovedControls
from components.response_loadings import ResponseLoadings
from components.shifted_cells import ShiftedCells
from scipy import sparse

from embbench.checks import (
    ContractError,
    abilities,
    checks_for,
    composites,
    datasets,
    embeddings,
    failures,
    features,
    heads,
    metrics,
    populations,
    splits,
    toy_screen,
)
from embbench.core import (
    Composite,
    Embedding,
    ExtractorDefaults,
    Fold,
    HeadDefaults,
    Metric,
    Silent,
    Sources,
    Split,
    draw_sources,
)
from embbench.registry import KINDS

NOISE = np.random.default_rng()  # differs from run to run: what a component may not do


# ---- sound components ---------------------------------------------------------------------------------------------
class Mean(HeadDefaults):
    """A smoother: the mean over training rows."""

    def weights(self, train, query):
        return np.full((len(query), len(train)), 1 / len(train))

    def fit(self, inputs, Y, observed=None):
        self.train_, self.Y_ = replace(inputs, cells=None), Y
        return self

    def predict(self, inputs):
        if not hasattr(self, "Y_"):
            raise RuntimeError("Mean.predict called before fit")
        return (self.weights(self.train_, inputs) @ self.Y_.astype(np.float64)).astype(np.float32)


class Hashed(ExtractorDefaults):
    """Vectors from the bytes of known names."""

    vocabulary = frozenset(embeddings.KNOWN)

    def vector(self, name):
        return np.random.default_rng(list(name.encode())).normal(size=3)

    def compute(self, names, train):
        kept = [n for n in dict.fromkeys(sorted(self.vocabulary) if names is None else names) if n in self.vocabulary]
        return Embedding(np.array(kept, dtype=str), np.array([self.vector(n) for n in kept], np.float32).reshape(-1, 3))


class ByEntity:
    """Two folds of entities, by position among the sorted names."""

    kind = "perturbation"

    def home(self, data):
        where = {name: i for i, name in enumerate(data.entity_names)}
        return [[where[e] % 2 for e in row] for row in data.entities]

    def units(self, data):
        where = {name: i for i, name in enumerate(data.entity_names)}
        return tuple(tuple(where[e] for e in row) for row in data.entities)

    def split(self, data):
        home, folds = self.home(data), []
        for k in (0, 1):
            test = np.array([i for i, h in enumerate(home) if min(h) == k])
            folds.append(Fold(f"fold{k}", np.array([i for i, h in enumerate(home) if k not in h]), test))
        return Split(self.kind, tuple(folds), self.units(data))


def _pearson(pred, truth, mask):
    out = np.full(len(pred), np.nan)
    for i, m in enumerate(mask):
        p, t = pred[i, m].astype(float), truth.effects[i, m].astype(float)
        if m.sum() > 1 and p.std() > 0 and t.std() > 0:
            out[i] = np.clip(np.corrcoef(p, t)[0, 1], -1, 1)
    return out


def _l2(pred, truth, mask):
    gap = np.where(mask, pred.astype(float) - truth.effects, 0.0)
    return np.where(mask.any(axis=1), np.sqrt(np.square(gap).sum(axis=1)), np.nan)


PEARSON = Metric(_pearson, best="high", lower=-1, upper=1, source="Pearson 1895", genes="notarget", about="pearson")
L2 = Metric(_l2, best="low", lower=0, source="Euclid", genes="notarget", about="l2")


GAIN = Composite(
    lambda means, base: np.nan_to_num(means - base).mean(axis=1),
    ("pearson_all",),
    "context_mean",
    "high",
    "own",
    lower=-1.0,
    upper=1.0,
    about="mean gain",
)


class Toy:
    """A dataset."""

    def load(self):
        return toy_screen()


class Ring:
    """A graph."""

    def load(self):
        edges = sparse.csr_matrix(np.roll(np.eye(4), 1, axis=1) + np.roll(np.eye(4), -1, axis=1))
        return np.array(list("ABCD")), edges


class Scale:
    """A feature transform."""

    def fit(self, X):
        self.mean_ = X.mean(axis=0)
        return self

    def transform(self, X):
        if not hasattr(self, "mean_"):
            raise RuntimeError("Scale.transform called before fit")
        return (X - self.mean_).astype(np.float32)


SOUND: dict[str, list[Callable[..., Any]]] = {
    "heads": [Mean, ContextRidge, BlockVote, LabelFrequency, ShiftedCells, MovedControls, Counter],
    "embeddings": [Hashed, ResponseLoadings],
    "splits": [ByEntity],
    "metrics": [lambda: PEARSON, lambda: L2],
    "composites": [lambda: GAIN],
    "datasets": [Toy],
    "graphs": [Ring],
    "features": [Scale],
}


# ---- broken heads -------------------------------------------------------------------------------------------------
class OddScope(ContextRidge):
    scope = "sometimes"


class BadCandidate(ContextRidge):
    @classmethod
    def candidates(cls):
        return [{"alpha": 1.0}, {"alpha": -1.0}]


class Double(ContextRidge):
    def predict(self, inputs):
        return super().predict(inputs).astype(np.float64)


class Mutating(ContextRidge):
    def fit(self, inputs, Y, observed=None):
        Y -= Y.mean(axis=0)
        return super().fit(inputs, Y)


class Unseeded(ContextRidge):
    def fit(self, inputs, Y, observed=None):
        return super().fit(inputs, Y + NOISE.normal(size=Y.shape))


class WarmStart(ContextRidge):
    def fit(self, inputs, Y, observed=None):
        old = getattr(self, "coef_", 0)
        super().fit(inputs, Y)
        self.coef_ = self.coef_ + 0.1 * old
        return self


class Centring(ContextRidge):
    def predict(self, inputs):
        return super().predict(replace(inputs, X=inputs.X - inputs.X.mean(axis=0)))


class Guess(ContextRidge):
    def predict(self, inputs):
        return super().predict(inputs) if hasattr(self, "coef_") else np.zeros((len(inputs), 27), np.float32)


class Spread(Mean):
    def fit(self, inputs, Y, observed=None):
        super().fit(inputs, Y)
        with np.errstate(invalid="ignore"):
            self.scale_ = np.square(Y - Y.mean(axis=0)).sum(axis=0) / np.array(len(Y) - 1.0)
        return self

    def predict(self, inputs):
        return (super().predict(inputs) * self.scale_).astype(np.float32)


class KnownContexts(ContextRidge):
    def fit(self, inputs, Y, observed=None):
        self.known_ = np.unique(inputs.context)
        return super().fit(inputs, Y)

    def predict(self, inputs):
        out = super().predict(inputs)
        out[~np.isin(inputs.context, self.known_)] = np.nan
        return out


class MaskUpsideDown(ContextRidge):
    def fit(self, inputs, Y, observed=None):
        return super().fit(inputs, Y if observed is None else np.where(observed, 0, Y))


class Closure(ContextRidge):
    def fit(self, inputs, Y, observed=None):
        self.link_ = lambda x: x
        return super().fit(inputs, Y)


class GlobalStream(ContextRidge):
    def fit(self, inputs, Y, observed=None):
        np.random.seed(0)  # noqa: NPY002
        return super().fit(inputs, Y)


class TorchStream(ContextRidge):
    def fit(self, inputs, Y, observed=None):
        import torch

        torch.manual_seed(int(torch.randint(100, (1,))))
        return super().fit(inputs, Y)


class LostWithoutBlock(BlockVote):
    def predict(self, inputs):
        out = super().predict(inputs)
        out[~inputs.found.all(axis=1)] = np.nan
        return out


class Shifted(Mean):
    def predict(self, inputs):
        return super().predict(inputs) + np.float32(0.5)


class Scaled(Mean):
    """The mean, shrunk; its shared work mixes its settings up."""

    def __init__(self, share=1.0):
        self.share = share

    @classmethod
    def candidates(cls):
        return [{"share": 1.0}, {"share": 0.5}]

    def weights(self, train, query):
        return self.share * super().weights(train, query)

    @classmethod
    def path(cls, heads, train, query):
        return (head.weights(train, query) for head in reversed(heads))

    @classmethod
    def fit_path(cls, heads, inputs, Y, observed=None):
        return (head.fit(inputs, Y, observed) for head in reversed(heads))

    @classmethod
    def held_errors(cls, heads, folds, Y):
        return [np.zeros((len(heads), len(held))) for _, _, held in folds]


class PeekingWeights(Mean):
    def weights(self, train, query):
        size = np.abs(self.Y_).sum(axis=1) if hasattr(self, "Y_") else np.ones(len(train))
        return np.repeat((size / size.sum())[None], len(query), axis=0)


class Unnormalised(LabelFrequency):
    def predict_proba(self, inputs):
        return 2 * super().predict_proba(inputs)


class OffSamples(ShiftedCells):
    def sample(self, inputs, n_cells):
        return super().sample(inputs, n_cells) - inputs.baseline[inputs.context][:, None, :]


class OneStream(ShiftedCells):
    def sample(self, inputs, n_cells):
        drawn = np.random.default_rng(self.seed).normal(0, 0.01, (len(inputs), n_cells, 1)).astype(np.float32)
        return super().sample(inputs, n_cells) + drawn


class NextCells(MovedControls):
    def sample(self, inputs, n_cells):
        cells = draw_sources(inputs, n_cells, self.seed + 1).cells(inputs.cells)
        return cells + self.predict(inputs)[:, None, :]


class OtherContext(MovedControls):
    def sources(self, inputs, n_cells):
        found = super().sources(inputs, n_cells)
        return Sources((found.context + 1) % 3, found.position)


class BeyondThePool(MovedControls):
    def sources(self, inputs, n_cells):
        found = super().sources(inputs, n_cells)
        return Sources(found.context, found.position + 40)


class Restless(MovedControls):
    def sources(self, inputs, n_cells):
        return draw_sources(inputs, n_cells, int(NOISE.integers(1 << 30)))


class ByCompany(MovedControls):
    def sources(self, inputs, n_cells):
        return draw_sources(inputs, n_cells, self.seed + len(inputs))


class AroundTheMean(MovedControls):
    def sample(self, inputs, n_cells):
        return np.repeat((inputs.baseline[inputs.context] + self.predict(inputs))[:, None], n_cells, axis=1)


class SourcesOfNothing(MovedControls):
    targets = ("effects",)


class LostState(Counter):
    def fit(self, inputs, Y, observed=None):
        outer = self.monitor

        class Half(Silent):
            def load(self):
                saved = outer.load()
                return saved and saved[: saved.index(b",")] + str([0.0] * Y.shape[1]).join((", ", "]")).encode()

            def due(self):
                return outer.due()

            def save(self, state):
                outer.save(state)

        self.monitor = Half()
        return super().fit(inputs, Y, observed)


class StartsAnew(Counter):
    def fit(self, inputs, Y, observed=None):
        outer = self.monitor

        class Deaf(Silent):
            due, save = outer.due, outer.save

        self.monitor = Deaf()
        return super().fit(inputs, Y, observed)


class Watched(Counter):
    def fit(self, inputs, Y, observed=None):
        super().fit(inputs, Y, observed)
        self.mean_ = self.mean_ + np.float32(self.monitor.due())
        return self


HEADS = [
    (heads.head_declares_what_it_needs, OddScope),
    (heads.head_candidates_are_valid_parameters, BadCandidate),
    (heads.head_predicts_finite_float32, Double),
    (heads.head_leaves_its_arguments_alone, Mutating),
    (heads.head_is_deterministic, Unseeded),
    (heads.head_forgets_the_last_fit, WarmStart),
    (heads.head_rows_are_independent, Centring),
    (heads.head_refuses_to_predict_before_fit, Guess),
    (heads.head_fits_one_row, Spread),
    (heads.head_predicts_an_unseen_context, KnownContexts),
    (heads.head_takes_a_mask_of_everything_for_none, MaskUpsideDown),
    (heads.head_pickles, Closure),
    (heads.head_touches_no_global_random_state, GlobalStream),
    (heads.head_touches_no_global_random_state, TorchStream),
    (abilities.head_survives_missing_blocks, LostWithoutBlock),
    (abilities.head_weights_are_its_prediction, Shifted),
    (abilities.head_weights_never_read_effects, PeekingWeights),
    (abilities.head_path_is_its_weights, Scaled),
    (abilities.head_fit_path_is_fit, Scaled),
    (abilities.head_held_errors_are_its_errors, Scaled),
    (abilities.head_gives_probabilities, Unnormalised),
    (populations.head_samples_match_its_prediction, OffSamples),
    (populations.head_samples_are_rows_independent, OneStream),
    *(
        (populations.head_sources_are_what_it_samples_from, make)
        for make in (NextCells, OtherContext, BeyondThePool, Restless, ByCompany, AroundTheMean, SourcesOfNothing)
    ),
    *((populations.head_resumes_to_the_same_bits, make) for make in (LostState, StartsAnew, Watched)),
]


# ---- broken embeddings --------------------------------------------------------------------------------------------
class SecretOracle(Hashed):
    reads = frozenset({"truth"})


class Half(Hashed):
    def compute(self, names, train):
        table = super().compute(names, train)
        return replace(table, matrix=table.matrix.astype(np.float16))


class Talkative(Hashed):
    def compute(self, names, train):
        return super().compute([*names, *sorted(self.vocabulary)], train)


class Nothing(Hashed):
    vocabulary = frozenset({"A1BG"})


class Inventive(Hashed):
    vocabulary = frozenset({*Hashed.vocabulary, embeddings.NOBODY})


class Drawn(Hashed):
    def vector(self, name):
        return NOISE.normal(size=3)


class Positional(Hashed):
    def compute(self, names, train):
        table = super().compute(names, train)
        return replace(table, matrix=np.arange(table.matrix.size, dtype=np.float32).reshape(table.matrix.shape))


class Company(Hashed):
    def compute(self, names, train):
        table = super().compute(names, train)
        order = np.argsort(table.names)
        return replace(table, matrix=table.matrix - table.matrix[order].mean(axis=0))


class Forgetful(Hashed):
    def compute(self, names, train):
        return super().compute(sorted(self.vocabulary)[1:] if names is None else names, train)


class Undeclared(ResponseLoadings):
    reads = frozenset({"controls"})


class ThroughTheView(ResponseLoadings):
    def compute(self, names, train):
        cells = train.cells.source
        everything = np.stack([cells.perturbed(row).mean(axis=0) for row in range(60)])
        return super().compute(names, replace(train.rows(np.arange(30)), effects=everything[:30] - everything[30:]))


class HalfB(ResponseLoadings):
    def compute(self, names, train):
        half_b = train.cells.source.controls(0, "B").mean(axis=0, dtype=np.float64)
        return super().compute(names, replace(train, effects=(train.effects * half_b).astype(np.float32)))


class Padded(Hashed):
    def __init__(self, batch=4):
        self.batch = batch

    def vector(self, name):
        return super().vector(name) / self.batch


class FirstCell(Hashed):
    reads, needs_cells = frozenset({"controls"}), True

    def compute(self, names, train):
        table = super().compute(names, train)
        return replace(table, matrix=table.matrix * train.cells.counts(0, np.array([0])).values.sum())


EMBEDDINGS = [
    (embeddings.embedding_declares_what_it_reads, SecretOracle),
    (embeddings.embedding_gives_a_table, Half),
    (embeddings.embedding_gives_a_table, Talkative),
    (embeddings.embedding_knows_a_toy_name, Nothing),
    (embeddings.embedding_leaves_unknown_names_out, Inventive),
    (embeddings.embedding_is_deterministic, Drawn),
    (embeddings.embedding_vectors_follow_their_names, Positional),
    (embeddings.embedding_vectors_depend_on_the_name_alone, Company),
    (embeddings.embedding_gives_its_vocabulary, Forgetful),
    (embeddings.embedding_reads_only_what_it_declares, Undeclared),
    (embeddings.embedding_never_sees_test_rows, ThroughTheView),
    (embeddings.embedding_never_sees_test_rows, HalfB),
    (embeddings.embedding_ignores_batches, Padded),
    (embeddings.embedding_ignores_the_order_of_cells, FirstCell),
]


# ---- broken splits ------------------------------------------------------------------------------------------------
class OddKind(ByEntity):
    kind = "random"


class Overlapping(ByEntity):
    def split(self, data):
        split = super().split(data)
        fold = replace(split.folds[0], validation=split.folds[0].test[:2])
        return replace(split, folds=(fold, split.folds[1]))


class Twice(ByEntity):
    def split(self, data):
        split = super().split(data)
        return replace(split, folds=(split.folds[0], replace(split.folds[0], name="again")))


class NoUnits(ByEntity):
    def units(self, data):
        return ((),) * len(data)


class RandomRows(ByEntity):
    def home(self, data):
        return [[int(np.random.default_rng(i).integers(2))] for i in range(len(data))]


class ByContextButLeaky(RandomRows):
    kind = "context"


class MixedSets(RandomRows):
    kind = "combination"


class MixedDoses(RandomRows):
    kind = "transfer"


class Unsteady(ByEntity):
    def home(self, data):
        return [[h] for h in NOISE.integers(0, 2, len(data))]


class StrongFirst(ByEntity):
    def home(self, data):
        size = np.abs(data.effects).sum(axis=1)
        return [[int(s > np.median(size))] for s in size]


SPLITS = [
    (splits.split_gives_rows_of_the_screen, OddKind),
    (splits.split_parts_are_disjoint, Overlapping),
    (splits.split_tests_a_row_at_most_once, Twice),
    (splits.split_units_cover_every_row, NoUnits),
    *((splits.split_holds_out_whole_units, s) for s in (RandomRows, ByContextButLeaky, MixedSets, MixedDoses)),
    (splits.split_is_deterministic, Unsteady),
    (splits.split_never_reads_effects, StrongFirst),
]


def _against_the_best(means, base):
    gain = np.nan_to_num(means - base).mean(axis=1)
    return gain / max(np.abs(gain).max(), 1e-9)


# ---- broken metrics -----------------------------------------------------------------------------------------------
def _changed(metric: Metric, fn: Callable[..., Any], **facts: Any) -> Callable[..., Metric]:
    return lambda: replace(metric, fn=fn, **facts)


def _mutating(pred, truth, mask):
    pred[~mask] = 0
    return _l2(pred, truth, mask)


def _unmasked(pred, truth, mask):
    return _l2(pred, truth, mask | np.isfinite(truth.effects))


def _zero_if_nothing(pred, truth, mask):
    return np.nan_to_num(_l2(pred, truth, mask))


def _zero_if_constant(pred, truth, mask):
    return np.where(mask.sum(axis=1) < 2, np.nan, np.nan_to_num(_pearson(pred, truth, mask)))


def _relative(pred, truth, mask):
    values = _l2(pred, truth, mask)
    return values / np.nanmean(values) if np.nanmean(values) > 0 else values


class Tolerant(Metric):
    """Scores whatever it gets."""

    def __call__(self, pred, truth):
        return self.fn(np.nan_to_num(pred), truth, truth.mask(self.genes)[: len(pred)])


def tolerant() -> Metric:
    return Tolerant(lambda p, t, m: _l2(p, replace(t, effects=t.effects[: len(p)]), m), best="low", source="x")


METRICS = [
    (metrics.metric_declares_itself, lambda: replace(L2, source=" ")),
    (metrics.metric_declares_itself, lambda: replace(L2, about="")),
    (metrics.metric_declares_itself, lambda: replace(L2, space="umap2")),
    (composites.composite_declares_itself, lambda: replace(GAIN, parts=("pearson_all", "pearson_all"))),
    (composites.composite_declares_itself, lambda: replace(GAIN, base="")),
    (composites.composite_stays_in_range, lambda: replace(GAIN, upper=0.001)),
    (composites.composite_stays_in_range, lambda: replace(GAIN, fn=lambda means, base: (means - base).mean(axis=1))),
    (composites.composite_stays_in_range, lambda: replace(GAIN, fn=_against_the_best)),
    (metrics.metric_gives_one_value_per_row, _changed(L2, lambda p, t, m: np.nanmean(_l2(p, t, m)))),
    (metrics.metric_truth_is_best, lambda: replace(L2, best="high")),
    (metrics.metric_truth_is_best, _changed(PEARSON, lambda p, t, m: 0.5 * _pearson(p, t, m))),
    (metrics.metric_stays_in_range, lambda: replace(L2, upper=0.1)),
    (metrics.metric_follows_its_rows, _changed(L2, _relative)),
    (metrics.metric_follows_its_rows, _changed(L2, lambda p, t, m: np.sort(_l2(p, t, m)), level="set")),
    (metrics.metric_refuses_what_it_cannot_score, tolerant),
    (metrics.metric_ignores_entries_it_does_not_score, _changed(L2, _unmasked)),
    (metrics.metric_of_nothing_is_nan, _changed(L2, _zero_if_nothing)),
    (metrics.metric_undefined_is_nan, _changed(PEARSON, _zero_if_constant)),
    (metrics.metric_needs_only_what_it_declares, _changed(L2, lambda p, t, m: _l2(p + t.baseline, t, m))),
    (metrics.metric_leaves_its_arguments_alone, _changed(L2, _mutating)),
]


# ---- broken datasets, graphs, features ----------------------------------------------------------------------------
class Table:
    def load(self):
        return {"effects": np.zeros((2, 2))}


class ControlRows:
    def load(self):
        screen = toy_screen()
        return replace(screen, entities=(("non-targeting",), *screen.entities[1:]))


class Repeated:
    def load(self):
        return toy_screen().rows(np.array([0, 1, 1]))


class HoleInBaseline:
    def load(self):
        screen = toy_screen()
        baseline = screen.baseline.copy()
        baseline[1, 2] = np.nan
        return replace(screen, baseline=baseline)


class OtherGenes:
    def load(self):
        screen = toy_screen()
        return replace(screen, cells=replace(screen.cells, control=screen.cells.control[:, :-1]))


class Resampled:
    def load(self):
        return toy_screen(seed=int(NOISE.integers(1 << 30)))


class Directed(Ring):
    def load(self):
        names, edges = super().load()
        return names, sparse.csr_matrix(sparse.triu(edges))


class Rewired(Ring):
    def load(self):
        names, edges = super().load()
        return names, edges * NOISE.random()


class DoubleFeature(Scale):
    def transform(self, X):
        return super().transform(X).astype(np.float64)


class BatchNorm(Scale):
    def transform(self, X):
        return super().transform(X - X.mean(axis=0))


class Refitting(Scale):
    def transform(self, X):
        out = super().transform(X)
        self.mean_ = 0.9 * self.mean_ + 0.1 * X.mean(axis=0)
        return out


class RunningMean(Scale):
    def fit(self, X):
        self.mean_ = X.mean(axis=0) + 0.1 * getattr(self, "mean_", 0)
        return self


class InPlace(Scale):
    def transform(self, X):
        X -= self.mean_
        return X


class Eager(Scale):
    def transform(self, X):
        return super().transform(X) if hasattr(self, "mean_") else X


OTHERS = [
    (datasets.dataset_is_a_screen, Table),
    (datasets.dataset_rows_are_conditions, ControlRows),
    (datasets.dataset_rows_are_conditions, Repeated),
    (datasets.dataset_values_are_finite, HoleInBaseline),
    (datasets.dataset_cells_fit_the_screen, OtherGenes),
    (datasets.dataset_is_deterministic, Resampled),
    (datasets.graph_is_symmetric, Directed),
    (datasets.graph_is_deterministic, Rewired),
    (features.feature_gives_finite_float32, DoubleFeature),
    (features.feature_rows_are_independent, BatchNorm),
    (features.feature_is_fitted_on_training_rows_only, Refitting),
    (features.feature_is_deterministic, RunningMean),
    (features.feature_leaves_its_argument_alone, InPlace),
    (features.feature_refuses_to_transform_before_fit, Eager),
]
BAD = [*HEADS, *EMBEDDINGS, *SPLITS, *METRICS, *OTHERS]


def _name(value: Any) -> str:
    return getattr(value, "__name__", "")


@pytest.mark.parametrize(("check", "make"), BAD, ids=[f"{_name(c)}-{_name(m)}" for c, m in BAD])
def test_a_broken_component_is_caught(check: Callable[..., None], make: Callable[..., Any]) -> None:
    with np.errstate(all="ignore"), pytest.raises(ContractError):
        check(make)


PAIRS = [(k, m) for k, makers in SOUND.items() for m in makers]


@pytest.mark.parametrize(("kind", "make"), PAIRS, ids=[f"{k}-{i}-{_name(m)}" for i, (k, m) in enumerate(PAIRS)])
def test_a_sound_component_passes(kind: str, make: Callable[..., Any]) -> None:
    assert failures(kind, make) == {}


def test_no_contract_without_a_victim() -> None:
    wanted = {check for kind in KINDS for check in checks_for(kind)}
    assert {check for check, _ in BAD} == wanted


def test_a_crash_is_reported_as_a_failure() -> None:
    class Crashing(Mean):
        def fit(self, inputs, Y, observed=None):
            raise IndexError(f"no row {len(Y)}")

    said = failures("heads", Crashing)
    assert said["head_predicts_finite_float32"].startswith("IndexError: no row")
    assert "head_declares_what_it_needs" not in said
