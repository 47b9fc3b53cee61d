"""A diffusers pipeline with everything a method may take hold of: scheduler, blocks, step clock, block counter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from harness.config.solvers import OWN, model_calls, solver_steps
from harness.config.spec import PRECISION_OF
from harness.cost.flops import Geometry
from harness.cost.guidance import Guidance
from harness.cost.memory import Offload
from harness.cost.plan import Backbone, Plan
from harness.models.families.base import ModelCall, backbone_of
from harness.models.families.table import described, family_of
from harness.sampling.clock import StepClock
from harness.sampling.compiling import compiled
from harness.sampling.counting import BlockCounter
from harness.sampling.encoded import EncodedPrompts
from harness.sampling.images import Decoded, set_decoder
from harness.sampling.noise import generators
from harness.sampling.patching import patched
from harness.sampling.precision import autocast, resolve
from harness.sampling.process import Process, is_flow
from harness.sampling.residency import Residency
from harness.sampling.schedulers.bespoke import guidance_terms
from harness.sampling.schedulers.flow import set_steps
from harness.sampling.schedulers.represent import replaced
from harness.sampling.schedulers.solver_table import SolverTable
from harness.sampling.settling import settle, settle_scheduler
from harness.sampling.sites import Site, list_sites
from harness.sampling.solvers import build_bespoke, build_solver, on_timesteps

REMEDY = {"float16": "--dtype bfloat16", "bfloat16": "--dtype float32"}  # where values overflow; others compute in --precision
BlocksRun = Literal["eager", "compiled", "captured"]


class Pipeline:
    """One diffusers pipeline of a known family and the settings of the full run.

    ``prompts`` are captions, or class names (as in ``pipe.labels``) or decimal class indices. ``guidance`` is the scale of the
    preset, ``true_guidance`` that of the second branch where the model is told the first; ``height`` and ``width`` are pixels (0:
    the model's own). A method changes ``steps``, ``solver`` or the blocks inside its context only. Weights in float32 are
    computed with in ``precision`` (autocast); others as they are, and the starting noise is then drawn in their dtype. ``notes``
    are sentences for the record of a run. ``compile``: see :meth:`compiled`. ``decode_dtype`` and ``decode_tiled``: see
    :func:`harness.sampling.images.set_decoder`; ``offload``: see :class:`Residency`.
    """

    weights = ""  # names those that a method has put in the place of the model's own

    def __init__(
        self,
        pipe: Any,
        *,
        folder: Path | None = None,
        own_transformer: Path | None = None,
        steps: int = 20,
        guidance: float = 1.5,
        true_guidance: float = 1.0,
        negative_prompt: str = "",
        height: int = 0,
        width: int = 0,
        solver: str = "dpm++",
        precision: str = "auto",
        device: str = "cpu",
        notes: tuple[str, ...] = (),
        compile: bool = False,
        decode_dtype: str = "auto",
        decode_tiled: bool = False,
        offload: Offload = "none",
    ) -> None:
        self.pipe, self.family = pipe, family_of(type(pipe).__name__)
        self.decode_dtype = set_decoder(pipe.vae, decode_dtype, decode_tiled)
        self.residency = Residency(pipe, device, offload)
        self.pipe.set_progress_bar_config(disable=True)
        settle(self.pipe)
        self.folder, self.own_transformer = folder, own_transformer
        self.described = described(pipe, height, width)
        self.steps, self.device, self.negative_prompt = model_calls(solver, steps), device, negative_prompt
        self.guidance: Guidance = self.family.guidance(self.described.configs, guidance, true_guidance)
        self.dtype = str(next(pipe.transformer.parameters()).dtype).removeprefix("torch.")
        self.precision = PRECISION_OF.get(self.dtype) or resolve(precision, device)
        self.own_scheduler = pipe.scheduler
        self.solver = solver
        self.timesteps: tuple[int, ...] = ()
        self.pipe.scheduler = self.build_solver(solver)
        note = "" if solver == OWN else replaced(solver, self.pipe.scheduler, self.own_scheduler)
        self.notes = (*notes, note) if note else notes
        self.clock = StepClock()
        self.counter: BlockCounter | None = None
        self.generators: list[torch.Generator] = []  # of the present call, one per image
        self.compile = compile
        self.blocks_run: BlocksRun = "eager"
        self.encoded: EncodedPrompts | None = None  # takes prompts from there, see :meth:`keeping_prompts`
        self.converted: Callable[[], None] = lambda: None  # called when images are uint8 and not yet on the host

    @property
    def arithmetic(self) -> str:
        """For the record: ``bf16`` is autocast over float32 weights, ``bf16 weights`` is not; their times do not compare."""
        name = self.precision if self.dtype == "float32" else f"{self.precision} weights"
        words = [name, "compiled" if self.compile else "", f"decoded {self.decode_dtype}" if self.decode_dtype else ""]
        return ", ".join(word for word in words if word)

    @property
    def is_class_conditional(self) -> bool:
        """Whether its prompts are classes."""
        return self.family.task == "class"

    @property
    def transformer(self) -> nn.Module:
        """The denoiser."""
        return self.pipe.transformer  # type: ignore[no-any-return]

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks in the order in which they run; :attr:`sites` also say how each is called."""
        return [block for segment in self.family.segments for block in getattr(self.pipe.transformer, segment.blocks)]

    @property
    def sites(self) -> list[Site]:
        """The blocks where they stand."""
        geometry = self.geometry
        return list_sites(self.transformer, self.family, geometry.blocks, geometry.weights, geometry.shares)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one sample's latent, as the scheduler steps it."""
        return self.family.latent(self.described)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        side = self.family.side(self.described)
        return self.described.height or side, self.described.width or side

    @property
    def caption_tokens(self) -> int:
        """The longest caption in tokens; 0 for classes."""
        return self.family.caption_tokens(self.described)

    @property
    def process(self) -> Process:
        """The noising process that the model was trained for."""
        return Process.of(self.own_scheduler)

    def plan(self) -> Plan:
        """The cost of the plain run."""
        plan = Plan.full(self.backbone, solver_steps(self.solver, self.steps), self.guidance, self.solver)
        return replace(plan, timesteps=self.timesteps)

    @property
    def backbone(self) -> Backbone:
        """What a cost prediction needs to know of the model."""
        known = backbone_of(self.family, self.described, self.folder)
        return replace(known, own_transformer=self.own_transformer, weights=self.weights)

    @property
    def geometry(self) -> Geometry:
        """What the transformer costs at this size and caption length."""
        return self.backbone.geometry

    def sites_of(self, transformer: Any) -> list[Site]:
        """The blocks of another transformer in the place of this one, and their worth in mean blocks of this one."""
        here, there = self.geometry, self.backbone.like(dict(transformer.config))
        weights = [here.worth(block) for block in there.blocks]
        shares = [block.shares(here.mean) for block in there.blocks]
        return list_sites(transformer, self.family, there.blocks, weights, shares)

    def predict(self, sample: torch.Tensor, t: torch.Tensor, conditioning: dict[str, Any]) -> torch.Tensor:
        """The transformer called outside the pipeline: its prediction float32 [rows, ...] at timesteps [rows] of the scheduler.

        ``sample`` [rows, ...]; ``conditioning``: its other arguments. Learned variances are cut off. Gradients flow.
        """
        io = self.family.call
        with autocast(self.precision, self.device):
            prediction = io.run(self.transformer, ModelCall(sample, io.time(t), conditioning))
        return without_variances(prediction, sample).float()

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
            wanted = solver or self.solver
            self.steps = len(timesteps or ()) or model_calls(wanted, steps or solver_steps(self.solver, self.steps))
            if solver is not None or timesteps or self.timesteps:
                self.solver, self.timesteps = wanted, tuple(timesteps or ())
                free = "euler" if wanted == OWN and timesteps and is_flow(self.own_scheduler.config) else wanted
                self.pipe.scheduler = self.build_solver(free)
            if timesteps:
                on_timesteps(self.pipe.scheduler, timesteps)
            yield
        finally:
            self.steps, self.solver, self.timesteps, self.pipe.scheduler = before

    def build_solver(self, name: str) -> Any:
        """A fresh scheduler by its name, for this model."""
        return settle_scheduler(build_solver(name, self.own_scheduler, self.family.sigmas))

    def stepper(self) -> Any:
        """A fresh scheduler of this solver on the timesteps of a run, for steps that are taken outside the pipeline."""
        scheduler, steps = self.build_solver(self.solver), solver_steps(self.solver, self.steps)
        mu = self.family.mu(self.own_scheduler.config, self.geometry.tokens, steps)
        set_steps(scheduler, steps, self.family.sigmas(steps), mu)
        return scheduler

    @contextmanager
    def _learned(self, table: SolverTable) -> Iterator[None]:
        scheduler = build_bespoke(table, self.own_scheduler)
        before = self.steps, self.timesteps, self.pipe.scheduler
        terms = guidance_terms(self, scheduler) if self.guidance.on else nullcontext()
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
        counter = BlockCounter()
        with counter.counting(self.sites), patched(self, "counter", counter):
            yield counter

    def keeping_prompts(self, encoded: EncodedPrompts | None) -> AbstractContextManager[None]:
        """Take prompts inside the context from those that are encoded; not where the text stage is timed."""
        return patched(self, "encoded", encoded)

    def generate(self, prompts: Sequence[str], seed: int, indices: Sequence[int]) -> torch.Tensor:
        """Images uint8 [B, 3, H, W] on the CPU, each from its own noise keyed by (seed, index).

        Raises :class:`ArtifactError` where the pipeline produced a value that is not finite, and :class:`UsageError` on prompts
        or step counts that the pipeline does not take.
        """
        decoded = Decoded()
        with decoded.kept(self.pipe.vae, exact=self.decode_dtype != ""):
            self._call(prompts, generators(seed, indices))
        with torch.no_grad():
            remedy = f"check the weights, or sample with {REMEDY.get(self.dtype, '--precision fp32')}"
            return decoded.on_host(remedy, self.converted)

    def encode(self, prompts: Sequence[str]) -> None:
        """Do the text stage of a call of these prompts, and nothing else; what is encoded is kept where :meth:`keeping_prompts`
        says. Nothing is done for classes."""
        if not hasattr(self.pipe, "encode_prompt"):
            return
        with suppress(_Encoded):
            self._call(prompts, generators(0, range(len(prompts))), text_only=True)

    def _call(self, prompts: Sequence[str], noise: list[torch.Generator], text_only: bool = False) -> None:
        """Call the diffusers pipeline."""
        arguments: dict[str, Any] = {
            "generator": noise,
            "num_inference_steps": solver_steps(self.solver, self.steps),
            "output_type": "np",
            **self.family.arguments(self, prompts),
        }
        if self.described.height or self.described.width:
            arguments["height"], arguments["width"] = self.image_size
        mixed = self.precision if self.dtype == "float32" else "fp32"
        encoded = self.encoded if self.encoded and self.encoded.applies else None
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(autocast(mixed, self.device))
            stack.enter_context(self.residency.encoding())
            if encoded is not None:
                stack.enter_context(encoded.used(self.device))
            if text_only:
                stack.enter_context(patched(self.pipe, "encode_prompt", _ending(self.pipe.encode_prompt)))
            stack.enter_context(self.residency.following())
            stack.enter_context(self.clock.following(self.pipe.scheduler, self.device))
            stack.enter_context(self.clock.counting_calls(self.transformer))
            stack.enter_context(patched(self, "generators", noise))
            self.pipe(**arguments)


class _Encoded(Exception):
    """The text stage is done, and nothing else is wanted."""


def _ending(encode: Callable[..., Any]) -> Callable[..., Any]:
    def ending(*args: Any, **kwargs: Any) -> Any:
        encode(*args, **kwargs)
        raise _Encoded

    return ending


def without_variances(prediction: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """The prediction of the sample's own channels [rows, channels, ...]: some models append variances."""
    return prediction[:, : sample.shape[1]]
