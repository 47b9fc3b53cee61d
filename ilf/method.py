"""ILF as a method of the harness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.methods import MethodTable
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from harness.models.reading import read_seconds
from harness.results import UpfrontCost
from harness.sampling.schedulers.solver_table import LEARNED
from ilf.checkpoint import check_fits, find_checkpoint, load_module, read_settings
from ilf.schedule import Schedule

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class Ilf:
    """A trained feedback module on its backbone.

    ``steps``: denoising steps (default: the checkpoint's). ``feedback``: the steps on which the loop runs;
    ``guidance_distilled``: those of them on which the module stands for guidance as well and only the conditional branch runs.
    Both are ``all``, ``none``, ``odd``, ``first-4``, ``last-4``, ``paper-4``, ``above-700`` (timesteps) or 0-based step numbers
    joined by commas in YAML (dots on the command line). ``checkpoint``: a folder with config.json and safetensors, or the name of
    one inside the pipeline's folder (default: ``ilf``).
    """

    steps: int | None = None
    feedback: str | None = None
    guidance_distilled: str | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UsageError(expected="at least 1 step", got=str(self.steps), remedy="for example ilf:steps=8")

    @property
    def label(self) -> str:
        """For example ``ilf(10 steps)``."""
        parts = [f"{self.steps} steps"] if self.steps else []
        parts += [f"{name}={value}" for name in ("feedback", "guidance_distilled") if (value := getattr(self, name))]
        name = Path(self.checkpoint).name if self.checkpoint else "ilf"
        return f"{name}({', '.join(parts)})" if parts else name

    def plan(self, plan: Plan) -> Plan:
        """A feedback step costs depth + looped + 1 block evaluations on the branches that loop."""
        settings, solvers = read_settings(find_checkpoint(self.checkpoint, plan.backbone.folder))
        schedule = Schedule.of(settings, solvers, self.steps, self.feedback, self.guidance_distilled)
        solver = LEARNED if schedule.table else settings.solver
        return plan.scheduled(schedule.plan(settings, plan), solver, schedule.timesteps, loops=bool(schedule.feedback))

    def reads(self, plan: Plan) -> list[Path]:
        """The checkpoint."""
        return [find_checkpoint(self.checkpoint, plan.backbone.folder)]

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """Training seconds from the record beside the weights (0 where there is none) and the module's parameters."""
        folder = find_checkpoint(self.checkpoint, backbone.folder)
        seconds = read_seconds(folder / "training.json")
        return UpfrontCost(seconds, sum(parameter.numel() for parameter in load_module(folder).parameters()))

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Loop the blocks inside the context, on the steps, timesteps and solver of the checkpoint."""
        from ilf.attach import running

        folder = find_checkpoint(self.checkpoint, pipeline.folder)
        module = load_module(folder).to(pipeline.device, next(pipeline.transformer.parameters()).dtype)
        check_fits(module, pipeline.family, pipeline.backbone.config, str(folder))
        with running(pipeline, module, module.schedule(self.steps, self.feedback, self.guidance_distilled)):
            yield


ILF_METHODS: MethodTable = {"ilf": Ilf}
