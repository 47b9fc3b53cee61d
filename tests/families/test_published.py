"""Every architecture at its published size, on the meta device: parameters, and multiply-accumulates as torch counts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.config.spec import load_spec, preset_names
from harness.models.architecture import class_of, made
from harness.models.random_weights import describe
from harness.paths import ROOT
from studies.families import ARCHITECTURES

Config = Mapping[str, Any]


def sd3(config: Config) -> dict[str, Any]:
    """77 tokens of CLIP and 256 of T5."""
    side = config["sample_size"]
    return {
        "hidden_states": torch.empty(1, 16, side, side),
        "encoder_hidden_states": torch.empty(1, 77 + 256, 4096),
        "pooled_projections": torch.empty(1, 2048),
        "timestep": torch.empty(1),
    }


def flux(config: Config) -> dict[str, Any]:
    """64 x 64 packed tokens; 512 tokens of T5 for dev, 256 for schnell."""
    tokens, embedded = 64 * 64, config["guidance_embeds"]
    caption = 512 if embedded else 256
    return {
        "hidden_states": torch.empty(1, tokens, 64),
        "encoder_hidden_states": torch.empty(1, caption, 4096),
        "pooled_projections": torch.empty(1, 768),
        "timestep": torch.empty(1),
        "img_ids": torch.empty(tokens, 3),
        "txt_ids": torch.empty(caption, 3),
        "guidance": torch.empty(1) if embedded else None,
    }


def sana(config: Config) -> dict[str, Any]:
    """32 x 32 tokens, and 300 of Gemma."""
    return {
        "hidden_states": torch.empty(1, 32, 32, 32),
        "encoder_hidden_states": torch.empty(1, 300, 2304),
        "timestep": torch.empty(1),
    }


def flux2(config: Config) -> dict[str, Any]:
    """64 x 64 packed tokens, and 512 of Mistral or Qwen3."""
    tokens, caption = 64 * 64, 512
    return {
        "hidden_states": torch.empty(1, tokens, 128),
        "encoder_hidden_states": torch.empty(1, caption, config["joint_attention_dim"]),
        "timestep": torch.empty(1),
        "img_ids": torch.empty(1, tokens, 4),
        "txt_ids": torch.empty(1, caption, 4),
        "guidance": torch.empty(1) if config["guidance_embeds"] else None,
    }


def qwen_image(config: Config) -> dict[str, Any]:
    """64 x 64 packed tokens, and 512 of Qwen2.5-VL."""
    return {
        "hidden_states": torch.empty(1, 64 * 64, 64),
        "encoder_hidden_states": torch.empty(1, 512, 3584),
        "timestep": torch.empty(1),
        "img_shapes": [[(1, 64, 64)]],
    }


def chroma(config: Config) -> dict[str, Any]:
    """64 x 64 packed tokens, and 512 of T5."""
    tokens, caption = 64 * 64, 512
    return {
        "hidden_states": torch.empty(1, tokens, 64),
        "encoder_hidden_states": torch.empty(1, caption, 4096),
        "timestep": torch.empty(1),
        "img_ids": torch.empty(tokens, 3),
        "txt_ids": torch.empty(caption, 3),
        "attention_mask": torch.empty(1, caption + tokens),
    }


def z_image(config: Config) -> dict[str, Any]:
    """A list of one image of 128 x 128 latents, and one caption of 512 tokens of Qwen3."""
    return {"x": [torch.empty(16, 1, 128, 128)], "t": torch.empty(1), "cap_feats": [torch.empty(512, 2560)]}


PUBLISHED = {  # parameters of the published transformers, and what a call of one gets
    "sd3-medium": (2_028_328_000, sd3),
    "sd3.5-medium": (2_243_171_520, sd3),
    "sd3.5-large": (8_056_627_520, sd3),
    "flux.1-dev": (11_901_408_320, flux),
    "flux.1-schnell": (11_891_178_560, flux),
    "sana-1.6b-1024": (1_604_462_752, sana),
    "flux.2-dev": (32_223_281_152, flux2),
    "flux.2-klein-4b": (3_875_544_576, flux2),
    "flux.2-klein-base-9b": (9_078_581_248, flux2),
    "qwen-image": (20_430_401_088, qwen_image),
    "chroma1-hd": (8_899_983_424, chroma),
    "z-image": (6_154_908_736, z_image),
    "z-image-turbo": (6_154_908_736, z_image),
}
PRESETS = [name for name in preset_names() if name in ARCHITECTURES and name in PUBLISHED]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_their_parameters_and_multiply_accumulates(name: str) -> None:
    parameters, told = PUBLISHED[name]
    kind, config = ARCHITECTURES[name].parts["transformer"]
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = made(class_of(kind), config).eval()
        model(**told(config), return_dict=False)
    family, described = describe(ARCHITECTURES[name])
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert family.geometry(described).forward_macs == counter.get_total_flops() // 2


def test_every_published_size_has_a_preset() -> None:
    assert set(PRESETS) == set(PUBLISHED)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_whole(name: str) -> None:
    """It names a checkpoint, its licence and the source of its values, and its own solver; fewer steps are among its rivals."""
    spec = load_spec(name)
    family, described = describe(ARCHITECTURES[name])
    text = "\n".join((ROOT / "presets" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[:8])
    assert "Licence: " in text and ("diffusers" in text or "not confirmed" in text)
    assert spec.pipeline.startswith("hub:") and spec.solver == "checkpoint" and spec.methods[0] == "full"
    fewer = [int(method[6:]) for method in spec.methods if method.startswith("steps:")]
    assert fewer and max(fewer) < spec.steps
    parameters = sum(PUBLISHED[name][:1])
    assert spec.memory_gib is not None and spec.memory_gib > 2 * parameters / 2**30
    assert spec.dtype in ("float16", "bfloat16") and family.side(described) in (1024, spec.height)
