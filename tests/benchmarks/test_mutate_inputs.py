"""A hundredth of the campaign, and that it sees what it must see; all of it by hand: python -m benchmarks.mutate_inputs."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from benchmarks import mutate_inputs
from benchmarks.mutate_inputs import ANOTHER, EXCLUSION, KINDS, MESSAGE, UNCHANGED, Seen, judge, report, run_case
from benchmarks.mutations import Change
from harness.errors import UsageError
from harness.paths import ROOT

RECORD = ROOT / "benchmarks" / "results" / "mutate_inputs.json"
FIRST, SHORT = 1_000, 20


def test_changed_inputs(tmp_path: Path) -> None:
    numbers = [int(os.environ["CASE"])] if "CASE" in os.environ else range(FIRST, FIRST + SHORT)
    found = report([run_case(number, 0, tmp_path) for number in numbers], 0)
    assert found["errors"] == []


def test_the_committed_campaign_is_whole() -> None:
    found = json.loads(RECORD.read_text())
    assert found["cases"] == 1_000 and found["errors"] == [] and found["readable_but_wrong"] >= 334
    assert list(found["ended"]) == [kind.name for kind in KINDS]
    assert all(sum(ends.values()) == 200 for ends in found["ended"].values())


def test_what_is_silent_is_seen() -> None:
    change, before = Change("x", ("a.png",)), Seen({"a": 1, "b": 2}, "one")
    assert judge(change, before, before) == UNCHANGED
    assert judge(change, before, Seen({"a": 1, "b": 3}, "two")) == ANOTHER
    assert judge(change, before, Seen({"a": 1}, "one", ("left out: a.png, b",))) == EXCLUSION
    for silent in (Seen({"a": 1, "b": 3}, "one"), Seen({"a": 1}, "one"), Seen({"a": 1}, "one", ("a.png",)), Seen({}, "one")):
        assert judge(change, before, silent).startswith("ERROR: other numbers in silence")
    assert judge(change, before, UsageError(expected="x", got="a.png", remedy="y")) == MESSAGE
    assert judge(change, before, UsageError(expected="x", got="z", remedy="y")).startswith("ERROR: a message that does not name")
    assert judge(change, before, KeyError("a.png")).startswith("ERROR: KeyError")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_case_is_a_function_of_its_number(kind: mutate_inputs.Kind, tmp_path: Path) -> None:
    changes = []
    for name in ("one", "other"):
        kind.make(tmp_path / name / "input")
        changes.append(kind.change(random.Random("0 5"), tmp_path / name / "input").what)
    assert changes[0] == changes[1]
