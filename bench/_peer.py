"""Peers measured side by side: each in its own pinned environment, a warm process, arrays handed over by file.

The environments are those of the oracles (``make .oracles/NAME/.ready``). Times are process CPU seconds and wall
seconds at one thread; imports and the first call (compilation) are told apart; turns alternate.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
ONE = dict.fromkeys(THREADS, "1")


@dataclass
class Times:
    """CPU and wall seconds of repeated turns; ``first`` is the first turn, which compiles, and is not one of them."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    first: float = float("nan")
    peak_mb: float = 0.0

    def __str__(self) -> str:
        return f"{statistics.median(self.cpu):.4g} CPU s, {statistics.median(self.wall):.4g} s (first {self.first:.3g})"


class Peer:
    """One process in the environment ``name`` that serves the functions of ``bench/peers/<module>.py``.

    ``python`` names another interpreter, such as our own where it holds the peer at a pinned version.
    """

    def __init__(self, name: str, module: str, python: str | Path | None = None) -> None:
        python = Path(python or ROOT / ".oracles" / name / "bin" / "python")
        if not python.exists():
            raise SystemExit(f"{python} is not there; make it with: make .oracles/{name}/.ready")
        self.folder = tempfile.TemporaryDirectory()
        command = [str(python), "-W", "ignore", str(ROOT / "bench" / "peers" / "serve.py"), module]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env={**os.environ, **ONE}, **pipes)  # type: ignore[call-overload]
        self.imports = self._answer()
        self.given: dict[int, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()

    def _answer(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended with exit code {self.process.wait()}; its message is above")
        return json.loads(line)

    def call(self, name: str, arrays: Mapping[str, np.ndarray], **arguments: Any) -> tuple[dict[str, np.ndarray], dict]:
        """Results and times of one call; ``arrays`` (the same object again is not sent twice) go by file."""
        if id(arrays) not in self.given:
            self.given[id(arrays)] = Path(self.folder.name) / f"given{len(self.given)}.npz"
            np.savez(self.given[id(arrays)], **arrays)
        out = Path(self.folder.name) / "out.npz"
        asked = {"call": name, "arrays": str(self.given[id(arrays)]), "arguments": arguments, "out": str(out)}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        told = self._answer()
        with np.load(out) as file:
            return dict(file), told


def side_by_side(ours: Callable[[], Any], theirs: Callable[[], tuple[Any, dict]], repeats: int = 5) -> tuple:
    """Results and `Times` of both after one warm-up turn each and ``repeats`` alternating turns.

    Returns
    -------
    our result, our times, their result, their times
    """
    left, right, made = Times(), Times(), (None, None)
    for turn in range(repeats + 1):
        cpu, wall = time.process_time(), time.perf_counter()
        mine = ours()
        own = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        other, told = theirs()
        made = mine, other
        for times, took in ((left, own), (right, told)):
            if turn:
                times.cpu.append(took["cpu"])
                times.wall.append(took["wall"])
            else:
                times.first = took["cpu"]
            times.peak_mb = max(times.peak_mb, took.get("peak_mb", 0.0))
    return made[0], left, made[1], right


def ratio(ours: Times, theirs: Times) -> float:
    """Median CPU seconds of the peer over ours."""
    return statistics.median(theirs.cpu) / statistics.median(ours.cpu)
