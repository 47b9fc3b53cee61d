"""The protocols that methods and metrics implement, and what a metric is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from harness.cost.plan import Backbone, Plan
from harness.results import Direction, FloatArray, UpfrontCost

if TYPE_CHECKING:
    import torch

    from harness.sampling.pipeline import Pipeline


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


@runtime_checkable
class Trained(Protocol):
    """A method that was trained or calibrated says what that cost."""

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """Read from the checkpoint, without loading it onto a device."""
        ...


@runtime_checkable
class Reads(Protocol):
    """A method that reads files of its own names them: where one of them changes, the method's row is made again."""

    def reads(self, plan: Plan) -> Sequence[Path]:
        """Files and folders outside the pipeline's components that decide what it does where it is applied to ``plan``."""
        ...


@runtime_checkable
class SpeedOnly(Protocol):
    """A method that may lack trained weights says so: then it is timed and counted, and no metric is asked about its images."""

    @property
    def why_unscored(self) -> str:
        """Why its images mean nothing, beginning with ``NOT-MEASURED``; empty where they do."""
        ...


@runtime_checkable
class Capturing(Protocol):
    """A method whose first call after it is attached does work that later ones do not, such as capturing CUDA graphs.

    That call is then made before the timed one.
    """

    @property
    def captures(self) -> bool:
        """Whether it is such a method."""
        ...


@runtime_checkable
class DecidesTogether(Protocol):
    """A method that decides for all images of a call at once: it is given one image at a time, so that none depends on others."""

    @property
    def takes_one_image(self) -> bool:
        """Whether it is such a method."""
        ...


def takes_one_image(method: Method) -> bool:
    """Whether a method is given one image at a time; it raises :class:`harness.errors.NotMeasured` on more."""
    return isinstance(method, DecidesTogether) and method.takes_one_image


def why_unscored(method: Method) -> str:
    """Why a method's images must not be scored, or nothing."""
    return method.why_unscored if isinstance(method, SpeedOnly) else ""


@dataclass(frozen=True)
class Batch:
    """What a metric sees: images uint8 [B, 3, H, W] RGB 0..255, their prompts and sample indices.

    ``full`` holds the full run's images from the same noise, for metrics with ``paired = True``; ``converged`` those of a run
    with many more steps, where the preset names one (``reference_steps``).
    """

    images: torch.Tensor
    prompts: Sequence[str]
    indices: Sequence[int]
    full: torch.Tensor | None = None
    converged: torch.Tensor | None = None


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
        """Measurements [N, d] to one value for each image, [N], whose mean is the score.

        Metrics that are no plain mean (FID) return pseudo-values: score plus each image's influence on it, so that
        intervals and paired differences are computed the same way for every metric. Raises :class:`Unmeasurable`.
        """
        ...

    def checked(self, measured: FloatArray) -> FloatArray:
        """``measured`` as float64, or :class:`Unmeasurable` where it is not finite."""
        ...

    def per_image(self, measured: FloatArray) -> FloatArray | None:
        """What the metric says of each image by itself, [N] of measurements [N, d]; None where it says nothing of one alone."""
        ...

    def values(self, measured: FloatArray) -> FloatArray:
        """The same without the floor, for null controls, which are few images on either side."""
        ...


def reads_prompts(metric: Metric) -> bool:
    """Whether a metric looks at the prompts: as its attribute ``reads_prompts`` says, and where it has none, yes."""
    return bool(getattr(metric, "reads_prompts", True))


def range_of(metric: Metric) -> tuple[float | None, float | None]:
    """The least and the largest value that a metric can have, in its unit, as its attribute ``range`` says; None: no bound.

    Bounds of what it says of an image, where it says something of one (``per_image``), and of its score.
    """
    found: tuple[float | None, float | None] = getattr(metric, "range", (None, None))
    return found


def note_of(metric: Metric, prompts: Sequence[str]) -> str:
    """What a metric says of how it reads these prompts, by its method ``note``; nothing where it has none, or there are none."""
    note: Callable[[Sequence[str]], str] | None = getattr(metric, "note", None)
    return note(list(dict.fromkeys(prompts))) if prompts and note is not None and reads_prompts(metric) else ""


class Unmeasurable(Exception):
    """Raised by a metric that has no finite value here; its text becomes :attr:`harness.results.Failure.reason`."""
