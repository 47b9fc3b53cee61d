"""ImageReward: the batched path against the package's own, one pair at a time, on the same random weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.contracts import Batch
from harness.errors import NotMeasured
from metrics.preference import Preference
from metrics.published.image_reward import RewardModel
from metrics.published.packages import to_pil
from metrics.published.spec import ImageRewardWeights
from tests.published import FULL_STACK, draw_images, save_image_reward, small_vision

pytest.importorskip("fairscale", reason=FULL_STACK)
DEPTH, PAIRS = 2, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_image_reward(tmp_path_factory.mktemp("reward"), DEPTH)


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[RewardModel]:
    with small_vision(DEPTH):
        yield RewardModel(ImageRewardWeights(folder=folder))


def prompts() -> list[str]:
    letters = np.random.default_rng(0).choice(list("abcdefghij "), size=(PAIRS, 60))
    return ["".join(row[: 3 + 2 * i]) for i, row in enumerate(letters)]  # from three letters to more than 35 tokens


def test_batched_scores_are_the_packages(model: RewardModel) -> None:
    images = draw_images(PAIRS, side=80)
    found = Preference(model).measure(Batch(images, prompts(), range(PAIRS)))[:, 0]
    with torch.no_grad():
        wanted = [model.model.score(prompt, image) for prompt, image in zip(prompts(), to_pil(images), strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.ptp(wanted) > 1, "scores that hardly differ prove nothing"


def test_bfloat16_stays_near_and_is_named(folder: Path, model: RewardModel) -> None:
    images = draw_images(4, seed=1)
    with small_vision(DEPTH):
        fast = RewardModel(ImageRewardWeights(folder=folder, precision="bf16"))
    difference = (fast(images, prompts()[:4]) - model(images, prompts()[:4])).abs().max()
    assert 0 < difference < 0.2
    assert fast.fingerprint() != model.fingerprint()


def test_nothing_of_the_compatibility_stays_in_transformers(model: RewardModel) -> None:
    from transformers import modeling_utils

    assert "ImageReward" in sys.modules and not hasattr(modeling_utils, "find_pruneable_heads_and_indices")


def test_a_folder_without_its_files_or_with_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match=r"ImageReward\.pt"):
        RewardModel(ImageRewardWeights(folder=tmp_path))
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    state = torch.load(folder / "ImageReward.pt", weights_only=True)
    del state["mlp.layers.0.weight"]
    (tmp_path / "ImageReward.pt").unlink()
    torch.save(state, tmp_path / "ImageReward.pt")
    with small_vision(DEPTH), pytest.raises(NotMeasured, match=r"lacks 1 tensors, mlp\.layers\.0\.weight"):
        RewardModel(ImageRewardWeights(folder=tmp_path))
