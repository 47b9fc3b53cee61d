"""Training a feedback module on a frozen backbone, in rounds: run it, learn from where it went, run it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch.utils.checkpoint import checkpoint as recomputed

from harness.errors import ArtifactError, UsageError
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.sampling.solvers import power_grid
from harness.training.attention import explicit_attention
from harness.training.fit import TrainRecord, TrainSettings, fit, share
from harness.training.states import kept
from harness.training.trajectories import Trajectories
from ilf.jumps import Jumps, collect
from ilf.loop import InnerLoop
from ilf.module import FeedbackModule, block_settings
from ilf.objective import Objective
from ilf.schedule import Schedule, chosen_steps

TARGETS = ("jump", "jump2", "teacher-steps", "fad")


@dataclass(frozen=True)
class IlfSettings:
    """What is trained; :class:`FeedbackModule` explains the form. ``loop`` is 1-based and inclusive.

    ``target``: see :class:`Objective`, ``teacher_steps`` being its count. ``grids``: step counts in training. ``rounds``: how
    often jumps are collected anew, ``runs`` trajectories for each step count; ``forced``: from the teacher's states only.
    ``remembered``: rounds whose jumps are kept. ``gradient_checkpointing``: activations are computed again, not kept.
    ``copy``: the module starts as a copy of the blocks before the loop's end, not from scratch. ``feedback``: on which steps
    the loop runs (see :func:`ilf.schedule.chosen_steps`). ``whole_runs``: how many steps of end-to-end training follow, each
    through ``whole_batch`` whole runs of a step count out of ``whole_grids`` (default: ``grids``); then ``image_runs`` whose
    error is that of the decoded images of ``image_targets`` finer runs of the teacher, the last ``recombined`` of which have
    captions of words drawn from all captions, so that the module does not learn a few captions by heart; see
    :mod:`ilf.whole_run`.
    """

    loop: tuple[int, int]
    grids: tuple[int, ...]
    steps: int
    target: str = "jump2"
    inner_pass: bool = True
    depth: int = 1
    separate: bool = False
    gating: str = "time"
    jump_embedding: bool = True
    context: bool = True
    branches: str = "conditional"
    folded: str = "none"
    guidance_input: bool = False
    inner_time: str = "same"
    power: float = 1.0
    copy: bool = False
    feedback: str = "all"
    batch: int = 64
    rounds: int = 1
    runs: int = 256
    forced: bool = False
    remembered: int = 4
    gradient_checkpointing: bool = False
    teacher_steps: int = 2
    whole_runs: int = 0
    whole_batch: int = 32
    whole_grids: tuple[int, ...] = ()
    image_runs: int = 0
    image_targets: int = 2048
    recombined: int = 0

    @property
    def whole_counts(self) -> tuple[int, ...]:
        """The step counts of the end-to-end training."""
        return self.whole_grids or self.grids

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UsageError(expected=f"a target out of {', '.join(TARGETS)}", got=repr(self.target), remedy="edit target")
        if (self.whole_runs or self.image_runs) and self.guidance_input:  # a learned solver belongs to one scale
            raise UsageError(
                expected="one guidance scale with whole runs", got="guidance_input", remedy="set whole_runs or guidance_input"
            )
        if self.target == "teacher-steps" and self.context:
            raise UsageError(
                expected="context=False with noised data, which has no step before", got="context", remedy="edit context"
            )
        if self.target != "fad" and self.branches == "both" and self.folded != "all":
            raise UsageError(
                expected="branches=conditional, or every step folded, with a jump target",
                got="a loop on both branches",
                remedy="use target=fad for the paper's form",
            )
        if not any(chosen_steps(self.feedback, power_grid(n, self.power)) for n in self.whole_counts):
            raise UsageError(expected="a step that carries feedback", got=repr(self.feedback), remedy="edit feedback")
        if self.recombined > self.image_targets:
            raise UsageError(
                expected=f"at most all of the {self.image_targets} image_targets recombined",
                got=str(self.recombined),
                remedy="edit recombined",
            )


def paper_form(loop: tuple[int, int], grids: tuple[int, ...], steps: int) -> IlfSettings:
    """The paper's: one block from scratch, a scale a looped block, both branches, FAD at t/2, trailing timesteps."""
    return IlfSettings(
        loop, grids, steps, target="fad", gating="fixed", jump_embedding=False, context=False, branches="both", forced=True
    )


def module_for(config: Mapping[str, Any], guidance: float, settings: IlfSettings) -> FeedbackModule:
    """A fresh module for a transformer with this config, from scratch."""
    first, last = settings.loop
    solver = "dpm++1" if settings.target in ("jump", "teacher-steps") else "dpm++"
    module: FeedbackModule = FeedbackModule(
        block_settings(config),
        first,
        last,
        settings.inner_pass,
        settings.depth,
        settings.separate,
        settings.gating,
        settings.jump_embedding,
        settings.context,
        settings.branches,
        guidance,
        settings.guidance_input,
        settings.inner_time,
        solver,
        settings.power,
        list(settings.grids),
        settings.folded,
        settings.feedback,
        settings.steps,
        config["patch_size"],
        config["in_channels"],
    )
    return module


def build_module(pipeline: Pipeline, settings: IlfSettings) -> FeedbackModule:
    """A module for this pipeline's backbone and guidance, not yet trained."""
    config: Any = pipeline.transformer.config
    module = module_for(config, pipeline.guidance, settings)
    if settings.copy:
        last = settings.loop[1]
        for block, source in zip(module.blocks, pipeline.blocks[last - settings.depth : last], strict=True):
            block.load_state_dict(source.state_dict())
    return module


@contextmanager
def checkpointed(transformer: Any) -> Iterator[None]:
    """Blocks keep no activations for the backward pass inside the context; it computes them again."""

    def lean(forward: Any) -> Any:
        return lambda hidden, *args, **kwargs: recomputed(forward, hidden, *args, use_reentrant=False, **kwargs)

    with ExitStack() as stack:
        for block in transformer.transformer_blocks:
            stack.enter_context(patched(block, "forward", lean(block.forward)))
        yield


def train_module(
    pipeline: Pipeline,
    data: Trajectories,
    prompts: Sequence[str],
    seed: int,
    settings: IlfSettings,
    training: TrainSettings,
    checkpoint: Path,
) -> tuple[FeedbackModule, TrainRecord]:
    """Train on recorded trajectories of ``prompts`` and ``seed``; the backbone stays frozen and is left as it was.

    One schedule of ``training.steps`` over all rounds. At the start of each the module, as it then is, runs on the next
    ``settings.runs`` trajectories at every step count of ``settings.grids``; what it meets lies beside ``checkpoint``, so
    that a training that was killed goes on with the very same data. The record's seconds count the teacher's and the
    module's runs too.
    """
    torch.manual_seed(training.seed)
    module = build_module(pipeline, settings).to(pipeline.device)
    pipeline.transformer.requires_grad_(False)
    loop = InnerLoop(pipeline.transformer, module)
    objective = Objective(pipeline, loop, data, settings.target, settings.teacher_steps)
    rounds = Rounds(pipeline, module, data, prompts, seed, settings, checkpoint)

    def loss(generator: torch.Generator) -> torch.Tensor:
        index = torch.randint(len(rounds.jumps), (settings.batch,), generator=generator)
        with loop.hooked():
            return objective(rounds.jumps.take(share(index)), generator)

    lean = checkpointed(pipeline.transformer) if settings.gradient_checkpointing else nullcontext()
    with explicit_attention(pipeline.transformer, module), lean:
        record = fit(module, loss, training, checkpoint, "ilf", lambda step: rounds.enter(step, training.steps))
    return module, replace(record, seconds=record.seconds + data.seconds)


class Rounds:
    """The jumps of the present round and of the remembered ones before it, kept on disk."""

    def __init__(
        self,
        pipeline: Pipeline,
        module: FeedbackModule,
        data: Trajectories,
        prompts: Sequence[str],
        seed: int,
        settings: IlfSettings,
        checkpoint: Path,
    ) -> None:
        self.pipeline, self.module, self.data, self.settings = pipeline, module, data, settings
        self.prompts, self.seed, self.checkpoint = prompts, seed, checkpoint
        self.key = repr((settings, seed))
        self.number = -1
        self.jumps: Jumps

    def enter(self, step: int, steps: int) -> None:
        """Make the round of ``step``, of ``steps`` in all, the present one; nothing where it already is."""
        number, past = divmod(step * self.settings.rounds, steps)
        if number == self.number:
            return
        self.number = number
        kept_rounds = range(max(0, number - self.settings.remembered + 1), number + 1)
        begins = past < self.settings.rounds  # later the module is no longer what it was when the round began
        self.jumps = Jumps.join([self._round(n, begins and n == number) for n in kept_rounds])

    def _round(self, number: int, begins: bool) -> Jumps:
        path = self.checkpoint.with_suffix(f".round-{number}.pt")
        remedy = f"delete it and {self.checkpoint} and train again, from the first step"
        if not begins and not path.exists():
            raise ArtifactError(expected=f"what round {number} met at {path}", got="no such file", remedy=remedy)
        with PartialState().main_process_first():  # the others find the file
            return Jumps(**kept(path, self.key, lambda: vars(self._collect(number)), remedy))

    def _collect(self, number: int) -> Jumps:
        rows = torch.arange(number * self.settings.runs, (number + 1) * self.settings.runs) % len(self.data.states)
        forced = self.settings.forced or (self.settings.target == "jump" and number == 0)
        schedules = [Schedule.of(self.module.config, steps) for steps in self.settings.grids]
        return Jumps.join(
            [collect(self.pipeline, self.module, s, self.data, self.prompts, self.seed, rows, forced=forced) for s in schedules]
        )
