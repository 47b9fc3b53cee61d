"""Null controls: what they are made of."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.contracts import Batch
from harness.execution.controls import control_batch, shuffled
from harness.statistics.controls import CONTROLS


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=30))
def test_shuffling_keeps_the_prompts_and_moves_as_many_as_a_rotation_can(prompts: list[str]) -> None:
    moved = shuffled(prompts)
    assert sorted(moved) == sorted(prompts)
    best = max(sum(prompts[i] != prompts[i - k] for i in range(len(prompts))) for k in range(len(prompts)))
    assert sum(a != b for a, b in zip(moved, prompts, strict=True)) == best


def test_the_controls_are_what_their_names_say() -> None:
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    full = Batch(images, ["one", "two", "three", "four"], range(4))
    made = {control: control_batch(control, full) for control in CONTROLS}
    assert all(batch.full is images and batch.images.shape == images.shape for batch in made.values())
    assert torch.equal(made["identical"].images, images) and made["identical"].prompts == full.prompts
    assert torch.equal(made["shuffled"].images, images) and made["shuffled"].prompts == ["three", "four", "one", "two"]
    assert made["black"].images.max() == 0 and made["constant"].images.flatten(2).float().std(dim=2).max() == 0
    assert (made["constant"].images[:, :, 0, 0].float() - images.float().mean(dim=(2, 3))).abs().max() <= 0.5
    assert made["noise"].images.float().std() > 60 and torch.equal(made["noise"].images, control_batch("noise", full).images)
    difference = (made["jpeg50"].images.float() - images.float()).abs().mean()
    assert 1 < difference < 80
