"""Inception features for FID: ours in float32 and bfloat16, torch-fidelity, torchmetrics and clean-fid's pipeline, same images.

    PYTHONPATH=. .venv-metrics/bin/python benchmarks/scoring.py [--images 64] [--side 256] [--device cuda] [--weights FILE]

Without ``--weights`` the network has random weights, the same for all. clean-fid's pipeline is what its paper prescribes:
Pillow's antialiased bicubic resize of each image in float, then the network. Printed: images per second, and the largest
difference from torch-fidelity's features relative to their standard deviation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from metrics.published.inception import InceptionFeatures, open_inception
from metrics.published.packages import to_pil
from tests.published import draw_images, save_inception

SIDE, BATCH = 299, 32


def cleanfid_resize(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, H, W] as clean-fid resizes: each channel by Pillow in float, bicubic with antialias; float32 in 0..255."""
    resized = []
    for image in to_pil(images):
        channels = [Image.fromarray(channel.astype(np.float32), mode="F") for channel in np.asarray(image).transpose(2, 0, 1)]
        resized.append(np.stack([np.asarray(channel.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for channel in channels]))
    return torch.from_numpy(np.stack(resized)).clamp(0, 255)


def pipelines(weights: Path, device: str) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Each takes uint8 [B, 3, H, W] to features [B, 2048]."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    fidelity: Any = open_inception(weights, device)
    ours = {p: InceptionFeatures(open_inception(weights, device), device, p) for p in ("fp32", "bf16")}
    torchmetrics: Any = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(weights), antialias=False).to(device)

    def cleanfid(images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = fidelity(cleanfid_resize(images).round().to(torch.uint8).to(device))[0]
        return found

    return {
        "torch-fidelity": lambda images: fidelity(images.to(device))[0],
        "ours, float32": ours["fp32"],
        "ours, bfloat16": ours["bf16"],
        "torchmetrics": lambda images: torchmetrics.inception(images.to(device)),
        "clean-fid's pipeline": cleanfid,
    }


def measured(work: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, device: str) -> tuple[float, torch.Tensor]:
    """Images per second, a first batch aside, and the features."""
    with torch.no_grad():
        work(images[:BATCH])
        start = time.perf_counter()
        found = torch.cat([work(part).float().cpu() for part in torch.split(images, BATCH)])
        if device != "cpu":
            torch.cuda.synchronize()
    return len(images) / (time.perf_counter() - start), found


def main(
    images: Annotated[int, typer.Option()] = 64,
    side: Annotated[int, typer.Option()] = 256,
    device: Annotated[str, typer.Option()] = "cpu",
    weights: Annotated[Path | None, typer.Option(help="weights-inception-2015-12-05-6726825d.pth")] = None,
) -> None:
    """Print a row for each pipeline."""
    drawn = draw_images(images, side=side)
    with TemporaryDirectory() as folder:
        file = weights or save_inception(Path(folder) / "inception.pth")
        reference: torch.Tensor | None = None
        for name, work in pipelines(file, device).items():
            speed, found = measured(work, drawn, device)
            reference = found if reference is None else reference
            difference = float((found - reference).abs().max() / reference.std())
            print(f"{name:22} {speed:8.2f} images/s   {difference:.2e} of a deviation from torch-fidelity")


if __name__ == "__main__":
    typer.run(main)
