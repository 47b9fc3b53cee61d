"""KID against the definition written as loops, and against torchmetrics' own estimator on one subset of everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from harness.results import FloatArray
from metrics.kernel import pseudo_values


def features(n: int, shift: float, seed: int) -> FloatArray:
    samples: FloatArray = np.random.default_rng(seed).normal(size=(n, 4)) + shift
    return samples


def test_value_is_the_unbiased_estimator_written_as_loops() -> None:
    x, y = features(12, 0.3, 0), features(15, 0.0, 1)

    def kernel(a: FloatArray, b: FloatArray) -> float:
        return float((a @ b / 4 + 1) ** 3)

    own = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    reference = [kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    cross = [kernel(a, b) for a in x for b in y]
    wanted = np.mean(own) + np.mean(reference) - 2 * np.mean(cross)
    assert pseudo_values(x, y).mean() == pytest.approx(wanted, rel=1e-10)


def test_value_is_torchmetrics_on_one_subset_of_everything() -> None:
    x, y = features(40, 0.5, 2), features(40, 0.0, 3)
    wanted = poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert pseudo_values(x, y).mean() == pytest.approx(float(wanted), rel=1e-10)


def test_influence_agrees_with_leaving_one_out() -> None:
    x, y = features(300, 0.4, 4), features(400, 0.0, 5)
    values = pseudo_values(x, y)
    left_out = np.array([pseudo_values(np.delete(x, i, axis=0), y).mean() for i in range(60)])
    jackknife = (len(x) - 1) * (values.mean() - left_out)
    effect = values[:60] - values.mean()
    np.testing.assert_allclose(jackknife, effect, rtol=0.02, atol=0.02 * np.abs(effect).max())


def test_equal_distributions_score_near_zero_on_either_side() -> None:
    scores = [pseudo_values(features(80, 0, s), features(80, 0, 100 + s)).mean() for s in range(40)]
    assert abs(np.mean(scores)) < 3 * np.std(scores) / np.sqrt(len(scores))
    assert min(scores) < 0 < max(scores)
