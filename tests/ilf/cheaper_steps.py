"""What every module with cheaper steps is held to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.sampling.pipeline import Pipeline
from harness.training.trajectories import Recorder, record
from ilf.attach import attach_module
from ilf.end_to_end import EndToEnd
from ilf.method import Ilf
from ilf.settings import IlfSettings
from tests.conftest import PROMPTS
from tests.ilf.test_end_to_end import module_of


def check_cost_and_images(pipeline: Pipeline, settings: IlfSettings, blocks: float, folder: Path) -> None:
    """The predicted and the counted work are ``blocks``, an image does not depend on its batch, and nothing is left behind."""
    module_of(pipeline, settings).save_pretrained(folder)
    method, plain = Ilf(checkpoint=str(folder)), pipeline.generate(PROMPTS[:3], 0, range(3))
    assert method.plan(pipeline.plan()).block_evaluations == blocks
    with pipeline.counting() as counter, method.attach(pipeline):
        together = pipeline.generate(PROMPTS[:3], 0, range(3))
        counted = counter.rows / 3
        again = pipeline.generate(PROMPTS[:3], 0, range(3))
        alone = torch.cat([pipeline.generate(PROMPTS[i : i + 1], 0, [i]) for i in range(3)])
    assert counted == pytest.approx(method.plan(pipeline.plan()).block_evaluations)
    assert torch.equal(together, again) and (together.int() - alone.int()).abs().max() <= 1
    assert torch.equal(pipeline.generate(PROMPTS[:3], 0, range(3)), plain)


def check_ends_where_trained(pipeline: Pipeline, settings: IlfSettings) -> None:
    """The pipeline with module and learned solver reaches the latents that training saw."""
    module, data = module_of(pipeline, settings), record(pipeline, PROMPTS, 7, (999, 500, 200))
    runs = EndToEnd(pipeline, module, (4,))
    for parameter in runs.solver(4).parameters():
        torch.nn.init.normal_(parameter, std=0.005)
    with torch.no_grad():
        ends = runs.ends(4, data, torch.arange(5))
    module.register_to_config(solvers={"4": runs.solver(4).table().content()})
    schedule, recorder = module.schedule(4), Recorder(pipeline, 5)
    with attach_module(pipeline, module, schedule), pipeline.sampling(table=schedule.table), recorder.recording():
        pipeline.generate(PROMPTS, 7, range(5))
    assert torch.allclose(recorder.states[-1], ends, atol=1e-4)
