"""What a run can find: against formulas, and from the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from harness.errors import UsageError
from harness.history.store import History
from harness.results import Score
from harness.statistics.power import Design
from harness.storage.records import Run
from ilf_bench.commands.power import amounts
from ilf_bench.commands.power import needed as power
from reports.analysis.power import SPEED, deviations, margins, requirements

Make = Callable[..., Run]
METHODS = {"full": (20, 480, 1.0, 10.0), "5 steps": (5, 120, 0.25, 6.0), "cache(x)": (20, 250, 0.5, 9.9)}


def shown(table: object) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_deviations_come_from_the_contrast_that_is_tested(make_run: Make) -> None:
    run = make_run(methods=METHODS)
    full, five, mine = (run.scores[label, "good"] for label in ("full", "5 steps", "cache(x)"))
    assert isinstance(full, Score) and isinstance(five, Score) and isinstance(mine, Score)
    deviation, source = deviations(run)["good"]
    assert deviation == pytest.approx(np.std(mine.influence - 0.9 * full.influence - 0.1 * five.influence, ddof=1))
    assert source == "cache(x)" and margins(run)["good"] == pytest.approx(0.4)


def test_a_run_of_the_needed_size_finds_the_margin(make_run: Make) -> None:
    run = make_run(methods=METHODS)
    (row,) = requirements({"good": (2.0, "pilot")}, {"good": 0.4}, 64, 8, Design(), run)
    assert row.needed is not None and Design().detectable(2.0, row.needed) <= 0.4 < row.detectable
    assert row.needed == pytest.approx((2.8 * 2.0 / 0.4) ** 2, rel=0.02)


def test_a_run_folder_is_its_own_pilot(make_run: Make) -> None:
    run = make_run(methods=METHODS)
    text = shown(power(str(run.path), None, 1000, None, {SPEED: math.log(1.02)}, {}, run.path.parent))
    assert "1,000" in text and "2.00%" in text and "Good score" in text and "cache(x)" in text


def test_a_preset_takes_the_newest_run_of_its_name(make_run: Make, tmp_path: Path) -> None:
    run = make_run("pilot", methods=METHODS)
    History(tmp_path / "history.sqlite").append(run)
    assert "pilot pilot" in shown(power("tiny-text", None, None, None, {}, {}, tmp_path))


def test_without_a_pilot_it_asks_for_one_or_for_assumptions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pilot RUN, or state deviations"):
        power("tiny-text", None, None, None, {}, {}, tmp_path)
    text = shown(power("tiny-text", None, None, None, {"clip_score": 0.5}, {"clip_score": 4.0}, tmp_path))
    assert "assumed" in text and "clip_score" in text


def test_a_pilot_that_knows_no_deviation_is_refused(make_run: Make, tmp_path: Path) -> None:
    run = make_run("pilot", methods={"full": METHODS["full"]}, rounds=0)
    with pytest.raises(UsageError, match="timed rounds"):
        power(str(run.path), None, None, None, {}, {}, tmp_path)
    assert "assumed" in shown(power(str(run.path), None, None, None, {}, {"good": 2.0}, tmp_path))


def test_a_pilot_on_another_model_is_refused(make_run: Make, tmp_path: Path) -> None:
    run = make_run("pilot", methods=METHODS)
    other = "tiny-class" if "pixart" in str(run.spec["pipeline"]) else "tiny-text"
    with pytest.raises(UsageError, match="a pilot on zoo/"):
        power(other, str(run.path), None, None, {}, {}, tmp_path)


def test_what_the_pilot_says_nothing_of_is_named(make_run: Make, tmp_path: Path) -> None:
    text = shown(power(str(make_run(methods=METHODS, rounds=0).path), None, None, None, {}, {}, tmp_path))
    assert "the pilot says nothing of speed" in text


def test_a_pilot_without_five_steps_has_no_margin_and_says_so(make_run: Make) -> None:
    text = shown(power(str(make_run().path), None, None, None, {}, {}, Path("nowhere")))
    assert "no margin" in text and "steps:5" in text


def test_amounts() -> None:
    assert amounts("clip_score=0.5, speed=0.02") == pytest.approx({"clip_score": 0.5, "speed": math.log(1.02)})
    assert amounts(None) == {}
    for bad in ("clip_score", "clip_score=x", "clip_score=-1", "clip_score=inf", "clip_score=nan"):
        with pytest.raises(UsageError, match="NAME=NUMBER"):
            amounts(bad)
    with pytest.raises(UsageError, match="effects on"):
        power("tiny-text", None, None, None, {"no such": 1.0}, {"clip_score": 4.0}, Path("nowhere"))
