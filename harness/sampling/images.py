"""What a decoder returns becomes uint8 on the device and reaches the host in one copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from harness.errors import ArtifactError
from harness.sampling.patching import patched
from harness.sampling.transfer import to_host


class Decoded:
    """The decoder's images of one pipeline call, kept on the device; the pipeline is given small ones to convert instead."""

    def __init__(self) -> None:
        self.images = torch.empty(0)

    @contextmanager
    def kept(self, vae: Any) -> Iterator[None]:
        """Keep what ``vae`` decodes inside the context. It returns images of one black pixel, on the host."""
        decode: Callable[..., Any] = vae.decode

        def keeping(*args: Any, **kwargs: Any) -> Any:
            output = decode(*args, **kwargs)
            whole = output[0] if isinstance(output, tuple) else output.sample
            self.images, stand_in = whole, torch.zeros(*whole.shape[:2], 1, 1)
            if isinstance(output, tuple):
                return (stand_in, *output[1:])
            output.sample = stand_in
            return output

        with patched(vae, "decode", keeping):
            yield

    def on_host(self, remedy: str, converted: Callable[[], None] = lambda: None) -> torch.Tensor:
        """uint8 [B, 3, H, W], from values of -1 to 1; each image lies row by row, pixel by pixel, as image files have it.

        ``converted`` is called when the conversion has been queued, and the copy has not. Raises :class:`ArtifactError`, with the
        ``remedy``, where a value is not finite.
        """
        unit = (self.images / 2 + 0.5).clamp(0, 1).float()
        pixels = (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        broken = self.images.isfinite().logical_not().sum()
        self.images = torch.empty(0)
        converted()
        pixels, broken = to_host(pixels, broken)
        if broken:
            raise ArtifactError(expected="finite images", got=f"{int(broken)} values that are NaN or infinite", remedy=remedy)
        return pixels.permute(0, 3, 1, 2)
