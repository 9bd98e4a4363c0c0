"""Multi-relation graphs: TransE and RotatE vectors of a table of (head, relation, tail), trained by pykeen."""

from __future__ import annotations

import gc
import logging
import random
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from embbench.core import Embedding, ExtractorDefaults, PerturbationDataset
from embbench.embeddings._rows import check_dim, pick
from embbench.embeddings._triples import gene_triples

MODELS = ("transe", "rotate")
NODES = ("genes", "all")
# Bordes 2013, section 4.2; of the range searched by Sun 2019 the value for their smaller graphs
MARGIN = {"transe": 1.0, "rotate": 6.0}
EVERY = 10  # epochs between two looks at held-out triples


class Relations(ExtractorDefaults):
    """Translations (TransE) or rotations (RotatE) from heads to tails, one per relation, learned with pykeen.

    TransE: score ``-|h + r - t|_1`` with entities on the unit sphere, margin ranking loss. RotatE: complex vectors,
    score ``-|h * r - t|_2`` with ``|r_i| = 1``, self-adversarial loss. Two spellings of one gene are one node; triples
    are sorted and taken once, so that their order in the file does not matter.

    Parameters
    ----------
    path : table of triples, tab- or comma-separated, ``.gz`` allowed; without header, or with a usual one: head,
        relation, tail; source, metaedge, target; subject, predicate, object.
    model : ``transe`` or ``rotate``.
    dim : width of the vectors; RotatE has ``dim / 2`` complex coordinates, real parts first.
    columns : names of the head, relation and tail columns of another header.
    gene_prefix : what gene nodes begin with (``Gene::`` in Hetionet), removed from their names; None takes every node
        that is a known gene symbol or identifier.
    nodes : ``genes``, or ``all`` to return the other nodes too.
    epochs, batch_size, lr, negatives : of Adam, and corrupted triples per triple.
    margin : of the loss; None takes 1 for TransE, 6 for RotatE.
    validation : share of the triples held out to stop early by their mean reciprocal rank; 0 trains all epochs.
    patience : looks (every 10 epochs) without improvement before training stops; the best state is restored.
    seed : of start vectors, order, corruption and held-out triples.
    device : ``auto`` (cuda where there is one), ``cpu``, ``cuda`` ...; equal bits are promised on cpu only.

    References
    ----------
    Bordes et al. (2013), Translating Embeddings for Modeling Multi-relational Data, equation 1; Sun et al. (2019),
    RotatE, section 3.2 and equation 5; Ali et al. (2021), PyKEEN 1.0, JMLR 22(82).

    Examples
    --------
    >>> Relations("triples.tsv", model="rotate", dim=7)
    Traceback (most recent call last):
    ValueError: Relations: RotatE needs an even dim (real and imaginary parts), got 7
    """

    def __init__(
        self,
        path: str,
        model: str = "rotate",
        dim: int = 100,
        columns: Sequence[str] | None = None,
        gene_prefix: str | None = None,
        nodes: str = "genes",
        epochs: int = 200,
        batch_size: int = 1024,
        lr: float = 0.01,
        negatives: int = 8,
        margin: float | None = None,
        validation: float = 0.0,
        patience: int = 3,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.path, self.model, self.dim = Path(path).expanduser(), str(model), check_dim("Relations", dim)
        if model not in MODELS or nodes not in NODES:
            raise ValueError(f"Relations: model must be of {MODELS} and nodes of {NODES}, got {model!r} and {nodes!r}")
        if model == "rotate" and dim % 2:
            raise ValueError(f"Relations: RotatE needs an even dim (real and imaginary parts), got {dim}")
        if columns is not None and len(columns) != 3:
            raise ValueError(f"Relations: columns must name head, relation and tail, got {columns!r}")
        counts = {"epochs": epochs, "batch_size": batch_size, "negatives": negatives, "patience": patience}
        if small := {name: value for name, value in counts.items() if value < 1}:
            raise ValueError(f"Relations: {', '.join(counts)} must be >= 1, got {small}")
        self.margin = MARGIN[model] if margin is None else float(margin)
        if not lr > 0 or not self.margin > 0 or not 0 <= validation <= 0.5:
            found = f"{lr}, {margin} and {validation}"
            raise ValueError(f"Relations: lr and margin must be > 0 and validation in [0, 0.5], got {found}")
        self.columns = None if columns is None else tuple(columns)
        self.gene_prefix, self.nodes = gene_prefix, nodes
        self.epochs, self.batch_size, self.lr, self.negatives = epochs, batch_size, float(lr), negatives
        self.validation, self.patience, self.seed, self.device = float(validation), patience, seed, str(device)
        self.entity = "gene" if nodes == "genes" else "any"  # type: ignore[misc]  # one class serves both

    def files(self) -> tuple[Path, ...]:
        """The file that the vectors depend on."""
        return (self.path,)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, dim), float32, of the asked nodes that occur in a triple; ``train`` is not read.

        Raises
        ------
        UserError
            The table cannot be read, has no gene, or the device is not there.
        """
        began = time.perf_counter()
        triples, genes = gene_triples(self.path, self.columns, self.gene_prefix)
        labels, model, facts = self.fit(triples)
        vectors = _numbers(model.entity_representations[0])
        keep = [i for i, label in enumerate(labels) if self.nodes == "all" or label in genes]
        known = [genes.get(labels[i], labels[i]) for i in keep]
        facts = {"source": self.path.name, "model": self.model, "holds": "knowledge", "genes": len(genes), **facts}
        seconds = round(time.perf_counter() - began, 2)
        return pick(names, known, vectors[keep], self.entity, {**facts, "seconds": seconds})

    def fit(self, triples: np.ndarray) -> tuple[list[str], Any, dict[str, Any]]:
        """Node labels in the order of their vectors, the trained pykeen model, and facts of the training.

        Raises
        ------
        UserError
            The device is not there.
        """
        with _quiet_streams(self.seed):
            from pykeen.training import SLCWATrainingLoop
            from pykeen.triples import TriplesFactory
            from torch.optim import Adam

            from embbench.embeddings._gnn import pick_device

            whole = TriplesFactory.from_labeled_triples(triples)
            kept, held = whole, None
            if self.validation:
                kept, held = whole.split([1 - self.validation, self.validation], random_state=self.seed)
            model = self._model(whole).to(pick_device(self.device))
            loop = SLCWATrainingLoop(
                model=model,
                triples_factory=kept,
                optimizer=Adam(model.parameters(), lr=self.lr),
                negative_sampler="basic",
                negative_sampler_kwargs={"num_negs_per_pos": self.negatives},
            )
            with tempfile.TemporaryDirectory() as folder:
                best = Path(folder) / "best.pt"
                stopper = None if held is None else self._stopper(model, kept, held, best)
                losses = self._train(loop, kept, stopper)
                if best.exists():  # pykeen restores the best state only when it stops early
                    _restore(model, best)
        facts = {"triples": len(triples), "nodes": whole.num_entities, "relations": whole.num_relations}
        facts |= {"epochs": len(losses), "loss": losses[-1], "held_out": 0 if held is None else held.num_triples}
        if stopper is not None:
            facts["validation_mrr"] = max(stopper.results, default=None)
        return [whole.entity_id_to_label[i] for i in range(whole.num_entities)], model, facts

    def _train(self, loop: Any, triples: Any, stopper: Any) -> list[float]:
        size = min(self.batch_size, triples.num_triples)
        sizes = {"num_epochs": self.epochs, "batch_size": size, "sub_batch_size": size}
        quiet = {"use_tqdm": False, "use_tqdm_batch": False}
        return list(loop.train(triples, stopper=stopper, num_workers=0, pin_memory=False, **sizes, **quiet))

    def _model(self, triples: Any) -> Any:
        from pykeen.losses import MarginRankingLoss, NSSALoss
        from pykeen.models import RotatE, TransE

        if self.model == "transe":
            loss: Any = MarginRankingLoss(margin=self.margin)
            sizes = {"embedding_dim": self.dim, "scoring_fct_norm": 1}
            return TransE(triples_factory=triples, random_seed=self.seed, loss=loss, **sizes)
        loss = NSSALoss(margin=self.margin, adversarial_temperature=1.0)
        return RotatE(triples_factory=triples, random_seed=self.seed, loss=loss, embedding_dim=self.dim // 2)

    def _stopper(self, model: Any, kept: Any, held: Any, best: Path) -> Any:
        from pykeen.evaluation import RankBasedEvaluator
        from pykeen.stoppers import EarlyStopper

        return EarlyStopper(
            model=model,
            evaluator=RankBasedEvaluator(),
            training_triples_factory=kept,
            evaluation_triples_factory=held,
            evaluation_batch_size=256,
            frequency=EVERY,
            patience=self.patience,
            metric="inverse_harmonic_mean_rank",
            relative_delta=0.0,
            best_model_path=best,
        )


def _numbers(representation: Any) -> np.ndarray:
    """Rows of shape (n, dim), float32, of a pykeen representation; complex ones as real parts, then imaginary parts."""
    rows = representation(indices=None).detach().cpu().numpy()
    return np.concatenate([rows.real, rows.imag], axis=1) if np.iscomplexobj(rows) else rows


def _restore(model: Any, path: Path) -> None:
    import torch

    model.load_state_dict(torch.load(path, weights_only=True))


@contextmanager
def _quiet_streams(seed: int) -> Iterator[None]:
    """Around pykeen, which uses the global streams of random, numpy and torch, and logs: all are put back.

    It also collects garbage every epoch, half a second where torch is loaded: what exists already is set aside.
    """
    from embbench.embeddings._gnn import one_stream

    logger = logging.getLogger("pykeen")
    state, level = (random.getstate(), np.random.get_state()), logger.level  # noqa: NPY002
    logger.setLevel(logging.ERROR)
    gc.freeze()
    try:
        with one_stream(seed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'pin_memory' argument|Training instances are always")
            yield
    finally:
        gc.unfreeze()
        logger.setLevel(level)
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
