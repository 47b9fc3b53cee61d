"""The field page: every rival against fewer steps at equal cost, and the Pareto front of each metric, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.results import BASELINE, Kind
from harness.storage.records import Run
from reports.analysis.answers import Answer, Outcome, answers
from reports.analysis.evidence import BLOCKS, SECONDS
from reports.analysis.pareto import survey_front
from reports.analysis.select import method_order, metric_order, plain_pipeline, record_of, rounds_of, same_round_ratio
from reports.format import count, interval_text, number
from reports.render.markdown import plain_table
from reports.render.words import TINY_WARNING, facts, failures, title_of

AXES: tuple[Kind, ...] = ("precision", "compilation")
LIKELY = 0.5  # methods that are on a front in fewer of the draws are left out of its line


@dataclass(frozen=True)
class FieldRun:
    """A run of a field preset; ``chosen`` settings of each rival; ``untunable`` ones with reasons; the images that each was
    tuned with, and their seed."""

    run: Run
    chosen: Mapping[str, tuple[str, ...]]
    untunable: Mapping[str, str]
    tuning_images: int
    tuning_seed: int


def field_page(runs: Sequence[FieldRun], command: str) -> str:
    """docs/results/field.md from measured runs alone; ``command`` is what wrote it."""
    parts = [
        "# The field",
        f"Written by `{command}`; every number comes from the runs named below. {TINY_WARNING.capitalize()}.",
        HOW.format(images=runs[0].tuning_images, tuned=runs[0].tuning_seed, judged=runs[0].run.spec["seed"]),
    ]
    for one in runs:
        parts += [f"## {one.run.spec.get('title') or one.run.spec['name']}", *_sections(one)]
    return "\n\n".join(parts) + "\n"


HOW = """\
How to read it. Each row answers one question for each metric: is the method better than taking fewer steps at equal cost? The
cost is block evaluations per image, counted while sampling. The rival is the plain pipeline with fewer steps, with the solver
that is hardest to beat (better spaced timesteps count as one); where no step count costs exactly as much, the images of two
are mixed. The number is the method's advantage (positive is better) with the 95% interval of that one comparison; the outcomes
hold for all methods and metrics of a model together (Holm).
Solvers are judged by their own rows and are part of the rival. A method that costs more than every fewer-steps row and is not
better than the most expensive of them is "not better, more expensive".

How the settings were chosen. Every method, ILF among them, was tried in six settings on training prompts and a tuning seed
({tuned}), with the same number of images each ({images} per method). For each of two budgets (60% and 40% of the full run's
blocks) the setting whose images are nearest to the full run's (mean squared distance of the pixels) was kept; where no
setting stays within a budget, the cheapest was. What was tried, and with what result, is in field-tuning-text.json and
field-tuning-class.json beside this page. The images judged here come from another seed ({judged}) and, for text, from
held-out captions.

What is not equal. Trainings, searches and calibrations are charged in the table, not to the budget; the seconds are wall time
of one busy thread on a shared machine, so upper bounds. Learned rivals were trained on these models for minutes, less than in
their papers (HarmoniCa for 40 iterations), ILF for two to three hours. ILF's form and timesteps were designed on these two models
(ilf-study.md); the rivals came with their papers' forms. So that ILF is not the only one with better spaced timesteps, four
caches run on the same ones, with fewer steps, as methods of their own. Methods that were published for 20 to 250 steps of
models with 28 blocks may fare better there: this page says nothing about large models.

Two things to keep in mind. Three scores measure the distance to the full run's own images: a method that is better than the
full run, or only different, loses there. And the tuning looked at that distance, so the scores that do not (FID, CLIP score,
CLIP-IQA, ImageReward) were not tuned for by anybody."""


def _sections(one: FieldRun) -> list[str]:
    run = one.run
    found = answers(run, BLOCKS)
    rivals = [answer for answer in found if not is_axis(run, answer.label)]
    axes = [answer.label for answer in found if is_axis(run, answer.label)]
    parts = [f"![Cost against every score of every method](images/{run.spec['name']}.png)", "### In short", _tally(run, rivals)]
    parts += ["### Better than fewer steps at this cost?", _answers(run, rivals), "### Pareto fronts", _fronts(run)]
    parts += ["### Fewer steps and other solvers", _plain(run)]
    if axes:
        parts += ["### Precision and systems", _axes(run, axes)]
    if gone := _gone(one):
        parts += ["### Not measured", gone]
    facts_of = [(name, value) for name, value in facts(run) if name != "Command"]
    return [*parts, "### How it was measured", "\n".join(f"- {name}: {value}" for name, value in facts_of)]


def _tally(run: Run, found: Sequence[Answer]) -> str:
    """How often each answer was given, metric by metric, and to whom yes."""
    judged = [answer for answer in found if answer.cost is not None]
    outcomes = (Outcome.YES, Outcome.CANNOT_TELL, Outcome.WORSE, Outcome.NO_GAIN)
    lines = [["Score", *(outcome.value for outcome in outcomes), "better than fewer steps"], ["---"] * 6]
    for metric in metric_order(run):
        given = {outcome: [a.label for a in judged if a.rulings[metric].outcome is outcome] for outcome in outcomes}
        lines.append([title_of(run, metric), *(str(len(given[o])) for o in outcomes), ", ".join(given[Outcome.YES]) or "none"])
    return f"{len(judged)} settings of {len(found)} could be judged.\n\n{plain_table(lines)}"


def _gone(one: FieldRun) -> str:
    """What has no number, one line for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for label, what, reason in [*failures(one.run), *((text, "tuning", reason) for text, reason in one.untunable.items())]:
        reasons.setdefault((what, reason.partition(" (generate ")[0]), []).append(label)
    everyone = len(one.run.methods)
    lines = [["What", "Why", "Methods"], ["---"] * 3]
    for (what, reason), labels in reasons.items():
        lines.append([what, reason, "all" if len(labels) == everyone > 1 else ", ".join(labels)])
    return plain_table(lines) if reasons else ""


def is_axis(run: Run, label: str) -> bool:
    """Whether a method changes precision or compilation, so that only seconds measure its cost."""
    record = run.described.get(label)
    return record is not None and not record.kinds.isdisjoint(AXES)


def _answers(run: Run, found: Sequence[Answer]) -> str:
    metrics = metric_order(run)
    by_time = {answer.label: answer.headline for answer in answers(run, SECONDS)} if rounds_of(run, BASELINE) else {}
    timed = ["× full in seconds", "at equal seconds"] if by_time else []
    heads = ["Method", "Blocks", "relative cost", *timed, "Training or calibration, s", "Parameters"]
    lines = [[*heads, *(title_of(run, m) for m in metrics)], ["---"] * (len(heads) + len(metrics))]
    full = next((m.block_evaluations for m in run.methods if m.label == BASELINE), None)
    for answer in sorted(found, key=lambda a: a.cost.value if a.cost else 0.0):
        record = record_of(run, answer.label)
        if record is None or answer.cost is None:
            continue
        ratio = same_round_ratio(run, BASELINE, answer.label)
        times = [interval_text(ratio) if ratio else "–", by_time.get(answer.label, "–")] if timed else []
        spent = (record.training_s or 0.0) + (record.calibration_s or 0.0)
        extra = count(record.extra_parameters) if record.extra_parameters else "–"
        share = number(answer.cost.value / full, 2) if full else "–"
        costs = [count(round(answer.cost.value)), share, *times, count(math.ceil(spent)) if spent else "–", extra]
        lines.append([answer.label, *costs, *(_cell(answer, m) for m in metrics)])
    return plain_table(lines)


def _cell(answer: Answer, metric: str) -> str:
    ruling = answer.rulings[metric]
    if ruling.advantage is None:
        return ruling.outcome.value
    return f"{ruling.outcome.value}: {interval_text(ruling.advantage, signed=True)}"


def _fronts(run: Run) -> str:
    lines = ["Methods in order of cost; in brackets the share of bootstrap draws in which each is on the front.", ""]
    for metric in metric_order(run):
        survey = survey_front(run, metric, BLOCKS)
        if survey is None:
            lines.append(f"- {title_of(run, metric)}: too few scores.")
            continue
        costs = {m.label: m.block_evaluations or 0.0 for m in run.methods}
        likely = [label for label, p in survey.probability.items() if p >= LIKELY]
        on = [f"{label} ({survey.probability[label]:.2f})" for label in sorted(likely, key=lambda label: costs[label])]
        gain = f"{survey.gain.value:.3f} [{survey.gain.low:.3f}, {survey.gain.high:.3f}]"
        lines.append(f"- {title_of(run, metric)}: {', '.join(on)}. Accelerators add {gain} to the dominated area.")
    return "\n".join(lines)


def _plain(run: Run) -> str:
    metrics = metric_order(run)
    lines = [["Method", "Blocks", *(title_of(run, m) for m in metrics)], ["---"] * (len(metrics) + 2)]
    for label in method_order(run):
        record = record_of(run, label)
        if record is not None and plain_pipeline(run, label) is not None:
            lines.append([label, count(round(record.block_evaluations or 0.0)), *_scores(run, label)])
    return plain_table(lines)


def _scores(run: Run, label: str) -> list[str]:
    scores = [run.scores.get((label, metric)) for metric in metric_order(run)]
    return [number(value) if (value := getattr(score, "value", None)) is not None else "–" for score in scores]


def _axes(run: Run, labels: Sequence[str]) -> str:
    metrics = metric_order(run)
    lines = [["Method", f"Speed-up of the full run ({SECONDS})", *(title_of(run, m) for m in metrics)]]
    lines += [["---"] * (len(metrics) + 2)]
    for label in labels:
        ratio = same_round_ratio(run, BASELINE, label)
        text = interval_text(ratio) if ratio else "not measured" if record_of(run, label) is None else "not timed in this run"
        lines.append([label, text, *_scores(run, label)])
    return plain_table(lines)
