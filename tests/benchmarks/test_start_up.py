"""The benchmark of start-up times measures what it says."""

from __future__ import annotations

import sys

import pytest

from benchmarks.start_up import Measured, Spent, spend


def test_a_command_is_measured_to_its_end_or_to_its_first_line() -> None:
    busy = "import time; print('first', flush=True); end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    whole, first = (spend((sys.executable, "-c", busy), until_first_line=until) for until in (False, True))
    assert whole.cpu > 0.3 and whole.wall > 0.3 and first.cpu < 0.25


@pytest.mark.parametrize(("code", "until", "said"), [("raise SystemExit('no')", False, "left by 1: no"), ("", True, "nothing")])
def test_a_command_that_fails_is_no_measurement(code: str, until: bool, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        spend((sys.executable, "-c", code), until_first_line=until)


def test_the_median_of_the_wall_times_decides() -> None:
    measured = Measured((), allowed=2)
    for wall in (1.0, 1.9, 9.0):
        measured.add(Spent(wall, 50), Spent(1, 1))
    assert measured.met
    measured.add(Spent(9, 50), Spent(1, 1))
    assert not measured.met
