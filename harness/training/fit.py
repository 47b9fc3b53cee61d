"""The one training loop: seeded by step, resumable to the identical curve, with EMA, warm-up and cosine decay."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import nn

from harness.errors import ArtifactError
from harness.execution.environment import device_name
from harness.execution.interrupts import end_if_asked
from harness.execution.progress import following
from harness.storage.records import write_json
from harness.training.states import read_state, write_state

LossFunction = Callable[[torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast to train. ``lr`` is the peak of a linear warm-up followed by a cosine to ``lr * lr_floor``."""

    steps: int
    lr: float
    warmup: int = 200
    lr_floor: float = 0.02
    weight_decay: float = 0.0
    ema: float = 0.999
    gradient_clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = 500
    beta2: float = 0.99


@dataclass(frozen=True)
class TrainRecord:
    """What a training cost and where its loss ended, for model cards and upfront costs."""

    settings: TrainSettings
    seconds: float
    device: str
    machine: str
    threads: int
    final_loss: float
    loss_curve: list[tuple[int, float]]
    then: TrainRecord | None = None

    def followed_by(self, other: TrainRecord) -> TrainRecord:
        """Trainings of one model, one after the other; ``seconds`` are those of all."""
        return replace(self, seconds=self.seconds + other.seconds, then=self.then.followed_by(other) if self.then else other)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, asdict(self))


def learning_rate(settings: TrainSettings, step: int) -> float:
    """The learning rate at a 0-based step."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    low = settings.lr * settings.lr_floor
    return low + (settings.lr - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator from which everything random in one training step is drawn."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


class _State:
    """Model, EMA copy, optimizer and loss curve, saved and loaded as one file."""

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self.settings = settings
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.ema = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.lr, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay
        )
        self.step, self.seconds = 0, 0.0
        self.curve: list[tuple[int, float]] = []

    def update_ema(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), list(self.parameters.values()), 1 - decay)

    def save(self, path: Path) -> None:
        if not PartialState().is_main_process:
            return
        state = {
            "settings": asdict(self.settings),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "parameters": {n: p.detach() for n, p in self.parameters.items()},
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
        }
        write_state(path, state)

    def load(self, path: Path) -> None:
        state = read_state(path)
        if state["settings"] != asdict(self.settings):
            raise ArtifactError(
                expected=f"a training started with {asdict(self.settings)}",
                got=f"{path} started with {state['settings']}",
                remedy="delete that file to start over, or restore the settings",
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
                self.ema[name].copy_(state["ema"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.curve = [tuple(point) for point in state["curve"]]


def share(index: torch.Tensor) -> torch.Tensor:
    """This process's share of a batch that all processes drew alike: every n-th row; all of it where one process trains."""
    state = PartialState()
    return index[state.process_index :: state.num_processes]


def fit(
    model: nn.Module,
    loss: LossFunction,
    settings: TrainSettings,
    checkpoint: Path,
    title: str,
    before: Callable[[int], None] = lambda step: None,
) -> TrainRecord:
    """Train the parameters of ``model`` that require gradients and leave their EMA in it. ``before`` is told each step first.

    Under ``accelerate launch`` gradients are averaged over the processes, each of which computes the loss of its
    :func:`share`; the curve is that of one process with the whole batch. Only the main process writes ``checkpoint``.

    ``loss`` gets a CPU generator keyed by (seed, step) and must draw everything random from it, so that a training that
    was killed and started again from ``checkpoint`` follows the identical curve. The file is removed by the caller.
    """
    state = _State(model, settings)
    if checkpoint.exists():
        state.load(checkpoint)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with following() as progress:
        task = progress.add(title, settings.steps, state.step)
        progress.begin(task)
        running = state.curve[-1][1] if state.curve else math.nan
        while state.step < settings.steps:
            end_if_asked()
            started = time.perf_counter()
            before(state.step)
            running = _advance(state, loss, running)
            state.seconds += time.perf_counter() - started
            progress.advance(task, note=f"loss {running:.5f}")
            if state.step % settings.checkpoint_every == 0 or state.step == settings.steps:
                state.curve.append((state.step, running))
                state.save(checkpoint)
    state.save(checkpoint)
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(state.ema[name])
    device = str(next(iter(state.parameters.values())).device)
    return TrainRecord(settings, state.seconds, device, device_name(device), torch.get_num_threads(), running, state.curve)


def _advance(state: _State, loss: LossFunction, running: float) -> float:
    """One optimizer step; returns the smoothed loss."""
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.settings, state.step)
    value = loss(step_generator(state.settings.seed, state.step))
    if not torch.isfinite(value):
        raise ArtifactError(
            expected="a finite loss", got=f"{value.item()} at step {state.step}", remedy="lower the learning rate"
        )
    state.optimizer.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    if PartialState().num_processes > 1:
        value = _average(value, state)
    torch.nn.utils.clip_grad_norm_(list(state.parameters.values()), state.settings.gradient_clip)
    state.optimizer.step()
    state.step += 1
    state.update_ema()
    return value.item() if math.isnan(running) else 0.98 * running + 0.02 * value.item()


def _average(value: torch.Tensor, state: _State) -> torch.Tensor:
    """Gradients become the mean over all processes, and so does the loss that is returned."""
    for parameter in state.parameters.values():
        if parameter.grad is not None:
            parameter.grad = reduce(parameter.grad, reduction="mean")
    averaged: torch.Tensor = reduce(value.detach(), reduction="mean")
    return averaged
