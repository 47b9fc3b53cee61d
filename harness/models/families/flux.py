"""FLUX.1 (Black Forest Labs 2024): blocks of two streams, then blocks of one joined stream; packed latents, flow matching.

FLUX.1-dev is told the guidance scale (guidance-distilled); schnell is distilled to four steps and is told none. Both can run true
guidance in a second call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.cost.flops import Geometry
from harness.cost.guidance import Guidance
from harness.cost.macs import BlockCost, Part, attention, linear
from harness.models.architecture import Architecture, Tiny
from harness.models.autoencoders import TINY_KL, kl
from harness.models.families.base import Conditioning, Configs, Described, Family, ModelCall, ModelIO, Segment, State, Usual
from harness.models.families.shapes import TIME_CHANNELS, even_sigmas, packed
from harness.models.text import NOTE_CUT, TINY_CLIP, TINY_T5, clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock

CLIP_TOKENS, DEV_TOKENS, SCHNELL_TOKENS = 77, 512, 256  # the pipeline's limit, and what schnell was trained on


def block_settings(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The same for both kinds of blocks, whatever their number."""
    heads, head_width = config["num_attention_heads"], config["attention_head_dim"]
    return {"dim": heads * head_width, "num_attention_heads": heads, "attention_head_dim": head_width}


def build_double(settings: dict[str, Any]) -> FluxTransformerBlock:
    """A fresh block of two streams."""
    from diffusers.models.transformers.transformer_flux import FluxTransformerBlock

    return FluxTransformerBlock(**settings)


def build_single(settings: dict[str, Any]) -> FluxSingleTransformerBlock:
    """A fresh block that joins both streams and parts them again."""
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

    return FluxSingleTransformerBlock(**settings)


def modulated_double(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """The norm that is told the time returns it first."""
    output: torch.Tensor = block.norm1(state[0], emb=conditioning["temb"])[0]
    return output


def modulated_single(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """Of the joined streams; norms are token by token."""
    output: torch.Tensor = block.norm(state[0], emb=conditioning["temb"])[0]
    return output


def guidance(configs: Configs, scale: float, true_guidance: float) -> Guidance:
    """Dev is told the scale; true guidance is a second call."""
    told = scale if configs["transformer"].get("guidance_embeds") else None
    return Guidance(true_guidance, "calls", told=told)


def caption_tokens(model: Described) -> int:
    """T5's; CLIP gives only a pooled vector."""
    return model.longest(DEV_TOKENS if model.transformer.get("guidance_embeds") else SCHNELL_TOKENS, "tokenizer_2")


def arguments(pipeline: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """Without a negative prompt the pipeline runs no true guidance, whatever its scale."""
    chosen = pipeline.guidance
    negative = {"negative_prompt": [pipeline.negative_prompt or " "] * len(prompts)} if chosen.on else {}
    scale = 0.0 if chosen.told is None else chosen.told
    tokens = {"max_sequence_length": pipeline.caption_tokens}
    return {"prompt": list(prompts), "guidance_scale": scale, "true_cfg_scale": chosen.scale, **negative, **tokens}


def conditioning_at(transformer: Any, call: ModelCall, t: torch.Tensor) -> Conditioning:
    """Blocks get time, pooled caption and guidance scale in one embedding."""
    dtype, scale = call.sample.dtype, call.conditioning.get("guidance")
    told = [(t.to(dtype) / 1000).to(dtype) * 1000] + ([] if scale is None else [scale.to(dtype) * 1000])
    return {"temb": transformer.time_text_embed(*told, call.conditioning["pooled_projections"])}


def double_cost(d: int, n: int, m: int) -> BlockCost:
    """A block of two streams of width ``d``, on ``n`` tokens of the image and ``m`` of the caption."""
    products = attention(n + m, n + m, d)
    parts = (
        Part("attn", "attention", 4 * linear(n + m, d, d) + products),
        Part("ff", "mlp", 2 * linear(n, d, 4 * d)),
        Part("ff_context", "mlp", 2 * linear(m, d, 4 * d)),
    )
    return BlockCost(parts, 12 * d * d, products)


def single_cost(d: int, tokens: int) -> BlockCost:
    """Attention and MLP of all ``tokens`` beside each other, and one projection of both."""
    products = attention(tokens, tokens, d)
    parts = (
        Part("proj_mlp", "mlp", linear(tokens, d, 4 * d)),
        Part("attn", "attention", 3 * linear(tokens, d, d) + products),
        Part("proj_out", "output", linear(tokens, 5 * d, d)),
    )
    return BlockCost(parts, 3 * d * d, products)


def geometry(model: Described) -> Geometry:
    """The shapes of the transformer."""
    config = model.transformer
    latent, m, caption_width = packed(model), caption_tokens(model), config["joint_attention_dim"]
    n, channels = latent
    d = config["num_attention_heads"] * config["attention_head_dim"]
    doubles = (double_cost(d, n, m),) * config["num_layers"]
    singles = (single_cost(d, n + m),) * config["num_single_layers"]
    embeddings = 2 if config.get("guidance_embeds") else 1
    told = embeddings * (TIME_CHANNELS * d + d * d) + config["pooled_projection_dim"] * d + d * d
    head = linear(n, d, config["patch_size"] ** 2 * (config.get("out_channels") or channels))
    rest = linear(n, channels, d) + linear(m, caption_width, d) + told + 2 * d * d + head
    return Geometry((*doubles, *singles), d, n, n + m, m, caption_width, latent, rest, head)


def architecture(embedded: bool) -> Architecture:
    """A published one, with its text encoders cut to two layers."""
    config = {
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": embedded,
        "axes_dims_rope": (16, 56, 56),
    }
    vae: dict[str, Any] = {
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    parts = {
        "transformer": ("FluxTransformer2DModel", config),
        "vae": kl(128, latent_channels=16, **vae),
        "text_encoder": clip_encoder(768, 12, 3072, projected=False),
        "text_encoder_2": t5_encoder(),
    }

    def others(limits: Mapping[str, int]) -> dict[str, Any]:
        return {"tokenizer": clip_tokenizer(limits["tokenizer"]), "tokenizer_2": t5_tokenizer(limits["tokenizer_2"])}

    shift = {"shift": 3.0, "use_dynamic_shifting": True} if embedded else {"shift": 1.0}
    limits = {"tokenizer": CLIP_TOKENS, "tokenizer_2": 512}
    return Architecture(
        "FluxPipeline",
        parts,
        ("FlowMatchEulerDiscreteScheduler", shift),
        others,
        1024,
        limits,
        depth=("num_layers", "num_single_layers"),
        remarks=(NOTE_CUT.format(layers=2),),
    )


STREAMS: dict[str, Any] = {
    "inputs": ("hidden_states", "encoder_hidden_states"),
    "outputs": (1, 0),
    "shared": frozenset({"image_rotary_emb", "joint_attention_kwargs"}),
}
FAMILY = Family(
    name="flux",
    title="FLUX.1",
    pipelines=("FluxPipeline",),
    task="text",
    segments=(
        Segment("transformer_blocks", build_double, block_settings, modulated_double, **STREAMS),
        Segment(
            "single_transformer_blocks", build_single, block_settings, modulated_single, depth="num_single_layers", **STREAMS
        ),
    ),
    guidance=guidance,
    arguments=arguments,
    caption_tokens=caption_tokens,
    latent=packed,
    geometry=geometry,
    conditioning_at=conditioning_at,
    usual=lambda configs: Usual(28, 3.5) if configs["transformer"].get("guidance_embeds") else Usual(4, 0.0),
    call=ModelIO(time=lambda t: t / 1000, shared=frozenset({"txt_ids", "img_ids", "joint_attention_kwargs"})),
    sigmas=even_sigmas,
    side=lambda model: 128 * model.scale,
    patches=lambda config: (0, config["in_channels"]),
    fits=(("text_encoder_2", "d_model", "joint_attention_dim"), ("text_encoder", "hidden_size", "pooled_projection_dim")),
    architectures={"flux.1-dev": architecture(True), "flux.1-schnell": architecture(False)},
    tiny=Tiny(
        {
            "transformer": {
                "in_channels": 16,
                "num_layers": 2,
                "num_single_layers": 4,
                "attention_head_dim": 8,
                "num_attention_heads": 2,
                "joint_attention_dim": 16,
                "pooled_projection_dim": 16,
                "axes_dims_rope": (2, 2, 4),
            },
            "vae": TINY_KL | {"latent_channels": 4},
            "text_encoder": TINY_CLIP,
            "text_encoder_2": TINY_T5,
        },
        limits={"tokenizer": 12, "tokenizer_2": 16},
        side=16,
    ),
)
