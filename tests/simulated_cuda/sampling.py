"""One call of a pipeline on fixed prompts and noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.sampling.pipeline import Pipeline
from tests.conftest import PROMPTS

EVERY = (0, 1, 2)


def images(pipeline: Pipeline, indices: Sequence[int]) -> torch.Tensor:
    """Images of seed 0 as signed integers, on the host."""
    return pipeline.generate([PROMPTS[i] for i in indices], 0, indices).int()
