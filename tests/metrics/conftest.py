"""A folder of randomly initialised tiny scorers, laid out as the zoo saves the trained ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import T5Tokenizer

from metrics.bundled import tiny
from metrics.context import MetricContext
from metrics.reference import describe_reference, write_reference

WORDS = ("red", "apple", "cat", "dog", "good", "bad", "clean", "noisy", "colourful", "dull", "picture")


def draw_images(count: int, seed: int = 0) -> torch.Tensor:
    """uint8 [count, 3, 32, 32]: smooth random colours, so that images differ in more than their noise."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    return (large * 255).round().to(torch.uint8)


def write_scorers(folder: Path, seed: int = 0) -> Path:
    """Random weights for all four scorers under ``folder``."""
    torch.manual_seed(seed)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -10.0)] + [("▁" + word, -2.0) for word in WORDS]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=tiny.MAX_TOKENS)
    clip = tiny.build_clip(len(tokenizer), width=32, vision_layers=1, text_layers=1, projection=32)
    rows, _ = torch.linalg.qr(torch.randn(32, tiny.FRECHET_WIDTH))
    tiny.save_clip(clip, tokenizer, rows.T, torch.zeros(32), folder / "clip")
    tiny.save_network(tiny.RewardModel(text=32), folder / "reward")
    tiny.save_network(tiny.ImageClassifier(10, tiny.FRECHET_WIDTH), folder / "digit-classifier")
    tiny.save_network(tiny.ImageClassifier(20, 64), folder / "emoji-classifier")
    return folder


@pytest.fixture(scope="session")
def random_images() -> Callable[..., torch.Tensor]:
    """:func:`draw_images`."""
    return draw_images


@pytest.fixture(scope="session")
def save_scorers() -> Callable[..., Path]:
    """:func:`write_scorers`."""
    return write_scorers


@pytest.fixture(scope="session")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random scorers, shared by the tests that only read them."""
    return write_scorers(tmp_path_factory.mktemp("scorers"))


@pytest.fixture(scope="session")
def context(scorers: Path, tmp_path_factory: pytest.TempPathFactory) -> MetricContext:
    """A text-task context with a reference of 300 random images."""
    extractor = MetricContext(scorers, "text").networks.frechet_features
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    write_reference(path, extractor(draw_images(300, seed=9)).numpy(), describe_reference(extractor, "300 random images"))
    return MetricContext(scorers, "text", reference=path)
