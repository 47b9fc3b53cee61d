"""Recipe of tiny-sd3: a flow-matching model of two streams, trained on the emoji latents with two CLIP encoders and a T5.

Rectified flow (Esser et al. 2024, arXiv 2403.03206): x_t = (1 - t) x_0 + t noise with t in 0..1, of which the model predicts the
velocity noise - x_0. Times are drawn from the paper's logit-normal distribution (location 0, scale 1). The prompt's embedding is
put together as :class:`diffusers.StableDiffusion3Pipeline` does it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from torch import nn

from harness.sampling.precision import autocast
from harness.training.attention import explicit_attention
from harness.training.fit import TrainRecord, TrainSettings, fit
from zoo.recipes import emoji
from zoo.recipes.backbone import DROP_CONDITION, cache_latents
from zoo.recipes.models import build_sd3
from zoo.recipes.text import SD3_TOKENS, build_clip, build_clip_tokenizer, build_text_encoder, build_tokenizer

SHIFT = 1.0  # of the timesteps: the paper's is 3 for 4,096 image tokens; this model has 16
PARTS = ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer")  # what is trained


class FlowDenoiser(nn.Module):
    """The three text encoders and the transformer of a pipeline, trained together."""

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: getattr(pipe, name) for name in PARTS})
        texts = [*emoji.captions(), ""]  # the empty one, last, is the null condition

        def ids(tokenizer: Any) -> torch.Tensor:
            tokens: torch.Tensor = tokenizer(texts, padding="max_length", max_length=SD3_TOKENS, return_tensors="pt").input_ids
            return tokens

        self.clip_ids, self.t5_ids = ids(pipe.tokenizer), ids(pipe.tokenizer_3)

    def embed(self, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [B, 2 * SD3_TOKENS, width] and pooled embeddings [B, pooled] of captions by number, int64 [B]."""
        both = [self.parts[name](self.clip_ids[row], output_hidden_states=True) for name in PARTS[:2]]
        clip = torch.cat([one.hidden_states[-2] for one in both], dim=-1)
        t5 = self.parts[PARTS[2]](self.t5_ids[row])[0]
        embeds = torch.cat([F.pad(clip, (0, t5.shape[-1] - clip.shape[-1])), t5], dim=1)
        return embeds, torch.cat([one.text_embeds for one in both], dim=-1)

    def forward(self, noised: torch.Tensor, t: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """The velocity [B, 4, 8, 8] at times ``t`` float [B] in 0..1."""
        embeds, pooled = self.embed(row)
        output: torch.Tensor = self.parts[PARTS[3]](
            noised, encoder_hidden_states=embeds, pooled_projections=pooled, timestep=1000 * t
        ).sample
        return output


def velocity_loss(model: FlowDenoiser, latents: torch.Tensor, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mean squared error of the velocity, scalar, at random times and noise drawn from ``generator``.

    ``latents`` float32 [B, 4, 8, 8], ``rows`` their captions' numbers, int64 [B].
    """
    size = len(latents)
    null = torch.rand(size, generator=generator) < DROP_CONDITION
    t = torch.randn(size, generator=generator).sigmoid()
    noise = torch.randn(latents.shape, generator=generator)
    part = t[:, None, None, None]
    with autocast():
        velocity = model((1 - part) * latents + part * noise, t, torch.where(null, len(model.clip_ids) - 1, rows))
    return F.mse_loss(velocity.float(), noise - latents)


def build_pipeline(vae: AutoencoderKL) -> StableDiffusion3Pipeline:
    """A fresh tiny-sd3 on a trained autoencoder."""
    torch.manual_seed(0)
    clip_tokenizer, t5_tokenizer = build_clip_tokenizer(), build_tokenizer(SD3_TOKENS)
    vae.register_to_config(shift_factor=0.0)
    return StableDiffusion3Pipeline(
        transformer=build_sd3(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=vae,
        text_encoder=build_clip(clip_tokenizer),
        tokenizer=clip_tokenizer,
        text_encoder_2=build_clip(clip_tokenizer),
        tokenizer_2=clip_tokenizer,
        text_encoder_3=build_text_encoder(t5_tokenizer),
        tokenizer_3=t5_tokenizer,
    )


def train_flow(pipe: StableDiffusion3Pipeline, work: Path, settings: TrainSettings, batch: int) -> TrainRecord:
    """Train the pipeline's encoders and transformer in place."""
    latents, captions = cache_latents("emoji", pipe.vae)
    model = FlowDenoiser(pipe)

    def loss(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(latents), (batch,), generator=generator)
        return velocity_loss(model, latents[chosen], captions[chosen], generator)

    with explicit_attention(model):
        return fit(model, loss, settings, work / "backbone-flow.pt", "backbone-flow")
