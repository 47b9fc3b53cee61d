"""Image files of every colour mode: converted rightly, or refused with one message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.errors import ArtifactError
from harness.storage.images import decode_image
from harness.storage.reading import read_ahead

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "LA", "RGBA"])
def test_opaque_images_of_any_mode_are_pillows_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    path = save(tmp_path / ("x.jpg" if mode == "CMYK" else "x.png"), image)
    found = decode_image(path)
    with Image.open(path) as again:
        wanted = np.array(again.convert("RGB"))
    np.testing.assert_array_equal(found.transpose(1, 2, 0), wanted)
    if mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(found.transpose(1, 2, 0), PIXELS)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 300], [32768, 65278, 65535]], dtype=np.uint16)
    found = decode_image(save(tmp_path / "x.png", Image.fromarray(deep)))
    np.testing.assert_array_equal(found[0], [[0, 1, 1], [128, 254, 255]])
    assert (found == found[:1]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_see_through_pixels_are_refused(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    image.putalpha(Image.new("L", image.size, 128))
    with pytest.raises(ArtifactError, match="flatten it"):
        decode_image(save(tmp_path / "x.png", image))


def test_a_transparent_palette_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).convert("P")
    image.save(tmp_path / "x.png", transparency=int(np.asarray(image)[0, 0]))
    with pytest.raises(ArtifactError, match="flatten it"):
        decode_image(tmp_path / "x.png")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"0" * 30])
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.png") as refused:
        decode_image(tmp_path / "x.png")
    assert "0x" not in str(refused.value), "the address of a buffer says nothing"


def test_a_cut_image_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ArtifactError, match=r"x\.png"):
        decode_image(path)


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tiff"
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(path)
    with pytest.raises(ArtifactError, match="of no known kind"):
        decode_image(path)


def test_images_of_several_sizes_are_refused_by_name(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{n}.png", Image.new("RGB", (n, 4))) for n in (4, 5)]
    with pytest.raises(ArtifactError, match=r"4 x 4; got 5 x 4: .*5\.png"):
        list(read_ahead(files, 2, "resize"))
    with pytest.raises(ArtifactError, match=r"4 x 4; got 5 x 4: .*5\.png"):
        list(read_ahead(files, 1, "resize"))


def test_the_odd_one_out_is_named_wherever_it_stands(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{i}.png", Image.new("RGB", (5 if i == 0 else 4, 4))) for i in range(4)]
    with pytest.raises(ArtifactError, match=r"5 x 4; got 4 x 4: .*\.png, unlike .*0\.png"):
        list(read_ahead(files, 4, "resize"))
