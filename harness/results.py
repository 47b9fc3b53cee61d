"""The typed records that pass between stages. They need neither torch nor a model: reports read them on any laptop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

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
