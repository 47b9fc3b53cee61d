"""Recipes of the two diffusion transformers: noise prediction on cached latents, condition dropped for guidance."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, DiTTransformer2DModel, PixArtTransformer2DModel
from torch import nn
from transformers import T5EncoderModel, T5Tokenizer

from harness.sampling.precision import autocast
from harness.training.attention import explicit_attention
from harness.training.fit import TrainRecord, TrainSettings, fit
from zoo.recipes import digits, emoji
from zoo.recipes.models import LATENT_CHANNELS, build_dit, build_pixart
from zoo.recipes.text import MAX_TOKENS, build_text_encoder, build_tokenizer
from zoo.recipes.vae import to_model

DROP_CONDITION = 0.1
NULL_CLASS = 1000
DRAWS = {"emoji": 160, "digits": 24}  # augmentation draws cached an image
CACHE_SEED = 7  # the held-out reference sets use other seeds


@torch.no_grad()
def encode_latents(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Scaled latents float32 [n, 4, 8, 8] of images uint8 [n, 3, 32, 32]."""
    with autocast():
        means = [vae.encode(to_model(chunk)).latent_dist.mean.float() for chunk in torch.split(images, 256)]
    return torch.cat(means) * float(vae.config.scaling_factor)


def cache_latents(data: str, vae: AutoencoderKL) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled latents float32 [n, 4, 8, 8] of augmented training images and their emoji index or class, int64 [n]."""
    generator = torch.Generator().manual_seed(CACHE_SEED)
    latents, conditions = [], []
    for _ in range(DRAWS[data]):
        if data == "emoji":
            index = torch.arange(len(emoji.characters()))
            images = emoji.render(index, emoji.draw_augmentation(index, generator))
        else:
            originals, index = digits.split("train")
            images = digits.render(originals, 2 * torch.rand(len(originals), 2, generator=generator) - 1)
        latents.append(encode_latents(vae, images))
        conditions.append(index)
    return torch.cat(latents), torch.cat(conditions)


class _NoisedBatch:
    """A batch of noised latents and everything the loss needs, drawn from one generator."""

    def __init__(self, latents: torch.Tensor, conditions: torch.Tensor, size: int, generator: torch.Generator) -> None:
        chosen = torch.randint(len(latents), (size,), generator=generator)
        self.condition = conditions[chosen]
        self.drop = torch.rand(size, generator=generator) < DROP_CONDITION
        self.t = torch.randint(1000, (size,), generator=generator)
        self.noise = torch.randn(latents[chosen].shape, generator=generator)
        self.noised = DDPMScheduler().add_noise(latents[chosen], self.noise, self.t)

    def loss(self, output: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(output[:, :LATENT_CHANNELS].float(), self.noise)


class TextDenoiser(nn.Module):
    """The text encoder and the transformer, trained together; ``token_ids`` [n_captions + 1, 12], the empty one last."""

    def __init__(self, text_encoder: T5EncoderModel, transformer: PixArtTransformer2DModel, tokenizer: T5Tokenizer) -> None:
        super().__init__()
        self.text_encoder, self.transformer = text_encoder, transformer
        tokens = tokenizer([*emoji.captions(), ""], padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
        self.ids, self.mask = tokens.input_ids, tokens.attention_mask

    def forward(self, batch: _NoisedBatch) -> torch.Tensor:
        """The model's output float32 or bf16 [B, 8, 8, 8]."""
        row = torch.where(batch.drop, len(self.ids) - 1, batch.condition)
        embeds = self.text_encoder(self.ids[row], attention_mask=self.mask[row])[0]
        output: torch.Tensor = self.transformer(
            batch.noised,
            timestep=batch.t,
            encoder_hidden_states=embeds,
            encoder_attention_mask=self.mask[row],
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return output


class ClassDenoiser(nn.Module):
    """The class-conditional transformer. It stays in eval mode: in train mode each block would drop labels on its own."""

    def __init__(self, transformer: DiTTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer.eval()

    def forward(self, batch: _NoisedBatch) -> torch.Tensor:
        """The model's output float32 or bf16 [B, 8, 8, 8]."""
        labels = torch.where(batch.drop, NULL_CLASS, batch.condition)
        output: torch.Tensor = self.transformer(batch.noised, timestep=batch.t, class_labels=labels).sample
        return output


def train_backbone(
    model: TextDenoiser | ClassDenoiser,
    data: str,
    vae: AutoencoderKL,
    work: Path,
    settings: TrainSettings,
    batch: int,
    name: str,
) -> TrainRecord:
    """Train in place on the cached latents of ``emoji`` or ``digits``; ``name`` is that of the checkpoint file."""
    latents, conditions = cache_latents(data, vae)

    def loss(generator: torch.Generator) -> torch.Tensor:
        noised = _NoisedBatch(latents, conditions, batch, generator)
        with autocast():
            return noised.loss(model(noised))

    with explicit_attention(model):
        return fit(model, loss, settings, work / f"{name}.pt", name)


def build_text_denoiser() -> tuple[TextDenoiser, T5Tokenizer]:
    """A fresh tiny-pixart with its tokenizer."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    return TextDenoiser(build_text_encoder(tokenizer), build_pixart(), tokenizer), tokenizer


def build_class_denoiser() -> ClassDenoiser:
    """A fresh tiny-dit."""
    torch.manual_seed(0)
    return ClassDenoiser(build_dit())
