"""T-Stitch (Pan et al. 2024, arXiv 2402.14167): a small model for the first steps, the large one for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from harness.cost.plan import Backbone, Plan
from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.models.architecture import class_of
from harness.models.reading import CLASSES, load_part, read_seconds, read_settings
from harness.results import UpfrontCost
from harness.sampling.patching import patched

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class TStitch:
    """The small sibling for the first ``fraction`` (0..1) of the steps.

    ``small`` is a folder with a ``transformer`` of the large one's kind, trained on the same latents, conditions and noise
    schedule; default: the pipeline's folder with ``-small`` behind its name. Its blocks are counted in blocks of the large
    model, by multiply-accumulates (:mod:`harness.cost.macs`).
    """

    innermost: ClassVar[int] = 1  # what counts steps or adds to a prediction has to see the sibling's, too
    fraction: float = 0.4
    small: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise UsageError(expected="a fraction from 0 to 1", got=str(self.fraction), remedy="for example t-stitch:0.4")

    @property
    def label(self) -> str:
        """For example ``t-stitch(0.4)``."""
        name = f", {Path(self.small).name}" if self.small else ""
        return f"t-stitch({self.fraction:g}{name})"

    def small_steps(self, steps: int) -> int:
        """How many of the first steps the small model takes."""
        return round(self.fraction * steps)

    def plan(self, plan: Plan) -> Plan:
        """The first steps cost the small model's blocks."""
        count, backbone = self.small_steps(len(plan.steps)), plan.backbone
        config = read_settings(find_sibling(self.small, backbone.folder) / "config.json")
        blocks = sum(backbone.geometry.worth(block) for block in backbone.like(config).blocks)
        steps = tuple(replace(cost, blocks=blocks) if i < count else cost for i, cost in enumerate(plan.steps))
        return plan.costing(steps)

    def reads(self, plan: Plan) -> list[Path]:
        """The sibling's transformer."""
        return [find_sibling(self.small, plan.backbone.folder)]

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """The sibling's parameters, and its training seconds where a record lies beside it."""
        folder = find_sibling(self.small, backbone.folder)
        seconds = read_seconds(folder.parent / "training-transformer.json")
        return UpfrontCost(seconds, sum(p.numel() for p in load_sibling(folder).parameters()))

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Put the sibling's forward in front of the large model's inside the context."""
        folder = find_sibling(self.small, pipeline.folder)
        large: Any = pipeline.transformer
        small = load_sibling(folder).to(pipeline.device, next(large.parameters()).dtype)
        check_fits(small, large, folder)

        def forward(*args: Any, **kwargs: Any) -> Any:  # the steps of whatever else is attached later count
            chosen = small if pipeline.clock.step < self.small_steps(pipeline.steps) else large_forward
            return chosen(*args, **kwargs)

        with ExitStack() as stack:
            if pipeline.counter:
                stack.enter_context(pipeline.counter.counting(pipeline.sites_of(small)))
            large_forward = large.forward
            stack.enter_context(patched(large, "forward", forward))
            yield


def find_sibling(name: str | None, pipeline_folder: Path | None) -> Path:
    """The sibling's ``transformer`` folder. Raises :class:`NotMeasured` where none is named and none lies beside the pipeline."""
    if name is None and pipeline_folder is None:
        raise NotMeasured(
            expected="a smaller model of the same kind", got="random weights, which have none", remedy="t-stitch:small=FOLDER"
        )
    folder = Path(name) if name else pipeline_folder.with_name(pipeline_folder.name + "-small")  # type: ignore[union-attr]
    if not (folder / "transformer" / "config.json").exists():
        kind = UsageError if name else NotMeasured
        raise kind(expected=f"a smaller transformer in {folder}/transformer", got="none", remedy="t-stitch:small=FOLDER")
    return folder / "transformer"


def load_sibling(folder: Path) -> Any:
    """The small transformer in float32, eval mode, on the CPU."""
    name = str(read_settings(folder / "config.json").get("_class_name"))
    if name not in CLASSES["diffusers"]:
        raise ArtifactError(expected=f"a transformer of diffusers in {folder}", got=name, remedy="restore or rebuild it")
    return load_part(class_of(name), folder, "a transformer", "restore or rebuild it", dtype=torch.float32)


def check_fits(small: Any, large: Any, folder: Path) -> None:
    """Raise :class:`ArtifactError` where the two read or return other things."""
    if type(small) is not type(large):
        raise ArtifactError(
            expected=f"a {type(large).__name__}", got=f"{type(small).__name__} in {folder}", remedy="name another model"
        )
    for name in ("in_channels", "out_channels", "sample_size", "caption_channels"):
        if small.config.get(name) != large.config.get(name):
            raise ArtifactError(
                expected=f"a sibling with {name} {large.config.get(name)}",
                got=f"{small.config.get(name)} in {folder}",
                remedy="use a model that was trained on the same latents and conditions",
            )
