"""The whole folder runs on the simulated device; where it cannot be built every test is skipped with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sampling.pipeline import Pipeline
from tests.conftest import open_pipeline
from tests.methods import save_random_module
from tests.simulated_cuda.device import SimulatedCuda, missing, simulated_cuda

REQUIRED = "ILF_BENCH_REQUIRE_SIMULATED_CUDA"
MODELS = ("dit", "pixart")  # rows of the fixture `folders`: every test here runs on each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.simulated)


@pytest.fixture(scope="package", autouse=True)
def installed() -> Iterator[SimulatedCuda]:
    if reason := missing():
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, but {reason}")
        pytest.skip(reason)
    with simulated_cuda() as device:
        yield device


@pytest.fixture
def device(installed: SimulatedCuda) -> Iterator[SimulatedCuda]:
    """The simulated devices, with nothing counted yet."""
    installed.forget()
    yield installed
    installed.library.sim_set_device(0)


@pytest.fixture(scope="package")
def pairs(folders: dict[str, Path], installed: SimulatedCuda) -> dict[str, tuple[Pipeline, Pipeline]]:
    """Each model on the CPU and on the device."""
    return {name: (open_pipeline(folders[name]), open_pipeline(folders[name], device="cuda")) for name in MODELS}


@pytest.fixture(scope="package")
def modules(pairs: dict[str, tuple[Pipeline, Pipeline]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random feedback module of each model."""
    return {name: save_random_module(cpu, tmp_path_factory.mktemp(f"module-{name}")) for name, (cpu, _) in pairs.items()}
