"""Image files as arrays: every colour mode is converted rightly or refused with one message."""

from __future__ import annotations

import io
from collections.abc import Sequence
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
    return np.ascontiguousarray(_to_rgb(open_image(path, expected), path).transpose(2, 0, 1))


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


def stack_images(files: Sequence[Path], size: Sequence[int] | None, remedy: str) -> Pixels:
    """uint8 [B, 3, H, W] of files that must all have ``size`` (3, H, W), None: that of the first; another is refused by name."""
    images = [decode_image(path) for path in files]
    size = size or images[0].shape
    for path, image in zip(files, images, strict=True):
        if image.shape != tuple(size):
            raise ArtifactError(
                expected=f"images of one size, {size[2]} x {size[1]}",
                got=f"{image.shape[2]} x {image.shape[1]}: {path}",
                remedy=remedy,
            )
    return np.stack(images)
