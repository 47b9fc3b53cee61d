"""What a right set-up should reproduce: numbers that others published, with all that is stated of how they were measured."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Protocol(BaseModel):
    """How a number was measured; what its source does not state is None.

    ``prompts``: the list's name, ``prompts_digest`` its SHA-256 as a run records it; ``backbone``: the network behind the metric;
    ``resolution`` in pixels, one side; ``guidance``: the scale.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    n: int | None = Field(None, ge=1)
    prompts: str | None = None
    prompts_digest: str | None = None
    backbone: str | None = None
    steps: int | None = Field(None, ge=1)
    solver: str | None = None
    guidance: float | None = Field(None, ge=0, allow_inf_nan=False)
    resolution: int | None = Field(None, ge=1)
    hardware: str | None = None

    @property
    def stated(self) -> dict[str, Any]:
        """The fields that are known."""
        return {name: value for name in Protocol.model_fields if (value := getattr(self, name)) is not None}

    @property
    def unstated(self) -> tuple[str, ...]:
        """The others, but for the digest, which nobody publishes."""
        return tuple(name for name in Protocol.model_fields if getattr(self, name) is None and name != "prompts_digest")


class Anchor(Protocol):
    """A published value of the full run: our ``metric`` times ``factor``, accepted from ``low`` to ``high`` where both are given.

    They belong to the measured mean; its 95% interval may overlap them. ``baseline``: the row of the source's table.
    """

    metric: str = Field(min_length=1)
    title: str = Field(min_length=1)
    value: float | None = Field(None, allow_inf_nan=False)
    factor: float = Field(1.0, gt=0, allow_inf_nan=False)
    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)
    baseline: str = "full"
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _one_number(self) -> Anchor:
        if self.value is None and (self.low is None or self.high is None):
            raise ValueError("an anchor needs a value, or low and high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} lies above high {self.high}")
        return self

    @property
    def window(self) -> tuple[float, float] | None:
        """What is accepted, or None where the number is for orientation only."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def text(self) -> str:
        """For example ``FID 3.5 (3 to 4) at N = 50000 (source)``."""
        value = "" if self.value is None else f" {self.value:g}"
        accepted = "" if self.window is None else f" ({self.window[0]:g} to {self.window[1]:g} accepted)"
        count = "" if self.n is None else f" at N = {self.n}"
        return f"{self.title}{value}{accepted}{count} ({self.source})"
