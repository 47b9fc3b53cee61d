"""What a report says first: which methods are faster, whether they beat fewer steps at equal cost, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.results import A_A, BASELINE, Failure, Score
from harness.statistics import Interval
from harness.statistics.intervals import normal_quantile
from harness.storage.records import Run
from reports.analysis.answers import LEVEL, Answer, Outcome, Ruling, Rung, answers, provisional
from reports.analysis.compare import Difference, compare_within, is_constant, judged
from reports.analysis.evidence import BLOCKS, evidence_of
from reports.analysis.roles import role_of
from reports.analysis.select import method_order, metric_order, peak_memory, plain_pipeline, record_of, same_round_ratio, score_of
from reports.analysis.upfront_cost import ledger_row
from reports.analysis.verdicts import Standing, Trial, trials

# The plot's metric: a preference model where there is one, then how well the prompt is met, then fidelity, then distributions.
PREFERRED = ("image_reward", "hpsv3", "hpsv2", "pickscore", "vqa_score", "clip_score", "clip_iqa", "lpips", "psnr", "ssim", "fid")
FOUND = 0.8  # the share of runs of the estimated size that would find the difference
MOST_IMAGES = 1_000_000  # beyond this an estimate of the images needed says only that the difference is next to nothing


@dataclass(frozen=True)
class Contrast:
    """One score of one method: less the full run's, and less that of fewer steps at its cost, as the verdict takes them."""

    metric: str
    to_full: Difference | None
    to_rival: Difference | None
    rival: tuple[Rung, ...]


@dataclass(frozen=True)
class Line:
    """One method of the overview.

    ``speed_up`` over the full run, in seconds where the run was timed, else in block evaluations. ``memory_bytes`` is the
    peak, ``training_s`` and ``calibration_s`` are device-seconds; None where nothing was spent or recorded.
    """

    label: str
    speed_up: Interval | None
    answer: Answer | None
    contrasts: tuple[Contrast, ...]
    memory_bytes: int | None
    training_s: float | None
    calibration_s: float | None
    is_plain: bool

    @property
    def rival(self) -> tuple[Rung, ...]:
        """Fewer steps at equal cost in the plot's metric; empty where the question is not asked."""
        return self.contrasts[0].rival if self.contrasts else ()


@dataclass(frozen=True)
class Overview:
    """The first screen as data. ``metric`` is None where nothing was scored; ``lines`` are sorted, the fastest first."""

    metric: str | None
    shown: tuple[str, ...]
    lines: tuple[Line, ...]
    timed: bool
    provisional: str

    @property
    def accelerators(self) -> tuple[Line, ...]:
        """The lines that the question is asked of."""
        return tuple(line for line in self.lines if line.answer is not None)

    @property
    def faster(self) -> tuple[Line, ...]:
        """The lines with a speed-up above 1, the fastest first."""
        return tuple(line for line in self.lines if line.speed_up and line.speed_up.value > 1)


def overview(run: Run) -> Overview:
    """Every method that ran or was asked for, the full run among them."""
    evidence, metric = evidence_of(run), main_metric(run)
    shown = main_metrics(run, metric)
    found = {answer.label: answer for answer in answers(run)}
    lines = [_line(run, label, found.get(label), shown) for label in method_order(run) if label != A_A]
    lines.sort(key=lambda line: -line.speed_up.value if line.speed_up else math.inf)
    timed = evidence.times is not None
    unit = next(iter(found.values())).unit if found else BLOCKS
    return Overview(metric, shown, tuple(lines), timed, provisional(run, unit))


def main_metric(run: Run) -> str | None:
    """The metric of the large plot: the first of PREFERRED that the full run has and that sees the loss of five steps.

    Where none is known to see it, the first that was scored. None where nothing was.
    """
    scored = [metric for metric in metric_order(run) if isinstance(score_of(run, BASELINE, metric), Score)]
    seen = trials(run).sensitivity
    ranked = sorted(scored, key=lambda metric: PREFERRED.index(metric) if metric in PREFERRED else len(PREFERRED))
    return next((metric for metric in ranked if not seen[metric].insensitive), ranked[0] if ranked else None)


def main_metrics(run: Run, first: str | None) -> tuple[str, ...]:
    """The scores of the overview's table: the plot's, and the first one of another role (fidelity, distribution)."""
    if first is None:
        return ()
    seen = trials(run).sensitivity
    others = [m for m in metric_order(run) if role_of(m) != role_of(first) and not (m in seen and seen[m].insensitive)]
    scored = [m for m in others if any(isinstance(score_of(run, label, m), Score) for label in run.records)]
    return (first, *scored[:1])


def speed_up(run: Run, label: str) -> Interval | None:
    """How many times as fast as the full run: in seconds with its interval, else in counted block evaluations."""
    evidence = evidence_of(run)
    if evidence.times is not None:
        return Interval(1.0, 1.0, 1.0) if label == BASELINE else same_round_ratio(run, BASELINE, label)
    costs = evidence.costs(BLOCKS)
    if label not in costs or BASELINE not in costs or costs[label].value <= 0:
        return None
    ratio = costs[BASELINE].value / costs[label].value
    return Interval(ratio, ratio, ratio)


@dataclass(frozen=True)
class Lossless:
    """The fastest method without a measurable loss of quality against the full run, or what comes nearest to it.

    ``shown``: in every score that can see a loss it is shown not to be inferior; else only no loss was found. Distances to
    the full run's images do not count: an image that differs need not be worse. ``lost``: which of its ``asked`` scores have a
    loss; ``small``: each of these losses is shown to be within the margin. ``faster``: the faster ones that come less near.
    """

    line: Line
    shown: bool
    small: bool
    lost: tuple[str, ...]
    asked: int
    faster: tuple[Lossless, ...] = ()

    @property
    def rank(self) -> int:
        """The less, the better: not inferior in every score, no loss found, small losses only, few losses."""
        return 0 if self.shown else 1 if not self.lost else 2 if self.small else 2 + len(self.lost)


def lossless(run: Run, found: Overview) -> Lossless | None:
    """The fastest of the best :attr:`Lossless.rank`; None where no faster method has a score that could show a loss."""
    tested: dict[str, list[Trial]] = {}
    for trial in trials(run).rows:
        if trial.gain is not None and trial.standing is not Standing.INSENSITIVE and not _is_distance(run, trial.metric):
            tested.setdefault(trial.method, []).append(trial)
    asked = [_lossless(line, tested[line.label]) for line in found.faster if line.label in tested]
    best = min(asked, key=lambda one: one.rank, default=None)
    return replace(best, faster=tuple(asked[: asked.index(best)])) if best else None


def _lossless(line: Line, tested: Sequence[Trial]) -> Lossless:
    passing = {Standing.NON_INFERIOR, Standing.SUPERIOR}
    lost = [trial for trial in tested if _lost(trial)]
    shown, small = (all(trial.standing in passing for trial in some) for some in (tested, lost))
    return Lossless(line, shown, small, tuple(trial.metric for trial in lost), len(tested))


def _is_distance(run: Run, metric: str) -> bool:
    """To the full run's images: by its name, or because the full run's own are all the same."""
    full = score_of(run, BASELINE, metric)
    return role_of(metric) == "fidelity" or (isinstance(full, Score) and is_constant(full))


def _lost(trial: Trial) -> bool:
    """As the table marks it: the paired 95% interval of the difference, by itself, has a loss only."""
    return trial.gain is not None and trial.gain.high < 0


def _line(run: Run, label: str, answer: Answer | None, shown: Sequence[str]) -> Line:
    spent = ledger_row(run, label) if record_of(run, label) is not None else None
    return Line(
        label,
        speed_up(run, label),
        answer,
        tuple(_contrast(run, label, answer, metric) for metric in shown),
        peak_memory(run, label),
        spent.training_s if spent else None,
        spent.calibration_s if spent else None,
        label == BASELINE or plain_pipeline(run, label) is not None,
    )


def _contrast(run: Run, label: str, answer: Answer | None, metric: str) -> Contrast:
    to_full = compare_within(evidence_of(run), label, BASELINE, metric) if label != BASELINE else None
    ruling = answer.rulings[metric] if answer else Ruling(Outcome.NOT_MEASURED)
    return Contrast(metric, to_full, to_rival(run, label, metric, ruling), ruling.rival)


def to_rival(run: Run, label: str, metric: str, ruling: Ruling) -> Difference | None:
    """A ruling's advantage as a difference in the metric's own unit; None where there is none."""
    score = score_of(run, label, metric)
    if ruling.advantage is None or isinstance(score, Failure):
        return None
    return judged(score, ruling.advantage if score.direction == "higher" else -ruling.advantage)


def images_needed(run: Run, answer: Answer, tests: int) -> tuple[str, int] | None:
    """The open metric that comes nearest to a decision, and the images that would find a difference of the size measured.

    At the 5% level over all ``tests`` questions of the page with 80% power; None where the answer is decided, and where the
    difference is next to nothing.
    """
    needs, errors = [], float(normal_quantile(1 - LEVEL / (2 * max(tests, 1))) + normal_quantile(FOUND))
    for metric, ruling in answer.rulings.items():
        found, score = ruling.advantage, score_of(run, answer.label, metric)
        if ruling.outcome is not Outcome.CANNOT_TELL or found is None or not isinstance(score, Score) or found.value == 0:
            continue
        images = score.n * (errors * found.standard_error / found.value) ** 2
        if math.isfinite(images) and images <= MOST_IMAGES:
            needs.append((max(images, score.n + 1), metric))
    return (min(needs)[1], math.ceil(min(needs)[0])) if needs else None
