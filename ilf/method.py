"""ILF as a method of the harness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.contracts import Backbone, Ledger, Plan, StepCost
from harness.errors import UsageError
from harness.methods import MethodTable
from harness.patching import patched
from harness.pipeline import Pipeline
from harness.records import read_json
from harness.rows import conditional_half, for_both_halves
from ilf.checkpoint import check_fits, find_checkpoint, load_module, read_config
from ilf.loop import InnerLoop
from ilf.module import FeedbackModule
from ilf.schedule import feedback_steps


@dataclass(frozen=True)
class Ilf:
    """A trained feedback module on its backbone.

    ``steps``: denoising steps (default: the checkpoint's). ``feedback``: on which of them the loop runs: ``all``,
    ``none``, ``first-4``, ``last-4``, ``paper-4`` or 0-based numbers joined by commas in YAML (dots on the command line).
    ``checkpoint``: a folder with config.json and safetensors (default: ``ilf`` inside the pipeline's folder).
    """

    steps: int | None = None
    feedback: str = "all"
    checkpoint: str | None = None

    @property
    def label(self) -> str:
        """For example ``ilf(10 steps)``."""
        parts = [f"{self.steps} steps"] if self.steps else []
        parts += [f"feedback={self.feedback}"] if self.feedback != "all" else []
        parts += [Path(self.checkpoint).name] if self.checkpoint else []
        return f"ilf({', '.join(parts)})" if parts else "ilf"

    def plan(self, plan: Plan) -> Plan:
        """A feedback step costs depth + looped + 1 block evaluations, on one branch where guidance is folded."""
        config = read_config(find_checkpoint(self.checkpoint, plan.backbone.folder))
        steps = self.steps or config["steps"]
        depth, looped = plan.backbone.depth, config["last"] - config["first"] + 1
        plain = plan.steps[0]
        branches = 1 if config["folded"] else plain.branches
        chosen = feedback_steps(self.feedback, steps)
        costs = tuple(StepCost(branches, depth + looped + 1) if i in chosen else plain for i in range(steps))
        return replace(plan, steps=costs)

    def ledger(self, backbone: Backbone) -> Ledger:
        """Training seconds from the record beside the weights (0 where there is none) and the module's parameters."""
        folder = find_checkpoint(self.checkpoint, backbone.folder)
        record = folder / "training.json"
        seconds = float(read_json(record)["seconds"]) if record.exists() else 0.0
        return Ledger(seconds, sum(parameter.numel() for parameter in load_module(folder).parameters()))

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Loop the blocks and fold the guidance inside the context, with the step count and solver of the checkpoint."""
        folder = find_checkpoint(self.checkpoint, pipeline.folder)
        module = load_module(folder).to(pipeline.device, next(pipeline.transformer.parameters()).dtype)
        check_fits(module, pipeline, folder)
        steps = self.steps or module.config.steps
        with pipeline.sampling(steps=steps, solver=module.config.solver), attach_module(pipeline, module, self.feedback):
            yield


@contextmanager
def attach_module(pipeline: Pipeline, module: FeedbackModule, feedback: str = "all") -> Iterator[None]:
    """Attach a module that is already in memory; the pipeline's step count and solver stay as they are."""
    if module.config.folded and pipeline.guidance != module.config.guidance:
        raise UsageError(
            expected=f"guidance {module.config.guidance}, which this module has folded into its output",
            got=f"guidance {pipeline.guidance}", remedy="set that guidance, or use a module that was trained for yours",
        )  # fmt: skip
    loop = InnerLoop(pipeline.transformer, module)
    forward = _step_forward(pipeline, loop, feedback_steps(feedback, pipeline.steps))
    count = pipeline.counter.counting(module.block) if pipeline.counter else nullcontext()
    with ExitStack() as stack:
        stack.enter_context(count)
        stack.enter_context(loop.hooked())
        stack.enter_context(patched(pipeline.transformer, "forward", forward))
        yield


def _step_forward(pipeline: Pipeline, loop: InnerLoop, chosen: frozenset[int]) -> Callable[..., Any]:
    """The transformer's forward: a plain call on plain steps, the folded or doubled call with the loop on the others."""
    forward = pipeline.transformer.forward
    folded = bool(loop.module.config.folded) and pipeline.guidance > 1

    def call(hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        if pipeline.clock.step not in chosen:
            return forward(hidden_states, **kwargs)
        rows = hidden_states.shape[0]
        if folded:
            hidden_states = conditional_half(hidden_states, rows, pipeline.conditional_first)
            kwargs = conditional_half(kwargs, rows, pipeline.conditional_first)
        t, t_next = (
            torch.full((hidden_states.shape[0],), x, device=hidden_states.device)
            for x in (pipeline.clock.t, pipeline.clock.t_next)
        )
        loop.jump = (t, t_next)
        try:
            output = forward(hidden_states, **kwargs)
        finally:
            loop.jump = None
        return for_both_halves(output) if folded else output

    return call


ILF_METHODS: MethodTable = {"ilf": Ilf}
