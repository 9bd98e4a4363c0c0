"""Speed of the GEARS-style head: a training step against cell-gears 0.1.2, and a whole fit at 5,000 x 1,000.

Usage: ``python bench/gears_speed.py --peer-python PYTHON`` with the python of a virtual environment that holds torch,
torch_geometric and cell-gears 0.1.2; without it the figure measured earlier on one machine (0.197 CPU s) stands in.

A step is forward, loss (gamma 2, direction 0.1 on both sides), backward and the optimiser, batch 32, width 64, 20
neighbours in either graph, one thread. The peer's batches are collated before the clock starts, and its data sets, GO
graph and cell graphs are not built at all, so ratios err on its side; ours include drawing the batch, the averaged
weights and clipping, as in a fit. Part of the ratio is the design: the peer sends every state of a gene in a row
through five layers with batch normalisation, ours through a sum, a rectifier and a read-out. Both sides are processes
that wait for their turn; medians of ``--repeat`` turns of 10 steps. The fit is the default head on effects without
cells, from `Inputs` to the last weights.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

PEER_EARLIER = 0.197  # CPU s a step at 1,000 genes, with the peer's own data loading
STEPS = 10  # in a turn
PERTURBATIONS, WIDTH, NEIGHBOURS = 60, 64, 20


def ring(n: int, k: int) -> np.ndarray:
    """Edges (2, n k) of a graph in which every node has k neighbours."""
    nodes = np.repeat(np.arange(n), k)
    return np.stack([(nodes + np.tile(np.arange(1, k + 1), n)) % n, nodes])


def peer(genes: int, batch: int) -> Callable[[], None]:
    """cell-gears' model, loss and optimiser on prepared batches."""
    import torch
    from gears.model import GEARS_Model
    from gears.utils import loss_fct
    from torch_geometric.data import Batch, Data

    torch.manual_seed(0)
    graphs = {f"G_{name}": torch.from_numpy(ring(n, NEIGHBOURS)) for name, n in (("coexpress", genes), ("go", 200))}
    weights = {f"{name}_weight": torch.full((edges.shape[1],), 0.5) for name, edges in graphs.items()}
    sizes = {"num_genes": genes, "num_perts": 200, "hidden_size": WIDTH, "decoder_hidden_size": 16}
    layers = {"num_go_gnn_layers": 1, "num_gene_gnn_layers": 1, "uncertainty": False, "no_perturb": False}
    model = GEARS_Model({**sizes, **layers, **graphs, **weights, "device": "cpu"})
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)
    rng, batches = np.random.default_rng(0), []
    for _ in range(STEPS):
        codes = rng.integers(PERTURBATIONS, size=batch)
        cells = [
            Data(x=torch.rand(genes, 1), pert_idx=[int(c)], y=torch.rand(1, genes), pert=f"P{c}+ctrl") for c in codes
        ]
        batches.append(Batch.from_data_list(cells))
    control, kept = torch.rand(genes), {f"P{c}+ctrl": np.arange(genes) for c in range(PERTURBATIONS)}

    def turn() -> None:
        model.train()
        for data in batches:
            optimiser.zero_grad()
            loss_fct(model(data), data.y, data.pert, ctrl=control, dict_filter=kept, direction_lambda=0.1).backward()
            torch.nn.utils.clip_grad_value_(model.parameters(), clip_value=1.0)
            optimiser.step()

    return turn


def rows(n: int, genes: int, seed: int = 0):
    """A screen without cells: n perturbations, 50 features, effects that follow from them in part."""
    from scipy import sparse

    from embbench.core import Inputs

    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 50)).astype(np.float32)
    truth = np.tanh(X @ rng.normal(size=(50, 20)).astype(np.float32) / 7) @ rng.normal(size=(20, genes)).astype(
        np.float32
    )
    Y = (truth / 5 + rng.normal(size=(n, genes)) / 2).astype(np.float32)
    units = tuple((i,) for i in range(n))
    return Inputs(X, np.zeros(n, np.int64), sparse.eye(n, dtype=np.float32, format="csr"), units), Y, truth / 5


def ours(genes: int, batch: int) -> Callable[[], None]:
    """Steps of a fit of our head, with the same loss."""
    import torch

    from embbench.core import Silent
    from embbench.heads import _training
    from embbench.heads._gears import Neighbourhood, gene_graph
    from embbench.heads._gears_fit import Base, Batches, Reader, sparse_tensor
    from embbench.heads._gears_net import GeneNet, Loss
    from embbench.heads._torch import RowEncoder

    inputs, Y, _ = rows(max(PERTURBATIONS, batch * STEPS), genes)
    base = Base.fitted(inputs.context, Y)
    reader = Reader(RowEncoder.fitted(inputs), Neighbourhood.fitted(inputs, 15, 1))
    graph = sparse_tensor(gene_graph(inputs, Y, 0.1, NEIGHBOURS, 0), torch.device("cpu"))
    batches = Batches.made(reader(inputs), Y, base, inputs.context, batch, 0, Loss(2.0, 0.1, 0.1), graph)
    net = GeneNet(batches.x.shape[1], batches.own.shape[1], genes, WIDTH, 0.2, 1)

    def turn() -> None:
        plan = _training.Plan(STEPS, 1e-3, 1e-2, 0.98, STEPS, 1, 0)
        _training.train_steps(net, batches.step, None, plan, Silent())

    return turn


def fit(genes: int, perturbations: int) -> None:
    """Fit the default head and print CPU and wall seconds, peak memory and error against the truth."""
    import torch

    from embbench.heads.gears_gnn import GearsGNN

    torch.set_num_threads(1)
    inputs, Y, truth = rows(perturbations + 100, genes)
    train, test = np.arange(perturbations), np.arange(perturbations, perturbations + 100)
    part, effects = inputs.rows(train), np.ascontiguousarray(Y[train])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    cpu, wall = time.process_time(), time.perf_counter()
    head = GearsGNN(device="cpu").fit(part, effects)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    error = np.square(head.predict(inputs.rows(test)) - truth[test]).mean()
    none = np.square(effects.mean(axis=0) - truth[test]).mean()
    steps = [member.steps for member in head.members_]
    print(
        f"fit, {genes} genes x {perturbations} perturbations: {cpu:.0f} CPU s, {wall:.0f} s wall, {steps} steps kept, "
        f"peak {peak:.0f} MB (before the fit {before:.0f} MB), squared error {error / none:.2f} of the mean's"
    )


def serve(turn: Callable[[], None]) -> None:
    """Run a turn per line on stdin; answer its CPU seconds."""
    turn()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        turn()
        print((time.process_time() - began) / STEPS, flush=True)


def start(python: str, side: str, genes: int, batch: int) -> subprocess.Popen[str]:
    """A side as a process, warmed up."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [python, __file__, "--side", side, "--genes", str(genes), "--batch", str(batch)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **one}
    )
    if process.stdout is None or process.stdout.readline().strip() != "ready":
        sys.exit(f"the {side} side did not start: {' '.join(command)}")
    return process


def ask(process: subprocess.Popen[str]) -> float:
    """One turn of a side."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Parse, measure, print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="python with cell-gears 0.1.2")
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--fit", type=int, nargs=2, metavar=("GENES", "PERTURBATIONS"), default=(5000, 1000))
    parser.add_argument("--side", choices=("peer", "ours", "fit"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side == "fit":
        return fit(*args.fit)
    if args.side:
        return serve({"peer": peer, "ours": ours}[args.side](args.genes, args.batch))
    sides = {"ours": start(sys.executable, "ours", args.genes, args.batch)}
    if args.peer_python:
        sides["peer"] = start(args.peer_python, "peer", args.genes, args.batch)
    turns = [{side: ask(process) for side, process in sides.items()} for _ in range(args.repeat)]
    for process in sides.values():
        process.kill()
    cost = {side: statistics.median(turn[side] for turn in turns) for side in sides}
    other = cost.get("peer", PEER_EARLIER)
    origin = "side by side" if "peer" in cost else "figure measured earlier, with the peer's data loading"
    print(f"load {os.getloadavg()[0]:.1f}")
    print("| genes | batch | ours, CPU s a step | cell-gears 0.1.2 | ratio | |\n|---|---|---|---|---|---|")
    print(
        f"| {args.genes} | {args.batch} | {cost['ours']:.4f} | {other:.3f} | {other / cost['ours']:.1f}x | {origin} |"
    )
    if args.fit[0]:
        command = [sys.executable, __file__, "--side", "fit", "--fit", *map(str, args.fit)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
