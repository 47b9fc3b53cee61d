"""One pipeline of each backbone for all tests here, with its settings restored for each; methods leave it as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.sampling.pipeline import Pipeline
from tests.conftest import open_pipeline


@pytest.fixture(scope="session")
def opened(folders: dict[str, Path]) -> dict[str, Pipeline]:
    return {name: open_pipeline(folder) for name, folder in folders.items()}


@pytest.fixture(params=["dit", "pixart"])
def pipeline(request: pytest.FixtureRequest, opened: dict[str, Pipeline]) -> Pipeline:
    """6 blocks, 4 steps, guidance 2, fp32."""
    shared = opened[request.param]
    shared.steps, shared.guidance = 4, shared.guidance.at(2.0)
    return shared
