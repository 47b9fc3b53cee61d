"""The null controls of a run, made from the full run's first images; harness/statistics/controls.py says what each is for."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from harness.contracts import Batch
from harness.statistics.controls import IDENTICAL, JPEG, SHUFFLED

IMAGES = 100  # of the full run, at most
JPEG_QUALITY = 50


def shuffled(prompts: Sequence[str]) -> list[str]:
    """The prompts rotated by the shift that gives most of them another text, the one nearest to half way round."""
    n = len(prompts)
    shifts = sorted(range(1, n), key=lambda shift: abs(shift - n / 2))
    best = max(shifts, key=lambda shift: sum(prompts[i] != prompts[i - shift] for i in range(n)), default=0)
    return [prompts[i - best] for i in range(n)]


def as_jpeg(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, H, W] after JPEG of quality 50."""
    copies = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=JPEG_QUALITY)
        with Image.open(buffer) as copy:
            copies.append(torch.from_numpy(np.array(copy)).permute(2, 0, 1))
    return torch.stack(copies)


def _constant(images: torch.Tensor) -> torch.Tensor:
    colours = images.float().mean(dim=(2, 3), keepdim=True).round().to(torch.uint8)
    return colours.expand_as(images).clone()


def _noise(images: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator)


MAKE: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    IDENTICAL: torch.clone,
    JPEG: as_jpeg,
    SHUFFLED: torch.clone,
    "constant": _constant,
    "noise": _noise,
    "black": torch.zeros_like,
}


def control_batch(control: str, full: Batch) -> Batch:
    """The control that belongs to a batch of the full run."""
    prompts = shuffled(full.prompts) if control == SHUFFLED else full.prompts
    return Batch(MAKE[control](full.images), prompts, full.indices, full.images, full.converged)
