"""Sana: linear attention on latents of a 32 times smaller side, cross-attention to a Gemma caption (arXiv 2410.10629)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.cost.flops import Geometry
from harness.cost.macs import BlockCost, Part, attention, linear
from harness.models.architecture import Architecture, Tiny
from harness.models.families.base import Conditioning, Described, Family, ModelCall, Segment
from harness.models.families.shapes import TIME_CHANNELS, grid, grid_tokens
from harness.models.families.shared import adaln_single, null_first
from harness.models.text import NOTE_CUT, gemma_encoder, gemma_tokenizer

if TYPE_CHECKING:
    from diffusers.models.transformers.sana_transformer import SanaTransformerBlock

TOKENS = 300  # the pipeline's limit; the instruction before a caption is cut off again
SETTINGS = (
    *("num_attention_heads", "attention_head_dim", "num_cross_attention_heads", "cross_attention_head_dim"),
    *("cross_attention_dim", "mlp_ratio", "attention_bias", "norm_elementwise_affine", "norm_eps", "qk_norm"),
)


def block_settings(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The same for all blocks."""
    return {name: config[name] for name in SETTINGS if name in config}


def build_block(settings: dict[str, Any]) -> SanaTransformerBlock:
    """A fresh one."""
    from diffusers.models.transformers.sana_transformer import SanaTransformerBlock

    return SanaTransformerBlock(settings["num_attention_heads"] * settings["attention_head_dim"], **settings)


def caption_tokens(model: Described) -> int:
    """The pipeline's limit, or the tokenizer's."""
    return model.longest(TOKENS)


def arguments(pipeline: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """Captions as they are, behind the pipeline's own instruction; the model's own size, where the pipeline's is always 1024."""
    height, width = pipeline.image_size
    return {
        "height": height,
        "width": width,
        "prompt": list(prompts),
        "negative_prompt": pipeline.negative_prompt,
        "guidance_scale": pipeline.guidance.scale,
        "max_sequence_length": pipeline.caption_tokens,
        "use_resolution_binning": False,
        "clean_caption": False,
    }


def conditioning_at(transformer: Any, call: ModelCall, t: torch.Tensor) -> Conditioning:
    """Blocks get the time embedded."""
    embedded, _ = transformer.time_embed(t, batch_size=len(t), hidden_dtype=call.sample.dtype)
    return {"timestep": embedded}


def block_cost(config: Mapping[str, Any], n: int, m: int) -> BlockCost:
    """A block on ``n`` tokens of the image and ``m`` of the caption. Linear attention sums keys and values first, and carries its
    denominator as one more row."""
    head_width = config["attention_head_dim"]
    d, hidden = config["num_attention_heads"] * head_width, int(config["mlp_ratio"] * model_width(config))
    across = config["num_cross_attention_heads"] * config["cross_attention_head_dim"]
    own, others = 2 * n * (head_width + 1) * d, attention(n, m, across)
    keys = 2 * linear(m, config["cross_attention_dim"], across)
    parts = (
        Part("attn1", "attention", 4 * linear(n, d, d) + own),
        Part("attn2", "cross", linear(n, d, across) + keys + others + linear(n, across, d)),
        Part("ff", "mlp", linear(n, d, 2 * hidden) + 9 * n * 2 * hidden + linear(n, hidden, d)),
    )
    return BlockCost(parts, 0, own + others)


def model_width(config: Mapping[str, Any]) -> int:
    """Of the model."""
    return int(config["num_attention_heads"] * config["attention_head_dim"])


def geometry(model: Described) -> Geometry:
    """The shapes of the transformer."""
    config = model.transformer
    n, m, latent, d = grid_tokens(model), caption_tokens(model), grid(model), model_width(model.transformer)
    patch, caption_width = config["patch_size"], config["caption_channels"]
    head = linear(n, d, patch**2 * (config.get("out_channels") or latent[0]))
    told = TIME_CHANNELS * d + d * d + 6 * d * d
    rest = linear(n, patch**2 * latent[0], d) + told + linear(m, caption_width, d) + linear(m, d, d) + head
    return Geometry((block_cost(config, n, m),) * config["num_layers"], d, n, n, m, caption_width, latent, rest, head)


def _autoencoder() -> dict[str, Any]:
    """The deep-compression autoencoder f32c32 (arXiv 2410.10733): 32 channels at a 32nd of the side."""
    blocks, widths = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3, (128, 256, 512, 512, 1024, 1024)
    scales = ((), (), (), (5,), (5,), (5,))
    return {
        "latent_channels": 32,
        "attention_head_dim": 32,
        "encoder_block_types": blocks,
        "decoder_block_types": blocks,
        "encoder_block_out_channels": widths,
        "decoder_block_out_channels": widths,
        "encoder_qkv_multiscales": scales,
        "decoder_qkv_multiscales": scales,
        "downsample_block_type": "conv",
        "upsample_block_type": "interpolate",
        "scaling_factor": 0.41407,
    }


def architecture(**settings: Any) -> Architecture:
    """Sana 1.6B at 1024, with its text encoder cut to two layers."""
    config = {
        "in_channels": 32,
        "out_channels": 32,
        "num_attention_heads": 70,
        "attention_head_dim": 32,
        "num_layers": 20,
        "num_cross_attention_heads": 20,
        "cross_attention_head_dim": 112,
        "cross_attention_dim": 2240,
        "caption_channels": 2304,
        "mlp_ratio": 2.5,
        "attention_bias": False,
        "sample_size": 32,
        "patch_size": 1,
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        **settings,
    }
    parts = {
        "transformer": ("SanaTransformer2DModel", config),
        "vae": ("AutoencoderDC", _autoencoder()),
        "text_encoder": gemma_encoder(2304, 8, 9216),
    }
    flow = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction", "beta_start": 1e-4}

    def others(limits: Mapping[str, int]) -> dict[str, Any]:
        return {"tokenizer": gemma_tokenizer(limits["tokenizer"])}

    scheduler = "DPMSolverMultistepScheduler", flow
    remarks = (NOTE_CUT.format(layers=2),)
    return Architecture("SanaPipeline", parts, scheduler, others, 1024, {"tokenizer": TOKENS}, remarks=remarks)


FAMILY = Family(
    name="sana",
    title="Sana",
    pipelines=("SanaPipeline",),
    task="text",
    segments=(Segment("transformer_blocks", build_block, block_settings, adaln_single),),
    guidance=null_first,
    arguments=arguments,
    caption_tokens=caption_tokens,
    latent=grid,
    geometry=geometry,
    conditioning_at=conditioning_at,
    fits=(("vae", "latent_channels", "in_channels"), ("text_encoder", "hidden_size", "caption_channels")),
    expects={"guidance_embeds": False, "timestep_scale": 1.0},
    architectures={"sana-1.6b-1024": architecture()},
    tiny=Tiny(
        {
            "transformer": {
                "in_channels": 4,
                "out_channels": 4,
                "num_attention_heads": 2,
                "attention_head_dim": 8,
                "num_layers": 6,
                "num_cross_attention_heads": 2,
                "cross_attention_head_dim": 8,
                "cross_attention_dim": 16,
                "caption_channels": 16,
                "sample_size": 16,  # sides of images must be multiples of 32
            },
            "vae": {
                "latent_channels": 4,
                "attention_head_dim": 2,
                "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
                "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
                "encoder_block_out_channels": (8, 8),
                "decoder_block_out_channels": (8, 8),
                "encoder_qkv_multiscales": ((), (5,)),
                "decoder_qkv_multiscales": ((), (5,)),
                "encoder_layers_per_block": (1, 1),
                "decoder_layers_per_block": (1, 1),
            },
            "text_encoder": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 8,
            },
        },
        limits={"tokenizer": 16},
    ),
)
