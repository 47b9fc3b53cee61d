"""Image files as arrays: every colour mode is converted rightly or refused with one message."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.errors import ArtifactError
from harness.storage.decoding import open_image

Pixels = npt.NDArray[np.uint8]
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}


def encode_png(image: Pixels) -> bytes:
    """uint8 [3, H, W] RGB to lossless PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_image(path: Path, expected: str | None = None) -> Pixels:
    """uint8 [3, H, W] RGB of an image file, whose content has the digest ``expected``.

    Grey, palette and CMYK images are converted, 16-bit grey is scaled to 8 bits (Pillow would clip it), and an alpha channel
    is dropped where every pixel is opaque. Raises :class:`ArtifactError` on a damaged file, on any other format than PNG, JPEG,
    WebP and BMP, and on see-through pixels (their colour depends on a background that the file does not name).
    """
    return np.ascontiguousarray(decode_rgb(path, expected).transpose(2, 0, 1))


def decode_rgb(path: Path, expected: str | None = None) -> Pixels:
    """The same as uint8 [H, W, 3]."""
    return _to_rgb(open_image(path, expected), path)


def _to_rgb(image: Image.Image, path: Path) -> Pixels:
    """uint8 [H, W, 3]."""
    if image.mode in SIXTEEN_BIT:
        grey = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        whole = image.convert("RGBA")
        if whole.getchannel("A").getextrema() != (255, 255):
            raise ArtifactError(
                expected=f"an opaque image at {path}",
                got="transparent pixels",
                remedy="flatten it onto the intended background",
            )
        image = whole
    return np.array(image.convert("RGB"))
