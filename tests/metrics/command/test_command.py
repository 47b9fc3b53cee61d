"""A metric in another process: the protocol, and everything that a command may do wrong."""

from __future__ import annotations

import ast
import contextlib
import gc
import json
import pickle
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.config.spec import load_spec
from harness.contracts import Batch, Metric
from harness.errors import NotMeasured
from harness.results import Failure, Score
from ilf_bench.registry import build_metrics
from ilf_bench.scorer_commands import SERVE
from metrics.command.metric import CommandFactory, CommandMetric
from metrics.command.protocol import Handshake, read_handshake
from metrics.command.spec import CommandSpec
from metrics.context import MetricContext
from tests.harness.execution.test_scorer import Brightness, folder, read_scores, score, values, write_samples
from tests.published import draw_images, save_images

__all__ = ["folder"]  # a fixture
FAKE = Path(__file__).parent / "fake_scorer.py"


def factory(fault: str, where: Path, **limits: float) -> CommandFactory:
    command = (sys.executable, str(FAKE), fault, str(where))
    return CommandFactory("brightness", CommandSpec(command=command, **limits))  # type: ignore[arg-type]


def starts(where: Path) -> int:
    return int((where / "starts").read_text())


def batch(n: int = 4, seed: int = 0) -> Batch:
    return Batch(draw_images(n, seed, 32), ["x"] * n, range(n), draw_images(n, seed + 1, 32))


def brightness(images: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    grey = (images.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1)
    return grey.mean(dim=(1, 2)).numpy()


def test_values_handshake_and_fingerprint(context: MetricContext, tmp_path: Path) -> None:
    metric = factory("stderr", tmp_path)(context)
    assert isinstance(metric, CommandMetric)
    rows = metric.measure(batch())
    assert rows.dtype == np.float32 and rows.shape == (4, 1)
    np.testing.assert_allclose(rows[:, 0], brightness(batch().images), atol=1)  # a grey image has whole levels
    assert (metric.name, metric.title, metric.direction, metric.paired) == ("brightness", "brightness", "higher", False)
    assert metric.range == (0.0, 255.0)
    assert metric.fingerprint() == {
        "metric": "brightness",
        "floor": "1",
        "command": "brightness",
        "weights": "none-1",
        "preprocessing": "",
        "package x": "1",
        "direction": "higher",
        "range": "[0.0, 255.0]",
        "width": "1",
        "paired": "false",
    }
    assert pickle.loads(pickle.dumps(factory("none", tmp_path))) == factory("none", tmp_path)


HANDSHAKE = {"protocol": 1, "name": "a", "weights": "w", "direction": "higher"}
CHANGED = {
    "name": "b",
    "weights": "v",
    "direction": "lower",
    "packages": {"x": "1"},
    "preprocessing": "cropped",
    "range": [0, None],
    "width": 2,
    "paired": True,
}
SHOWN = {"title": "A", "unit": "points"}


def test_a_whole_number_in_a_range_is_the_same_range() -> None:
    assert read_handshake(json.dumps({**HANDSHAKE, "range": [0, 1]}).encode()) == Handshake(**HANDSHAKE, range=(0.0, 1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", sorted(set(Handshake.model_fields) - {"protocol"}))
def test_every_field_but_the_texts_for_display_is_in_the_fingerprint(field: str) -> None:
    one, other = (
        read_handshake(json.dumps(fields).encode()) for fields in (HANDSHAKE, {**HANDSHAKE, field: (CHANGED | SHOWN)[field]})
    )
    assert one != other and (one.fingerprint() == other.fingerprint()) is (field in SHOWN)


@pytest.mark.parametrize("fault", ["packages", "none"])
def test_an_answer_may_repeat_the_packages(context: MetricContext, tmp_path: Path, fault: str) -> None:
    metric = factory(fault, tmp_path)(context)
    for _ in range(3):
        metric.measure(batch())
    assert starts(tmp_path) == 1


def test_a_paired_command_sees_the_full_runs_images(context: MetricContext, tmp_path: Path) -> None:
    metric = factory("paired", tmp_path)(context)
    one = batch()
    assert one.full is not None and metric.paired and metric.title == "brightness to the full run"
    difference = np.abs(brightness(one.images) - brightness(one.full))
    np.testing.assert_allclose(metric.measure(one)[:, 0], difference, atol=1)
    assert (metric.measure(replace(one, full=one.images)) == 0).all()


def test_features_become_a_kernel_distance_to_the_reference(
    context: MetricContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    real = save_images(draw_images(6, 3, 32), tmp_path / "real")
    metric = factory("features", tmp_path)(replace(context, reference=real))
    assert metric.title == "Kernel distance (brightness)" and metric.direction == "lower"
    rows = metric.measure(batch())
    assert rows.shape == (4, 3) and np.isfinite(metric.summarise(rows)).all()


START = {
    "banner": "expected the handshake.*'Loading model ...'.*standard error",
    "gpu-taken": "exit code 1, twice; it last wrote 'RuntimeError: CUDA error: all CUDA-capable devices are busy",
    "never-ready": "expected its handshake.*none within 1 s",
    "another-protocol": "handshake of protocol 1.*got protocol 2",
    "no-weights": "weights: Field required",
}


@pytest.mark.parametrize("fault", START)
def test_a_command_that_cannot_start_is_not_measured(context: MetricContext, tmp_path: Path, fault: str) -> None:
    with pytest.raises(NotMeasured, match=START[fault]) as caught:
        factory(fault, tmp_path, **LIMITS.get(fault, {}))(context)
    assert starts(tmp_path) == 2 and "scorer command brightness" in str(caught.value) and str(FAKE) in str(caught.value)


def test_no_such_program(context: MetricContext) -> None:
    with pytest.raises(NotMeasured, match="a program no-such-program from scorer command x"):
        CommandFactory("x", CommandSpec(command=("no-such-program",)))(context)


LATER = {
    "too-few": "expected 4 rows, one per image.*got 3 rows",
    "too-many": "expected 4 rows, one per image.*got 5 rows",
    "nan": "finite numbers from 0 to 255.*nan for image 0",
    "infinity": "finite numbers.*inf for image 0",
    "huge": "finite numbers.*1000",
    "outside": "finite numbers from 0 to 255.*256.0 for image 0",
    "text": "1 numbers for each image.*'good'",
    "two-numbers": r"1 numbers for each image.*\[1.0, 2.0\]",
    "nothing": "1 numbers for each image.*None",
    "bool": "1 numbers for each image.*True",
    "other-weights": "weights none-1 as in the handshake.*'none-2'",
    "other-packages": r"packages \{'x': '1'\} as in the handshake.*\{'x': '2'\}",
    "other-batch": r"the answer to batch \d.*one to batch 77",
    "no-rows": "4 rows, one per image.*None",
    "garbage": "the answer to batch.*done.*standard error",
    "a-list": r"the answer to batch.*\[1, 2\]",
    "crash": "exit code 1, twice; it last wrote 'ValueError: no such layer'",
    "killed": "it was killed by SIGKILL",
    "slow": "an answer.*none within 2 s",
    "stays-silent": "an answer.*a closed standard output",
    "deaf": r"a reader of a request's \d+ bytes.*got [1-9]\d* within 2 s: it does not read its standard input, twice",
}
LIMITS = {"slow": {"timeout_s": 2.0}, "deaf": {"timeout_s": 2.0}, "never-ready": {"start_timeout_s": 1.0}}


LONG = ["a long prompt " * 2000] * 4  # more than a pipe holds
MANY = tuple(LONG * 3)


@pytest.mark.parametrize("fault", LATER)
def test_each_fault_is_one_clear_failure_after_one_restart(
    context: MetricContext, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "stays-silent":
        monkeypatch.setattr("metrics.command.process.PATIENCE", 0.5)  # it does not end by itself
    metric = factory(fault, tmp_path, **LIMITS.get(fault, {}))(context)
    metric.measure(batch())
    for _ in range(2):
        with pytest.raises(NotMeasured, match=LATER[fault]) as caught:
            metric.measure(replace(batch(), prompts=LONG))
        assert "scorer command brightness" in str(caught.value) and str(caught.value).count("NOT-MEASURED") == 1
    assert starts(tmp_path) == 2, "a dead command is not started again for every batch that is left"


@pytest.mark.parametrize("fault", ["crash", "killed", "too-few", "garbage", "other-weights", "other-packages", "deaf"])
def test_a_fault_that_passes_costs_nothing_but_the_restart(context: MetricContext, tmp_path: Path, fault: str) -> None:
    metric = factory(f"{fault}-once", tmp_path, **LIMITS.get(fault, {}))(context)
    good = metric.measure(batch())
    for _ in range(3):
        np.testing.assert_array_equal(metric.measure(replace(batch(), prompts=LONG)), good)
    assert starts(tmp_path) == 2


def test_another_handshake_after_a_restart_is_refused(context: MetricContext, tmp_path: Path) -> None:
    metric = factory("other-after-restart", tmp_path)(context)
    assert isinstance(metric, CommandMetric)
    metric.measure(batch())
    metric.scorer.command.close(kill=True)
    with pytest.raises(NotMeasured, match="the same handshake after a restart"):
        metric.measure(batch())


TOY = """
import sys
sys.path.insert(0, sys.argv[1])
from ilf_bench_scorer import serve
serve(lambda images, prompts: [1.0] * len(images), name="toy", weights="none", packages=("toy",))
"""


def install_toy(where: Path, version: str) -> None:
    (where / f"toy-{version}.dist-info").mkdir()
    (where / f"toy-{version}.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: toy\nVersion: {version}\n")


def test_a_package_that_is_replaced_between_batches_is_noticed(context: MetricContext, tmp_path: Path) -> None:
    (tmp_path / "ilf_bench_scorer.py").write_bytes(SERVE.read_bytes())
    (tmp_path / "toy.py").write_text(TOY)
    install_toy(tmp_path, "1")
    metric = CommandFactory("toy", CommandSpec(command=(sys.executable, str(tmp_path / "toy.py"), str(tmp_path))))(context)
    assert metric.fingerprint()["package toy"] == "1"
    metric.measure(batch())
    shutil.rmtree(tmp_path / "toy-1.dist-info")
    install_toy(tmp_path, "2")
    with pytest.raises(NotMeasured, match=r"the same handshake after a restart.*'package toy': '2'"):
        metric.measure(batch())


def test_lines_that_nobody_asked_for(context: MetricContext, tmp_path: Path) -> None:
    metric = factory("chatter", tmp_path)(context)
    metric.measure(batch())
    with pytest.raises(NotMeasured, match=r"silence between answers.*'one more thing'"):
        for _ in range(3):
            metric.measure(batch())
            time.sleep(0.4)
    assert starts(tmp_path) == 2


def test_a_flood_of_lines_is_not_kept_in_memory(context: MetricContext, tmp_path: Path) -> None:
    metric = factory("flood", tmp_path)(context)
    metric.measure(batch())
    for _ in range(2):
        metric.measure(batch())
        assert isinstance(metric, CommandMetric) and metric.scorer.command._running is not None
        assert metric.scorer.command._running.process.wait(30) != 0 and not (tmp_path / "floods").exists()
    with pytest.raises(NotMeasured, match=r"silence between answers.*'xxx"):
        metric.measure(batch())
    assert starts(tmp_path) == 2


def test_a_batch_that_it_refuses_for_memory_is_asked_in_smaller_pieces(
    folder: Path, context: MetricContext, tmp_path: Path
) -> None:
    metrics: dict[str, Metric | Failure] = {"brightness": factory("refuses", tmp_path)(context)}
    score(folder, metrics, labels=("fast",))
    assert values(read_scores(folder)["fast", "brightness"]).shape == (12,) and starts(tmp_path) == 1


AFTERWARDS = ("chatter", "flood")  # the answer is good, and then comes more


def scored(where: Path, fault: str) -> dict[tuple[str, str], Score | Failure]:
    """Two metrics on three ranges and six controls of three each; the command comes first."""
    table = {"brightness": factory(fault, where, **LIMITS.get(fault, {})), "other": lambda context: Brightness("other", [])}
    metrics = build_metrics(load_spec("tiny-text", {"metrics": [*table]}), table)
    score(where, metrics, labels=("fast",), prompts=MANY)
    return read_scores(where)


@pytest.mark.parametrize("fault", [*START, *LATER, *AFTERWARDS])
def test_no_fault_stops_another_metric_or_loses_a_range(tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "stays-silent":
        monkeypatch.setattr("metrics.command.process.PATIENCE", 0.5)
    write_samples(tmp_path, MANY)
    first = scored(tmp_path, fault)
    assert isinstance(first["fast", "other"], Score)
    assert isinstance(first["fast", "brightness"], Failure) is (fault not in AFTERWARDS)
    counted = tmp_path / "batches"
    before = int(counted.read_text()) if counted.exists() else 0
    second = scored(tmp_path, "none")
    assert values(second["fast", "brightness"]).shape == (12,) and isinstance(second["fast", "other"], Score)
    known = 0 if fault in START else 3 if fault in AFTERWARDS else 1
    assert int(counted.read_text()) - before == 3 - known + 6 * 3, "what had been measured is not asked again"


def test_rows_of_another_handshake_are_not_reused(folder: Path, context: MetricContext, tmp_path: Path) -> None:
    asked = []
    for fault in ("none", "none", "lower"):
        score(folder, {"brightness": factory(fault, tmp_path)(context)}, labels=("fast",))
        asked.append(int((tmp_path / "batches").read_text()))
    assert asked == [21, 21, 42], "the same weights in another direction are another metric"


def test_every_fault_of_the_fake_scorer_is_tried() -> None:
    compared = [node for node in ast.walk(ast.parse(FAKE.read_text())) if isinstance(node, ast.Compare)]
    told = [node for node in compared if isinstance(node.left, ast.Name) and node.left.id == "fault"]
    known = {text.value for node in told for text in ast.walk(node) if isinstance(text, ast.Constant)}
    behaved = {"features", "lower", "paired", "stderr", "packages", "refuses"}
    assert known == {*START, *LATER, *AFTERWARDS, *behaved, "other-after-restart"}


def test_it_ends_with_us_and_takes_its_children_along(context: MetricContext, tmp_path: Path) -> None:
    metric = factory("none", tmp_path)(context)
    assert isinstance(metric, CommandMetric) and metric.scorer.command._running is not None
    process = metric.scorer.command._running.process
    del metric
    gc.collect()
    assert process.wait(10) == 0, "its input is closed, so it ends by itself"
    script = f"{sys.executable} {FAKE} none {tmp_path}; sleep 60"
    stubborn = CommandFactory("x", CommandSpec(command=("sh", "-c", script)))(context)
    assert isinstance(stubborn, CommandMetric) and stubborn.scorer.command._running is not None
    group = stubborn.scorer.command._running.process.pid
    assert len(alive(group)) == 2
    stubborn.scorer.command.close(kill=True)
    deadline = time.monotonic() + 10
    while alive(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(group) == []


def alive(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group = file.read_text().rpartition(") ")[2].split()[:3]
            found += [file.parent.name] if int(process_group) == group and state != "Z" else []
    return found
