"""Holm's correction and the size of a study."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.statistics import holm
from harness.statistics.power import Design


def test_holm_on_a_table_worked_out_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({}) == {}
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_holm_keeps_the_family_at_its_level() -> None:
    """Where nothing is true, one family in twenty may hold a finding, though each holds thirty tests."""
    p = np.random.default_rng(0).random((2000, 30))
    assert np.mean([min(holm(dict(enumerate(row))).values()) < 0.05 for row in p]) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("n", [8, 64])
def test_a_detectable_difference_is_found_as_often_as_promised(n: int) -> None:
    """The exact power of Student's test, from scipy's noncentral distribution."""
    effect = Design().detectable(2.0, n)
    noncentral, limit = effect / 2.0 * math.sqrt(n), stats.t.ppf(0.975, n - 1)
    assert stats.nct.sf(limit, n - 1, noncentral) == pytest.approx(0.8, abs=0.015)


def test_the_needed_number_is_the_smallest_that_suffices() -> None:
    design = Design(tests=12)
    n = design.needed(1.0, 0.2)
    assert n is not None and design.detectable(1.0, n) <= 0.2 < design.detectable(1.0, n - 1)
    assert n > (Design().needed(1.0, 0.2) or 0)


def test_no_number_of_images_finds_nothing() -> None:
    assert Design().needed(1.0, 0.0) is None
    assert Design().needed(1.0, 1e-9) is None
    assert Design().detectable(1.0, 1) == math.inf
    assert Design().needed(0.0, 0.1) == 2
