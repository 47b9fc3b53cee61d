"""Only the four formats that the documentation names are decoded, within bounds; whatever is wrong is one message."""

from __future__ import annotations

import base64
import os
import re
import zlib
from pathlib import Path

import pytest
from PIL import EpsImagePlugin

from harness.errors import ArtifactError
from harness.storage.decoding import MOST_PIXELS
from harness.storage.images import decode_image
from reports.render.build import build_report
from tests.reports.conftest import Fake, write_fake
from tests.security.crafted import MIB, PNG, POSTSCRIPT, bounded, chunk, encoded, png, run_length_bmp

FOREIGN = ["GIF", "TIFF", "PPM", "ICO", "TGA", "PCX", "JPEG2000", "SGI", "AVIF", "IM", "DDS", "PDF", "EPS"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_the_four_formats_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(kind))
    assert decode_image(tmp_path / "x.png").shape == (3, 8, 8)


@pytest.mark.parametrize("kind", FOREIGN)
def test_no_other_decoder_is_asked(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(kind))
    with pytest.raises(ArtifactError, match="no image, or of no known kind"):
        decode_image(tmp_path / "x.png")


def test_postscript_starts_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    write_fake(tmp_path / "run", Fake(n=8, rounds=2))
    images = list((tmp_path / "run" / "samples").glob("*/*.png"))
    for image in images:
        image.write_bytes(POSTSCRIPT)
    with pytest.raises(ArtifactError, match="an image"):
        decode_image(images[0])
    with pytest.raises(ArtifactError, match="an image"):
        build_report(tmp_path / "run")
    assert not (tmp_path / "started").exists()


def bomb(kind: str) -> bytes:
    """Small files that would take gigabytes or minutes."""
    if kind == "scans":
        return encoded("JPEG", progressive=True).replace(b"\xff\xd9", b"") + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 500
    if kind == "texts":
        texts = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 * MIB), 9)) * 8
        return png(8, 8, bytes(200), before=texts)
    return {
        "pixels": png(2**15, 2**14, b""),
        "more pixels than Pillow takes": png(2**17, 2**17, b""),
        "runs": run_length_bmp(4096, b"\x01\x01" * MIB),
        "torn": encoded("PNG")[:50],
        "noise": PNG + b"\xff" * 40,
        "nothing": b"",
    }[kind]


@pytest.mark.parametrize(
    "kind", ["scans", "texts", "pixels", "more pixels than Pillow takes", "runs", "torn", "noise", "nothing"]
)
def test_bombs_are_one_message(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(bomb(kind))
    with bounded(), pytest.raises(ArtifactError) as caught:
        decode_image(tmp_path / "x.png")
    assert str(tmp_path / "x.png") in str(caught.value) and " at 0x" not in str(caught.value)


def test_the_largest_image_stays_within_the_bound(tmp_path: Path) -> None:
    side = int(MOST_PIXELS**0.5)
    (tmp_path / "x.png").write_bytes(png(side, side, bytes((3 * side + 1) * side)))
    with bounded():
        assert decode_image(tmp_path / "x.png").shape == (3, side, side)


def test_thumbnails_hold_pixels_alone(tmp_path: Path) -> None:
    """Of small images, too: their profiles, and what follows them in their files, stay where they are."""
    write_fake(tmp_path / "run", Fake(n=8, rounds=2))
    for image in (tmp_path / "run" / "samples").glob("*/*.png"):
        image.write_bytes(encoded("PNG", icc_profile=b"SECRETPROFILE") + b"SECRETTAIL")
    page = build_report(tmp_path / "run").read_text()
    pictures = [base64.b64decode(found) for found in re.findall(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", page)]
    assert pictures and not any(b"SECRET" in picture or b"iCCP" in picture for picture in pictures)
