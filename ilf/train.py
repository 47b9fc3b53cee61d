"""Training a feedback module on a frozen backbone, in rounds: run it, learn from where it went, run it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as recomputed

from harness.cost.plan import Backbone
from harness.errors import ArtifactError, UsageError
from harness.models.families.table import families
from harness.sampling.patching import patched
from harness.training.ahead import Ahead
from harness.training.attention import explicit_attention
from harness.training.fit import TrainRecord, TrainSettings, fit, share, step_generator
from harness.training.processes import kept_together
from harness.training.trajectories import Trajectories
from ilf.checkpoint import find_checkpoint, load_module
from ilf.loop import InnerLoop
from ilf.module import FeedbackModule
from ilf.objective import Objective
from ilf.settings import IlfSettings
from ilf.transitions import Transitions, collect

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


def module_for(backbone: Backbone, guidance: float, settings: IlfSettings) -> FeedbackModule:
    """A fresh module from resolved settings for a backbone, from scratch."""
    config, family, (_, last) = backbone.config, families()[backbone.family], settings.blocks
    patch, channels = family.patches(config)
    module: FeedbackModule = FeedbackModule(
        family.block_settings(config, last),
        settings.content(),
        guidance,
        patch,
        channels,
        family=family.name,
        segment=family.place(config, last)[0],
        width=backbone.geometry.width,
    )
    return module


def build_module(pipeline: Pipeline, settings: IlfSettings) -> FeedbackModule:
    """A module for this pipeline's backbone and guidance, not yet trained."""
    module = module_for(pipeline.backbone, pipeline.guidance.scale, settings)
    if settings.copy:
        _, last = settings.blocks
        for block, source in zip(module.blocks, pipeline.blocks[last - settings.depth : last], strict=True):
            block.load_state_dict(source.state_dict())
    return module


def seeded_module(pipeline: Pipeline, settings: IlfSettings, seed: int) -> FeedbackModule:
    """:func:`build_module` on the pipeline's device, the same for the same seed; or what the settings start from."""
    torch.manual_seed(seed)
    module: FeedbackModule = build_module(pipeline, settings).to(pipeline.device)
    if settings.start is not None:
        _start_from(module, find_checkpoint(settings.start, pipeline.folder))
    return module


def _start_from(module: FeedbackModule, folder: Path) -> None:
    """Take over the weights of a trained module. Raises :class:`UsageError` on another architecture."""
    trained = load_module(folder)
    own, given = ({name: x.shape for name, x in m.state_dict().items()} for m in (module, trained))
    if own != given or module.config.block_settings != trained.config.block_settings:
        raise UsageError(
            expected="a module of the same architecture to start from",
            got=f"{folder}, made with {trained.settings.content()}",
            remedy="choose the same loop, depth, gating and context, or another start",
        )
    module.load_state_dict(trained.state_dict())


def optimisation(settings: IlfSettings) -> TrainSettings:
    """The optimisation on single transitions."""
    steps = settings.optimiser_steps
    return TrainSettings(
        steps, settings.lr, warmup=min(100, steps // 10), ema=0.998, checkpoint_every=max(1, steps // 20), seed=settings.seed
    )


@contextmanager
def checkpointed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """The blocks keep no activations for the backward pass inside the context; it computes them again."""

    def lean(forward: Any) -> Any:
        return lambda *args, **kwargs: recomputed(forward, *args, use_reentrant=False, **kwargs)

    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(patched(block, "forward", lean(block.forward)))
        yield


def train_module(
    pipeline: Pipeline,
    data: Trajectories,
    prompts: Sequence[str],
    settings: IlfSettings,
    checkpoint: Path,
    training: TrainSettings | None = None,
    sampled: int = 64,
) -> tuple[FeedbackModule, TrainRecord]:
    """Train on trajectories of ``prompts`` recorded from noise of ``settings.seed``; the backbone is frozen and left as it was.

    ``training``: default :func:`optimisation`. One learning-rate schedule over all rounds. At the start of each round the
    module, as it then is, runs on the next ``settings.runs`` trajectories, ``sampled`` of them at once, at every step count of
    ``settings.grids``; the transitions are stored beside ``checkpoint``, so that an interrupted training goes on with the very
    same data. The record's seconds include the teacher's and the module's sampling.
    """
    training = training or optimisation(settings)
    module = seeded_module(pipeline, settings, training.seed)
    pipeline.transformer.requires_grad_(False)
    loop = InnerLoop(pipeline.transformer, pipeline.family, module)
    objective = Objective(pipeline, loop, data, settings.target, settings.teacher_steps)
    replay = ReplayBuffer(pipeline, module, data, prompts, settings, checkpoint, sampled)

    present = 0

    def drawn(generator: torch.Generator) -> torch.Tensor:
        return share(torch.randint(len(replay.transitions), (settings.batch,), generator=generator))

    def before(step: int) -> None:
        nonlocal present
        number, present = replay.number, step
        replay.enter(step, training.steps)
        if replay.number != number:
            ahead.forget()

    def loss(generator: torch.Generator) -> torch.Tensor:
        with loop.hooked():
            return objective(ahead.take(present, drawn(generator)), generator)

    ahead = _ahead(replay, drawn, training.seed, pipeline.device)
    lean = checkpointed(pipeline.blocks) if settings.gradient_checkpointing else nullcontext()
    with explicit_attention(pipeline.transformer, module), lean, closing(ahead):
        record = fit(module, loss, training, checkpoint, "ilf", before)
    return module, replace(record, seconds=record.seconds + data.seconds)


def _ahead(replay: ReplayBuffer, drawn: Callable[[torch.Generator], torch.Tensor], seed: int, device: str) -> Ahead[Transitions]:
    """The batches of the coming steps, gathered from the buffer while the device computes."""
    return Ahead(
        device,
        lambda step: drawn(step_generator(seed, step)),
        lambda index: replay.transitions.take(index).pinned(device),
    )


class ReplayBuffer:
    """The transitions of the present round and of the remembered ones before it, kept on disk."""

    def __init__(
        self,
        pipeline: Pipeline,
        module: FeedbackModule,
        data: Trajectories,
        prompts: Sequence[str],
        settings: IlfSettings,
        checkpoint: Path,
        sampled: int = 64,
    ) -> None:
        self.pipeline, self.module, self.data, self.settings = pipeline, module, data, settings
        self.prompts, self.checkpoint, self.sampled = prompts, checkpoint, sampled
        self.key = repr(settings)
        self.number = -1
        self.transitions: Transitions

    def enter(self, step: int, steps: int) -> None:
        """Make the round of ``step``, of ``steps`` in all, the present one; nothing where it already is."""
        number, past = divmod(step * self.settings.rounds, steps)
        if number == self.number:
            return
        self.number = number
        kept_rounds = range(max(0, number - self.settings.remembered + 1), number + 1)
        begins = past < self.settings.rounds  # later the module is no longer what it was when the round began
        self.transitions = Transitions.join([self._round(n, begins and n == number) for n in kept_rounds])

    def _round(self, number: int, begins: bool) -> Transitions:
        path = self.checkpoint.with_suffix(f".round-{number}.pt")
        remedy = f"delete it and {self.checkpoint} and train again, from the first step"
        if not begins and not path.exists():
            raise ArtifactError(expected=f"the transitions of round {number} at {path}", got="no such file", remedy=remedy)
        pieces = self._pieces(number)
        made = self._collected(number, list(pieces.values()))
        return Transitions(**kept_together(path, self.key, list(pieces), made, _joined, remedy))

    def _pieces(self, number: int) -> dict[str, tuple[int, torch.Tensor]]:
        """What the processes share, by name: a step count, and the trajectories (int64) that the module runs on with it."""
        runs, count = self.settings.runs, len(self.data.states)
        assert runs is not None, "resolved settings have a count"
        numbers = torch.split(torch.arange(number * runs, (number + 1) * runs), self.sampled)
        return {
            f"{steps}-steps-{some[0]}-to-{some[-1]}": (steps, some % count) for steps in self.settings.grids for some in numbers
        }

    def _collected(self, number: int, pieces: Sequence[tuple[int, torch.Tensor]]) -> Callable[[int], dict[str, Any]]:
        settings, told = self.settings, (self.data, self.prompts, self.settings.seed)
        forced = settings.forced or (settings.target == "first-order" and number == 0)

        def collected(piece: int) -> dict[str, Any]:
            steps, rows = pieces[piece]
            return vars(collect(self.pipeline, self.module, steps, *told, rows, forced=forced, batch=self.sampled))

        return collected


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return vars(Transitions.join([Transitions(**part) for part in parts]))
