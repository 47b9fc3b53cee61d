"""The typed records that pass between stages, and the two protocols that methods and metrics implement."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from harness.cost.flops import Geometry
from harness.cost.macs import BlockMacs, block_macs
from harness.errors import NotMeasured, UsageError

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

Direction = Literal["higher", "lower"]
FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class StepCost:
    """One denoising step: ``branches`` is 2 with classifier-free guidance and 1 without or with it folded."""

    branches: int
    blocks: float

    @property
    def evaluations(self) -> float:
        """Block evaluations an image in this step."""
        return self.branches * self.blocks


@dataclass(frozen=True)
class Backbone:
    """What a cost prediction needs to know of a model, before a weight is loaded.

    ``depth`` counts its transformer blocks, ``macs`` says what one costs, ``config`` is the transformer's ``config.json``.
    Without the last two only whole block evaluations can be predicted.
    """

    depth: int
    folder: Path | None
    macs: BlockMacs | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any], caption_tokens: int, folder: Path | None = None) -> Backbone:
        """From a transformer's config and the longest caption that its pipeline makes (0 for class labels)."""
        return cls(int(config["num_layers"]), folder, block_macs(config, caption_tokens), config)

    @property
    def block(self) -> BlockMacs:
        """The multiply-accumulates of one block. Raises :class:`NotMeasured` where they are not known."""
        if self.macs is None:
            raise NotMeasured(
                expected="a model whose blocks' cost is known", got="none", remedy="name a pipeline folder, or random:NAME"
            )
        return self.macs

    @property
    def geometry(self) -> Geometry:
        """The shapes from which FLOPs are counted. Raises :class:`KeyError` without a config."""
        return Geometry.of(self.config, self.block.caption_tokens)


STEPS, SOLVER, TIMESTEPS, WORK = "the number of steps", "the solver", "the timesteps", "what its steps leave out"
RANK = {STEPS: 0, SOLVER: 0, TIMESTEPS: 1, WORK: 2}  # what is chosen later in a composition depends on what was before


@dataclass(frozen=True)
class Plan:
    """What a run will evaluate, known before any weight is loaded.

    ``exact`` is False where a method decides from the data: its cost is then an upper bound, and the counted one stands.
    ``timesteps`` are chosen ones, high to low; none: the solver's own. ``loops``: blocks run again on some steps, which a cache
    may skip along with the blocks. ``chosen``: what the methods of a composition have decided so far.
    """

    backbone: Backbone
    steps: tuple[StepCost, ...]
    guidance: float = 1.0
    solver: str = ""
    exact: bool = True
    timesteps: tuple[int, ...] = ()
    loops: bool = False
    chosen: frozenset[str] = frozenset()

    @classmethod
    def full(cls, backbone: Backbone, steps: int, guidance: float, solver: str = "") -> Plan:
        """The plain pipeline: every block, on both guidance branches where there is guidance."""
        return cls(backbone, (StepCost(2 if guidance > 1 else 1, backbone.depth),) * steps, guidance, solver)

    @property
    def block_evaluations(self) -> float:
        """Block evaluations an image, over all steps and branches."""
        return sum(step.evaluations for step in self.steps)

    @property
    def step_cost(self) -> StepCost:
        """What any step costs. Raises :class:`UsageError` where something has already made them differ."""
        if len(set(self.steps)) > 1:
            raise _wrong_order()
        return self.steps[0]

    def choosing(self, *what: str) -> Plan:
        """The same, and ``what`` is decided.

        Raises :class:`UsageError` where another method of a composition has decided it, or something that depends on it.
        """
        for one in what:
            if one in self.chosen:
                raise UsageError(
                    expected=f"one method of a composition that chooses {one}", got="two", remedy="leave one of them out"
                )
            if one in RANK and any(RANK.get(other, 0) > RANK[one] for other in self.chosen):
                raise _wrong_order()
        return replace(self, chosen=self.chosen | set(what))

    def with_steps(self, steps: int) -> Plan:
        """The same cost a step, ``steps`` times, on the solver's own timesteps."""
        return replace(self.choosing(STEPS), steps=(self.step_cost,) * steps, timesteps=())

    def with_solver(self, solver: str) -> Plan:
        """Every solver here calls the model once a step."""
        return replace(self.choosing(SOLVER), solver=solver, timesteps=())

    def with_timesteps(self, timesteps: tuple[int, ...]) -> Plan:
        """As many steps, elsewhere."""
        return replace(self.choosing(TIMESTEPS), timesteps=timesteps)

    def scheduled(self, steps: tuple[StepCost, ...], solver: str, timesteps: tuple[int, ...], *, loops: bool = False) -> Plan:
        """What a method chooses that brings steps, solver and timesteps of its own."""
        return replace(self.choosing(STEPS, SOLVER, TIMESTEPS), steps=steps, solver=solver, timesteps=timesteps, loops=loops)

    def saving(self, saved: Sequence[float]) -> Plan:
        """Step ``i`` costs ``saved[i]`` block evaluations less on each branch."""
        costs = tuple(replace(cost, blocks=cost.blocks - less) for cost, less in zip(self.steps, saved, strict=True))
        return replace(self.costing(costs), exact=self.exact and not self.loops)

    def costing(self, steps: tuple[StepCost, ...]) -> Plan:
        """Some steps do less, at these costs."""
        return replace(self.choosing(WORK), steps=steps)

    def at_most(self) -> Plan:
        """Some steps do less, which the images decide."""
        return replace(self.choosing(WORK), exact=False)


def _wrong_order() -> UsageError:
    return UsageError(
        expected="what chooses steps or solver before what spaces the steps, and both before what saves on some of them",
        got="another order", remedy="write steps:N or ilf first, and then + and the rest, for example steps:8+spacing:1.5+fora:2",
    )  # fmt: skip


@runtime_checkable
class Method(Protocol):
    """An accelerator, a step count or a solver: anything that changes how a pipeline samples."""

    @property
    def label(self) -> str:
        """Short unique text for tables, for example ``deepcache(interval=3)``."""
        ...

    def plan(self, plan: Plan) -> Plan:
        """The predicted cost when this method is applied to ``plan``."""
        ...

    def attach(self, pipeline: Pipeline) -> AbstractContextManager[None]:
        """Accelerate ``pipeline`` inside the context; on exit it is bit for bit what it was."""
        ...


@dataclass(frozen=True)
class Ledger:
    """What a method cost before its first image: device-seconds of training and of calibration, and parameters it adds."""

    training_s: float
    extra_parameters: int
    calibration_s: float = 0.0

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(
            self.training_s + other.training_s,
            self.extra_parameters + other.extra_parameters,
            self.calibration_s + other.calibration_s,
        )


@runtime_checkable
class Trained(Protocol):
    """A method that was trained or calibrated says what that cost."""

    def ledger(self, backbone: Backbone) -> Ledger:
        """Read from the checkpoint, without loading it onto a device."""
        ...


@runtime_checkable
class SpeedOnly(Protocol):
    """A method that may lack trained weights says so: then it is timed and counted, and no metric is asked about its images."""

    @property
    def no_quality(self) -> str:
        """Why its images mean nothing, beginning with ``NOT-MEASURED``; empty where they do."""
        ...


def no_quality(method: Method) -> str:
    """Why a method's images must not be scored, or nothing."""
    return method.no_quality if isinstance(method, SpeedOnly) else ""


@dataclass(frozen=True)
class Batch:
    """What a metric sees: images uint8 [B, 3, H, W] RGB 0..255, their prompts and sample indices.

    ``full`` holds the full run's images from the same noise, for metrics with ``paired = True``.
    """

    images: torch.Tensor
    prompts: Sequence[str]
    indices: Sequence[int]
    full: torch.Tensor | None = None


class Metric(Protocol):
    """A score in two stages: ``measure`` streams over images, ``summarise`` is a pure function of all measurements.

    Fewer than ``floor`` images are refused, fewer than ``advised`` are scored under a watermark. ``counted``: the expected
    value depends on N, which then belongs to the fingerprint. Metrics of one ``measurement`` share one pass and one array.
    """

    name: str
    title: str
    unit: str
    direction: Direction
    tiny: bool
    paired: bool
    floor: int
    advised: int
    counted: bool

    @property
    def measurement(self) -> str:
        """The file name of what :meth:`measure` returns; equal for metrics that measure the same."""
        ...

    def basis(self) -> Mapping[str, str]:
        """The part of the fingerprint that fixes :meth:`measure`."""
        ...

    def fingerprint(self) -> Mapping[str, str]:
        """Everything that must agree before two scores may be subtracted: weights digest, preprocessing, reference."""
        ...

    def measure(self, batch: Batch) -> FloatArray:
        """float32 [B, d]: features, or the score itself with d = 1."""
        ...

    def summarise(self, measured: FloatArray) -> FloatArray:
        """Measurements [N, d] to one value an image [N] whose mean is the score.

        Metrics that are no plain mean (FID) return pseudo-values: score plus each image's influence on it, so that
        intervals and paired differences are computed the same way for every metric. Raises :class:`Unmeasurable`.
        """
        ...

    def checked(self, measured: FloatArray) -> FloatArray:
        """``measured`` as float64, or :class:`Unmeasurable` where it is not finite."""
        ...

    def values(self, measured: FloatArray) -> FloatArray:
        """The same without the floor, for null controls, which are few images on either side."""
        ...


class Unmeasurable(Exception):
    """Raised by a metric that has no finite value here; its text becomes :attr:`Failure.reason`."""


@dataclass(frozen=True)
class Score:
    """One metric of one method. ``per_image`` [N] has mean ``value``; see :meth:`Metric.summarise`."""

    method: str
    metric: str
    title: str
    unit: str
    direction: Direction
    tiny: bool
    value: float
    n: int
    fingerprint: Mapping[str, str]
    per_image: FloatArray


@dataclass(frozen=True)
class Failure:
    """A method or metric that could not be measured, and why. ``metric`` is empty where the method itself failed."""

    method: str
    metric: str
    reason: str


@dataclass(frozen=True)
class Fault:
    """Work that did not go as planned but was done in the end: a lost worker, or too little memory for the batch.

    ``stage`` of ``method`` on samples ``start`` .. ``stop`` - 1 was done again, ``batch`` at a time.
    """

    stage: str
    method: str
    start: int
    stop: int
    batch: int
    reason: str


@dataclass(frozen=True)
class TimingSample:
    """One timed call of one method in one interleaved round; seconds for the whole batch.

    Warm-up rounds have negative numbers. ``compile_s`` is the part of ``latency_s`` that went into torch.compile. Clock,
    temperature and power are the GPU's right after the call, None where they are unknown; ``throttled`` says why the GPU held
    its clock down during the call, and is empty where it did not or where nobody could ask it.
    ``cpu_s`` is the processor time of the process where one thread did the work on a CPU, else None: unlike ``latency_s`` it
    leaves out the time in which the system gave the processor to others.
    """

    method: str
    round: int
    batch: int
    latency_s: float
    text_s: float
    denoise_s: float
    decode_s: float
    peak_memory_bytes: int
    compile_s: float = 0.0
    clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    throttled: str = ""
    cpu_s: float | None = None


@dataclass(frozen=True)
class MethodRecord:
    """What a method is and costs. ``spec`` is its text in the preset.

    ``training_s`` and ``calibration_s`` are None where there was none, or where an older version did not record it.
    """

    label: str
    spec: str
    steps: int
    predicted_block_evaluations: float
    block_evaluations: float | None
    extra_parameters: int = 0
    training_s: float | None = None
    calibration_s: float | None = None

    @property
    def miscounted(self) -> bool:
        """Whether it ran another number of block evaluations than was predicted."""
        counted, predicted = self.block_evaluations, self.predicted_block_evaluations
        return counted is not None and abs(counted - predicted) > 1e-6 * max(1.0, abs(predicted))


def method_parts(text: str) -> list[str]:
    """The parts of a composition, joined by plus signs; those of ``dpm++`` join nothing: ``steps:6+solver:dpm++`` has two."""
    return [part.strip() for part in re.split(r"(?<!\+)\+(?!\+)|(?<=\+\+)\+(?!\+)", text)]


BASELINE = "full"  # the label of the method that every other is compared with
A_A = "full (A/A)"  # the full run timed a second time in each round: the noise floor
REFERENCE = "reference workload"  # timed in each round beside the methods; see harness/timing/reference_workload.py
