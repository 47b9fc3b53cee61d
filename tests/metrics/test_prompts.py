"""The metrics that read prompts, against their formulas written by hand on randomly initialised networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.contracts import Batch, note_of
from harness.errors import ArtifactError, UsageError
from metrics.bundled import tiny
from metrics.bundled.networks import PROMPT_PAIRS
from metrics.clip_iqa import NAMES, ClipIqa
from metrics.clip_score import ClipScore
from metrics.context import MetricContext
from metrics.preference import Preference

Draw = Callable[..., torch.Tensor]
PROMPTS = ("red apple", "good cat", "noisy dull dog", "clean picture")


def by_hand(clip: tiny.TinyClip, images: torch.Tensor, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings through transformers' own forward pass, one image and one unpadded text at a time."""
    image_rows, text_rows = [], []
    for image in images:
        pixels = (image.float()[None] / 255 - 0.5) / 0.5
        tokens = torch.tensor([clip.tokenizer("red").input_ids])
        image_rows.append(clip.model(input_ids=tokens, pixel_values=pixels).image_embeds[0].numpy())
    for text in texts:
        tokens = torch.tensor([clip.tokenizer(text).input_ids])
        pixels = torch.zeros(1, 3, 32, 32)
        text_rows.append(clip.model(input_ids=tokens, pixel_values=pixels).text_embeds[0].numpy())
    return np.stack(image_rows).astype(np.float64), np.stack(text_rows).astype(np.float64)


def test_clip_score_is_a_hundred_times_the_clipped_cosine(context: MetricContext, random_images: Draw) -> None:
    images = random_images(4)
    image, text = by_hand(context.networks.clip, images, PROMPTS)
    cosine = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
    measured = ClipScore(context.networks.clip, tiny=True).measure(Batch(images, PROMPTS, range(4)))
    assert measured.shape == (4, 1) and measured.dtype == np.float32
    np.testing.assert_allclose(measured[:, 0], 100 * np.maximum(cosine, 0), atol=1e-3)


def test_without_prompts_there_is_nothing_to_say_of_them(context: MetricContext) -> None:
    """As for the null controls."""
    metric = ClipScore(context.networks.clip, tiny=True)
    assert note_of(metric, []) == note_of(metric, PROMPTS) == "" and "is cut" in note_of(metric, ["red apple " * 200])


def test_clip_score_never_goes_below_zero(context: MetricContext, random_images: Draw) -> None:
    class Opposite:
        scale = 1.0

        def embed_images(self, images: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(images), 2)

        def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
            return -torch.ones(len(texts), 2)

        def fingerprint(self) -> dict[str, str]:
            return {}

    assert (ClipScore(Opposite()).measure(Batch(random_images(2), PROMPTS[:2], range(2))) == 0).all()


@pytest.mark.parametrize("pair", list(PROMPT_PAIRS))
def test_clip_iqa_is_the_softmax_over_its_pair(context: MetricContext, random_images: Draw, pair: str) -> None:
    images = random_images(5)
    metric = ClipIqa(context.networks.iqa, context.networks.iqa_prompts, pair, tiny=True)
    image, text = by_hand(context.networks.clip, images, PROMPT_PAIRS[pair])
    weight = np.exp(context.networks.clip.scale * image @ text.T)
    measured = metric.measure(Batch(images, ["red apple"] * 5, range(5)))
    np.testing.assert_allclose(measured[:, 0], weight[:, 0] / weight.sum(1), atol=1e-4)
    assert metric.name == NAMES[pair] and metric.title.endswith(" (tiny)")


def test_reward_is_the_standardised_ranking_score(context: MetricContext, random_images: Draw) -> None:
    images = random_images(4)
    batch = Batch(images, PROMPTS, range(4))
    metric = Preference(context.networks.reward, tiny=True)
    plain = metric.measure(batch)
    _, text = by_hand(context.networks.clip, images, PROMPTS)
    with torch.no_grad():
        wanted = context.networks.reward.model(tiny.to_unit(images), torch.from_numpy(text).float()).numpy()
        np.testing.assert_allclose(plain[:, 0], wanted, atol=1e-5)
        context.networks.reward.model.mean += 0.5
        context.networks.reward.model.std *= 2
        shifted = metric.measure(batch)
        context.networks.reward.model.mean -= 0.5
        context.networks.reward.model.std /= 2
    np.testing.assert_allclose(shifted, (plain - 0.5) / 2, atol=1e-5)


def test_reward_depends_on_the_prompt(context: MetricContext, random_images: Draw) -> None:
    images = random_images(4)
    metric = Preference(context.networks.reward)
    own = metric.measure(Batch(images, PROMPTS, range(4)))
    shuffled = metric.measure(Batch(images, PROMPTS[::-1], range(4)))
    assert not np.allclose(own, shuffled)


def test_a_text_does_not_depend_on_its_neighbours(context: MetricContext) -> None:
    alone = context.networks.clip.embed_texts(["cat"])
    beside = context.networks.clip.embed_texts(["cat", "red apple good clean picture dog"])
    torch.testing.assert_close(alone[0], beside[0])


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 1, 32, 32)])
def test_images_of_another_size_are_refused(context: MetricContext, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="full metrics"):
        context.networks.clip.embed_images(torch.zeros(shape, dtype=torch.uint8))


def test_float_images_are_refused(context: MetricContext) -> None:
    with pytest.raises(UsageError, match="uint8"):
        context.networks.clip.embed_images(torch.zeros(2, 3, 32, 32))


def test_missing_weights_are_an_artifact_error(tmp_path: Path) -> None:
    context = MetricContext(tmp_path, "text")
    with pytest.raises(ArtifactError, match="remedy"):
        _ = context.networks.clip
    with pytest.raises(ArtifactError, match="remedy"):
        _ = context.networks.fidelity_features
