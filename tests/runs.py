"""Runs made by hand: small ones in memory, and one that has a record of every kind, in memory or in a folder."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.results import Failure, Fault, Score, TimingSample
from harness.storage.files import digest, write_bytes
from harness.storage.layout import Layout
from harness.storage.measurements import write_measurement
from harness.storage.records import FORMAT, Run, read_run, write_json, write_method, write_score
from tests.records import method_record


def spec_of(labels: list[str]) -> dict[str, Any]:
    """A specification with every field that a record must have."""
    return {
        "format": FORMAT,
        "name": "tiny-text",
        "digest": "d1",
        "method_labels": labels,
        "metrics": ["good"],
        "task": "text",
        "pipeline": "zoo/tiny",
        "prompts": "prompts.txt",
        "solver": "dpm++",
        "precision": "fp32",
        "device": "cpu",
        "steps": 20,
        "samples": 16,
        "batch": 8,
        "seed": 1000,
        "guidance": 3.0,
        "timing": {"rounds": 3, "batch": 4, "warmup": 1},
    }


def make_run(path: Path, seed: int = 0) -> Run:
    """A run of two methods and a failed one."""
    values = np.random.default_rng(seed).normal(5, 1, 16)
    score = Score("full", "good", "Good", "points", "higher", True, float(values.mean()), 16, {"weights": "aa"}, values, values)
    environment = {"commit": "abc", "dirty": True, "created": f"2026-01-{seed % 28 + 1:02d}T00:00:00+00:00", "machine_key": "m"}
    labels = ["full", "8 steps", "broken"]
    spec = spec_of(labels)
    return Run(
        path=path,
        spec=spec,
        environment=environment,
        methods=(method_record("full", 480), method_record("8 steps", 192)),
        failed_methods=(Failure("broken", "", "no such block"),),
        scores={("full", "good"): score, ("8 steps", "good"): Failure("8 steps", "good", "out of memory")},
        timings=tuple(TimingSample("full", i, 4, 1.0 + i, 0.1, 0.8, 0.1, 1000) for i in range(3)),
        complete=True,
        planned=(method_record("broken", None),),
    )


def whole_run(path: Path) -> Run:
    """A run that has a record of every kind; its folder is written too."""
    run = make_run(path)
    score = run.scores["full", "good"]
    assert isinstance(score, Score)
    own = np.append(score.influence[1:] + 1, np.inf)
    calls = [replace(call, batch=1, latency_s=0.5) for call in run.timings]
    control = replace(score, method="black", influence=score.influence - 9, value=score.value - 9)
    write_run(
        replace(
            run,
            spec={**run.spec, "timing": {"rounds": 3, "batch": 4, "warmup": 1, "batches": [1]}},
            other_batches=tuple(calls),
            warmups=(replace(run.timings[0], round=-1, compile_s=0.7),),
            finished={"finished": "2026-01-02T00:00:00+00:00", "commit": "abc", "dirty": True, "records": "0"},
            faults=(Fault("generate", "full", 0, 2, 1, "out of memory at 2 images at a time"),),
            scores={**run.scores, ("full", "psnr"): replace(score, metric="psnr", per_image=own)},
            controls={("black", "good"): control, ("noise", "good"): Failure("noise", "good", "not finite")},
        ),
        path,
    )
    write_measurement(path, "full", "features", {"network": "n"}, np.arange(8.0).reshape(4, 2))
    write_samples(path, "full")
    write_bytes(Layout(path).plugin("ab" * 32, "mine.py"), "METHODS = {}  # é\n".encode())
    return read_run(path)


def write_run(run: Run, folder: Path) -> None:
    """What lies in memory, as the harness writes it; samples and measurements, which do not, are written apart."""
    layout = Layout(folder)
    write_json(layout.spec, dict(run.spec))
    write_json(layout.environment, dict(run.environment))
    reasons = {failure.method: failure.reason for failure in run.failed_methods}
    for record in run.described.values():
        write_method(folder, record, reasons.get(record.label, ""))
    for score in run.scores.values():
        write_score(folder, score)
    for score in run.controls.values():
        write_score(folder, score, "controls")
    for number in sorted({call.round for call in run.timings}):
        rows = [asdict(call) for call in (*run.timings, *run.other_batches) if call.round == number]
        write_json(layout.round(number), rows)
    if run.warmups:
        write_json(layout.warmup, [asdict(call) for call in run.warmups])
    for number, fault in enumerate(run.faults):
        write_json(layout.fault(number), asdict(fault))
    if run.complete:
        write_json(layout.complete, {"format": FORMAT, **run.finished})


def write_samples(folder: Path, label: str, count: int = 2) -> None:
    """Images of one colour each, their receipt and their manifest."""
    samples, entries = Layout(folder).samples(label), []
    for i in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (i, 0, 0)).save(buffer, "PNG")
        write_bytes(samples.image(i), buffer.getvalue())
        entries.append({"index": i, "prompt": "x", "file": samples.image(i).name, "sha256": digest(buffer.getvalue())})
    write_json(samples.receipt(0), {"samples": entries, "block_evaluations": 960.0})
    receipts = {samples.receipt(0).name: digest(samples.receipt(0).read_bytes())}
    write_json(samples.manifest, {"method": label, "samples": entries, "receipts": receipts})
