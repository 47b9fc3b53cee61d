"""Image files from strangers: four formats, a bounded size, and one message for whatever a decoder makes of them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from harness.errors import ArtifactError
from harness.storage.files import MIB, digest, read_small

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # every other is refused before its decoder, or a program behind it, has seen a byte
IMAGE_BYTES = 256 * MIB
MOST_PIXELS = 2**25  # 5,792 x 5,792
MOST_SCANS = 100  # of a progressive JPEG, which is decoded once over for each; usual are ten
SCAN = b"\xff\xda"


def open_image(path: Path, expected: str | None = None) -> Image.Image:
    """The decoded pixels of an image file, in whatever mode they are stored.

    ``expected`` is the SHA-256 that its content must have. Raises :class:`ArtifactError`, which names the file.
    """
    try:
        content = read_small(path, IMAGE_BYTES)
        if expected is not None and digest(content) != expected:
            raise ValueError("another content than was written")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata, which nothing here reads
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            _check(image, content)
            image.load()
        return image
    except Exception as error:  # decoders raise whatever their libraries do
        raise ArtifactError(
            expected=f"an image (PNG, JPEG, WebP or BMP) at {path}",
            got=_reason(error),
            remedy="delete it, then make or copy it again",
        ) from error


def _check(image: Image.Image, content: bytes) -> None:
    """Refuse what would take too long or too much, as far as its header tells."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
    if image.format == "JPEG" and content.count(SCAN) > MOST_SCANS:
        raise ValueError(f"a JPEG of more than {MOST_SCANS} scans")
    if image.format == "BMP" and any(tile[0] == "bmp_rle" for tile in getattr(image, "tile", ())):
        raise ValueError("a run-length coded BMP")


def _reason(error: Exception) -> str:
    """What Pillow says, without the address of the buffer that it read from."""
    if isinstance(error, UnidentifiedImageError):
        return "no image, or of no known kind"
    return str(error) or type(error).__name__
