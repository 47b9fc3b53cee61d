"""FLUX.2 (Black Forest Labs 2025): few blocks of two streams, then many of one joined stream, modulated from outside.

Every block of a list gets the same modulations, which the transformer makes from the time once a call. FLUX.2-dev is told the
guidance scale; :mod:`harness.models.families.flux2_klein` is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from harness.cost.flops import Geometry
from harness.cost.guidance import Guidance
from harness.cost.macs import BlockCost, Part, attention, linear
from harness.models.architecture import Architecture, Tiny
from harness.models.autoencoders import TINY_KL, kl
from harness.models.families.base import Conditioning, Configs, Described, Family, ModelCall, ModelIO, Segment, State, Usual
from harness.models.families.flux import block_settings as shape_settings
from harness.models.families.shapes import even_sigmas, packed
from harness.models.families.shared import behind_captions, joined
from harness.models.text import NOTE_CUT, mistral_encoder, mistral_tokenizer, qwen_tokenizer
from harness.sampling.patching import patched

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_flux2 import Flux2SingleTransformerBlock, Flux2TransformerBlock

TOKENS = 512  # every caption is padded to it, and nothing is masked
READ = 10, 20, 30  # the layers of Mistral whose states make a caption
CUT = 3  # layers of a text encoder with random weights: all of them are read


def block_settings(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The same for both kinds of blocks, whatever their number."""
    return shape_settings(config, number) | {name: config[name] for name in ("mlp_ratio", "eps") if name in config}


def build_double(settings: dict[str, Any]) -> Flux2TransformerBlock:
    """A fresh block of two streams."""
    from diffusers.models.transformers.transformer_flux2 import Flux2TransformerBlock

    return Flux2TransformerBlock(**settings)


def build_single(settings: dict[str, Any]) -> Flux2SingleTransformerBlock:
    """A fresh block of the joined stream."""
    from diffusers.models.transformers.transformer_flux2 import Flux2SingleTransformerBlock

    return Flux2SingleTransformerBlock(**settings)


def _shifted(normed: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
    """``normed`` [rows, tokens, d] with the first shift and scale of a ``modulation`` [rows, 3 d or 6 d]."""
    width = normed.shape[-1]
    shift, scale = modulation[:, None, :width], modulation[:, None, width : 2 * width]
    return (1 + scale) * normed + shift


def modulated_double(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """The image's stream."""
    return _shifted(block.norm1(state[0]), conditioning["temb_mod_img"])


def modulated_single(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """The joined stream."""
    return _shifted(block.norm(state[0]), conditioning["temb_mod"])


def told(configs: Configs, scale: float, true_guidance: float) -> Guidance:
    """Dev is told the scale, and has no second branch."""
    return Guidance(1.0, "none", told=scale)


def caption_layers(encoder: Mapping[str, Any], read: tuple[int, ...]) -> tuple[int, ...]:
    """Those that are ``read`` of a published text encoder; the last three of a shorter one, which has random weights."""
    depth = (encoder.get("text_config") or encoder)["num_hidden_layers"]
    return read if depth >= read[-1] else tuple(range(depth - len(read) + 1, depth + 1))


def caption_tokens(model: Described) -> int:
    """The padded length."""
    return model.longest(TOKENS)


def arguments(pipeline: Any, prompts: Sequence[str], read: tuple[int, ...]) -> dict[str, Any]:
    """The scale is dev's embedding or klein's guidance; ``read``: the text encoder's layers whose states make a caption."""
    chosen = pipeline.guidance
    return {
        "prompt": list(prompts),
        "guidance_scale": chosen.scale if chosen.told is None else chosen.told,
        "max_sequence_length": pipeline.caption_tokens,
        "text_encoder_out_layers": caption_layers(pipeline.described.configs["text_encoder"], read),
    }


def instructed(pipe: Any, prompt: str) -> str:
    """Dev's conversation, which begins with what the text encoder shall do."""
    from diffusers.pipelines.flux2.pipeline_flux2 import format_input

    return str(pipe.tokenizer.apply_chat_template(format_input([prompt], pipe.system_message)[0], tokenize=False))


def unpacked_by_size(pipeline: Any) -> AbstractContextManager[None]:
    """Dev's pipeline looks for the image's size in the positions of its tokens; klein's takes it."""
    from diffusers import Flux2KleinPipeline

    height, width = (pixels // pipeline.described.scale // 2 for pixels in pipeline.image_size)
    unpack = partial(Flux2KleinPipeline._unpack_latents_with_ids, height=height, width=width)
    return patched(pipeline.pipe, "_unpack_latents_with_ids", unpack)


def conditioning_at(transformer: Any, call: ModelCall, t: torch.Tensor) -> Conditioning:
    """The modulations of both kinds of blocks."""
    dtype, scale = call.sample.dtype, call.conditioning.get("guidance")
    told = (t.to(dtype) / 1000).to(dtype) * 1000
    temb = transformer.time_guidance_embed(told, None if scale is None else scale.to(dtype) * 1000)
    return {
        "temb_mod_img": transformer.double_stream_modulation_img(temb),
        "temb_mod_txt": transformer.double_stream_modulation_txt(temb),
        "temb_mod": transformer.single_stream_modulation(temb),
    }


def mu(config: Mapping[str, Any], tokens: int, steps: int) -> float:
    """The pipelines fit it to the image's tokens and, below 4,300 of these, to the step count."""
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    return float(compute_empirical_mu(tokens, steps))


def double_cost(d: int, hidden: int, n: int, m: int) -> BlockCost:
    """A block of two streams of width ``d``, on ``n`` tokens of the image and ``m`` of the caption; gated MLPs."""
    products = attention(n + m, n + m, d)
    parts = (
        Part("attn", "attention", 4 * linear(n + m, d, d) + products),
        Part("ff", "mlp", 3 * linear(n, d, hidden)),
        Part("ff_context", "mlp", 3 * linear(m, d, hidden)),
    )
    return BlockCost(parts, 0, products)


def single_cost(d: int, hidden: int, tokens: int) -> BlockCost:
    """Attention and a gated MLP in one module, which projects into both and out of both at once."""
    products = attention(tokens, tokens, d)
    projected = linear(tokens, d, 3 * d + 2 * hidden) + linear(tokens, d + hidden, d)
    return BlockCost((Part("attn", "output", projected + products),), 0, products)


def geometry(model: Described) -> Geometry:
    """The shapes of the transformer."""
    config = model.transformer
    latent, m, caption_width = packed(model), caption_tokens(model), config["joint_attention_dim"]
    n, channels = latent
    d = config["num_attention_heads"] * config["attention_head_dim"]
    hidden = int(d * config.get("mlp_ratio", 3.0))
    doubles = (double_cost(d, hidden, n, m),) * config["num_layers"]
    singles = (single_cost(d, hidden, n + m),) * config["num_single_layers"]
    embeddings = 2 if config.get("guidance_embeds", True) else 1
    told = embeddings * (config.get("timestep_guidance_channels", 256) * d + d * d) + (6 + 6 + 3) * d * d
    head = linear(n, d, config.get("out_channels") or channels)
    rest = linear(n, channels, d) + linear(m, caption_width, d) + told + 2 * d * d + head
    return Geometry((*doubles, *singles), d, n, n + m, m, caption_width, latent, rest, head)


def architecture(
    layers: tuple[int, int], heads: int, encoder: tuple[str, dict[str, Any]], distilled: bool | None = None
) -> Architecture:
    """A published one, its text encoder cut to three layers. ``distilled``: whether a klein is; None: it is dev."""
    text = encoder[1].get("text_config", encoder[1])
    config = {
        "patch_size": 1,
        "in_channels": 128,
        "num_layers": layers[0],
        "num_single_layers": layers[1],
        "attention_head_dim": 128,
        "num_attention_heads": heads,
        "joint_attention_dim": CUT * text["hidden_size"],
        "timestep_guidance_channels": 256,
        "mlp_ratio": 3.0,
        "axes_dims_rope": (32, 32, 32, 32),
        "rope_theta": 2000,
        "eps": 1e-6,
        "guidance_embeds": distilled is None,
    }
    tokenizer = mistral_tokenizer if distilled is None else qwen_tokenizer
    parts = {
        "transformer": ("Flux2Transformer2DModel", config),
        "vae": ("AutoencoderKLFlux2", kl(128, latent_channels=32)[1]),
        "text_encoder": encoder,
    }
    return Architecture(
        "Flux2Pipeline" if distilled is None else "Flux2KleinPipeline",
        parts,
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_dynamic_shifting": True}),
        lambda limits: {"tokenizer": tokenizer(limits["tokenizer"])},
        1024,
        {"tokenizer": TOKENS},
        depth=("num_layers", "num_single_layers"),
        remarks=(NOTE_CUT.format(layers=CUT),),
        settings={} if distilled is None else {"is_distilled": distilled},
    )


SHARED = frozenset({"image_rotary_emb", "joint_attention_kwargs"})
DOUBLE = Segment(
    "transformer_blocks",
    build_double,
    block_settings,
    modulated_double,
    inputs=("hidden_states", "encoder_hidden_states"),
    outputs=(1, 0),
    shared=SHARED,
)
SINGLE = Segment(
    "single_transformer_blocks",
    build_single,
    block_settings,
    modulated_single,
    depth="num_single_layers",
    shared=SHARED,
    enter=joined,
    image=behind_captions,
)


def tiny(encoder: Mapping[str, Any]) -> Tiny:
    """What makes an architecture with the settings of a small text ``encoder`` small."""
    transformer = {
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 4,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": CUT * 16,
        "axes_dims_rope": (2, 2, 2, 2),
    }
    parts = {"transformer": transformer, "vae": TINY_KL | {"latent_channels": 4}, "text_encoder": encoder}
    return Tiny(parts, {"tokenizer": 16}, 16)


FAMILY = Family(
    name="flux2",
    title="FLUX.2",
    pipelines=("Flux2Pipeline",),
    task="text",
    segments=(DOUBLE, SINGLE),
    guidance=told,
    arguments=partial(arguments, read=READ),
    caption_tokens=caption_tokens,
    latent=packed,
    geometry=geometry,
    conditioning_at=conditioning_at,
    usual=lambda configs: Usual(50, 4.0),
    call=ModelIO(time=lambda t: t / 1000, shared=frozenset({"joint_attention_kwargs"})),
    sigmas=even_sigmas,
    mu=mu,
    side=lambda model: 128 * model.scale,
    patches=lambda config: (0, config["in_channels"]),
    expects={"patch_size": 1, "guidance_embeds": True},
    negative=False,
    written=instructed,
    without_numbers=unpacked_by_size,
    architectures={"flux.2-dev": architecture((8, 48), 48, mistral_encoder(5120, 32, 8, 128, 32768, CUT))},
    tiny=tiny(mistral_encoder(16, 2, 1, 8, 32, CUT)[1]),
)
