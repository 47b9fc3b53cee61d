"""What a number format means on a GPU, and what is said where it overflows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from harness.config.spec import load_spec
from harness.errors import ArtifactError
from harness.execution import environment
from harness.models.loading import load_pipeline
from harness.sampling.pipeline import Pipeline
from harness.sampling.precision import resolve


def test_a_gpu_that_emulates_bfloat16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, native=native: including_emulation or native
        )
        assert resolve("auto", "cuda") == expected


def test_fp32_is_no_tf32_and_the_record_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    load_pipeline(load_spec("tiny-class", {"device": "cpu"}))
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="x", total_memory=1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    facts = environment.describe("cuda:0", "fp32")
    assert facts["tf32"] is False
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    other = environment.describe("cuda:0", "fp32")
    assert other["tf32"] is True and other["machine_key"] != facts["machine_key"], "their times do not compare"


@pytest.mark.parametrize(
    ("dtype", "remedy"), [("float32", "--precision fp32"), ("float16", "--dtype bfloat16"), ("bfloat16", "--dtype float32")]
)
def test_the_remedy_for_values_that_are_not_finite_is_one_that_is_taken(pipeline: Pipeline, dtype: str, remedy: str) -> None:
    """A spec with 16-bit weights takes no other precision."""
    pipeline.dtype = dtype
    pipeline.pipe.vae.decoder.conv_out.bias.data.fill_(float("nan"))
    prompts = ["0"] if pipeline.is_class_conditional else ["cat"]
    with pytest.raises(ArtifactError, match=remedy):
        pipeline.generate(prompts, 0, [0])
    option, value = remedy.removeprefix("--").split()
    load_spec("tiny-text", {"dtype": dtype, option: value})
