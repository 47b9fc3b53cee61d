"""What a run and a dry run print: a table, the verdicts, and what went otherwise than promised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from harness.contracts import why_unscored
from harness.cost.memory import gib
from harness.cost.plan import Plan
from harness.execution.experiment import Experiment
from harness.execution.part import Part
from harness.results import Failure
from harness.sampling import encoded
from harness.storage.locations import history_path, is_local
from harness.storage.records import Run
from harness.terminal import terminal_text
from ilf_bench.console import print_line, print_whole
from ilf_bench.experiment import DryRun, Executed, Prepared
from reports.analysis.answers import answers
from reports.render.terminal import Notes, terminal_tables


def print_executed(prepared: Prepared, executed: Executed, console: Console) -> None:
    """The table, a sentence for each accelerator, every failure by name, and where the report lies."""
    out = executed.run.path.parent
    if not is_local(out):
        print_line(f"history: {history_path(out)}: SQLite needs a local disk", console)
    for part in terminal_tables(executed.run, console.width):
        print_whole(console, part)
    print_miscounted(prepared, executed.run, console)
    if executed.since:
        print_line(f"complete since {executed.since}, nothing measured; --again measures it once more", console)
    found = answers(executed.run)
    if found:
        console.print("Better than fewer steps at equal cost? The report has the reasons and the intervals.")
    for answer in found:
        print_line(f"  {answer.label}: {answer.text}", console)
    print_unscored(prepared.experiment, console)
    for failure in executed.failures:
        print_line(f"failed: {failure.method} {failure.metric}: {failure.reason}", console)
    print_line(f"report: {executed.page}", console)


def print_part(part: Part, failures: Sequence[Failure], console: Console) -> None:
    """That one part is done, and every failure by name."""
    for failure in failures:
        print_line(f"failed: {failure.method}: {failure.reason}", console)
    print_line(f"part {part}: its images are stored; the same command without --part times, scores and reports", console)


def print_miscounted(prepared: Prepared, run: Run, console: Console) -> None:
    """Methods whose blocks were predicted exactly, and ran otherwise: such a row is not what its label says."""
    for label, record in run.records.items():
        plan = prepared.plans.get(label)
        if isinstance(plan, Plan) and plan.exact and record.miscounted:
            ran, promised = record.block_evaluations, record.predicted_block_evaluations
            text = f"WARNING: {label} ran {ran:g} block evaluations, but its parts predict {promised:g}"
            print_line(text, console)


def print_unscored(experiment: Experiment, console: Console) -> None:
    """Which methods are timed only, and why."""
    for method in experiment.methods.values():
        if reason := why_unscored(method):
            print_line(f"{method.label}: {reason}", console)


def print_dry_run(prepared: Prepared, dry: DryRun, console: Console) -> None:
    """Cost in block evaluations, expected time and disk."""
    experiment = prepared.experiment
    spec = experiment.spec
    title = f"{spec.name}: {spec.samples} images per method; cost per image"
    table, notes = Table("method", "block evaluations", "relative cost", "seconds", "peak memory", title=title), Notes()
    for label, plan in prepared.plans.items():
        if isinstance(plan, Failure):
            table.add_row(terminal_text(label), notes.mark(plan.reason, label), "", "", "")
            continue
        cost, most = plan.block_evaluations, "" if plan.exact else "at most "
        peak = dry.peaks.get(label)
        table.add_row(
            terminal_text(label),
            f"{most}{cost:.0f}",
            f"{cost / dry.baseline:.2f}",
            f"{dry.seconds_per_image[label]:.4f}",
            "" if peak is None else gib(peak),
        )
    print_whole(console, table)
    for line in notes.lines():
        print_line(line, console)
    print_unscored(experiment, console)
    for line in memory_lines(dry):
        print_line(line, console)
    if dry.prompts_at_once:
        print_line(encoded_prompts(spec.samples, dry), console)
    if dry.busy:
        print_line(f"the machine is busy ({'; '.join(dry.busy)}): on a quiet one it takes less time than this", console)
    console.print(
        f"expected time: about {dry.seconds / 60:.1f} min, without start-up and scoring; disk: {dry.disk_bytes / 1e6:.1f} MB"
    )


def encoded_prompts(samples: int, dry: DryRun) -> str:
    """How often each prompt is encoded, and the memory that this takes."""
    kept = f"{dry.prompt_bytes / 1e6:.1f} MB on the host, of at most {encoded.KEPT_BYTES / 1e6:.0f} MB"
    if dry.prompts_at_once >= samples:
        return f"encoded prompts: {kept}: each is encoded once for all methods"
    return f"encoded prompts: {kept}: {dry.prompts_at_once} at a time go through all methods, and each is encoded once"


def memory_lines(dry: DryRun) -> Iterator[str]:
    """What the full run is predicted to need on its device in each stage, what there is, and what is done about it."""
    placed = dry.placed
    if placed is not None and placed.predicted is not None:
        stages = placed.predicted.stages(placed.offload)
        parts = ", ".join(f"{name} {gib(size)}" for name, size in stages.items() if size)
        there = f"; {dry.room.words}" if dry.room else ""
        yield f"peak memory, predicted at {placed.predicted.batch} images: {parts}{there}"
    if placed is not None and placed.words:
        yield f"memory: {placed.words}"
