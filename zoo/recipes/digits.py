"""scikit-learn's bundled handwritten digits as a class-to-image data set (UCI, CC BY 4.0): 1,797 images of 8x8 pixels."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F

IMAGE_SIZE = 32
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAIN_FRACTION = 0.8


def captions() -> list[str]:
    """The prompt that stands for each class: ``a handwritten three``."""
    return [f"a handwritten {name}" for name in NAMES]


@cache
def load() -> tuple[torch.Tensor, torch.Tensor]:
    """All digits in a fixed shuffled order: images float32 [1797, 1, 8, 8] in 0..1 and labels int64 [1797]."""
    from sklearn.datasets import load_digits  # a recipe-only dependency

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    return images[order], torch.from_numpy(data.target).long()[order]


def split(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``train`` (first 80%) or ``held-out`` (rest) digits."""
    images, labels = load()
    cut = int(TRAIN_FRACTION * len(images))
    chosen = slice(0, cut) if part == "train" else slice(cut, None)
    return images[chosen], labels[chosen]


def render(images: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
    """Digits [B, 1, 8, 8] as uint8 [B, 3, 32, 32] white on black; ``shift`` [B, 2] moves them by pixels of the result."""
    large = F.interpolate(images, size=(IMAGE_SIZE - 4, IMAGE_SIZE - 4), mode="bicubic", align_corners=False)
    large = F.pad(large, (2, 2, 2, 2))
    if shift is not None:
        theta = torch.eye(2, 3).repeat(len(images), 1, 1)
        theta[:, :, 2] = -2 * shift / IMAGE_SIZE
        grid = F.affine_grid(theta, list(large.shape), align_corners=False)
        large = F.grid_sample(large, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (large.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def to_original_size(images: torch.Tensor) -> torch.Tensor:
    """:func:`render` undone, as scikit-learn has digits: uint8 [B, 3, 32, 32] to float32 [B, 64] in 0..16."""
    grey = images.float().mean(dim=1, keepdim=True)[:, :, 2:-2, 2:-2] / 255
    small = F.interpolate(grey, size=(8, 8), mode="area")
    return (16 * small).flatten(1)
