"""What a decoder returns becomes uint8 on the device and reaches the host in one copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
    def kept(self, vae: Any, exact: bool = False) -> Iterator[None]:
        """Keep what ``vae`` decodes inside the context, in the dtype of its weights, or, unless ``exact``, in autocast's.

        It returns images of one black pixel, on the host.
        """
        decode: Callable[..., Any] = vae.decode

        def keeping(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            mixed = torch.autocast(latents.device.type, enabled=False) if exact else nullcontext()
            with mixed:
                output = decode(latents.to(vae.dtype), *args, **kwargs)
            whole = output[0] if isinstance(output, tuple) else output.sample
            self.images, stand_in = still(whole), torch.zeros(*whole.shape[:-2], 1, 1)
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


def still(decoded: torch.Tensor) -> torch.Tensor:
    """Images [B, 3, H, W] of what a decoder returns: one that also decodes videos gives each a dimension of one frame."""
    return decoded[:, :, 0] if decoded.ndim == 5 else decoded


SDXL_SCALING = 0.13025  # of the latents of SDXL's autoencoder, whose activations leave float16's range


def overflows(vae: Any) -> bool:
    """Whether an autoencoder is known to overflow in float16."""
    return abs(float(vae.config.get("scaling_factor", 1.0)) - SDXL_SCALING) < 1e-6


def set_decoder(vae: Any, dtype: str, tiled: bool) -> str:
    """Give the decoder its dtype; ``auto``: its own, or float32 where it would overflow. Returns the dtype where it is another.

    ``tiled``: it decodes in overlapping tiles, whose seams are blended.
    """
    own = str(vae.dtype).removeprefix("torch.")
    wanted = ("float32" if own == "float16" and overflows(vae) else own) if dtype == "auto" else dtype
    if tiled:
        vae.enable_tiling()
    if wanted != own:
        vae.to(getattr(torch, wanted))
    words = ([wanted] if wanted != own or dtype != "auto" else []) + (["in tiles"] if tiled else [])
    return " ".join(words)
