"""Where metrics contradict each other: a distance of distributions says better while the images themselves say worse.

A FID can fall because a method's mistakes happen to resemble the reference, or because its images lose detail that the feature
network does not see. So a win on it counts for little where reward and fidelity fall: the prompts that lost most show why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.results import BASELINE, FloatArray, Score
from harness.storage.records import Run
from reports.analysis.answers import Answer, Outcome, answers
from reports.analysis.evidence import Evidence, evidence_of
from reports.analysis.roles import role_of
from reports.analysis.select import score_of
from reports.analysis.verdicts import Standing, Trial, trials

WORST = 12


@dataclass(frozen=True)
class Loser:
    """One image of the method: how far it fell behind the rival on average, in standard deviations of that difference."""

    index: int
    prompt: str
    loss: float


@dataclass(frozen=True)
class Disagreement:
    """A method that is surely better on ``better`` (distances of distributions) and surely worse on ``worse``.

    ``rival`` is what both are held against: ``full``, or ``fewer steps at equal cost``. ``worst`` lists images, worst first, by
    their loss on the metrics in ``worse``; its prompts are empty where none were kept.
    """

    method: str
    rival: str
    better: tuple[str, ...]
    worse: tuple[str, ...]
    worst: tuple[Loser, ...]


def disagreements(run: Run) -> list[Disagreement]:
    """Every contradiction of a run, against the full run first. Significance is corrected over all methods and metrics."""
    evidence = evidence_of(run)
    against_full: dict[str, list[Trial]] = {}
    for row in trials(run).rows:
        against_full.setdefault(row.method, []).append(row)
    found = [_against_full(evidence, method, rows) for method, rows in against_full.items()]
    found += [_against_fewer_steps(evidence, answer) for answer in answers(run)]
    return [one for one in found if one is not None]


def _against_full(evidence: Evidence, method: str, rows: list[Trial]) -> Disagreement | None:
    better = tuple(r.metric for r in rows if r.standing is Standing.SUPERIOR)
    worse = tuple(r.metric for r in rows if r.standing is not Standing.SUPERIOR and r.p_worse is not None and r.p_worse < 0.025)
    return _found(evidence, method, BASELINE, better, worse, {metric: {BASELINE: 1.0} for metric in worse})


def _against_fewer_steps(evidence: Evidence, answer: Answer) -> Disagreement | None:
    better = tuple(metric for metric, r in answer.rulings.items() if r.outcome is Outcome.YES)
    worse = tuple(
        metric for metric, r in answer.rulings.items() if r.outcome is Outcome.WORSE and r.advantage and r.advantage.excludes_zero
    )
    rivals = {metric: {rung.label: rung.share for rung in answer.rulings[metric].rival} for metric in worse}
    return _found(evidence, answer.label, "fewer steps at equal cost", better, worse, rivals)


def _found(
    evidence: Evidence,
    method: str,
    rival: str,
    better: tuple[str, ...],
    worse: tuple[str, ...],
    rivals: dict[str, dict[str, float]],
) -> Disagreement | None:
    """A contradiction needs a distance of distributions among the better and an image's own score among the worse."""
    better = tuple(metric for metric in better if role_of(metric) == "distribution")
    worse = tuple(metric for metric in worse if role_of(metric) != "distribution")
    if not better or not worse:
        return None
    return Disagreement(method, rival, better, worse, _worst(evidence, method, {m: rivals[m] for m in worse}))


def _worst(evidence: Evidence, method: str, rivals: dict[str, dict[str, float]]) -> tuple[Loser, ...]:
    """The images that lost most, each metric's losses divided by their deviation and averaged over the metrics.

    Metrics that say nothing of a single image, or nothing finite, do not count.
    """
    losses: list[FloatArray] = []
    for metric, shares in rivals.items():
        mine, sign = _per_image(evidence.run, method, metric)
        theirs = [(share, _per_image(evidence.run, label, metric)[0]) for label, share in shares.items()]
        if mine is None or any(values is None or len(values) != len(mine) for _, values in theirs):
            continue
        loss = sign * (sum(share * values for share, values in theirs if values is not None) - mine)
        if np.isfinite(loss).all() and (not losses or len(loss) == len(losses[0])):
            losses.append(loss / (float(loss.std()) or 1.0))
    if not losses:
        return ()
    mean: FloatArray = np.mean(losses, axis=0)
    known = evidence.prompts if len(evidence.prompts) == len(mean) else ("",) * len(mean)
    return tuple(Loser(int(i), known[i], float(mean[i])) for i in np.argsort(-mean, kind="stable")[:WORST])


def _per_image(run: Run, method: str, metric: str) -> tuple[FloatArray | None, float]:
    """The images' own values, and the sign that makes larger better."""
    score = score_of(run, method, metric)
    if not isinstance(score, Score) or score.per_image is None:
        return None, 1.0
    return np.asarray(score.per_image, np.float64), 1.0 if score.direction == "higher" else -1.0
