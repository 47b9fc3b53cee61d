"""The field page: every rival against fewer steps at equal cost, and the Pareto front of each metric, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.records import Run
from reports.answers import Answer, answers
from reports.evidence import BLOCKS, SECONDS
from reports.format import count, interval_text, number
from reports.pareto import survey_front
from reports.select import method_order, metric_order, plain_pipeline, record_of, same_round_ratio
from reports.words import TINY_WARNING, facts, failures, title_of

AXES = ("int8", "fp8", "compile", "cuda-graphs")
LIKELY = 0.5  # methods that are on a front in fewer of the draws are left out of its line


@dataclass(frozen=True)
class FieldRun:
    """A run of a field preset; ``chosen`` settings of each rival; ``untunable`` ones with reasons; the images that each was
    tuned with."""

    run: Run
    chosen: Mapping[str, tuple[str, ...]]
    untunable: Mapping[str, str]
    tuning_images: int


def field_page(runs: Sequence[FieldRun]) -> str:
    """docs/field.md from measured runs alone."""
    parts = [
        "# The field",
        f"Written by `python -m benchmarks.field`; every number comes from the runs named below. {TINY_WARNING.capitalize()}.",
        HOW.format(images=runs[0].tuning_images),
    ]
    for one in runs:
        parts += [f"## {one.run.spec.get('title') or one.run.spec['name']}", *_sections(one)]
    return "\n\n".join(parts) + "\n"


HOW = """\
How to read it. Each row answers one question for each metric: is the method better than taking fewer steps at equal cost? The
cost is block evaluations an image, counted while sampling; the opponent is the fewer-steps curve of the solver that is hardest
to beat, mixed to just that cost. The number is the method's advantage (positive is better) with its 95% interval; yes and no
hold for all methods and metrics together (Holm). Solvers are judged by their own rows and are part of the curve.

How the knobs were set. Every rival, ILF among them, was tried in six settings on training prompts and a tuning seed, with the
same number of images each ({images} a rival). For each of two budgets (60% and 40% of the full run's blocks) the setting whose
images are nearest to the full run's was kept. The images judged here come from another seed and, for text, from held-out
captions. What learned and searched rivals cost before that is in the ledger columns."""


def _sections(one: FieldRun) -> list[str]:
    run = one.run
    found = [answer for answer in answers(run, BLOCKS)]
    rivals = [answer for answer in found if not is_axis(run, answer.label)]
    axes = [answer.label for answer in found if is_axis(run, answer.label)]
    parts = ["### Better than fewer steps at this cost?", _answers(run, rivals), "### Pareto fronts", _fronts(run)]
    parts += ["### Fewer steps and other solvers", _plain(run)]
    if axes:
        parts += ["### Precision and systems", _axes(run, axes)]
    gone = [*failures(run), *((text, "tuning", reason) for text, reason in one.untunable.items())]
    if gone:
        parts += ["### Not measured", _table([["Method", "What", "Why"], ["---"] * 3, *map(list, gone)])]
    return [*parts, "### How it was measured", "\n".join(f"- {name}: {value}" for name, value in facts(run))]


def is_axis(run: Run, label: str) -> bool:
    """Whether a method changes precision or compilation, so that only seconds can tell its cost."""
    record = record_of(run, label)
    parts = record.spec.split("+") if record else label.split(" + ")
    return any(part.strip().split(":")[0].split("(")[0] in AXES for part in parts)


def _answers(run: Run, found: Sequence[Answer]) -> str:
    metrics = metric_order(run)
    lines = [["Method", "Blocks", "of full", "Training s", "Parameters", *(title_of(run, m) for m in metrics)]]
    lines += [["---"] * len(lines[0])]
    full = next((m.block_evaluations for m in run.methods if m.label == "full"), None)
    for answer in sorted(found, key=lambda a: a.cost.value if a.cost else 0.0):
        record = record_of(run, answer.label)
        if record is None or answer.cost is None:
            continue
        share = number(answer.cost.value / full, 2) if full else "–"
        trained = "–" if record.training_s is None else count(round(record.training_s))
        extra = count(record.extra_parameters) if record.extra_parameters else "–"
        lines.append([answer.label, count(round(answer.cost.value)), share, trained, extra, *(_cell(answer, m) for m in metrics)])
    return _table(lines)


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
        if record is None or plain_pipeline(run, label) is None:
            continue
        scores = [run.scores.get((label, metric)) for metric in metrics]
        values = [number(value) if (value := getattr(score, "value", None)) is not None else "–" for score in scores]
        lines.append([label, count(round(record.block_evaluations or 0.0)), *values])
    return _table(lines)


def _axes(run: Run, labels: Sequence[str]) -> str:
    lines = [["Method", f"Speed-up of the full run ({SECONDS})"], ["---"] * 2]
    for label in labels:
        ratio = same_round_ratio(run, "full", label)
        text = interval_text(ratio) if ratio else "not measured" if record_of(run, label) is None else "not timed in this run"
        lines.append([label, text])
    return _table(lines)


def _table(lines: list[list[str]]) -> str:
    """Markdown from rows of plain text, the second of which is the rule."""
    return "\n".join("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines)
