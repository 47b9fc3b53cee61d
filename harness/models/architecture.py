"""A pipeline with the true architecture of a published model and random weights: its parts as names of classes, and configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from harness.errors import UsageError

SEED = 20250122
NOTE = "random weights of true architecture: only speed, cost and memory mean anything"
NOTE_TINY = "every part is tiny: only that it runs means anything"
NOTE_CUT = "the transformer has {layers} blocks and the published one {published}: its speed is not the published model's"


@dataclass(frozen=True)
class Tiny:
    """What makes every architecture of a family small: settings of its ``parts``, the longest texts of its tokenizers, and the
    ``side`` of its images in pixels, where it has to be asked for."""

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    side: int = 0


@dataclass(frozen=True)
class Architecture:
    """What decides shapes and cost of a pipeline.

    ``pipeline``, ``parts`` and ``scheduler`` name classes of diffusers or transformers, which are imported when the weights are
    made. ``parts``: the class and the config of each part that has weights, the transformer first; weights are drawn in this
    order. ``others`` makes the tokenizers for texts of at most ``limits`` tokens. ``side``: height and width
    of its images in pixels. ``depth``: the settings of the transformer that count its blocks. ``remarks`` are sentences for the
    record of a run. ``asked``: the side where it is not the one that the pipeline makes unasked.
    """

    pipeline: str
    parts: Mapping[str, tuple[str, Mapping[str, Any]]]
    scheduler: tuple[str, Mapping[str, Any]]
    others: Callable[[Mapping[str, int]], dict[str, Any]]
    side: int
    limits: Mapping[str, int] = field(default_factory=dict)
    depth: tuple[str, ...] = ("num_layers",)
    remarks: tuple[str, ...] = ()
    cut_from: int = 0
    asked: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def configs(self) -> dict[str, Mapping[str, Any]]:
        """The config of each part that has weights, of the scheduler, and of the pipeline itself."""
        parts = {name: config for name, (_, config) in self.parts.items()}
        return parts | {"scheduler": dict(self.scheduler[1]), "pipeline": self.settings}

    @property
    def layers(self) -> int:
        """The number of the transformer's blocks, over all lists of them."""
        return sum(int(self.configs["transformer"][name]) for name in self.depth)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the record of a run must say."""
        cut = (NOTE_CUT.format(layers=self.layers, published=self.cut_from),) if self.cut_from else ()
        return (NOTE, *self.remarks, *cut)

    def having(self, part: str, **settings: Any) -> Architecture:
        """Other settings of one part."""
        kind, config = self.parts[part]
        return replace(self, parts={**self.parts, part: (kind, {**config, **settings})})

    def shrunk(self, tiny: Tiny) -> Architecture:
        """The same kind of pipeline with small parts: what it has of those that ``tiny`` names."""
        parts = {name: (kind, {**config, **tiny.parts.get(name, {})}) for name, (kind, config) in self.parts.items()}
        limits = {name: tiny.limits.get(name, limit) for name, limit in self.limits.items()}
        return replace(self, parts=parts, limits=limits, remarks=(NOTE_TINY,), asked=tiny.side)

    def cut(self, layers: int) -> Architecture:
        """With ``layers`` blocks, shared out over its lists of blocks as in the published one, at least one each."""
        if layers < len(self.depth):
            raise UsageError(expected=f"at least {len(self.depth)} layers", got=str(layers), remedy="ask for more layers")
        config, whole, left = self.configs["transformer"], self.layers, layers
        counts = {}
        for name in self.depth[:-1]:
            counts[name] = min(left - 1, max(1, round(layers * config[name] / whole)))
            left -= counts[name]
        counts[self.depth[-1]] = left
        return replace(self.having("transformer", **counts), cut_from=whole if layers != whole else 0)

    def empty(self, part: str) -> nn.Module:
        """One part on the meta device: shapes, and no memory."""
        from accelerate import init_empty_weights

        kind, config = self.parts[part]
        with init_empty_weights(include_buffers=False):
            return made(class_of(kind), config)

    def build(self, dtype: torch.dtype = torch.float32, seed: int = SEED) -> Any:
        """A diffusers pipeline on the CPU; equal arguments give equal weights."""
        generator = torch.Generator().manual_seed(seed)
        models = {}
        for name in self.parts:
            models[name] = self.empty(name)
            materialise(models[name], dtype, generator)
        return self.assembled(models)

    def assembled(self, models: Mapping[str, nn.Module]) -> Any:
        """A diffusers pipeline of these parts."""
        kind, config = self.scheduler
        scheduler = class_of(kind)(**config)
        return class_of(self.pipeline)(**models, scheduler=scheduler, **self.others(self.limits), **self.settings)


def class_of(name: str) -> Any:
    """A class of diffusers or transformers by its name."""
    import diffusers
    import transformers

    return getattr(diffusers if hasattr(diffusers, name) else transformers, name)


def made(kind: Any, config: Mapping[str, Any]) -> nn.Module:
    """A model of diffusers or transformers from its config."""
    from transformers import PreTrainedModel

    model: nn.Module = kind(kind.config_class(**config)) if issubclass(kind, PreTrainedModel) else kind(**config)
    return model


def materialise(model: nn.Module, dtype: torch.dtype, generator: torch.Generator) -> None:
    """Fill every meta parameter in place: matrices and kernels N(0, 1/fan_in), gains 1, biases N(0, 0.02^2).

    So activations stay of order one, and no gate or head is zero as it is in a fresh DiT: every block changes its input.
    Parameters that several modules share stay shared. Buffers keep values and dtype, as where diffusers loads a file.
    """
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, empty in list(module._parameters.items()):
            if empty is None or not empty.is_meta:
                continue
            if id(empty) not in made:
                made[id(empty)] = nn.Parameter(_draw(empty.shape, name, dtype, generator), requires_grad=False)
            module._parameters[name] = made[id(empty)]
    model.eval()


def _draw(shape: torch.Size, name: str, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    if name == "gamma" or (len(shape) == 1 and name == "weight"):
        return torch.ones(shape, dtype=dtype)
    scale = 0.02 if len(shape) == 1 else shape[1:].numel() ** -0.5
    return torch.empty(shape, dtype=dtype).normal_(0, scale, generator=generator)
