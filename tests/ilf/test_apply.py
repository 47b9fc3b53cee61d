"""ILF on a plain diffusers pipeline, without the harness."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiTPipeline, PixArtAlphaPipeline

from harness.errors import ArtifactError
from harness.sampling.noise import generators
from harness.sampling.patching import patched
from ilf.apply import apply
from ilf.checkpoint import load_module
from ilf.method import Ilf
from ilf.module import FeedbackModule
from tests.conftest import PROMPTS, open_pipeline, random_table
from tests.methods import save_random_module

KINDS = {"dit": DiTPipeline, "pixart": PixArtAlphaPipeline}


def sample(pipe: Any, guidance: float, steps: int = 4) -> np.ndarray[Any, Any]:
    pipe.set_progress_bar_config(disable=True)
    settings: dict[str, Any] = {
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "generator": generators(3, range(2)),
        "output_type": "np",
    }
    with torch.inference_mode():
        if isinstance(pipe, DiTPipeline):
            return np.asarray(pipe(class_labels=[0, 1], **settings).images)
        text = {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 6}
        return np.asarray(pipe(prompt=PROMPTS[:2], **text, **settings).images)


@pytest.mark.parametrize("cheaper", ["distilled", "distilled, learned solver", "carried"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_lines_do_what_the_harness_does_and_leave_no_trace(
    kind: str, cheaper: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    harness = open_pipeline(folders[kind], steps=4)
    folder = save_random_module(harness, tmp_path / "module", guidance_distilled="none" if cheaper == "carried" else "first-2")
    if cheaper != "distilled":
        module = load_module(folder)
        module.register_to_config(solvers={"4": random_table(4).content()})
        if cheaper == "carried":
            changes = {"guidance_carried": "odd", "optimiser_steps": 0, "end_to_end_steps": 1}
            module.register_to_config(settings=replace(module.settings, **changes).content())
        module.save_pretrained(folder)
    prompts = ["0", "1"] if kind == "dit" else PROMPTS[:2]
    with Ilf(checkpoint=str(folder)).attach(harness):
        expected = harness.generate(prompts, 3, range(2)).permute(0, 2, 3, 1).int()
    pipe = KINDS[kind].from_pretrained(folders[kind])
    before, scheduler = sample(pipe, 2.0), pipe.scheduler
    applied = apply(pipe, folder)
    images = torch.from_numpy(sample(pipe, applied.module.config.guidance) * 255).round().int()
    assert (images - expected).abs().max() <= 1
    applied.remove()
    assert pipe.scheduler is scheduler and np.array_equal(sample(pipe, 2.0), before)
    assert "forward" not in vars(pipe.transformer)
    with apply(pipe, FeedbackModule.from_pretrained(folder)):
        pass
    assert np.array_equal(sample(pipe, 2.0), before)


def test_it_stays_applied_when_nobody_keeps_the_result(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = save_random_module(open_pipeline(folders["dit"]), tmp_path / "module")
    pipe = DiTPipeline.from_pretrained(folders["dit"])
    applied = apply(pipe, folder)
    kept = sample(pipe, 2.0)
    applied.remove()
    apply(pipe, folder)
    gc.collect()
    assert np.array_equal(sample(pipe, 2.0), kept)


def test_a_module_of_another_backbone_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = save_random_module(open_pipeline(folders["dit"]), tmp_path / "module")
    with pytest.raises(ArtifactError, match="trained on this backbone"):
        apply(PixArtAlphaPipeline.from_pretrained(folders["pixart"]), folder)


def test_a_feedback_step_is_one_graph(folders: dict[str, Path], tmp_path: Path) -> None:
    """torch.compile sees hooks, module and both passes of a step without a graph break."""
    pipeline = open_pipeline(folders["dit"], steps=4)
    folder = save_random_module(pipeline, tmp_path / "module")
    explained: list[Any] = []
    forward = pipeline.transformer.forward

    def explaining(*args: Any, **kwargs: Any) -> Any:
        if not explained:
            explained.append(torch._dynamo.explain(forward)(*args, **kwargs))
        return forward(*args, **kwargs)

    with patched(pipeline.transformer, "forward", explaining), Ilf(checkpoint=str(folder)).attach(pipeline):
        pipeline.generate(["0", "1"], 3, range(2))
    assert explained[0].graph_break_count == 0, explained[0].break_reasons
    assert explained[0].graph_count == 1 and explained[0].op_count > 100
