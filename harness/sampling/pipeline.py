"""A diffusers pipeline with everything a method may take hold of: scheduler, blocks, step clock, block counter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DiTPipeline, PixArtAlphaPipeline
from torch import nn

from harness.config.spec import PRECISION_OF
from harness.cost.macs import CAPTION_TOKENS, BlockMacs, block_macs
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from harness.sampling.clock import StepClock
from harness.sampling.compiling import compiled
from harness.sampling.counting import BlockCounter
from harness.sampling.images import Decoded
from harness.sampling.noise import generators
from harness.sampling.patching import patched
from harness.sampling.precision import autocast, resolve
from harness.sampling.schedulers.bespoke import SolverTable, guidance_terms
from harness.sampling.solvers import build_bespoke, build_solver, on_timesteps

REMEDY = {"float16": "--dtype bfloat16", "bfloat16": "--dtype float32"}  # where values overflow; others compute in --precision
BlocksRun = Literal["eager", "compiled", "captured"]


class Pipeline:
    """One text-to-image (PixArt) or class-to-image (DiT) pipeline and the settings of the full run.

    ``prompts`` are captions for PixArt and class names (as in ``pipe.labels``) or decimal class indices for DiT.
    A method changes ``steps``, ``solver`` or the blocks inside its context only. Weights in float32 are computed with in
    ``precision`` (autocast); others as they are, and the starting noise is then drawn in their dtype. ``notes`` are
    sentences for the record of a run. ``compile``: see :meth:`compiled`.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        folder: Path | None = None,
        steps: int = 20,
        guidance: float = 1.5,
        solver: str = "dpm++",
        precision: str = "auto",
        device: str = "cpu",
        notes: tuple[str, ...] = (),
        compile: bool = False,
    ) -> None:
        self.pipe = pipe.to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.folder = folder
        self.steps, self.guidance, self.device = steps, guidance, device
        self.notes = notes
        self.dtype = str(next(pipe.transformer.parameters()).dtype).removeprefix("torch.")
        self.precision = PRECISION_OF.get(self.dtype) or resolve(precision, device)
        self.own_scheduler = pipe.scheduler
        self.solver = solver
        self.timesteps: tuple[int, ...] = ()
        self.pipe.scheduler = build_solver(solver, self.own_scheduler)
        self.clock = StepClock()
        self.counter: BlockCounter | None = None
        self.compile = compile
        self.blocks_run: BlocksRun = "eager"
        self.converted: Callable[[], None] = lambda: None  # called when images are uint8 and not yet on the host

    @property
    def arithmetic(self) -> str:
        """For the record: ``bf16`` is autocast over float32 weights, ``bf16 weights`` is not; their times do not compare."""
        name = self.precision if self.dtype == "float32" else f"{self.precision} weights"
        return f"{name}, compiled" if self.compile else name

    @property
    def is_class_conditional(self) -> bool:
        """True for DiT, False for PixArt."""
        return isinstance(self.pipe, DiTPipeline)

    @property
    def transformer(self) -> nn.Module:
        """The denoiser."""
        return self.pipe.transformer  # type: ignore[no-any-return]

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks in order; each is called ``block(hidden_states, **kwargs)`` and returns one tensor."""
        return list(self.pipe.transformer.transformer_blocks)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample's latent."""
        config = self.pipe.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def conditional_first(self) -> bool:
        """DiT's guidance batch is [conditional, null]; PixArt's is [null, conditional]."""
        return self.is_class_conditional

    def plan(self) -> Plan:
        """The cost of the plain run."""
        backbone = Backbone(len(self.blocks), self.folder, self.macs(), dict(self.pipe.transformer.config))
        return replace(Plan.full(backbone, self.steps, self.guidance, self.solver), timesteps=self.timesteps)

    def macs(self, transformer: nn.Module | None = None) -> BlockMacs:
        """What a block of this transformer, or of another in its place, costs at this latent size and caption length."""
        config: Any = (transformer or self.transformer).config
        return block_macs(config, 0 if self.is_class_conditional else self._max_tokens(), self.latent_shape[1])

    @contextmanager
    def sampling(
        self,
        *,
        steps: int | None = None,
        solver: str | None = None,
        timesteps: Sequence[int] | None = None,
        table: SolverTable | None = None,
    ) -> Iterator[None]:
        """Use another step count or solver, or timesteps of one's own (high to low), or a learned solver, inside the context.

        Enter it with a learned solver after whatever else changes the transformer: its guidance terms come last.
        """
        if table is not None:
            with self._learned(table):
                yield
            return
        before = self.steps, self.solver, self.timesteps, self.pipe.scheduler
        try:
            self.steps = len(timesteps) if timesteps else steps or self.steps
            if solver is not None or timesteps or self.timesteps:
                self.solver = solver or self.solver
                self.pipe.scheduler = build_solver(self.solver, self.own_scheduler)
                self.timesteps = tuple(timesteps or ())
            if timesteps:
                on_timesteps(self.pipe.scheduler, timesteps)
            yield
        finally:
            self.steps, self.solver, self.timesteps, self.pipe.scheduler = before

    @contextmanager
    def _learned(self, table: SolverTable) -> Iterator[None]:
        scheduler = build_bespoke(table, self.own_scheduler)
        before = self.steps, self.timesteps, self.pipe.scheduler
        terms = guidance_terms(self.pipe, scheduler, self.clock, self.conditional_first) if self.guidance > 1 else nullcontext()
        try:
            self.steps, self.timesteps, self.pipe.scheduler = len(table.timesteps), table.timesteps, scheduler
            with terms:
                yield
        finally:
            self.steps, self.timesteps, self.pipe.scheduler = before

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Run the blocks compiled inside the context, where ``compile`` asks for it. Enter it before a method is attached.

        Work is timed in it, and counted outside: a counter changes the blocks from inside, which would compile them again.
        """
        if not self.compile:
            yield
            return
        with compiled(self.blocks), self.running("compiled"):
            yield

    def running(self, how: BlocksRun) -> AbstractContextManager[None]:
        """Note inside the context how the blocks run: compiled and captured ones run whole, whatever the step."""
        return patched(self, "blocks_run", how)

    def compiling(self, *blocks: nn.Module) -> AbstractContextManager[None]:
        """Run blocks that a method adds compiled inside the context, where the pipeline's own are."""
        return compiled(blocks) if self.blocks_run == "compiled" else nullcontext()

    @contextmanager
    def counting(self) -> Iterator[BlockCounter]:
        """Count block evaluations. Enter it before a method is attached, so that only real work is counted."""
        counter = BlockCounter(self.macs())
        with counter.counting(*self.blocks), patched(self, "counter", counter):
            yield counter

    def generate(self, prompts: Sequence[str], seed: int, indices: Sequence[int]) -> torch.Tensor:
        """Images uint8 [B, 3, H, W] on the CPU, each from its own noise keyed by (seed, index).

        Raises :class:`ArtifactError` where the pipeline produced a value that is not finite, and :class:`UsageError` on one
        step of PixArt-alpha: diffusers then takes the model for a distilled one, with another scheduler.
        """
        if self.steps < 2 and isinstance(self.pipe, PixArtAlphaPipeline):
            raise UsageError(expected="at least 2 steps for PixArt-alpha", got=str(self.steps), remedy="--steps 2")
        arguments: dict[str, Any] = {
            "generator": generators(seed, indices),
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
        }
        mixed = self.precision if self.dtype == "float32" else "fp32"
        decoded, following = Decoded(), self.clock.following(self.pipe.scheduler, self.device)
        with torch.inference_mode(), autocast(mixed, self.device), following, decoded.kept(self.pipe.vae):
            if self.is_class_conditional:
                self.pipe(class_labels=self.class_labels(prompts), output_type="np", **arguments)
            else:
                arguments["max_sequence_length"] = self._max_tokens()
                self.pipe(prompt=list(prompts), use_resolution_binning=False, clean_caption=False, output_type="np", **arguments)
        with torch.no_grad():
            remedy = f"check the weights, or sample with {REMEDY.get(self.dtype, '--precision fp32')}"
            return decoded.on_host(remedy, self.converted)

    def class_labels(self, prompts: Sequence[str]) -> list[int]:
        """Class indices of class names or decimal strings. Raises :class:`UsageError` on others and on indices too high."""
        names: dict[str, int] = self.pipe.labels
        classes = int(self.pipe.transformer.config.num_embeds_ada_norm)
        unknown = [p for p in prompts if p not in names and not (p.isdecimal() and int(p) < classes)]
        if unknown:
            known = ", ".join(list(names)[:5])
            raise UsageError(
                expected=f"class names ({known}, ...) or indices below {classes}", got=repr(unknown[0]), remedy="edit the prompts"
            )
        return [names[p] if p in names else int(p) for p in prompts]

    def _max_tokens(self) -> int:
        """The published caption length, or the tokenizer's where that is shorter (T5's own limit is 512)."""
        return min(int(self.pipe.tokenizer.model_max_length), CAPTION_TOKENS[type(self.pipe).__name__])
