"""A scorer command tried on a picture, noise and black, before it is trusted with a run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from metrics.command.metric import CommandFactory, CommandScorer
from metrics.command.process import Command
from metrics.command.protocol import RefusedBatch

SIDE = 224  # pixels


def trial_images() -> dict[str, torch.Tensor]:
    """uint8 [1, 3, 224, 224] each: colours with some texture, the same again, noise, and black."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.meshgrid(torch.linspace(0, 1, SIDE), torch.linspace(0, 1, SIDE), indexing="ij")
    waves = (
        torch.stack([x, y, 1 - x]) * 200 + 30 * torch.sin(40 * x * (1 + y)) + 5 * torch.randn(3, SIDE, SIDE, generator=generator)
    )
    noise = torch.randint(0, 256, (3, SIDE, SIDE), generator=generator).float()
    made = {"a picture": waves, "the same again": waves, "noise": noise, "black": torch.zeros(3, SIDE, SIDE)}
    return {name: image.clamp(0, 255).round().to(torch.uint8)[None] for name, image in made.items()}


def trial_rows(factory: CommandFactory, prompt: str) -> Iterator[tuple[str, str]]:
    """The handshake, and what the command says of each image for a prompt."""
    command = Command(factory.name, factory.spec)
    hello, scorer, images = command.hello, CommandScorer(command), trial_images()
    yield from hello.fingerprint().items()
    full = images["a picture"] if hello.paired else None
    for name, image in images.items():
        try:
            row = scorer(image, [prompt], full)[0]
        except RefusedBatch as refused:
            yield name, f"refused: {refused}"
        else:
            yield name, f"{row[0]:.5g}" if len(row) == 1 else f"{len(row)} features of norm {np.linalg.norm(row):.5g}"
    command.close()
