"""Damage of known strength: none at 0, more at more, and each kind does what its name says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from metrics.bundled.degradations import KINDS, NOISE_STD, Damage, blur, degrade, draw_damage

Draw = Callable[..., torch.Tensor]


def damage_of(images: torch.Tensor, kind: str) -> Damage:
    damage = draw_damage(images, torch.Generator().manual_seed(0))
    return replace(damage, kind=torch.full((len(images),), KINDS.index(kind)))


def error(images: torch.Tensor, kind: str, strength: float) -> float:
    damaged = degrade(images, damage_of(images, kind), torch.full((len(images),), strength))
    return (damaged.float() - images.float()).square().mean().sqrt().item()


@pytest.mark.parametrize("kind", KINDS)
def test_strength_zero_changes_nothing_and_more_strength_changes_more(random_images: Draw, kind: str) -> None:
    images = random_images(8)
    errors = [error(images, kind, s) for s in (0.0, 0.3, 0.6, 1.0)]
    assert errors[0] == 0
    assert errors[1] < errors[2] < errors[3]


def test_noise_has_the_stated_deviation() -> None:
    images = torch.full((16, 3, 32, 32), 128, dtype=torch.uint8)
    assert error(images, "noise", 0.3) == pytest.approx(0.3 * NOISE_STD, rel=0.02)


def test_blur_keeps_a_flat_image_and_the_mean_of_an_impulse() -> None:
    flat = torch.full((2, 3, 32, 32), 77.0)
    torch.testing.assert_close(blur(flat, torch.tensor([0.5, 2.0])), flat)
    impulse = torch.zeros(1, 1, 33, 33)
    impulse[0, 0, 16, 16] = 1
    blurred = blur(impulse, torch.tensor([1.5]))
    offset = torch.arange(33) - 16.0
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    assert (blurred[0, 0].sum(0) * offset**2).sum().item() == pytest.approx(1.5**2, rel=0.01)


def test_full_dullness_has_no_colour(random_images: Draw) -> None:
    images = random_images(4)
    grey = degrade(images, damage_of(images, "dull"), torch.ones(4)).float()
    assert (grey.amax(1) - grey.amin(1)).max() == 0


def test_rows_are_damaged_independently(random_images: Draw) -> None:
    images = random_images(10)
    damage = draw_damage(images, torch.Generator().manual_seed(1))
    strength = torch.rand(10, generator=torch.Generator().manual_seed(2))
    whole = degrade(images, damage, strength)
    row = Damage(damage.kind[4:5], damage.noise[4:5], damage.centre[4:5], damage.fill[4:5])
    torch.testing.assert_close(degrade(images[4:5], row, strength[4:5])[0], whole[4], atol=1, rtol=0)
