"""Precision and recall: the definition written as loops, known cases, and the meaning of the per-image values."""

from __future__ import annotations

import numpy as np
import pytest

from harness.results import FloatArray
from metrics.manifold import NEIGHBOURS, precision_values, recall_values, squared_radii


def draw(n: int, seed: int, shift: float = 0.0) -> FloatArray:
    samples: FloatArray = np.random.default_rng(seed).normal(size=(n, 3)) + shift
    return samples


def inside(point: FloatArray, centres: FloatArray) -> bool:
    """Whether a point lies in the ball of any centre, whose radius reaches its third other neighbour."""
    for i, centre in enumerate(centres):
        others = sorted(np.linalg.norm(centre - other) for j, other in enumerate(centres) if j != i)
        if np.linalg.norm(point - centre) <= others[NEIGHBOURS - 1]:
            return True
    return False


def test_both_are_their_definition_written_as_loops() -> None:
    images, real = draw(40, 0), draw(50, 1, shift=0.8)
    precision = precision_values(images, real, squared_radii(real))
    assert precision.tolist() == [float(inside(image, real)) for image in images]
    assert recall_values(images, real).mean() == pytest.approx(np.mean([inside(point, images) for point in real]))


def test_equal_sets_are_perfect_and_distant_ones_are_nothing() -> None:
    x, far = draw(60, 2), draw(60, 3, shift=100.0)
    for values in (precision_values(x, x, squared_radii(x)), recall_values(x, x)):
        assert values.mean() == pytest.approx(1)
    assert precision_values(far, x, squared_radii(x)).sum() == 0 and recall_values(far, x).mean() == 0


def test_a_collapsed_model_has_precision_without_recall() -> None:
    real = draw(200, 4)
    one = real[:1] + 1e-3 * draw(100, 5)
    assert precision_values(one, real, squared_radii(real)).mean() == 1
    assert recall_values(one, real).mean() < 0.05


def test_the_interval_of_recall_covers_its_spread_over_samples() -> None:
    real = draw(300, 6)
    drawn = [recall_values(draw(80, 100 + seed, shift=0.5), real) for seed in range(40)]
    spread = np.std([values.mean() for values in drawn])
    claimed = np.mean([values.std(ddof=1) / np.sqrt(80) for values in drawn])
    assert 0.6 * spread < claimed < 2.5 * spread
