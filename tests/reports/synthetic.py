"""Large runs in memory, for what no file needs to be written: many methods, many images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.results import A_A, Score, TimingSample
from harness.storage.records import FORMAT, Run
from reports.analysis.select import Sample
from tests.records import method_record

FAMILIES = (
    "deepcache(interval={})",
    "ilf({} steps)",
    "teacache(threshold=0.{})",
    "fora(interval={})",
    "toca(ratio=0.{},interval=3)",
    "pab(every={})",
    "taylorseer(order={})",
    "smoothcache(alpha=0.{})",
    "delta-dit(blocks={})",
    "l2c(target=0.{})",
    "dpm({} steps)",
)
METRICS = (("fid", "FID", "lower"), ("clip_score", "CLIP score", "higher"), ("psnr", "PSNR to the full run", "higher"))


def labels(count: int) -> list[str]:
    """``count`` labels: full, plain step counts, then all families in turn."""
    found = ["full", *(f"{steps} steps" for steps in (15, 12, 10, 8, 6))]
    found += [family.format(k) for k in range(2, 2 + count) for family in FAMILIES]
    return found[:count]


def synthetic_run(path: Path, methods: int = 50, n: int = 2000, rounds: int = 8, metrics: Any = METRICS) -> Run:
    """A run whose better methods cost more, with noise; nothing is written."""
    rng, names = np.random.default_rng(0), labels(methods)
    shares = dict(zip(names, [1.0, 0.75, 0.6, 0.5, 0.4, 0.3, *rng.uniform(0.15, 0.95, methods)], strict=False))
    records = tuple(method_record(k, 480 * v, extra_parameters=1000, training_s=60.0) for k, v in shares.items())
    noise = rng.normal(size=n)
    scores = {}
    for metric, title, direction in metrics:
        sign = 1 if direction == "higher" else -1
        for name, share in shares.items():
            values = 30 + noise - sign * 4 * (1 - share) ** 2 + rng.normal(0, 0.3) + 0.5 * rng.normal(size=n)
            scores[name, metric] = Score(
                name, metric, title, "", direction, False, float(values.mean()), n, {"w": "1"}, values, values
            )
    spec = {
        "format": FORMAT,
        "digest": "0" * 16,
        "name": "large",
        "title": "Many methods",
        "task": "text",
        "pipeline": "p",
        "solver": "dpm++",
        "steps": 20,
        "guidance": 3.0,
        "samples": n,
        "batch": 8,
        "seed": 1000,
        "prompts": "prompts.txt",
        "precision": "fp32",
        "device": "cpu",
        "method_labels": names,
        "metrics": [m for m, _, _ in metrics],
        "timing": {"rounds": rounds, "batch": 4, "warmup": 1},
    }
    return Run(path, spec, {"device": "cpu"}, records, (), scores, tuple(_timings(rng, shares, rounds)), True)


def _timings(rng: np.random.Generator, shares: dict[str, float], rounds: int) -> Iterator[TimingSample]:
    for number in range(rounds):
        for name, share in {**shares, A_A: 1.0}.items():
            total = 4 * share * (1 + 0.01 * rng.standard_normal())
            yield TimingSample(name, number, 4, total, 0.1 * total, 0.8 * total, 0.1 * total, 10**9)


def synthetic_samples(run: Run, image: Path) -> dict[str, dict[int, Sample]]:
    """One and the same image file as every sample of every method."""
    n = int(run.spec["samples"])
    row = {i: Sample(i, f"a photograph of thing number {i}, seen from the other side of the street", image) for i in range(n)}
    return {record.label: row for record in run.methods}
