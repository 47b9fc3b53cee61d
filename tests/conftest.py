"""Random pipelines of true architecture and tiny size, and helpers shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
)
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from harness.loading import quiet_libraries
from harness.pipeline import Pipeline
from zoo.build import save_labels

DEPTH = 6
PROMPTS = ["red cat", "blue dog", "red dog", "blue cat", "cat"]

torch.set_num_threads(1)
quiet_libraries()


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 8),
        layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=16, mid_block_add_attention=False,
    )  # fmt: skip


def _common() -> dict[str, object]:
    return {
        "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": DEPTH,
        "sample_size": 8, "patch_size": 2,
    }  # fmt: skip


def _unzero(transformer: torch.nn.Module) -> None:
    """Random modulation and head, so that every block really changes its input."""
    for parameter in transformer.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)


def save_dit(folder: Path) -> Path:
    """A random DiT pipeline."""
    torch.manual_seed(1)
    transformer = DiTTransformer2DModel(**_common(), num_embeds_ada_norm=1000)
    _unzero(transformer)
    DiTPipeline(transformer, _vae(), DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    save_labels(folder, PROMPTS)
    return folder


def save_pixart(folder: Path) -> Path:
    """A random PixArt-alpha pipeline with a word tokenizer."""
    torch.manual_seed(2)
    words = sorted({word for prompt in PROMPTS for word in prompt.split()})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -9.0), *(("▁" + word, -2.0) for word in words)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=6)
    encoder = T5EncoderModel(T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    transformer = PixArtTransformer2DModel(
        **_common(), cross_attention_dim=16, caption_channels=16, use_additional_conditions=False
    )
    _unzero(transformer)
    PixArtAlphaPipeline(tokenizer, encoder, _vae(), transformer, DPMSolverMultistepScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def quick_calibrations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Calibrations of four images, kept apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("harness.calibration.SAMPLES", 4)
        yield


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved pipelines by name."""
    root = tmp_path_factory.mktemp("pipelines")
    return {"dit": save_dit(root / "dit"), "pixart": save_pixart(root / "pixart")}


def open_pipeline(folder: Path, **settings: object) -> Pipeline:
    """A fresh fp32 pipeline from a saved folder."""
    kind = DiTPipeline if "dit" in folder.name else PixArtAlphaPipeline
    defaults: dict[str, object] = {"steps": 4, "guidance": 2.0, "precision": "fp32"}
    return Pipeline(kind.from_pretrained(folder), folder=folder, **(defaults | settings))  # type: ignore[arg-type]


@pytest.fixture(params=["dit", "pixart"])
def pipeline(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Pipeline:
    """A fresh fp32 pipeline of either backbone: 6 blocks, 4 steps, guidance 2."""
    return open_pipeline(folders[request.param])
