"""Published numbers with the published weights; each test names the environment variables that it needs.

ILF_BENCH_IMAGE_REWARD         folder with ImageReward.pt, med_config.json and vocab.txt of bert-base-uncased
ILF_BENCH_IMAGE_REWARD_IMAGES  folder assets/images of image-reward's repository (1.webp to 4.webp)
ILF_BENCH_INCEPTION            weights-inception-2015-12-05-6726825d.pth
ILF_BENCH_FID_PAIR             two image folders and the FID that another tool published for them, separated by colons
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.contracts import Batch
from harness.storage.images import decode_image
from metrics.frechet import frechet_distance
from metrics.image_folder import folder_images
from metrics.preference import Preference
from metrics.published.image_reward import RewardModel
from metrics.published.inception import FILE, InceptionFeatures, open_inception
from metrics.published.spec import ImageRewardWeights
from tests.published import FULL_STACK

pytestmark = pytest.mark.weights
PROMPT = "a painting of an ocean with clouds and birds, day time, low depth field effect"  # of image-reward's README
README_SCORES = (0.58116, 0.27453, -1.41318, -2.02957)


def given(name: str) -> str:
    """The variable's text; the test is skipped without it."""
    if name not in os.environ:
        pytest.skip(f"needs published weights: set {name}")
    return os.environ[name]


def test_image_reward_of_the_readmes_four_images() -> None:
    pytest.importorskip("fairscale", reason=FULL_STACK)
    weights, folder = Path(given("ILF_BENCH_IMAGE_REWARD")), Path(given("ILF_BENCH_IMAGE_REWARD_IMAGES"))
    model = RewardModel(ImageRewardWeights(folder=weights))
    images = [torch.from_numpy(decode_image(folder / f"{i}.webp"))[None] for i in range(1, 5)]
    found = [Preference(model).measure(Batch(image, [PROMPT], [0]))[0, 0] for image in images]
    np.testing.assert_allclose(found, README_SCORES, atol=1e-3)


def test_inception_is_the_file_that_its_name_promises() -> None:
    path = Path(given("ILF_BENCH_INCEPTION"))
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(FILE.rpartition("-")[2].removesuffix(".pth"))


def test_fid_of_two_folders_is_the_published_one(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity", reason=FULL_STACK)
    extractor = InceptionFeatures(open_inception(Path(given("ILF_BENCH_INCEPTION")), "cpu"), "cpu")
    first, second, published = given("ILF_BENCH_FID_PAIR").rsplit(":", 2)
    with torch.no_grad():
        x, y = (folder_images(Path(folder)).features(extractor, tmp_path).features for folder in (first, second))
    assert frechet_distance(x, y) == pytest.approx(float(published), rel=1e-3)
