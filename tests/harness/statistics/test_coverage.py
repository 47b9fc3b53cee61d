"""Do 95% intervals hold the truth in 93% to 97% of simulated studies? Each study is drawn again from a known distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.results import FloatArray
from harness.statistics import Estimate, estimate_means, time_ratio
from harness.statistics.curves import Cost, advantage, mix
from harness.statistics.resampling import units_of
from harness.statistics.rounds import relative_costs

STUDIES = 1500  # 95% +- 1.1% at two standard errors: the band leaves room for either side
Draw = Callable[[np.random.Generator, tuple[int, ...]], FloatArray]
SKEWED_DIFFERENCE: Draw = lambda rng, shape: rng.exponential(size=shape) - 0.7 * rng.exponential(size=shape) - 0.3  # noqa: E731
SHAPES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy tails": lambda rng, shape: rng.standard_t(4, size=shape),
    "difference of skewed scores": SKEWED_DIFFERENCE,
    "mostly equal": lambda rng, shape: rng.normal(size=shape) * (rng.random(shape) < 0.3),
}


def covered(found: tuple[Estimate, ...], truth: float = 0.0) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in found]))


@pytest.mark.parametrize("n", [24, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_means(shape: str, n: int) -> None:
    columns = SHAPES[shape](np.random.default_rng(n), (n, STUDIES))
    assert 0.93 <= covered(estimate_means(columns)) <= 0.97


def test_means_over_few_images() -> None:
    """Eight values are enough unless they are skewed, which eight values cannot show."""
    for shape in ("normal", "difference of skewed scores"):
        assert 0.93 <= covered(estimate_means(SHAPES[shape](np.random.default_rng(8), (8, STUDIES)))) <= 0.97


def test_means_of_repeated_prompts() -> None:
    """Sixty prompts, four images each, half of the variance shared within a prompt; counting images covers far too little."""
    rng = np.random.default_rng(4)
    shared, own = rng.exponential(size=(60, 1, STUDIES)) - 1, rng.normal(size=(60, 4, STUDIES))
    columns = (shared + own).reshape(240, STUDIES)
    groups = np.repeat(np.arange(60), 4)
    assert 0.93 <= covered(estimate_means(columns, groups)) <= 0.97
    assert covered(estimate_means(columns)) < 0.85


def rounds(rng: np.random.Generator, n: int, kind: str) -> tuple[FloatArray, FloatArray]:
    """Seconds of the full run and of a method that takes half as long, under a drift that both share."""
    noise = rng.normal(0, 0.01, (n, 2))
    if kind == "disturbed":  # now and then another program takes the machine
        noise += (rng.random((n, 2)) < 0.15) * rng.exponential(0.2, (n, 2))
    if kind == "skewed":
        noise = np.log1p(0.02 * rng.gamma(1, size=(n, 2)))
    times = np.exp(noise + np.cumsum(rng.normal(0, 0.02, n))[:, None])
    return times[:, 0], 0.5 * times[:, 1]


@pytest.mark.parametrize("n", [8, 20])
@pytest.mark.parametrize(("kind", "most"), [("even", 0.97), ("skewed", 0.97), ("disturbed", 0.98)])
def test_speed_ups(kind: str, most: float, n: int) -> None:
    """Where other programs disturb a quarter of only eight rounds, the interval errs on the safe side (97.4%)."""
    rng = np.random.default_rng(n)
    found = [time_ratio(*rounds(rng, n, kind)) for _ in range(3 * STUDIES)]
    assert 0.93 <= np.mean([one.low <= 2 <= one.high for one in found]) <= most


def equal_cost_study(rng: np.random.Generator, n: int, r: int, slope: float) -> Estimate:
    """Rows at 0.4 and 0.6 of full, a method at 0.5; true scores lie ``slope`` apart, the method just on the line."""
    shared = rng.exponential(size=(n, 1))
    values = shared + rng.normal(0, 0.5, (n, 3)) + np.array([0.0, slope, slope / 2])
    drift = np.exp(np.cumsum(rng.normal(0, 0.02, r)))
    shares = {"full": 1.0, "8": 0.4, "12": 0.6, "fast": 0.5}
    times = {k: dict(enumerate(share * drift * np.exp(rng.normal(0, 0.02, r)))) for k, share in shares.items()}
    found = relative_costs(times, "full", resamples=1000)
    costs = {k: Cost(found.ratios[k].value, found.draws(k), found.logs[k].dof) for k in shares}
    units = units_of(values)
    mixture = mix(costs["fast"], [costs["8"], costs["12"]])
    return advantage(units, units.draws(1000), 2, [0, 1], mixture, costs["fast"].dof, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.1, 1.0, 4.0])
def test_equal_cost_with_uncertain_time(slope: float) -> None:
    """From hardly any influence of the time (slope 0.1) to nothing but it (4.0)."""
    rng = np.random.default_rng(int(10 * slope))
    found = tuple(equal_cost_study(rng, 64, 8, slope) for _ in range(STUDIES))
    assert 0.93 <= covered(found) <= 0.97
