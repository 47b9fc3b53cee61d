"""Pipelines with the true architecture of published models and random weights: for speed, cost and memory, never quality.

Transformer and autoencoder have the published configuration (facebook/DiT-XL-2-*, PixArt-alpha/*: their ``config.json``).
One part has not: the text encoder of PixArt is T5 v1.1 XXL with 24 layers and 4.7 billion parameters; here it keeps its width
(4096, 64 heads of 64, feed-forward 10240) and has only :attr:`Architecture.text_layers` layers, and its tokenizer knows
characters only. So the TEXT STAGE IS NOT TIMED AS PUBLISHED, and memory lacks the other layers; :data:`NOTE_TEXT` says so in
the record of every run. The number of caption tokens, which the denoiser's cost depends on, is the published one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from torch import nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from harness.errors import UsageError

PREFIX = "random:"
NOTE = "random weights of true architecture: only speed, cost and memory mean anything"
NOTE_TEXT = "the text encoder is a T5 XXL cut to {layers} of 24 layers: the text stage is not timed as published"
NOTE_CUT = "the transformer has {layers} blocks and the published one {published}: its speed is not the published model's"
LAYERS = 28
SEED = 20250122


@dataclass(frozen=True)
class Architecture:
    """Everything that decides shapes and cost. Defaults are those of the XL/2 models; ``sample_size`` is in latent pixels."""

    kind: Literal["dit", "alpha", "sigma"]
    sample_size: int
    layers: int = LAYERS
    heads: int = 16
    head_width: int = 72
    tokens: int = 0
    interpolation_scale: float = 1.0
    additional_conditions: bool = False
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    vae_norm_groups: int = 32
    vae_scaling: float = 0.18215
    text_width: int = 4096
    text_heads: int = 64
    text_feed_forward: int = 10240
    text_layers: int = 2

    @property
    def task(self) -> Literal["class", "text"]:
        """The task of the spec that it serves."""
        return "class" if self.kind == "dit" else "text"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the record of a run must say."""
        text = () if self.kind == "dit" else (NOTE_TEXT.format(layers=self.text_layers),)
        cut = () if self.layers == LAYERS else (NOTE_CUT.format(layers=self.layers, published=LAYERS),)
        return (NOTE, *text, *cut)


_ALPHA = Architecture("alpha", 64, tokens=120)  # its autoencoder: stabilityai/sd-vae-ft-ema
_SIGMA = Architecture("sigma", 64, tokens=300, vae_scaling=0.13025)  # its autoencoder: SDXL's
# Only alpha-1024 is told resolution and aspect ratio. Interpolation scales: scripts/convert_pixart_alpha_to_diffusers.py.
ARCHITECTURES: dict[str, Architecture] = {
    "dit-xl-2-256": Architecture("dit", 32),
    "dit-xl-2-512": Architecture("dit", 64),
    "pixart-alpha-256": replace(_ALPHA, sample_size=32),
    "pixart-alpha-512": _ALPHA,
    "pixart-alpha-1024": replace(_ALPHA, sample_size=128, interpolation_scale=2.0, additional_conditions=True),
    "pixart-sigma-512": _SIGMA,
    "pixart-sigma-1024": replace(_SIGMA, sample_size=128, interpolation_scale=2.0),
    "pixart-sigma-2k": replace(_SIGMA, sample_size=256, interpolation_scale=4.0),
}
DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def is_random(name: str) -> bool:
    """Whether a spec's pipeline is made of random weights."""
    return name.startswith(PREFIX)


def find_architecture(name: str, task: str) -> Architecture:
    """The architecture of ``random:NAME`` or, with another number of blocks, ``random:NAME:layers=N``.

    Raises :class:`UsageError` where it is unknown or serves another task.
    """
    known = {key: value for key, value in ARCHITECTURES.items() if value.task == task}
    key, _, option = name.removeprefix(PREFIX).partition(":")
    if key not in known:
        names = ", ".join(PREFIX + key for key in known)
        raise UsageError(expected=f"for task {task} one of {names}", got=repr(name), remedy="choose one of these, or a folder")
    if not option:
        return known[key]
    layers = option.removeprefix("layers=")
    if not layers.isdecimal() or not 1 <= int(layers) <= 1000:
        raise UsageError(expected=f"{PREFIX}{key}:layers=N with N of 1 to 1000", got=repr(name), remedy="correct the option")
    return replace(known[key], layers=int(layers))


def build_random(architecture: Architecture, dtype: torch.dtype = torch.float32, seed: int = SEED) -> Any:
    """A diffusers pipeline on the CPU; equal arguments give equal weights."""
    with init_empty_weights(include_buffers=False):
        vae, transformer = _vae(architecture), _transformer(architecture)
    generator = torch.Generator().manual_seed(seed)
    for model in (transformer, vae):
        materialise(model, dtype, generator)
    if architecture.kind == "dit":
        scheduler = DDIMScheduler(clip_sample=False, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
        return DiTPipeline(transformer, vae, scheduler)
    tokenizer = _tokenizer(architecture.tokens)
    with init_empty_weights(include_buffers=False):
        encoder = _text_encoder(architecture, len(tokenizer))
    materialise(encoder, dtype, generator)
    kind = PixArtAlphaPipeline if architecture.kind == "alpha" else PixArtSigmaPipeline
    scheduler = DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    return kind(tokenizer, encoder, vae, transformer, scheduler)


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
    if len(shape) == 1 and name == "weight":
        return torch.ones(shape, dtype=dtype)
    scale = 0.02 if len(shape) == 1 else shape[1:].numel() ** -0.5
    return torch.empty(shape, dtype=dtype).normal_(0, scale, generator=generator)


def transformer_config(a: Architecture) -> dict[str, Any]:
    """The transformer's ``config.json``."""
    shared: dict[str, Any] = {
        "num_attention_heads": a.heads,
        "attention_head_dim": a.head_width,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": a.layers,
        "sample_size": a.sample_size,
        "patch_size": 2,
        "num_embeds_ada_norm": 1000,
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "upcast_attention": False,
        "norm_elementwise_affine": False,
    }
    if a.kind == "dit":
        return shared | {"norm_type": "ada_norm_zero", "norm_eps": 1e-5}
    return shared | {
        "norm_type": "ada_norm_single",
        "norm_eps": 1e-6,
        "cross_attention_dim": a.heads * a.head_width,
        "caption_channels": a.text_width,
        "interpolation_scale": a.interpolation_scale,
        "use_additional_conditions": a.additional_conditions,
    }


def _transformer(a: Architecture) -> nn.Module:
    kind: Any = DiTTransformer2DModel if a.kind == "dit" else PixArtTransformer2DModel
    return kind(**transformer_config(a))  # type: ignore[no-any-return]


def _vae(a: Architecture) -> nn.Module:
    depth = len(a.vae_channels)
    return AutoencoderKL(  # type: ignore[no-any-return]
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=a.vae_channels,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=a.vae_norm_groups,
        sample_size=a.sample_size * 2 ** (depth - 1),
        scaling_factor=a.vae_scaling,
    )


def _tokenizer(tokens: int) -> Any:
    characters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *((character, -3.0) for character in characters)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=tokens)


def _text_encoder(a: Architecture, vocabulary: int) -> nn.Module:
    config = T5Config(
        vocab_size=vocabulary,
        d_model=a.text_width,
        d_kv=a.text_width // a.text_heads,
        d_ff=a.text_feed_forward,
        num_layers=a.text_layers,
        num_heads=a.text_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return T5EncoderModel(config)  # type: ignore[no-any-return]
