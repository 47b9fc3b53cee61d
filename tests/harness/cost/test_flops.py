"""FLOPs counted from shapes, against torch's own counter on the true transformers (meta tensors: nothing is computed)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.cost.flops import FLOPS_PER_MAC, Geometry
from harness.models.architecture import Architecture
from harness.models.random_weights import architectures, describe

ARCHITECTURES = {**architectures("class"), **architectures("text")}

PUBLISHED_GMACS = {"dit-xl-2-256": 118.64, "dit-xl-2-512": 524.60}  # table 4 and section 5 of arXiv 2212.09748
RESOLUTION_MACS = 737_280  # alpha-1024's three small embeddings of resolution and aspect ratio, left out of the formula


def counted(architecture: Architecture, rows: int) -> float:
    """Multiply-accumulates of one call on ``rows`` images."""
    config, captions = architecture.configs["transformer"], bool(architecture.limits)
    side = config["sample_size"]
    transformer = architecture.empty("transformer").to("meta").eval()
    with torch.device("meta"):
        latents, timestep = torch.zeros(rows, 4, side, side), torch.zeros(rows, dtype=torch.long)
        arguments: dict[str, Any] = {"class_labels": torch.zeros(rows, dtype=torch.long)}
        if captions:
            told, tokens = config["use_additional_conditions"], architecture.limits["tokenizer"]
            arguments = {
                "encoder_hidden_states": torch.zeros(rows, tokens, config["caption_channels"]),
                "encoder_attention_mask": torch.ones(rows, tokens),
                "added_cond_kwargs": {
                    "resolution": torch.zeros(rows, 2) if told else None,
                    "aspect_ratio": torch.zeros(rows, 1) if told else None,
                },
            }
    with FlopCounterMode(display=False) as counter:
        transformer(latents, timestep=timestep, **arguments)
    return counter.get_total_flops() / FLOPS_PER_MAC


def shapes(name: str) -> Geometry:
    """Of a published architecture."""
    family, model = describe(ARCHITECTURES[name])
    return family.geometry(model)


@pytest.mark.parametrize("name", ["dit-xl-2-256", "pixart-alpha-1024", "pixart-sigma-512"])
def test_the_formula_is_what_torch_counts(name: str) -> None:
    architecture = ARCHITECTURES[name]
    told = bool(architecture.configs["transformer"].get("use_additional_conditions"))
    assert counted(architecture, 2) == 2 * (shapes(name).forward_macs + RESOLUTION_MACS * told)


@pytest.mark.parametrize("name", PUBLISHED_GMACS)
def test_it_agrees_with_the_paper(name: str) -> None:
    geometry = shapes(name)
    assert geometry.forward_macs / 1e9 == pytest.approx(PUBLISHED_GMACS[name], rel=1e-3)


def test_denoising_is_blocks_and_calls() -> None:
    geometry = shapes("dit-xl-2-256")
    assert geometry.denoising_flops(20 * 2 * 28, 20 * 2) == 2 * 20 * 2 * geometry.forward_macs
