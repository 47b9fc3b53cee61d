"""Qwen-Image (arXiv 2508.02324): two streams, packed latents, flow matching; true guidance in a second call, norms restored.

The pipeline guides only where it is given a negative prompt: its defaults, a scale of 4 and none, silently run without. Here
every guided run gets one, a blank where none is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from harness.cost.flops import Geometry
from harness.cost.guidance import Guidance
from harness.cost.macs import BlockCost, Part, attention, linear
from harness.errors import UsageError
from harness.models.architecture import Architecture, Tiny
from harness.models.families.base import Conditioning, Configs, Described, Family, ModelCall, ModelIO, Segment, State, Usual
from harness.models.families.shapes import TIME_CHANNELS, even_sigmas, packed
from harness.models.text import NOTE_CUT, TINY_QWEN_VL, qwen_tokenizer, qwen_vl_encoder
from harness.sampling.patching import patched

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformerBlock

TOKENS, INSTRUCTION = 512, 34  # the pipeline's limit, and the tokens before a prompt that it cuts off again


def block_settings(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The same for all blocks."""
    heads, head_width = config["num_attention_heads"], config["attention_head_dim"]
    return {"dim": heads * head_width, "num_attention_heads": heads, "attention_head_dim": head_width}


def build_block(settings: dict[str, Any]) -> QwenImageTransformerBlock:
    """A fresh one."""
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformerBlock

    return QwenImageTransformerBlock(**settings)


def modulated(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """The first half of the image stream's modulations is that of attention."""
    shift_scale_gate = block.img_mod(conditioning["temb"]).chunk(2, dim=-1)[0]
    output: torch.Tensor = block._modulate(block.img_norm1(state[0]), shift_scale_gate)[0]
    return output


def guidance(configs: Configs, scale: float, true_guidance: float) -> Guidance:
    """A second call; then every token gets the norm of the conditional prediction's."""
    return Guidance(scale, "calls", rescaled=True)


def caption_tokens(model: Described) -> int:
    """The pipeline's limit, or the tokenizer's; shorter captions are padded to the longest of their batch only."""
    return model.longest(TOKENS)


def arguments(pipeline: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """Without a negative prompt the pipeline runs no guidance, whatever its scale.

    Raises :class:`UsageError` on one step where the scheduler stretches its sigmas to a given last one: it divides by zero then.
    """
    if pipeline.steps < 2 and not pipeline.timesteps and pipeline.own_scheduler.config.get("shift_terminal"):
        raise UsageError(expected="at least 2 steps for Qwen-Image", got=str(pipeline.steps), remedy="--steps 2")
    negative = {"negative_prompt": [pipeline.negative_prompt or " "] * len(prompts)} if pipeline.guidance.on else {}
    scale, tokens = pipeline.guidance.scale, pipeline.caption_tokens
    return {"prompt": list(prompts), "true_cfg_scale": scale, **negative, "max_sequence_length": tokens}


def without_numbers(pipeline: Any) -> AbstractContextManager[None]:
    """Encoded captions [prompts, tokens, width] of full length and no mask: the pipeline looks which of their tokens are real."""

    def encode(*args: Any, prompt: Sequence[str], **kwargs: Any) -> tuple[torch.Tensor, None]:
        ids = torch.zeros(len(prompt), INSTRUCTION + pipeline.caption_tokens, dtype=torch.long, device=pipeline.device)
        encoded = pipeline.pipe.text_encoder(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        return encoded[:, INSTRUCTION:], None

    return patched(pipeline.pipe, "encode_prompt", encode)


def conditioning_at(transformer: Any, call: ModelCall, t: torch.Tensor) -> Conditioning:
    """Blocks get the time embedded."""
    return {"temb": transformer.time_text_embed(t.to(call.sample.dtype) / 1000, call.sample)}


def block_cost(d: int, n: int, m: int) -> BlockCost:
    """A block of width ``d`` on ``n`` tokens of the image and ``m`` of the caption."""
    products = attention(n + m, n + m, d)
    parts = (
        Part("attn", "attention", 4 * linear(n + m, d, d) + products),
        Part("img_mlp", "mlp", 2 * linear(n, d, 4 * d)),
        Part("txt_mlp", "mlp", 2 * linear(m, d, 4 * d)),
    )
    return BlockCost(parts, 12 * d * d, products)


def geometry(model: Described) -> Geometry:
    """The shapes of the transformer, for captions of full length."""
    config = model.transformer
    latent, m, caption_width = packed(model), caption_tokens(model), config["joint_attention_dim"]
    n, channels = latent
    d = config["num_attention_heads"] * config["attention_head_dim"]
    head = linear(n, d, config["patch_size"] ** 2 * (config.get("out_channels") or channels))
    told = TIME_CHANNELS * d + d * d + 2 * d * d
    rest = linear(n, channels, d) + linear(m, caption_width, d) + told + head
    return Geometry((block_cost(d, n, m),) * config["num_layers"], d, n, n + m, m, caption_width, latent, rest, head)


def architecture() -> Architecture:
    """Qwen-Image, with its text encoder cut to two layers. Sizes and statistics of its autoencoder are diffusers' defaults."""
    config = {
        "patch_size": 2,
        "in_channels": 64,
        "out_channels": 16,
        "num_layers": 60,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 3584,
        "axes_dims_rope": (16, 56, 56),
    }
    parts = {
        "transformer": ("QwenImageTransformer2DModel", config),
        "vae": ("AutoencoderKLQwenImage", {"z_dim": 16, "temperal_downsample": [False, True, True]}),
        "text_encoder": qwen_vl_encoder(),
    }

    def others(limits: Mapping[str, int]) -> dict[str, Any]:
        return {"tokenizer": qwen_tokenizer(limits["tokenizer"])}

    grid = {"base_shift": 0.5, "max_shift": 0.9, "base_image_seq_len": 256, "max_image_seq_len": 8192}
    shift = {"use_dynamic_shifting": True, **grid, "shift": 1.0, "shift_terminal": 0.02, "time_shift_type": "exponential"}
    scheduler = "FlowMatchEulerDiscreteScheduler", shift
    remarks = (NOTE_CUT.format(layers=2),)
    return Architecture("QwenImagePipeline", parts, scheduler, others, 1024, {"tokenizer": TOKENS}, remarks=remarks)


FAMILY = Family(
    name="qwen-image",
    title="Qwen-Image",
    pipelines=("QwenImagePipeline",),
    task="text",
    segments=(
        Segment(
            "transformer_blocks",
            build_block,
            block_settings,
            modulated,
            inputs=("hidden_states", "encoder_hidden_states"),
            outputs=(1, 0),
            shared=frozenset({"image_rotary_emb", "joint_attention_kwargs"}),
        ),
    ),
    guidance=guidance,
    arguments=arguments,
    caption_tokens=caption_tokens,
    without_numbers=without_numbers,
    latent=packed,
    geometry=geometry,
    conditioning_at=conditioning_at,
    usual=lambda configs: Usual(50, 4.0),
    call=ModelIO(
        time=lambda t: t / 1000,
        shared=frozenset({"img_shapes", "attention_kwargs"}),
        masks={"encoder_hidden_states": "encoder_hidden_states_mask"},
    ),
    sigmas=even_sigmas,
    side=lambda model: 128 * model.scale,
    patches=lambda config: (0, config["in_channels"]),
    fits=(("text_encoder", "hidden_size", "joint_attention_dim"),),
    expects={"guidance_embeds": False, "zero_cond_t": False, "use_additional_t_cond": False, "use_layer3d_rope": False},
    architectures={"qwen-image": architecture()},
    tiny=Tiny(
        {
            "transformer": {
                "in_channels": 16,
                "out_channels": 4,
                "num_layers": 6,
                "attention_head_dim": 8,
                "num_attention_heads": 2,
                "joint_attention_dim": 16,
                "axes_dims_rope": (2, 2, 4),
            },
            "vae": {
                "base_dim": 8,
                "z_dim": 4,
                "dim_mult": [1, 1],
                "num_res_blocks": 1,
                "temperal_downsample": [False],
                "latents_mean": (0.0,) * 4,
                "latents_std": (1.0,) * 4,
            },
            "text_encoder": TINY_QWEN_VL,
        },
        limits={"tokenizer": 20},
        side=16,
    ),
)
