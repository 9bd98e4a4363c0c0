"""Training of networks step by step: averaged weights, early stopping, and a state to go on from after a kill."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from embbench.core import Monitor
from embbench.heads._torch import reseed

STEP_STREAM = 1_000_003  # a prime: seeds of neighbouring runs share no step's stream


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Parameters
    ----------
    steps : most optimiser steps.
    lr : peak learning rate of AdamW; it rises over the first twentieth of the steps and falls as a cosine to a tenth.
    weight_decay : of AdamW.
    average : decay of the exponential moving average of the weights, which is what is kept.
    check_every : steps between looks at the held-out score.
    patience : looks without improvement before training stops.
    seed : every step has a random stream of its own, made of the seed and the step's number.
    """

    steps: int
    lr: float
    weight_decay: float
    average: float
    check_every: int
    patience: int
    seed: int


@dataclass
class _State:
    """Everything that the next step depends on."""

    step: int
    best: int
    lowest: float
    kept: dict[str, torch.Tensor]


def train_steps(
    net: nn.Module,
    loss: Callable[[nn.Module, int], torch.Tensor],
    held_out: Callable[[nn.Module], float] | None,
    plan: Plan,
    monitor: Monitor,
) -> int:
    """Train ``net`` in place; it ends with the averaged weights of the best look (of the last step without looks).

    Parameters
    ----------
    net : modules without running statistics.
    loss : ``loss(net, step)`` of one minibatch, which must depend on the step's number and torch's stream only.
    held_out : score of the averaged network, lower is better; looked at before the first step too, so that a network
        which never improves on its initial state keeps it. None: no looks.
    plan : see `Plan`.
    monitor : is asked between steps whether to save; a saved state is read first, and training goes on from there.

    Returns
    -------
    The step whose weights were kept; 0 is the initial state.

    References
    ----------
    Loshchilov and Hutter (2019), AdamW; averaged weights: Polyak and Juditsky (1992), with the warm-up
    ``min(average, (1 + s) / (10 + s))``; early stopping: Prechelt (1998).
    """
    mean = copy.deepcopy(net)
    for parameter in mean.parameters():
        parameter.requires_grad_(requires_grad=False)
    fused = next(net.parameters()).device.type in ("cpu", "cuda")
    optimiser = torch.optim.AdamW(net.parameters(), lr=plan.lr, weight_decay=plan.weight_decay, fused=fused)
    state = _State(0, 0, float("inf"), {})
    saved = monitor.load()
    if saved is not None:
        state = _restore(saved, net, mean, optimiser)
    elif held_out is not None:
        _look(state, mean, held_out)
    while state.step < plan.steps and not _stalled(state, plan, held_out):
        state.step += 1
        reseed(plan.seed * STEP_STREAM % 2**62 + state.step)
        _advance(net, mean, optimiser, loss, state.step, plan)
        if held_out is not None and (state.step % plan.check_every == 0 or state.step == plan.steps):
            _look(state, mean, held_out)
            monitor.report("training", state.step, plan.steps, f"held-out {state.lowest:.3g}")
        elif state.step % 50 == 0:
            monitor.report("training", state.step, plan.steps)
        if monitor.due():
            monitor.save(_packed(state, net, mean, optimiser))
    net.load_state_dict(state.kept if held_out is not None else mean.state_dict())
    return state.best if held_out is not None else state.step


def _stalled(state: _State, plan: Plan, held_out: object) -> bool:
    return held_out is not None and state.step - state.best >= plan.patience * plan.check_every


def _advance(
    net: nn.Module,
    mean: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss: Callable[[nn.Module, int], torch.Tensor],
    step: int,
    plan: Plan,
) -> None:
    """One optimiser step, and the moving average."""
    warm = min(1.0, step / max(1, plan.steps // 20))
    cosine = 0.55 + 0.45 * torch.cos(torch.tensor(torch.pi * step / plan.steps)).item()
    for group in optimiser.param_groups:
        group["lr"] = plan.lr * warm * cosine
    net.train()
    optimiser.zero_grad(set_to_none=True)
    loss(net, step).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimiser.step()
    keep = min(plan.average, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(mean.parameters()), list(net.parameters()), 1 - keep)


@torch.no_grad()
def _look(state: _State, mean: nn.Module, held_out: Callable[[nn.Module], float]) -> None:
    mean.eval()
    score = held_out(mean)
    if score < state.lowest:
        state.best, state.lowest = state.step, score
        state.kept = {name: value.clone() for name, value in mean.state_dict().items()}


def _packed(state: _State, net: nn.Module, mean: nn.Module, optimiser: torch.optim.Optimizer) -> bytes:
    body = {"step": state.step, "best": state.best, "lowest": state.lowest, "kept": state.kept}
    parts = {"net": net.state_dict(), "mean": mean.state_dict(), "optimiser": optimiser.state_dict()}
    buffer = io.BytesIO()
    torch.save({**body, **parts}, buffer)
    return buffer.getvalue()


def _restore(saved: bytes, net: nn.Module, mean: nn.Module, optimiser: torch.optim.Optimizer) -> _State:
    """Put a saved state back; tensors only, nothing in it is executed."""
    body = torch.load(io.BytesIO(saved), weights_only=True, map_location=next(net.parameters()).device)
    net.load_state_dict(body["net"])
    mean.load_state_dict(body["mean"])
    optimiser.load_state_dict(body["optimiser"])
    return _State(body["step"], body["best"], body["lowest"], body["kept"])
