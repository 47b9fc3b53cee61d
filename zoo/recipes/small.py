"""Smaller siblings of the bundled transformers, for methods that switch between two models.

Half the depth and two thirds of the width or less; latents, text encoder, noise schedule, data and training are the
large sibling's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel, PixArtTransformer2DModel
from transformers import T5EncoderModel, T5Tokenizer

from harness.training.fit import TrainSettings
from zoo.recipes.backbone import ClassDenoiser, TextDenoiser, train_backbone
from zoo.recipes.cards import write_card
from zoo.recipes.models import build_dit, build_pixart


@dataclass(frozen=True)
class SmallRecipe:
    """What is trained beside which large model."""

    large: str
    data: str
    steps: int
    lr: float = 2e-3
    batch: int = 128


SMALL_RECIPES = {
    "tiny-dit-small": SmallRecipe("tiny-dit", "digits", 6000),
    "tiny-pixart-small": SmallRecipe("tiny-pixart", "emoji", 6500),
}


def build_small(data: str) -> DiTTransformer2DModel | PixArtTransformer2DModel:
    """A fresh transformer: DiT of 6 blocks of width 64 for digits, PixArt of 6 blocks of width 80 for emoji."""
    torch.manual_seed(0)
    return build_dit(heads=2, layers=6) if data == "digits" else build_pixart(heads=2, head_dim=40, layers=6)


def _part(kind: Any, folder: Path, name: str) -> Any:
    """One frozen part of the large sibling, in float32."""
    return kind.from_pretrained(folder / name, dtype=torch.float32).eval().requires_grad_(False)


def denoiser(transformer: DiTTransformer2DModel | PixArtTransformer2DModel, large: Path) -> TextDenoiser | ClassDenoiser:
    """The transformer as the backbone recipe trains it; captions go through the large sibling's frozen text encoder."""
    if isinstance(transformer, DiTTransformer2DModel):
        return ClassDenoiser(transformer)
    encoder = _part(T5EncoderModel, large, "text_encoder")
    return TextDenoiser(encoder, transformer, T5Tokenizer.from_pretrained(large / "tokenizer"))


def build_small_sibling(name: str, work: Path, out: Path) -> None:
    """Train one and save it as ``NAME/transformer`` beside the large sibling's folder."""
    recipe = SMALL_RECIPES[name]
    large, folder = out / recipe.large, out / name
    transformer = build_small(recipe.data)
    settings = TrainSettings(steps=recipe.steps, lr=recipe.lr, ema=0.9995, weight_decay=0.01, warmup=300)
    vae = _part(AutoencoderKL, large, "vae")
    record = train_backbone(denoiser(transformer, large), recipe.data, vae, work, settings, recipe.batch, name)
    transformer.half().save_pretrained(folder / "transformer")
    record.save(folder / "training-transformer.json")
    write_card(folder)
