"""What the reports pick out of a run: rounds, costs, metric order, prompts, and which methods are fewer-steps rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.results import A_A, BASELINE, Failure, FloatArray, MethodRecord, Score, TimingSample
from harness.statistics import Interval, time_ratio
from harness.storage.checks import check_manifest
from harness.storage.layout import Layout
from harness.storage.locations import inside
from harness.storage.records import Run, read_json

LEAST_ROUNDS = 3  # for an interval that says anything
STAGES = ("text", "denoise", "decode", "copy")
TIMING = "timing"  # what a failure to time is filed under; at a further batch size, _batch_ and the size follow

LAUNCHES = "at batch 1 a GPU often waits for Python to launch its kernels: such times measure the launches as much as the method"


@dataclass(frozen=True)
class Sample:
    """One generated image as its manifest lists it."""

    index: int
    prompt: str
    path: Path


def rounds_of(run: Run, label: str, quantity: str = "latency_s") -> dict[int, float]:
    """Seconds per image of one method in each interleaved round, end to end or of one stage; empty where it was never timed."""
    return {t.round: getattr(t, quantity) / t.batch for t in run.timings_of.get(label, ())}


def seconds_per_image(run: Run, label: str) -> FloatArray:
    """Seconds per image [R], in round order."""
    return np.array(list(rounds_of(run, label).values()), dtype=np.float64)


def stage_seconds(run: Run, label: str) -> dict[str, float]:
    """Median seconds per image of each stage over the rounds; empty where the method was never timed."""
    mine = run.timings_of.get(label, ())
    if not mine:
        return {}
    values = {stage: [getattr(t, f"{stage}_s") / t.batch for t in mine] for stage in STAGES}
    return {stage: float(np.median(values[stage])) for stage in STAGES}


def beside_denoising(run: Run) -> float | None:
    """The share of the full run's time that is none of the denoiser's: text, decoding, copying; None where it was not timed."""
    stages = stage_seconds(run, BASELINE)
    total = sum(stages.values())
    return 1 - stages["denoise"] / total if total > 0 else None


def energy_per_image(run: Run, label: str) -> float | None:
    """Median joules per image that the GPU took over the rounds; None where no round knew them."""
    known = [t.energy_j / t.batch for t in run.timings_of.get(label, ()) if t.energy_j is not None]
    return float(np.median(known)) if known else None


def same_round_ratio(run: Run, numerator: str, denominator: str, quantity: str = "latency_s") -> Interval | None:
    """How many times as long the numerator takes, over the rounds that timed both; None where there is no such round."""
    above, below = rounds_of(run, numerator, quantity), rounds_of(run, denominator, quantity)
    shared = sorted(r for r in above.keys() & below.keys() if above[r] > 0 and below[r] > 0)
    if not shared:
        return None
    return time_ratio(np.array([above[r] for r in shared]), np.array([below[r] for r in shared]))


def was_timed(run: Run, label: str, batch: int) -> bool:
    """Whether a method was timed at a further batch size."""
    return any(sample.method == label and sample.batch == batch for sample in run.other_batches)


def throttled_calls(calls: Sequence[TimingSample]) -> int | None:
    """How many calls were made while the device held its clock down; None where no clock was watched."""
    watched = [sample for sample in calls if sample.clock_mhz is not None or sample.throttled]
    return sum(bool(sample.throttled) for sample in watched) if watched else None


def noise_spread(run: Run) -> float | None:
    """How far two timings of the same thing differ, as a share: the widest end of the A/A ratio's interval, less 1.

    None where nobody knows: below three rounds the interval of a ratio is a hundred times as wide as it is itself, or infinite.
    """
    ratio = same_round_ratio(run, A_A, BASELINE) if len(rounds_of(run, A_A)) >= LEAST_ROUNDS else None
    return None if ratio is None else max(abs(ratio.low - 1), abs(ratio.high - 1), abs(ratio.value - 1))


def peak_memory(run: Run, label: str) -> int | None:
    """The highest peak memory in bytes over the rounds; None where no round recorded any."""
    peaks = [t.peak_memory_bytes for t in run.timings_of.get(label, ()) if t.peak_memory_bytes > 0]
    return max(peaks) if peaks else None


def method_order(run: Run) -> list[str]:
    """Every method asked for or recorded, failed ones too, in the order of the spec."""
    asked = [str(label) for label in run.spec["method_labels"]]
    seen = [m.label for m in run.methods] + [f.method for f in run.failed_methods]
    return list(dict.fromkeys([*asked, *seen]))


def metric_order(run: Run) -> list[str]:
    """Every metric asked for or scored, in the order of the spec. A failure of the timing lies among the scores and is none."""
    scored = (metric for _, metric in run.scores if not is_timing(metric))
    return list(dict.fromkeys([*map(str, run.spec["metrics"]), *scored]))


def is_timing(metric: str) -> bool:
    """Whether what looks like a metric's name is that under which a failure to time was recorded."""
    return metric == TIMING or metric.startswith(f"{TIMING}_batch_")


def untimed(run: Run, label: str, batch: int | None = None) -> str:
    """Why a method has no times at the batch size that methods are compared at, or at a further one."""
    if record_of(run, label) is None:
        return _unrecorded(run, label)
    found = run.scores.get((label, TIMING if batch is None else f"{TIMING}_batch_{batch}"))
    return found.reason if isinstance(found, Failure) else "not timed in this run"


def record_of(run: Run, label: str) -> MethodRecord | None:
    """The record of one method, or None where it failed or never ran."""
    return run.records.get(label)


def failure_of(run: Run, label: str) -> str:
    """Why a method has no record."""
    if reasons := _reasons(run, label):
        return "; ".join(reasons)
    asked = label in run.spec["method_labels"]
    return "never ran: the run was interrupted or is not finished" if asked else "not a method of this run"


def _reasons(run: Run, label: str) -> list[str]:
    return [failure.reason for failure in run.failed_methods if failure.method == label]


def _unrecorded(run: Run, label: str) -> str:
    return f"method failed: {failure_of(run, label)}" if _reasons(run, label) else failure_of(run, label)


def score_of(run: Run, label: str, metric: str) -> Score | Failure:
    """The score, or the failure that explains why there is none; a missing file is a failure with a reason."""
    if (label, metric) in run.scores:
        return run.scores[label, metric]
    reason = "not scored: no record in this run" if record_of(run, label) else _unrecorded(run, label)
    return Failure(label, metric, reason)


def example_score(run: Run, metric: str) -> Score | None:
    """Any score of a metric, for its title, unit and direction; None where it failed for every method."""
    return next((s for (_, name), s in run.scores.items() if name == metric and isinstance(s, Score)), None)


def has_tiny_scorers(run: Run) -> bool:
    """Whether any score came from the bundled tiny scorers."""
    return any(isinstance(s, Score) and s.tiny for s in run.scores.values())


@dataclass(frozen=True)
class Plain:
    """The plain pipeline: every block on every step of a solver. ``full`` is the one that the preset sets.

    Timesteps spaced otherwise than the preset's make another solver.
    """

    solver: str
    steps: int


def plain_pipeline(run: Run, label: str) -> Plain | None:
    """What a method, failed ones too, is where it changes only steps, solver and timesteps; None where it does more."""
    record = run.described.get(label)
    if record is None or record.steps is None or not record.is_plain:
        return None
    solver = record.solver or str(run.spec.get("solver", ""))
    return Plain(f"{solver} spaced {record.spacing}" if record.spacing else solver, record.steps)


def is_fewer_steps(run: Run, label: str) -> bool:
    """Whether a method is the plain pipeline, with the preset's own solver, at another step count."""
    plain = plain_pipeline(run, label)
    return label != BASELINE and plain is not None and plain.solver == run.spec.get("solver", "")


def accelerators(run: Run) -> list[str]:
    """Methods that are not the plain pipeline at some step count with some solver; failed ones are among them."""
    return [label for label in method_order(run) if label not in (BASELINE, A_A) and plain_pipeline(run, label) is None]


def samples_of(run: Run, label: str) -> list[Sample]:
    """The images of one method by index; empty where the run kept none. Raises :class:`ArtifactError` on a bad manifest.

    A run out of a history has none: where it says that it lay is a text, and not looked up.
    """
    folder = Layout(run.path).samples(label)
    if not run.in_folder or not folder.manifest.exists():
        return []
    manifest = read_json(folder.manifest)
    check_manifest(manifest, folder.manifest)
    found = [Sample(s["index"], s["prompt"], inside(folder.path, s["file"])) for s in manifest["samples"]]
    return sorted(found, key=lambda sample: sample.index)


def run_notes(run: Run) -> list[str]:
    """What a reader must know beside the numbers: random weights, a replaced scheduler, prompts that were cut, launches."""
    recorded = run.environment.get("notes")
    notes = [str(note) for note in recorded] if isinstance(recorded, list | tuple) else []
    busy = run.environment.get("busy")
    if isinstance(busy, list | tuple) and busy and run.timings:
        notes.append(f"the machine was busy when this run was measured, so times are disturbed: {'; '.join(map(str, busy))}")
    on_gpu = str(run.environment.get("device", "")).startswith("cuda")
    if on_gpu and any(sample.batch == 1 for sample in (*run.timings, *run.other_batches)):
        notes.append(LAUNCHES)
    scores = [f"{score.title}: {score.note}" for score in run.scores.values() if isinstance(score, Score) and score.note]
    return list(dict.fromkeys([*notes, *scores]))
