"""Chroma (lodestones 2025): FLUX.1 without a pooled caption; one small network makes the modulations of all blocks at once.

Captions are padded and masked, guidance is a second call, and each block gets modulations of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from harness.cost.flops import Geometry
from harness.cost.guidance import Guidance
from harness.cost.macs import linear
from harness.models.architecture import Architecture, Tiny
from harness.models.autoencoders import TINY_KL, kl
from harness.models.families import flux
from harness.models.families.base import Conditioning, Configs, Described, Family, ModelCall, ModelIO, Segment, State, Usual
from harness.models.families.shapes import even_sigmas, packed
from harness.models.families.shared import behind_captions, joined
from harness.models.text import NOTE_T5, TINY_T5, t5_encoder, t5_tokenizer

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_chroma import ChromaSingleTransformerBlock, ChromaTransformerBlock

TOKENS = 512
DOUBLE_ROWS, SINGLE_ROWS, HEAD_ROWS = 6, 3, 2  # modulations of a block's stream, of a block of the joined stream, of the head


def build_double(settings: dict[str, Any]) -> ChromaTransformerBlock:
    """A fresh block of two streams."""
    from diffusers.models.transformers.transformer_chroma import ChromaTransformerBlock

    return ChromaTransformerBlock(**settings)


def build_single(settings: dict[str, Any]) -> ChromaSingleTransformerBlock:
    """A fresh block of the joined stream."""
    from diffusers.models.transformers.transformer_chroma import ChromaSingleTransformerBlock

    return ChromaSingleTransformerBlock(**settings)


def modulated_double(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """The image's stream."""
    output: torch.Tensor = block.norm1(state[0], emb=conditioning["temb"][:, :DOUBLE_ROWS])[0]
    return output


def modulated_single(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """The joined stream."""
    output: torch.Tensor = block.norm(state[0], emb=conditioning["temb"])[0]
    return output


def guidance(configs: Configs, scale: float, true_guidance: float) -> Guidance:
    """The null branch is a second call."""
    return Guidance(scale, "calls")


def caption_tokens(model: Described) -> int:
    """The padded length."""
    return model.longest(TOKENS)


def arguments(pipeline: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """The prompts, their guidance and their length."""
    negative = {"negative_prompt": [pipeline.negative_prompt] * len(prompts)} if pipeline.guidance.on else {}
    told = {"guidance_scale": pipeline.guidance.scale, "max_sequence_length": pipeline.caption_tokens}
    return {"prompt": list(prompts), **negative, **told}


def modulations(transformer: Any, call: ModelCall, t: torch.Tensor) -> Conditioning:
    """Those of all blocks in one tensor [rows, modulations, d]."""
    told = (t.to(call.sample.dtype) / 1000).to(call.sample.dtype) * 1000
    return {"temb": transformer.distilled_guidance_layer(transformer.time_text_embed(told))}


def of_double(transformer: Any, timed: Conditioning, place: int) -> Conditioning:
    """The image's modulations of the block at a place, and the caption's; those of the other list stand before all."""
    doubles, before = len(transformer.transformer_blocks), SINGLE_ROWS * len(transformer.single_transformer_blocks)
    starts = (before + DOUBLE_ROWS * place, before + DOUBLE_ROWS * (doubles + place))
    return {"temb": torch.cat([timed["temb"][:, start : start + DOUBLE_ROWS] for start in starts], dim=1)}


def of_single(transformer: Any, timed: Conditioning, place: int) -> Conditioning:
    """Those of the block at a place."""
    return {"temb": timed["temb"][:, SINGLE_ROWS * place : SINGLE_ROWS * (place + 1)]}


def geometry(model: Described) -> Geometry:
    """The shapes of the transformer."""
    config = model.transformer
    latent, m, caption_width = packed(model), caption_tokens(model), config["joint_attention_dim"]
    n, channels = latent
    d = config["num_attention_heads"] * config["attention_head_dim"]
    doubles, singles = config["num_layers"], config["num_single_layers"]
    blocks = (flux.double_cost(d, n, m),) * doubles + (flux.single_cost(d, n + m),) * singles
    rows, hidden = 2 * DOUBLE_ROWS * doubles + SINGLE_ROWS * singles + HEAD_ROWS, config["approximator_hidden_dim"]
    inner = 2 * config["approximator_layers"] * linear(rows, hidden, hidden)
    told = linear(rows, config["approximator_num_channels"], hidden) + inner + linear(rows, hidden, d)
    head = linear(n, d, config["patch_size"] ** 2 * (config.get("out_channels") or channels))
    rest = linear(n, channels, d) + linear(m, caption_width, d) + told + head
    unmodulated = tuple(replace(block, rest=0) for block in blocks)
    return Geometry(unmodulated, d, n, n + m, m, caption_width, latent, rest, head)


CONFIG = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "axes_dims_rope": (16, 56, 56),
    "approximator_num_channels": 64,
    "approximator_hidden_dim": 5120,
    "approximator_layers": 5,
}
VAE: dict[str, Any] = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False}
HD = Architecture(
    "ChromaPipeline",
    {
        "transformer": ("ChromaTransformer2DModel", CONFIG),
        "vae": kl(128, latent_channels=16, **VAE),
        "text_encoder": t5_encoder(),
    },
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_dynamic_shifting": True}),
    lambda limits: {"tokenizer": t5_tokenizer(limits["tokenizer"])},
    1024,
    {"tokenizer": TOKENS},
    depth=("num_layers", "num_single_layers"),
    remarks=(NOTE_T5.format(layers=2),),
)
SHARED = frozenset({"image_rotary_emb", "joint_attention_kwargs"})
DOUBLE = Segment(
    "transformer_blocks",
    build_double,
    flux.block_settings,
    modulated_double,
    inputs=("hidden_states", "encoder_hidden_states"),
    outputs=(1, 0),
    shared=SHARED,
    timed=of_double,
)
SINGLE = Segment(
    "single_transformer_blocks",
    build_single,
    flux.block_settings,
    modulated_single,
    depth="num_single_layers",
    shared=SHARED,
    enter=joined,
    image=behind_captions,
    timed=of_single,
)
FAMILY = Family(
    name="chroma",
    title="Chroma",
    pipelines=("ChromaPipeline",),
    task="text",
    segments=(DOUBLE, SINGLE),
    guidance=guidance,
    arguments=arguments,
    caption_tokens=caption_tokens,
    latent=packed,
    geometry=geometry,
    conditioning_at=modulations,
    usual=lambda configs: Usual(35, 5.0),
    call=ModelIO(time=lambda t: t / 1000, shared=frozenset({"txt_ids", "img_ids", "joint_attention_kwargs"})),
    sigmas=even_sigmas,
    side=lambda model: 128 * model.scale,
    patches=lambda config: (0, config["in_channels"]),
    fits=(("text_encoder", "d_model", "joint_attention_dim"),),
    architectures={"chroma1-hd": HD},
    tiny=Tiny(
        {
            "transformer": {
                "in_channels": 16,
                "num_layers": 2,
                "num_single_layers": 4,
                "attention_head_dim": 8,
                "num_attention_heads": 2,
                "joint_attention_dim": 16,
                "axes_dims_rope": (2, 2, 4),
                "approximator_num_channels": 8,
                "approximator_hidden_dim": 32,
                "approximator_layers": 1,
            },
            "vae": TINY_KL | {"latent_channels": 4},
            "text_encoder": TINY_T5,
        },
        limits={"tokenizer": 16},
        side=16,
    ),
)
