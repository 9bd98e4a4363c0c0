"""Graph neural network trained by link prediction: GCN or GIN layers over learned node vectors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from embbench.core import Embedding, PerturbationDataset, UserError
from embbench.embeddings._graph import GraphParameters
from embbench.embeddings._linalg import top_eigenpairs
from embbench.embeddings._links import edge_pairs, hold_out, matched_negatives, propagation, weighted_graph
from embbench.embeddings._rows import generator, pick

LAYERS = ("gcn", "gin")
STARTS = ("spectral", "random")
SPREAD = 0.1  # of random start vectors: inner products begin near 0, where the logistic loss is steep


class GraphGNN(GraphParameters):
    """Vectors whose inner products tell edges from random pairs of the same degrees, refined by graph layers.

    A share of the edges is held out (never those of a random spanning tree, so that the graph stays connected); every
    epoch each remaining edge is set against a pair that is no edge, in which nodes are as frequent as among the edges:
    degree alone predicts nothing. Training stops when the held-out AUC no longer rises and its best state is kept; the
    vectors are then computed with all edges. Only the largest connected component is embedded.

    Parameters
    ----------
    layer : ``gcn`` (symmetric normalisation with self-loops) or ``gin`` (weighted sum, learned eps, two-layer MLP).
    layers : number of layers, >= 1.
    start : node vectors before training, which are learned: ``spectral`` (leading eigenvectors of the normalised
        adjacency with self-loops) or ``random``.
    output : ``last`` layer, ``all`` of them side by side (input included: width ``(layers + 1) * dim``), or a number
        (0 is the learned input).
    dropout : share of the entries of each layer's input set to 0 in training, in [0, 1).
    lr, epochs, patience, steps : of Adam; most epochs, epochs without a better AUC, updates an epoch.
    validation : share of the edges held out, in [0, 0.5]; 0 trains all ``epochs``.
    seed : of held-out edges, negatives, start and dropout.
    device : ``auto`` (cuda where there is one), ``cpu``, ``cuda`` ...; equal bits are promised on cpu only.
    **edges : see `GraphParameters`.

    References
    ----------
    Kipf and Welling (2017), Semi-Supervised Classification with Graph Convolutional Networks, equation 2; Xu et al.
    (2019), How Powerful are Graph Neural Networks, equation 4.1; inner-product decoder: Kipf and Welling (2016),
    Variational Graph Auto-Encoders, equation 2. Weights keep their ratios and are scaled to mean 1.

    Examples
    --------
    >>> GraphGNN(layer="gat")
    Traceback (most recent call last):
    ValueError: GraphGNN: layer must be one of gcn, gin, got 'gat'
    """

    def __init__(
        self,
        graph: str = "ppi",
        dim: int = 64,
        layer: str = "gcn",
        layers: int = 2,
        start: str = "spectral",
        output: str | int = "last",
        dropout: float = 0.1,
        lr: float = 0.01,
        epochs: int = 100,
        patience: int = 10,
        steps: int = 10,
        validation: float = 0.05,
        seed: int = 0,
        device: str = "auto",
        **edges: Any,
    ) -> None:
        super().__init__(graph, dim, **edges)
        self.layer, self.start = _one_of("layer", layer, LAYERS), _one_of("start", start, STARTS)
        self.layers, self.output = _at_least("layers", layers, 1), output
        self.epochs, self.patience, self.steps = (
            _at_least(name, value, 1) for name, value in (("epochs", epochs), ("patience", patience), ("steps", steps))
        )
        if output not in ("last", "all") and (isinstance(output, str | bool) or not 0 <= output <= layers):
            raise ValueError(f"GraphGNN: output must be last, all or a layer from 0 to {layers}, got {output!r}")
        if not 0 <= dropout < 1 or not lr > 0:
            raise ValueError(f"GraphGNN: dropout must be in [0, 1) and lr > 0, got {dropout} and {lr}")
        if not 0 <= validation <= 0.5:
            raise ValueError(f"GraphGNN: validation must be in [0, 0.5], got {validation}")
        self.dropout, self.lr, self.validation = float(dropout), float(lr), float(validation)
        self.seed, self.device = _at_least("seed", seed, 0), str(device)

    def compute(self, names: Sequence[str] | None, train: PerturbationDataset | None) -> Embedding:
        """Vectors of shape (m, dim), float32 (wider for ``output: all``), of asked nodes in the component.

        ``train`` is not read. The provenance tells the held-out AUC, the epochs, the edges and the seconds.

        Raises
        ------
        UserError
            The edges cannot be read, no component has 3 nodes, no edge can be held out, or the device is not there.
        """
        began = time.perf_counter()
        nodes, adjacency, outside = self.component()
        vectors, trained = self.fit(adjacency)
        facts = {"source": self.graph, "nodes": len(nodes), "outside_component": outside, "holds": "knowledge"}
        seconds = round(time.perf_counter() - began, 2)
        return pick(names, nodes.tolist(), vectors, self.entity, {**facts, **trained, "seconds": seconds})

    def fit(self, adjacency: sparse.csr_matrix) -> tuple[np.ndarray, dict[str, Any]]:
        """Node vectors of shape (n, width), float32, of a connected graph of shape (n, n), and facts of the training.

        Raises
        ------
        UserError
            No edge can be held out, or the device is not there.
        """
        import torch

        from embbench.embeddings import _gnn

        rng, n = generator("gnn", self.seed), adjacency.shape[0]
        pairs, weights = edge_pairs(adjacency)
        held = hold_out(pairs, n, self.validation, rng)
        if self.validation and not held.any():
            raise UserError(
                f"graph {self.graph!r}: expected edges on cycles to hold out, found none among {len(pairs)} edges; "
                "give validation=0 (trains all epochs)"
            )
        negative = matched_negatives(pairs[held], pairs, n, rng)
        links = _gnn.Links(n, pairs[~held], pairs[held], negative)
        device = _gnn.pick_device(self.device)
        kept = weighted_graph(links.train, weights[~held], n)
        S, whole = (_gnn.as_torch(propagation(self.layer, graph), device) for graph in (kept, adjacency))
        start = torch.from_numpy(self._start(propagation("gcn", kept), rng))
        with _gnn.one_stream(self.seed):
            net = _gnn.LinkNetwork(start, self.layer, self.layers, self.dropout).to(device)
            plan = _gnn.Plan(self.lr, self.epochs, self.patience, self.steps)
            found = _gnn.train_links(net, S, links, plan, rng)
            net.eval()
            with torch.no_grad():
                out = [part.cpu().numpy() for part in net(whole)]
        facts = {"layer": self.layer, "edges": len(pairs), "held_out": int(held.sum()), "device": str(device)}
        return self._output(out), {**facts, **found}

    def _start(self, smoothing: sparse.csr_matrix, rng: np.random.Generator) -> np.ndarray:
        n = smoothing.shape[0]
        out = SPREAD * rng.standard_normal((n, self.dim))
        if self.start == "spectral":
            _, vectors = top_eigenpairs(smoothing, self.dim)  # at most n columns; the others stay random
            out[:, : vectors.shape[1]] = vectors * np.sqrt(n)
        return out.astype(np.float32)

    def _output(self, layers: list[np.ndarray]) -> np.ndarray:
        if self.output == "all":
            return np.concatenate(layers, axis=1)
        return layers[-1 if self.output == "last" else int(self.output)]


def _one_of(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"GraphGNN: {name} must be one of {', '.join(known)}, got {value!r}")
    return value


def _at_least(name: str, value: int, low: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"GraphGNN: {name} must be an integer >= {low}, got {value!r}")
    return value
