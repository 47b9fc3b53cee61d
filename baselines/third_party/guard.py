"""What rows of other packages' accelerators share: what they cannot do is said before they run, and a crash is a reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING

import torch

from harness.cost.plan import Plan
from harness.errors import NotMeasured
from harness.sampling.compiling import gave_up

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

CRASHES = (TypeError, ValueError, AttributeError, LookupError, AssertionError, RuntimeError)


@dataclass(frozen=True)
class Limits:
    """What an accelerator of another package cannot do.

    ``decides_together``: it decides for all images of a call at once, so that an image would depend on its neighbours.
    ``changes_parts``: it changes parts inside blocks, which compiled blocks do not see. ``mixes_calls``: it keeps one state for
    all calls of the model in a step, also where these are the two branches of guidance. ``scheduled``: the images have no say
    in what it skips.
    """

    decides_together: bool = False
    changes_parts: bool = False
    mixes_calls: bool = False
    scheduled: bool = True

    def plan(self, name: str, plan: Plan) -> Plan:
        """An upper bound. Raises :class:`NotMeasured` where blocks run again within a step, which the package would take for
        another step."""
        if plan.loops:
            raise NotMeasured(
                expected=f"blocks that run once a step for {name}", got="ILF, which runs some twice", remedy="leave one out"
            )
        return plan.at_most()

    def check(self, name: str, pipeline: Pipeline) -> None:
        """Raise :class:`NotMeasured` where it cannot work on this pipeline as it is run."""
        if self.changes_parts and pipeline.blocks_run != "eager":
            raise NotMeasured(
                expected=f"eager blocks for {name}, which changes parts of them",
                got=f"{pipeline.blocks_run} ones",
                remedy="run it without compilation",
            )
        if self.mixes_calls and pipeline.guidance.on and pipeline.guidance.layout == "calls":
            raise NotMeasured(
                expected="one call of the model in each step",
                got=f"two, one for each branch of guidance, for which {name} keeps one state: either would get the other's",
                remedy="run it without true guidance, or use the method of ilf-bench",
            )

    def check_images(self, name: str, pipeline: Pipeline) -> None:
        """Raise :class:`NotMeasured` where it would decide for several images at once in this call of the pipeline."""
        images = len(pipeline.generators)
        if self.decides_together and images > 1:
            raise NotMeasured(
                expected=f"one image in each call, because {name} decides for all images of a call together",
                got=f"{images}",
                remedy="batch: 1, and timing with batch: 1",
            )


@contextmanager
def failing_as_not_measured(name: str) -> Iterator[None]:
    """An error that another package raises inside the context is a reason; want of memory is what it always is."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except CRASHES as error:
        if gave_up(error) is not None:
            raise
        raise NotMeasured(
            expected=f"a model that {name} works on",
            got=shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ..."),
            remedy="leave it out, or use the method of ilf-bench",
        ) from error
