"""The runner: an interrupted run resumes to identical files, a failure is recorded and stops nothing else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from harness.results import A_A, REFERENCE, Failure, Score
from harness.storage.layout import slug
from harness.storage.records import read_json, read_run, write_json
from ilf_bench import experiment as app
from ilf_bench.cli import main
from tests.conftest import PROMPTS

SAMPLES = 12


def write_preset(tmp_path: Path, pipeline: Path, **changes: object) -> Path:
    """A preset on a random pipeline with metrics that need no trained scorer."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n")
    content: dict[str, object] = {
        "name": "random",
        "task": "class" if "dit" in pipeline.name else "text",
        "pipeline": str(pipeline),
        "steps": 4,
        "guidance": 2.0,
        "samples": SAMPLES,
        "batch": 4,
        "prompts": str(prompts),
        "precision": "fp32",
        "methods": ["full", "steps:2", "deepcache:interval=2"],
        "metrics": ["psnr", "ssim"],
        "timing": {"rounds": 2, "batch": 2, "warmup": 1},
    }
    path = tmp_path / "random.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def files(run: Path) -> dict[str, bytes]:
    """Every file that must not depend on how the run was cut."""
    kept = [
        p
        for p in run.rglob("*")
        if p.is_file() and p.relative_to(run).parts[0] in ("samples", "scores", "measurements", "methods")
    ]
    return {str(p.relative_to(run)): p.read_bytes() for p in kept}


@pytest.mark.parametrize("name", ["dit", "pixart"])
def test_a_run_records_everything(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    assert main(["run", str(write_preset(tmp_path, folders[name])), "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").glob("random-*")
    run = read_run(folder)
    assert run.complete and [m.label for m in run.methods] == ["full", "2 steps", "deepcache(interval=2)"]
    assert all(m.block_evaluations == m.predicted_block_evaluations for m in run.methods)
    assert [m.block_evaluations for m in run.methods] == [48.0, 24.0, 48.0 - 2 * 2 * 4]
    labels = ["full", "2 steps", "deepcache(interval=2)", A_A]
    assert {t.method for t in run.timings} == {*labels, REFERENCE} and len(run.timings) == 2 * (4 + 5)
    for number in (0, 1):  # the fixed workload before, between and after the methods
        order = [t.method for t in run.timings if t.round == number]
        assert order[::2] == [REFERENCE] * 5 and sorted(order[1::2]) == sorted(labels)
    outside = []  # of the stages, as a share: more than a little only where another program had the processor
    for sample in (t for t in run.timings if t.method != REFERENCE):
        parts = sample.text_s + sample.denoise_s + sample.decode_s + sample.copy_s
        assert 0 < sample.denoise_s < sample.latency_s and parts < sample.latency_s + 1e-4
        assert sample.peak_memory_bytes > 10_000_000
        outside.append(1 - parts / sample.latency_s)
    assert np.median(outside) < 0.05
    own = run.scores["full", "psnr"]
    assert isinstance(own, Failure) and "identical" in own.reason
    other = run.scores["2 steps", "ssim"]
    assert isinstance(other, Score) and other.n == SAMPLES and other.value == pytest.approx(float(other.influence.mean()))
    assert (folder / "report" / "index.html").stat().st_size > 10_000


def test_a_killed_run_resumes_to_identical_files(folders: dict[str, Path], tmp_path: Path) -> None:
    preset = write_preset(tmp_path, folders["pixart"])
    assert main(["run", str(preset), "--out", str(tmp_path / "whole")]) == 0
    command = [sys.executable, "-m", "ilf_bench", "run", str(preset), "--out", str(tmp_path / "cut")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "cut").rglob("0*.png"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (cut,), (whole,) = (tmp_path / "cut").glob("random-*"), (tmp_path / "whole").glob("random-*")
    assert not (cut / "run.json").exists() and len(list(cut.rglob("0*.png"))) >= 5
    assert main(["run", str(preset), "--out", str(tmp_path / "cut")]) == 0
    assert files(cut) == files(whole)


def test_ctrl_c_leaves_by_130_and_resumes(folders: dict[str, Path], tmp_path: Path) -> None:
    preset = write_preset(tmp_path, folders["dit"], samples=200)
    command = [sys.executable, "-m", "ilf_bench", "run", str(preset), "--out", str(tmp_path / "cut")]
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job is started without it
    )
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "cut").rglob("0*.png"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and b"resumes" in said and b"Traceback" not in said
    assert main(["run", str(preset), "--out", str(tmp_path / "cut")]) == 0


def test_a_full_disk_is_named_and_nothing_is_lost(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path, folders["dit"])
    assert main(["run", str(preset), "--out", str(tmp_path / "whole")]) == 0
    replace, left = os.replace, 20

    def full(source: str, target: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert main(["run", str(preset), "--out", str(tmp_path / "cut")]) == 74
    assert "No space left" in capsys.readouterr().err
    (cut,), (whole,) = (tmp_path / "cut").glob("random-*"), (tmp_path / "whole").glob("random-*")
    assert not list(cut.rglob("*.tmp")), "no half-written file stays behind"
    assert main(["run", str(preset), "--out", str(tmp_path / "cut")]) == 0
    assert files(cut) == files(whole)


def test_too_little_disk_is_refused_before_the_first_step(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=10**9, used=10**9, free=1000))
    assert main(["run", str(write_preset(tmp_path, folders["dit"])), "--out", str(tmp_path / "runs")]) == 64
    assert "MB free" in capsys.readouterr().err


def test_a_damaged_sample_is_found_and_made_again(folders: dict[str, Path], tmp_path: Path) -> None:
    preset = write_preset(tmp_path, folders["dit"])
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").glob("random-*")
    before = files(folder)
    victim = folder / "samples" / slug("2 steps") / "000005.png"
    victim.write_bytes(victim.read_bytes()[:-7])
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 0
    assert files(folder) == before


PLUGIN = """
from contextlib import contextmanager
from dataclasses import dataclass

@dataclass(frozen=True)
class Broken:
    how: str = "raise"
    label = "broken"
    def plan(self, plan):
        return plan
    @contextmanager
    def attach(self, pipeline):
        if self.how == "raise":
            raise RuntimeError("no such kernel")
        block = pipeline.blocks[0]
        bias = block.ff.net[2].bias.data
        before = bias.clone()
        bias.fill_(float("nan"))
        try:
            yield
        finally:
            bias.copy_(before)

METHODS = {"broken": Broken}
"""


@pytest.mark.parametrize(("how", "reason"), [("raise", "no such kernel"), ("nan", "finite images")])
def test_a_failing_method_stops_nothing_else(folders: dict[str, Path], tmp_path: Path, how: str, reason: str) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    preset = write_preset(tmp_path, folders["dit"], methods=["full", f"broken:{how}", "steps:2"])
    assert main(["run", str(preset), "--out", str(tmp_path / "runs"), "--plugin", str(plugin)]) == 4
    (folder,) = (tmp_path / "runs").glob("random-*")
    run = read_run(folder)
    assert [m.label for m in run.methods] == ["full", "2 steps"] and not run.complete
    assert run.failed_methods[0].method == "broken" and reason in run.failed_methods[0].reason
    assert isinstance(run.scores["2 steps", "ssim"], Score)
    assert reason in (folder / "report" / "index.html").read_text()


def test_another_spec_in_the_folder_is_refused(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path, folders["dit"], methods=["full"], metrics=[], timing={"rounds": 0})
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").glob("random-*")
    environment, finished = read_json(folder / "environment.json"), read_json(folder / "run.json")
    write_json(folder / "environment.json", environment | {"machine_key": "other"})
    (folder / "run.json").unlink()
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 65
    assert "machine" in capsys.readouterr().err
    write_json(folder / "run.json", finished)
    write_json(folder / "environment.json", environment)
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 0
    write_json(folder / "spec.json", read_json(folder / "spec.json") | {"seed": 7})
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 65
    assert "seed 1000; got seed 7; remedy: choose another --out" in capsys.readouterr().err


def test_own_overhead_is_small(folders: dict[str, Path], tmp_path: Path) -> None:
    """PNG, receipts and digests of a chunk cost far less than sampling it; docs/lab-log.md has the measured share."""
    from harness.storage.samples import SampleSet

    samples = SampleSet(tmp_path / "set", tuple(PROMPTS[i % 5] for i in range(64)), 32)
    images = np.random.default_rng(0).integers(0, 256, (32, 3, 32, 32), dtype=np.uint8)
    started = time.perf_counter()
    for indices in samples.chunks():
        samples.generate(indices, lambda prompts, i: images, lambda: 0)
    assert (time.perf_counter() - started) / 64 < 0.02


def test_dry_run_prints_the_cost_and_samples_nothing(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path, folders["dit"])
    assert main(["run", str(preset), "--out", str(tmp_path / "runs"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "48" in shown and "24" in shown and "disk" in shown
    assert not (tmp_path / "runs").exists()


def test_prompts_repeat_in_order(folders: dict[str, Path], tmp_path: Path) -> None:
    prepared = app.prepare(str(write_preset(tmp_path, folders["dit"])), {}, [])
    assert prepared.experiment.prompts == tuple(PROMPTS[i % 5] for i in range(SAMPLES))


STICKY = """
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from harness.sampling.patching import patched

@dataclass(frozen=True)
class Sticky:
    marker: str
    label = "sticky"
    def plan(self, plan):
        return plan
    @contextmanager
    def attach(self, pipeline):
        generate = pipeline.generate
        def once(prompts, seed, indices):
            if 9 in indices and not Path(self.marker).exists():
                Path(self.marker).touch()
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return generate(prompts, seed, indices)
        with patched(pipeline, "generate", once):
            yield

METHODS = {"sticky": Sticky}
"""


def test_a_broken_cuda_context_ends_this_process_and_the_next_one_goes_on(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin, marker = tmp_path / "sticky.py", tmp_path / "marker"
    plugin.write_text(STICKY)
    methods = ["full", f"sticky:marker={marker}"]
    preset = write_preset(tmp_path, folders["dit"], methods=methods, metrics=[], timing={"rounds": 1, "batch": 2, "warmup": 0})
    command = ["run", str(preset), "--plugin", str(plugin), "--out", str(tmp_path / "runs")]
    assert main(command) == 74
    assert "a new process goes on" in capsys.readouterr().err
    (run,) = (tmp_path / "runs").glob("random-*")
    stored = {path: path.read_bytes() for path in run.glob(f"samples/{slug('full')}/*.png")}
    assert len(stored) == SAMPLES and not read_run(run).failed_methods
    assert main(command) == 0
    assert all(path.read_bytes() == content for path, content in stored.items()) and read_run(run).complete
