"""Our caches against diffusers' own, on the same random FLUX.1 and Qwen-Image: the same at every step.

Where the library's cannot work on a family the test says how it fails.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.errors import NotMeasured
from harness.sampling.pipeline import Pipeline
from ilf_bench.testing import images
from studies.families import CASES, Opened

EQUAL = ["FLUX.1-dev", "FLUX.1-dev, true guidance", "Qwen-Image"]
PAIRS = {  # ours, theirs, and the steps at which the two schedules agree
    "first-block:0.9": ("diffusers-cache:first-block:0.9", 8),
    "first-block:0.8": ("diffusers-cache:first-block:0.8", 8),
    "taylorseer:interval=2:order=0:warmup=2": ("diffusers-cache:taylorseer:interval=2:order=0:warmup=2:modules=parts", 9),
    "taylorseer:interval=2:order=1:warmup=2": ("diffusers-cache:taylorseer:interval=2:order=1:warmup=2:modules=parts", 9),
    "taylorseer:interval=2:order=2:warmup=2": ("diffusers-cache:taylorseer:interval=2:order=2:warmup=2:modules=parts", 9),
    "fora:2": ("diffusers-cache:taylorseer:interval=2:order=0:warmup=1:modules=parts", 8),
    "pab:attention=2:cross=2:low=100:high=800": ("diffusers-cache:pab:interval=2:cross=2:low=100:high=800", 10),
    "magcache:threshold=0.5:most=2": ("diffusers-cache:magcache:threshold=0.5:most=2", 8),
}


def predictions(pipeline: Pipeline) -> list[torch.Tensor]:
    """What the transformer returned in each call, for one image."""
    found: list[torch.Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        found.append(output[0])

    hook = pipeline.transformer.register_forward_hook(keep)
    images(pipeline, (0,))
    hook.remove()
    return found


def close(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.allclose(x, y, atol=1e-5, rtol=0) for x, y in zip(a, b, strict=True))


@pytest.mark.families
@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("text", PAIRS)
def test_ours_is_theirs(families: dict[str, Opened], name: str, text: str) -> None:
    one, (theirs, steps) = families[name], PAIRS[text]
    pipeline = one.pipeline
    if "pab" in text and pipeline.guidance.on:
        pytest.skip("theirs keeps one state for both branches: see below")
    with pipeline.sampling(steps=steps):
        plain = predictions(pipeline)
        found, costs = [], []
        for method in (one.method(text), one.method(theirs)):
            with pipeline.counting() as counter, method.attach(pipeline):
                counter.rows = 0.0  # a calibration's is not the method's
                found.append(predictions(pipeline))
                costs.append(counter.rows)
    assert close(*found) and costs[0] == pytest.approx(costs[1])
    assert costs[0] < pipeline.plan().with_steps(steps).block_evaluations and not close(found[0], plain)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("SD3", "first-block:9", "TypeError"),
        ("FLUX.1-dev, true guidance", "pab", "either would get the other's"),
        ("FLUX.1-dev, true guidance", "fastercache", "either would get the other's"),
    ],
)
def test_where_theirs_does_not_work(families: dict[str, Opened], name: str, text: str, why: str) -> None:
    one = families[name]
    with pytest.raises(NotMeasured, match=why), one.method(f"diffusers-cache:{text}").attach(one.pipeline):
        images(one.pipeline, (0,))


@pytest.mark.parametrize("name", ["FLUX.1-dev, true guidance"])
def test_why_pab_is_not_measured_with_two_calls_in_a_step(families: dict[str, Opened], name: str) -> None:
    """Applied as its documentation says, diffusers' PAB gives the second branch the attention of the first."""
    from diffusers import PyramidAttentionBroadcastConfig

    case = CASES[name]
    pipeline = case.open(families[name].pipeline.folder)  # type: ignore[arg-type]
    calls: list[int] = []
    attention = pipeline.transformer.transformer_blocks[0].attn  # type: ignore[union-attr,index]
    forward = attention.forward
    attention.forward = lambda *args, **kwargs: (calls.append(pipeline.clock.call), forward(*args, **kwargs))[1]
    pipeline.transformer.enable_cache(  # type: ignore[operator]
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 1001),
            current_timestep_callback=lambda: int(pipeline.clock.t),
        )
    )
    images(pipeline, (0,))
    assert calls == [0] * pipeline.steps
