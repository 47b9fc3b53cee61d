"""SmoothCache: a schedule for each kind of layer, from how much its outputs change (Liu et al. 2024, arXiv 2411.10510)."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from baselines.support.caching import at_least, by_kind, parts_cached
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from harness.results import UpfrontCost
from harness.training.calibration import Curves, calibrate, find, spent, stored

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

AHEAD = 3  # at most so many steps in a row are skipped
WHAT = "smoothcache-kinds"  # the name of its calibration


@dataclass(frozen=True)
class SmoothCache:
    """Self-attention, cross-attention and MLP each reuse their outputs for as long as these stay within ``alpha``.

    Calibrated: the relative L1 distance of a layer kind's outputs at steps i and i - k, k up to 3, as a mean over blocks and
    images. A kind that ran at step i is skipped at i + 1, i + 2, ... while the distance to i is below ``alpha``; ``most`` in a
    row. Reused outputs get the step's own gates. The images have no say, so the cost is known.
    """

    alpha: float = 0.15
    most: int = AHEAD

    def __post_init__(self) -> None:
        at_least("alpha", self.alpha, 0)
        if not 0 <= self.most <= AHEAD:
            raise UsageError(expected=f"most from 0 to {AHEAD}", got=str(self.most), remedy="edit the method")

    @property
    def label(self) -> str:
        """For example ``smoothcache(0.15)``."""
        return f"smoothcache({self.alpha:g}{f', most={self.most}' if self.most != AHEAD else ''})"

    def full_steps(self, curves: Curves) -> dict[str, list[bool]]:
        """For each kind of layer and each step, whether it runs."""
        kinds = {name.partition("-")[0] for name in curves}
        runs: dict[str, list[bool]] = {}
        for kind in kinds:
            runs[kind], since = [True], 0
            for step in range(1, len(curves[f"{kind}-1"])):
                since += 1
                skip = since <= self.most and curves[f"{kind}-{since}"][step] < self.alpha
                runs[kind].append(not skip)
                since = since if skip else 0
        return runs

    def plan(self, plan: Plan) -> Plan:
        """Each step loses the kinds that are skipped; before the calibration only the upper bound is known."""
        known = find(self, plan, WHAT)
        if known is None:
            return plan.at_most()
        geometry, runs = plan.backbone.geometry, self.full_steps(known.curves)
        return plan.saving([geometry.skipped([kind for kind in runs if not runs[kind][i]]) for i in range(len(plan.steps))])

    def reads(self, plan: Plan) -> list[Path]:
        """The calibration."""
        return stored(self, plan, WHAT)

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """What the calibration cost that was used last."""
        return spent(self, backbone.folder)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Measure, or read, the distances; then skip by schedule."""
        curves = calibrate(self, pipeline, WHAT, lambda sample: measure(pipeline, sample)).curves
        runs = self.full_steps(curves)
        with parts_cached(pipeline, by_kind(pipeline, lambda step, kind: runs[kind][step])):
            yield


def measure(pipeline: Pipeline, sample: Callable[[], None]) -> Curves:
    """``KIND-K``: for each step, the mean distance to the output K steps before; 0 where there is none."""
    parts = [(part.kind, module) for site in pipeline.sites for part, module in site.parts() if part.kind != "output"]
    kinds = list(dict.fromkeys(kind for kind, _ in parts))
    found = {f"{kind}-{k}": [[0.0] for _ in range(pipeline.steps)] for kind in kinds for k in range(1, AHEAD + 1)}

    def watching(kind: str) -> Callable[..., None]:
        kept: dict[int, deque[Any]] = defaultdict(lambda: deque(maxlen=AHEAD))

        def leaving(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            step, outputs = pipeline.clock.step, kept[pipeline.clock.call]
            if pipeline.clock.is_second_pass:
                return
            if step == 0:
                outputs.clear()
            for k, before in enumerate(reversed(outputs), 1):
                found[f"{kind}-{k}"][step].append(_distance(output, before))
            outputs.append(output)

        return leaving

    with ExitStack() as stack:
        for kind, module in parts:
            stack.callback(module.register_forward_hook(watching(kind)).remove)
        sample()
    return {name: [sum(values) / max(1, len(values) - 1) for values in steps] for name, steps in found.items()}


def _distance(output: Any, before: Any) -> float:
    """Relative L1 distance of two outputs; of a part that returns several tensors, the mean of theirs."""
    if isinstance(output, tuple):
        return sum(map(_distance, output, before)) / len(output)
    return float((output - before).abs().mean() / output.abs().mean())
