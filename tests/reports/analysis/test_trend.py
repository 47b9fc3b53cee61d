"""Series of the history: what belongs into one line, steps with their commit, and the page that shows them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from harness.history.store import History
from harness.results import REFERENCE, Score
from harness.storage.records import Run
from reports.analysis.trend import Series, trends
from reports.render.dashboard import dashboard
from reports.render.history import sparkline, trend_table

Make = Callable[..., Run]


def at(run: Run, day: int, commit: str, time: float = 1.0, machine: float = 1.0, shift: float = 0.0, seed: int = 0) -> Run:
    """The run made on another day at another commit: methods ``time`` times as slow on a machine ``machine`` times as slow."""
    rng, timings = np.random.default_rng(seed + 100 * day), []
    for sample in run.timings:
        noise = machine * np.exp(rng.normal(0, 0.003))
        work = replace(sample, method=REFERENCE, latency_s=0.02 * noise, denoise_s=0.02 * noise)
        timings += [work, replace(sample, latency_s=sample.latency_s * noise * time), work]
    environment = dict(run.environment) | {"created": f"2026-03-{day:02d}T12:00:00+00:00", "commit": commit * 10}
    scores = {k: moved(s, shift) if isinstance(s, Score) else s for k, s in run.scores.items()}
    return replace(run, environment=environment, timings=tuple(timings), scores=scores, path=run.path / str(day))


def moved(score: Score, shift: float) -> Score:
    return replace(score, value=score.value + shift, influence=score.influence + shift)


@pytest.fixture
def history(make_run: Make, tmp_path: Path) -> History:
    """Twelve days: on the seventh, commit ``beef`` made everything 8% slower and ``good`` one point worse; the machine was busy
    on the fourth and the ninth."""
    run, history = make_run("run"), History(tmp_path / "history.sqlite")
    for day in range(1, 13):
        late = day >= 7
        busy = 1.7 if day in (4, 9) else 1.0
        history.append(at(run, day, "beef" if late else "abcd", 1.08 if late else 1.0, busy, -1.0 if late else 0.0))
    return history


def series_of(found: list[Series], method: str, check: str) -> Series:
    (one,) = [s for s in found if (s.group.method, s.group.check) == (method, check)]
    return one


def test_steps_name_their_commit_and_a_busy_machine_is_none(history: History) -> None:
    found = trends(history.runs())
    speed = series_of(found, "8 steps", "speed")
    (step,) = speed.change_points
    assert step.index == 6 and speed.points[6].commit.startswith("beef") and speed.is_worse(step)
    assert step.after / step.before == pytest.approx(1.08, rel=0.01) and speed.points[0].value == pytest.approx(0.4, rel=0.05)
    good = series_of(found, "full", "good")
    assert [s.index for s in good.change_points] == [6] and good.is_worse(good.change_points[0])
    assert series_of(found, "full", "memory").change_points == ()


def test_lower_is_better_the_other_way_round(history: History) -> None:
    far = series_of(trends(history.runs()), "8 steps", "far")
    assert far.change_points and far.is_worse(far.change_points[0]) is False  # far fell by one point, too


def test_other_machines_fingerprints_and_experiments_are_other_series(make_run: Make, tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    runs = [make_run("a"), make_run("b", machine="another"), make_run("c", fingerprint="bb")]
    guided = make_run("d")
    for run in (*runs, replace(guided, spec=dict(guided.spec) | {"guidance": 7.0}), make_run("e", complete=False)):
        history.append(run)
    found = trends(history.runs())
    counts = {
        check: [len(s.points) for s in found if (s.group.method, s.group.check) == ("full", check)] for check in ("speed", "good")
    }
    assert sorted(counts["speed"]) == [1, 1, 2] and sorted(counts["good"]) == [1, 1, 2]


def test_sparkline() -> None:
    assert sparkline([1.0, 2.0, 3.0]) == "▁▄█" and sparkline([2.0, 2.0]) == "▁▁" and len(sparkline(range(100))) == 24


def test_the_table_and_the_page_tell_the_steps(history: History) -> None:
    found = trends(history.runs())
    table = trend_table(found)
    steps = [str(cell) for cell in table.columns[6].cells]
    assert "worse: 1.00 to 1.08 s/image (+8.0%) at beefbeef, 2026-03-07" in steps
    page = dashboard(history.runs())
    assert "▼ worse" in page and "at beefbeef, 2026-03-07" in page
    assert page.count("<svg") == len(found) and page.count('<circle class="run"') == 12 * len(found)


class Checker(HTMLParser):
    """Collects tags and attributes; unbalanced tags fail."""

    VOID = frozenset({"meta", "link", "br", "wbr", "img", "line", "polyline", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.stack.pop() == tag


def check_page(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.stack == []
    assert not any(tag in ("script", "iframe", "img", "object") for tag, _ in checker.found)
    sources = [value for _, attributes in checker.found for name, value in attributes.items() if name in ("src", "href")]
    assert all(value == "data:," or (value or "").startswith("#") for value in sources)
    return checker


def test_the_page_is_self_contained_and_markup_stays_text(make_run: Make, tmp_path: Path) -> None:
    nasty = '<script>alert("x")</script>&amp;'
    methods = {"full": (20, 480.0, 1.0, 10.0), nasty: (8, 192.0, 0.4, 8.0)}
    run = make_run("a", methods=methods)
    run = replace(run, spec=dict(run.spec) | {"title": nasty}, environment=dict(run.environment) | {"commit": nasty})
    history = History(tmp_path / "h.sqlite")
    history.append(run)
    page = dashboard(history.runs())
    checker = check_page(page)
    assert "&lt;script&gt;" in page
    labels = [a["aria-label"] for tag, a in checker.found if tag == "svg"]
    assert any(nasty in (label or "") for label in labels)


def test_an_empty_history_and_one_with_a_single_run(make_run: Make, tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    check_page(dashboard(history.runs()))
    assert "no finished run" in dashboard(history.runs())
    history.append(make_run("a"))
    page = dashboard(history.runs())
    check_page(page)
    numbers = re.findall(r'c[xy]="([^"]+)"', page)
    assert numbers and all(np.isfinite(float(n)) for n in numbers)


def test_a_thousand_methods_stay_readable(make_run: Make, tmp_path: Path) -> None:
    """Folded, and below the 20 MB that a page may have."""
    base = make_run("a")
    labels = ["full", *(f"{i} steps" for i in range(2, 1001))]
    own = [t for t in base.timings if t.method == "full"]
    score = base.scores["full", "good"]
    run = replace(
        base,
        spec=dict(base.spec) | {"method_labels": labels},
        scores={(label, "good"): replace(score, method=label) for label in labels},
        timings=tuple(replace(t, method=label) for label in labels for t in own),
    )
    history = History(tmp_path / "h.sqlite")
    history.append(run)
    page = dashboard(history.runs())
    assert page.count('<details class="method">') == 1000 and len(page) < 20e6
