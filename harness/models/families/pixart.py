"""PixArt: text-to-image with cross-attention to a T5 caption (alpha: arXiv 2310.00426, Sigma: arXiv 2403.04692)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.cost.flops import Geometry
from harness.errors import UsageError
from harness.models.architecture import Architecture, Tiny
from harness.models.autoencoders import TINY_KL, kl
from harness.models.families import basic
from harness.models.families.base import Conditioning, Described, Family, ModelCall, Segment
from harness.models.families.shapes import grid
from harness.models.families.shared import adaln_single, null_first
from harness.models.text import NOTE_T5, TINY_T5, t5_encoder, t5_tokenizer

ALPHA, SIGMA = "PixArtAlphaPipeline", "PixArtSigmaPipeline"
ALPHA_TOKENS, SIGMA_TOKENS = 120, 300  # published limits


def arguments(pipeline: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """Captions as they are: not cleaned, and no binning of sizes.

    Raises :class:`UsageError` on one step of PixArt-alpha: diffusers then takes the model for a distilled one, with another
    scheduler.
    """
    if pipeline.steps < 2 and type(pipeline.pipe).__name__ == ALPHA:
        raise UsageError(expected="at least 2 steps for PixArt-alpha", got=str(pipeline.steps), remedy="--steps 2")
    return {
        "prompt": list(prompts),
        "negative_prompt": pipeline.negative_prompt,
        "guidance_scale": pipeline.guidance.scale,
        "max_sequence_length": pipeline.caption_tokens,
        "use_resolution_binning": False,
        "clean_caption": False,
    }


def caption_tokens(model: Described) -> int:
    """The published limit, or the tokenizer's (T5's own limit is 512)."""
    return model.longest(ALPHA_TOKENS if model.pipeline == ALPHA else SIGMA_TOKENS)


def geometry(model: Described) -> Geometry:
    """As DiT's, with a caption."""
    return basic.geometry(model, caption_tokens(model))


def conditioning_at(transformer: Any, call: ModelCall, t: torch.Tensor) -> Conditioning:
    """Blocks get the time embedded, with resolution and aspect ratio where the model is told these."""
    sizes = call.conditioning.get("added_cond_kwargs") or {}
    embedded, _ = transformer.adaln_single(t, sizes, batch_size=len(t), hidden_dtype=call.sample.dtype)
    return {"timestep": embedded}


def _published(kind: str, side: int, tokens: int, interpolation: float, **told: Any) -> Architecture:
    """Interpolation scales: scripts/convert_pixart_alpha_to_diffusers.py. Autoencoders: stabilityai/sd-vae-ft-ema for alpha,
    SDXL's for Sigma."""
    latent = side // 8
    config = {
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "sample_size": latent,
        "patch_size": 2,
        "num_embeds_ada_norm": 1000,
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "upcast_attention": False,
        "norm_elementwise_affine": False,
        "norm_type": "ada_norm_single",
        "norm_eps": 1e-6,
        "cross_attention_dim": 1152,
        "caption_channels": 4096,
        "interpolation_scale": interpolation,
        "use_additional_conditions": False,
        **told,
    }
    parts = {
        "transformer": ("PixArtTransformer2DModel", config),
        "vae": kl(latent, scaling_factor=0.18215 if kind == ALPHA else 0.13025),
        "text_encoder": t5_encoder(),
    }

    def others(limits: Mapping[str, int]) -> dict[str, Any]:
        return {"tokenizer": t5_tokenizer(limits["tokenizer"])}

    scheduler = "DPMSolverMultistepScheduler", {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    return Architecture(kind, parts, scheduler, others, side, {"tokenizer": tokens}, remarks=(NOTE_T5.format(layers=2),))


FAMILY = Family(
    name="pixart",
    title="PixArt",
    pipelines=(ALPHA, SIGMA),
    task="text",
    segments=(Segment("transformer_blocks", basic.build_block, basic.block_settings, adaln_single),),
    guidance=null_first,
    arguments=arguments,
    latent=grid,
    geometry=geometry,
    conditioning_at=conditioning_at,
    fits=(("vae", "latent_channels", "in_channels"), ("text_encoder", "d_model", "caption_channels")),
    expects={"norm_type": "ada_norm_single"},
    caption_tokens=caption_tokens,
    architectures={
        "pixart-alpha-256": _published(ALPHA, 256, ALPHA_TOKENS, 1.0),
        "pixart-alpha-512": _published(ALPHA, 512, ALPHA_TOKENS, 1.0),
        # only alpha-1024 is told resolution and aspect ratio
        "pixart-alpha-1024": _published(ALPHA, 1024, ALPHA_TOKENS, 2.0, use_additional_conditions=True),
        "pixart-sigma-512": _published(SIGMA, 512, SIGMA_TOKENS, 1.0),
        "pixart-sigma-1024": _published(SIGMA, 1024, SIGMA_TOKENS, 2.0),
        "pixart-sigma-2k": _published(SIGMA, 2048, SIGMA_TOKENS, 4.0),
    },
    tiny=Tiny(
        {
            "transformer": {
                "sample_size": 8,
                "num_layers": 6,
                "num_attention_heads": 2,
                "attention_head_dim": 12,  # sizes are embedded in thirds of the width
                "cross_attention_dim": 24,
                "caption_channels": 16,
            },
            "vae": TINY_KL,
            "text_encoder": TINY_T5,
        },
        limits={"tokenizer": 12},
    ),
)
