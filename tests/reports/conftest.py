"""Synthetic runs on disk, written with the harness's own writers: no model, no torch work, milliseconds each."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.results import A_A, Failure, Score, TimingSample
from harness.storage.layout import slug
from harness.storage.records import FORMAT, Run, read_run, write_json, write_method, write_score
from tests.records import method_record

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PROMPTS = ("red apple", "<b>x</b>", "cat | face", "hot dog")


@dataclass(frozen=True)
class Fake:
    """A run to write. ``methods``: label to (steps, block evaluations, relative time, mean of ``good``)."""

    methods: Mapping[str, tuple[int, float, float, float]] = field(
        default_factory=lambda: {
            "full": (20, 480, 1.0, 10.0),
            "12 steps": (12, 288, 0.6, 9.0),
            "8 steps": (8, 192, 0.4, 8.0),
            "ilf(steps=10)": (10, 240, 0.5, 9.9),
        }
    )
    n: int = 64
    rounds: int = 8
    noise: float = 0.005
    slowdown: float = 1.0
    shift: float = 0.0
    fingerprint: str = "aa"
    machine: str = "machine-1"
    seed: int = 1000
    timing_seed: int = 0
    tiny: bool = True
    complete: bool = True
    missing: tuple[tuple[str, str], ...] = ()
    failed_methods: tuple[tuple[str, str], ...] = ()


def write_fake(out: Path, fake: Fake) -> Run:
    """Write a run and read it back. ``good`` is higher-better; ``far`` is lower-better and 0 for every image of full."""
    labels = [*fake.methods, *(label for label, _ in fake.failed_methods)]
    write_json(out / "spec.json", _spec(fake, labels))
    write_json(
        out / "environment.json",
        {
            "commit": "abc1234",
            "dirty": False,
            "created": "2026-11-22T00:00:00+00:00",
            "device": "cpu",
            "device_name": "Test CPU",
            "machine_key": fake.machine,
            "command": f"ilf-bench run tiny-text --seed 1000 --out {out.name}",
        },
    )
    for label, (steps, blocks, _, _) in fake.methods.items():
        ilf = label.startswith("ilf")
        trained = {"extra_parameters": 3000, "training_s": 900.0} if ilf else {}
        write_method(out, method_record(label, blocks, steps=steps, **trained))
        _scores(out, fake, label)
        _samples(out, label)
    for label, reason in fake.failed_methods:
        write_method(out, method_record(label, None), reason)
    _timings(out, fake)
    if fake.complete:
        write_json(out / "run.json", {"format": FORMAT})
    return read_run(out)


def _spec(fake: Fake, labels: list[str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "digest": "0123456789abcdef",
        "name": "tiny-text",
        "title": "Tiny <i>text</i>",
        "task": "text",
        "pipeline": "zoo/tiny",
        "solver": "dpm++",
        "steps": 20,
        "guidance": 3.0,
        "samples": fake.n,
        "batch": 8,
        "seed": fake.seed,
        "prompts": "prompts.txt",
        "precision": "fp32",
        "device": "cpu",
        "methods": labels,
        "method_labels": labels,
        "metrics": ["good", "far"],
        "scorers": "zoo/scorers",
        "reference": None,
        "timing": {"rounds": fake.rounds, "batch": 4, "warmup": 1},
    }


def _scores(out: Path, fake: Fake, label: str) -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 1, fake.n)
    noise = (noise - noise.mean()) / noise.std(ddof=1)  # exact mean and deviation, so that expected numbers are known
    own = np.random.default_rng(len(label)).normal(0, 0.1, fake.n)
    good = fake.methods[label][3] + noise + (own - own.mean()) + fake.shift
    far = np.zeros(fake.n) if label == "full" else 10 - fake.methods[label][3] + 0.1 * noise
    for metric, direction, values in (("good", "higher", good), ("far", "lower", far)):
        if (label, metric) in fake.missing:
            write_score(out, Failure(label, metric, f"the {metric} scorer ran out of memory"))
            continue
        score = Score(
            label,
            metric,
            f"{metric.title()} score",
            "points",
            "higher",
            fake.tiny,
            float(values.mean()),
            fake.n,
            {"weights": fake.fingerprint},
            values,
            values,
        )
        write_score(out, replace(score, direction=direction))  # type: ignore[arg-type]


def _samples(out: Path, label: str) -> None:
    folder = out / "samples" / slug(label)
    folder.mkdir(parents=True)
    rows = []
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 80, 120)).save(folder / f"{i:06d}.png")
        rows.append({"index": i, "prompt": PROMPTS[i], "file": f"{i:06d}.png", "sha256": "0"})
    write_json(folder / "manifest.json", {"method": label, "samples": rows})


def _timings(out: Path, fake: Fake) -> None:
    rng = np.random.default_rng(fake.timing_seed)
    for number in range(fake.rounds):
        rows = []
        for label, time in [*((label, values[2]) for label, values in fake.methods.items()), (A_A, fake.methods["full"][2])]:
            total = 4.0 * time * fake.slowdown * (1 + fake.noise * rng.standard_normal())
            sample = TimingSample(label, number, 4, total, 0.1 * total, 0.8 * total, 0.1 * total, 1_000_000)
            rows.append(asdict(sample))
        write_json(out / "timing" / f"{number:03d}.json", rows)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """``make_run("name", slowdown=1.2)`` writes and reads a run."""

    def make(name: str = "run", **changes: Any) -> Run:
        return write_fake(tmp_path / name, Fake(**changes))

    return make


@pytest.fixture(scope="session")
def report_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One built report with failures in it, shared by the tests that only read it."""
    from reports.render.build import build_report

    out = tmp_path_factory.mktemp("report")
    fake = Fake(missing=(("8 steps", "good"),), failed_methods=(("broken", "expected 12 blocks | got <11>"),))
    write_fake(out / "run", fake)
    return build_report(out / "run").parent


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium; skipped where it is missing, unless ILF_BENCH_REQUIRE_BROWSER=1."""
    required = os.environ.get("ILF_BENCH_REQUIRE_BROWSER") == "1"
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += ["selenium"] * (importlib.util.find_spec("selenium") is None)
    if missing:
        message = f"no {', '.join(missing)}: install Debian's chromium and chromium-driver, and selenium"
        pytest.fail(message) if required else pytest.skip(message)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    driver.set_script_timeout(180)  # the accessibility checker on a busy machine
    yield driver
    driver.quit()
