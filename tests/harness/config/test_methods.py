"""The text of a method: its parts, and what they build."""

from __future__ import annotations

import pytest

from baselines.table import BASELINES
from harness.config.methods import parse_method
from harness.results import method_parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("full", ["full"]),
        ("steps:8+spacing:1.5", ["steps:8", "spacing:1.5"]),
        ("steps:6+solver:dpm++", ["steps:6", "solver:dpm++"]),
        ("solver:dpm+++steps:6", ["solver:dpm++", "steps:6"]),
        ("solver:dpm++1 + steps:6", ["solver:dpm++1", "steps:6"]),
        ("spacing(1.5) + 6 steps", ["spacing(1.5)", "6 steps"]),
    ],
)
def test_plus_signs_join_methods_and_end_the_name_of_a_solver(text: str, parts: list[str]) -> None:
    assert method_parts(text) == parts


def test_a_solver_with_plus_signs_stands_anywhere_in_a_composition() -> None:
    labels = {parse_method(text, BASELINES).label for text in ("steps:6+solver:dpm++", "steps:6 + solver:name=dpm++")}
    assert labels == {"6 steps + dpm++"}
    assert parse_method("solver:dpm+++steps:6", BASELINES).label == "dpm++ + 6 steps"
