"""Known damage of known strength: what the tiny scorers are trained and evaluated on, and what their tests must detect."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

KINDS = ("noise", "blur", "dull", "missing", "blocky")
NOISE_STD = 90.0  # grey levels of 255 at strength 1
BLUR_STD = 3.0  # pixels at strength 1
MISSING_SIDE = 0.8  # of the image side at strength 1
BLOCKY_STEP = 220.0  # quantisation step of the 8x8 cosine coefficients at strength 1


@dataclass(frozen=True)
class Damage:
    """Everything about a row's damage but its strength, so that two strengths of one damage can be compared.

    ``kind`` int64 [B] indexes :data:`KINDS`, ``noise`` float32 [B, C, H, W] is standard normal, ``centre`` [B, 2] (x, y) in
    0..1 and ``fill`` [B, C] in 0..255 place and colour the missing part.
    """

    kind: torch.Tensor
    noise: torch.Tensor
    centre: torch.Tensor
    fill: torch.Tensor


def draw_damage(images: torch.Tensor, generator: torch.Generator) -> Damage:
    """A random damage for each image [B, C, H, W]. Half of the missing parts are erased to the colour of the corner."""
    n, channels = images.shape[:2]
    kind = torch.randint(len(KINDS), (n,), generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    centre = 0.3 + 0.4 * torch.rand(n, 2, generator=generator)
    random_fill = 255 * torch.rand(n, channels, generator=generator)
    erase = torch.rand(n, 1, generator=generator) < 0.5
    return Damage(kind, noise, centre, torch.where(erase, images[:, :, 0, 0].float(), random_fill))


def degrade(images: torch.Tensor, damage: Damage, strength: torch.Tensor) -> torch.Tensor:
    """uint8 [B, C, H, W] with its damage at ``strength`` [B] in 0..1; strength 0 returns the image unchanged."""
    clean = images.float()
    result = clean.clone()
    for index, kind in enumerate(KINDS):
        rows = damage.kind == index
        if rows.any():
            result[rows] = _apply(kind, clean[rows], damage, rows, strength[rows])
    result = torch.where((strength > 0)[:, None, None, None], result, clean)
    return result.round().clamp(0, 255).to(torch.uint8)


def _apply(kind: str, images: torch.Tensor, damage: Damage, rows: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    if kind == "noise":
        return images + NOISE_STD * strength[:, None, None, None] * damage.noise[rows]
    if kind == "blur":
        return blur(images, BLUR_STD * strength)
    if kind == "dull":
        return dull(images, strength)
    if kind == "missing":
        return cut(images, damage.centre[rows], damage.fill[rows], strength)
    return quantise(images, BLOCKY_STEP * strength)


def blur(images: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of float [B, C, H, W] with a standard deviation [B] in pixels for each row; edges are replicated."""
    n, channels, height, width = images.shape
    radius = min(7, height - 1, width - 1)
    offset = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offset / std[:, None].clamp(min=1e-3)) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)[:, None]
    flat = F.pad(images.reshape(1, n * channels, height, width), (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, :, None, :], groups=n * channels)
    return F.conv2d(flat, kernel[:, :, :, None], groups=n * channels).reshape(n, channels, height, width)


def dull(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Colour taken out in full, and half of the contrast, at strength 1."""
    amount = strength[:, None, None, None]
    grey = images.mean(dim=1, keepdim=True)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    pale = images + amount * (grey - images)
    return pale + 0.5 * amount * (mean - pale)


def cut(images: torch.Tensor, centre: torch.Tensor, fill: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """A square around ``centre`` painted over with ``fill``; its side grows linearly with the strength."""
    height, width = images.shape[2:]
    half = 0.5 * MISSING_SIDE * strength[:, None]
    across = ((torch.arange(width) + 0.5) / width - centre[:, :1]).abs() < half
    down = ((torch.arange(height) + 0.5) / height - centre[:, 1:]).abs() < half
    inside = down[:, None, :, None] & across[:, None, None, :]
    return torch.where(inside, fill[:, :, None, None], images)


def quantise(images: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Blocks of 8x8 pixels in an orthonormal cosine basis, coefficients rounded to multiples of ``step`` [B], as JPEG does."""
    n, channels, height, width = images.shape
    k = torch.arange(8, dtype=torch.float32)
    basis = torch.cos(math.pi / 8 * (k[None, :] + 0.5) * k[:, None]) * math.sqrt(2 / 8)
    basis[0] = math.sqrt(1 / 8)
    blocks = (images - 128).reshape(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    size = step[:, None, None, None, None, None].clamp(min=1e-3)
    coefficients = ((basis @ blocks @ basis.T) / size).round() * size
    return (basis.T @ coefficients @ basis).transpose(3, 4).reshape(n, channels, height, width) + 128
