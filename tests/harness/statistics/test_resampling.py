"""Bootstrap weights: the same whether they are kept, drawn at once or in parts."""

from __future__ import annotations

import numpy as np
import pytest

from harness.statistics import resampling
from harness.statistics.resampling import units_of

COLUMNS = np.random.default_rng(0).normal(size=(37, 3))


def test_draws_in_parts_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    units = units_of(COLUMNS)
    kept = units.draws(100, seed=3)
    monkeypatch.setattr(resampling, "CHUNK", 37 * 8)
    assert len(list(resampling._weights(37, 100, 3))) == 13
    np.testing.assert_allclose(units.draws(100, seed=3), kept, rtol=0, atol=1e-12)


def test_kept_weights_cannot_be_changed_and_depend_on_all_that_they_are_asked_for() -> None:
    (weights,) = resampling._weights(5, 10, 0)
    assert weights.shape == (10, 5) and (weights.sum(axis=1) == 5).all()
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 9
    for other in (resampling._weights(5, 10, 1), resampling._weights(5, 12, 0), resampling._weights(6, 10, 0)):
        (found,) = other
        assert found.shape != weights.shape or not np.array_equal(found, weights)
