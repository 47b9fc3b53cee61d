"""DiT: class-to-image diffusion transformers (Peebles and Xie 2022, arXiv 2212.09748)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harness.cost.guidance import Guidance
from harness.errors import UsageError
from harness.models.architecture import Architecture, Tiny
from harness.models.autoencoders import TINY_KL, kl
from harness.models.families import basic
from harness.models.families.base import Conditioning, Configs, Family, ModelCall, Segment, State, Usual
from harness.models.families.shapes import grid


def modulated(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """Every block embeds time and class itself."""
    hidden = state[0]
    told = conditioning["timestep"], conditioning["class_labels"]
    output: torch.Tensor = block.norm1(hidden, *told, hidden_dtype=hidden.dtype)[0]
    return output


def guidance(configs: Configs, scale: float, true_guidance: float) -> Guidance:
    """The batch is [conditional, null]."""
    return Guidance(scale, "conditional first")


def arguments(pipeline: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """Class indices of class names (as in ``pipe.labels``) or decimal strings. Raises :class:`UsageError` on others and on
    indices too high."""
    names: dict[str, int] = pipeline.pipe.labels
    classes = int(pipeline.pipe.transformer.config.num_embeds_ada_norm)
    unknown = [p for p in prompts if p not in names and not (p.isdecimal() and int(p) < classes)]
    if unknown:
        known = ", ".join(list(names)[:5])
        raise UsageError(
            expected=f"class names ({known}, ...) or indices below {classes}", got=repr(unknown[0]), remedy="edit the prompts"
        )
    labels = [names[p] if p in names else int(p) for p in prompts]
    return {"class_labels": labels, "guidance_scale": pipeline.guidance.scale}


def conditioning_at(transformer: Any, call: ModelCall, t: torch.Tensor) -> Conditioning:
    """Blocks are told the timestep itself."""
    return {"timestep": t.to(call.time.dtype)}


def _published(side: int, latent: int) -> Architecture:
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
        "norm_type": "ada_norm_zero",
        "norm_eps": 1e-5,
    }

    scheduler = {"clip_sample": False, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    parts = {"transformer": ("DiTTransformer2DModel", config), "vae": kl(latent)}
    return Architecture("DiTPipeline", parts, ("DDIMScheduler", scheduler), lambda limits: {}, side)


FAMILY = Family(
    name="dit",
    title="DiT",
    pipelines=("DiTPipeline",),
    task="class",
    segments=(Segment("transformer_blocks", basic.build_block, basic.block_settings, modulated),),
    guidance=guidance,
    arguments=arguments,
    latent=grid,
    geometry=basic.geometry,
    conditioning_at=conditioning_at,
    usual=lambda configs: Usual(20, 1.5),
    fits=(("vae", "latent_channels", "in_channels"),),
    expects={"norm_type": "ada_norm_zero"},
    any_size=False,
    architectures={"dit-xl-2-256": _published(256, 32), "dit-xl-2-512": _published(512, 64)},  # facebook/DiT-XL-2-*
    tiny=Tiny(
        {"transformer": {"sample_size": 8, "num_layers": 6, "num_attention_heads": 2, "attention_head_dim": 8}, "vae": TINY_KL}
    ),
)
