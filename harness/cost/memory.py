"""The memory that a pipeline is predicted to need on its device, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Offload = Literal["none", "text", "model"]
STAGES = ("text", "denoise", "decode")


def part_of(stage: str, name: str) -> bool:
    """Whether a stage needs a component of a pipeline, by its name."""
    return {"transformer": "denoise", "vae": "decode"}.get(name, "text") == stage


def resident(stage: str, name: str, offload: Offload) -> bool:
    """Whether a component lies on the device during a stage.

    ``none``: always. ``text``: text encoders during theirs, the rest during the two other stages. ``model``: during its own.
    """
    if offload == "none":
        return True
    if offload == "text":
        return part_of("text", name) == (stage == "text")
    return part_of(stage, name)


@dataclass(frozen=True)
class Footprint:
    """Bytes, for ``batch`` images at a time.

    ``weights``: of each component, by name; ``activations``: the most that each stage allocates beside them, what a method keeps
    from step to step included; ``held``: what is still there after denoising.
    """

    batch: int
    weights: Mapping[str, int]
    activations: Mapping[str, int]
    held: int = 0

    def stages(self, offload: Offload = "none") -> dict[str, int]:
        """The most that is allocated in each stage."""
        return {
            stage: sum(size for name, size in self.weights.items() if resident(stage, name, offload)) + allocated
            for stage, allocated in self.activations.items()
        }

    def peak(self, offload: Offload = "none") -> int:
        """The most that is allocated at all."""
        return max(self.stages(offload).values())

    def between(self, smaller: Footprint, batch: int) -> Footprint:
        """At another batch size, between that of ``smaller`` and this one's: activations grow by the image."""
        if self.batch == smaller.batch:
            return self
        share = (batch - smaller.batch) / (self.batch - smaller.batch)
        least = smaller.activations
        grown = {stage: round(least[stage] + share * (size - least[stage])) for stage, size in self.activations.items()}
        return replace(self, batch=batch, activations=grown)


def gib(size: float) -> str:
    """Bytes in words; MiB where that is little."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"
