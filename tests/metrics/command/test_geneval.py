"""GenEval's rules: what a prompt asks for, and when detections satisfy it."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest

from ilf_bench.scorer_commands import ENVIRONMENTS

FILE = ENVIRONMENTS / "geneval" / "objects.py"
spec = importlib.util.spec_from_file_location("geneval_objects", FILE)
assert spec is not None and spec.loader is not None
objects: Any = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
spec.loader.exec_module(objects)
NAMES = ("dog", "cup", "wine glass", "bench", "knife", "person", "clock", "teddy bear", "orange")
W, F = objects.Wanted, objects.Found


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a photo of a bench", (W("bench"),)),
        ("a photo of an orange", (W("orange"),)),
        ("A photo of an orange orange.", (W("orange", colour="orange"),)),
        ("a photo of two wine glasses", (W("wine glass", 2, exact=True),)),
        ("a photo of four knives", (W("knife", 4, exact=True),)),
        ("a photo of three people", (W("person", 3, exact=True),)),
        ("a photo of a dog and a teddy bear", (W("dog"), W("teddy bear"))),
        ("a photo of a purple wine glass and a black dog", (W("wine glass", colour="purple"), W("dog", colour="black"))),
        ("a photo of a dog right of a teddy bear", (W("teddy bear"), W("dog", relation="right of"))),
    ],
)
def test_prompts_of_every_template(prompt: str, wanted: tuple[Any, ...]) -> None:
    assert objects.parse(prompt, NAMES) == wanted


@pytest.mark.parametrize("prompt", ["a misty forest at dawn", "a photo of dogs", "a photo of a griffin"])
def test_other_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="no GenEval prompt"):
        objects.parse(prompt, NAMES)


def box(x: float, y: float, side: float = 10, score: float = 0.95) -> Any:
    return F((x, y, x + side, y + side), score)


def holds(prompt: str, detections: dict[str, list[Any]], colours: dict[float, str] | None = None) -> bool:
    found: bool = objects.satisfied(
        objects.parse(prompt, NAMES), detections, lambda one, name: (colours or {}).get(one.box[0], "")
    )
    return found


def test_counts_are_exact_and_need_more_confidence() -> None:
    three = {"dog": [box(0, 0), box(20, 0), box(40, 0, score=0.5)]}
    assert holds("a photo of two dogs", three) and not holds("a photo of three dogs", three)
    assert not holds("a photo of two dogs", {"dog": [box(0, 0), box(20, 0), box(40, 0)]}), "one too many"
    assert holds("a photo of a dog", {"dog": [box(0, 0, score=0.4)]}) and not holds("a photo of a cup", three)
    assert holds("a photo of a dog", three), "a single object may be there twice"
    assert not holds("a photo of a dog", {"dog": [box(0, 0, score=0.2)]})


def test_colours_are_those_of_the_objects() -> None:
    found = {"cup": [box(0, 0)], "dog": [box(50, 0)]}
    assert holds("a photo of a red cup and a black dog", found, {0: "red", 50: "black"})
    assert not holds("a photo of a red cup and a black dog", found, {0: "black", 50: "red"})


def test_positions_by_the_centres_less_a_tenth_of_the_sizes() -> None:
    beside = {"dog": [box(100, 0)], "cup": [box(0, 0)]}
    assert holds("a photo of a dog right of a cup", beside) and not holds("a photo of a dog left of a cup", beside)
    assert holds("a photo of a cup left of a dog", beside) and not holds("a photo of a dog below a cup", beside)
    assert objects.relations(box(100, 100), box(0, 0)) == {"right of", "below"}
    assert objects.relations(box(1, 1), box(0, 0)) == set(), "they overlap"
    assert holds("a photo of a dog above a cup", {"dog": [box(0, 0)], "cup": [box(0, 40)]})
