"""Every method, built on a pipeline with a random feedback module: what the contract tests run over."""

from __future__ import annotations

from pathlib import Path

import torch

from baselines.table import BASELINES
from harness.config.methods import parse_method
from harness.contracts import Method
from harness.sampling.pipeline import Pipeline
from ilf.method import ILF_METHODS
from ilf.settings import IlfSettings
from ilf.train import build_module
from ilf.untrained import UNTRAINED_METHODS

TEXTS = (
    "full",
    "steps:3",
    "solver:ddim",
    "solver:unipc",
    "solver:deis",
    "solver:ghvb",
    "solver:bdia",
    "solver:evodiff",
    "deepcache:interval=3:first=2:last=4",
    "delta-dit:interval=2",
    "delta-dit:blocks=1:switch=0.3",
    "encoder:keys=3:blocks=1",
    "step-rehash:threshold=0.2:first=3",
    "fora:3",
    "taylorseer:interval=2:order=1:warmup=1",
    "taylorseer:3",
    "smoothcache:0.5",
    "smoothcache:alpha=9:most=1",
    "pab:attention=3:cross=2:low=0:high=1000",
    "t-gate:0.3",
    "guidance-reuse:2",
    "t-stitch:fraction=0.5",
    "deediff:0.5",
    "bottleneck:first=0.2",
    "first-block:0.25",
    "teacache:3.5",
    "magcache:0.5:retention=0.3",
)
LEARNED = ("learning-to-cache:0.5", "harmonica:threshold=0.6", "ecad:0.7")  # for the 4 steps of the test pipelines alone
THIRD_PARTY = (
    "diffusers-cache:first-block:9",
    "diffusers-cache:taylorseer:interval=2:warmup=1:modules=parts",
    "diffusers-cache:pab:interval=2:low=0:high=1000",
    "diffusers-cache:magcache:0.5:retention=0.3",
)
EXTRAS = ("cache-dit:9:front=1:warmup=1",)
LOW_BIT = ("int8", "int8:float", "fp8")  # need torchao, and FP8 a GPU
COMPOSED = (
    "budcache:0.5",
    "steps:5+budcache:0.6",
    "steps:3+solver:ddim",
    "steps:5+deepcache:interval=2",
    "steps:5+solver:unipc+magcache:0.5",
    "steps:6+fora",
    "spacing:1.5",
    "solver:ghvb+spacing:1.5",
    "steps:6+spacing:1.5+guidance-reuse:interval=3:first=2",
    "bespoke:3+guidance-reuse",
    "spacing:1.5+pab:low=0:high=900",
    "spacing:1.5+magcache:0.5",
    "bespoke:3",
    *LEARNED,
    "steps:3+t-stitch:0.3",
    "ilf:checkpoint={ilf}",
    "ilf:steps=3:feedback=first-2:checkpoint={ilf}",
    "ilf-untrained:steps=3:feedback=first-2",
    "ilf-untrained:steps=3:feedback=all:form=ours",
    *(
        f"ilf:checkpoint={{ilf}}+{cache}"
        for cache in (
            "deepcache:interval=2:first=2:last=5",
            "deepcache:interval=2:first=6:last=6",
            "fora:2",
            "smoothcache:0.5",
            "taylorseer:interval=2:order=1:warmup=1",
            "pab:attention=3:cross=2:low=0:high=1000",
            "magcache:0.5:retention=0.3",
            "encoder:keys=3:blocks=1",
            "step-rehash:threshold=0.2:first=3",
            "t-stitch:0.3",
        )
    ),
)


def applies(text: str, pipeline: Pipeline) -> bool:
    """Whether the method can work on this backbone; a test shows that it says so where it cannot."""
    needs_guidance = "guidance-reuse" in text
    return not (text.startswith(("t-gate", "bottleneck")) and pipeline.is_class_conditional) and not (
        needs_guidance and not pipeline.guidance.on
    )


def save_random_module(pipeline: Pipeline, folder: Path, scale: float = 0.3, guidance_distilled: str = "none") -> Path:
    """A random feedback module for blocks 2 to 5 with scales that matter."""
    torch.manual_seed(3)
    settings = IlfSettings(loop=(2, 5), grids=(4,), steps=4, power=1.0, gating="fixed", guidance_distilled=guidance_distilled)
    module = build_module(pipeline, settings)
    module.scales.data.fill_(scale)
    module.save_pretrained(folder)
    return folder


def build(text: str, module: Path) -> Method:
    """A method by its text; ``{ilf}`` stands for the module's folder."""
    return parse_method(text.format(ilf=module), {**BASELINES, **ILF_METHODS, **UNTRAINED_METHODS})
