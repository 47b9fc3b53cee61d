"""A model of the paper's depth: ``python -m zoo.recipes.deep`` trains tiny-dit-28, 28 narrow blocks, which is not bundled.

It is tiny-dit but for the transformer: 28 blocks of width 64 instead of 12 of width 96, trained on the same latents with the same
loss, and saved as a whole pipeline. A feedback module of one block then costs 1/28 of a denoising step, as it does in the paper
(arXiv 2501.13107), instead of 1/12.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL

from harness.paths import ROOT
from harness.training.fit import TrainSettings
from zoo.recipes.backbone import ClassDenoiser, train_backbone
from zoo.recipes.cards import write_card
from zoo.recipes.models import build_dit

SIBLING = ROOT / "zoo" / "tiny-dit"
LAYERS, HEADS = 28, 2


def build_deep(work: Path, out: Path, steps: int) -> None:
    """Train the transformer and save it inside a copy of tiny-dit's pipeline."""
    torch.manual_seed(0)
    denoiser = ClassDenoiser(build_dit(heads=HEADS, layers=LAYERS))
    settings = TrainSettings(steps=steps, lr=1e-3, ema=0.999, weight_decay=0.01, warmup=300)
    vae = AutoencoderKL.from_pretrained(SIBLING / "vae", dtype=torch.float32).eval().requires_grad_(False)
    record = train_backbone(denoiser, "digits", vae, work, settings, batch=128, name=out.name)
    for name in ("model_index.json", "prompts-all.txt", "training-vae.json"):
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(SIBLING / name, out)
    for name in ("vae", "scheduler"):
        shutil.copytree(SIBLING / name, out / name, dirs_exist_ok=True)
    denoiser.transformer.half().save_pretrained(out / "transformer")
    record.save(out / "training-transformer.json")
    write_card(out, "zoo.recipes.deep")


def main(
    work: Annotated[Path, typer.Option(help="The checkpoint of the training; delete it to start over.")] = Path("zoo-work"),
    out: Annotated[Path, typer.Option(help="Where the finished pipeline goes.")] = Path("runs/tiny-dit-28"),
    steps: Annotated[int, typer.Option(help="Optimiser steps, at 128 images each.")] = 4500,
    threads: Annotated[int, typer.Option(help="CPU threads; those of OMP_NUM_THREADS unless named.")] = torch.get_num_threads(),
) -> None:
    """Train and save tiny-dit-28."""
    torch.set_num_threads(threads)
    build_deep(work, out, steps)


if __name__ == "__main__":
    typer.run(main)
