"""The gallery: any two methods prompt by prompt, on the same noise. It refers to the run's own images and needs no network."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from harness.results import BASELINE, Score
from harness.storage.layout import Layout, slug
from harness.storage.records import Run
from reports.analysis.select import Sample, accelerators, metric_order, score_of
from reports.render.grid import is_small
from reports.render.page import embedded_json, render_page
from reports.render.plots import DRAWN
from reports.render.words import title_of

PAGE = 24  # prompts that are shown at a time
DIGITS = 5  # significant digits of a per-image value


@dataclass(frozen=True)
class Card:
    """One prompt with the addresses of two images and what the first metric says of them."""

    number: int
    prompt: str
    first: str
    second: str


def gallery_page(run: Run, stored: Mapping[str, Mapping[int, Sample]], folder: Path) -> str:
    """The page as text, for ``folder``. With more than DRAWN methods it offers the first ones.

    Every sample that at least one method has an image of is in it. Without a script it shows the first prompts of the full run
    beside the first accelerator.
    """
    methods = list(stored)[:DRAWN]
    indices = sorted(set().union(*(stored[label] for label in methods)))
    anyone = {index: stored[label][index] for label in reversed(methods) for index in stored[label]}
    root = quote(Path(os.path.relpath(str(Layout(run.path).all_samples), str(folder))).as_posix())
    pair = _pair(run, methods)
    data = {
        "root": root,
        "page": PAGE,
        "indices": indices,
        "prompts": [anyone[index].prompt for index in indices],
        "methods": [_method(label, stored[label], indices) for label in methods],
        "metrics": _metrics(run, methods, stored, indices),
        "pair": [methods.index(label) for label in pair],
    }
    context: dict[str, Any] = {
        "title": f"Gallery: {run.spec['name']}",
        "run": run,
        "methods": methods,
        "left_out": len(stored) - len(methods),
        "metrics": data["metrics"],
        "pair": pair,
        "cards": _cards(stored, pair, indices, root),
        "small": is_small(anyone[indices[0]]),
        "data": embedded_json(data),
    }
    return render_page("gallery.html.jinja", "gallery.js", "'self' file: data:", context)


def _pair(run: Run, methods: list[str]) -> tuple[str, str]:
    """The full run and the first accelerator, as far as they have images."""
    first = BASELINE if BASELINE in methods else methods[0]
    second = [*(label for label in accelerators(run) if label in methods), *methods]
    return first, next((label for label in second if label != first), first)


def _method(label: str, samples: Mapping[int, Sample], indices: list[int]) -> dict[str, Any]:
    """Its folder, and its file names where they are not the usual ones; an empty name where a sample is missing."""
    files = [samples[i].path.name if i in samples else "" for i in indices]
    folder = Layout(Path()).samples(label)
    usual = files == [folder.image(i).name for i in indices]
    return {"label": label, "folder": quote(folder.path.name), "files": None if usual else files}


def _metrics(
    run: Run, methods: list[str], stored: Mapping[str, Mapping[int, Sample]], indices: list[int]
) -> list[dict[str, Any]]:
    """Each metric's value of every image, by method; None where the method has none or the counts do not fit."""
    found = []
    for metric in metric_order(run):
        scores = [score_of(run, label, metric) for label in methods]
        example = next((score for score in scores if isinstance(score, Score)), None)
        if example is not None:
            values = [_values(score, sorted(stored[label]), indices) for label, score in zip(methods, scores, strict=True)]
            if not any(values):
                continue
            found.append(
                {"key": metric, "title": title_of(run, metric), "higher": example.direction == "higher", "values": values}
            )
    return found


def _values(score: object, own: list[int], indices: list[int]) -> list[float | None] | None:
    if not isinstance(score, Score) or score.per_image is None or score.n != len(own):
        return None
    by_index = dict(zip(own, _rounded(np.asarray(score.per_image, np.float64)), strict=True))
    return [by_index.get(index) for index in indices]


def _rounded(values: np.ndarray[Any, Any]) -> list[float | None]:
    """Infinite ones, which JSON does not know, as none."""
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values.tolist()]


def _cards(stored: Mapping[str, Mapping[int, Sample]], pair: tuple[str, str], indices: list[int], root: str) -> list[Card]:
    both = [i for i in indices if all(i in stored[label] for label in pair)][:PAGE]
    address = {label: f"{root}/{quote(slug(label))}" for label in pair}
    return [
        Card(i, stored[pair[0]][i].prompt, *(f"{address[label]}/{quote(stored[label][i].path.name)}" for label in pair))
        for i in both
    ]
