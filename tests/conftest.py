"""Random pipelines of true architecture and tiny size, and helpers shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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

from baselines.learned.exit_heads import ExitHeads
from baselines.learned.routers import HarmoniCa, LearningToCache, Router
from harness.models.loading import quiet_libraries
from harness.sampling.grids import power_grid
from harness.sampling.noise import sample_seed
from harness.sampling.pipeline import Pipeline
from harness.sampling.process import Process
from harness.sampling.schedulers.solver_table import SolverTable
from harness.storage.records import write_json
from harness.training.learned_solver import RATE, LearnedSolver
from zoo.recipes.build import save_labels

DEPTH = 6
PROMPTS = ["red cat", "blue dog", "red dog", "blue cat", "cat"]

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start: `make test` is two processes already
quiet_libraries()


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        mid_block_add_attention=False,
    )


def _common(heads: int = 2, layers: int = DEPTH) -> dict[str, object]:
    return {
        "num_attention_heads": heads,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": layers,
        "sample_size": 8,
        "patch_size": 2,
    }


def _unzero(transformer: torch.nn.Module) -> None:
    """Random modulation and head, so that every block really changes its input."""
    for parameter in transformer.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.05)


def _dit(**size: int) -> DiTTransformer2DModel:
    transformer = DiTTransformer2DModel(**_common(**size), num_embeds_ada_norm=1000)
    _unzero(transformer)
    return transformer


def _pixart(**size: int) -> PixArtTransformer2DModel:
    transformer = PixArtTransformer2DModel(
        **_common(**size), cross_attention_dim=8 * size.get("heads", 2), caption_channels=16, use_additional_conditions=False
    )
    _unzero(transformer)
    return transformer


def save_dit(folder: Path) -> Path:
    """A random DiT pipeline."""
    torch.manual_seed(1)
    transformer = _dit()
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
    transformer = _pixart()
    PixArtAlphaPipeline(tokenizer, encoder, _vae(), transformer, DPMSolverMultistepScheduler()).save_pretrained(folder)
    return folder


def starting_noise(seed: int, indices: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
    """The noise float32 [B, *shape] that a pipeline must start from, of generators seeded by (seed, index)."""
    seeded = [torch.Generator().manual_seed(sample_seed(seed, i)) for i in indices]
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in seeded])


def random_table(steps: int, guidance: float = 0.1) -> SolverTable:
    """DPM-Solver++ on spaced timesteps, and random terms of all kinds."""
    torch.manual_seed(7)
    solver = LearnedSolver(Process.of(DDIMScheduler()), power_grid(steps, 1.5))
    for parameter in (solver.keep, solver.clean, solver.guidance):
        torch.nn.init.normal_(parameter, std=0.1 / RATE)
    solver.guidance.data *= guidance / 0.1
    return solver.table()


def save_learned(folder: Path, parts: tuple[str, ...], steps: int = 4) -> None:
    """Random routers, a random schedule and random exit heads, where the methods look for trained ones."""
    generator = torch.Generator().manual_seed(5)
    for name in (LearningToCache.name, HarmoniCa.name):
        router = Router(steps, DEPTH, parts, range(1, steps))
        router.logits.data.normal_(generator=generator)
        router.save(folder / name / "router.json", "dpm++", 2.0)
        write_json(folder / name / "training.json", {"seconds": 1.0})
    reuse = ["000000", "123567", "765321", "101010"] if "attn2" in parts else ["000000", "145541", "541145", "101010"]
    front = [{"cost": 0.6, "error": 0.1, "reuse": reuse}, {"cost": 1.0, "error": 0.0, "reuse": ["000000"] * 4}]
    write_json(
        folder / "ecad" / "schedules.json", {"solver": "dpm++", "guidance": 2.0, "front": front, "search": {"seconds": 1.0}}
    )
    write_json(folder / "bespoke" / "solvers.json", {"guidance": 2.0, "tables": {"3": random_table(3).content()}, "seconds": 1.0})
    torch.manual_seed(6)
    heads = ExitHeads(DEPTH, 16)
    _unzero(heads)
    heads.save_pretrained(folder / "deediff")


@pytest.fixture(scope="session", autouse=True)
def quick_calibrations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Calibrations of four images, kept apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("harness.training.calibration.SAMPLES", 4)
        yield


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved pipelines by name, each with a smaller sibling beside it and with learned methods in it."""
    root = tmp_path_factory.mktemp("pipelines")
    for name, build in (("dit", _dit), ("pixart", _pixart)):
        torch.manual_seed(4)
        build(heads=1, layers=2).save_pretrained(root / f"{name}-small" / "transformer")
    saved = {"dit": save_dit(root / "dit"), "pixart": save_pixart(root / "pixart")}
    for name, folder in saved.items():
        save_learned(folder, ("attn1", "ff") if name == "dit" else ("attn1", "attn2", "ff"))
    return saved


def open_pipeline(folder: Path, **settings: object) -> Pipeline:
    """A fresh fp32 pipeline from a saved folder."""
    kind = DiTPipeline if "dit" in folder.name else PixArtAlphaPipeline
    defaults: dict[str, object] = {"steps": 4, "guidance": 2.0, "precision": "fp32"}
    return Pipeline(kind.from_pretrained(folder), folder=folder, **(defaults | settings))  # type: ignore[arg-type]


@pytest.fixture(params=["dit", "pixart"])
def pipeline(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Pipeline:
    """A fresh fp32 pipeline of either backbone: 6 blocks, 4 steps, guidance 2."""
    return open_pipeline(folders[request.param])
