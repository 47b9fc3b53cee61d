"""``ilf_bench.benchmark`` on a pipeline of every family in memory, with nothing said of steps, guidance and methods."""

from __future__ import annotations

from pathlib import Path

import pytest

import ilf_bench
from harness.models.identity import memory_digest
from ilf_bench.recognise import FEW
from studies.families import CASES, WORDS


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
def test_a_pipeline_in_memory_runs_as_its_family_usually_does(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    pipe, side = case.tiny.build(), case.tiny.asked
    pipe.set_progress_bar_config(disable=True)
    state, usual = memory_digest(pipe), case.family.usual(case.tiny.configs)
    prompts = WORDS[:2] if case.family.task == "text" else ["0", "1"]
    run = ilf_bench.benchmark(
        pipe, prompts=prompts, metrics=["ssim"], height=side, width=side, timing={"rounds": 0}, out=tmp_path, precision="fp32"
    )
    assert run.record.complete and memory_digest(pipe) == state
    assert run.record.spec["steps"] == usual.steps and run.record.spec["guidance"] == usual.guidance
    assert len(run.methods) == (5 if usual.steps < FEW else 6) and (run.methods["failure"] == "").all()
    assert len(run.scores) == len(run.methods) and run.scores["value"].iloc[0] == 1 and run.scores["value"].min() > 0
    assert (run.scores["failure"] == "").all()
