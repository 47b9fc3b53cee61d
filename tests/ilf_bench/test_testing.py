"""The contract finds each way in which a method or a metric can break it, and ``ilf-bench check`` says so outside a clone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.contracts import Batch
from harness.paths import ROOT
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from ilf_bench.cli import main
from ilf_bench.registry import Registry
from ilf_bench.testing import (
    keeps_the_contract,
    method_clauses,
    metric_clauses,
    null_controls,
    tiny_batch,
    tiny_context,
    tiny_pipeline,
)
from metrics.base import BaseMetric, to_column
from tests.conftest import open_pipeline
from tests.ilf_bench.test_plugins import HALF, METRIC, write


@dataclass(frozen=True)
class Broken:
    """Half of the steps, and one fault."""

    fault: str = ""

    @property
    def label(self) -> str:
        return self.fault

    def plan(self, plan: Any) -> Any:
        half = plan.with_steps(len(plan.steps) // 2)
        return replace(half, steps=half.steps[1:]) if self.fault == "cost" else half

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        block, calls = pipeline.blocks[0], [0]
        with pipeline.sampling(steps=pipeline.steps // 2):
            original = block.forward

            def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
                calls[0] += 1
                out = original(hidden, *args, **kwargs)
                if self.fault == "memory":
                    return out * (1 + 0.1 * calls[0])
                return out + 0.5 * out.mean(0, keepdim=True) if self.fault == "neighbours" else out

            patch = patched(block, "forward", forward) if self.fault in ("memory", "neighbours") else nullcontext()
            try:
                with patch:
                    yield
            except BaseException:
                if self.fault == "error":
                    block.left = True
                raise
        self._leave(pipeline, block)

    def _leave(self, pipeline: Pipeline, block: nn.Module) -> None:
        if self.fault == "hook":
            block.register_forward_hook(lambda *_: None)
        elif self.fault == "forward":
            block.forward = lambda *args, **kwargs: type(block).forward(block, *args, **kwargs)
        elif self.fault == "weights":
            next(block.parameters()).data.mul_(1.5)
        elif self.fault == "scheduler":
            pipeline.pipe.scheduler = type(pipeline.pipe.scheduler).from_config(pipeline.pipe.scheduler.config)
        elif self.fault == "vae":
            pipeline.pipe.vae.decoder.note = 1
        elif self.fault == "threads":
            torch.set_float32_matmul_precision("high")
        elif self.fault == "class":
            type(block).note = 1


PROMISES = {
    "cost": "predicts the block evaluations",
    "memory": "same images twice",
    "neighbours": "independent of its neighbours",
    "error": "after an error",
    **dict.fromkeys(("hook", "forward", "weights", "scheduler", "vae", "threads", "class"), "restores the pipeline bit for bit"),
}


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    """Whatever a broken method leaves is undone."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("fault", PROMISES)
def test_each_broken_promise_is_found(folders: dict[str, Path], fault: str) -> None:
    pipeline = open_pipeline(folders["dit"])
    kind = type(pipeline.blocks[0])
    try:
        broken = {clause.promise: clause.fault for clause in method_clauses(pipeline, Broken(fault)) if clause.fault}
        assert any(PROMISES[fault] in promise for promise in broken), broken
    finally:
        if "note" in vars(kind):
            del kind.note
    torch.set_float32_matmul_precision("highest")
    with pytest.raises(AssertionError, match=PROMISES[fault] if fault != "class" else None):
        keeps_the_contract(open_pipeline(folders["dit"]), Broken(fault), changes=fault != "class")
    if "note" in vars(kind):
        del kind.note


def test_a_good_method_keeps_it_and_a_useless_one_is_told(folders: dict[str, Path]) -> None:
    pipeline = open_pipeline(folders["dit"])
    assert not [clause for clause in method_clauses(pipeline, Broken()) if clause.fault]
    keeps_the_contract(pipeline, Broken())
    with pytest.raises(AssertionError, match="changes what it should not"):
        keeps_the_contract(pipeline, Broken(), changes=False)


class Faulty(BaseMetric):
    """The mean pixel, and one fault."""

    name, title, floor, advised, range = "mean", "mean", 2, 2, (0.0, 255.0)
    made = 0

    def __init__(self, fault: str) -> None:
        self.fault, self.calls = fault, 0
        Faulty.made += 1
        self.number = Faulty.made
        if fault == "name":
            self.name = "other"
        if fault == "direction":
            self.direction = "up"  # type: ignore[assignment]
        if fault == "floor":
            self.floor = 0
        if fault == "range":
            self.range = (0.0, 126.0)

    def details(self) -> dict[str, str]:
        return {"made": str(self.number)} if self.fault == "fingerprint" else {"definition": "mean"}

    def measure(self, batch: Batch) -> Any:
        self.calls += 1
        rows = to_column(batch.images.float().mean(dim=(1, 2, 3)))
        if self.fault == "images":
            batch.images[0, 0, 0, 0] += 1
        if self.fault == "full" and batch.full is not None:
            batch.full[0, 0, 0, 0] += 1
        if self.fault == "state":
            torch.rand(1)
        wrong = {
            "dtype": rows.astype(np.float64),
            "shape": rows[:, 0],
            "rows": rows[:1],
            "nan": rows * np.nan,
            "graph": torch.from_numpy(rows).requires_grad_(),
            "black": np.where(rows == 0, np.float32(np.nan), rows),
            "random": rows + self.calls,
            "neighbours": rows - rows.mean(),
        }
        return wrong.get(self.fault, rows)

    def per_image(self, measured: Any) -> Any:
        return measured if self.fault == "alone" else super().per_image(measured)

    def summarise(self, measured: Any) -> Any:
        if self.fault == "few" or (self.fault == "average" and len(measured) >= 2):
            return measured[:, 0] if self.fault == "few" else np.nan_to_num(measured[:, 0])
        found = super().summarise(measured)
        return {"one": found[:1], "order": np.arange(len(found)) + found, "infinite": found * np.inf}.get(self.fault, found)


METRIC_PROMISES = {
    "name": "describes itself",
    "direction": "describes itself",
    "floor": "describes itself",
    "images": "leaves the images",
    "full": "leaves the images",
    "state": "global random state",
    "dtype": "float32",
    "graph": "float32",
    "black": "measures null controls",
    "nan": "finite row",
    "random": "same images alike",
    "neighbours": "independent of its neighbours",
    "range": "within its range",
    "alone": "says one finite thing",
    "few": "fewer images",
    "average": "not finite",
    "one": "one finite value per image",
    "order": "one finite value per image",
    "infinite": "one finite value per image",
    "fingerprint": "fingerprint",
}


@pytest.fixture(scope="module")
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 256, (2, 12, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Batch(drawn[0], ["red cat"] * 12, range(12), drawn[1])


@pytest.mark.parametrize("fault", METRIC_PROMISES)
def test_each_broken_promise_of_a_metric_is_found(batch: Batch, fault: str) -> None:
    clauses = metric_clauses("mean", lambda _: Faulty(fault), batch, tiny_context("text"))
    broken = {clause.promise: clause.fault for clause in clauses if clause.fault}
    assert any(METRIC_PROMISES[fault] in promise for promise in broken), broken


@pytest.mark.parametrize("fault", ["shape", "rows"])
def test_rows_of_another_shape_are_the_only_fault_that_is_told(batch: Batch, fault: str) -> None:
    (clause,) = [c for c in metric_clauses("mean", lambda _: Faulty(fault), batch, tiny_context("text")) if c.fault]
    assert "its shape is" in clause.fault


def test_a_good_metric_keeps_every_promise(batch: Batch) -> None:
    assert not [c for c in metric_clauses("mean", lambda _: Faulty(""), batch, tiny_context("text")) if c.fault]


def test_null_controls_are_told_apart_or_not(batch: Batch) -> None:
    """The mean pixel: black is darker, noise as bright as these images, and prompts are not read."""
    seen = null_controls(Faulty(""), batch)
    assert seen == {"black": "distinguished", "noise": "confused", "shuffled": "not read", "constant": "confused"}


def test_the_tiny_models_make_what_they_say() -> None:
    made = tiny_batch("class", 2)
    assert made.images.dtype == torch.uint8 and made.full is not None and made.images.shape == made.full.shape
    assert not torch.equal(made.images, made.full) and tiny_pipeline("class").steps == 4


def test_check_says_what_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(write(tmp_path / "mine.py", HALF + METRIC))]) == 0
    said = capsys.readouterr().out
    assert "half on tiny-class" in said and "half on tiny-text" in said and "brightness on images of tiny-text" in said
    assert "null controls beside these images: shuffled not read; constant " in said
    assert said.strip().endswith("22 promises kept, 0 broken")


def test_check_names_what_is_broken_and_leaves_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = HALF.replace("        with pipeline.sampling", "        pipeline.blocks[0].left = 1\n        with pipeline.sampling")
    assert main(["check", str(write(tmp_path / "mine.py", code)), "--methods", "half:0.5"]) == 1
    said = capsys.readouterr().out
    assert said.count("BROKEN  restores the pipeline bit for bit: transformer.transformer_blocks.0.left appeared") == 2


def test_what_the_users_code_raises_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = HALF.replace("        with pipeline.sampling", "        1 / 0\n        with pipeline.sampling")
    assert main(["check", str(write(tmp_path / "mine.py", code))]) == 1
    assert "BROKEN  runs: ZeroDivisionError: division by zero (mine.py, line" in capsys.readouterr().out


def test_a_method_that_says_it_cannot_run_breaks_no_promise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusal = "from harness.errors import NotMeasured\n        if not pipeline.is_class_conditional:\n"
    refusal += "            raise NotMeasured(expected='classes', got='captions', remedy='another model')\n"
    code = HALF.replace("        with pipeline.sampling", f"        {refusal}        with pipeline.sampling")
    assert main(["check", str(write(tmp_path / "mine.py", code))]) == 0
    said = capsys.readouterr().out
    assert "skipped NOT-MEASURED: expected classes" in said and "5 promises kept, 0 broken" in said


@pytest.mark.slow
def test_check_works_outside_a_clone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ilf_bench", "check", str(write(tmp_path / "mine.py", METRIC))]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "12 promises kept, 0 broken" in done.stdout, done.stderr


def test_the_metric_of_the_docs_keeps_its_promises(tmp_path: Path, batch: Batch) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").partition("## A metric of your own")[2]
    code = page.partition("```python")[2].partition("```")[0]
    build = Registry.of([write(tmp_path / "mine.py", code)]).metrics["brightness"]
    clauses = metric_clauses("brightness", build, batch, tiny_context("text"))
    assert len(clauses) == 12 and not [clause for clause in clauses if clause.fault]
