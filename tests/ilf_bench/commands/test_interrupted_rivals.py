"""A rival's training that was interrupted, and begun again by the same command, gives what an uninterrupted one gives."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiTTransformer2DModel

from baselines.learned.train import TRAININGS, Training
from harness.execution import interrupts
from harness.models.checksums import SUMS
from harness.storage.records import SEAL
from harness.training.fit import TrainSettings
from ilf_bench.cli import main
from tests.harness.test_interrupts import listening as listening
from tests.ilf_bench.test_cli import preset as preset

TEXTS = {
    "learning-to-cache": "learning-to-cache:steps=8:batch=2:trajectories=4",
    "harmonica": "harmonica:steps=6:batch=1:trajectories=4",
    "deediff": "deediff:steps=8:batch=2:trajectories=4",
    "bespoke": "bespoke:steps=5:batch=2:runs=2:grids=2,3",
    "ecad": "ecad:population=4:generations=3:images=2",
}
FREE = ("seconds", SEAL)  # what may differ: the time that it took


@dataclass
class Calls:
    """Of the transformer, since the last reset; the ``last`` of them is interrupted."""

    made: int = 0
    last: int | None = None


@contextmanager
def counted() -> Iterator[Calls]:
    """Calls of every DiT; the last one is sent ``SIGINT`` before it returns: within a step, wherever that is."""
    calls, forward = Calls(), DiTTransformer2DModel.forward

    @wraps(forward)
    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.made += 1
        made = forward(*args, **kwargs)
        if calls.made == calls.last:
            signal.raise_signal(signal.SIGINT)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiTTransformer2DModel, "forward", counting)
        yield calls


def often_saved(training: Training) -> Training:
    """With a checkpoint after every third step."""
    settings = training.settings
    stages = {name: value for name, value in vars(settings).items() if isinstance(value, TrainSettings)}
    return replace(training, settings=replace(settings, **{k: replace(v, checkpoint_every=3) for k, v in stages.items()}))


def without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: without_times(value) for name, value in content.items() if name not in FREE}
    return [without_times(value) for value in content] if isinstance(content, list) else content


def learned(folder: Path) -> dict[str, Any]:
    """Every file of a finished training byte for byte, but for the seconds in its records."""
    files = {file.name: file for file in folder.iterdir() if file.is_file() and file.name != SUMS}
    return {
        name: without_times(json.loads(file.read_text())) if file.suffix == ".json" else file.read_bytes()
        for name, file in files.items()
    }


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.usefixtures("listening")
def test_an_interrupted_training_resumes_to_the_same_files(
    preset: Callable[..., str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted again and again, while it records and while it trains, within a step each time."""
    monkeypatch.setitem(TRAININGS, name, often_saved(TRAININGS[name]))
    command = ["train", preset("class"), "--method", TEXTS[name], "--out"]
    with counted() as calls:
        assert main([*command, str(tmp_path / "whole")]) == 0
    whole, attempts, code = calls.made, list[int](), 130
    while code:
        with counted() as calls:
            calls.last = round(whole * 0.45) if len(attempts) < 3 else None
            code = main([*command, str(tmp_path / "cut")])
        attempts.append(calls.made)
        if code:
            assert code == 130 and "resumes" in capsys.readouterr().err and not (tmp_path / "cut" / SUMS).exists()
            monkeypatch.setattr(interrupts, "_asked", [])
    assert len(attempts) > 2 and attempts[-1] < whole, "it went on from where it was"
    assert learned(tmp_path / "cut") == learned(tmp_path / "whole")
