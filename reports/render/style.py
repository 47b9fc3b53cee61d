"""How methods look: one colour, marker and filling per method in every plot, colour-blind safe, on light and on dark."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import cycle, product

import numpy as np
from matplotlib.markers import MarkerStyle

from harness.results import A_A, BASELINE
from harness.storage.records import Run
from reports.analysis.select import is_fewer_steps, method_order

# After Okabe and Ito; moved until each has a contrast of 3 to its paper and all differ for readers without red or green cones.
LIGHT = ("#0072b2", "#e56716", "#00805c", "#b8578f", "#7f5c00", "#349dce", "#7d7200", "#612088", "#8c564b")
DARK = ("#5db0f5", "#ff8b4a", "#2fc79a", "#e59ac6", "#f0b429", "#8dcff5", "#d3c944", "#b795e0", "#c9978c")
INK_LIGHT = "#1b1f24"
STAGE_COLOURS = {"text": LIGHT[4], "denoise": LIGHT[0], "decode": LIGHT[2], "copy": LIGHT[5]}
MARKERS = ("s", "D", "P", "X", "p", "<", "*", ">", "h", "d")  # up and down triangles say better and worse in tables
BASELINE_MARKER = "o"
PUBLISHED_MARKER = "x"  # no method has it
INK = -1  # the full run is always drawn in ink: it is the reference


@dataclass(frozen=True)
class Look:
    """``hue`` is an index into the palette or INK; ``marker`` is matplotlib's code; hollow markers come second."""

    hue: int
    marker: str
    hollow: bool = False

    @property
    def colour(self) -> str:
        """Its colour on white paper."""
        return INK_LIGHT if self.hue == INK else LIGHT[self.hue]


PUBLISHED = Look(INK, PUBLISHED_MARKER, hollow=True)


def family(run: Run, label: str) -> str:
    """What shares a hue: all step counts, and all settings of one method; a composition belongs to its first accelerator."""
    if is_fewer_steps(run, label):
        return "steps"
    record = run.described.get(label)
    return record.family if record else label


def families(run: Run) -> dict[str, list[str]]:
    """Methods by family, in the order of the spec; the full run and its A/A copy belong to none."""
    found: dict[str, list[str]] = {}
    for label in method_order(run):
        if label not in (BASELINE, A_A):
            found.setdefault(family(run, label), []).append(label)
    return found


def looks(run: Run) -> dict[str, Look]:
    """The look of every method by its place in the spec. A hue has 20 different marks; only then does one return."""
    marks = [cycle((marker, hollow) for hollow, marker in product((False, True), _turned(hue))) for hue in range(len(LIGHT))]
    chosen = {BASELINE: Look(INK, BASELINE_MARKER), A_A: Look(INK, BASELINE_MARKER, hollow=True)}
    for i, labels in enumerate(families(run).values()):
        hue = i % len(LIGHT)
        chosen |= {label: Look(hue, *next(marks[hue])) for label in labels}
    return chosen


def _turned(hue: int) -> tuple[str, ...]:
    """Each hue begins with another marker, so that a few families of one method each differ in both."""
    return MARKERS[hue:] + MARKERS[:hue]


@cache
def marker_path(marker: str, radius: float) -> str:
    """SVG path data of matplotlib's marker around the origin, so that page and paper show the same shape."""
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    reach = float(np.abs(path.vertices).max())
    shapes = path.to_polygons(closed_only=False)
    return "".join("M" + "L".join(f"{x:.2f} {-y:.2f}" for x, y in np.asarray(s) * radius / reach) + "Z" for s in shapes)


def palette_css() -> str:
    """The palette as custom properties ``--m0`` ... with one class ``h0`` ... a hue; ``ink`` is the full run's."""
    light = "".join(f"--m{i}:{colour};" for i, colour in enumerate(LIGHT))
    dark = "".join(f"--m{i}:{colour};" for i, colour in enumerate(DARK))
    classes = "".join(f".h{i}{{--c:var(--m{i})}}" for i in range(len(LIGHT)))
    stages = "".join(f".stage-{stage}{{fill:var(--m{LIGHT.index(colour)})}}" for stage, colour in STAGE_COLOURS.items())
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}.h{INK}{{--c:var(--ink)}}{classes}{stages}"
