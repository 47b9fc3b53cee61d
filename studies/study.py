"""A run of the ILF study, read for its tables: costs, errors to the converged sample, scores, and which rows are of a kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.results import BASELINE, FloatArray, MethodRecord, Score
from harness.statistics import Estimate, Interval, paired_difference, time_ratio
from harness.storage.measurements import read_measurement
from harness.storage.records import Run
from reports.analysis.select import record_of, rounds_of

ILF, ADAPTER, PAPER = "ilf", "ilf-adapter", "ilf-paper"  # the bundled feedback modules
FULL20, INSENSITIVE = "20 steps", "5 steps"
SCORES = ("fid", "clip_score", "clip_iqa", "image_reward")
JUDGE = "distance_efficientnet"  # of a network that is not ours: ImageNet's, and no training here has seen it
MARGIN = 0.10  # of the drop from 20 to 5 steps


@dataclass(frozen=True)
class Row:
    """A method of a study: its cost in block evaluations per image, and errors to the converged sample."""

    label: str
    cost: float
    distance: float
    rmse: float
    speed: Interval


def next_costlier(cost: float, rivals: Iterable[tuple[float, float, str]]) -> str | None:
    """Of rivals' costs, errors and names: the one with the least error among the cheapest that cost at least ``cost``."""
    return min((rival for rival in rivals if rival[0] >= cost), default=(0.0, 0.0, None))[2]


def less_error(ours: FloatArray, theirs: FloatArray) -> Estimate:
    """By how much of the rival's mean error [N] ours is lower (1: no error left); paired over images."""
    return paired_difference(1 - ours / theirs.mean(), 1 - theirs / theirs.mean())


class Study:
    """One model's run. Errors are a feature distance and a pixel RMSE (0..255) to the converged sample of the same noise."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.labels = [record.label for record in run.methods if record.label != BASELINE]  # that is the reference itself

    def images(self, label: str, metric: str) -> FloatArray:
        """One value an image [N]; ``rmse`` is made of the squared errors that PSNR measured."""
        if metric == "rmse":
            squared = read_measurement(self.run.path, label, "psnr")
            if squared is None:
                raise SystemExit(f"{label}: no squared errors in {self.run.path}")
            return 255 * np.sqrt(squared[:, 0])
        score = self.run.scores[(label, metric)]
        if not isinstance(score, Score):
            raise SystemExit(f"{label}: {metric} could not be measured: {score.reason}")
        return score.influence

    def record(self, label: str) -> MethodRecord:
        """What a method is."""
        return self.run.records[label]

    def cost(self, label: str) -> float:
        """Block evaluations an image, counted."""
        record = record_of(self.run, label)
        assert record is not None and record.block_evaluations is not None
        return record.block_evaluations

    def speed(self, label: str) -> Interval:
        """How many times faster than the pipeline's 20 steps, over interleaved rounds."""
        return self.against(label, FULL20)

    def row(self, label: str) -> Row:
        """Everything of one method."""
        distance, rmse = (float(self.images(label, name).mean()) for name in ("feature_distance", "rmse"))
        return Row(label, self.cost(label), distance, rmse, self.speed(label))

    def next_rival(self, label: str, rivals: list[str]) -> str | None:
        """The best of the cheapest rivals that cost at least as much."""
        return next_costlier(
            self.cost(label), [(self.cost(r), float(self.images(r, "feature_distance").mean()), r) for r in rivals]
        )

    def lower(self, label: str, rival: str, metric: str) -> Estimate:
        """By how much of the rival's mean error this method's is lower (1: no error left); paired over images."""
        return less_error(self.images(label, metric), self.images(rival, metric))

    def worse(self, label: str, against: str, metric: str) -> Estimate:
        """How much worse a score is: positive means worse, whatever the metric's direction."""
        score = self.run.scores[(label, metric)]
        assert isinstance(score, Score)
        sign = -1.0 if score.direction == "higher" else 1.0
        return paired_difference(sign * self.images(label, metric), sign * self.images(against, metric))

    @cached_property
    def margins(self) -> dict[str, float]:
        """A tenth of the drop from 20 to 5 steps, for each score that can see that drop."""
        drops = {name: self.worse(INSENSITIVE, FULL20, name) for name in SCORES}
        return {name: MARGIN * drop.value for name, drop in drops.items() if drop.low > MARGIN * drop.value > 0}

    def trained(self) -> list[str]:
        """Rows of trained modules, on the steps that they were trained for."""
        found = {x: self.record(x) for x in self.labels}
        return [x for x, record in found.items() if checkpoint_of(record) not in ("", ILF) or is_as_trained(record)]

    def worse_scores(self, label: str, rival: str) -> list[str]:
        """Scores that are worse than the rival's, the interval excluding zero."""
        return [name for name in SCORES if self.worse(label, rival, name).low > 0]

    def beyond_margin(self, label: str, rival: str) -> list[str]:
        """Scores that are not shown non-inferior to the rival's; those too insensitive to have a margin do not count."""
        return [name for name, margin in self.margins.items() if self.worse(label, rival, name).high > margin]

    def loses_nothing(self, label: str) -> tuple[list[str], bool]:
        """Scores that are not shown non-inferior to 20 steps, and whether no error is larger than theirs."""
        compared = ("feature_distance", "rmse", JUDGE)
        errors = all(self.images(label, m).mean() <= self.images(FULL20, m).mean() for m in compared)
        return self.beyond_margin(label, FULL20), errors

    def fastest(self, labels: list[str]) -> str | None:
        """The fastest of those that lose nothing measurable."""
        passing = [label for label in labels if self.loses_nothing(label) == ([], True)]
        return max(passing, key=lambda label: self.speed(label).value, default=None)

    def against(self, label: str, rival: str) -> Interval:
        """How many times faster than a rival, over interleaved rounds."""
        ours, theirs = rounds_of(self.run, label), rounds_of(self.run, rival)
        shared = sorted(set(ours) & set(theirs))
        return time_ratio(np.array([theirs[r] for r in shared]), np.array([ours[r] for r in shared]))


def standard(study: Study) -> list[str]:
    """The pipeline with fewer steps on its usual timesteps, with three solvers."""
    return [x for x in study.labels if x != FULL20 and study.record(x).is_plain and not study.record(x).spacing]


def spaced(study: Study) -> list[str]:
    """The pipeline with fewer steps on timesteps spaced as ILF's."""
    return [x for x in study.labels if study.record(x).is_plain and study.record(x).spacing]


def reused(study: Study) -> list[str]:
    """Spaced timesteps on some of which one guidance branch runs alone."""
    return [x for x in study.labels if study.record(x).family == "guidance-reuse" and study.record(x).spacing]


def caches(study: Study) -> list[str]:
    """20 steps with a cache."""
    known = study.record(FULL20).steps
    return [x for x in study.labels if "less work per step" in study.record(x).kinds and study.record(x).steps == known]


def modules(study: Study, checkpoint: str) -> list[str]:
    """A trained module of this name, with the steps that it was trained for."""
    return [x for x in study.trained() if checkpoint_of(study.record(x)) == checkpoint]


def ours(study: Study) -> list[str]:
    """ILF with the steps that it was trained for."""
    return modules(study, ILF)


def adapters(study: Study) -> list[str]:
    """The same without a second pass."""
    return modules(study, ADAPTER)


def learned(study: Study) -> list[str]:
    """Solvers learned end to end, without any module."""
    return [x for x in study.labels if study.record(x).family == "bespoke"]


def is_as_trained(record: MethodRecord) -> bool:
    """Whether a method runs a feedback module on the steps that it was trained for."""
    return bool(checkpoint_of(record)) and not feedback_of(record)


def checkpoint_of(record: MethodRecord) -> str:
    """The name of the feedback module that a method runs; empty where it runs none."""
    chosen = [str(part.options.get("checkpoint") or ILF) for part in record.parts if part.name == ILF]
    return next(iter(chosen), "")


def feedback_of(record: MethodRecord) -> str:
    """On which steps a feedback module loops, where that is not as it was trained; else empty."""
    return next((str(part.options.get("feedback") or "") for part in record.parts if part.name == ILF), "")
