"""What an error says about a recorded and a current value that should agree: of mappings, only what differs."""

from __future__ import annotations

from harness.execution.runner import MOST_LETTERS, differing


def test_of_mappings_only_the_differing_keys_are_shown() -> None:
    recorded, current = {"n": 4, "digest": "a", "same": 1}, {"n": 5, "digest": "b", "same": 1}
    assert differing(recorded, current) == ("digest a, n 4", "digest b, n 5")
    assert differing(recorded, {**recorded, "new": 2}) == ("new None", "new 2")


def test_other_values_are_shown_and_cut() -> None:
    assert differing("torch 2", "torch 3") == ("torch 2", "torch 3")
    assert [len(text) for text in differing("a" * 1000, None)] == [MOST_LETTERS, 4]
