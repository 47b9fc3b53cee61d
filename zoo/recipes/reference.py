"""Reference features of the Fréchet metrics: real images under augmentation draws that no training saw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch

from harness.results import FloatArray
from metrics.bundled.networks import BundledNetworks, Task
from metrics.reference import describe_reference, write_reference
from zoo.recipes import digits, emoji

SEED = 99  # the latent cache uses 7, the scorers' training 0 and up by step
EMOJI_DRAWS, DIGIT_DRAWS = 40, 8


def emoji_images() -> Iterator[torch.Tensor]:
    """The held-out captions' images, as the tiny-text preset prompts for them: uint8 [n, 3, 32, 32] a draw."""
    generator = torch.Generator().manual_seed(SEED)
    everyone, wanted = emoji.captions(), set(emoji.split_captions("held-out"))
    index = torch.tensor([i for i, caption in enumerate(everyone) if caption in wanted])
    for _ in range(EMOJI_DRAWS):
        yield emoji.render(index, emoji.draw_augmentation(index, generator))


def digit_images() -> Iterator[torch.Tensor]:
    """The held-out fifth of the digits, shifted: uint8 [n, 3, 32, 32] a draw."""
    generator = torch.Generator().manual_seed(SEED)
    images, _ = digits.split("held-out")
    for _ in range(DIGIT_DRAWS):
        yield digits.render(images, 2 * torch.rand(len(images), 2, generator=generator) - 1)


def build_references(out: Path) -> None:
    """Write ``reference.npz`` into both pipeline folders."""
    sets: tuple[tuple[str, Task, Iterator[torch.Tensor]], ...] = (
        ("tiny-pixart", "text", emoji_images()),
        ("tiny-dit", "class", digit_images()),
    )
    for name, task, images in sets:
        extractor = BundledNetworks(out / "scorers", task).frechet_features
        batches = list(images)
        features: FloatArray = torch.cat([extractor(batch) for batch in batches]).numpy()
        pixels = torch.cat(batches).numpy()
        data = f"{name}: {len(features)} real images {hashlib.sha256(pixels.tobytes()).hexdigest()}"
        write_reference(out / name / "reference.npz", features, describe_reference(extractor, data), pixels)
