"""The sentences of a report: the answer in plain words, the warnings, and how it was measured."""

from __future__ import annotations

from harness.contracts import BASELINE, Failure
from harness.records import Run
from reports.answers import Answer, Opponent, answers
from reports.compare import Verdict
from reports.evidence import SECONDS
from reports.format import count, number
from reports.select import (
    example_score,
    failure_of,
    method_order,
    metric_order,
    noise_spread,
    record_of,
    score_of,
    seconds_per_image,
)

TINY_WARNING = "tiny scorers bundled with ilf-bench: comparable within this report only, not with published numbers"


def title_of(run: Run, metric: str) -> str:
    """A metric's title, or its name where nothing was scored."""
    example = example_score(run, metric)
    return example.title if example else metric


def answer_sentences(run: Run) -> list[str]:
    """One or two sentences for each accelerator; one that says so where there is none."""
    found = answers(run)
    if not found:
        return [
            "This run has no accelerator in it, only step counts and solvers, so there is nothing to hold against fewer steps."
        ]
    return [f"{answer.label}: {answer.headline}. {explain(run, answer)}" for answer in found]


def explain(run: Run, answer: Answer) -> str:
    """The reasoning behind :attr:`Answer.headline`, with the costs it rests on."""
    if answer.cost is None:
        return f"It cannot be placed: {answer.failure}."
    cost = _cost(answer.cost.value, answer.unit)
    if answer.dearer is None:
        if answer.cheaper is None:
            return f"It costs {cost}, but neither the full run nor fewer steps were measured."
        last = f"{answer.cheaper.label} ({_cost(answer.cheaper.cost, answer.unit)})"
        return (
            f"It costs {cost}: more than every fewer-steps row and more than {last}. Against that: {_tally(run, answer.cheaper)}."
        )
    if not answer.dearer.differences:
        return f"It costs {cost}; no metric was scored."
    where = "the full run itself" if answer.dearer.label == BASELINE else answer.dearer.label
    beside = f"{where} ({_beside(run, answer, answer.dearer)})"
    first = f"It costs {cost}. Against the next dearer row, {beside}: {_tally(run, answer.dearer)}."
    if answer.cheaper is None:
        return first
    beside = f"{answer.cheaper.label} ({_beside(run, answer, answer.cheaper)})"
    return f"{first} Against the next cheaper, {beside}: {_tally(run, answer.cheaper)}."


def _beside(run: Run, answer: Answer, opponent: Opponent) -> str:
    spread, text = noise_spread(run), _cost(opponent.cost, answer.unit)
    if answer.unit != SECONDS or answer.cost is None or spread is None or abs(opponent.cost / answer.cost.value - 1) > spread:
        return text
    return f"{text}, the same within the noise floor"


def _cost(cost: float, unit: str) -> str:
    return f"{number(cost)} s per image" if unit == SECONDS else f"{count(cost)} block evaluations per image"


def _tally(run: Run, opponent: Opponent) -> str:
    words = {
        Verdict.BETTER: "better on",
        Verdict.WORSE: "worse on",
        Verdict.INDISTINGUISHABLE: "can't tell on",
        Verdict.NOT_COMPARABLE: "not comparable on",
    }
    parts = [
        f"{text} {', '.join(title_of(run, m) for m in opponent.metrics(v))}" for v, text in words.items() if opponent.metrics(v)
    ]
    return "; ".join(parts) or "no metric was scored"


def facts(run: Run) -> list[tuple[str, str]]:
    """Name and value of everything that shaped the numbers, in reading order."""
    spec, env = run.spec, run.environment
    timing = spec.get("timing", {})
    commit = str(env.get("commit") or "not recorded") + (" with uncommitted changes" if env.get("dirty") else "")
    machine = [str(env[key]) for key in ("device_name", "device") if env.get(key)]
    rows = [
        ("Preset", f"{spec['name']} (specification {spec.get('digest', 'without digest')})"),
        ("Pipeline", str(spec.get("pipeline", "not recorded"))),
        ("Device", ", ".join(machine) or "not recorded"),
        ("Precision", str(spec.get("precision", "not recorded"))),
        ("Solver", f"{spec.get('solver')}, {spec.get('steps')} steps, guidance {spec.get('guidance')}"),
        ("Images", f"N = {spec.get('samples')}, seed {spec.get('seed')}, prompts {spec.get('prompts')}"),
        ("Timing", f"{timing.get('rounds')} interleaved rounds of batch {timing.get('batch')}, {timing.get('warmup')} untimed"),
        ("Noise floor", noise_sentence(run)),
        ("Command", str(env.get("command") or "not recorded in this run")),
        ("Commit", commit),
        ("Created", str(env.get("created") or "not recorded")),
    ]
    used = {"commit", "dirty", "device", "device_name", "command", "created"}
    return rows + [(key, str(value)) for key, value in sorted(env.items()) if key not in used]


def noise_sentence(run: Run) -> str:
    """The A/A spread in words."""
    spread = noise_spread(run)
    if spread is None:
        return "not measured: full was not timed twice in one round"
    return f"full timed twice in each round differs by up to {spread:.1%}; a smaller difference in speed means nothing"


def failures(run: Run) -> list[tuple[str, str, str]]:
    """(method, what, reason) of everything that has no number, in table order."""
    found = []
    for label in method_order(run):
        if record_of(run, label) is None:
            found.append((label, "method", failure_of(run, label)))
            continue
        if not len(seconds_per_image(run, label)):
            found.append((label, "timing", "not timed in this run"))
        scores = [(metric, score_of(run, label, metric)) for metric in metric_order(run)]
        found += [(label, title_of(run, metric), score.reason) for metric, score in scores if isinstance(score, Failure)]
    return found
