"""GenEval's rules: what a prompt asks for, when detections satisfy it, and how the colour of an object is named.

The oracles are written in NumPy from the description of the authors' evaluation (github.com/djghosh13/geneval).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from ilf_bench.scorer_commands import ENVIRONMENTS, SERVE
from tests.metrics.command import random_networks

FOLDER = ENVIRONMENTS / "geneval"


def load(name: str, **beside: Any) -> Any:
    """A module of the environment, with the others that it imports."""
    spec = importlib.util.spec_from_file_location(f"geneval_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    with mock.patch.dict(sys.modules, beside):
        spec.loader.exec_module(module)
    return module


objects = load("objects")
colours = load("colours", objects=objects)
NAMES = ("dog", "cup", "wine glass", "bench", "knife", "person", "clock", "teddy bear", "orange", "computer mouse", "sheep")
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
        ("a photo of three persons", (W("person", 3, exact=True),)),
        ("a photo of four knifes", (W("knife", 4, exact=True),)),
        ("a photo of two sheeps", (W("sheep", 2, exact=True),)),
        ("a photo of a computer mouse above a cup", (W("cup"), W("computer mouse", relation="above"))),
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


def test_classes_have_genevals_names_whatever_the_detector_calls_them() -> None:
    """Its prompts say "computer keyboard" and "couch" where labels of COCO say "keyboard" and, in some files, "sofa"."""
    labels = ("keyboard", "mouse", "remote", "sofa", "tvmonitor", "pottedplant", "diningtable", "aeroplane", "motorbike", "Dog")
    assert [objects.called(label) for label in labels] == [
        "computer keyboard", "computer mouse", "tv remote", "couch", "tv", "potted plant", "dining table", "airplane",
        "motorcycle", "dog",
    ]  # fmt: skip


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
    assert not holds("a photo of a dog", {"dog": [box(0, 0, score=0.3)]}), "more than 0.3 is asked"
    assert not holds("a photo of two dogs", {"dog": [box(0, 0), box(20, 0, score=0.9)]}), "and more than 0.9 of a count"


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


def by_numpy(ones: Any, others: Any) -> Any:
    """Bool [N, 4] for left of, right of, above, below of N boxes [N, 4] seen from N others.

    The vector between the centres shrinks on each axis towards 0 by a tenth of both extents. Nothing holds where less than 0.001
    is left on both axes; else a relation holds where its axis keeps more than half of the ORIGINAL vector's Euclidean length.
    """
    (low, high), (other_low, other_high) = ((boxes[:, :2], boxes[:, 2:]) for boxes in (ones, others))
    vector = (low + high - other_low - other_high) / 2
    slack = 0.1 * (np.abs(high - low) + np.abs(other_high - other_low))
    kept = np.where(vector > slack, vector - slack, np.where(vector < -slack, vector + slack, 0))
    half = np.sqrt((vector**2).sum(axis=1, keepdims=True)) / 2
    sides = np.stack([-kept[:, 0], kept[:, 0], -kept[:, 1], kept[:, 1]], axis=1)
    return (sides > half) & (np.abs(kept) >= 1e-3).any(axis=1, keepdims=True)


@pytest.mark.parametrize("extent", [512.0, 0.01], ids=["pixels", "hundredths"])
def test_positions_are_those_of_the_authors_rule(extent: float) -> None:
    corners = np.random.default_rng(0).uniform(0, extent, (2, 4000, 2, 2))
    ones, others = np.sort(corners, axis=2).reshape(2, -1, 4)
    wanted = by_numpy(ones, others)
    found = [objects.relations(F(tuple(one), 1), F(tuple(other), 1)) for one, other in zip(ones, others, strict=True)]
    assert found == [{name for name, holds in zip(objects.RELATIONS, row, strict=True) if holds} for row in wanted]
    assert (wanted.mean(axis=0) > 0.1).all() and (~wanted.any(axis=1)).mean() > 0.1, "each side, and none, is often right"


def test_an_object_is_shown_by_itself_on_grey() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:9, 10:16] = True
    mask[5, 10] = False
    seen = np.asarray(colours.shown(Image.fromarray(pixels), F((10.0, 5.0, 16.0, 9.0), 1, Image.fromarray(mask))))
    wanted = pixels[5:9, 10:16].copy()
    wanted[0, 0] = 153
    np.testing.assert_array_equal(seen, wanted)


def test_a_colour_is_the_nearest_mean_of_three_texts() -> None:
    draw, differs = np.random.default_rng(0), 0
    assert colours.texts("dog")[3:6] == [
        "a photo of a orange dog",
        "a photo of a orange-colored dog",
        "a photo of a orange object",
    ]
    for _ in range(200):
        image, told = draw.normal(size=8), draw.normal(size=(10, 3, 8))
        image, told = image / np.linalg.norm(image), told / np.linalg.norm(told, axis=-1, keepdims=True)
        means = told.sum(axis=1)
        wanted = objects.COLOURS[int((means @ image / np.linalg.norm(means, axis=1)).argmax())]
        assert colours.nearest(torch.from_numpy(image), torch.from_numpy(told.reshape(30, 8))) == wanted
        differs += wanted != objects.COLOURS[int((told[:, 0] @ image).argmax())]
    assert differs > 20, "one text alone says something else"


DETECT = """
import json, sys
import ilf_bench_scorer
ilf_bench_scorer.serve = lambda *given, **facts: None
answers = ilf_bench_scorer.redirect()
import numpy as np, torch, objects, scorer
from PIL import Image
objects.THRESHOLD = 0.0  # of random networks
image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
with torch.inference_mode():
    found = [(name, one) for name, several in scorer.detect(image).items() for one in several]
    rows = [(name, one.box, one.mask.getbbox(), one.mask.size, scorer.colour_of(image, one, name)) for name, one in found]
print(json.dumps(rows), file=answers, flush=True)
"""


def test_detections_carry_their_own_masks(tmp_path: Path) -> None:
    """The scorer's own code on small random networks: boxes are those of the masks, which may overlap."""
    for file in FOLDER.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "ilf_bench_scorer.py").write_bytes(SERVE.read_bytes())
    (tmp_path / "detect.py").write_text(DETECT)
    torch.manual_seed(0)
    known = {"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **random_networks.geneval(tmp_path / "nets")}
    done = subprocess.run([sys.executable, tmp_path / "detect.py"], env=known, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    assert len(rows) == 10, "every query, the overlapping ones too"
    for _, edges, mask, size, colour in rows:
        assert edges == mask and size == [64, 48] and colour in objects.COLOURS
