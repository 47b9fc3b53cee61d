"""ImageReward: our batches against the package's one pair at a time, on the same weights and pairs, interleaved in one run.

    python benchmarks/image_reward.py FOLDER [--device cuda] [--pairs 32] [--alone 32]

FOLDER holds ImageReward.pt, med_config.json and vocab.txt; without the published weights, random ones:
python -c "from pathlib import Path; from tests.published import *; save_image_reward(Path('FOLDER'))"
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from metrics.published.image_reward import RewardModel
from metrics.published.packages import to_pil
from metrics.published.spec import ImageRewardWeights

WORDS = [
    "a", "red", "cat", "sits", "on", "the", "old", "stone", "bridge", "near", "two", "green", "hills", "at", "dawn", "with",
    "mist",
]  # fmt: skip


def draw(pairs: int) -> tuple[torch.Tensor, list[str]]:
    """Smooth random images uint8 [pairs, 3, 256, 256] and prompts of 3 to 16 words."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(pairs, 3, 6, 6, generator=generator)
    images = (255 * torch.nn.functional.interpolate(coarse, size=(256, 256), mode="bilinear")).round().to(torch.uint8)
    random = np.random.default_rng(0)
    return images, [" ".join(random.choice(WORDS, size=3 + i % 14)) for i in range(pairs)]


def timed(work: Callable[[], np.ndarray], device: str) -> tuple[float, np.ndarray]:
    """Seconds after a device synchronise, and the scores."""
    start = time.perf_counter()
    found = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def main(folder: Path, device: Annotated[str, typer.Option()] = "cpu", pairs: int = 32, alone: int = 32, rounds: int = 2) -> None:
    """Print pairs a second of each path, and how far the scores lie from the package's. ``alone``: pairs the package scores."""
    images, prompts = draw(pairs)
    ours = {p: RewardModel(ImageRewardWeights(folder=folder, precision=p), device) for p in ("fp32", "bf16")}
    package, pil = ours["fp32"].model, to_pil(images)
    paths: dict[str, Callable[[], np.ndarray]] = {
        "package": lambda: np.array([package.score(p, i) for p, i in zip(prompts[:alone], pil[:alone], strict=True)]),
        **{f"batched {p}": lambda m=m: m(images, prompts).cpu().numpy() for p, m in ours.items()},  # type: ignore[misc]
    }
    with torch.no_grad():
        package.score(prompts[0], pil[0])
        for model in ours.values():
            model(images[:1], prompts[:1])
        runs = [{name: timed(work, device) for name, work in paths.items()} for _ in range(rounds)]
    wanted = runs[0]["package"][1]
    print(
        f"{device}, {torch.get_num_threads()} threads; the package's scores spread from {wanted.min():.2f} to {wanted.max():.2f}"
    )
    for name in paths:
        seconds = min(run[name][0] for run in runs) / len(runs[0][name][1])
        base = min(run["package"][0] for run in runs) / alone
        off = np.abs(runs[0][name][1][:alone] - wanted).max()
        print(f"{name:14s} {1 / seconds:8.3f} pairs/s  x {base / seconds:.2f}  largest difference of {alone} scores {off:.1e}")


if __name__ == "__main__":
    typer.run(main)
