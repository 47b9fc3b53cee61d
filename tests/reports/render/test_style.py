"""Looks: every method its own, the same everywhere, and told apart by those who see colours differently."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from harness.results import A_A, BASELINE
from reports import render
from reports.render.page import render_page
from reports.render.style import DARK, LIGHT, MARKERS, families, looks, marker_path
from tests.reports.synthetic import synthetic_run

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    high, low = sorted((float(TO_XYZ[1] @ linear(c)) for c in (a, b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab of linear RGB, under D65."""
    t = TO_XYZ @ np.clip(rgb, 0, 1) / (TO_XYZ @ np.ones(3))
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


CARDS = re.findall(r"--card: (#\w+)", (Path(render.__file__).parent / "templates" / "page.css").read_text())


@pytest.mark.parametrize(("palette", "paper"), [*zip((LIGHT, DARK), CARDS, strict=True)])
def test_every_colour_stands_out_from_its_paper(palette: tuple[str, ...], paper: str) -> None:
    assert len(set(palette)) == len(LIGHT)
    assert min(contrast(colour, paper) for colour in palette) >= 3  # WCAG 2.2, 1.4.11


@pytest.mark.parametrize("palette", [LIGHT, DARK])
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_families_differ_for_colour_blind_readers(palette: tuple[str, ...], deficiency: str) -> None:
    """A distance of 2.3 in Lab is just noticeable; the first six families are five times as far apart."""
    seen = [lab(np.array(DEFICIENCIES[deficiency]) @ linear(colour)) for colour in palette]
    distances = {(i, j): np.linalg.norm(seen[i] - seen[j]) for i, j in combinations(range(len(seen)), 2)}
    assert min(distances.values()) > 5
    assert min(distance for (_, j), distance in distances.items() if j < 6) > 11.5


def test_fifty_methods_have_fifty_looks_and_families_share_a_hue(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, 50, 4, metrics=())
    found = looks(run)
    assert set(found) == {record.label for record in run.methods} | {A_A}
    assert len(set(found.values())) == len(found)
    groups = families(run)
    assert len(groups) == 12 and all(BASELINE not in labels for labels in groups.values())
    assert all(len({found[label].hue for label in labels}) == 1 for labels in groups.values())
    neighbours = list(groups.values())[:9]
    assert len({found[labels[0]].hue for labels in neighbours}) == len({found[labels[0]].marker for labels in neighbours}) == 9


@pytest.mark.parametrize("marker", ["o", *MARKERS])
def test_markers_are_closed_paths_of_the_asked_size(marker: str) -> None:
    path = marker_path(marker, 5.0)
    numbers = np.array(path.replace("M", " ").replace("L", " ").replace("Z", " ").split(), float)
    assert path.endswith("Z") and np.abs(numbers).max() == pytest.approx(5.0, abs=0.01)


def test_the_palette_reaches_the_style_sheet() -> None:
    context = {key: "" for key in ("title", "left_out", "small")} | {"methods": [], "metrics": [], "cards": [], "data": "{}"}
    page = render_page("gallery.html.jinja", "gallery.js", "data:", context | {"pair": ("a", "b")})
    assert all(f":{colour}" in page for colour in (*LIGHT, *DARK))
