"""Which fact makes two machines two, and who else is on one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.storage.layout import Layout
from harness.storage.records import read_json, read_run
from harness.timing import machine
from harness.timing.machine import busy_reasons, differing_facts
from ilf_bench.cli import main
from ilf_bench.doctor import check_load
from reports.analysis.select import run_notes
from tests.harness.execution.test_runner import write_preset

BUSY = "load 9.3 on 2 cores"


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (9.31, 1.0, 1.0))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)


def test_the_fact_that_differs_is_named() -> None:
    one = {"machine_key": "a", "threads": 2, "torch": "2.13.0", "tf32": False}
    assert differing_facts(one, one | {"threads": 1}) == "", "times compare where the keys agree"
    assert differing_facts(one, one | {"machine_key": "b", "threads": 1}) == "threads: 2 -> 1"
    both = differing_facts(one, one | {"machine_key": "b", "tf32": True, "device_name": "NVIDIA H200"})
    assert both == "device: unknown -> NVIDIA H200, TF32: off -> on"
    assert differing_facts(one, one | {"machine_key": "b", "offload": "text"}) == "offload: none -> text"
    assert differing_facts(one, one | {"machine_key": "b"}) == "machine key: a -> b"


def test_every_fact_of_the_key_can_be_named() -> None:
    """Whatever the key is made of is among the facts that are compared."""
    from harness.execution.environment import GPU_KEY, describe

    found = list(describe("cpu", "fp32", "text"))
    assert {*found[: found.index("machine_key")], *GPU_KEY} == machine.FACTS.keys()


def test_a_busy_machine_is_one_with_more_work_than_processors(busy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert busy_reasons() == [BUSY] and busy_reasons(1) == [BUSY, "1 other process computes on the GPU"]
    assert check_load().state == "missing" and check_load().found == BUSY
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (1.9, 9.0, 9.0))
    assert busy_reasons() == [] and busy_reasons(0) == [] and check_load().state == "ok"
    assert busy_reasons(2) == ["2 other processes compute on the GPU"]

    def unknown() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(machine.os, "getloadavg", unknown)
    assert busy_reasons() == []


def test_a_run_on_a_busy_machine_says_so_and_is_marked(
    folders: dict[str, Path], tmp_path: Path, busy: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = write_preset(tmp_path, folders["dit"], methods=["full"], metrics=[], samples=2, timing={"rounds": 1, "batch": 2})
    call = ["run", str(preset), "--out", str(tmp_path / "runs")]
    assert main([*call, "--dry-run"]) == 0
    assert f"the machine is busy ({BUSY})" in capsys.readouterr().out
    assert main(call) == 0
    assert f"the machine is busy ({BUSY})" in capsys.readouterr().out
    (folder,) = (tmp_path / "runs").glob("*/run.json")
    run = read_run(folder.parent)
    assert run.environment["busy"] == [BUSY] and any(BUSY in note for note in run_notes(run))
    assert "busy machine" in (folder.parent / "report" / "index.html").read_text()
    (folder.parent / "run.json").unlink()
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    assert main(call) == 0 and read_json(Layout(folder.parent).environment)["busy"] == [BUSY], "its first times are as they were"
