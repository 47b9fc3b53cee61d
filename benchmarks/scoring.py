"""Features and scores of the published networks: ours in float32 and bfloat16 beside the packages they come from, same images.

    PYTHONPATH=. .venv-metrics/bin/python benchmarks/scoring.py [--images 64] [--others 16] [--side 256] [--json FILE]
        [--device cuda] [--weights weights-inception-2015-12-05-6726825d.pth] [--only image_reward]

Inception is compared with torch-fidelity, torchmetrics and clean-fid's pipeline (Pillow's antialiased bicubic resize of each
image in float, as its paper prescribes, then the network); CLIP ViT-L/14, DINOv2 ViT-L/14 and ImageReward, at full size, with
their own float32. Without ``--weights`` all networks have random weights, the same for every pipeline. A difference is from the
first row of its network, in deviations of a feature between images: the largest, and the root of the mean square. With ``--only``
the rows of the other networks stay in the file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from metrics.published.dinov2 import DinoFeatures
from metrics.published.image_reward import RewardModel
from metrics.published.inception import InceptionFeatures, open_inception
from metrics.published.open_clip import OpenClipEncoder
from metrics.published.packages import Precision, to_pil
from metrics.published.spec import ImageRewardWeights, OpenClip
from tests.published import draw_images, save_image_reward, save_inception

SIDE, BATCH, WARM = 299, 32, 2
PACKAGES = ("torch", "torch-fidelity", "torchmetrics", "open_clip_torch", "transformers", "image-reward", "pillow")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
Pipeline = Callable[[torch.Tensor], torch.Tensor]
Row = dict[str, str | float | bool]


def cleanfid_resize(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, H, W] as clean-fid resizes: each channel by Pillow in float, bicubic with antialias; float32 in 0..255."""
    resized = []
    for image in to_pil(images):
        channels = [Image.fromarray(channel.astype(np.float32), mode="F") for channel in np.asarray(image).transpose(2, 0, 1)]
        resized.append(np.stack([np.asarray(channel.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for channel in channels]))
    return torch.from_numpy(np.stack(resized)).clamp(0, 255)


def inception(weights: Path, device: str) -> dict[str, Pipeline]:
    """Each takes uint8 [B, 3, H, W] to features [B, 2048]."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    fidelity: Any = open_inception(weights, device)
    ours = {p: InceptionFeatures(open_inception(weights, device), device, p) for p in PRECISIONS}
    torchmetrics: Any = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(weights), antialias=False).to(device)

    def cleanfid(images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = fidelity(cleanfid_resize(images).round().to(torch.uint8).to(device))[0]
        return found

    return {
        "torch-fidelity": lambda images: fidelity(images.to(device))[0],
        "ours, float32": ours["fp32"],
        "ours, bfloat16, channels-last": ours["bf16"],
        "torchmetrics": lambda images: torchmetrics.inception(images.to(device)),
        "clean-fid's pipeline": cleanfid,
    }


def clip(folder: Path, device: str) -> dict[str, Pipeline]:
    """CLIP ViT-L/14's image embeddings; each image anew, past what the encoder remembers."""
    import open_clip

    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-L-14").state_dict(), folder / "clip.pt")

    def open_as(precision: Precision) -> Pipeline:
        encoder = OpenClipEncoder(OpenClip(model="ViT-L-14", pretrained=str(folder / "clip.pt"), precision=precision), device)
        return encoder.embed_images.embed

    return {f"ours, {p}": open_as(p) for p in PRECISIONS}


def dinov2(folder: Path, device: str) -> dict[str, Pipeline]:
    """DINOv2 ViT-L/14's class token."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    size = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 518, "patch_size": 14}
    Dinov2Model(Dinov2Config(**size)).save_pretrained(folder / "dinov2")
    return {f"ours, {p}": DinoFeatures(str(folder / "dinov2"), device, p) for p in PRECISIONS}


def image_reward(folder: Path, device: str) -> dict[str, Pipeline]:
    """ImageReward's scores for one prompt; the package itself scores one pair at a time."""
    save_image_reward(folder / "image-reward")
    ours = {p: RewardModel(ImageRewardWeights(folder=folder / "image-reward", precision=p), device) for p in PRECISIONS}
    package, prompt = ours["fp32"].model, "a red cat on an old stone bridge"
    rows: dict[str, Pipeline] = {
        "image-reward": lambda images: torch.tensor([[package.score(prompt, image)] for image in to_pil(images)]),
    }
    return rows | {f"ours, {p}": lambda images, m=m: m(images, [prompt] * len(images))[:, None] for p, m in ours.items()}


def measured(work: Pipeline, images: torch.Tensor, device: str) -> tuple[float, torch.Tensor]:
    """Images per second, a first small batch aside, and the features."""
    with torch.no_grad():
        work(images[:WARM])
        start = time.perf_counter()
        found = torch.cat([work(part).float().cpu() for part in torch.split(images, BATCH)])
        if device != "cpu":
            torch.cuda.synchronize()
    return len(images) / (time.perf_counter() - start), found


def compared(network: str, pipelines: dict[str, Pipeline], images: torch.Tensor, device: str) -> Iterator[Row]:
    """A row for each pipeline; the first is what the others are held against."""
    first: torch.Tensor | None = None
    for name, work in pipelines.items():
        speed, found = measured(work, images, device)
        first = found if first is None else first
        deviation = first.std(dim=0).square().mean().sqrt()
        off = (found - first) / deviation
        row: Row = {"network": network, "pipeline": name, "images": len(images), "images_per_s": round(speed, 3)}
        row |= {"largest": float(off.abs().max()), "rms": float(off.square().mean().sqrt()), "equal": torch.equal(found, first)}
        print(f"{network:12} {name:30} {speed:8.2f} images/s   largest {row['largest']:.1e}   rms {row['rms']:.1e}", flush=True)
        yield row


def main(
    images: Annotated[int, typer.Option(help="For Inception.")] = 64,
    others: Annotated[int, typer.Option(help="For CLIP, DINOv2 and ImageReward; 0 leaves them out.")] = 16,
    side: Annotated[int, typer.Option()] = 256,
    device: Annotated[str, typer.Option()] = "cpu",
    weights: Annotated[Path | None, typer.Option(help="weights-inception-2015-12-05-6726825d.pth")] = None,
    to: Annotated[Path | None, typer.Option("--json", help="Where the rows are kept.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Networks; default: all.")] = None,
) -> None:
    """Print a row for each pipeline."""
    with TemporaryDirectory() as name:
        folder = Path(name)

        def of_2015(folder: Path, device: str) -> dict[str, Pipeline]:
            return inception(weights or save_inception(folder / "inception.pth"), device)

        for network, build in {"inception": of_2015, "clip": clip, "dinov2": dinov2, "image_reward": image_reward}.items():
            count = images if network == "inception" else others
            if count and (not only or network in only):
                found = compared(network, build(folder, device), draw_images(count, side=side), device)
                keep(network, list(found), to, device, side)


def keep(network: str, rows: list[Row], to: Path | None, device: str, side: int) -> None:
    """Write a network's rows in place of those that the file had of it."""
    if to is None:
        return
    kept = json.loads(to.read_text(encoding="utf-8"))["rows"] if to.exists() else []
    known = {"command": ["python", *sys.argv], "device": device, "threads": torch.get_num_threads(), "side": side}
    made = [{**row, **known, "versions": {package: version(package) for package in PACKAGES}} for row in rows]
    others = [row for row in kept if row["network"] != network]
    to.write_text(json.dumps({"rows": others + made}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
