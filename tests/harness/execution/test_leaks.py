"""A method that does not restore the pipeline fails by name, and those after it are what they would have been without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.models.loading import load_pipeline
from harness.sampling import restoration
from harness.sampling.pipeline import Pipeline
from harness.sampling.restoration import Restoration, changed, state_of
from harness.sampling.solvers import FLOW_SOLVERS, SOLVERS
from harness.storage.layout import slug
from harness.storage.records import Run, read_run
from ilf_bench.cli import main
from ilf_bench.experiment import prepare
from tests.harness.execution.test_runner import write_preset

LEAKING = """
from contextlib import contextmanager
from dataclasses import dataclass
import torch
from harness.sampling.patching import patched

@dataclass(frozen=True)
class Leaking:
    how: str

    @property
    def label(self):
        return f"leaking({self.how})"

    def plan(self, plan):
        return plan.choosing("what it likes")

    @contextmanager
    def attach(self, pipeline):
        block = pipeline.blocks[0]
        if self.how == "forward":
            forward = block.forward
            block.forward = lambda *args, **kwargs: forward(*args, **kwargs) * 0.5
        elif self.how == "hook":
            block.register_forward_hook(lambda module, args, output: output * 0.5)
        elif self.how == "attribute":
            pipeline.steps = 3
        elif self.how == "scheduler":
            pipeline.pipe.scheduler = type(pipeline.pipe.scheduler).from_config(pipeline.pipe.scheduler.config, solver_order=1)
        elif self.how == "config":
            pipeline.pipe.scheduler.register_to_config(solver_order=1)
        elif self.how == "step":
            step = pipeline.pipe.scheduler.step
            pipeline.pipe.scheduler.step = lambda *args, **kwargs: step(*args, **kwargs)
        elif self.how == "inplace":
            with torch.no_grad():
                block.ff.net[2].weight.mul_(0.5)
        elif self.how == "data":
            block.ff.net[2].weight.data.mul_(0.5)
        elif self.how == "tensor":
            block.ff.net[2].weight = torch.nn.Parameter(block.ff.net[2].weight.detach() * 0.5)
        elif self.how == "late":
            forward = block.forward
            def call(*args, **kwargs):
                block.ff.net[2].weight.data.mul_(0.9)
                return forward(*args, **kwargs)
            with patched(block, "forward", call):
                yield
            return
        elif self.how == "clumsy":
            block.forward = block.forward
            yield
            del block.forward
            return
        yield

METHODS = {"leaking": Leaking}
"""
HOWS = ("forward", "hook", "attribute", "scheduler", "config", "step", "inplace", "data", "tensor", "clumsy")


def run_with(folder: Path, tmp_path: Path, methods: list[str], code: int, **fields: object) -> Run:
    plugin = tmp_path / "leaking.py"
    plugin.write_text(LEAKING)
    out = tmp_path / "-".join(methods).replace(":", "")
    timing = {"rounds": 1, "batch": 2, "warmup": 0}
    preset = write_preset(
        tmp_path, folder, **({"methods": methods, "samples": 4, "timing": timing, "metrics": ["psnr"]} | fields)
    )
    assert main(["run", str(preset), "--out", str(out), "--plugin", str(plugin)]) == code
    (made,) = out.glob("random-*")
    return read_run(made)


def images(run: Run, label: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((run.path / "samples" / slug(label)).glob("*.png"))]


@pytest.fixture(autouse=True)
def everything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of milliseconds leave no time for reading all weights."""
    monkeypatch.setattr(restoration, "SHARE", 1e6)


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_with(folders["dit"], tmp_path_factory.mktemp("plain"), ["full", "steps:2"], 0)


@pytest.mark.parametrize("how", HOWS)
def test_who_leaks_fails_by_name_and_the_next_is_not_spoiled(
    folders: dict[str, Path], tmp_path: Path, plain: Run, how: str
) -> None:
    run = run_with(folders["dit"], tmp_path, ["full", f"leaking:{how}", "steps:2"], 4)
    (failure,) = run.failed_methods
    assert failure.method == f"leaking({how})" and "it left the pipeline changed: " in failure.reason
    assert set(run.records) == {"full", "2 steps"} and not images(run, f"leaking({how})")
    assert images(run, "2 steps") == images(plain, "2 steps") and images(run, "full") == images(plain, "full")
    assert {timing.method for timing in run.timings} >= {"full", "2 steps"} and f"leaking({how})" not in run.timings_of


@pytest.mark.parametrize(
    ("preset", "solver"), [*(("tiny-class", name) for name in SOLVERS), *(("tiny-flow", name) for name in FLOW_SOLVERS)]
)
def test_a_pipelines_own_solver_is_no_leak_whatever_it_keeps_of_a_call(preset: str, solver: str) -> None:
    pipeline = load_pipeline(prepare(preset, {"solver": solver, "steps": 3, "samples": 1, "device": "cpu"}, []).experiment.spec)
    before = state_of(pipeline)
    pipeline.generate(["0"], 0, range(1))
    assert changed(before, state_of(pipeline)) == []


def test_what_leaks_only_while_it_samples_is_found_where_it_comes_last(
    folders: dict[str, Path], tmp_path: Path, plain: Run
) -> None:
    """Its weights are written behind the versions' back, and nothing is sampled after it but the timed rounds."""
    run = run_with(folders["dit"], tmp_path, ["full", "steps:2", "leaking:late"], 4)
    assert [failure.method for failure in run.failed_methods] == ["leaking(late)"] and "holds other" in run.failed_methods[
        0
    ].reason
    assert "leaking(late)" not in run.records and images(run, "2 steps") == images(plain, "2 steps")


def test_a_second_call_does_not_take_a_leaking_method_for_done(folders: dict[str, Path], tmp_path: Path) -> None:
    for _ in range(2):
        run = run_with(folders["dit"], tmp_path, ["full", "leaking:late"], 4)
        assert [failure.method for failure in run.failed_methods] == ["leaking(late)"]


CLAIMS = """
from contextlib import contextmanager
from dataclasses import dataclass
from harness.sampling.patching import patched

@dataclass(frozen=True)
class Claims:
    label = "fewer steps, it says"

    def plan(self, plan):
        return plan.with_steps(len(plan.steps) // 2)

    @contextmanager
    def attach(self, pipeline):
        block, steps = pipeline.blocks[0], pipeline.steps // 2
        forward = block.forward
        with pipeline.sampling(steps=steps), patched(block, "forward", lambda *a, **k: forward(*a, **k)):
            yield

METHODS = {"claims": Claims}
"""


def test_who_claims_to_take_fewer_steps_and_changes_a_network_is_not_taken_for_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    plugin = tmp_path / "claims.py"
    plugin.write_text(CLAIMS)
    preset = write_preset(
        tmp_path, folders["dit"], methods=["full", "claims", "steps:2"], samples=4, metrics=[], timing={"rounds": 0}
    )
    assert main(["run", str(preset), "--out", str(tmp_path / "runs"), "--plugin", str(plugin)]) == 0
    (made,) = (tmp_path / "runs").glob("random-*")
    records = read_run(made).records
    assert records["fewer steps, it says"].kind == "other" and not records["fewer steps, it says"].is_plain
    assert records["2 steps"].kind == "fewer steps"


@pytest.mark.parametrize("where", ["on a CPU", "on a device"])
def test_checksums_see_every_bit_and_the_order_of_rows(pipeline: Pipeline, where: str) -> None:
    weight: torch.Tensor = pipeline.blocks[0].ff.net[2].weight  # type: ignore[union-attr,index,assignment]

    def checksums(tensors: list[torch.Tensor]) -> list[int]:
        if where == "on a CPU":
            return restoration.checksums(tensors)
        return [int(restoration.device_checksum(tensor.detach().view(torch.int32))) for tensor in tensors]

    before = checksums([weight])
    for change in (lambda w: w[3, 5].mul_(1 + 2**-20), lambda w: w.copy_(w.flip(0)), lambda w: w[0, 0].neg_()):
        kept = weight.detach().clone()
        change(weight.data)
        assert checksums([weight]) != before
        weight.data.copy_(kept)
        assert checksums([weight]) == before


def test_checksums_take_a_share_of_the_time_and_come_round_to_every_tensor(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoration, "SHARE", 0.01)
    whole = Restoration(pipeline)
    assert whole.faults(1e9) == [] and len(whole._chosen(1e9)) == len(whole.tensors)
    seen: set[str] = set()
    for _ in range(len(whole.tensors) // 4 + 1):
        chosen = whole._chosen(0.0)
        assert len(chosen) == 4
        seen |= set(chosen)
    assert seen == set(whole.tensors)
    whole.seconds = 1.0
    assert len(whole._chosen(50.0)) == len(whole.tensors) // 2
