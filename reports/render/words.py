"""The sentences of a report: the answer in plain words, the warnings, and how it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.results import A_A, BASELINE, Failure
from harness.statistics import Interval
from harness.storage.records import Run
from harness.text import without_credentials
from reports.analysis.answers import Answer, Outcome, Rung, answers
from reports.analysis.disagreement import disagreements
from reports.analysis.evidence import BLOCKS, SECONDS
from reports.analysis.select import (
    beside_denoising,
    example_score,
    failure_of,
    method_order,
    metric_order,
    noise_spread,
    record_of,
    run_notes,
    same_round_ratio,
    score_of,
    seconds_per_image,
    throttled_calls,
    untimed,
    was_timed,
)
from reports.analysis.verdicts import ANCHOR_STEPS, trials
from reports.format import count, interval_text, number

NAMES = {
    "code": "Digest of the code",
    "cpu_capability": "CPU instructions",
    "cpu_count": "CPU cores",
    "machine_key": "Machine key",
    "precision": "Precision in use",
    "weights": "Digest of the weights",
    "weights_dtype": "Dtype of the weights",
}
PACKAGES = {"diffusers", "ilf-bench", "numpy", "torch", "torchmetrics", "transformers"}
LEAST_SHARE = 0.005  # of the full run: less bounds no method
TINY_WARNING = "tiny scorers bundled with ilf-bench: comparable within this report only, not with published numbers"


def title_of(run: Run, metric: str) -> str:
    """A metric's title, or its name where nothing was scored."""
    example = example_score(run, metric)
    return example.title if example else metric


def answer_sentences(run: Run) -> list[str]:
    """Some sentences for each accelerator; one that says so where there is none.

    The answer is for equal seconds where the run was timed; where equal block evaluations say otherwise, that is added.
    """
    found = answers(run)
    if not found:
        return [
            "This run has no accelerator in it, only step counts and solvers, so there is nothing to compare with fewer steps."
        ]
    counted = {answer.label: answer for answer in answers(run, BLOCKS)}
    return [f"{answer.label}: {answer.text}. {explain(run, answer)}{_otherwise(run, answer, counted)}" for answer in found]


def _otherwise(run: Run, answer: Answer, counted: Mapping[str, Answer]) -> str:
    other = counted[answer.label]
    if other.unit == answer.unit or other.cost is None or other.headline == answer.headline:
        return ""
    return f" At equal block evaluations: {other.headline}. {explain(run, other)}"


def explain(run: Run, answer: Answer) -> str:
    """The reasoning behind :attr:`Answer.headline`: cost, rival, and what each metric says."""
    tally = f": {_tally(run, answer)}" if answer.cost is not None and answer.rulings else ""
    return " ".join([f"{against_what(answer)}{tally}.", *beyond_the_curve(run, answer)])


def against_what(answer: Answer) -> str:
    """What a method costs, and its rivals of equal cost, without the full stop; or why it cannot be compared."""
    if answer.cost is None:
        return f"It cannot be compared: {answer.failure}"
    costs = f"It costs {_cost(answer.cost, answer.unit)}"
    if not answer.rulings:
        return f"{costs}; no metric was scored"
    rivals = dict.fromkeys(rival_text(ruling.rival) for ruling in answer.rulings.values() if ruling.rival)
    return f"{costs}. " + (f"Against {' or '.join(rivals)}" if rivals else "No fewer-steps row to compare with")


def beyond_the_curve(run: Run, answer: Answer) -> list[str]:
    """A sentence for each reason why a cost beyond that of every row of fewer steps decides or leaves open some metrics."""
    found: dict[str, list[str]] = {}
    for metric, ruling in answer.rulings.items():
        if answer.cost is not None and ruling.place != "within" and ruling.reason:
            found.setdefault(ruling.reason, []).append(title_of(run, metric))
    return [f"On {', '.join(titles)}, {reason}." for reason, titles in found.items()]


def rival_text(rival: Sequence[Rung]) -> str:
    """The rival of equal cost: ``8 steps``, ``8 steps for 66% of the images and 10 steps for 34%``, or nothing."""
    if len(rival) < 2:
        return "".join(rung.label for rung in rival)
    first, second = rival
    return f"{first.label} for {first.share:.0%} of the images and {second.label} for {second.share:.0%}"


def _cost(cost: Interval, unit: str) -> str:
    if unit != SECONDS:
        return f"{count(cost.value)} block evaluations per image"
    return f"{number(cost.value)} s per image [{number(cost.low)}, {number(cost.high)}]"


def _tally(run: Run, answer: Answer) -> str:
    words = {
        Outcome.YES: "better on",
        Outcome.WORSE: "worse on",
        Outcome.NO_GAIN: "not better on",
        Outcome.CANNOT_TELL: "can't tell on",
        Outcome.NOT_MEASURED: "not measured on",
    }
    found = {outcome: [title_of(run, m) for m, r in answer.rulings.items() if r.outcome is outcome] for outcome in words}
    return "; ".join(f"{text} {', '.join(found[outcome])}" for outcome, text in words.items() if found[outcome])


def sensitivity_sentences(run: Run) -> list[str]:
    """What each metric can see: the drop to five steps and the margin that follows, or why there is none."""
    sentences = []
    for metric, seen in trials(run).sensitivity.items():
        title = title_of(run, metric)
        if seen.drop is None or seen.margin is None:
            sentences.append(f"{title}: {seen.missing}.")
        elif seen.insensitive:
            sentences.append(
                f"{title}: INSENSITIVE. Its test does not reject even {ANCHOR_STEPS} steps, so passing it shows nothing."
            )
        else:
            drop = interval_text(seen.drop)
            sentences.append(f"{title}: {ANCHOR_STEPS} steps are worse than full by {drop}; margin {number(seen.margin)}.")
    return sentences


def disagreement_sentences(run: Run) -> list[str]:
    """One for each contradiction between a distance of distributions and the images' own scores, with the worst images."""
    sentences = []
    for found in disagreements(run):
        better, worse = (", ".join(title_of(run, m) for m in metrics) for metrics in (found.better, found.worse))
        images = ", ".join(f"{loser.index} ({loser.prompt})" if loser.prompt else str(loser.index) for loser in found.worst[:5])
        sentences.append(
            f"{found.method} against {found.rival}: better on {better}, worse on {worse}. Images that lost most: {images}."
        )
    return sentences


def facts(run: Run) -> list[tuple[str, str]]:
    """Name and value of everything that shaped the numbers, in reading order."""
    spec, env = run.spec, run.environment
    timing = spec.get("timing", {})
    version = f"none; ilf-bench {env['ilf-bench']}" if env.get("ilf-bench") else "not recorded"
    commit = str(env.get("commit") or version) + (" with uncommitted changes" if env.get("dirty") else "")
    machine = [str(env[key]) for key in ("device_name", "device") if env.get(key)]
    rows = [
        ("Preset", f"{spec['name']} (specification {spec.get('digest', 'without digest')})"),
        ("Pipeline", str(spec.get("pipeline", "not recorded"))),
        ("Device", ", ".join(machine) or "not recorded"),
        ("Precision", str(spec.get("precision", "not recorded"))),
        ("Solver", f"{spec.get('solver')}, {spec.get('steps')} steps, guidance {spec.get('guidance')}"),
        ("Images", f"N = {spec.get('samples')}, seed {spec.get('seed')}, prompts {spec.get('prompts')}"),
        ("Timing", f"{timing.get('rounds')} interleaved rounds of batch {_sizes(run)}, {timing.get('warmup')} untimed"),
        ("Noise floor", noise_sentence(run)),
        ("Throttling", throttle_sentence(run)),
        ("Beside denoising", stage_sentence(run)),
        ("Command", without_credentials(str(env.get("command") or "not recorded in this run"))),
        ("Commit", commit),
        ("Created", str(env.get("created") or "not recorded")),
    ]
    notes = [("Notes", "; ".join(run_notes(run)))] if run_notes(run) else []
    used = {
        "anchor",
        "anchors",
        "busy",
        "command",
        "commit",
        "created",
        "device",
        "device_name",
        "dirty",
        "image_pixels",
        "notes",
    }
    return rows + notes + [(_name_of(key), _plain(value)) for key, value in sorted(env.items()) if key not in used]


def _name_of(key: str) -> str:
    """A key of the environment record in words; names of packages stay as they are."""
    words = NAMES.get(key, key.replace("_", " "))
    return words if key in PACKAGES else words[:1].upper() + words[1:]


def _plain(value: Any) -> str:
    """A recorded value without the brackets and quotes of its record."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_plain(one)}" for key, one in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def _sizes(run: Run) -> str:
    """The batch sizes that were timed, and those of the preset where that is another one."""
    timing = run.spec.get("timing", {})
    asked = list(dict.fromkeys((timing.get("batch"), *timing.get("batches", ()))))
    timed = list(dict.fromkeys(sample.batch for sample in (*run.timings, *run.other_batches)))
    instead = f" (of {_listed(asked)} in the preset: see what was repeated)" if timed and set(timed) - set(asked) else ""
    return _listed(timed or asked) + instead


def _listed(sizes: Sequence[Any]) -> str:
    return " and ".join(map(str, sizes))


def stage_sentence(run: Run) -> str:
    """What no method that accelerates the denoiser can make shorter, and the most that it could gain end to end."""
    share = beside_denoising(run)
    if share is None:
        return "The stages were not timed."
    most = f", so that no faster denoiser gains more than {number(1 / share)}× end to end" if share >= LEAST_SHARE else ""
    return f"Text, decoding and copying take {share:.0%} of the full run{most}."


def throttle_sentence(run: Run) -> str:
    """How many timed calls ran while the device throttled its clock."""
    calls = (*run.timings, *run.other_batches)
    found = throttled_calls(calls)
    if found is None:
        return "not known: the clock was not recorded"
    reasons = ", ".join(sorted({reason for sample in calls for reason in sample.throttled.split(",") if reason}))
    return f"{found} of {len(calls)} timed calls ran while the device throttled its clock{f' ({reasons})' if reasons else ''}"


def noise_sentence(run: Run) -> str:
    """The A/A spread in words."""
    spread = noise_spread(run)
    if spread is None and same_round_ratio(run, A_A, BASELINE) is None:
        return "not measured: full was not timed twice in one round"
    if spread is None:
        return "not known: too few timing rounds"
    return f"full timed twice in each round differs by up to {spread:.1%}; a smaller difference in speed is noise"


def failures(run: Run) -> list[tuple[str, str, str]]:
    """(method, what, reason) of everything that has no number, in table order."""
    found = []
    for label in method_order(run):
        if record_of(run, label) is None:
            found.append((label, "method", failure_of(run, label)))
            continue
        if not len(seconds_per_image(run, label)):
            found.append((label, "timing", untimed(run, label)))
        batches = sorted({int(size) for size in run.spec.get("timing", {}).get("batches", ())})
        found += [(label, f"timing at batch {n}", untimed(run, label, n)) for n in batches if not was_timed(run, label, n)]
        scores = [(metric, score_of(run, label, metric)) for metric in metric_order(run)]
        found += [(label, title_of(run, metric), score.reason) for metric, score in scores if isinstance(score, Failure)]
    return found
