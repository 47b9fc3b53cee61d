"""Paired metrics held against a converged run: the full run's steps are themselves an approximation of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.contracts import Batch, Metric, Unmeasurable, range_of
from harness.errors import UsageError
from harness.results import FloatArray

SUFFIX = "_converged"
FULL = "the full run"


class ToConverged:
    """A paired metric that sees the images of the plain pipeline with ``steps`` steps where it would see the full run's.

    So the full run, too, has an error. A :class:`harness.contracts.Metric`.
    """

    paired, to_converged = True, True

    def __init__(self, metric: Metric, steps: int | None) -> None:
        if steps is None:
            raise UsageError(
                expected=f"a converged run for {metric.name}{SUFFIX}",
                got="a preset without reference_steps",
                remedy="reference_steps: 100 in the preset, and steps:100 among its methods",
            )
        self.metric, self.to = metric, f"the converged run ({steps} steps)"
        self.name, self.title = f"{metric.name}{SUFFIX}", metric.title.replace(FULL, self.to)
        self.unit, self.direction, self.tiny = metric.unit, metric.direction, metric.tiny
        self.range = range_of(metric)
        self.floor, self.advised, self.counted = metric.floor, metric.advised, metric.counted
        self.measurement = f"{metric.measurement}{SUFFIX}"

    def basis(self) -> Mapping[str, str]:
        """The metric's, and what it is held against."""
        return {**self.metric.basis(), "to": self.to}

    def fingerprint(self) -> Mapping[str, str]:
        """The metric's under its own name, and what it is held against."""
        return {**self.metric.fingerprint(), "metric": self.name, "to": self.to}

    def measure(self, batch: Batch) -> FloatArray:
        """As the metric measures, float32 [B, d]."""
        if batch.converged is None:
            raise UsageError(expected=f"images of {self.to} for {self.title}", got="none", remedy="see why that row failed")
        return self.metric.measure(replace(batch, full=batch.converged))

    def summarise(self, measured: FloatArray) -> FloatArray:
        """As the metric does, and in its words where it cannot."""
        try:
            return self.metric.summarise(measured)
        except Unmeasurable as error:
            raise Unmeasurable(str(error).replace(FULL, self.to)) from error

    def checked(self, measured: FloatArray) -> FloatArray:
        """As the metric does."""
        return self.metric.checked(measured)

    def values(self, measured: FloatArray) -> FloatArray:
        """As the metric does."""
        return self.metric.values(measured)

    def per_image(self, measured: FloatArray) -> FloatArray | None:
        """As the metric does."""
        return self.metric.per_image(measured)
