"""A fine-tuned sibling of tiny-sd3: ``python -m zoo.recipes.sibling`` trains tiny-sd3-grey, which is not bundled.

A low-rank change (LoRA, Hu et al. 2021, arXiv 2106.09685) of all linear layers of the transformer's blocks, trained on the
same emoji without their colours, and merged into the weights: the kind of fine-tuned checkpoint that people run. All else is
tiny-sd3's. So it can be asked whether an accelerator trained for one checkpoint carries over to another.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from torch import nn
from torch.nn.utils import parametrize

from harness.paths import ROOT
from harness.training.attention import explicit_attention
from harness.training.fit import TrainSettings, fit
from zoo.recipes import emoji
from zoo.recipes.backbone import CACHE_SEED, encode_latents
from zoo.recipes.cards import write_card
from zoo.recipes.flow import PARTS, FlowDenoiser, velocity_loss

SIBLING = ROOT / "zoo" / "tiny-sd3"
RANK, DRAWS, BATCH = 8, 24, 96


class LowRank(nn.Module):
    """A weight [out, in] plus a change of rank ``RANK``, which starts at zero."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, weight.shape[1]) / weight.shape[1] ** 0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], RANK))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The changed weight, of the same shape."""
        return weight + self.up @ self.down


def grey_latents(vae: AutoencoderKL) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents float32 [n, 4, 8, 8] of the augmented emoji without colour, and their captions' numbers, int64 [n]."""
    generator, latents, captions = torch.Generator().manual_seed(CACHE_SEED), [], []
    for _ in range(DRAWS):
        index = torch.arange(len(emoji.characters()))
        images = emoji.render(index, emoji.draw_augmentation(index, generator)).float()
        grey = images.mean(dim=1, keepdim=True).round().to(torch.uint8).expand(-1, 3, -1, -1)
        latents.append(encode_latents(vae, grey))
        captions.append(index)
    return torch.cat(latents), torch.cat(captions)


def change(pipe: StableDiffusion3Pipeline, work: Path, steps: int) -> None:
    """Train the low-rank change of the pipeline's transformer, write its record, and merge it."""
    torch.manual_seed(0)
    latents, captions = grey_latents(pipe.vae)
    model = FlowDenoiser(pipe).requires_grad_(False)
    changed = [layer for layer in pipe.transformer.transformer_blocks.modules() if isinstance(layer, nn.Linear)]
    for layer in changed:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight))

    def loss(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(latents), (BATCH,), generator=generator)
        return velocity_loss(model, latents[chosen], captions[chosen], generator)

    settings = TrainSettings(steps=steps, lr=2e-3, ema=0.99, warmup=min(20, steps // 10))
    with explicit_attention(model):
        record = fit(model, loss, settings, work / "sibling.pt", "sibling")
    record.save(work / "training-transformer.json")
    for layer in changed:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def build_sibling(work: Path, out: Path, steps: int) -> None:
    """Save the changed transformer inside a copy of tiny-sd3's pipeline, without its modules and solvers."""
    shutil.copytree(SIBLING, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("ilf*", "bespoke", "SHA256SUMS", "quality*"))
    pipe = StableDiffusion3Pipeline.from_pretrained(SIBLING, dtype=torch.float32)
    for name in ("vae", *PARTS):
        getattr(pipe, name).float().eval()
    change(pipe, work, steps)
    pipe.transformer.half().save_pretrained(out / "transformer")
    shutil.copy(work / "training-transformer.json", out)
    write_card(out, "zoo.recipes.sibling")


def main(
    work: Annotated[Path, typer.Option(help="The checkpoint of the training; delete it to start over.")] = Path("zoo-work"),
    out: Annotated[Path, typer.Option(help="Where the finished pipeline goes.")] = Path("runs/tiny-sd3-grey"),
    steps: Annotated[int, typer.Option(help="Optimiser steps, at 96 images each.")] = 500,
    threads: Annotated[int, typer.Option(help="CPU threads; those of OMP_NUM_THREADS unless named.")] = torch.get_num_threads(),
) -> None:
    """Train and save tiny-sd3-grey."""
    torch.set_num_threads(threads)
    build_sibling(work, out, steps)


if __name__ == "__main__":
    typer.run(main)
