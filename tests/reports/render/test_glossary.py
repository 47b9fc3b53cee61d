"""Every method that ships is explained in a few words, and no name is explained that does not exist."""

from __future__ import annotations

from pathlib import Path

from ilf_bench.registry import BUILT_IN
from reports.analysis.overview import overview
from reports.render.build import build_report
from reports.render.glossary import EXPLAINED, MEANINGS, explained
from tests.reports.conftest import Fake, write_fake


def test_every_method_that_ships_is_explained() -> None:
    assert set(MEANINGS) == set(BUILT_IN)
    assert all(len(text) <= 90 and not text.endswith(".") for text in MEANINGS.values())


def test_the_first_screen_explains_the_accelerators_before_the_step_counts(tmp_path: Path) -> None:
    methods = {"full": (20, 480, 1.0, 10.0), "8 steps": (8, 192, 0.4, 8.0), "ilf(steps=6)": (6, 150, 0.32, 9.4)}
    run = write_fake(tmp_path, Fake(methods=methods))
    assert explained(run, overview(run)) == [("ilf", MEANINGS["ilf"])]
    page = build_report(tmp_path).read_text()
    assert f"<b>ilf</b>: {MEANINGS['ilf']}." in page
    assert f'title="ilf: {MEANINGS["ilf"]}"' in page and f'title="full: {MEANINGS["full"]}"' in page


def test_a_name_that_is_not_ours_is_not_explained(tmp_path: Path) -> None:
    names = [f"fora(interval={n})" for n in (2, 3)] + ["deepcache(interval=3)", "teacache(0.3)", "pab(2)", "mine(1)"]
    methods = {"full": (20, 480, 1.0, 10.0), **{name: (20, 240, 0.5, 9.0) for name in names}}
    run = write_fake(tmp_path, Fake(methods=methods))
    found = explained(run, overview(run))
    assert len(found) == EXPLAINED == len(dict(found)) and "mine" not in dict(found)
