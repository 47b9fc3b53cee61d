"""Which objects a GenEval prompt asks for (Ghosh et al., 2023), and whether detections satisfy it: no network in here."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
RELATIONS = ("left of", "right of", "above", "below")
THRESHOLD, COUNTING_THRESHOLD, MOST = 0.3, 0.9, 16  # the authors': confidence of a detection, and how many of a class count
APART = 0.1  # of the sum of two sizes that centres must differ by before they count as apart
LEAST = 1e-3  # pixels: what remains below it on both axes is no offset
IRREGULAR = {"person": "people", "mouse": "mice", "knife": "knives", "skis": "skis", "scissors": "scissors", "sheep": "sheep"}
GENEVALS = {  # what GenEval calls the classes that detectors of COCO call otherwise
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "mouse": "computer mouse",
    "remote": "tv remote",
    "keyboard": "computer keyboard",
}


@dataclass(frozen=True)
class Wanted:
    """``count`` objects of a class; ``relation`` to the object before it, empty where the prompt says nothing."""

    name: str
    count: int = 1
    colour: str = ""
    relation: str = ""
    exact: bool = False


@dataclass(frozen=True)
class Found:
    """A detection: left, top, right, bottom in pixels, its confidence, and its mask, an image of mode 1 as large as the whole."""

    box: tuple[float, float, float, float]
    score: float
    mask: Any = field(default=None, compare=False, repr=False)


def called(label):
    """A detector's label as GenEval writes that class."""
    return GENEVALS.get(label.lower(), label.lower())


def parse(prompt, names):
    """The objects of a prompt of GenEval's templates, the one named first last where it stands in relation to the other.

    Raises ValueError on any other prompt: it cannot be scored.
    """
    text = re.sub(r"^a photo of ", "", prompt.strip().rstrip(".").lower())
    for relation in RELATIONS:
        first, found, second = text.partition(f" {relation} ")
        if found:
            return (_object(second, names), _object(first, names, relation))
    return tuple(_object(part, names) for part in text.split(" and "))


def _object(text, names, relation=""):
    number, _, rest = text.strip().partition(" ")
    if number not in NUMBERS:
        raise ValueError(f"no GenEval prompt: {text!r} begins with no number")
    first, _, after = rest.partition(" ")
    colour, noun = (first, after) if first in COLOURS and after else ("", rest)
    name = next((name for name in names if noun in (name, *plurals(name))), None)
    if name is None:
        raise ValueError(f"no GenEval prompt: {noun!r} is no class of the detector")
    count = NUMBERS[number]
    return Wanted(name, count, colour, relation, exact=count > 1)


def plurals(name):
    """How a class is written in the plural; GenEval's own prompts say "three persons" and "four knifes"."""
    head, _, last = name.rpartition(" ")
    ends = [f"{last}s", f"{last}es", IRREGULAR.get(last) or re.sub("y$", "ies", last)]
    return [f"{head} {end}".strip() for end in ends]


def satisfied(wanted, detections, colour_of):
    """Whether detections (class to :class:`Found`, best first) hold all that is wanted; ``colour_of(found, name)`` names one."""
    before = None
    for want in wanted:
        limit = COUNTING_THRESHOLD if want.exact else THRESHOLD
        every = [found for found in detections.get(want.name, []) if found.score > limit][:MOST]
        chosen = every[: want.count]
        if len(chosen) < want.count or (want.exact and len(every) > want.count):
            return False
        if want.colour and any(colour_of(found, want.name) != want.colour for found in chosen):
            return False
        if want.relation and not all(want.relation in relations(one, other) for one in chosen for other in before or ()):
            return False
        before = chosen
    return True


def relations(one, other):
    """Where the first lies, seen from the second: some of :data:`RELATIONS`.

    A tenth of both sizes is taken off the offset of the centres; what is left holds for a relation where it is more than half of
    the whole offset's length.
    """
    offset, apart = [], []
    for axis in (0, 1):
        centre, rival = ((found.box[axis] + found.box[axis + 2]) / 2 for found in (one, other))
        sizes = sum(found.box[axis + 2] - found.box[axis] for found in (one, other))
        offset.append(centre - rival)
        apart.append(math.copysign(max(abs(offset[axis]) - APART * sizes, 0), offset[axis]))
    if max(map(abs, apart)) < LEAST:
        return set()
    dx, dy = (value / math.hypot(*offset) for value in apart)
    told = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {relation for relation, holds in told.items() if holds}
