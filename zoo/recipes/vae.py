"""Recipe of the two autoencoders: L1 in pixels and in image gradients, a small KL term, decoded from noisy latents."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from harness.sampling.precision import autocast
from harness.training.fit import TrainRecord, TrainSettings, fit
from zoo.recipes import digits, emoji
from zoo.recipes.models import build_vae

KL_WEIGHT = 5e-4
EDGE_WEIGHT = 0.5
BATCH = 64


def to_model(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 to float32 -1..1."""
    return images.float() / 127.5 - 1


def draw_emoji(generator: torch.Generator, batch: int = BATCH) -> torch.Tensor:
    """A random augmented batch, uint8 [B, 3, 32, 32]."""
    index = torch.randint(len(emoji.characters()), (batch,), generator=generator)
    return emoji.render(index, emoji.draw_augmentation(index, generator))


def draw_digits(generator: torch.Generator, batch: int = BATCH) -> torch.Tensor:
    """A random shifted batch of the training digits, uint8 [B, 3, 32, 32]."""
    images, _ = digits.split("train")
    index = torch.randint(len(images), (batch,), generator=generator)
    return digits.render(images[index], 2 * torch.rand(batch, 2, generator=generator) - 1)


def _edges(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images.diff(dim=-1), images.diff(dim=-2)


def vae_loss(vae: AutoencoderKL, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Reconstruction and KL of uint8 images [B, 3, 32, 32]; a scalar."""
    target = to_model(images)
    with autocast():
        posterior = vae.encode(target).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    decoded, mean, logvar = decoded.float(), posterior.mean.float(), posterior.logvar.float()
    pixel = (decoded - target).abs().mean()
    edge = sum(((a - b).abs().mean() for a, b in zip(_edges(decoded), _edges(target), strict=True)), torch.zeros(()))
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    loss: torch.Tensor = pixel + EDGE_WEIGHT * edge + KL_WEIGHT * kl
    return loss


def train_vae(data: str, work: Path, steps: int) -> tuple[AutoencoderKL, TrainRecord]:
    """Train on ``emoji`` or ``digits``; the scaling factor is set so that latents have unit standard deviation."""
    torch.manual_seed(0)
    vae = build_vae()
    draw = draw_emoji if data == "emoji" else draw_digits
    settings = TrainSettings(steps=steps, lr=3e-3, warmup=100, ema=0.998)
    record = fit(vae, lambda g: vae_loss(vae, draw(g), g), settings, work / f"vae-{data}.pt", f"vae {data}")
    with torch.no_grad():
        latents = vae.encode(to_model(draw(torch.Generator().manual_seed(1), 512))).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    return vae, record
