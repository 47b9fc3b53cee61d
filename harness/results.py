"""The typed records that pass between stages. They need neither torch nor a model: reports read them on any laptop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, InstanceOf

from harness.storage.fields import (
    Amount,
    Count,
    Flag,
    Label,
    Line,
    MetricName,
    Number,
    PositiveCount,
    PositiveSeconds,
    RoundNumber,
    Seconds,
    Text,
)

Direction = Literal["higher", "lower"]


FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class UpfrontCost:
    """What a method cost before its first image: device-seconds of training and of calibration, and parameters it adds."""

    training_s: float
    extra_parameters: int
    calibration_s: float = 0.0

    def __add__(self, other: UpfrontCost) -> UpfrontCost:
        return UpfrontCost(
            self.training_s + other.training_s,
            self.extra_parameters + other.extra_parameters,
            self.calibration_s + other.calibration_s,
        )


STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)  # how pydantic reads a record: no unknown field, no NaN, no infinity


@dataclass(frozen=True)
class Score:
    """One metric of one method.

    ``influence`` [N] has mean ``value``: intervals and paired differences of every metric are computed from it; see
    :meth:`Metric.summarise`. ``per_image`` [N] is what the metric says of each image by itself, the same array where the score
    is its mean. It is infinite where an image is the full run's own (PSNR), and None where a metric says nothing of a single
    image (FID, KID). ``note`` says what of the prompts the metric's network did not read.
    """

    __pydantic_config__ = STRICT
    method: Label
    metric: MetricName
    title: Line
    unit: Line
    direction: Direction
    tiny: Flag
    value: Number
    n: PositiveCount
    fingerprint: Mapping[str, Text]
    influence: Annotated[FloatArray, InstanceOf]
    per_image: Annotated[FloatArray, InstanceOf] | None = None
    note: Text = ""


@dataclass(frozen=True)
class Failure:
    """A method or metric that could not be measured, and why. ``metric`` is empty where the method itself failed."""

    __pydantic_config__ = STRICT
    method: Label
    metric: MetricName | Literal[""]
    reason: Text


@dataclass(frozen=True)
class Fault:
    """Work that did not go as planned but was done in the end: a lost worker, or too little memory for the batch.

    ``stage`` of ``method`` on samples ``start`` .. ``stop`` - 1 was done again, ``batch`` at a time.
    """

    __pydantic_config__ = STRICT
    stage: Line
    method: Line
    start: Count
    stop: Count
    batch: Count
    reason: Text


@dataclass(frozen=True)
class TimingSample:
    """One timed call of one method in one interleaved round; seconds for the whole batch.

    Warm-up rounds have negative numbers. ``compile_s`` is the part of ``latency_s`` that went into torch.compile. Clock,
    temperature and power are the GPU's right after the call, None where they are unknown; ``throttled`` says why the GPU held
    its clock down during the call, and is empty where it did not or where nobody could ask it.
    ``cpu_s`` is the processor time of the process where one thread did the work on a CPU, else None: unlike ``latency_s`` it
    leaves out the time in which the system gave the processor to others.
    ``text_s``, ``denoise_s``, ``decode_s`` (to uint8 images on the device) and ``copy_s`` (of these to the host) are the stages
    of ``latency_s``. Of a GPU: ``energy_j`` of the call, ``reserved_bytes`` at most held by torch, CUDA graphs' pools included,
    and the most bytes allocated in each stage; None where they are unknown. ``text_apart``: the text encoder is not on the
    device beside the rest (``--offload text``), and its stage was timed once, alone: the same ``text_s`` stands in every row.
    """

    __pydantic_config__ = STRICT
    method: Label
    round: RoundNumber
    batch: PositiveCount
    latency_s: PositiveSeconds
    text_s: Seconds
    denoise_s: Seconds
    decode_s: Seconds
    peak_memory_bytes: Count
    compile_s: Seconds = 0.0
    clock_mhz: Count | None = None
    temperature_c: RoundNumber | None = None
    power_w: Amount | None = None
    throttled: Line = ""
    cpu_s: Seconds | None = None
    copy_s: Seconds = 0.0
    energy_j: Amount | None = None
    reserved_bytes: Count | None = None
    text_bytes: Count | None = None
    denoise_bytes: Count | None = None
    decode_bytes: Count | None = None
    text_apart: Flag = False


Kind = Literal[
    "full",  # the pipeline as the preset sets it
    "fewer steps",  # the same solver, another number of steps
    "solver",  # another ODE solver
    "timesteps",  # the same solver and number of steps, on other timesteps
    "less work per step",  # a cache, skipped blocks, a smaller model or a lower resolution on some steps
    "learned",  # with weights that were trained for it
    "precision",  # of the weights and of the arithmetic
    "compilation",
    "composition",  # of several parts, each with its own kind
    "other",  # whatever its plan does not speak of
    "unknown",  # its cost could not be predicted, so nothing is known of it
]
PLAIN: frozenset[Kind] = frozenset({"full", "fewer steps", "solver", "timesteps"})
FREE: frozenset[Kind] = frozenset({"full", "fewer steps", "solver"})  # what names no family of its own in a composition


@dataclass(frozen=True)
class MethodPart:
    """One method of a composition, or the only one: its name in presets, its kind, and all its options with their values.

    ``plugin`` is the file that it comes from, and ``plugin_digest`` the SHA-256 of that; both are empty for our own methods.
    """

    __pydantic_config__ = STRICT
    name: Line
    kind: Kind
    options: Mapping[str, Any] = field(default_factory=dict)
    plugin: Line = ""
    plugin_digest: Line = ""


@dataclass(frozen=True)
class MethodRecord:
    """What a method is, what it was predicted to cost, and, once it has run, what it did cost.

    ``spec`` is its text in the preset; no reader takes it or the label apart, because ``kind`` and ``parts`` say what it is.
    They follow from what the method's plan changes, and not from its name. ``solver``: the name of the ODE solver that it
    samples with; ``timesteps``: the chosen ones, high to low, none for the solver's own; ``spacing``: a name for the rule that
    chose them, empty for the solver's own. ``steps`` and the prediction are None where no plan could be made.
    ``block_evaluations`` per image are counted, None until it has run. ``training_s`` and ``calibration_s`` are device-seconds,
    None where there were none. ``identity``: digests of all that decides its images and times, by ingredient; see
    harness/execution/identity.py.
    """

    __pydantic_config__ = STRICT
    label: Label
    spec: Line
    kind: Kind
    steps: Count | None
    predicted_block_evaluations: Amount | None
    block_evaluations: Amount | None = None
    extra_parameters: Count = 0
    training_s: Seconds | None = None
    calibration_s: Seconds | None = None
    solver: Line = ""
    spacing: Line = ""
    timesteps: tuple[RoundNumber, ...] = ()
    parts: tuple[MethodPart, ...] = ()
    identity: Mapping[str, str] = field(default_factory=dict)

    @property
    def miscounted(self) -> bool:
        """Whether it ran another number of block evaluations than was predicted."""
        counted, predicted = self.block_evaluations, self.predicted_block_evaluations
        return counted is not None and predicted is not None and abs(counted - predicted) > 1e-6 * max(1.0, abs(predicted))

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of its parts."""
        return frozenset(part.kind for part in self.parts) or frozenset({self.kind})

    @property
    def is_plain(self) -> bool:
        """Whether it is the plain pipeline, every block on every step, with whatever steps, solver and timesteps."""
        return self.kinds <= PLAIN and not self.miscounted

    @property
    def family(self) -> str:
        """The name that all settings of a method share; a composition belongs to its first part that is no step count or solver.

        So whatever only takes fewer steps is of the family ``steps``, under whatever name.
        """
        if self.kind == "fewer steps":
            return "steps"
        named = [part.name for part in self.parts if part.kind not in FREE]
        return next(iter(named), self.parts[0].name if self.parts else self.label)


def method_parts(text: str) -> list[str]:
    """The parts of a composition, joined by plus signs; those of ``dpm++`` join nothing: ``steps:6+solver:dpm++`` has two.

    >>> method_parts("steps:6+solver:dpm++")
    ['steps:6', 'solver:dpm++']
    """
    return [part.strip() for part in re.split(r"(?<!\+)\+(?!\+)|(?<=\+\+)\+(?!\+)", text)]


WATERMARK = ", biased: N = "  # in the title of a score from fewer images than its metric advises, before "148 < 240"
BASELINE = "full"  # the label of the method that every other is compared with


A_A = "full (A/A)"  # the full run timed a second time in each round: the noise floor


REFERENCE = "reference workload"  # timed in each round beside the methods; see harness/timing/reference_workload.py
