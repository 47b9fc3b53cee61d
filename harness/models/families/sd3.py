"""Stable Diffusion 3 and 3.5: two streams that attend to each other, flow matching (Esser et al. 2024, arXiv 2403.03206)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.cost.flops import Geometry
from harness.cost.macs import BlockCost, Part, attention, linear
from harness.models.architecture import Architecture, Tiny
from harness.models.autoencoders import TINY_KL, kl
from harness.models.families.base import Conditioning, Described, Family, ModelCall, Segment, State, Usual
from harness.models.families.shapes import TIME_CHANNELS, grid, grid_tokens
from harness.models.families.shared import null_first
from harness.models.text import NOTE_CUT, TINY_CLIP, TINY_T5, clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer

if TYPE_CHECKING:
    from diffusers.models.attention import JointTransformerBlock

CLIP_TOKENS, T5_TOKENS = 77, 256  # the pipeline's limits


def block_settings(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Of the block of a number: the last one ends the caption's stream, the first ones of 3.5-medium attend a second time."""
    heads, head_width = config["num_attention_heads"], config["attention_head_dim"]
    return {
        "dim": heads * head_width,
        "num_attention_heads": heads,
        "attention_head_dim": head_width,
        "context_pre_only": number == config["num_layers"],
        "qk_norm": config.get("qk_norm"),
        "use_dual_attention": number - 1 in (config.get("dual_attention_layers") or ()),
    }


def build_block(settings: dict[str, Any]) -> JointTransformerBlock:
    """A fresh one."""
    from diffusers.models.attention import JointTransformerBlock

    return JointTransformerBlock(**settings)


def modulated(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """The norm that is told the time returns it first."""
    output: torch.Tensor = block.norm1(state[0], emb=conditioning["temb"])[0]
    return output


def t5_tokens(model: Described) -> int:
    """Tokens that the T5 gets, or the zeros in its place where there is none."""
    return model.longest(T5_TOKENS, "tokenizer_3")


def caption_tokens(model: Described) -> int:
    """Both CLIP encoders share one sequence, T5's stands behind it."""
    return model.longest(CLIP_TOKENS) + t5_tokens(model)


def arguments(pipeline: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """Captions, for all encoders alike."""
    return {
        "prompt": list(prompts),
        "negative_prompt": [pipeline.negative_prompt] * len(prompts),
        "guidance_scale": pipeline.guidance.scale,
        "max_sequence_length": t5_tokens(pipeline.described),
    }


def conditioning_at(transformer: Any, call: ModelCall, t: torch.Tensor) -> Conditioning:
    """Blocks get time and pooled caption in one embedding."""
    return {"temb": transformer.time_text_embed(t.to(call.sample.dtype), call.conditioning["pooled_projections"])}


def block_cost(d: int, n: int, m: int, last: bool, dual: bool) -> BlockCost:
    """A block of width ``d`` on ``n`` tokens of the image and ``m`` of the caption."""
    products = attention(n + m, n + m, d)
    joint = 3 * linear(n + m, d, d) + linear(n if last else n + m, d, d) + products
    parts = [Part("attn", "attention", joint)]
    if dual:
        parts.append(Part("attn2", "attention", 4 * linear(n, d, d) + attention(n, n, d)))
        products += attention(n, n, d)
    parts.append(Part("ff", "mlp", 2 * linear(n, d, 4 * d)))
    if not last:
        parts.append(Part("ff_context", "mlp", 2 * linear(m, d, 4 * d)))
    modulation = ((9 if dual else 6) + (2 if last else 6)) * d * d
    return BlockCost(tuple(parts), modulation, products)


def geometry(model: Described) -> Geometry:
    """The shapes of the transformer."""
    config = model.transformer
    n, m, latent = grid_tokens(model), caption_tokens(model), grid(model)
    d = config["num_attention_heads"] * config["attention_head_dim"]
    count, patch, caption_width = config["num_layers"], config["patch_size"], config["joint_attention_dim"]
    dual = config.get("dual_attention_layers") or ()
    blocks = tuple(block_cost(d, n, m, i == count - 1, i in dual) for i in range(count))
    head = linear(n, d, patch**2 * (config.get("out_channels") or latent[0]))
    told = (TIME_CHANNELS + config["pooled_projection_dim"] + 2 * d) * d + 2 * d * d
    rest = linear(n, patch**2 * latent[0], d) + linear(m, caption_width, d) + told + head
    return Geometry(blocks, d, n, n + m, m, caption_width, latent, rest, head)


def architecture(side: int, layers: int, heads: int, **settings: Any) -> Architecture:
    """A published one, with its text encoders cut to two layers."""
    config = {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": layers,
        "attention_head_dim": 64,
        "num_attention_heads": heads,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 64 * heads,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192,
        **settings,
    }
    parts = {
        "transformer": ("SD3Transformer2DModel", config),
        "vae": kl(
            side // 8,
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        "text_encoder": clip_encoder(768, 12, 3072),
        "text_encoder_2": clip_encoder(1280, 20, 5120),
        "text_encoder_3": t5_encoder(),
    }

    def others(limits: Mapping[str, int]) -> dict[str, Any]:
        clip = clip_tokenizer(limits["tokenizer"])
        return {"tokenizer": clip, "tokenizer_2": clip, "tokenizer_3": t5_tokenizer(limits["tokenizer_3"])}

    limits = {"tokenizer": CLIP_TOKENS, "tokenizer_2": CLIP_TOKENS, "tokenizer_3": T5_TOKENS}
    scheduler = "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}
    return Architecture("StableDiffusion3Pipeline", parts, scheduler, others, side, limits, remarks=(NOTE_CUT.format(layers=2),))


FAMILY = Family(
    name="sd3",
    title="Stable Diffusion 3",
    pipelines=("StableDiffusion3Pipeline",),
    task="text",
    segments=(
        Segment(
            "transformer_blocks",
            build_block,
            block_settings,
            modulated,
            inputs=("hidden_states", "encoder_hidden_states"),
            outputs=(1, 0),
            leaving=lambda settings: 1 if settings["context_pre_only"] else 2,
        ),
    ),
    guidance=null_first,
    arguments=arguments,
    caption_tokens=caption_tokens,
    latent=grid,
    geometry=geometry,
    conditioning_at=conditioning_at,
    usual=lambda configs: Usual(28, 7.0),
    fits=(("vae", "latent_channels", "in_channels"), ("text_encoder_3", "d_model", "joint_attention_dim")),
    architectures={
        "sd3-medium": architecture(1024, 24, 24),
        "sd3.5-medium": architecture(
            1024, 24, 24, pos_embed_max_size=384, qk_norm="rms_norm", dual_attention_layers=tuple(range(13))
        ),
        "sd3.5-large": architecture(1024, 38, 38, qk_norm="rms_norm"),
    },
    tiny=Tiny(
        {
            "transformer": {
                "sample_size": 8,
                "num_layers": 6,
                "num_attention_heads": 2,
                "attention_head_dim": 8,
                "joint_attention_dim": 32,
                "caption_projection_dim": 16,
                "pooled_projection_dim": 32,
                "pos_embed_max_size": 16,
            },
            "vae": TINY_KL,
            "text_encoder": TINY_CLIP,
            "text_encoder_2": TINY_CLIP,
            "text_encoder_3": TINY_T5 | {"d_model": 32},
        },
        limits={"tokenizer": 12, "tokenizer_2": 12, "tokenizer_3": 16},
    ),
)
