"""What a family's file says: its blocks and their streams, its calls, its guidance, its shapes. Plain data and small functions.

Everything else in the project works on these facts alone. docs/add-a-family.md shows how to write one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from harness.cost.flops import Geometry
from harness.cost.guidance import Guidance
from harness.cost.plan import Backbone
from harness.models.architecture import Architecture, Tiny
from harness.sampling.process import mu_of, shift_of

MIDDLE_STEPS = 20  # for which a shift is told where it depends on the step count
State = tuple[torch.Tensor, ...]  # what goes from block to block, [rows, tokens, width] each: image stream, then caption's if any
Conditioning = dict[str, Any]  # every other argument of a block
Configs = Mapping[str, Mapping[str, Any]]  # the config.json of each part of a pipeline by its name; "pipeline": its own settings


_ARGUMENTS: dict[type, tuple[str, ...]] = {}


def _arguments(module: nn.Module) -> tuple[str, ...]:
    """The names of the arguments of a module's forward, in order."""
    kind = type(module)
    if kind not in _ARGUMENTS:
        _ARGUMENTS[kind] = tuple(inspect.signature(kind.forward).parameters)[1:]
    return _ARGUMENTS[kind]


def named(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call of ``module`` by name."""
    return dict(zip(_arguments(module), args, strict=False)) | dict(kwargs)


@dataclass(frozen=True)
class Segment:
    """One list of blocks and how they are called.

    ``inputs``: the arguments that are streams, the image's first; ``outputs``: where a block's output tuple holds each of them,
    or nothing where it returns one tensor. A block may return None for the caption's stream, which then ends there. ``shared``:
    arguments that have no row for each image. ``enter``: what the streams of the list before become where this one begins.
    ``depth``: the setting of the transformer that counts them. ``build`` makes a fresh block from ``settings``, and ``settings``
    takes these from the transformer's config, for the block of a number (1-based) in this list. ``modulated``: what the
    attention of a block reads, its normed, scaled and shifted image stream. ``leaving``: how many streams leave a block of some
    settings. ``image``: where the image's tokens stand in the image stream, given their number and that of all; the rest are
    captions that were joined. ``timed``: what the block at a place (0-based) in this list takes of the family's
    ``conditioning_at``, given the transformer.
    """

    blocks: str
    build: Callable[[dict[str, Any]], nn.Module]
    settings: Callable[[Mapping[str, Any], int], dict[str, Any]]
    modulated: Callable[[Any, State, Conditioning], torch.Tensor]
    depth: str = "num_layers"
    inputs: tuple[str, ...] = ("hidden_states",)
    outputs: tuple[int, ...] = ()
    shared: frozenset[str] = frozenset()
    enter: Callable[[State], State] = lambda state: state
    leaving: Callable[[Mapping[str, Any]], int] | None = None
    image: Callable[[int, int], slice] = lambda tokens, all_tokens: slice(None)
    timed: Callable[[Any, Conditioning, int], Conditioning] = lambda transformer, timed, place: timed

    def of_image(self, state: State, tokens: int) -> torch.Tensor:
        """The image's ``tokens`` of the image stream, [rows, tokens, width]."""
        return state[0][:, self.image(tokens, state[0].shape[1])]

    def with_image(self, state: State, image: torch.Tensor) -> State:
        """The image stream with others in the place of the image's tokens. The caption's stream ends: what the image's tokens are
        given from outside is what leaves the last block."""
        stream = state[0]
        start, stop, _ = self.image(image.shape[1], stream.shape[1]).indices(stream.shape[1])
        if stop - start == stream.shape[1]:
            return (image,)
        return (torch.cat([stream[:, :start], image, stream[:, stop:]], dim=1),)

    def streams(self, settings: Mapping[str, Any]) -> int:
        """How many streams leave a block of these settings."""
        return self.leaving(settings) if self.leaving else max(1, len(self.outputs))

    def read(self, block: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[State, Conditioning]:
        """The streams that a call of ``block`` brings, and everything else."""
        told = named(block, args, kwargs)
        return tuple(told.pop(name) for name in self.inputs), told

    def run(self, forward: Callable[..., Any], state: State, conditioning: Conditioning) -> State:
        """The streams after a block whose forward is ``forward``."""
        output = forward(**dict(zip(self.inputs, state, strict=False)), **conditioning)
        if not self.outputs:
            return (output,)
        return tuple(output[i] for i in self.outputs if output[i] is not None)

    def give(self, state: State) -> Any:
        """The streams as a block returns them."""
        if not self.outputs:
            return state[0]
        found: list[torch.Tensor | None] = [None] * len(self.outputs)
        for place, stream in zip(self.outputs, state, strict=False):
            found[place] = stream
        return tuple(found)


@dataclass(frozen=True)
class ModelCall:
    """One call of a transformer: ``sample`` [rows, ...] noisy latents, ``time`` as the model is told it, and the rest."""

    sample: torch.Tensor
    time: Any
    conditioning: Conditioning


@dataclass(frozen=True)
class ModelIO:
    """How the pipeline calls the transformer: the names of its two main arguments, and what they mean.

    ``time``: the model's time from the scheduler's timesteps. ``sign``: -1 where the pipeline negates what the model returns.
    ``shared``: arguments that have no row for each image. ``listed``: samples and predictions are lists of one image each,
    [channels, 1, height, width]. ``masks``: arguments [rows, tokens, width] that are only as long as the longest caption of a
    batch, each with the name of the argument [rows, tokens] that says which of its tokens are real (None: all).
    """

    sample: str = "hidden_states"
    timestep: str = "timestep"
    time: Callable[[torch.Tensor], torch.Tensor] = lambda t: t
    sign: int = 1
    shared: frozenset[str] = frozenset()
    listed: bool = False
    masks: Mapping[str, str] = field(default_factory=dict)

    def read(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[ModelCall, bool]:
        """A call of ``model``, and whether its answer is wanted as a dataclass."""
        told = named(model, args, kwargs)
        as_object = bool(told.pop("return_dict", True))
        return ModelCall(self._joined(told.pop(self.sample)), told.pop(self.timestep), told), as_object

    def run(self, forward: Callable[..., Any], call: ModelCall) -> torch.Tensor:
        """The prediction [rows, ...] of a transformer whose forward is ``forward``, with the scheduler's sign."""
        told = {self.sample: self._apart(call.sample), self.timestep: call.time, **call.conditioning}
        output = self._joined(forward(**told, return_dict=False)[0])
        return output if self.sign > 0 else -output

    def give(self, prediction: torch.Tensor, as_object: bool) -> Any:
        """The prediction as the transformer returns it."""
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        output = self._apart(prediction if self.sign > 0 else -prediction)
        return Transformer2DModelOutput(sample=output) if as_object else (output,)

    def _joined(self, images: Any) -> torch.Tensor:
        """Images of the transformer as one tensor [rows, ...]."""
        return torch.stack(list(images)).squeeze(2) if self.listed else images

    def _apart(self, images: torch.Tensor) -> Any:
        """One tensor as the transformer's images."""
        return list(images.unsqueeze(2).unbind()) if self.listed else images


@dataclass(frozen=True)
class Described:
    """A pipeline before a weight is loaded: the name of its class, the configs of its parts, the longest text of each of its
    tokenizers in tokens, and the size of its images in pixels (0: the model's own)."""

    pipeline: str
    configs: Configs
    limits: Mapping[str, int] = field(default_factory=dict)
    height: int = 0
    width: int = 0

    @property
    def transformer(self) -> Mapping[str, Any]:
        """The transformer's config."""
        return self.configs["transformer"]

    @property
    def scale(self) -> int:
        """Pixels of an image for each of its latent's, in height and in width."""
        vae = self.configs["vae"]
        if "temperal_downsample" in vae:  # autoencoders made for videos, too
            return int(2 ** len(vae["temperal_downsample"]))
        widths = vae["encoder_block_out_channels"] if "encoder_block_out_channels" in vae else vae["block_out_channels"]
        return int(2 ** (len(widths) - 1))

    def longest(self, limit: int, tokenizer: str = "tokenizer") -> int:
        """The longest text in tokens: the published limit, or the tokenizer's where that is shorter."""
        return min(limit, self.limits.get(tokenizer, limit))


@dataclass(frozen=True)
class Usual:
    """The steps and the guidance scale that a model is published with."""

    steps: int
    guidance: float


Arguments = Callable[[Any, Sequence[str]], dict[str, Any]]  # of a pipeline (harness.sampling.pipeline) and its prompts


@dataclass(frozen=True)
class Family:
    """The facts of one family. ``pipelines``: names of diffusers' classes, the first of which its own folders have.

    ``guidance``: from the pipeline's configs, the scale of the preset and its ``true_guidance``. ``arguments``: of a call of the
    pipeline, beside steps, noise and size. ``caption_tokens``: the longest caption, 0 for class labels. ``latent``: the shape of
    one image's noise as the scheduler steps it, a grid [channels, height, width] or packed [tokens, channels]. ``geometry``:
    what everything costs. ``conditioning_at``: the arguments of blocks that depend on the time, at the times [rows] of the
    scheduler, for the model's call that they belong to; a block takes those of its kind. ``sigmas``: what the pipeline of a
    flow-matching model passes to its scheduler for a step count, before any shift; None: nothing. ``mu``: what it tells a
    scheduler that shifts by resolution, from the scheduler's config, the image's tokens and the steps. ``fits``: which settings
    of its parts must agree with the transformer's, as (part, its setting, the transformer's); ``expects``: settings of the
    transformer that these facts hold for.
    ``usual``: what a run without a preset takes, from the pipeline's configs. ``side``: height and width of its images in pixels
    where none is asked for; ``any_size``: whether another may be. ``negative``: whether a negative prompt may be, too.
    ``written``: a prompt as a diffusers pipeline gives it to its tokenizers, where it puts it into a conversation.
    ``without_numbers``: a context in which the code of a pipeline (harness.sampling.pipeline) reads no number of a tensor.
    ``patches``: the side of a token in a grid of latents (0: they are packed, one vector a token) and their channels.
    ``architectures``: published ones, for ``random:NAME``. ``tiny``: what makes any of these small, for ``random:NAME:tiny``.
    """

    name: str
    title: str
    pipelines: tuple[str, ...]
    task: Literal["class", "text"]
    segments: tuple[Segment, ...]
    guidance: Callable[[Configs, float, float], Guidance]
    arguments: Arguments
    latent: Callable[[Described], tuple[int, ...]]
    geometry: Callable[[Described], Geometry]
    conditioning_at: Callable[[Any, ModelCall, torch.Tensor], Conditioning]
    call: ModelIO = ModelIO()
    caption_tokens: Callable[[Described], int] = lambda model: 0
    sigmas: Callable[[int], Sequence[float] | None] = lambda steps: None
    fits: tuple[tuple[str, str, str], ...] = ()
    expects: Mapping[str, Any] = field(default_factory=dict)
    mu: Callable[[Mapping[str, Any], int, int], float | None] = lambda config, tokens, steps: mu_of(config, tokens)
    side: Callable[[Described], int] = lambda model: int(model.transformer["sample_size"]) * model.scale
    usual: Callable[[Configs], Usual] = lambda configs: Usual(20, 4.5)
    any_size: bool = True
    negative: bool = True
    written: Callable[[Any, str], str] = lambda pipe, prompt: prompt
    without_numbers: Callable[[Any], AbstractContextManager[None]] = lambda pipeline: nullcontext()
    patches: Callable[[Mapping[str, Any]], tuple[int, int]] = lambda config: (config["patch_size"], config["in_channels"])
    architectures: Mapping[str, Architecture] = field(default_factory=dict)
    tiny: Tiny = field(default_factory=Tiny)

    def place(self, config: Mapping[str, Any], number: int) -> tuple[int, int]:
        """The list (0-based) of the block of a number, and its number in it; both numbers 1-based."""
        for i, segment in enumerate(self.segments):
            count = int(config[segment.depth])
            if number <= count:
                return i, number
            number -= count
        raise KeyError(f"block {number} behind the last")

    def block_settings(self, config: Mapping[str, Any], number: int) -> dict[str, Any]:
        """The settings from which a block like that of a number (1-based) is built."""
        segment, place = self.place(config, number)
        return self.segments[segment].settings(config, place)

    def misfits(self, configs: Configs) -> list[str]:
        """Settings of the transformer that its base, or these facts, need otherwise."""
        config = configs["transformer"]
        wanted = dict(self.expects)
        for part, theirs, ours in self.fits:
            value = configs.get(part, {}).get(theirs)
            if value is not None:
                wanted[ours] = value
        wrong = {key: value for key, value in wanted.items() if config.get(key, value) != value}
        return [f"{key} {config[key]} where the base needs {value}" for key, value in wrong.items()]


def backbone_of(family: Family, model: Described, folder: Path | None) -> Backbone:
    """What a cost prediction needs of a pipeline. Raises :class:`KeyError` and the like on a config of another family."""
    geometry = family.geometry(model)

    def reshaped(config: Mapping[str, Any], scale: float) -> Geometry:
        other = replace(model, configs={**model.configs, "transformer": config})
        if scale != 1:
            side = family.side(model)
            height, width = model.height or side, model.width or side
            other = replace(other, height=round(height * scale), width=round(width * scale))
        return family.geometry(other)

    config, tokens = model.configs.get("scheduler", {}), geometry.tokens
    shift = shift_of(config, family.mu(config, tokens, MIDDLE_STEPS))
    own = None if shift is None else partial(own_timesteps, family, config, tokens)
    return Backbone(geometry.depth, folder, geometry, model.transformer, family.name, reshaped, shift=shift, own_timesteps=own)


def own_timesteps(
    family: Family, config: Mapping[str, Any], tokens: int, steps: int, trailing: bool = False
) -> tuple[float, ...]:
    """The timesteps that a flow-matching checkpoint's own scheduler makes for images of so many tokens; ``trailing`` as in
    :meth:`harness.sampling.schedulers.flow.FlowGrid.make`."""
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    from harness.sampling.schedulers.flow import FlowGrid

    kind = DPMSolverMultistepScheduler if "beta_start" in config else FlowMatchEulerDiscreteScheduler
    grid = FlowGrid(kind.from_config(dict(config)), family.sigmas)
    _, timesteps = grid.make(steps, None, family.mu(config, tokens, steps), trailing)
    return tuple(timesteps.tolist())
