"""Z-Image and its turbo (Alibaba 2025): one joined stream, lists in the place of batches, a negated prediction, flow matching.

Guidance starts from the conditional branch, c + s (c - null), and is on from any s above 0. Its norm over an image is held to the
conditional one's, as the model card's example asks for (``cfg_normalization``); diffusers leaves that out unasked. Two small
lists of blocks refine image and caption before they are joined: they are no blocks here, and run at every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from harness.cost.flops import Geometry
from harness.cost.guidance import Guidance
from harness.cost.macs import BlockCost, Part, attention, linear
from harness.models.architecture import Architecture, Tiny
from harness.models.autoencoders import TINY_KL, kl
from harness.models.families.base import Conditioning, Configs, Described, Family, ModelCall, ModelIO, Segment, State, Usual
from harness.models.families.shapes import TIME_CHANNELS, even_sigmas
from harness.models.text import NOTE_CUT, qwen3_encoder, qwen_tokenizer
from harness.sampling.patching import patched

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock

TOKENS, SIDE, TURBO_SHIFT = 512, 1024, 3.0
MULTIPLE = 32  # tokens of image and caption are each filled up to
MODULATION, TIME_WIDTH = 256, 1024  # the widest time embedding, and the layer before it


def block_settings(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The same for all blocks."""
    names = ("dim", "n_heads", "n_kv_heads", "norm_eps", "qk_norm")
    return {"layer_id": 0, **{name: config[name] for name in names}}


def build_block(settings: dict[str, Any]) -> ZImageTransformerBlock:
    """A fresh one."""
    from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock

    return ZImageTransformerBlock(**settings)


def modulated(block: Any, state: State, conditioning: Conditioning) -> torch.Tensor:
    """Normed and scaled; there is no shift."""
    scale = 1 + block.adaLN_modulation(conditioning["adaln_input"])[:, None].chunk(4, dim=2)[0]
    output: torch.Tensor = block.attention_norm1(state[0]) * scale
    return output


def guidance(configs: Configs, scale: float, true_guidance: float) -> Guidance:
    """Both branches are one list, the conditional one first."""
    return Guidance(scale, "conditional first", off=0.0, base="conditional", most_norm=1.0)


def caption_tokens(model: Described) -> int:
    """The pipeline's limit, or the tokenizer's, the words of a conversation around a prompt included."""
    return model.longest(TOKENS)


def in_conversation(pipe: Any, prompt: str) -> str:
    """What a user says to a Qwen 3 that may think."""
    said, told = [{"role": "user", "content": prompt}], {"add_generation_prompt": True, "enable_thinking": True}
    return str(pipe.tokenizer.apply_chat_template(said, tokenize=False, **told))


def arguments(pipeline: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """Guidance at every step: it is cut off at no time."""
    chosen = pipeline.guidance
    return {
        "prompt": list(prompts),
        "negative_prompt": [pipeline.negative_prompt] * len(prompts),
        "guidance_scale": chosen.scale,
        "cfg_normalization": chosen.most_norm,
        "cfg_truncation": None,
        "max_sequence_length": pipeline.caption_tokens,
    }


def without_numbers(pipeline: Any) -> AbstractContextManager[None]:
    """Captions of full length, whose real tokens the pipeline would count, and no norms, which it would compare."""

    def encode(*args: Any, prompt: Sequence[str], do_classifier_free_guidance: bool, **kwargs: Any) -> Any:
        ids = torch.zeros(len(prompt), pipeline.caption_tokens, dtype=torch.long, device=pipeline.device)
        halves = [pipeline.pipe.text_encoder(input_ids=ids, output_hidden_states=True).hidden_states[-2] for _ in range(2)]
        return list(halves[0].unbind()), list(halves[1].unbind()) if do_classifier_free_guidance else []

    @contextmanager
    def changed() -> Iterator[None]:
        plain = replace(pipeline.guidance, most_norm=0.0)
        with patched(pipeline.pipe, "encode_prompt", encode), patched(pipeline, "guidance", plain):
            yield

    return changed()


def conditioning_at(transformer: Any, call: ModelCall, t: torch.Tensor) -> Conditioning:
    """Blocks get the time embedded; it runs from 0 (noise) to 1."""
    return {"adaln_input": transformer.t_embedder((1000 - t) / 1000 * transformer.t_scale).type_as(call.sample)}


def latent(model: Described) -> tuple[int, int, int]:
    """Channels, height and width of one image's latent."""
    height, width = (2 * ((pixels or SIDE) // (2 * model.scale)) for pixels in (model.height, model.width))
    return int(model.transformer["in_channels"]), height, width


def block_cost(d: int, tokens: int, modulation: int) -> BlockCost:
    """A block of width ``d``, told the time in ``modulation`` channels (0: not at all)."""
    products = attention(tokens, tokens, d)
    parts = (
        Part("attention", "attention", 4 * linear(tokens, d, d) + products),
        Part("feed_forward", "mlp", 3 * linear(tokens, d, int(d / 3 * 8))),
    )
    return BlockCost(parts, modulation * 4 * d, products)


def filled(tokens: int) -> int:
    """Tokens with those that fill them up."""
    return -(-tokens // MULTIPLE) * MULTIPLE


def geometry(model: Described) -> Geometry:
    """The shapes of the transformer, for captions of full length."""
    config, shape, d = model.transformer, latent(model), model.transformer["dim"]
    patch, caption_width, time = config["all_patch_size"][0], config["cap_feat_dim"], min(d, MODULATION)
    tokens = (shape[1] // patch) * (shape[2] // patch)
    n, m, values = filled(tokens), filled(caption_tokens(model)), patch**2 * shape[0]
    head = linear(n + m, d, values) + time * d
    told = TIME_CHANNELS * TIME_WIDTH + TIME_WIDTH * time
    refiners = config["n_refiner_layers"] * (block_cost(d, n, time).block + block_cost(d, m, 0).block)
    rest = linear(n, values, d) + linear(m, caption_width, d) + told + refiners + head
    blocks = (block_cost(d, n + m, time),) * config["n_layers"]
    return Geometry(blocks, d, tokens, n + m, m, caption_width, shape, rest, head)


def architecture(shift: float) -> Architecture:
    """A published one, with its text encoder cut to two layers."""
    config = {
        "all_patch_size": (2,),
        "all_f_patch_size": (1,),
        "in_channels": 16,
        "dim": 3840,
        "n_layers": 30,
        "n_refiner_layers": 2,
        "n_heads": 30,
        "n_kv_heads": 30,
        "norm_eps": 1e-5,
        "qk_norm": True,
        "cap_feat_dim": 2560,
        "axes_dims": [32, 48, 48],
        "axes_lens": [1024, 512, 512],
    }
    scaling: dict[str, Any] = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False}
    parts = {
        "transformer": ("ZImageTransformer2DModel", config),
        "vae": kl(128, latent_channels=16, use_post_quant_conv=False, **scaling),
        "text_encoder": ("Qwen3Model", qwen3_encoder(2560, 32, 8, 128, 9728, 2)[1]),
    }

    def others(limits: Mapping[str, int]) -> dict[str, Any]:
        return {"tokenizer": qwen_tokenizer(limits["tokenizer"])}

    scheduler, limits = ("FlowMatchEulerDiscreteScheduler", {"shift": shift}), {"tokenizer": TOKENS}
    remarks = (NOTE_CUT.format(layers=2),)
    return Architecture("ZImagePipeline", parts, scheduler, others, SIDE, limits, depth=("n_layers",), remarks=remarks)


FAMILY = Family(
    name="z-image",
    title="Z-Image",
    pipelines=("ZImagePipeline",),
    task="text",
    segments=(
        Segment(
            "layers",
            build_block,
            block_settings,
            modulated,
            depth="n_layers",
            inputs=("x",),
            image=lambda tokens, all_tokens: slice(0, tokens),
        ),
    ),
    guidance=guidance,
    arguments=arguments,
    caption_tokens=caption_tokens,
    written=in_conversation,
    without_numbers=without_numbers,
    latent=latent,
    geometry=geometry,
    conditioning_at=conditioning_at,
    usual=lambda configs: Usual(8, 0.0) if configs.get("scheduler", {}).get("shift") == TURBO_SHIFT else Usual(50, 4.0),
    call=ModelIO(sample="x", timestep="t", time=lambda t: (1000 - t) / 1000, sign=-1, listed=True),
    sigmas=even_sigmas,
    side=lambda model: SIDE,
    patches=lambda config: (config["all_patch_size"][0], config["in_channels"]),
    fits=(("vae", "latent_channels", "in_channels"), ("text_encoder", "hidden_size", "cap_feat_dim")),
    expects={"siglip_feat_dim": None},
    architectures={"z-image": architecture(6.0), "z-image-turbo": architecture(TURBO_SHIFT)},
    tiny=Tiny(
        {
            "transformer": {
                "in_channels": 4,
                "dim": 16,
                "n_layers": 6,
                "n_refiner_layers": 1,
                "n_heads": 2,
                "n_kv_heads": 2,
                "cap_feat_dim": 16,
                "axes_dims": [4, 2, 2],
            },
            "vae": TINY_KL | {"latent_channels": 4},
            "text_encoder": qwen3_encoder(16, 2, 1, 8, 32, 1)[1],
        },
        limits={"tokenizer": 32},
        side=32,
    ),
)
