"""Warnings where metrics contradict each other, with the prompts that lost most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from harness.results import BASELINE
from harness.storage.records import Run
from harness.text import blanked
from reports.analysis.disagreement import Disagreement, disagreements
from reports.analysis.select import Sample
from reports.render.grid import is_small, thumbnail
from reports.render.page import data_uri
from reports.render.words import title_of

PICTURED, PROMPTS = 4, 6  # warnings with images, and prompts in each


@dataclass(frozen=True)
class Pair:
    """One prompt with the full run's image and the method's, as data URIs."""

    prompt: str
    first: str
    second: str


@dataclass(frozen=True)
class Conflict:
    """One warning. ``address`` opens the gallery at the images that lost most."""

    method: str
    sentence: str
    address: str
    pairs: tuple[Pair, ...]
    small: bool


def conflicts(run: Run, stored: Mapping[str, Mapping[int, Sample]]) -> list[Conflict]:
    """Every contradiction of a run; the first few with their worst prompts, where the images were kept."""
    return [_conflict(run, stored, found, i < PICTURED) for i, found in enumerate(disagreements(run))]


def _conflict(run: Run, stored: Mapping[str, Mapping[int, Sample]], found: Disagreement, pictured: bool) -> Conflict:
    better, worse = (", ".join(title_of(run, metric) for metric in metrics) for metrics in (found.better, found.worse))
    sentence = f"Against {found.rival} it is surely better on {better} but surely worse on {worse}: do not rely on either alone."
    choice = {"first": BASELINE, "second": found.method, "order": "loss", "metric": found.worse[0]}
    first, second = stored.get(BASELINE, {}), stored.get(found.method, {})
    both = [loser.index for loser in found.worst if loser.index in first and loser.index in second][: PROMPTS * pictured]
    pairs = tuple(Pair(second[i].prompt, _source(first[i]), _source(second[i])) for i in both)
    small = bool(both) and is_small(first[both[0]])
    return Conflict(found.method, sentence, f"gallery.html#{urlencode(blanked(choice))}" if second else "", pairs, small)


def _source(sample: Sample) -> str:
    found = thumbnail("", sample, is_small(sample))
    return data_uri(found.content, found.kind)
