"""Long work speaks: in a log a line at least once an interval, on a terminal each stage's own time."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness.execution import progress
from harness.execution.progress import _Stage, following, stage, tracked
from ilf_bench.cli import main
from tests.harness.execution.test_runner import write_preset


@pytest.fixture
def log() -> Console:
    """What a log file gets."""
    return Console(file=io.StringIO(), width=100)


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (_Stage("generate full", 296, 64, begun=0.0), "generate full: 64 of 296, 3.2/s, 0:01:12 to go"),
        (_Stage("generate full", 296, 0, begun=0.0), "generate full: 0 of 296 after 0:00:20"),
        (_Stage("generate full", 296, 196, 96, begun=0.0), "generate full: 196 of 296, 5/s, 0:00:20 to go"),
        (_Stage("time", 8, 1, begun=0.0), "time: 1 of 8, 20 s each, 0:02:20 to go"),
        (_Stage("train", 8, 8, begun=0.0, note="loss 0.1"), "train: 8 of 8 in 0:00:20, loss 0.1"),
        (_Stage("load", None, 0, begun=0.0), "load: running for 0:00:20"),
        (_Stage("load", None, 0, begun=0.0, ended=True), "load: done in 0:00:20"),
        (_Stage("failed", 8, 3, begun=0.0, ended=True), "failed: 3 of 8 in 0:00:20"),
    ],
)
def test_a_line_says_stage_done_rate_and_time_to_go(one: _Stage, text: str) -> None:
    assert one.line(20.0) == text


def test_a_log_gets_a_line_at_least_once_an_interval(log: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.1)
    with following(log) as followed:
        followed.begin(slow := followed.add("slow", 2))
        time.sleep(0.55)
        followed.advance(slow)
        followed.advance(slow)
    said = lines(log)
    assert 3 <= len(said) - 1 <= 6 and said[-1].startswith("slow: 2 of 2 in ") and said[0] == "slow: 0 of 2 after 0:00:00"


def test_quick_stages_get_one_line_each_and_the_thread_ends(log: Console) -> None:
    import threading

    assert list(tracked(range(3), "quick", log)) == [0, 1, 2]
    with stage("load", log):
        pass
    assert [line.split(" in ")[0] for line in lines(log)] == ["quick: 3 of 3", "load: done"]
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_an_error_ends_it(log: Console) -> None:
    import threading

    with pytest.raises(ZeroDivisionError), following(log):
        raise ZeroDivisionError
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_on_a_terminal_each_stage_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    screen = Console(file=io.StringIO(), width=100, force_terminal=True, get_time=lambda: now[0], color_system=None)
    with following(screen) as followed:
        first, second = followed.add("first", 1), followed.add("second", 1)
        followed.begin(first)
        now[0] = 60.0
        followed.advance(first)
        followed.begin(second)
        now[0] = 65.0
        followed.advance(second)
    shown = [line for line in lines(screen) if "first" in line or "second" in line][-2:]
    assert "0:01:00" in shown[0] and "0:00:05" in shown[1]


def test_a_run_without_a_terminal_says_every_stage(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(
        tmp_path, folders["dit"], methods=["full", "steps:2"], samples=4, timing={"rounds": 1, "batch": 2}, metrics=["psnr"]
    )
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    expected = ("load the model: done in", "generate full: 4 of 4", "generate 2 steps: 4 of 4", "rounds: 1 of 1 in", "score full")
    assert not [words for words in expected if words not in said]
