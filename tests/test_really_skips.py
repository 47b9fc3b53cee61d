"""PyTorch's own count of multiplications falls as the counted block evaluations do: what is said to be skipped does not run."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers.models.attention_processor import AttnProcessor
from torch.utils.flop_counter import FlopCounterMode

from harness.contracts import Method
from harness.sampling.pipeline import Pipeline
from tests.conftest import PROMPTS, open_pipeline
from tests.methods import LEARNED, TEXTS, applies, build

PLAIN = ("full", "steps", "solver")
SKIPPING = [text for text in (*TEXTS, *LEARNED) if text.split(":")[0] not in PLAIN]


Work = tuple[float, float]  # multiplications in the blocks, counted block evaluations


@pytest.fixture(scope="module")
def measured(folders: dict[str, Path]) -> dict[str, tuple[Pipeline, Work]]:
    """Each pipeline and its full run's work, with attention that torch can count on a CPU: the fused one is not."""
    found = {}
    for name, folder in folders.items():
        pipeline = open_pipeline(folder)
        for attention in [getattr(block, part) for block in pipeline.blocks for part in ("attn1", "attn2")]:
            if attention is not None:
                attention.set_processor(AttnProcessor())
        found[name] = pipeline, work(pipeline, build("full", Path()))
    return found


def work(pipeline: Pipeline, method: Method) -> Work:
    """Of one image."""
    with method.attach(pipeline):  # a calibration, where there is one, is not counted
        pass
    with pipeline.counting() as counter, FlopCounterMode(display=False) as flops, method.attach(pipeline):
        pipeline.generate(PROMPTS[:1], 0, [0])
    blocks = {name: sum(found.values()) for name, found in flops.get_flop_counts().items() if _is_block(name)}
    return float(sum(blocks.values())), counter.rows


def _is_block(name: str) -> bool:
    return name.split(".")[1:2] == ["transformer_blocks"] and name.count(".") == 2


@pytest.mark.parametrize(("number", "text"), list(enumerate(SKIPPING)))
def test_multiplications_fall_as_counted(measured: dict[str, tuple[Pipeline, Work]], number: int, text: str) -> None:
    """On either backbone in turn, to save time: the counted cost is compared with the predicted one on both elsewhere."""
    name = ("dit", "pixart")[number % 2]
    pipeline, (all_run, all_counted) = measured[name if applies(text, measured[name][0]) else "pixart"]
    run, counted = work(pipeline, build(text, Path()))
    assert run / all_run == pytest.approx(counted / all_counted, abs=0.03) and run < 0.97 * all_run
