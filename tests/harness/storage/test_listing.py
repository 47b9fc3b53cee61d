"""One rule for every folder of images: what counts, in which order, and that everything else is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.errors import UsageError
from harness.storage.listing import list_images, natural


def draw(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


def test_natural_order_and_sub_folders(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "b/1.jpg", "B2.PNG"):
        draw(tmp_path / name)
    found = list_images(tmp_path)
    assert found.names == ("2.png", "10.png", "B2.PNG", "b/1.jpg") and found.is_sorted_otherwise and found.note == ""


def test_everything_else_is_left_out_and_named(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    for name in (".hidden/b.png", "Thumbs/a.png", "__MACOSX/c.png", "folder.png/d.png"):
        draw(tmp_path / name)
    draw(tmp_path / "elsewhere" / "e.png")
    (tmp_path / "elsewhere" / "e.png").rename(tmp_path / "e.png")
    (tmp_path / "elsewhere").rmdir()
    (tmp_path / "link").symlink_to(tmp_path / "Thumbs")
    (tmp_path / "._a.png").write_bytes(b"resource fork")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "image.tiff").write_bytes(b"x")
    found = list_images(tmp_path)
    assert found.names == ("a.png", "e.png")
    assert dict(found.left_out) == {
        ".hidden": "hidden",
        "._a.png": "hidden",
        "Thumbs": "a folder of thumbnails",
        "__MACOSX": "a folder of thumbnails",
        "folder.png": "a folder named like an image",
        "link": "a link to a folder",
        "notes.txt": "another suffix than an image's",
        "image.tiff": "another suffix than an image's",
    }
    assert "Thumbs, __MACOSX (a folder of thumbnails)" in found.note


def test_a_folder_without_images_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.tiff").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"a\.tiff \(another suffix"):
        list_images(tmp_path)
    with pytest.raises(UsageError, match="a folder of images"):
        list_images(tmp_path / "nowhere")


def test_numbers_are_ordered_by_value() -> None:
    names = ["img12", "img2", "img02b", "IMG1", "a", "10", "9"]
    assert sorted(names, key=natural) == ["9", "10", "a", "IMG1", "img2", "img02b", "img12"]
