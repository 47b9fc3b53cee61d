"""Did a run reproduce what others published, and where does it differ from them? Shown apart, and never ranked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.config.anchors import Anchor, Protocol
from harness.errors import ArtifactError
from harness.results import BASELINE, Score
from harness.statistics import Interval, mean_interval, score_difference
from harness.storage.records import Run
from reports.analysis.published import PublishedNumber
from reports.analysis.select import same_round_ratio

TIME, SPEED_UP, COMPUTE = "latency_s", "speed_up", "tflops"  # columns of tables that are shown as ratios
ALIASES = {"dpmsolver++": "dpm++", "dpmsolvermultistepscheduler": "dpm++", "mjhq30k": "mjhq"}
Form = Literal["difference", "paired", "times as fast", "times less compute"]
Outcome = Literal["reproduced", "not reproduced", "not comparable", "no tolerance", "not measured"]


@dataclass(frozen=True)
class Disagreement:
    """A field in which a run was measured otherwise than a published number."""

    field: str
    published: str
    ours: str

    @property
    def text(self) -> str:
        """For example ``n: 5000 there, 256 here``."""
        return f"{self.field}: {self.published} there, {self.ours} here"


@dataclass(frozen=True)
class Reproduction:
    """What became of one anchor. ``measured`` is the full run's score times the anchor's factor, with its 95% interval."""

    anchor: Anchor
    outcome: Outcome
    measured: Interval | None
    disagreements: tuple[Disagreement, ...]
    reason: str = ""


@dataclass(frozen=True)
class Beside:
    """A published difference to its own table's baseline, and the measured one of the method here that does the same.

    Differences are in the table's unit; times and compute are shown as ratios; a paired number is a distance to the baseline's
    images as it stands. ``label`` names that method, None where this run has none; ``ours`` is None where it was not measured.
    """

    number: PublishedNumber
    published: float
    label: str | None
    ours: Interval | None
    form: Form
    disagreements: tuple[Disagreement, ...]


def reproductions(run: Run, anchors: Sequence[Anchor]) -> list[Reproduction]:
    """Each anchor against the run's full run."""
    return [_reproduction(run, anchor) for anchor in anchors]


def _reproduction(run: Run, anchor: Anchor) -> Reproduction:
    score = run.scores.get((BASELINE, anchor.metric))
    if not isinstance(score, Score):
        reason = f"{anchor.metric} is not among the metrics of this run" if score is None else score.reason
        return Reproduction(anchor, "not measured", None, (), reason)
    measured = scaled(mean_interval(score.influence), anchor.factor)
    differing = disagreements(run, anchor, anchor.metric)
    decisive = [one for one in differing if one.field != "hardware"]
    if anchor.window is None:
        return Reproduction(anchor, "no tolerance", measured, differing)
    if decisive:
        return Reproduction(anchor, "not comparable", measured, differing)
    low, high = anchor.window
    inside = measured.low <= high and measured.high >= low
    return Reproduction(anchor, "reproduced" if inside else "not reproduced", measured, differing)


def beside(run: Run, numbers: Sequence[PublishedNumber]) -> list[Beside]:
    """Every published number but those of the baselines themselves."""
    found = []
    for number in numbers:
        if not number.is_baseline:
            label = next((m.label for m in run.methods if number.ours and number.ours in (m.spec, m.label)), None)
            ours = None if label is None else _measured(run, number, label)
            differing = disagreements(run, number.protocol, number.metric)
            found.append(Beside(number, difference(number), label, ours, form_of(number), differing))
    return found


def form_of(number: PublishedNumber) -> Form:
    """How a published number is held against its table's baseline."""
    if number.metric in (TIME, SPEED_UP):
        return "times as fast"
    if number.metric == COMPUTE:
        return "times less compute"
    return "paired" if number.paired else "difference"


def difference(number: PublishedNumber) -> float:
    """A published number's difference to its own table's baseline, in the form of :func:`form_of`."""
    if number.paired or number.baseline is None:
        return number.value
    if number.metric == SPEED_UP:
        return number.value / number.baseline
    return number.baseline / number.value if number.metric in (TIME, COMPUTE) else number.value - number.baseline


def _measured(run: Run, number: PublishedNumber, label: str) -> Interval | None:
    """Of the method here that does the same: counted block evaluations stand for compute."""
    form = form_of(number)
    if form == "times as fast":
        return same_round_ratio(run, BASELINE, label)
    if form == "times less compute":
        full, own = (run.records[name].block_evaluations if name in run.records else None for name in (BASELINE, label))
        return Interval(full / own, full / own, full / own) if full and own else None
    score = run.scores.get((label, number.metric))
    if not isinstance(score, Score):
        return None
    if form == "paired":
        return scaled(mean_interval(score.influence), number.factor)
    full_score = run.scores.get((BASELINE, number.metric))
    try:
        return scaled(score_difference(score, full_score), number.factor) if isinstance(full_score, Score) else None
    except ArtifactError:
        return None


def scaled(interval: Interval, factor: float) -> Interval:
    """An interval in another unit."""
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor)


def disagreements(run: Run, protocol: Protocol, metric: str) -> tuple[Disagreement, ...]:
    """The stated fields in which the run was measured otherwise; what the source does not state cannot disagree.

    But for the network: nobody else has the bundled tiny ones.
    """
    ours, score = protocol_of(run, metric), run.scores.get((BASELINE, metric))
    found = []
    if protocol.backbone is None and isinstance(score, Score) and score.tiny:
        found.append(Disagreement("backbone", "a published network", _shown(ours["backbone"])))
    for name, published in protocol.stated.items():
        if name == "steps" and not isinstance(protocol, Anchor):
            continue  # of the row's method, and our method beside it has its own
        if not _agrees(name, published, ours.get(name)):
            found.append(Disagreement(name, _shown(published), _shown(ours.get(name))))
    return tuple(found)


def protocol_of(run: Run, metric: str) -> dict[str, Any]:
    """How the full run was made and how one metric of it was measured."""
    score, record = run.scores.get((BASELINE, metric)), run.records.get(BASELINE)
    prompts, pixels = run.environment.get("prompts"), run.environment.get("image_pixels")
    listed = prompts if isinstance(prompts, Mapping) else {}
    return {
        "n": score.n if isinstance(score, Score) else run.spec.get("samples"),
        "prompts": listed.get("source") or run.spec.get("prompts"),
        "prompts_digest": listed.get("digest"),
        "backbone": _networks(score) if isinstance(score, Score) else None,
        "steps": record.steps if record else run.spec.get("steps"),
        "solver": (record.solver if record else "") or run.spec.get("solver"),
        "guidance": run.spec.get("guidance"),
        "resolution": math.isqrt(pixels) if isinstance(pixels, int) else None,
        "hardware": run.environment.get("device_name"),
    }


def _networks(score: Score) -> str:
    """What names the network in a score's fingerprint."""
    keys = ("extractor", "encoder", "network", "reward", "command")
    named = [score.fingerprint[key] for key in keys if key in score.fingerprint]
    return " ".join(named) + (" (tiny)" if score.tiny else "")


def _agrees(name: str, published: Any, ours: Any) -> bool:
    if ours is None:
        return False
    if isinstance(published, str):
        theirs, mine = _plain(published), _plain(str(ours))
        return theirs in mine and not (name == "backbone" and mine.endswith("tiny"))
    return bool(math.isclose(published, ours, rel_tol=1e-6))


def _plain(text: str) -> str:
    """Without spelling: lower case, letters, digits and plus signs."""
    short = re.sub(r"[^a-z0-9+]", "", text.lower())
    for alias, name in ALIASES.items():
        short = short.replace(alias, name)
    return short


def _shown(value: Any) -> str:
    return "unknown" if value is None or value == "" else f"{value:g}" if isinstance(value, float) else str(value)
