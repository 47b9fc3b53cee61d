"""A run's measurements as matrices, read once: what every comparison between its methods is computed from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from harness.results import A_A, BASELINE, FloatArray, Score
from harness.statistics import RESAMPLES, Estimate, Interval, group_by
from harness.statistics.curves import Cost
from harness.statistics.intervals import finite
from harness.statistics.means import accelerated
from harness.statistics.resampling import Groups, Units, units_of
from harness.statistics.rounds import RelativeCosts, relative_costs
from harness.storage.records import Run
from reports.analysis.select import Plain, method_order, metric_order, plain_pipeline, rounds_of, samples_of

SECONDS, BLOCKS = "seconds per image", "block evaluations per image"
Kind = tuple[str, int]  # fingerprint and number of images: scores of one kind may be subtracted


@dataclass(frozen=True)
class Panel:
    """Scores of one metric that may be subtracted from one another: a column per method, a row per image."""

    labels: tuple[str, ...]
    values: FloatArray
    groups: Groups | None

    @cached_property
    def units(self) -> Units:
        """The columns as units to resample."""
        return units_of(finite(self.values, "per-image values"), self.groups)

    @cached_property
    def draws(self) -> FloatArray:
        """Centred bootstrap draws of every column's mean [B, M], paired across methods and metrics."""
        return self.units.draws() if self.units.n > 1 else np.zeros((RESAMPLES, len(self.labels)))

    @cached_property
    def columns(self) -> Mapping[str, int]:
        """Where each method stands."""
        return {label: i for i, label in enumerate(self.labels)}

    @cached_property
    def _contrasts(self) -> dict[tuple[tuple[tuple[str, float], ...], float], Estimate]:
        return {}

    def contrast(self, weights: Mapping[str, float], shift: float = 0.0) -> Estimate:
        """The estimate of a weighted sum of methods' mean scores plus ``shift``, paired over images and shared draws.

        Computed once: every part of a report asks for the same few differences.
        """
        asked = tuple(weights.items()), shift
        if asked not in self._contrasts:
            self._contrasts[asked] = self._contrast(weights, shift)
        return self._contrasts[asked]

    def _contrast(self, weights: Mapping[str, float], shift: float) -> Estimate:
        chosen, factors = [self.columns[label] for label in weights], np.array(list(weights.values()))
        sums = _without_rounding(self.units.sums[:, chosen], factors)
        one = Units(np.zeros(1), sums[:, None], self.units.sizes)
        value = float(self.units.means[chosen] @ factors) + shift
        error, skew = float(one.standard_errors[0]), float(one.accelerations[0])
        return accelerated(self.draws[:, chosen] @ factors, value, error, skew, self.units.n)


class Evidence:
    """Lazily prepared matrices of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._panels: dict[tuple[str, Kind], Panel] = {}

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Every metric asked for or scored, in report order."""
        return tuple(metric_order(self.run))

    @cached_property
    def plain(self) -> Mapping[str, Plain]:
        """The full run, fewer steps and other solvers: the rows that an accelerator is held against."""
        found = {label: plain_pipeline(self.run, label) for label in method_order(self.run)}
        return {label: plain for label, plain in found.items() if plain is not None}

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """The prompt of each image, from the first manifest there is; empty where no samples were kept."""
        found = (samples_of(self.run, label) for label in method_order(self.run))
        return next((tuple(sample.prompt for sample in samples) for samples in found if samples), ())

    def groups(self, n: int) -> Groups | None:
        """Which prompt each of n images belongs to; None where images are the units.

        Classes are no sample of all classes, as captions are of captions: the images of a class-to-image run are units
        whatever their class. So are images whose prompts were not kept.
        """
        if self.run.spec.get("task") == "class" or len(self.prompts) != n:
            return None
        return group_by(self.prompts)

    def panel(self, score: Score) -> Panel:
        """Every score of this one's metric, fingerprint and N. Constants that a metric compares with are left out."""
        key = (score.metric, comparability(score))
        if key not in self._panels:
            alike = [s for s in self._scores.get(score.metric, ()) if comparability(s) == key[1]]
            values = np.column_stack([np.asarray(s.influence, np.float64) for s in alike])
            self._panels[key] = Panel(tuple(s.method for s in alike), values, self.groups(score.n))
        return self._panels[key]

    @cached_property
    def _scores(self) -> Mapping[str, list[Score]]:
        found: dict[str, list[Score]] = {}
        for score in self.run.scores.values():
            if isinstance(score, Score):
                found.setdefault(score.metric, []).append(score)
        return found

    @cached_property
    def times(self) -> RelativeCosts | None:
        """Seconds of each method as shares of the full run's; None where the full run was not timed."""
        times = {label: rounds_of(self.run, label) for label in (*method_order(self.run), A_A)}
        timed = {label: rounds for label, rounds in times.items() if rounds}
        return relative_costs(timed, BASELINE) if BASELINE in timed else None

    @cached_property
    def full_seconds(self) -> float:
        """Median seconds per image of the full run."""
        return float(np.median(list(rounds_of(self.run, BASELINE).values())))

    def costs(self, unit: str) -> dict[str, Cost]:
        """What each method costs: counted block evaluations, or seconds with draws over the rounds."""
        if unit == BLOCKS:
            counted = {m.label: float(m.block_evaluations) for m in self.run.methods if m.block_evaluations is not None}
            return {label: Cost(blocks, np.array([blocks]), math.inf) for label, blocks in counted.items()}
        if self.times is None:
            return {}
        full, times = self.full_seconds, self.times
        return {
            label: Cost(full * ratio.value, full * times.draws(label), times.logs[label].dof if label != BASELINE else math.inf)
            for label, ratio in times.ratios.items()
            if label != A_A
        }

    def cost_interval(self, label: str, unit: str) -> Interval:
        """The cost with its interval: of no width where it was counted; relative to the full run's median where timed."""
        if unit == SECONDS and self.times is not None:
            ratio = self.times.ratios[label]
            return Interval(*(self.full_seconds * bound for bound in (ratio.value, ratio.low, ratio.high)))
        value = self.costs(unit)[label].value
        return Interval(value, value, value)


def _without_rounding(sums: FloatArray, factors: FloatArray) -> FloatArray:
    """The weighted sum of columns [G, K]; where it is only the rounding error of its terms, 0."""
    total: FloatArray = sums @ factors
    return np.zeros_like(total) if np.abs(total).max() <= 1e-12 * np.abs(sums * factors).max() else total


def comparability(score: Score) -> Kind:
    """What must agree between two scores before they may be subtracted, besides the metric."""
    return json.dumps(dict(score.fingerprint), sort_keys=True), score.n


@lru_cache(maxsize=2)
def evidence_of(run: Run) -> Evidence:
    """The evidence of a run; asked for again, the same one with all that it has computed."""
    return Evidence(run)
