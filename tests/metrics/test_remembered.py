"""Prompts and images that come again are not looked at again, and what is remembered is what would be seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metrics.remembered import RememberedImages, RememberedTexts
from tests.published import draw_images


def test_each_text_is_embedded_once() -> None:
    asked: list[str] = []

    def embed(texts: Sequence[str]) -> torch.Tensor:
        asked.extend(texts)
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    remembered = RememberedTexts(embed)
    assert remembered(["aa", "b", "aa"]).tolist() == [[2, 1], [1, 1], [2, 1]]
    assert remembered(["b", "ccc"]).tolist() == [[1, 1], [3, 1]] and asked == ["aa", "b", "ccc"]


def test_each_image_is_seen_once_by_its_pixels_until_it_is_forgotten() -> None:
    seen: list[int] = []

    def embed(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images.float().mean(dim=(2, 3))

    images = draw_images(6)
    remembered = RememberedImages(embed, most_bytes=4 * 3 * 4)  # four rows of three numbers
    torch.testing.assert_close(remembered(images[[0, 1, 0]]), images[[0, 1, 0]].float().mean(dim=(2, 3)))
    assert seen == [2]
    torch.testing.assert_close(remembered(images[[1, 2, 3]]), images[[1, 2, 3]].float().mean(dim=(2, 3)))
    assert seen == [2, 2]
    remembered(images[[4, 5]])  # 0 and 1 were used longest ago
    remembered(images[[2, 3]])
    assert seen == [2, 2, 2]
    torch.testing.assert_close(remembered(images[[0]]), images[[0]].float().mean(dim=(2, 3)))
    assert seen == [2, 2, 2, 1]
    changed = images[[2]].clone()
    changed[0, 0, 0, 0] ^= 1
    remembered(changed)
    assert seen[-1] == 1 and len(seen) == 5, "one grey level makes another image"


def test_more_images_than_fit_in_one_batch_are_still_answered() -> None:
    remembered = RememberedImages(lambda images: images.float().mean(dim=(2, 3)), most_bytes=12)
    images = draw_images(5)
    torch.testing.assert_close(remembered(images), images.float().mean(dim=(2, 3)))
    assert len(remembered.rows) == 1
