"""Speed of a foundation model: its official code against our extractor, same weights, same cells, one run.

Usage: ``python bench/model_speed.py scgpt --official PYTHON`` with the python of a virtual environment that holds the
official package (``make oracles`` leaves it in ``.oracles/MODEL/bin/python``); our side runs in this environment. Both
sides are processes that load the model once and wait; the parent lets them run in turn, `--repeat` times each, and
prints the median of each as a markdown table, with the largest difference of cell vectors.

What is timed. Official: the forward pass (``inference_mode``) over batches that are already binned or ranked, collated
and padded, cells in the order of the data, at ``--batch``; its tokenising and worker processes are *not* counted. Ours:
everything from counts to cell vectors and per-gene means: tokenising, sorting by length, batches trimmed to their own
longest cell, float64 sums. So ratios err on the official side. Random weights in the published format and at published
size; ties of scGPT's bins are resolved upwards on both sides, so that vectors can be compared.

A model is an entry of ``MODELS``: how to write its checkpoint, the official side, and our class.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
VOCABULARIES = ROOT.parent / "shared" / "data" / "vocab"
PRECISIONS = ("float32", "bfloat16")
LONGEST = 1200  # tokens: scGPT's default; `<cls>` is one of them
Batches = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Model:
    """One entry.

    Parameters
    ----------
    write : (folder, small) -> gene names of the data, in the vocabulary; writes the checkpoint into ``folder``.
    official : folder, counts (cells, genes), names, batch -> function that runs the official forward passes and
        returns cell vectors; called inside the official environment.
    ours : ``module:Class`` of our extractor.
    params : its parameters.
    special : tokens of a sentence that are no genes.
    batch : cells per official batch; the official default needs more memory than a CPU box has, and is no faster.
    """

    write: Callable[[Path, bool], list[str]]
    official: Callable[[Path, np.ndarray, np.ndarray, int], Callable[[], np.ndarray]]
    ours: str
    params: dict[str, Any]
    special: int
    batch: int = 4


def scgpt_write(folder: Path, small: bool) -> list[str]:
    """The whole-human size: 12 layers, d 512, 8 heads, ffn 512, 60,697 tokens."""
    from oracles import _write_scgpt as writer

    listed = VOCABULARIES / "scgpt_default_census_vocab.json"
    names = json.loads(listed.read_text()) if listed.is_file() else {f"GENE{i}": i for i in range(60694)}
    tokens = writer.census_tokens(names)
    shape = writer.Shape(width=512, heads=8, hidden=512, layers=12, pad_value=-2, seed=1)
    if small:
        tokens, shape = [*tokens[:9000], *writer.SPECIAL], replace(shape, width=32, heads=4, hidden=32, layers=2)
    writer.write_checkpoint(folder, 1, tokens=tokens, shape=shape, layout="Wqkv")
    return [token for token in tokens if token not in writer.SPECIAL]


def scgpt_official(folder: Path, matrix: np.ndarray, names: np.ndarray, batch: int) -> Callable[[], np.ndarray]:
    """``TransformerModel._encode`` on the batches of the official collator, as ``embed_data`` runs it on a CPU."""
    import torch
    from oracles import _stubs

    _stubs.stub_scgpt()
    from oracles import scgpt_official as official

    model, vocab, arguments = official.official_model(folder)
    examples = official.sentences(matrix, names, vocab, arguments)
    with official.tie_rule(official.RULES["up"]):
        ready = list(official.batches(examples, batch, vocab, arguments))

    def go() -> np.ndarray:
        out = []
        with torch.inference_mode():
            for ids, values in ready:
                rows = model._encode(ids, values, src_key_padding_mask=ids.eq(vocab["<pad>"]))
                out.append(rows[:, 0].numpy())
        cells = np.concatenate(out)
        return cells / np.linalg.norm(cells, axis=1, keepdims=True)

    return go


def geneformer_write(folder: Path, small: bool) -> list[str]:
    """V2-104M: 12 layers, d 768, 12 heads, ffn 3072, 4,096 positions, 20,275 tokens."""
    from oracles import _write_geneformer as writer

    shape = writer.Shape("v2", width=768, heads=12, hidden=3072, layers=12, positions=4096, seed=1)
    if VOCABULARIES.is_dir():
        words = writer.read_dictionaries(VOCABULARIES, "v2")
    else:
        genes = [f"ENSG{i:011d}" for i in range(20271)]
        tokens = {name: i for i, name in enumerate(("<pad>", "<mask>", "<cls>", "<eos>", *genes))}
        medians = dict(zip(genes, (0.5 + np.random.default_rng(0).random(len(genes))).tolist(), strict=True))
        words = writer.Dictionaries(tokens, medians, {gene: gene for gene in genes})
    if small:
        shape = replace(shape, width=32, heads=4, hidden=48, layers=2)
    writer.write_checkpoint(folder, 1, shape=shape, words=words)
    return [gene for gene in words.tokens if gene in words.medians]


def geneformer_official(folder: Path, matrix: np.ndarray, names: np.ndarray, batch: int) -> Callable[[], np.ndarray]:
    """Transformers' ``BertForMaskedLM`` (its default attention), all hidden states, mean of the last but one."""
    import torch
    from oracles import _write_geneformer as writer
    from oracles import geneformer_official as official
    from transformers import BertForMaskedLM

    model = BertForMaskedLM.from_pretrained(folder / "checkpoint").eval()
    words = writer.read_folder(folder, "v2")
    shape = writer.Shape("v2", 0, 0, 0, 0, model.config.max_position_embeddings, 0)
    cells, _ = official.sentences(matrix, names, words, shape, unique=False)
    ready = []
    for start in range(0, len(cells), batch):
        part = cells[start : start + batch]
        longest = max(map(len, part))
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in part])
        gene = ids.ne(0) & ids.ne(words.tokens["<cls>"]) & ids.ne(words.tokens["<eos>"])
        ready.append((ids, ids.ne(0).long(), gene[..., None].float()))

    def go() -> np.ndarray:
        out = []
        with torch.inference_mode():
            for ids, mask, gene in ready:
                rows = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
                out.append(((rows * gene).sum(1) / gene.sum(1)).numpy())
        return np.concatenate(out)

    return go


MODELS = {
    "scgpt": Model(
        scgpt_write,
        scgpt_official,
        "embbench.embeddings.models.scgpt:ScGPT",
        {"level": "cell", "ties": "up"},
        special=1,
    ),
    "geneformer": Model(
        geneformer_write,
        geneformer_official,
        "embbench.embeddings.models.geneformer:Geneformer",
        {"level": "cell"},
        special=2,
    ),
}


def ours(model: Model, folder: Path, matrix: np.ndarray, names: np.ndarray, precision: str) -> Callable[[], np.ndarray]:
    """Our extractor from counts to cell vectors and gene means; the network is loaded before."""
    import importlib

    from scipy.sparse import csr_matrix

    from embbench.core import Counts

    module, _, name = model.ours.partition(":")
    extractor = getattr(importlib.import_module(module), name)(
        str(folder), precision=precision, device="cpu", **model.params
    )
    extractor.network()
    values = csr_matrix(matrix.astype(np.float32))
    counts = Counts(values, names.astype(object), matrix.sum(axis=1).astype(np.float64))
    return lambda: extractor.means(counts.rows, len(counts)).cells


def data(lengths: np.ndarray, genes: list[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of shape (cells, genes), int64, cell i with lengths[i] expressed genes, and the genes' names."""
    rng = np.random.default_rng(seed)
    names = np.array(genes)[np.sort(rng.choice(len(genes), min(8000, len(genes)), replace=False))]
    matrix = np.zeros((len(lengths), len(names)), dtype=np.int64)
    weight = rng.lognormal(0.0, 1.5, len(names))
    for row, n in zip(matrix, lengths, strict=True):
        chosen = rng.choice(len(names), int(n), replace=False, p=weight / weight.sum())
        row[chosen] = 1 + rng.poisson(weight[chosen] / 2)
    return matrix, names


def scenarios(cells: int, longest: int, median: float, seed: int) -> dict[str, np.ndarray]:
    """Tokens per cell: all at the cut, and log-normal around ``median`` expressed genes (sigma 0.6), cut."""
    drawn = np.random.default_rng(seed).lognormal(np.log(median), 0.6, cells)
    return {"full": np.full(cells, longest), "realistic": np.clip(drawn, 100, longest).astype(np.int64)}


def serve(model: Model, folder: Path, side: str, batch: int, threads: int) -> None:
    """Run what the parent asks for, line by line: a scenario and a precision; answer with seconds and a file."""
    _limit(threads)
    import torch

    torch.set_num_threads(threads)
    cached: dict[tuple[str, str], Callable[[], np.ndarray]] = {}
    for line in sys.stdin:
        name, precision = key = tuple(json.loads(line))
        if key not in cached:
            with np.load(folder / f"{name}.npz") as file:
                matrix, names = file["matrix"], file["names"]
            checkpoint = folder / "checkpoint"
            cached[key] = (
                model.official(checkpoint, matrix, names, batch)
                if side == "official"
                else ours(model, checkpoint, matrix, names, precision)
            )
            cached[key]()  # warm: allocator, packed weights
        start, cpu = time.perf_counter(), time.process_time()
        cells = cached[key]()
        wall, used = time.perf_counter() - start, time.process_time() - cpu
        out = folder / f"{side}-{name}-{precision}.npy"
        np.save(out, cells)
        print(
            json.dumps({"wall": wall, "cpu": used, "threads": torch.get_num_threads()}), file=sys.__stdout__, flush=True
        )


def _limit(threads: int) -> None:
    """Give this process as many cores as threads: our side takes every core that it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))


class Side:
    """A waiting process of one side."""

    def __init__(self, python: str, name: str, model: str, folder: Path, batch: int, threads: int) -> None:
        path = os.pathsep.join([str(ROOT / "tests"), *([str(ROOT)] if name == "ours" else [])])
        env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        arguments = [model, "--serve", name, "--folder", folder, "--batch", batch, "--threads", threads]
        self.process = subprocess.Popen(
            [python, __file__, *map(str, arguments)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, scenario: str, precision: str) -> dict[str, float]:
        """One repetition; wall and CPU seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([scenario, precision]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):  # official packages print while they load
                return json.loads(line)
        raise SystemExit(f"a side ended with code {self.process.wait()}; its message is above")

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(options: argparse.Namespace, folder: Path) -> list[str]:
    """All scenarios and variants in turn; lines of the markdown table."""
    model = MODELS[options.model]
    genes = model.write(folder / "checkpoint", options.small)
    batch = options.batch or model.batch
    kinds = scenarios(options.cells, options.tokens - model.special, options.median, seed=0)
    for name, lengths in kinds.items():
        matrix, names = data(lengths, genes, seed=1)
        np.savez(folder / f"{name}.npz", matrix=matrix, names=names)
    sides = {
        name: Side(python, name, options.model, folder, batch, options.threads)
        for name, python in (("official", options.official), ("ours", sys.executable))
    }
    variants = [("official", "float32"), *(("ours", precision) for precision in PRECISIONS)]
    lines = []
    try:
        for name, lengths in kinds.items():
            times: dict[tuple[str, str], list[dict[str, float]]] = {variant: [] for variant in variants}
            for _ in range(options.repeat):
                for variant in variants:  # in turn, so that a busy machine slows all alike
                    times[variant].append(sides[variant[0]].run(name, variant[1]))
            lines += rows(folder, name, lengths + model.special, times, batch)
    finally:
        for side in sides.values():
            side.close()
    return lines


def rows(
    folder: Path, name: str, tokens: np.ndarray, times: dict[tuple[str, str], list[dict[str, float]]], batch: int
) -> list[str]:
    """The table rows of a scenario: medians, ratios to official, difference of cell vectors."""
    reference = np.load(folder / f"official-{name}-float32.npy")
    wall = {variant: float(np.median([t["wall"] for t in found])) for variant, found in times.items()}
    cpu = {variant: float(np.median([t["cpu"] for t in found])) for variant, found in times.items()}
    base = ("official", "float32")
    out = []
    for side, precision in times:
        apart = np.abs(np.load(folder / f"{side}-{name}-{precision}.npy") - reference).max()
        key, label = (side, precision), f"official, batch {batch}" if side == "official" else "ours, trimmed"
        out.append(
            f"| {name} ({tokens.mean():.0f} tokens) | {label} | {precision} | {len(tokens) / wall[key]:.3f} "
            f"| {wall[base] / wall[key]:.2f}x | {cpu[base] / cpu[key]:.2f}x | {apart:.1e} |"
        )
    return out


def main(arguments: list[str] | None = None) -> None:
    """Parent or side."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--official", help="python of the environment with the official package")
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batch", type=int, default=0, help="official batch size; 0: the entry's")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--tokens", type=int, default=LONGEST, help="tokens of the longest cells, special ones included"
    )
    parser.add_argument("--median", type=float, default=1500.0, help="median expressed genes of realistic cells")
    parser.add_argument("--small", action="store_true", help="a toy model, to try the script")
    parser.add_argument("--serve", choices=("official", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(MODELS[options.model], options.folder, options.serve, options.batch, options.threads)
        return
    if not options.official:
        parser.error("--official: expected the python of an environment with the official package (make oracles)")
    sys.path.insert(0, str(ROOT / "tests"))
    with tempfile.TemporaryDirectory() as temporary:
        lines = compare(options, Path(temporary))
    print(
        f"\n{options.model}, {options.cells} cells, median of {options.repeat} in turn, {options.threads} threads, "
        f"load {os.getloadavg()[0]:.1f}{', toy model' if options.small else ''}\n\n"
        "| cells | side | precision | cells/s | ratio, wall | ratio, CPU | max difference of cell vectors |\n"
        "|---|---|---|---|---|---|---|\n" + "\n".join(lines)
    )


if __name__ == "__main__":
    main()
