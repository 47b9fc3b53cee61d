"""How figures look: one colour and marker a method in every plot, colour-blind safe, on light and on dark."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure

from harness.contracts import BASELINE
from harness.records import Run
from reports.select import method_order

# Okabe and Ito's palette, then a purple and a brown; the full run is always the neutral ink colour: it is the reference.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B3A400", "#9467BD", "#8C564B")
STAGE_COLOURS = {"text": "#E69F00", "denoise": "#0072B2", "decode": "#009E73"}
MARKERS = ("s", "^", "D", "v", "P", "X", "h", "<", ">", "p", "d")


@dataclass(frozen=True)
class Theme:
    """Colours of paper and ink."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    band: str


LIGHT = Theme("light", "#ffffff", "#1b1f24", "#57606a", "#d8dee4", "#8c959f")
DARK = Theme("dark", "#161b22", "#e6edf3", "#9da7b3", "#30363d", "#8b949e")


@dataclass(frozen=True)
class Look:
    """Colour and marker of one method."""

    colour: str
    marker: str


def looks(run: Run, theme: Theme) -> dict[str, Look]:
    """The look of every method, by its place in the spec: 77 different pairs before one returns."""
    others = [label for label in method_order(run) if label != BASELINE]
    chosen = {label: Look(PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]) for i, label in enumerate(others)}
    return chosen | {BASELINE: Look(theme.ink, "o")}


def settings(theme: Theme) -> Any:
    """matplotlib settings of a theme; SVG text stays text and identifiers are the same on every build."""
    return {
        "svg.hashsalt": "ilf-bench",
        "svg.fonttype": "none",
        "font.family": ["DejaVu Sans"],
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.facecolor": theme.paper,
        "figure.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "text.parse_math": False,
    }


def to_svg(figure: Figure) -> bytes:
    """SVG bytes without a date, equal for equal figures."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # Viewers without DejaVu fall back to a sans-serif of their own, not to a serif.
    return buffer.getvalue().replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")


def to_png(figure: Figure) -> bytes:
    """PNG bytes at 144 dots an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return buffer.getvalue()
