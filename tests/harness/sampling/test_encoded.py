"""Each prompt is encoded once for all methods, within the memory that is stated; no image knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from rich.console import Console

from harness.cost.plan import Plan
from harness.execution.experiment import Experiment
from harness.sampling import encoded
from harness.sampling.encoded import EncodedPrompts, text_encoders
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.timing.stages import StageTimer
from ilf_bench import experiment as app
from ilf_bench.cli import main
from tests.conftest import PROMPTS, open_pipeline
from tests.harness.execution.test_runner import SAMPLES, files, write_preset


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of a text encoder has had."""
    from transformers import T5EncoderModel

    seen: list[int] = []
    forward = T5EncoderModel.forward

    def counted(self: T5EncoderModel, input_ids: torch.Tensor, **kwargs: object) -> object:
        seen.append(len(input_ids))
        return forward(self, input_ids, **kwargs)

    monkeypatch.setattr(T5EncoderModel, "forward", counted)
    return seen


def run(preset: Path, out: Path) -> Path:
    prepared = app.prepare(str(preset), {"timing": {"rounds": 0, "batch": 2, "warmup": 0}}, [])
    return app.execute(prepared, out, Console(quiet=True)).run.path


def test_a_run_encodes_each_prompt_once_and_makes_the_same_images(
    folders: dict[str, Path], tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = write_preset(tmp_path, folders["pixart"])
    once = files(run(preset, tmp_path / "once"))
    assert sum(calls) == 2 * SAMPLES, "the prompts, and the empty prompt beside each of them, for all three methods together"
    calls.clear()
    monkeypatch.setattr(EncodedPrompts, "applies", False)
    assert files(run(preset, tmp_path / "each")) == once
    assert sum(calls) == 3 * 2 * SAMPLES


def test_beyond_the_memory_each_chunk_goes_through_all_methods(
    folders: dict[str, Path],
    tmp_path: Path,
    calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    preset = write_preset(tmp_path, folders["pixart"])
    whole = files(run(preset, tmp_path / "whole"))
    one = 6 * 16 * 4
    monkeypatch.setattr(encoded, "KEPT_BYTES", 4 * one + 3 * one)  # a batch of 4, its masks and the empty prompt
    calls.clear()
    order: list[tuple[str, int]] = []
    begin = app.Runner._outcomes

    def noted(self: app.Runner, role, tasks, **how):  # type: ignore[no-untyped-def]
        def told():  # type: ignore[no-untyped-def]
            for task in tasks:
                if task.stage == "generate":
                    order.append((task.method, task.start))
                yield task

        return begin(self, role, told(), **how)

    monkeypatch.setattr(app.Runner, "_outcomes", noted)
    assert files(run(preset, tmp_path / "chunks")) == whole
    assert [start for _, start in order] == [0] * 3 + [4] * 3 + [8] * 3 and len({label for label, _ in order[:3]}) == 3
    assert sum(calls) == 2 * SAMPLES
    assert main(["run", str(preset), "--out", str(tmp_path / "none"), "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"encoded prompts: {4 * one / 1e6:.1f} MB on the host" in said and "4 at a time go through all methods" in said


def test_the_dry_run_states_the_memory_of_encoded_prompts(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path, folders["pixart"])
    assert main(["run", str(preset), "--out", str(tmp_path / "none"), "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "of at most 2147 MB: each is encoded once for all methods" in said
    assert main(["run", str(write_preset(tmp_path, folders["dit"])), "--out", str(tmp_path / "none"), "--dry-run"]) == 0
    assert "encoded prompts" not in capsys.readouterr().out


def test_timed_rounds_encode_again(folders: dict[str, Path], calls: list[int]) -> None:
    pipeline = open_pipeline(folders["pixart"])
    kept, timer = EncodedPrompts(pipeline.pipe), StageTimer("cpu")
    with pipeline.keeping_prompts(kept):
        pipeline.generate(PROMPTS[:2], 0, range(2))
    calls.clear()
    with timer.timing(pipeline):
        pipeline.generate(PROMPTS[:2], 0, range(2))
    assert sum(calls) == 4 and timer.text_s > 0


class Louder:
    """A method that changes how prompts are encoded, in one of the ways that there are."""

    label = "louder"

    def __init__(self, how: str) -> None:
        self.how = how

    def plan(self, plan: Plan) -> Plan:
        return plan

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        (encoder,) = text_encoders(pipeline.pipe).values()
        if self.how == "weights":
            weight = next(encoder.parameters())
            kept = weight.detach().clone()
            with torch.no_grad():
                weight.mul_(3)
            yield
            with torch.no_grad():
                weight.copy_(kept)
            return
        target, name = (pipeline.pipe, "encode_prompt") if self.how == "pipe" else (encoder, "forward")
        real = getattr(target, name)
        with patched(target, name, lambda *a, **k: torch.utils._pytree.tree_map(louder, real(*a, **k))):
            yield


def louder(leaf: object) -> object:
    return leaf * 3 if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


@pytest.mark.parametrize("how", ["pipe", "forward", "weights"])
def test_a_method_that_changes_the_text_stage_encodes_by_itself(folders: dict[str, Path], how: str) -> None:
    pipeline = open_pipeline(folders["pixart"])
    with Louder(how).attach(pipeline):
        expected = pipeline.generate(PROMPTS[:2], 0, range(2))
    plain = pipeline.generate(PROMPTS[:2], 0, range(2))
    kept = EncodedPrompts(pipeline.pipe)
    with pipeline.keeping_prompts(kept):
        assert torch.equal(pipeline.generate(PROMPTS[:2], 0, range(2)), plain)
        with Louder(how).attach(pipeline):
            assert torch.equal(pipeline.generate(PROMPTS[:2], 0, range(2)), expected)
    assert not torch.equal(expected, plain) and len(kept.kept) == 1


def test_what_comes_back_is_bit_for_bit_and_may_be_changed() -> None:
    class Pipe:
        def __init__(self) -> None:
            self.components: dict[str, object] = {}

        def encode_prompt(self, prompts: list[str], scale: float) -> tuple[torch.Tensor, None, torch.Tensor]:
            torch.manual_seed(len(prompts[0]))
            return torch.randn(2, 5) * scale, None, torch.full((2, 5), float("nan"))

    pipe = Pipe()
    kept = EncodedPrompts(pipe, most=100)
    first = pipe.encode_prompt(["a", "b"], 1.0)
    with kept.used("cpu"):
        pipe.encode_prompt(["a", "b"], 1.0)
        for _ in range(2):
            again = pipe.encode_prompt(["a", "b"], 1.0)
            assert torch.equal(again[0], first[0]) and again[1] is None and bool(again[2].isnan().all())
            again[0].zero_()
        assert not torch.equal(pipe.encode_prompt(["a", "b"], 2.0)[0], first[0])
        assert kept.bytes <= 100 and len(kept.kept) == 1, "the older one went for the newer one"


def test_the_windows_of_an_experiment_are_whole_batches(folders: dict[str, Path], tmp_path: Path) -> None:
    prepared = app.prepare(str(write_preset(tmp_path, folders["dit"])), {}, [])
    plain: Experiment = prepared.experiment
    assert list(plain.windows()) == [range(12)] and plain.prompt_bytes == 0
    large = Experiment(plain.spec, plain.methods, plain.planned, plain.prompts, prompt_bytes=encoded.KEPT_BYTES // 9)
    assert list(large.windows()) == [range(8), range(8, 12)]
