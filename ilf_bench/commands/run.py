"""``ilf-bench run``: from a preset to records, history and report."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from baselines.table import BASELINES
from harness.config.methods import MethodTable, parse_method
from harness.config.prompts import load_prompts
from harness.config.spec import ExperimentSpec, load_spec
from harness.contracts import Method, Metric, why_unscored
from harness.cost.plan import Plan
from harness.errors import HarnessError, NotMeasured, UsageError
from harness.execution.experiment import Experiment, method_labels
from harness.execution.runner import Runner, check_disk
from harness.execution.sampler import image_pixels
from harness.execution.tasks import Engine
from harness.history.store import History
from harness.models.loading import find_backbone, load_pipeline, quiet_libraries, resolve_device
from harness.models.random_weights import is_random
from harness.paths import locate
from harness.results import BASELINE, Failure
from harness.sampling.pipeline import Pipeline
from harness.storage.locations import history_path, is_local
from harness.storage.records import Run, read_run
from harness.timing.stages import StageTimer
from ilf.method import ILF_METHODS
from ilf.untrained import UNTRAINED_METHODS
from ilf_bench.commands.untrained import with_stand_ins
from ilf_bench.console import print_whole
from metrics.context import MetricContext, check_reference_path
from metrics.published.spec import read_scorers
from metrics.table import METRICS
from reports.analysis.answers import answers
from reports.render.build import build_report
from reports.render.terminal import terminal_table

BUILT_IN: MethodTable = {**BASELINES, **ILF_METHODS, **UNTRAINED_METHODS}


@dataclass(frozen=True)
class Prepared:
    """A validated experiment and what it will cost."""

    experiment: Experiment
    plans: dict[str, Plan | Failure]


def split(text: str | None) -> tuple[str, ...] | None:
    """Comma-separated words, or None."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def timing_overrides(rounds: int | None, warmup: int | None, batches: str | None) -> dict[str, Any] | None:
    """Fields of a preset's ``timing`` that options replace, or None. Raises :class:`UsageError` on what is no batch size."""
    changed: dict[str, Any] = {key: n for key, n in (("rounds", rounds), ("warmup", warmup)) if n is not None}
    sizes = split(batches)
    if sizes is not None:
        if not sizes or not all(size.isdecimal() for size in sizes):
            raise UsageError(expected="batch sizes joined by commas", got=repr(batches), remedy="for example --batches 8,1")
        changed |= {"batch": int(sizes[0]), "batches": [int(size) for size in sizes[1:]]}
    return changed or None


def load_plugins(files: Sequence[Path]) -> MethodTable:
    """The ``METHODS`` tables of the user's own files. They are run as Python: only the user names them, on the command line."""
    table: dict[str, Any] = {}
    for file in files:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        if spec is None or spec.loader is None or not file.is_file():
            raise UsageError(expected="a Python file", got=str(file), remedy="see README, 'Your own method'")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            methods = dict(module.METHODS)
        except Exception as error:
            raise UsageError(expected=f"METHODS = {{name: class}} in {file}", got=repr(error), remedy="mend that file") from error
        table |= methods
    return table


def prepare(preset: str, overrides: dict[str, Any], plugins: Sequence[Path], *, here: bool = True) -> Prepared:
    """Validate everything that can be validated before a weight is loaded; the device only where the work is done ``here``."""
    quiet_libraries()
    spec = load_spec(preset, overrides)
    check_metrics(spec.metrics)
    if not (scorers := locate(spec.scorers)).is_dir():
        read_scorers(scorers)
    if spec.reference is not None:
        check_reference_path(locate(spec.reference))
    if here:
        resolve_device(spec.device)
    backbone = find_backbone(spec)
    table = {**BUILT_IN, **load_plugins(plugins)}
    built = [parse_method(text, table) for text in spec.methods]
    plan = Plan.full(backbone, spec.steps, spec.guidance, spec.solver)
    methods = with_stand_ins(method_labels(built), plan, spec, preset)
    texts = {method.label: text for method, text in zip(built, spec.methods, strict=True)}
    plans = {label: predict(label, method, plan) for label, method in methods.items()}
    listed = load_prompts(spec.prompts)
    experiment = Experiment(spec, methods, texts, listed.repeated(spec.samples), listed.record())
    return Prepared(experiment, plans)


def predict(label: str, method: Method, plan: Plan) -> Plan | Failure:
    """The method's cost, or why this one method cannot run here."""
    try:
        return method.plan(plan)
    except NotMeasured as error:
        return Failure(label, "", str(error))


def build_metrics(spec: ExperimentSpec) -> dict[str, Metric | Failure]:
    """The spec's metrics; one that cannot be built is a failure with a reason, and the others still run.

    With random weights all are: no scorer is asked about such images. Raises :class:`UsageError` on an unknown name.
    """
    check_metrics(spec.metrics)
    if is_random(spec.pipeline):
        return {name: Failure("", name, "NOT-MEASURED: random weights") for name in spec.metrics}
    context = MetricContext(
        locate(spec.scorers), spec.task, resolve_device(spec.device), None if spec.reference is None else locate(spec.reference)
    )
    _ = context.networks  # a scorers' file that cannot be read is the command's fault, not a metric's
    built: dict[str, Metric | Failure] = {}
    for name in spec.metrics:
        try:
            built[name] = METRICS[name](context)
        except HarnessError as error:
            built[name] = Failure("", name, str(error))
    return built


def check_metrics(names: Sequence[str]) -> None:
    """Raise :class:`UsageError` on an unknown name."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UsageError(expected=f"metrics out of {', '.join(METRICS)}", got=unknown[0], remedy="see ilf-bench list metrics")


def execute(prepared: Prepared, out: Path, console: Console, make_engine: Callable[[Experiment, Path], Engine]) -> list[Failure]:
    """Run, record in the history, report. Returns the failures."""
    folder = prepared.experiment.folder(out)
    engine = make_engine(prepared.experiment, folder)
    runner = Runner(prepared.experiment, engine, out, console, command=shlex.join(["ilf-bench", *sys.argv[1:]]))
    console.print(f"run: {folder}", soft_wrap=True)
    try:
        failures = runner.run()
    finally:
        engine.close()
    run = read_run(folder)
    history = history_path(out)
    History(history).append(run)
    if not is_local(out):
        console.print(f"history: {history}: SQLite needs a local disk", soft_wrap=True)
    page = build_report(folder)
    print_whole(console, terminal_table(run))
    print_miscounted(prepared, run, console)
    found = answers(run)
    if found:
        console.print("Better than fewer steps at its cost? The report has the reasons and the intervals.")
    for answer in found:
        console.print(f"  {answer.label}: {answer.headline}", markup=False, highlight=False)
    print_unscored(prepared.experiment, console)
    for failure in failures:
        console.print(f"failed: {failure.method} {failure.metric}: {failure.reason}", markup=False, soft_wrap=True)
    console.print(f"report: {page}", soft_wrap=True)
    return failures


def print_miscounted(prepared: Prepared, run: Run, console: Console) -> None:
    """Methods whose blocks were predicted exactly, and ran otherwise: such a row is not what its label says."""
    for label, record in run.records.items():
        plan = prepared.plans.get(label)
        if isinstance(plan, Plan) and plan.exact and record.miscounted:
            ran, promised = record.block_evaluations, record.predicted_block_evaluations
            text = f"WARNING: {label} ran {ran:g} block evaluations where its parts promise {promised:g}"
            console.print(text, markup=False, soft_wrap=True)


def print_unscored(experiment: Experiment, console: Console) -> None:
    """Which methods are timed only, and why."""
    for method in experiment.methods.values():
        if reason := why_unscored(method):
            console.print(f"{method.label}: {reason}", markup=False, highlight=False, soft_wrap=True)


def seconds_per_block(pipeline: Pipeline, experiment: Experiment) -> tuple[float, float]:
    """Seconds a block evaluation, and seconds an image for text and decoding, from the second of two short batches."""
    spec, timer = experiment.spec, StageTimer(pipeline.device)
    batch = min(spec.batch, spec.samples)
    with pipeline.sampling(steps=2), pipeline.counting() as counter:
        pipeline.generate(experiment.prompts[:batch], spec.seed, range(batch))
        counter.rows = 0
        with timer.timing(pipeline.pipe):
            pipeline.generate(experiment.prompts[:batch], spec.seed, range(batch))
    return timer.denoise_s / counter.rows, (timer.text_s + timer.decode_s) / batch


def print_dry_run(prepared: Prepared, out: Path, console: Console) -> None:
    """Cost in block evaluations, expected time from one short timed batch, and disk."""
    experiment = prepared.experiment
    spec, pipeline = experiment.spec, load_pipeline(experiment.spec)
    disk = check_disk(experiment, out, image_pixels(pipeline))
    per_block, fixed = seconds_per_block(pipeline, experiment)
    table = Table(
        "method", "block evaluations / image", "of full", "s / image", title=f"{spec.name}: {spec.samples} images a method"
    )
    full = pipeline.plan().block_evaluations
    timed = sum(spec.timing.all_batches) * (spec.timing.rounds + spec.timing.warmup)
    total = 0.0
    for label, plan in prepared.plans.items():
        if isinstance(plan, Failure):
            table.add_row(label, escape(plan.reason), "", "")
            continue
        cost = plan.block_evaluations
        seconds = cost * per_block + fixed
        scored = spec.batch if why_unscored(experiment.methods[label]) else spec.samples
        total += seconds * (scored + timed * (2 if label == BASELINE else 1))
        most = "" if plan.exact else "at most "
        table.add_row(label, f"{most}{cost:.0f}", f"{cost / full:.2f}", f"{seconds:.4f}")
    print_whole(console, table)
    print_unscored(experiment, console)
    console.print(f"expected time: about {total / 60:.1f} min, start-up and scoring aside; disk: {disk / 1e6:.1f} MB")
