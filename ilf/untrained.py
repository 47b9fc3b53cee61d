"""An inner loop with fresh weights: what ILF costs and how fast it is, before anything has been trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import init_empty_weights

from harness.contracts import Backbone, Ledger, Plan, StepCost
from harness.errors import UsageError
from harness.methods import MethodTable
from harness.pipeline import Pipeline
from ilf.method import attach_module
from ilf.module import FeedbackModule, block_settings
from ilf.schedule import feedback_steps

SOLVER = "dpm++1"  # what modules are trained for


def middle(depth: int) -> tuple[int, int]:
    """The middle 12 of 28 blocks, in proportion: 1-based first and last (9 and 20 of 28)."""
    looped = max(1, round(depth * 12 / 28))
    first = (depth - looped) // 2 + 1
    return first, first + looped - 1


@dataclass(frozen=True)
class UntrainedIlf:
    """ILF with an untrained module: blocks, seconds and memory as with a trained one; its images mean nothing.

    The defaults are the paper's setting: 332 block evaluations where the full 20 steps cost 560, on both guidance branches.
    ``folded`` runs a feedback step on the conditional branch alone. ``first`` and ``last``: the looped blocks, 1-based.
    """

    steps: int = 10
    feedback: str = "paper-4"
    folded: bool = False
    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        feedback_steps(self.feedback, self.steps)

    @property
    def label(self) -> str:
        """For example ``untrained ilf(10 steps, feedback=paper-4)``."""
        folded = ", folded" if self.folded else ""
        blocks = f", blocks={self.first or ''}-{self.last or ''}" if self.first or self.last else ""
        return f"untrained ilf({self.steps} steps, feedback={self.feedback}{folded}{blocks})"

    @property
    def no_quality(self) -> str:
        """Always."""
        return "NOT-MEASURED: the feedback module is untrained; only its speed, cost and memory mean anything"

    def loop(self, depth: int) -> tuple[int, int]:
        """The looped blocks. Raises :class:`UsageError` where the model has not got them."""
        first, last = self.first or middle(depth)[0], self.last or middle(depth)[1]
        if not 1 <= first <= last <= depth:
            raise UsageError(expected=f"1 <= first <= last <= {depth}", got=f"{first} and {last}", remedy="edit the method")
        return first, last

    def plan(self, plan: Plan) -> Plan:
        """A feedback step costs depth + looped + 1 block evaluations, on one branch where guidance is folded."""
        first, last = self.loop(plan.backbone.depth)
        plain = plan.steps[0]
        cost = StepCost(1 if self.folded else plain.branches, plan.backbone.depth + last - first + 2)
        chosen = feedback_steps(self.feedback, self.steps)
        return replace(plan, steps=tuple(cost if i in chosen else plain for i in range(self.steps)))

    def ledger(self, backbone: Backbone) -> Ledger:
        """Nothing was trained; the parameters are those of the module that would be."""
        with init_empty_weights(include_buffers=False):
            module = self.module(backbone.config, backbone.depth, 1.0)
        return Ledger(0.0, sum(parameter.numel() for parameter in module.parameters()))

    def module(self, config: Mapping[str, Any], depth: int, guidance: float) -> FeedbackModule:
        """A fresh module for a transformer with this config."""
        first, last = self.loop(depth)
        of_config: Any = SimpleNamespace(config=config)
        module: FeedbackModule = FeedbackModule(
            block_settings(of_config), first, last, self.folded, guidance, solver=SOLVER, grids=[self.steps], steps=self.steps
        )
        return module

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """As a trained module is attached; equal weights every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = self.module(pipeline.plan().backbone.config, len(pipeline.blocks), pipeline.guidance)
        module = module.to(pipeline.device, next(pipeline.transformer.parameters()).dtype).requires_grad_(False)
        with pipeline.sampling(steps=self.steps, solver=SOLVER), attach_module(pipeline, module, self.feedback):
            yield


UNTRAINED_METHODS: MethodTable = {"ilf-untrained": UntrainedIlf}
