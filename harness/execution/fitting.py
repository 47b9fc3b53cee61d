"""Whether a pipeline fits its device, told before a weight is loaded; where it does not, what is done about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import torch

from harness.config.spec import ExperimentSpec
from harness.contracts import Method
from harness.cost.memory import Footprint, Offload, gib
from harness.errors import NotMeasured, UsageError
from harness.execution.experiment import Experiment
from harness.execution.tasks import is_out_of_memory
from harness.models.empty import empty_pipeline
from harness.results import BASELINE
from harness.sampling.precision import resolve_device
from harness.sampling.rehearsal import rehearse
from harness.timing.nvml import Monitor

MARGIN = 1.05  # what the allocator loses between blocks, and kernels need beside their results
LESS = "--dtype bfloat16, --set decode_tiled=true"
LEAST = "--offload model, whose times compare only with its own"


@dataclass(frozen=True)
class Room:
    """Memory of a GPU: what is free for this process, all of it, and how many other processes compute there, if known."""

    free: int
    total: int
    others: int | None = None

    @property
    def words(self) -> str:
        """For messages."""
        shared = f", {self.others} other process{'es' * (self.others > 1)} on it" if self.others else ""
        return f"{gib(self.free)} free of {gib(self.total)}{shared}"


@dataclass(frozen=True)
class Placement:
    """Where the parts of a pipeline will lie, and how many images are made at a time.

    ``words`` say why where it is not as usual. ``predicted``: at the batch of the spec; None where
    that is not known, on a GPU for the reason in ``words``.
    """

    offload: Offload
    batch: int
    predicted: Footprint | None
    words: str = ""


def room_on(device: str) -> Room | None:
    """Of a GPU; None of a CPU."""
    if not device.startswith("cuda"):
        return None
    free, total = torch.cuda.mem_get_info(device)
    monitor = Monitor(device)
    return Room(free, total, monitor.nvml.facts().cotenants if monitor.nvml else None)


def predict(spec: ExperimentSpec, prompts: Sequence[str], batch: int) -> Footprint:
    """Of the full run. Raises :class:`NotMeasured` where its code reads numbers, which nothing has yet."""
    with _unpredicted():
        return rehearse(empty_pipeline(spec), _some(prompts, batch))


def predict_methods(
    spec: ExperimentSpec, prompts: Sequence[str], full: Footprint, methods: Mapping[str, Method]
) -> dict[str, int | None]:
    """The peak of each method in bytes, with what it keeps from step to step; None where its code reads numbers."""
    pipeline, found = empty_pipeline(spec), dict[str, int | None]()
    for label, method in methods.items():
        found[label] = None
        with _unpredicted(quiet=True):
            found[label] = rehearse(pipeline, _some(prompts, full.batch), full, method).peak()
    return found


def foresee(experiment: Experiment) -> tuple[Placement, Room | None, dict[str, int | None]]:
    """How a run will lie on its device, what there is, and the peak of each method in bytes, also on a CPU. Raises as
    :func:`place`."""
    spec, prompts = experiment.spec, experiment.prompts
    room = room_on(resolve_device(spec.device))
    placed = place(spec, prompts, room)
    if room is None:
        try:
            placed = replace(placed, predicted=predict(spec, prompts, min(spec.batch, spec.samples)))
        except NotMeasured as error:
            placed = replace(placed, words=str(error))
    if placed.predicted is None:
        return placed, room, {}
    alike = _like_the_full_run(experiment)
    others = {label: method for label, method in experiment.methods.items() if label not in alike}
    peaks = predict_methods(spec, prompts, placed.predicted, others)
    return placed, room, {label: peaks.get(label, placed.predicted.peak()) for label in experiment.methods}


def _like_the_full_run(experiment: Experiment) -> set[str]:
    """The rows of the plain pipeline with its own solver: other step counts and timesteps allocate what the full run does."""
    solver = experiment.planned[BASELINE].solver
    return {label for label, record in experiment.planned.items() if record.is_plain and record.solver == solver}


def place(spec: ExperimentSpec, prompts: Sequence[str], room: Room | None) -> Placement:
    """Choose the offload that the spec leaves open, and a batch that fits.

    Raises :class:`UsageError` where a single image would need more than there is, or where offloading is asked for on a CPU.
    """
    asked: Offload = "none" if spec.offload == "auto" else spec.offload
    if room is None and asked != "none":
        raise UsageError(expected="a GPU, whose memory --offload saves", got=f"--offload {asked} on a CPU", remedy="leave it out")
    if room is None:
        return Placement("none", spec.batch, None)
    batch = min(spec.batch, spec.samples)
    try:
        large = predict(spec, prompts, batch)
    except NotMeasured as error:
        return Placement(asked, spec.batch, None, str(error))
    return fitted(large, cache(lambda: predict(spec, prompts, 1)), spec, room)


def fitted(large: Footprint, one: Callable[[], Footprint], spec: ExperimentSpec, room: Room) -> Placement:
    """The largest of the halved batches that fits, at the least offload that does; ``one``: a single image at a time."""
    allowed: tuple[Offload, ...] = ("none", "text") if spec.offload == "auto" else (spec.offload,)
    encodes = any(name not in ("transformer", "vae") for name in large.weights)
    allowed = allowed if encodes else tuple(o for o in allowed if o != "text") or ("none",)
    sizes = [large.batch]
    while sizes[-1] > 1:
        sizes.append(max(1, sizes[-1] // 2))
    for size in sizes:
        each = large if size == large.batch else large.between(one(), size)
        for offload in allowed:
            least = size == 1 and offload == allowed[-1]  # refused only where it cannot be; else it is tried
            if each.peak(offload) * (1 if least else MARGIN) <= room.free:
                usual = offload == allowed[0] and size == large.batch
                words = "" if usual else _otherwise(large, room, offload, size)
                return Placement(offload, spec.batch if size == large.batch else size, large, words)
    raise too_small(large.between(one(), 1).peak(allowed[-1]), room, allowed[-1])


def _otherwise(large: Footprint, room: Room, offload: Offload, size: int) -> str:
    """What is done because the full run was predicted not to fit."""
    done = [f"--offload {offload}"] if offload != "none" else []
    done += [f"{size} at a time"] if size != large.batch else []
    return f"{large.batch} images at a time would need {gib(large.peak())}, and there are {room.words}: {', '.join(done)}"


def too_small(needed: int, room: Room, offload: Offload) -> UsageError:
    """The error where not even one image at a time fits."""
    remedy = f"{LESS}, or a larger GPU" if offload == "model" else f"{LESS}, {LEAST}, or a larger GPU"
    others = "; end the other processes on it" if room.others else ""
    return UsageError(expected=f"{gib(needed)} of GPU memory for one image at a time", got=room.words, remedy=remedy + others)


@contextmanager
def loading(placed: Placement, room: Room | None) -> Iterator[None]:
    """Name what happened where memory runs out inside the context, in which the pipeline is loaded."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        needed = f"{gib(placed.predicted.peak(placed.offload))} by prediction" if placed.predicted else "an unknown amount"
        got = "too little of the host's" if room is None else room.words
        raise UsageError(
            expected=f"memory for the model: {needed}", got=f"{got}, and it ran out", remedy=f"{LESS}, {LEAST}"
        ) from error


@contextmanager
def _unpredicted(quiet: bool = False) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not quiet:
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            raise NotMeasured(expected="code that needs no numbers", got=text, remedy="memory is not predicted here") from error


def _some(prompts: Sequence[str], size: int) -> list[str]:
    return [prompts[i % len(prompts)] for i in range(size)]
