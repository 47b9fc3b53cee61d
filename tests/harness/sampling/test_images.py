"""Images converted on the device are those that diffusers converts on the host, bit for bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.errors import ArtifactError
from harness.sampling.images import Decoded
from harness.sampling.noise import generators
from harness.sampling.pipeline import Pipeline
from tests.conftest import PROMPTS


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_they_are_those_of_diffusers(pipeline: Pipeline, precision: str) -> None:
    pipeline.precision = precision
    ours = pipeline.generate(PROMPTS[:2], 0, [0, 1])
    arguments: dict[str, Any] = (
        {"class_labels": [pipeline.pipe.labels[prompt] for prompt in PROMPTS[:2]]}
        if pipeline.is_class_conditional
        else {
            "prompt": PROMPTS[:2],
            "use_resolution_binning": False,
            "clean_caption": False,
            "max_sequence_length": 6,
        }
    )
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with torch.inference_mode(), mixed:
        theirs = pipeline.pipe(
            generator=generators(0, [0, 1]), num_inference_steps=4, guidance_scale=2.0, output_type="np", **arguments
        ).images
    expected = (np.asarray(theirs) * 255).round().clip(0, 255).astype(np.uint8).transpose(0, 3, 1, 2)
    assert np.array_equal(ours.numpy(), expected)
    assert ours[0].permute(1, 2, 0).is_contiguous(), "as an image file wants it"
    assert not ours.is_inference() and "decode" not in vars(pipeline.pipe.vae)


@pytest.mark.parametrize("as_tuple", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_with_its_count(value: float, as_tuple: bool) -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, 2, 3, 1] = value
    vae = SimpleNamespace(dtype=torch.float32, decode=lambda latents: (images,) if as_tuple else SimpleNamespace(sample=images))
    decoded = Decoded()
    with decoded.kept(vae):
        small = vae.decode(torch.zeros(2, 4, 1, 1))
    assert (small[0] if as_tuple else small.sample).shape == (2, 3, 1, 1)
    with pytest.raises(ArtifactError, match="1 values that are NaN or infinite; remedy: try this"):
        decoded.on_host("try this")
