"""``ilf-bench run``: from a preset to records, history and report."""

from __future__ import annotations

import importlib.util
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from baselines.table import BASELINES
from harness.contracts import BASELINE, Failure, Method, Metric, Plan
from harness.errors import HarnessError, NotMeasured, UsageError
from harness.loading import find_backbone, load_pipeline, quiet_libraries, resolve_device
from harness.methods import MethodTable, parse_method
from harness.pipeline import Pipeline
from harness.prompts import load_prompts
from harness.random_weights import is_random
from harness.records import read_run
from harness.runner import Experiment, Runner, check_disk, method_labels
from harness.spec import ExperimentSpec, load_spec, locate
from harness.store import History
from ilf.method import ILF_METHODS
from metrics.context import MetricContext
from metrics.table import METRICS
from reports.answers import answers
from reports.build import build_report
from reports.terminal import terminal_table

BUILT_IN: MethodTable = {**BASELINES, **ILF_METHODS}


@dataclass(frozen=True)
class Prepared:
    """A validated experiment and what it will cost."""

    experiment: Experiment
    plans: dict[str, Plan | Failure]


def split(text: str | None) -> tuple[str, ...] | None:
    """Comma-separated words, or None."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


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


def prepare(preset: str, overrides: dict[str, Any], plugins: Sequence[Path]) -> Prepared:
    """Validate everything that can be validated before a weight is loaded."""
    quiet_libraries()
    spec = load_spec(preset, overrides)
    resolve_device(spec.device)
    backbone = find_backbone(spec)
    table = {**BUILT_IN, **load_plugins(plugins)}
    built = [parse_method(text, table) for text in spec.methods]
    methods = method_labels(built)
    texts = {method.label: text for method, text in zip(built, spec.methods, strict=True)}
    plan = Plan.full(backbone, spec.steps, spec.guidance, spec.solver)
    plans = {label: predict(label, method, plan) for label, method in methods.items()}
    listed = load_prompts(spec.prompts)
    experiment = Experiment(spec, methods, texts, build_metrics(spec), listed.repeated(spec.samples), listed.record())
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
    unknown = [name for name in spec.metrics if name not in METRICS]
    if unknown:
        raise UsageError(expected=f"metrics out of {', '.join(METRICS)}", got=unknown[0], remedy="see ilf-bench list metrics")
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


def execute(prepared: Prepared, out: Path, console: Console) -> list[Failure]:
    """Run, record in the history, report. Returns the failures."""
    experiment = prepared.experiment
    pipeline = load_pipeline(experiment.spec)
    check_disk(experiment, out, image_pixels(pipeline))
    runner = Runner(experiment, pipeline, out, console, command=shlex.join(["ilf-bench", *sys.argv[1:]]))
    console.print(f"run: {runner.folder}", soft_wrap=True)
    failures = runner.run()
    run = read_run(runner.folder)
    History(out / "history.sqlite").append(run)
    page = build_report(runner.folder)
    console.print(terminal_table(run))
    console.print("Better than fewer steps at its cost? The report has the reasons and the intervals.")
    for answer in answers(run):
        console.print(f"  {answer.label}: {answer.headline}", markup=False, highlight=False)
    for failure in failures:
        console.print(f"failed: {failure.method} {failure.metric}: {failure.reason}", markup=False, soft_wrap=True)
    console.print(f"report: {page}", soft_wrap=True)
    return failures


def image_pixels(pipeline: Pipeline) -> int:
    """Pixels of one image."""
    _, height, width = pipeline.latent_shape
    scale = 2 ** (len(pipeline.pipe.vae.config.block_out_channels) - 1)
    return int(height * width * scale * scale)


def print_dry_run(prepared: Prepared, out: Path, console: Console) -> None:
    """Cost in block evaluations, expected time from one short timed batch, and disk."""
    experiment = prepared.experiment
    spec, pipeline = experiment.spec, load_pipeline(experiment.spec)
    disk = check_disk(experiment, out, image_pixels(pipeline))
    batch = min(spec.batch, spec.samples)
    with pipeline.sampling(steps=2), pipeline.counting() as counter:
        pipeline.generate(experiment.prompts[:batch], spec.seed, range(batch))
        counter.rows, start = 0, time.perf_counter()
        pipeline.generate(experiment.prompts[:batch], spec.seed, range(batch))
        per_block = (time.perf_counter() - start) / counter.rows
    table = Table(
        "method", "block evaluations / image", "of full", "s / image", title=f"{spec.name}: {spec.samples} images a method"
    )
    full = pipeline.plan().block_evaluations
    timed = spec.timing.batch * (spec.timing.rounds + spec.timing.warmup)
    total = 0.0
    for label, plan in prepared.plans.items():
        if isinstance(plan, Failure):
            table.add_row(label, escape(plan.reason), "", "")
            continue
        cost = plan.block_evaluations
        total += cost * per_block * (spec.samples + timed * (2 if label == BASELINE else 1))
        most = "" if plan.exact else "at most "
        table.add_row(label, f"{most}{cost:.0f}", f"{cost / full:.2f}", f"{cost * per_block:.4f}")
    console.print(table)
    console.print(f"expected time: about {total / 60:.1f} min, start-up and scoring aside; disk: {disk / 1e6:.1f} MB")
