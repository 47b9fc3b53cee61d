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
    from_planes(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_image(path: Path, expected: str | None = None) -> Pixels:
    """uint8 [3, H, W] RGB of an image file, whose content has the digest ``expected``.

    Grey, palette and CMYK images are converted, 16-bit grey is scaled to 8 bits (Pillow would clip it), and an alpha channel
    is dropped where every pixel is opaque. Raises :class:`ArtifactError` on a damaged file, on any other format than PNG, JPEG,
    WebP and BMP, and on see-through pixels (their colour depends on a background that the file does not name).
    """
    image = decode_rgb(path, expected)
    planes = np.empty((3, image.height, image.width), np.uint8)
    write_planes(image, planes)
    return planes


def decode_rgb(path: Path, expected: str | None = None) -> Image.Image:
    """The same in Pillow's mode RGB."""
    return _to_rgb(open_image(path, expected), path)


def write_planes(image: Image.Image, planes: Pixels) -> None:
    """Red, green and blue of an RGB image into uint8 [3, H, W]; several times as fast as the transposition of an array."""
    for plane, band in zip(planes, "RGB", strict=True):
        plane[:] = np.frombuffer(image.tobytes("raw", band), np.uint8).reshape(plane.shape)


def from_planes(planes: Pixels) -> Image.Image:
    """The inverse."""
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode in SIXTEEN_BIT:
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode in WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise ArtifactError(
                expected=f"an opaque image at {path}",
                got="transparent pixels",
                remedy="flatten it onto the intended background",
            )
    return image if image.mode == "RGB" else image.convert("RGB")
