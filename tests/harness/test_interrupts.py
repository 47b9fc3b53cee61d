"""An interrupt that a library turns into an error of another type is still one: no method's failure, and the run resumes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.execution import interrupts
from ilf_bench.cli import main
from tests.harness.execution.test_runner import files, write_preset


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(interrupts, "_asked", [])
    interrupts.listen()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def lose(*_: object, **__: object) -> None:
    """As torch does when it is interrupted between two of its modes."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise RuntimeError("trying to pop from empty mode stack") from None


def swallow(*_: object, **__: object) -> list[str]:
    """As Python itself does in a ``__del__``."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        return []
    raise AssertionError


@pytest.mark.parametrize(
    "place",
    [
        "models.components._check_files",
        "sampling.pipeline.Pipeline.generate",
        "timing.rounds.time_once",
        "execution.scorer.in_pieces",
        "execution.scorer.to_score",
    ],
)
@pytest.mark.usefixtures("listening")
def test_a_lost_interrupt_is_no_failure(
    place: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path, folders["dit"])
    assert main(["run", str(preset), "--out", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(f"harness.{place}", lose)
        assert main(["run", str(preset), "--out", str(tmp_path / "cut")]) == 130
    said = capsys.readouterr().err
    assert "resumes" in said and "mode stack" not in said
    (whole,) = (tmp_path / "whole").glob("random-*")
    cut = tmp_path / "cut" / whole.name
    assert set(files(cut)) < set(files(whole)) and not [text for text in files(cut).values() if b"mode stack" in text]
    monkeypatch.setattr(interrupts, "_asked", [])
    assert main(["run", str(preset), "--out", str(tmp_path / "cut")]) == 0
    assert files(cut) == files(whole)


@pytest.mark.usefixtures("listening")
def test_an_interrupt_that_nobody_saw_ends_the_run_before_the_next_task(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.models.reading.check_sums", swallow)
    assert main(["run", str(write_preset(tmp_path, folders["dit"])), "--out", str(tmp_path)]) == 130
    assert not list(tmp_path.rglob("0*.png"))


@pytest.mark.usefixtures("listening")
def test_ctrl_c_stays_ignored_in_a_background_job() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.listen()
    signal.raise_signal(signal.SIGINT)
    assert not interrupts.interrupted()
